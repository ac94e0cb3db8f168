//! Devices that come between the scan of the firmware and that of Linux: Linux
//! finds them and gives them addresses, as it does without the firmware.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use warmbus_pci::{PortType, Width};
use warmbus_pcie_sim::{
    BarModel, BridgeWindows, ExpressModel, Fabric, FunctionModel, NodeId, SlotModel, devices,
};
use warmbus_qemu_tests::boot::Lab;
use warmbus_qemu_tests::linux::{self, LinuxBoot, Moment, payload};
use warmbus_qemu_tests::simulated::{self, Simulated};

/// A port with nothing below it at first, and what comes.
const PORT: &str = "0000:00:01.0";
const LATE: &str = "0000:01:00.0";
/// Memory Base and Memory Limit: written when addresses are assigned, after the
/// scan.
const WINDOW: u16 = 0x20;
const CLOSED: u32 = 0x0000_fff0;

/// More than the window of an empty port holds.
const BAR: u64 = 0x1000_0000;

fn express() -> ExpressModel {
    ExpressModel::new(PortType::RootPort).active_reporting()
}

fn port(express: ExpressModel) -> FunctionModel {
    FunctionModel::bridge(0x1234, 0x0004, BridgeWindows::default())
        .express(express)
        .link_up()
        .named("port")
}

fn device() -> FunctionModel {
    FunctionModel::endpoint(0x1234, 7, 0xff_0000)
        .express(ExpressModel::new(PortType::Endpoint))
        .bar(0, BarModel::memory64(BAR).prefetchable())
        .named("late")
}

/// Whether the firmware has assigned addresses, and so has scanned before.
fn is_assigned(fabric: &Fabric, port: NodeId) -> bool {
    let window = fabric.peek(port, WINDOW, Width::Dword);
    window != 0 && window & 0xfff0_fff0 != CLOSED
}

/// Boots a Linux without our patches with `device` below `port`, which `before`
/// is asked about at each access: whether Linux was started, and whether the
/// device is to come now. It comes once.
fn boot(
    port: FunctionModel,
    device: FunctionModel,
    prepare: impl FnOnce(&mut Fabric, NodeId),
    comes: impl Fn(&Fabric, NodeId, bool) -> bool + Send + 'static,
) -> LinuxBoot {
    let (mut fabric, host) = simulated::fabric();
    let port = fabric.add_root(host, 1, 0, port);
    let late = fabric.add_below(port, 0, 0, device);
    // Something that is there from the beginning.
    let sound = fabric.add_root(host, 2, 0, devices::root_port(2).link_up());
    fabric.add_below(sound, 0, 0, devices::nvme());
    prepare(&mut fabric, port);
    let mut simulated = Simulated::new(fabric);
    let started = Arc::new(AtomicBool::new(false));
    let is_started = Arc::clone(&started);
    let mut came = false;
    simulated.before = Box::new(move |fabric| {
        if !came && comes(fabric, port, is_started.load(Ordering::Relaxed)) {
            fabric.plug_in(port, late, self::device());
            came = true;
        }
    });
    let lab = Lab::new();
    let payload = payload(linux::kernel(), "summary,sections");
    let ended = simulated.boot(
        &lab,
        payload,
        |machine| machine,
        |moment, _, _| {
            if moment == Moment::Starting {
                started.store(true, Ordering::Relaxed);
            }
            Ok(())
        },
    );
    let (linux, _) = ended.expect("it boots");
    let console = linux.boot.console.join("\n");
    assert!(linux.ran_to_the_end(), "{console}");
    linux
}

/// Linux has the device with an address for its BAR, and the firmware said why
/// Linux assigns again.
#[track_caller]
fn has_the_device(linux: &LinuxBoot, why: &str) {
    let console = linux.boot.console.join("\n");
    let reason = format!("({PORT}: {why})");
    let line = ["no cache handed over: ", &reason];
    assert_eq!(linux.boot.lines_with(&line).len(), 1, "{console}");
    let functions = linux.functions().expect("Linux lists its functions");
    let late = functions.get(LATE).expect("Linux has the device");
    let [start, end, _] = late.resources[0];
    assert_eq!((start != 0, end - start + 1), (true, BAR), "{console}");
    for complaint in ["can't assign", "failed to assign", "no space"] {
        let about: Vec<_> = linux
            .kernel_log()
            .lines()
            .filter(|line| line.contains(complaint) && line.contains("0000:0"))
            .collect();
        assert_eq!(about, [""; 0], "{complaint}");
    }
}

#[test]
fn a_late_device_whose_link_comes_up_after_the_scan() {
    for express in [express(), express().slot(SlotModel::HOT_PLUG)] {
        let linux = boot(
            port(express),
            device(),
            Fabric::drop_link,
            |fabric, port, _| is_assigned(fabric, port),
        );
        has_the_device(&linux, "a device appeared below the port after the scan");
    }
}

#[test]
fn a_late_device_whose_port_hides_that_it_is_not_ready() {
    let never = device().ready_at(u64::MAX);
    let hides = port(express().without_rrs_visibility());
    let linux = boot(hides, never, |_, _| (), |_, _, started| started);
    has_the_device(
        &linux,
        "the link of the port is up, and no device answers yet",
    );
}

#[test]
fn a_late_device_that_never_comes_costs_no_cache() {
    let linux = boot(port(express()), device(), Fabric::drop_link, |_, _, _| {
        false
    });
    let line = ["starting linux at", ", with the cache"];
    assert_eq!(linux.boot.lines_with(&line).len(), 1);
    let functions = linux.functions().expect("Linux lists its functions");
    assert!(!functions.contains_key(LATE));
}
