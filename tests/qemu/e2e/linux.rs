//! What Linux received, as Linux itself reports it and by QEMU while it ran.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use warmbus_boot::report::console::Outcome;
use warmbus_cli::trace;
use warmbus_qemu_tests::boot::Lab;
use warmbus_qemu_tests::handover::{Block, Replay};
use warmbus_qemu_tests::linux::{self, LinuxBoot, payload};
use warmbus_qemu_tests::pci;
use xtask::process;
use xtask::qemu::{Machine, Payload};

/// Everything that Linux can report, at rest after all memory was used once.
pub(crate) const ALL: &str = "summary,pressure,summary,sections,wait";
/// The same without using all memory.
pub(crate) const SECTIONS: &str = "summary,sections,wait";

/// The firmware and Linux came to their ends in good order.
pub(crate) fn ended_well(linux: &LinuxBoot) {
    let console = linux.boot.console.join("\n");
    assert_eq!(linux.boot.outcome, Some(Outcome::Ok), "{console}");
    assert!(linux.ran_to_the_end(), "{console}");
}

/// What the firmware said on the line that starts with `word`.
fn firmware_said<'a>(linux: &'a LinuxBoot, word: &str) -> &'a str {
    let mut lines = linux.boot.console.iter();
    let line = lines.find_map(|line| line.strip_prefix(word));
    line.unwrap_or_else(|| panic!("no {word} in {}", linux.boot.console.join("\n")))
        .trim()
}

/// Linux took the handover, and the subtree is the one that was written.
pub(crate) fn subtree_arrived(linux: &LinuxBoot) {
    ended_well(linux);
    assert!(
        linux
            .kernel_log()
            .contains("KHO: found kexec handover data")
    );
    // `1085 bytes at 0x763e2000, CRC-32 0xf1aef7d2`
    let written = firmware_said(linux, "pcsc ");
    let (size, _) = written.split_once(" at ").unwrap();
    let (_, crc) = written.split_once(", ").unwrap();
    let received = linux.summary("PCI cache");
    assert!(!received.is_empty());
    for received in received {
        assert_eq!(received, format!("{size}, {crc}"));
    }
}

/// Bytes that the firmware may print before Linux where nothing more is asked
/// for: 87 ms on a serial port of 115,200 baud.
const SHORT_CONSOLE: usize = 1000;

/// The firmware printed little before Linux, and what a user needs of it.
fn console_is_short(linux: &LinuxBoot) {
    let lines = &linux.boot.console;
    let starts = |line: &String| line.starts_with("warmbus: starting Linux");
    let end = lines.iter().position(starts).expect("Linux is started");
    // Each line ends with CR and LF; the result is kept apart.
    let printed = lines[..=end].iter().map(|line| line.len() + 2);
    let bytes: usize = printed.sum::<usize>() + "warmbus: result: ok\r\n".len();
    assert!(bytes <= SHORT_CONSOLE, "{bytes} bytes: {lines:#?}");
    for word in ["functions ", "cache ", "anomalies ", "handover ", "PCI "] {
        firmware_said(linux, word);
    }
}

/// Nothing in the log of Linux is about what it did not like.
pub(crate) fn log_is_clean(linux: &LinuxBoot) {
    for complaint in [
        "KHO: disabling",
        "------------[ cut here",
        "failed to restore",
        "can't claim",
        "no compatible bridge window",
        "bridge configuration invalid",
        "BUG:",
        "Unable to handle",
    ] {
        let line = linux
            .kernel_log()
            .lines()
            .find(|line| line.contains(complaint));
        assert_eq!(line, None);
    }
}

