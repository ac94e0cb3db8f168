//! Servers: started by UEFI, described by ACPI.

use std::fs::{self, File};
use std::path::Path;

use warmbus_boot::report::console::Event;
use warmbus_cli::trace;
use warmbus_qemu_tests::boot::{Lab, image, topology};
use warmbus_qemu_tests::linux::{self, LinuxBoot, payload};
use warmbus_qemu_tests::{consumer, pci};
use xtask::qemu::{LOAD_DRIVER, Machine, Running, UefiLoader, UefiStart};

use super::linux as proofs;

/// Warmbus is a driver, and the shell starts the kernel.
pub(super) const AS_DRIVER: UefiStart = UefiStart::Shell(&[LOAD_DRIVER]);

/// A machine with UEFI, the firmware image and `kernel` on its volume.
pub(super) fn machine(lab: &Lab, kernel: &Path, steps: &str) -> Machine {
    Machine::uefi(image(), &lab.file("uefi"))
        .topology(&topology("switch"))
        .payload(payload(kernel, steps))
        .trace()
}

/// Linux learned the machine from ACPI and memory from UEFI, and can
/// call UEFI.
fn acpi_and_uefi_work(linux: &LinuxBoot) {
    let log = linux.kernel_log();
    for line in [
        "ACPI: Interpreter enabled",
        "ACPI: PCI Root Bridge",
        "efi: EFI v",
        "MEMRESERVE=",
        "KHO: found kexec handover data",
        "Remapping and enabling EFI services",
    ] {
        assert!(log.contains(line), "no {line:?} in {log}");
    }
    assert!(!log.contains("UEFI virtual mapping missing"), "{log}");
}

/// Warmbus found the functions that QEMU has, wrote nothing, and Linux sees
/// the same functions on the same buses.
pub(super) fn buses_are_kept(linux: &LinuxBoot) {
    let [own, _] = linux.accesses_of_both();
    let counts = trace::counts(&own);
    assert!(counts.reads > 0);
    assert_eq!(counts.writes, 0);

    let theirs = linux.functions().unwrap();
    let (report, qemu) = (pci::of_report(&linux.boot.report()), linux.boot.pci());
    let names: Vec<_> = report.iter().map(pci::Function::name).collect();
    assert_eq!(theirs.keys().cloned().collect::<Vec<_>>(), names);
    let found: Vec<_> = qemu.iter().map(pci::Function::name).collect();
    assert_eq!(found, names);
    assert!(report.iter().any(|function| function.bus > 6));
    for (our, qemu) in report.iter().zip(&qemu) {
        let name = our.name();
        assert_eq!((our.ids, our.class), (qemu.ids, qemu.class), "{name}");
        let Some(bridge) = our.bridge else {
            continue;
        };
        let now = qemu.bridge.expect("a bridge stays one");
        assert_eq!(bridge.buses, now.buses, "buses of {name} in QEMU");
        let buses = [0x18, 0x19, 0x1a].map(|at| u64::from(theirs[&name].config[at]));
        assert_eq!(bridge.buses, buses, "buses of {name} in Linux");
    }
}

#[test]
fn linux_receives_the_cache_and_all_of_it_is_true() {
    let lab = Lab::new();
    let machine = machine(&lab, linux::kernel(), proofs::SECTIONS);
    let linux = lab.boot_linux(machine).expect("it boots");
    proofs::subtree_arrived(&linux);
    acpi_and_uefi_work(&linux);
    buses_are_kept(&linux);
    proofs::cache_is_true(&linux);
    proofs::log_is_clean(&linux);
}

/// Addresses of memory BARs, by function and offset: of the report, and in what
/// Linux shows of configuration space.
fn addresses(linux: &LinuxBoot) -> [Vec<(String, u64)>; 2] {
    let functions = linux.functions().expect("Linux lists them");
    let mut both = [Vec::new(), Vec::new()];
    for function in pci::of_report(&linux.boot.report()) {
        let name = function.name();
        for (&index, region) in &function.regions {
            let Some(address) = region.address.filter(|_| !region.io) else {
                continue;
            };
            let at = usize::from(function.register(index));
            let bytes = functions[&name].config[at..at + 4].try_into();
            let low = u32::from_le_bytes(bytes.expect("four bytes")) & !0xf;
            both[0].push((name.clone(), address & 0xffff_fff0));
            both[1].push((name.clone(), low.into()));
        }
    }
    both
}

