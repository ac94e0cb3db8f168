//! What happens to a device behind the back of the kernel: it resets itself, its
//! link goes down, another one takes its place, and a write does what no
//! specification says. The fabric is simulated, so that it can. Each machine is
//! booted three times, with what was handed over in use, free, and compared: Linux
//! reports the same, and comes to the same end.

use std::fmt::Write as _;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use warmbus_pci::{PortType, Width};
use warmbus_pcie_sim::{BarModel, BridgeWindows, ExpressModel, Fabric, FunctionModel, SlotModel};
use warmbus_qemu_tests::boot::Lab;
use warmbus_qemu_tests::linux::{LinuxBoot, Moment, payload};
use warmbus_qemu_tests::simulated::{self, Simulated};
use warmbus_qemu_tests::{consumer, linux};

/// The functions as Linux names them, the port and what is below.
pub(crate) const PORT: &str = "0000:00:01.0";
pub(crate) const FIRST: &str = "0000:01:00.0";
pub(crate) const SECOND: &str = "0000:01:00.1";

/// Slot Status in the PCI Express capability of the port, which is the first.
const SLOT_STATUS: Range<usize> = 0x5a..0x5c;
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

pub(crate) fn endpoint() -> FunctionModel {
    endpoint_of(7)
}

/// An endpoint with this Device ID.
pub(crate) fn endpoint_of(device: u16) -> FunctionModel {
    FunctionModel::endpoint(0x1234, device, 0xff_0000)
        .express(ExpressModel::new(PortType::Endpoint).flr())
        .power_management(false, 0)
        .access_control(0x5d)
        .bar(0, BarModel::memory64(0x4000))
}

/// The nodes of a machine: a port with two functions below.
const NAMES: [&str; 3] = ["port", "first", "second"];

/// What is done to the fabric when Linux waits for the n-th time, from 1 on.
pub(crate) type Disturb = fn(&mut Fabric, usize);

pub(crate) fn poke(fabric: &mut Fabric, name: &str, registers: &[(u16, Width, u32)]) {
    let node = fabric.find(name).expect("it has such a name");
    for &(offset, width, value) in registers {
        fabric.poke(node, offset, width, value);
    }
}

/// What a reset leaves of an endpoint.
pub(crate) const RESET: [(u16, Width, u32); 3] = [
    (COMMAND, Width::Word, 0),
    (BAR, Width::Dword, 4),
    (BAR + 4, Width::Dword, 0),
];

/// The machine: what its functions are.
#[derive(Clone, Copy)]
pub(crate) struct Functions {
    pub(crate) port: fn() -> FunctionModel,
    pub(crate) first: fn() -> FunctionModel,
    pub(crate) second: fn() -> FunctionModel,
}

pub(crate) const ORDINARY: Functions = Functions {
    port,
    first: endpoint,
    second: endpoint,
};

/// The fabric of `functions`, with the port as device `device` of bus 0.
pub(crate) fn fabric_of(functions: Functions, device: u8) -> Fabric {
    let (mut fabric, host) = simulated::fabric();
    let above = fabric.add_root(host, device, 0, (functions.port)());
    let [first, second] = [functions.first, functions.second].map(|model| model());
    fabric.add_below(above, 0, 0, first.multi_function().named(NAMES[1]));
    fabric.add_below(above, 0, 1, second.multi_function().named(NAMES[2]));
    fabric
}