/// Whatever Linux read from hardware after the handover, the cache would have
/// answered the same, and at the end every byte that Linux did not write itself
/// still is what it reads.
pub(crate) fn cache_is_true(linux: &LinuxBoot) {
    let functions = linux.functions().unwrap();
    let names: Vec<_> = functions.keys().collect();
    assert_eq!(linux.blocks.keys().collect::<Vec<_>>(), names);

    let accesses = linux.accesses();
    let replay = Replay::new(&linux.blocks, &accesses);
    assert_eq!(replay.differences, Vec::<String>::new());
    // At its end the test Linux reads all of configuration space.
    let size: usize = functions
        .values()
        .map(|function| function.config.len())
        .sum();
    assert!(replay.reads as usize > size / 4);

    let count = |blocks: &BTreeMap<String, Block>| -> usize {
        blocks.values().map(|block| block.cached().count()).sum()
    };
    let mut differences = Vec::new();
    for (name, block) in &replay.blocks {
        for (at, value) in block.cached() {
            let read = functions[name].config.get(at).copied();
            if read != Some(value) {
                differences.push(format!("{name} {at:#x}: cached {value:#x}, read {read:x?}"));
            }
        }
    }
    assert_eq!(differences, Vec::<String>::new());
    let (before, after) = (count(&linux.blocks), count(&replay.blocks));
    assert!(before > 40 * functions.len(), "{before} bytes");
    assert!(2 * after > before, "{after} of {before} bytes");
    println!(
        "{} functions, {before} bytes handed over, {} of them written by Linux, 0 of the others differ; \
         {} of {} reads could have been served",
        functions.len(),
        before - after,
        replay.served,
        replay.reads
    );
}

/// Linux left every bus number, window and BAR where the firmware put it: by
/// its own words and by QEMU's.
pub(super) fn nothing_moved(linux: &LinuxBoot) {
    let theirs = linux.functions().unwrap();
    let (report, qemu) = (pci::of_report(&linux.boot.report()), linux.boot.pci());
    let names: Vec<_> = report.iter().map(pci::Function::name).collect();
    assert_eq!(theirs.keys().cloned().collect::<Vec<_>>(), names);
    assert_eq!(
        qemu.iter().map(pci::Function::name).collect::<Vec<_>>(),
        names
    );
    for (our, qemu) in report.iter().zip(&qemu) {
        let name = our.name();
        let their = &theirs[&name];
        for (index, region) in &our.regions {
            let resource = their.resources[usize::try_from(*index).unwrap()];
            let what = format!("BAR {index} of {name}");
            if let Some(address) = region.address {
                assert_eq!(resource[0], address, "{what} in Linux");
                let size = resource[1] - resource[0] + 1;
                assert_eq!(Some(size), region.size, "size of {what} in Linux");
            }
            if let Some(address) = qemu.regions[index].address {
                assert_eq!(Some(address), region.address, "{what} in QEMU");
            }
        }
        let Some(bridge) = our.bridge else {
            continue;
        };
        let now = qemu.bridge.expect("a bridge stays one");
        assert_eq!(bridge.buses, now.buses, "buses of {name} in QEMU");
        let buses = [0x18, 0x19, 0x1a].map(|at| u64::from(their.config[at]));
        assert_eq!(bridge.buses, buses, "buses of {name} in Linux");
        for (ours, theirs) in bridge.windows.iter().zip(now.windows) {
            // A window that was closed may have been opened.
            assert!(ours.is_none() || *ours == theirs, "window of {name}");
        }
    }
}

/// Boots `kernel` with all of it on a machine that `change` makes, and proves
/// all of it. Returns the boot for more.
pub(crate) fn proven(
    kernel: &Path,
    topology: &str,
    steps: &str,
    change: impl FnOnce(Machine) -> Machine,
) -> LinuxBoot {
    let lab = Lab::new();
    let machine = lab
        .machine(topology)
        .payload(payload(kernel, steps))
        .trace();
    let linux = lab.boot_linux(change(machine)).expect("it boots");
    subtree_arrived(&linux);
    cache_is_true(&linux);
    nothing_moved(&linux);
    log_is_clean(&linux);
    assert_eq!(
        linux.summary("PCI setup").last(),
        Some(&"kept as handed over (probe only)")
    );
    linux
}