/// A kernel that reads the cache took it, and was handed the truth.
pub(super) fn the_cache_is_used(linux: &LinuxBoot) {
    acpi_and_uefi_work(linux);
    consumer::matches_hardware(linux, 1);
    let counters = &consumer::counters(linux)[0];
    assert!(
        counters["restored"] > 10 && counters["hits"] > 200,
        "{counters:?}"
    );
    let [handed, kept] = addresses(linux);
    assert!(handed.len() > 5);
    assert_eq!(kept, handed);
}

/// The steps of a Linux that reads the cache.
pub(super) fn steps() -> String {
    format!("cache,compare,{}", proofs::SECTIONS)
}

/// Boots a kernel that reads the cache, started by `start`.
fn starts_with_the_cache(start: UefiStart) {
    let lab = Lab::new();
    let machine = machine(&lab, consumer::kernel(), &steps()).uefi_start(start);
    let linux = lab.boot_linux(machine).expect("it boots");
    the_cache_is_used(&linux);
    buses_are_kept(&linux);
}

#[test]
fn a_kernel_that_uses_the_cache_keeps_the_addresses_that_it_was_handed() {
    starts_with_the_cache(UefiStart::Application);
}

#[test]
fn as_a_driver_it_hands_over_to_the_kernel_that_the_shell_starts() {
    starts_with_the_cache(AS_DRIVER);
}

#[test]
fn systemd_boot_loads_the_driver_and_a_kernel_that_finds_the_cache() {
    starts_with_the_cache(UefiStart::Loader(UefiLoader::SystemdBoot));
}

/// GRUB 2.12 of Debian has a loader of its own for kernels: `LoadImage` and
/// `StartImage` of UEFI are not called.
#[test]
fn grub_loads_the_kernel_by_itself_and_the_kernel_finds_the_cache() {
    starts_with_the_cache(UefiStart::Loader(UefiLoader::Grub));
}

/// GRUB 2.06 gives the initrd in a device tree of its own, which is there before ours.
#[test]
fn grub_of_debian_12_gives_its_initrd_beside_the_cache() {
    starts_with_the_cache(UefiStart::Loader(UefiLoader::Grub206));
}

#[test]
fn the_kernel_of_a_unified_image_finds_the_cache() {
    starts_with_the_cache(UefiStart::Loader(UefiLoader::Uki));
}

/// Devices that UEFI has drivers for, which it stops when Linux takes over.
const DRIVEN: [&str; 9] = [
    "pcie-root-port,id=storage,chassis=1,slot=1",
    "nvme,bus=storage,serial=warmbus,drive=empty",
    "virtio-blk-pci,drive=files",
    "virtio-net-pci,netdev=net,bootindex=0",
    "virtio-gpu-pci",
    "qemu-xhci,id=usb",
    "usb-kbd,bus=usb.0",
    "usb-storage,bus=usb.0,drive=stick",
    "virtio-rng-pci",
];

/// All drivers are started, and the shell reads a file where there is one.
const USE: [&str; 6] = [
    LOAD_DRIVER,
    "connect",
    "map -r",
    "for %a in 0 1 2 3",
    "type fs%a:\\used.txt",
    "endfor",
];