/// Boots a machine in a mode of the kernel, and disturbs it while Linux waits.
pub(crate) fn boot(
    mut simulated: Simulated,
    mode: &str,
    steps: &str,
    disturb: Disturb,
) -> LinuxBoot {
    let stage = Arc::new(AtomicUsize::new(0));
    let begun = Arc::clone(&stage);
    simulated.before = Box::new(move |fabric| match begun.swap(0, Ordering::Relaxed) {
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
        |machine| machine.bootargs(consumer::IN_EACH_MODE),
        |moment, _, _| {
            if let Moment::Waiting(number) = moment {
                stage.store(number + 1, Ordering::Relaxed);
            }
            Ok(())
        },
    );
    let (linux, _) = ended.expect("it boots");
    let console = linux.boot.console.join("\n");
    assert!(linux.ran_to_the_end(), "{mode}: {console}");
    for trouble in ["BUG:", "Unable to handle", "Internal error", "cut here"] {
        assert!(!linux.kernel_log().contains(trouble), "{mode}: {console}");
    }
    linux
}

/// What Linux reports of its functions.
fn functions_of(linux: &LinuxBoot) -> Vec<(String, linux::Function)> {
    let mut functions = linux.functions().expect("Linux lists them");
    // What pciehp has not polled yet is a matter of time.
    functions.get_mut(PORT).expect("the port is there").config[SLOT_STATUS].fill(0);
    functions.into_iter().collect()
}

/// What the steps say of what Linux did.
const SAID: [&str; 4] = ["reset ", "found again ", "functions ", "vpd "];

/// Linux reports and does the same in each mode, and nothing that it would serve
/// differs. `compared` is how often the steps compare it with the hardware.
/// Returns what Linux did with what was handed over in use.
pub(crate) fn same_end(
    functions: Functions,
    steps: &str,
    compared: usize,
    disturb: Disturb,
) -> LinuxBoot {
    let steps = format!("cache,{steps},sections,cache");
    let boot = |mode| {
        let simulated = Simulated::new(fabric_of(functions, 1));
        boot(simulated, mode, &steps, disturb)
    };
    let off = boot("off");
    consumer::matches_hardware(&off, compared);
    let [on, _] = ["on", "verify"].map(|mode| {
        let linux = boot(mode);
        consumer::matches_hardware(&linux, compared);
        assert_eq!(functions_of(&linux), functions_of(&off), "{mode}");
        for what in SAID {
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
        linux
    });
    on
}

#[test]
fn a_function_that_resets_itself() {
    same_end(
        ORDINARY,
        "compare,wait,compare,resets,compare,bus_resets,compare",
        4,
        |fabric, _| poke(fabric, "first", &RESET),
    );
}

#[test]
fn a_link_that_goes_down_under_two_functions() {
    same_end(
        ORDINARY,
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
        ORDINARY,
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
        ORDINARY,
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
    let functions = Functions {
        second: disobeys,
        ..ORDINARY
    };
    same_end(functions, "compare,resets,compare", 2, |_, _| ());
}

#[test]
fn a_write_to_a_register_that_nobody_knows() {
    // It changes the class, as some devices do, and BAR 2 is written afterwards.
    same_end(
        ORDINARY,
        "write:0000:01:00.0@240@1,write:0000:01:00.0@24@0,wait,compare,resets,compare",
        2,
        |fabric, _| poke(fabric, "first", &[(0x08, Width::Dword, 0x0200_0001)]),
    );
}

#[test]
fn functions_that_reset_themselves_again_and_again() {
    same_end(
        ORDINARY,
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

/// A port with a slot in which devices are exchanged while Linux runs, and that
/// counts messages about latencies as errors unless they are enabled in it.
fn slot() -> FunctionModel {
    let express = ExpressModel::new(PortType::RootPort)
        .active_reporting()
        .slot(SlotModel::HOT_PLUG);
    FunctionModel::bridge(0x1234, 4, BridgeWindows::default())
        .express(express)
        .latency_tolerance()
        .link_up()
        .named("port")
}

fn patient_endpoint() -> FunctionModel {
    endpoint().latency_tolerance()
}

const HOT_PLUG: Functions = Functions {
    port: slot,
    first: patient_endpoint,
    second: patient_endpoint,
};

/// Device Control 2 in the PCI Express capability, which is the first of each
/// function here, and LTR Mechanism Enable.
const DEVICE_CONTROL_2: u16 = 0x40 + 0x28;
const LTR: u32 = 0x400;

/// The link goes down, and the hardware clears LTR in the port (PCIe 7.5.3.16).
fn pull(fabric: &mut Fabric) {
    let node = fabric.find("port").expect("it has such a name");
    let control = fabric.peek(node, DEVICE_CONTROL_2, Width::Word);
    poke(
        fabric,
        "port",
        &[(DEVICE_CONTROL_2, Width::Word, control & !LTR)],
    );
    fabric.drop_link(node);
}

/// A device of the same model is plugged in; it has one function.
fn plug(fabric: &mut Fabric) {
    let [port, first] = ["port", "first"].map(|name| fabric.find(name).expect("its name"));
    fabric.plug_in(port, first, patient_endpoint().named("first"));
}

fn latencies_are_reported(linux: &LinuxBoot) {
    let functions = linux.functions().expect("Linux lists them");
    for name in [PORT, FIRST] {
        let control = &functions[name].config[usize::from(DEVICE_CONTROL_2)..][..2];
        assert_ne!(control[1] & (LTR >> 8) as u8, 0, "{name}: {control:x?}");
    }
}

#[test]
fn latency_tolerance_of_a_port_after_hot_plug() {
    let on = same_end(
        HOT_PLUG,
        "wait,functions:1,compare,wait,functions:2,compare,resets,compare",
        3,
        |fabric, number| match number {
            1 => pull(fabric),
            _ => plug(fabric),
        },
    );
    latencies_are_reported(&on);
}

#[test]
fn containment_that_takes_the_link_down_and_lets_it_up_again() {
    fn contains() -> FunctionModel {
        port().containment()
    }
    let functions = Functions {
        port: contains,
        ..ORDINARY
    };
    // DPC Control: triggered by software; DPC Status: what is set is cleared.
    let steps = format!(
        "write:{PORT}@262@1,write:{PORT}@262@65,write:{PORT}@264@1,compare,resets,compare,rescan,\
         compare"
    );
    same_end(functions, &steps, 3, |_, _| ());
}

#[test]
fn what_root_writes_to_registers_of_a_port_resets_what_is_below() {
    // Link Disable, Secondary Bus Reset, and another number of the secondary bus.
    let mut steps = String::from("compare,");
    for (register, on, off) in [(0x50, 0x10, 0), (0x3e, 0x40, 0), (0x19, 7, 1)] {
        let _ = write!(
            steps,
            "write:{PORT}@{register}@{on},write:{PORT}@{register}@{off},compare,resets,compare,"
        );
    }
    steps += "bus_resets,compare,rescan,compare";
    same_end(ORDINARY, &steps, 9, |_, _| ());
}

#[test]
fn what_root_writes_to_registers_of_a_function_resets_it() {
    // D3hot and D0; Initiate Function Level Reset; a BAR; Cache Line Size.
    let steps = format!(
        "compare,write:{FIRST}@128@3,write:{FIRST}@128@0,compare,write:{FIRST}@73@128,compare,\
         write:{FIRST}@19@119,compare,write:{FIRST}@12@8,compare,resets,compare,rescan,compare"
    );
    same_end(ORDINARY, &steps, 7, |_, _| ());
}

#[test]
fn a_bar_that_root_resizes() {
    fn resizable() -> FunctionModel {
        FunctionModel::endpoint(0x1234, 7, 0xff_0000)
            .express(ExpressModel::new(PortType::Endpoint).flr())
            .bar(0, BarModel::memory64(0x10_0000))
            .resizable(&[(0, 0xf, 1)])
    }
    let functions = Functions {
        first: resizable,
        ..ORDINARY
    };
    // Linux itself resizes nothing where it keeps what it was handed over: root
    // writes BAR Size, and Linux is left with the BAR as it was.
    let steps = format!(
        "compare,write:{FIRST}@265@0,compare,resets,compare,write:{FIRST}@265@3,compare,rescan,\
         compare"
    );
    same_end(functions, &steps, 5, |_, _| ());
}

#[test]
fn firmware_of_a_device_that_changes_what_it_is_capable_of() {
    // An update, of which a driver knows: it resets the device afterwards.
    same_end(
        ORDINARY,
        "compare,wait,resets,compare,rescan,compare",
        3,
        |fabric, _| {
            let node = fabric.find("first").expect("it has such a name");
            let updated = FunctionModel::endpoint(0x1234, 7, 0xff_0000)
                .revision(2)
                .express(ExpressModel::new(PortType::Endpoint).flr())
                .msix(9, 0x2000, 0x3000)
                .bar(0, BarModel::memory64(0x4000))
                .multi_function();
            fabric.replace(node, updated);
        },
    );
}