/// The accesses of Linux alone, by QEMU's trace: all but those that the report
/// of the firmware counts.
fn accesses_of_linux(topology: &str, firmware: Option<&str>) -> [u64; 2] {
    let lab = Lab::new();
    let mut machine = lab
        .machine(topology)
        .payload(payload(linux::kernel(), "summary"))
        .trace();
    if let Some(word) = firmware {
        machine = machine.bootargs(word);
    }
    let linux = lab.boot_linux(machine).expect("it boots");
    ended_well(&linux);
    let counts = trace::counts(&linux.accesses());
    [counts.reads, counts.writes]
}

fn probe_only_saves_accesses(topology: &str) {
    let without = accesses_of_linux(topology, Some("warmbus.kho=off"));
    let with = accesses_of_linux(topology, None);
    println!(
        "{topology}: Linux makes {} reads and {} writes with linux,pci-probe-only, {} and {} without",
        with[0], with[1], without[0], without[1]
    );
    assert!(with[0] > 0);
    assert!(
        with[0] < without[0] && with[1] < without[1],
        "{with:?} {without:?}"
    );
}

/// One module of the same tests for each topology, so that each has a name.
macro_rules! on {
    ($topology:ident, $steps:expr) => {
        mod $topology {
            use super::*;

            #[test]
            fn linux_finds_what_was_handed_over_and_all_of_it_is_true() {
                let kernel = linux::kernel();
                let linux = proven(kernel, stringify!($topology), $steps, |machine| machine);
                console_is_short(&linux);
            }

            #[test]
            fn probe_only_alone_saves_linux_reads_and_writes() {
                probe_only_saves_accesses(stringify!($topology));
            }
        }
    };
}

on!(small, SECTIONS);
on!(switch, SECTIONS);
on!(fan, SECTIONS);
on!(sriov, SECTIONS);

#[test]
fn a_small_machine_with_a_packed_kernel_is_enough() {
    let lab = Lab::new();
    let packed = lab.file("Image.gz");
    let image = fs::read(linux::kernel()).unwrap();
    let plain = lab.file("Image");
    fs::write(&plain, image).unwrap();
    process::output(Command::new("gzip").arg("-1").arg(&plain)).unwrap();
    proven(&packed, "small", ALL, |machine| machine.memory("512M"));
}

#[test]
fn a_large_machine_with_four_processors_at_el2_works() {
    let linux = proven(linux::kernel(), "small", SECTIONS, |machine| {
        machine.memory("8G").smp(4).el2()
    });
    assert_eq!(linux.summary("Processors"), ["4"]);
}

#[test]
fn an_initrd_of_100_mib_arrives_whole() {
    let lab = Lab::new();
    // More of the archive than anybody reads, behind its end.
    let mut initrd = fs::read(linux::initramfs()).unwrap();
    initrd.resize(100 << 20, 0);
    fs::write(lab.file("initrd"), initrd).unwrap();
    let payload = Payload {
        initrd: Some(lab.file("initrd")),
        ..payload(linux::kernel(), SECTIONS)
    };
    let linux = lab
        .boot_linux(lab.machine("small").payload(payload).trace())
        .expect("it boots");
    subtree_arrived(&linux);
    cache_is_true(&linux);
}

/// Linux boots without the cache, and nothing in the device tree says otherwise.
pub(crate) fn plain(linux: &LinuxBoot) {
    ended_well(linux);
    assert_eq!(linux.summary("Kexec HandOver"), ["none"]);
    assert_eq!(linux.summary("PCI cache"), ["none"]);
    assert_eq!(linux.summary("PCI setup"), ["done by Linux"]);
}

#[test]
fn with_the_handover_switched_off_linux_boots_without_it() {
    let lab = Lab::new();
    let machine = lab
        .machine("small")
        .payload(payload(linux::kernel(), SECTIONS))
        .bootargs("warmbus.kho=off");
    let linux = lab.boot_linux(machine).expect("it boots");
    plain(&linux);
    log_is_clean(&linux);
    assert_eq!(linux.functions().unwrap().len(), linux.boot.pci().len());
}