#[test]
fn nothing_is_stale_where_drivers_of_uefi_have_used_the_devices() {
    let lab = Lab::new();
    let empty = lab.file("empty");
    File::create(&empty).unwrap().set_len(1 << 20).unwrap();
    let mut arguments = vec![
        "-drive".into(),
        format!("if=none,id=empty,format=raw,file={}", empty.display()),
    ];
    for name in ["files", "stick"] {
        let files = lab.file(name);
        fs::create_dir(&files).unwrap();
        fs::write(files.join("used.txt"), format!("read from {name}\n")).unwrap();
        arguments.push("-drive".into());
        let file = format!("readonly=on,file=fat:{}", files.display());
        arguments.push(format!("if=none,id={name},format=raw,{file}"));
    }
    let tftp = lab.file("stick");
    let net = format!("user,id=net,ipv6=off,tftp={},bootfile=none", tftp.display());
    arguments.extend(["-netdev".into(), net]);
    arguments.extend(
        DRIVEN
            .iter()
            .flat_map(|&device| ["-device".into(), device.into()]),
    );
    let machine = Machine::uefi(image(), &lab.file("uefi"))
        .payload(payload(consumer::kernel(), &steps()))
        .arguments(arguments)
        .uefi_start(UefiStart::Shell(&USE))
        .trace();
    let linux = lab.boot_linux(machine).expect("it boots");
    let console = linux.boot.console.join("\n");
    for used in [
        // Partitions that were read, and a file.
        "NVMe(0x1,",
        "Pci(0x2,0x0)/HD(1,MBR,",
        "read from stick",
        "Start PXE over IPv4",
        "PXE-E",
    ] {
        assert!(console.contains(used), "no {used:?} in {console}");
    }
    proofs::subtree_arrived(&linux);
    proofs::cache_is_true(&linux);
    consumer::matches_hardware(&linux, 1);
    // UEFI has set Command of some of them, and has cleared it again since.
    let accesses = linux.boot.accesses();
    let commands = accesses
        .iter()
        .filter(|access| access.kind == trace::Kind::Write && access.offset == 4);
    assert!(commands.count() > 5);
}

#[test]
fn every_root_bridge_is_read_by_its_own_protocol() {
    let lab = Lab::new();
    let devices = [
        "pxb-pcie,id=second,bus_nr=64,bus=pcie.0",
        "pcie-root-port,id=below-second,bus=second,chassis=90,slot=90",
        "nvme,bus=below-second,serial=second",
        "pxb-pcie,id=third,bus_nr=128,bus=pcie.0",
        "pcie-root-port,id=below-third,bus=third,chassis=91,slot=91",
        "virtio-net-pci,bus=below-third,romfile=",
    ];
    let machine = machine(&lab, consumer::kernel(), &steps());
    let machine = machine.arguments(devices.iter().flat_map(|device| ["-device", device]));
    let linux = lab.boot_linux(machine).expect("it boots");
    proofs::subtree_arrived(&linux);
    consumer::matches_hardware(&linux, 1);
    buses_are_kept(&linux);
    let report = linux.boot.report();
    let hosts = report["host_bridges"].as_array().expect("host bridges");
    assert_eq!(hosts.len(), 3);
    let names: Vec<_> = linux.blocks.keys().map(|name| &name[5..7]).collect();
    for bus in ["00", "40", "41", "80", "81"] {
        assert!(names.contains(&bus), "{bus} in {names:?}");
    }
}

/// 64 host bridges with a port and a function below each.
#[test]
fn of_64_host_bridges_all_are_handed_over() {
    let lab = Lab::new();
    let mut devices = Vec::new();
    for number in 1..64 {
        let (slot, function) = (2 + number / 8, number % 8);
        devices.push(format!(
            "pxb-pcie,id=host{number},bus_nr={},bus=pcie.0,addr={slot:x}.{function},multifunction=on",
            number * 4
        ));
        // A root bus with nothing on it is not one for EDK2.
        devices.push(format!(
            "pcie-root-port,id=port{number},bus=host{number},chassis={number},slot={number}"
        ));
    }
    devices.push("nvme,bus=port63,serial=last".into());
    let machine = Machine::uefi(image(), &lab.file("uefi"))
        .payload(payload(consumer::kernel(), &steps()))
        .arguments(
            devices
                .into_iter()
                .flat_map(|device| ["-device".into(), device]),
        );
    let linux = lab.boot_linux(machine).expect("it boots");
    proofs::ended_well(&linux);
    consumer::matches_hardware(&linux, 1);
    let report = linux.boot.report();
    let hosts = report["host_bridges"].as_array().expect("host bridges");
    assert_eq!(hosts.len(), 64);
    let functions = linux.functions().expect("Linux lists them");
    let restored = consumer::counters(&linux)[0]["restored"];
    assert_eq!(restored, functions.len() as u64);
    assert!(functions.keys().any(|name| name.starts_with("0000:fd:")));
}

