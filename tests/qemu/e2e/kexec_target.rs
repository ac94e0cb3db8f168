//! Linux, the firmware, Linux: started by `kexec` from a running kernel, with
//! memory that is preserved and a disk that is in use.

use std::collections::BTreeSet;
use std::fs;

use warmbus_qemu_tests::boot::{Lab, image};
use warmbus_qemu_tests::linux::{LinuxBoot, initramfs, kernel, payload};
use xtask::console::Outcome;
use xtask::qemu::Machine;
use xtask::trace::Kind;

/// The topology of the test: a root port with the disk, and a device beside it.
fn devices(disk: &str) -> Vec<String> {
    let devices = [
        "-device",
        "pcie-root-port,id=rp1,chassis=1,slot=1",
        "-drive",
        &format!("if=none,id=disk,format=raw,file={disk}"),
        "-device",
        "nvme,serial=a,drive=disk,bus=rp1",
        "-device",
        "virtio-rng-pci",
    ];
    devices.map(String::from).to_vec()
}

fn boot(lab: &Lab) -> LinuxBoot {
    // The next kernel in front of the initrd, for the firmware; both, and the
    // firmware, behind the initrd of the first kernel.
    let own = fs::read(initramfs()).unwrap();
    let next = fs::read(kernel()).unwrap();
    let mut bundle = xtask::linux::further(&[("warmbus/kernel".into(), next)]).unwrap();
    bundle.extend_from_slice(&own);
    let firmware = fs::read(image()).unwrap();
    let files = [
        ("kexec/warmbus.img".into(), firmware),
        ("kexec/payload".into(), bundle),
    ];
    let mut initrd = own;
    initrd.extend_from_slice(&xtask::linux::further(&files).unwrap());
    let file = lab.file("initrd");
    fs::write(&file, initrd).unwrap();
    let disk = lab.file("disk");
    fs::write(&disk, vec![0; 1 << 20]).unwrap();

    let payload = payload(kernel(), "save,warmbus,summary,load,sections,wait");
    let arguments = devices(&disk.to_string_lossy());
    let machine = Machine::kernel(kernel())
        .arguments(arguments)
        .arguments(["-initrd".into(), file.to_string_lossy().into_owned()])
        .bootargs(&format!("{} liveupdate=on", payload.bootargs))
        .trace();
    lab.boot_linux(machine).expect("it boots")
}

#[test]
fn what_lives_on_is_there_after_the_firmware_and_the_cache_is_new() {
    let linux = boot(&Lab::new());
    let console = linux.boot.console.join("\n");
    assert_eq!(linux.boot.outcome, Some(Outcome::Ok), "{console}");
    assert!(
        linux.started && linux.done && linux.powered_off,
        "{console}"
    );
    let said = |line: &str| linux.boot.console.iter().any(|said| said.contains(line));

    // The first kernel preserved memory, the second has it, word by word, and
    // what was on the disk.
    assert!(said("live: 8388608 bytes saved"), "{console}");
    assert!(said("live: 8388608 bytes, 0 words differ"), "{console}");
    assert!(said("written before"), "{console}");
    assert!(said("inherited "), "{console}");
    let log = linux.kernel_log();
    for line in [
        "KHO: found kexec handover data",
        "luo: Retrieved live update data",
        "KHO: exec from: ",
    ] {
        assert!(log.contains(line), "{log}");
    }

    // Nothing was written to configuration space meanwhile.
    assert_eq!(linux.boot.number("/accesses/writes"), 0);

    // The cache arrived.
    let written = linux.boot.console.iter();
    let mut written = written.filter_map(|line| line.strip_prefix("pcsc "));
    let written = written.next().unwrap().trim();
    let (size, _) = written.split_once(" at ").unwrap();
    let (_, crc) = written.split_once(", ").unwrap();
    let expected = format!("{size}, {crc}");
    assert_eq!(linux.summary("PCI cache"), [&expected]);

    // And every cached byte is what Linux reads, but where somebody wrote.
    let functions = linux.functions().unwrap();
    assert_eq!(
        linux.blocks.keys().collect::<Vec<_>>(),
        functions.keys().collect::<Vec<_>>()
    );
    let touched: BTreeSet<_> = linux
        .boot
        .accesses()
        .into_iter()
        .filter(|access| access.kind == Kind::Write)
        .map(|access| (access.bus, access.devfn, usize::from(access.offset & !3)))
        .collect();
    let mut compared = 0;
    let mut differences = Vec::new();
    for (name, block) in &linux.blocks {
        let address: warmbus::pci::Sbdf = name.parse().unwrap();
        for (at, value) in block.cached() {
            if touched.contains(&(address.bus(), address.devfn(), at & !3)) {
                continue;
            }
            compared += 1;
            if functions[name].config.get(at) != Some(&value) {
                differences.push(format!("{name} {at:#x}"));
            }
        }
    }
    assert_eq!(differences, [""; 0]);
    assert!(compared > 40 * functions.len(), "{compared}");
}
