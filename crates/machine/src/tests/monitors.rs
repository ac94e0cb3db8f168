//! Trees as virtual machine monitors write them: none has a `stdout-path`, and
//! each has a console.

use super::*;

macro_rules! tree {
    ($name:literal) => {
        include_bytes!(concat!("../../../../tests/fixtures/device-trees/", $name))
    };
}

const CLOUD_HYPERVISOR: &[u8] = tree!("vmm-cloud-hypervisor.dtb");
const FIRECRACKER: &[u8] = tree!("vmm-firecracker.dtb");
const KVMTOOL: &[u8] = tree!("vmm-kvmtool.dtb");
const CROSVM: &[u8] = tree!("vmm-crosvm.dtb");

fn console(tree: &[u8]) -> Option<(ConsoleKind, u64)> {
    let console = EarlyDevices::from_device_tree(tree).console;
    console.map(|console| (console.kind, console.base.0))
}

#[test]
fn every_monitor_has_a_console() {
    use ConsoleKind::{Ns16550, Pl011};
    for (tree, expected) in [
        (CLOUD_HYPERVISOR, (Pl011, 0x900_0000)),
        (FIRECRACKER, (Ns16550, 0x4000_2000)),
        (KVMTOOL, (Ns16550, 0x100_0000)),
        (CROSVM, (Ns16550, 0x3f8)),
    ] {
        assert_eq!(console(tree), Some(expected));
        let devices = EarlyDevices::from_device_tree(tree);
        assert_eq!(devices.psci, Psci::By(PsciConduit::Hvc));
    }
}

#[test]
fn of_several_ports_the_command_line_has_the_number() {
    for (word, expected) in [
        (b"console=ttyS1", Some(0x100_1000)),
        (b"console=ttyS3", Some(0x100_3000)),
        // There are four, and none is a PL011.
        (b"console=ttyS4", None),
        (b"console=tty50", None),
        (b"konsole=ttyS0", None),
    ] {
        let tree = replaced(KVMTOOL, b"console=ttyS0", word);
        assert_eq!(console(&tree).map(|console| console.1), expected);
    }
}

#[test]
fn host_bridges_of_monitors_are_read_or_excluded_with_a_line() {
    let found = |tree: &[u8]| {
        let machine = Machine::from_device_tree(tree).expect("it is a machine");
        let hosts = machine.hosts.iter().map(|host| {
            let buses = (host.buses.first, host.buses.last);
            let kept = !host.preserve_config && host.survives_linux_driver;
            (
                host.segment,
                host.ecam_base.0,
                buses,
                host.windows.len(),
                kept,
            )
        });
        (hosts.collect::<Vec<_>>(), machine.warnings)
    };
    let (hosts, warnings) = found(CLOUD_HYPERVISOR);
    assert_eq!(
        hosts,
        [
            (0, 0x3000_0000, (0, 0), 3, true),
            (1, 0x3010_0000, (0, 0), 2, true),
        ]
    );
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let (hosts, warnings) = found(FIRECRACKER);
    assert!(
        hosts.is_empty() && warnings.is_empty(),
        "{hosts:?} {warnings:?}"
    );
    // What the monitor has assigned stays.
    let (hosts, warnings) = found(KVMTOOL);
    assert_eq!(hosts, [(0, 0x4000_0000, (0, 0), 2, false)]);
    assert_eq!(warnings, [""; 0]);
    let (hosts, warnings) = found(CROSVM);
    assert_eq!(hosts, [(0, 0x1_0000, (0, 0), 2, true)]);
    assert_eq!(warnings, [""; 0]);
}