#[test]
fn the_cache_is_used_where_linux_maps_nothing_of_uefi() {
    let lab = Lab::new();
    let mut payload = payload(consumer::kernel(), &steps());
    payload.bootargs += " efi=novamap";
    let machine = machine(&lab, consumer::kernel(), &steps());
    let machine = machine.payload(payload).uefi_start(AS_DRIVER);
    let linux = lab.boot_linux(machine).expect("it boots");
    the_cache_is_used(&linux);
}

#[test]
fn nothing_is_read_for_a_kernel_that_takes_no_handover() {
    let [with, without] = [AS_DRIVER, UefiStart::Shell(&[])].map(|start| {
        let lab = Lab::new();
        let machine = machine(&lab, linux::kernel(), proofs::SECTIONS);
        let machine = machine.bootargs("warmbus.kho=off").uefi_start(start);
        lab.follow_alone(machine).expect("it boots")
    });
    let console = with.boot.console.join("\n");
    let line = "no cache handed over: switched off by warmbus.kho=off; Linux boots without it";
    assert!(console.contains(line), "{console}");
    // Nor does it lose memory.
    assert_eq!(with.summary("Memory")[0], without.summary("Memory")[0]);
    let [with, without] = [with, without].map(|linux| {
        assert!(linux.ran_to_the_end());
        let log = &linux.boot.log;
        let count = log.accesses_before("EFI stub: Exiting boot services");
        log.accesses()[..count.expect("Linux was started")].to_vec()
    });
    assert!(with.len() > 100);
    assert_eq!(with, without);
}

/// What Linux says of firmware, tables and PCI, without the memory map and the
/// places of what its EFI stub allocates.
fn machine_lines(linux: &LinuxBoot) -> Vec<String> {
    let lines = linux.kernel_log().lines();
    let lines = lines.filter_map(|line| Some(line.split_once("] ")?.1));
    let topics = [
        "efi: ", "efifb: ", "ACPI: ", "psci: ", "SMBIOS", "pci_bus ", "pci ",
    ];
    let lines = lines.filter(|line| topics.iter().any(|topic| line.starts_with(topic)));
    let lines = lines.filter(|line| !line.contains(" MemMap ") && !line.starts_with("efi:   0x"));
    let without_place = |word: &str| match word.split_once('=') {
        Some((name @ ("INITRD" | "MEMRESERVE"), _)) => name.to_owned(),
        _ => word.to_owned(),
    };
    let words = lines.map(|line| line.split(' ').map(without_place).collect::<Vec<_>>());
    words.map(|words| words.join(" ")).collect()
}

/// Linux found the same machine, the same tables of ACPI, and the same that UEFI says of
/// itself.
pub(super) fn finds_the_same(with: &LinuxBoot, without: &LinuxBoot) {
    assert_eq!(machine_lines(with), machine_lines(without));
    let files = |linux| consumer::said(linux, "file ");
    assert!(files(with).len() > 10, "{:?}", files(with));
    assert_eq!(files(with), files(without));
}

#[test]
fn linux_finds_the_machine_that_it_finds_without_us() {
    let steps = format!("firmware,{}", proofs::SECTIONS);
    let lab = Lab::new();
    let with = machine(&lab, linux::kernel(), &steps);
    let with = lab.boot_linux(with.uefi_start(AS_DRIVER));
    let with = with.expect("it boots");
    let lab = Lab::new();
    let without = machine(&lab, linux::kernel(), &steps);
    let without = lab.follow_alone(without.uefi_start(UefiStart::Shell(&[])));
    let without = without.expect("it boots");
    proofs::ended_well(&with);
    assert!(without.ran_to_the_end());
    assert!(!without.kernel_log().contains("KHO: found"));
    assert!(machine_lines(&with).len() > 40);
    finds_the_same(&with, &without);
    // Drivers put addresses into the capabilities behind the header, for MSI.
    let functions = |linux: &LinuxBoot| {
        let functions = linux.functions().unwrap().into_iter();
        let headers = functions.map(|(name, mut function)| {
            function.config.truncate(64);
            (name, function)
        });
        headers.collect::<Vec<_>>()
    };
    assert_eq!(functions(&with), functions(&without));
}

