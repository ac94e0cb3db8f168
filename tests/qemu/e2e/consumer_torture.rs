//! What happens to a device behind the back of the kernel: it resets itself, its
//! link goes down, another one takes its place, and a write does what no
//! specification says. The fabric is simulated, so that it can. Each machine is
//! booted three times, with what was handed over in use, free, and compared: Linux
//! tells the same, and comes to the same end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use warmbus_pci::{PortType, Width};
use warmbus_pcie_sim::{BarModel, BridgeWindows, ExpressModel, Fabric, FunctionModel, SlotModel};
use warmbus_qemu_tests::boot::Lab;
use warmbus_qemu_tests::linux::{LinuxBoot, Moment, payload};
use warmbus_qemu_tests::simulated::{self, Simulated};
use warmbus_qemu_tests::{consumer, linux};

const COMMAND: u16 = 0x04;
const BAR: u16 = 0x10;
const BUSES: u16 = 0x18;
const WINDOW: u16 = 0x20;

fn port() -> FunctionModel {
    let slot = SlotModel::default();
    let express = ExpressModel::new(PortType::RootPort)
        .active_reporting()
        .slot(slot);
    FunctionModel::bridge(0x1234, 4, BridgeWindows::default())
        .express(express)
        .link_up()
        .named("port")
}

fn endpoint() -> FunctionModel {
    FunctionModel::endpoint(0x1234, 7, 0xff_0000)
        .express(ExpressModel::new(PortType::Endpoint).flr())
        .power_management(false, 0)
        .access_control(0x5d)
        .bar(0, BarModel::memory64(0x4000))
}

/// The nodes of a machine: a port with two functions below.
const NAMES: [&str; 3] = ["port", "first", "second"];

/// What is done to the fabric when Linux waits for the n-th time, from 1 on.
type Disturb = fn(&mut Fabric, usize);

fn poke(fabric: &mut Fabric, name: &str, registers: &[(u16, Width, u32)]) {
    let node = fabric.find(name).expect("it has such a name");
    for &(offset, width, value) in registers {
        fabric.poke(node, offset, width, value);
    }
}

/// What a reset leaves of an endpoint.
const RESET: [(u16, Width, u32); 3] = [
    (COMMAND, Width::Word, 0),
    (BAR, Width::Dword, 4),
    (BAR + 4, Width::Dword, 0),
];

fn boot(mode: &str, second: FunctionModel, steps: &str, disturb: Disturb) -> LinuxBoot {
    let (mut fabric, host) = simulated::fabric();
    let above = fabric.add_root(host, 1, 0, port());
    fabric.add_below(above, 0, 0, endpoint().multi_function().named(NAMES[1]));
    fabric.add_below(above, 0, 1, second.multi_function().named(NAMES[2]));
    let mut simulated = Simulated::new(fabric);
    let stage = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&stage);
    simulated.before = Box::new(move |fabric| match told.swap(0, Ordering::Relaxed) {
        0 => {}
        number => disturb(fabric, number),
    });

    let mut payload = payload(consumer::kernel(), steps);
    let polled = " pciehp.pciehp_poll_mode=1 pciehp.pciehp_poll_time=1";
    payload.bootargs.extend([polled, " pcsc=", mode]);
    let lab = Lab::new();
    let ended = simulated.boot(
        &lab,
        payload,
        |machine| machine,
        |moment, _, _| {
            if let Moment::Waiting(number) = moment {
                stage.store(number + 1, Ordering::Relaxed);
            }
            Ok(())
        },
    );
    let (linux, _) = ended.expect("it boots");
    let console = linux.boot.console.join("\n");
    assert!(
        linux.started && linux.done && linux.powered_off,
        "{mode}: {console}"
    );
    for trouble in ["BUG:", "Unable to handle", "Internal error", "cut here"] {
        assert!(!linux.kernel_log().contains(trouble), "{mode}: {console}");
    }
    linux
}

/// What Linux tells of its functions.
fn told(linux: &LinuxBoot) -> Vec<(String, linux::Function)> {
    let functions = linux.functions().expect("Linux lists them");
    functions.into_iter().collect()
}

