//! Linux, the firmware, Linux: started by `kexec` from a running kernel, with
//! memory that is preserved and a disk that is in use.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use warmbus_boot::report::console::{Event, Section};
use warmbus_cli::trace::Kind;
use warmbus_qemu_tests::boot::{Lab, image};
use warmbus_qemu_tests::consumer;
use warmbus_qemu_tests::debugger::Debugger;
use warmbus_qemu_tests::linux::{LinuxBoot, initramfs, kernel, payload};
use xtask::qemu::{Machine, Payload, UefiStart};

use super::linux as proofs;

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

/// The initrd of a first kernel, with what it starts behind it: the firmware,
/// and for that `kernel` in front of the same initrd.
fn initrd(lab: &Lab, kernel: &Path) -> PathBuf {
    let own = fs::read(initramfs()).unwrap();
    let next = fs::read(kernel).unwrap();
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
    file
}

/// Boots Linux without the firmware, has it do `steps`, with `words` for
/// the next boot stage on its command line.
fn boot(lab: &Lab, steps: &str, words: &str) -> LinuxBoot {
    let file = initrd(lab, kernel());
    let disk = lab.file("disk");
    fs::write(&disk, vec![0; 1 << 20]).unwrap();

    let payload = payload(kernel(), steps);
    let arguments = devices(&disk.to_string_lossy());
    let machine = Machine::kernel(kernel())
        .arguments(arguments)
        .arguments(["-initrd".into(), file.to_string_lossy().into_owned()])
        .bootargs(&format!("{} liveupdate=on {words}", payload.bootargs))
        .trace();
    lab.boot_linux(machine).expect("it boots")
}

/// The same with `kernel` on a machine with UEFI, where no Warmbus is installed.
fn machine_with_uefi(lab: &Lab, kernel: &Path, steps: &str) -> Machine {
    let disk = lab.file("disk");
    fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let given = payload(kernel, steps);
    let payload = Payload {
        initrd: Some(initrd(lab, kernel)),
        bootargs: format!("{} liveupdate=on", given.bootargs),
        ..given
    };
    Machine::uefi(image(), &lab.file("uefi"))
        .payload(payload)
        .arguments(devices(&disk.to_string_lossy()))
        .uefi_start(UefiStart::Shell(&[]))
        .trace()
}

/// The address behind `word` in the log of a Linux.
fn place(log: &str, word: &str) -> u64 {
    let (_, rest) = log.split_once(word).expect(word);
    let digits = rest.trim_start_matches([' ', ':']).trim_start_matches("0x");
    let end = digits.find(|digit: char| !digit.is_ascii_hexdigit());
    u64::from_str_radix(&digits[..end.expect("more follows")], 16).expect(word)
}

/// Boots a Linux with UEFI that starts the firmware and another Linux, and meanwhile
/// turns a bit of what is `offset` bytes behind the place that `word` of its log names.
/// Returns the lines of the console since, and how the machine ended.
fn damaged(word: &str, offset: u64) -> (Vec<String>, Option<String>) {
    let lab = Lab::new();
    let steps = "save,sections,wait,warmbus,summary,load";
    let socket = lab.file("debugger");
    let machine = machine_with_uefi(&lab, kernel(), steps).arguments(Debugger::arguments(&socket));
    let mut running = machine.qmp(&lab.file("qmp")).start().expect("QEMU starts");
    let (mut log, mut lines) = (String::new(), Vec::new());
    while let Some(event) = running.event().expect("QEMU runs") {
        match event {
            Event::Complete(Section::LinuxLog, text) => log = text,
            Event::Waiting => {
                let at = place(&log, word) + offset;
                let mut debugger = Debugger::stop(&socket).unwrap();
                let value = debugger.read(at & !3).unwrap();
                debugger.write(at & !3, value ^ 1 << (at % 4 * 8)).unwrap();
                debugger.go_on().unwrap();
                lines.clear();
                running.type_in("\n").unwrap();
            }
            Event::Text(line) | Event::Starting(line) => lines.push(line),
            _ => {}
        }
    }
    let ended = running.qmp().unwrap().ended().unwrap().map(str::to_owned);
    (lines, ended)
}

/// What the first kernel preserved is in the second, word by word.
fn assert_lives_on(linux: &LinuxBoot) {
    let console = linux.boot.console.join("\n");
    proofs::ended_well(linux);
    for line in [
        "live: 8388608 bytes saved",
        "live: 8388608 bytes, 0 words differ",
    ] {
        let said = |said: &String| said.contains(line);
        assert!(linux.boot.console.iter().any(said), "{line}: {console}");
    }
}