#[test]
fn the_kernel_of_debian_boots_without_it_and_unharmed() {
    let kernel = xtask::linux::image(&xtask::linux::Options::debian()).expect("Debian has one");
    let lab = Lab::new();
    let machine = lab.machine("small").payload(payload(&kernel, SECTIONS));
    let linux = lab.boot_linux(machine).expect("it boots");
    plain(&linux);
    log_is_clean(&linux);
    assert_eq!(linux.functions().unwrap().len(), linux.boot.pci().len());
}

#[test]
fn a_handover_of_another_version_is_refused_by_linux_and_does_no_harm() {
    let lab = Lab::new();
    let machine = lab
        .machine("small")
        .payload(payload(linux::kernel(), "summary,sections"))
        .bootargs("warmbus.kho=v1");
    let linux = lab.boot_linux(machine).expect("it boots");
    ended_well(&linux);
    assert_eq!(linux.summary("PCI cache"), ["none"]);
    assert!(
        linux.kernel_log().contains("incompatible"),
        "{}",
        linux.kernel_log()
    );
}

/// The kernel of the project with the bytes at `at` changed.
pub(crate) fn spoiled(lab: &Lab, at: usize, bytes: &[u8]) -> PathBuf {
    let mut image = fs::read(linux::kernel()).unwrap();
    image[at..at + bytes.len()].copy_from_slice(bytes);
    let file = lab.file("spoiled");
    fs::write(&file, image).unwrap();
    file
}

#[test]
fn a_kernel_with_a_corrupt_header_is_not_started_and_one_line_says_why() {
    for (at, bytes, why) in [
        (56, &b"ARM?"[..], "Image"),
        (16, &[0xff; 8][..], "image"),
        (16, &[0; 8][..], "image"),
    ] {
        let lab = Lab::new();
        let kernel = spoiled(&lab, at, bytes);
        let machine = lab.machine("small").payload(payload(&kernel, "summary"));
        let linux = lab.boot_linux(machine).expect("it ends");
        assert!(!linux.started && linux.powered_off);
        let lines = linux.boot.lines_with(&[why]);
        assert!(!lines.is_empty(), "{at:#x}: {:?}", linux.boot.outcome);
    }
}

#[test]
fn a_kernel_that_speaks_a_handover_of_the_future_is_started_without_it() {
    let lab = Lab::new();
    let image = fs::read(linux::kernel()).unwrap();
    let mark = b"\0kho-v4\0";
    let at = image.windows(mark.len()).position(|window| window == mark);
    let kernel = spoiled(&lab, at.expect("it speaks kho-v4"), b"\0kho-v9\0");
    let machine = lab
        .machine("small")
        .payload(payload(&kernel, "summary,sections"));
    let linux = lab.boot_linux(machine).expect("it boots");
    plain(&linux);
    assert!(
        !linux
            .boot
            .lines_with(&["kho-v9", "booting linux without it"])
            .is_empty()
    );
}

#[test]
fn a_machine_without_space_for_the_handover_starts_linux_without_it_or_not_at_all() {
    let lab = Lab::new();
    // The initrd takes nearly all that there is.
    let mut initrd = fs::read(linux::initramfs()).unwrap();
    initrd.resize(188 << 20, 0);
    fs::write(lab.file("initrd"), initrd).unwrap();
    let payload = Payload {
        initrd: Some(lab.file("initrd")),
        ..payload(linux::kernel(), "summary")
    };
    let machine = lab.machine("small").memory("512M").payload(payload);
    let linux = lab.boot_linux(machine).expect("it ends");
    if linux.started {
        ended_well(&linux);
    } else {
        assert!(
            matches!(&linux.boot.outcome, Some(Outcome::Failed(why)) if why.contains("memory"))
        );
    }
}