/// Linux tells and does the same in each mode, and nothing that it would serve
/// differs. `compared` is how often the steps compare it with the hardware.
fn same_end(second: fn() -> FunctionModel, steps: &str, compared: usize, disturb: Disturb) {
    let steps = format!("cache,{steps},sections,cache");
    let off = boot("off", second(), &steps, disturb);
    consumer::told_the_truth(&off, compared);
    for mode in ["on", "verify"] {
        let linux = boot(mode, second(), &steps, disturb);
        consumer::told_the_truth(&linux, compared);
        assert_eq!(told(&linux), told(&off), "{mode}");
        for what in ["reset ", "found again "] {
            assert_eq!(
                consumer::said(&linux, what),
                consumer::said(&off, what),
                "{mode}"
            );
        }
        let counters = consumer::counters(&linux);
        let (first, last) = (&counters[0], counters.last().expect("counters"));
        assert!(first["restored"] >= 3 && first["hits"] > 50, "{first:?}");
        assert_eq!(last["differences"], 0, "{:?}", consumer::log(&linux));
        assert!(mode == "on" || last["verified"] > 50, "{last:?}");
    }
}

#[test]
fn a_function_that_resets_itself() {
    same_end(
        endpoint,
        "compare,wait,compare,resets,compare,bus_resets,compare",
        4,
        |fabric, _| poke(fabric, "first", &RESET),
    );
}

#[test]
fn a_link_that_goes_down_under_two_functions() {
    same_end(
        endpoint,
        "wait,compare,bus_resets,compare,rescan,compare",
        3,
        |fabric, _| {
            poke(fabric, "first", &RESET);
            poke(fabric, "second", &RESET);
        },
    );
}

#[test]
fn a_root_port_that_its_host_bridge_resets() {
    same_end(
        endpoint,
        "wait,bus_resets,rescan,compare,rescan:ports,compare",
        2,
        |fabric, _| {
            let cleared = [
                (COMMAND, Width::Word, 0),
                (BUSES, Width::Dword, 0x00ff_0100),
                (WINDOW, Width::Dword, 0x0000_fff0),
            ];
            poke(fabric, "port", &cleared);
            poke(fabric, "first", &RESET);
            poke(fabric, "second", &RESET);
        },
    );
}

#[test]
fn another_device_after_a_reset() {
    same_end(
        endpoint,
        "wait,resets,compare,rescan,compare",
        2,
        |fabric, _| {
            let node = fabric.find("second").expect("it has such a name");
            // The same kind by its IDs, with another subsystem and other lists.
            let other = FunctionModel::endpoint(0x1234, 7, 0xff_0000)
                .subsystem(0x4321, 9)
                .express(ExpressModel::new(PortType::Endpoint).flr())
                .bar(0, BarModel::memory64(0x4000))
                .multi_function();
            fabric.replace(node, other);
        },
    );
}

#[test]
fn intx_disable_and_isolation_that_do_not_stick() {
    // INTx Disable and the services of ACS exist, and cannot be switched.
    fn disobeys() -> FunctionModel {
        endpoint()
            .interrupt_pin(1)
            .writable(COMMAND, Width::Word, 0x0147)
    }
    same_end(disobeys, "compare,resets,compare", 2, |_, _| ());
}

#[test]
fn a_write_to_a_register_that_nobody_knows() {
    // It changes the class, as some devices do, and BAR 2 is written afterwards.
    same_end(
        endpoint,
        "write:0000:01:00.0@240@1,write:0000:01:00.0@24@0,wait,compare,resets,compare",
        2,
        |fabric, _| poke(fabric, "first", &[(0x08, Width::Dword, 0x0200_0001)]),
    );
}

#[test]
fn functions_that_reset_themselves_again_and_again() {
    same_end(
        endpoint,
        "wait,resets,compare,wait,resets,compare",
        2,
        |fabric, number| {
            poke(fabric, "first", &RESET);
            if number > 1 {
                poke(fabric, "second", &RESET);
            }
        },
    );
}