#[test]
fn what_lives_on_is_there_after_the_firmware_and_the_cache_is_new() {
    let steps = "save,warmbus,summary,load,sections,wait";
    let linux = boot(&Lab::new(), steps, "");
    assert_lives_on(&linux);
    let written = linux.boot.lines_with(&["linux: written before"]);
    assert_eq!(written.len(), 1, "{:#?}", linux.boot.console);
    let inherited = linux.boot.lines_with(&["inherited ", "entries, subtrees"]);
    assert_eq!(inherited.len(), 1, "{:#?}", linux.boot.console);
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
        let address: warmbus_pci::Sbdf = name.parse().unwrap();
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

#[test]
fn a_handover_that_no_cache_is_added_to_is_passed_on_as_it_is() {
    let steps = "save,warmbus,load";
    let linux = boot(&Lab::new(), steps, "warmbus.kho=off");
    assert_lives_on(&linux);
    let without = linux
        .boot
        .lines_with(&["starting linux at", "without the cache"]);
    assert_eq!(without.len(), 1, "{:#?}", linux.boot.console);
    assert_eq!(linux.boot.number("/accesses/writes"), 0);
}

#[test]
fn a_cache_that_a_kernel_hands_on_is_replaced_by_a_new_one() {
    let lab = Lab::new();
    let steps = "cache,save,warmbus,cache,compare,load";
    let given = payload(consumer::kernel(), steps);
    let machine = lab.machine("switch").payload(Payload {
        initrd: Some(initrd(&lab, consumer::kernel())),
        bootargs: format!("{} retain_initrd liveupdate=on", given.bootargs),
        ..given
    });
    let linux = lab.boot_linux(machine).expect("it boots");
    assert_lives_on(&linux);
    consumer::matches_hardware(&linux, 1);
    let starts = linux
        .boot
        .lines_with(&["starting linux at", "with the cache"]);
    assert_eq!(starts.len(), 2, "{:#?}", linux.boot.console);

    // No more is inherited than what the kernel itself keeps: nothing of the
    // old cache, whose blocks are at least one entry for each function.
    let functions = linux.boot.report()["functions"].as_array().unwrap().len();
    let inherited = linux.boot.lines_with(&["inherited ", "entries, subtrees"]);
    assert_eq!(inherited.len(), 1, "{:#?}", linux.boot.console);
    assert!(!inherited[0].contains("pcsc"), "{inherited:?}");
    let chain = consumer::counters(&linux);
    assert_eq!(chain.len(), 2);
    for counters in chain {
        assert_eq!(counters["restored"] as usize, functions);
        assert_eq!(counters["rejected"], 0);
    }
}

/// Linux goes on with the tables that the kernel before it has given the interrupt
/// controller, which are in memory that it has reserved by UEFI.
fn interrupt_tables_are_kept(linux: &LinuxBoot) {
    let log = linux.kernel_log();
    println!("{log}");
    assert!(
        log.contains("Using preallocated redistributor tables"),
        "{log}"
    );
}

#[test]
fn on_a_machine_with_acpi_what_lives_on_is_there_and_the_cache_is_new() {
    let steps = "save,warmbus,summary,load,sections,wait";
    let lab = Lab::new();
    let machine = machine_with_uefi(&lab, kernel(), steps);
    let linux = lab.boot_linux(machine).expect("it boots");
    assert_lives_on(&linux);
    assert_eq!(linux.boot.number("/accesses/writes"), 0);
    interrupt_tables_are_kept(&linux);
    proofs::subtree_arrived(&linux);
    let log = linux.kernel_log();
    for line in [
        "ACPI: Interpreter enabled",
        "efi: EFI v",
        "luo: Retrieved live update data",
    ] {
        assert!(log.contains(line), "no {line:?} in {log}");
    }
}

#[test]
fn on_a_machine_with_acpi_a_kernel_that_reads_the_cache_uses_it() {
    let steps = "save,warmbus,cache,compare,load,sections,wait";
    let lab = Lab::new();
    let machine = machine_with_uefi(&lab, consumer::kernel(), steps);
    let linux = lab.boot_linux(machine).expect("it boots");
    assert_lives_on(&linux);
    consumer::matches_hardware(&linux, 1);
    let counters = &consumer::counters(&linux)[0];
    assert_eq!(
        counters["restored"] as usize,
        linux.functions().unwrap().len()
    );
    assert!(counters["hits"] > 50, "{counters:?}");
}

#[test]
fn on_a_machine_with_uefi_and_a_device_tree_what_lives_on_is_there_as_well() {
    let steps = "save,warmbus,summary,load,sections,wait";
    let lab = Lab::new();
    let machine = machine_with_uefi(&lab, kernel(), steps).machine_option("acpi=off");
    let linux = lab.boot_linux(machine).expect("it boots");
    assert_lives_on(&linux);
    assert_eq!(linux.boot.number("/accesses/writes"), 0);
    interrupt_tables_are_kept(&linux);
    proofs::subtree_arrived(&linux);
    assert!(linux.kernel_log().contains("efi: EFI v"));
}

#[test]
fn where_the_tables_are_damaged_the_kernel_starts_with_what_lives_on() {
    // The checksum of the MCFG, which Linux does not insist on.
    let (lines, ended) = damaged("ACPI: MCFG", 9);
    assert_eq!(ended.as_deref(), Some("guest-shutdown"));
    for line in [
        "warning: an ACPI table is excluded: the bytes of the table at ",
        "no cache handed over: no function was captured",
        "live: 8388608 bytes, 0 words differ",
        "PCI functions      4",
    ] {
        let said = lines.iter().filter(|said| said.contains(line));
        assert_eq!(said.count(), 1, "{line}: {lines:#?}");
    }
}

#[test]
fn where_nothing_can_be_started_the_machine_starts_again() {
    // The signature of the system table, without which Linux finds no memory either.
    let (lines, ended) = damaged("System Table", 0);
    assert_eq!(ended.as_deref(), Some("guest-reset"), "{lines:#?}");
}