/// Warmbus does nothing, says why in `words`, and Linux starts as without it.
fn nothing_is_handed_over(lines: &'static [&'static str], words: &[&str]) {
    let lab = Lab::new();
    let machine = machine(&lab, linux::kernel(), proofs::SECTIONS);
    let linux = lab.follow_alone(machine.uefi_start(UefiStart::Shell(lines)));
    let linux = linux.expect("it boots");
    assert!(linux.ran_to_the_end());
    assert!(!linux.kernel_log().contains("KHO: found"));
    let console = linux.boot.console.join("\n");
    let said = |line: &&str| words.iter().all(|word| line.contains(word));
    assert_eq!(
        console.lines().filter(said).count(),
        1,
        "{words:?} in {console}"
    );
}

/// Sets a variable of Warmbus, as an attempt does that does not come back.
const UNFINISHED: &str =
    "setvar WarmbusAttempt -guid 8e5a6f0c-1c55-4d6b-9d0f-5b2f4d0a7c31 -bs -nv =01";
/// The same of the second attempt in a row.
const UNFINISHED_AGAIN: &str =
    "setvar WarmbusAttempt -guid 8e5a6f0c-1c55-4d6b-9d0f-5b2f4d0a7c31 -bs -nv =03";
/// Sets the one that an operator sets.
const DISABLED: &str =
    "setvar WarmbusDisable -guid 8e5a6f0c-1c55-4d6b-9d0f-5b2f4d0a7c31 -bs -nv =01";

#[test]
fn the_boot_after_one_that_did_not_come_back_goes_past_warmbus_once() {
    nothing_is_handed_over(
        &[UNFINISHED, LOAD_DRIVER],
        &["the last attempt did not come back"],
    );
    // The boot after that tries again.
    let lab = Lab::new();
    let start = UefiStart::Shell(&[UNFINISHED, LOAD_DRIVER, LOAD_DRIVER]);
    let linux = lab.boot_linux(machine(&lab, linux::kernel(), proofs::SECTIONS).uefi_start(start));
    proofs::subtree_arrived(&linux.expect("it boots"));
}

#[test]
fn after_two_that_did_not_come_back_only_an_operator_has_it_try_again() {
    nothing_is_handed_over(
        &[UNFINISHED_AGAIN, LOAD_DRIVER],
        &["two attempts did not come back", "WarmbusAttempt-8e5a6f0c"],
    );
}

#[test]
fn an_operator_can_switch_it_off() {
    nothing_is_handed_over(
        &[DISABLED, LOAD_DRIVER],
        &["switched off", "WarmbusDisable-8e5a6f0c"],
    );
}

#[test]
fn a_second_one_does_nothing_beside_the_first() {
    let lab = Lab::new();
    let start = UefiStart::Shell(&[LOAD_DRIVER, LOAD_DRIVER]);
    let linux = lab.boot_linux(machine(&lab, linux::kernel(), proofs::SECTIONS).uefi_start(start));
    let linux = linux.expect("it boots");
    proofs::subtree_arrived(&linux);
    let said = |line: &&String| line.contains("another Warmbus is resident");
    assert_eq!(linux.boot.console.iter().filter(said).count(), 1);
    let found = |line: &&String| line.contains("found Linux");
    assert_eq!(linux.boot.console.iter().filter(found).count(), 1);
}

/// Waits for a line of text with all of `words`.
fn line_with(running: &mut Running, words: &[&str]) -> String {
    loop {
        match running.event().unwrap() {
            Some(Event::Text(line)) if words.iter().all(|word| line.contains(word)) => return line,
            Some(_) => {}
            None => panic!("the machine ended without a line with {words:?}"),
        }
    }
}

#[test]
fn without_a_program_to_start_uefi_goes_on_and_one_line_says_why() {
    let lab = Lab::new();
    let machine = Machine::uefi(image(), &lab.file("uefi"));
    let mut running = machine.start().unwrap();
    line_with(
        &mut running,
        &[
            "warmbus: nothing is handed over",
            "needs next=",
            "\\warmbus\\options.txt",
        ],
    );
    // The next entry of the boot manager.
    line_with(&mut running, &["BdsDxe: loading Boot0002"]);
}
