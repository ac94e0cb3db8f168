//! What makes a byte stale beside writes to it: one scenario a tag, with every
//! structure that has such a byte.
//!
//! The hardware changes the byte when the event comes, whether the simulator
//! knows why or not: a cache that goes on serving it is caught.

use warmbus_pci::{PortType, Sbdf, Width};
use warmbus_pcie_sim::{
    BarModel, BridgeWindows, ExpressModel, FunctionModel, SECOND, SlotModel, SrIovModel, devices,
};
use warmbus_pcsc::InvalidatedBy;

use crate::twin::{
    EXPRESS, MSI_X, RESIZABLE_BAR, Register, SR_IOV, Twin, at, bar0, class, command, ids, machine,
    virtual_function,
};

/// Makes one test of each variant, and does not compile while a variant has
/// none.
macro_rules! one_test_a_tag {
    ($($variant:ident => $scenario:ident as $test:ident),* $(,)?) => {
        /// The scenario of a tag.
        fn scenario(tag: InvalidatedBy) -> fn() {
            match tag {
                $(InvalidatedBy::$variant => $scenario,)*
            }
        }

        $(
            #[test]
            fn $test() {
                scenario(InvalidatedBy::$variant)();
            }
        )*
    };
}

one_test_a_tag! {
    None => untagged as constants_survive_every_event,
    Messages => messages as message_numbers_follow_msi_and_msix,
    CommonClock => common_clock as exit_latencies_follow_the_clock_of_the_link,
    Link => link as what_a_link_negotiates_ends_with_it,
    VfRouting => vf_routing as the_places_of_vfs_follow_their_number,
    VfPageSize => vf_page_size as vf_bars_follow_their_sizes,
    RomValidation => rom_validation as a_rom_that_is_being_validated_is_not_kept,
}

const DATA_OBJECT_EXCHANGE: u16 = 0x2e;
const FRS_QUEUEING: u16 = 0x21;
const CONTAINMENT: u16 = 0x1d;
const DVSEC: u16 = 0x23;
const VF_RESIZABLE_BAR: u16 = 0x24;

/// A port with all that can depend on its link and on its messages.
fn port() -> FunctionModel {
    let express = ExpressModel::new(PortType::RootPort).slot(SlotModel {
        power_controller: true,
        ..SlotModel::HOT_PLUG
    });
    FunctionModel::bridge(0x1b36, 0xc, BridgeWindows::default())
        .bar(0, BarModel::memory32(0x1000))
        .express(express)
        .msix(2, 0, 0x800)
        .msi(devices_msi())
        .containment()
        .extended(FRS_QUEUEING, 1, &[0, 0, 0])
        .extended(DVSEC, 1, &[0x0280_1e98, 3, 0, 0, 0, 0, 0, 0, 0])
}

fn devices_msi() -> warmbus_pcie_sim::MsiModel {
    warmbus_pcie_sim::MsiModel {
        vectors_log2: 3,
        address64: true,
        ..warmbus_pcie_sim::MsiModel::default()
    }
}

/// A physical function, likewise.
fn endpoint() -> FunctionModel {
    let mut vf_bars = [None; 6];
    vf_bars[0] = Some(BarModel::memory64(0x1000));
    let sriov = SrIovModel {
        vf_bars,
        ..SrIovModel::default()
    };
    devices::nvme()
        .rom(0x1_0000)
        .bar(2, BarModel::memory32(1 << 20))
        .sriov(sriov, virtual_function())
        .extended(DATA_OBJECT_EXCHANGE, 1, &[0, 0, 0, 0, 0])
        .secondary_pcie(4)
        .extended(0x26, 1, &[0; 8])
        .extended(0x27, 1, &[0; 5])
        .extended(0x2a, 1, &[0; 8])
        .extended(DVSEC, 1, &[0x0202_1e98, 7, 0, 0, 0, 0, 0])
        .extended(VF_RESIZABLE_BAR, 1, &[0x70, 0x20])
        .resizable(&[(2, 7, 0)])
        .serial_number(0x1122_3344_5566_7788)
}

/// The machine, its port and its endpoint.
fn build() -> (Twin, Sbdf, Sbdf) {
    let twin = machine(port(), endpoint());
    let (port, endpoint) = (twin.place("port"), twin.place("endpoint"));
    (twin, port, endpoint)
}

/// The registers at `offsets` of an extended capability.
fn registers(
    twin: &Twin,
    function: Sbdf,
    id: u16,
    offsets: impl IntoIterator<Item = u16>,
    width: Width,
) -> Vec<Register> {
    let offsets = offsets.into_iter();
    offsets
        .map(|offset| twin.extended(function, id, offset, width))
        .collect()
}

/// Lets `event` come and the hardware change all of `stale` with it; `kept`
/// stays in the cache.
fn follows(twin: &mut Twin, stale: &[Register], kept: &[Register], event: impl Fn(&mut Twin)) {
    let reachable = twin.bare.reachable();
    twin.event(stale, kept, |twin| {
        let before: Vec<u32> = stale.iter().map(|register| twin.read(*register)).collect();
        event(twin);
        for (register, before) in stale.iter().zip(before) {
            let node = reachable[&register.function];
            twin.hardware(|fabric| {
                // What the event itself has changed is enough.
                if fabric.peek(node, register.offset, register.width) == before {
                    let other = before ^ 1 << (8 * register.width.bytes() - 1);
                    fabric.poke(node, register.offset, register.width, other);
                }
            });
        }
    });
}

fn messages() {
    for id in [MSI_X, 0x05] {
        let (mut twin, port, endpoint) = build();
        let of_port = [
            twin.standard(port, EXPRESS, 2, Width::Word),
            twin.extended(port, CONTAINMENT, 4, Width::Word),
            twin.extended(port, FRS_QUEUEING, 4, Width::Dword),
        ];
        let of_endpoint = [
            twin.standard(endpoint, EXPRESS, 2, Width::Word),
            twin.extended(endpoint, SR_IOV, 4, Width::Dword),
            twin.extended(endpoint, DATA_OBJECT_EXCHANGE, 4, Width::Dword),
        ];
        let kept = [bar0(port), bar0(endpoint), ids(port), of_endpoint[0]];
        let control = twin.standard(port, id, 2, Width::Word);
        follows(&mut twin, &of_port, &kept, |twin| {
            twin.set(control, if id == MSI_X { 0x8000 } else { 0x31 });
        });
        if id == MSI_X {
            let control = twin.standard(endpoint, id, 2, Width::Word);
            let kept = [bar0(port), bar0(endpoint), of_port[0]];
            follows(&mut twin, &of_endpoint, &kept, |twin| {
                twin.set(control, 0x8000);
            });
        }
    }
}

fn common_clock() {
    let (mut twin, port, endpoint) = build();
    for (function, other) in [(port, endpoint), (endpoint, port)] {
        let control = twin.standard(function, EXPRESS, 0x10, Width::Word);
        let capabilities = twin.standard(function, EXPRESS, 0xc, Width::Dword);
        let others = twin.standard(other, EXPRESS, 0xc, Width::Dword);
        let kept = [others, ids(function), bar0(function)];
        follows(&mut twin, &[capabilities], &kept, |twin| {
            let value = twin.read(control);
            twin.write(control, value ^ 0x40);
        });
    }
}

/// All that the link between the two decides.
fn of_link(twin: &Twin, port: Sbdf, endpoint: Sbdf) -> [Vec<Register>; 2] {
    let mut of_port = registers(twin, port, DVSEC, (0xc..0x28).step_by(2), Width::Word);
    of_port.push(twin.standard(port, EXPRESS, 4, Width::Dword));
    of_port.push(twin.standard(port, EXPRESS, 0x28, Width::Word));
    let mut of_endpoint = vec![
        twin.standard(endpoint, EXPRESS, 4, Width::Dword),
        twin.standard(endpoint, EXPRESS, 0x28, Width::Word),
    ];
    for (id, offsets) in [
        (0x19, vec![0xc, 0xe, 0x10, 0x12]),
        (0x26, vec![0x20, 0x22]),
        (0x27, vec![8, 0xc, 0x10, 0x14]),
        (0x2a, vec![0x20, 0x22]),
        (DVSEC, vec![0xa, 0xc, 0x14, 0x16, 0x18, 0x1a]),
    ] {
        of_endpoint.extend(registers(twin, endpoint, id, offsets, Width::Word));
    }
    [of_port, of_endpoint]
}

fn link() {
    // Retrained, both ends are there all the time.
    let (mut twin, port, endpoint) = build();
    let both = of_link(&twin, port, endpoint).concat();
    let control = twin.standard(port, EXPRESS, 0x10, Width::Word);
    let kept = [bar0(port), bar0(endpoint), ids(endpoint), command(endpoint)];
    follows(&mut twin, &both, &kept, |twin| twin.set(control, 0x20));
    // Each of these takes it down, so that only the port is left.
    let slot = twin.standard(port, EXPRESS, 0x18, Width::Word);
    let contain = twin.extended(port, CONTAINMENT, 6, Width::Word);
    let bridge = at(port, 0x3e, Width::Word);
    for (register, set) in [
        (control, 0x10),
        (slot, 0x400),
        (contain, 0x41),
        (bridge, 0x40),
    ] {
        let (mut twin, port, endpoint) = build();
        let [of_port, _] = of_link(&twin, port, endpoint);
        let kept = [bar0(port), ids(port)];
        follows(&mut twin, &of_port, &kept, |twin| twin.set(register, set));
    }
    // After a reset the other end is the same and has negotiated anew.
    let (mut twin, port, endpoint) = build();
    let both = of_link(&twin, port, endpoint).concat();
    follows(&mut twin, &both, &[bar0(port)], |twin| {
        twin.set(bridge, 0x40);
        twin.wait(1);
        twin.clear(bridge, 0x40);
        twin.wait(200);
        twin.read(ids(endpoint));
    });
}

fn vf_routing() {
    let (mut twin, port, endpoint) = build();
    let routing = twin.extended(endpoint, SR_IOV, 0x14, Width::Dword);
    let num_vfs = twin.extended(endpoint, SR_IOV, 0x10, Width::Word);
    let kept = [bar0(endpoint), ids(endpoint), bar0(port)];
    for count in [3, 4] {
        follows(&mut twin, &[routing], &kept, |twin| {
            twin.write(num_vfs, count);
        });
    }
}

fn vf_page_size() {
    let (mut twin, _, endpoint) = build();
    let bars = registers(
        &twin,
        endpoint,
        SR_IOV,
        (0x24..0x3c).step_by(4),
        Width::Dword,
    );
    let pages = twin.extended(endpoint, SR_IOV, 0x20, Width::Dword);
    let size = twin.extended(endpoint, VF_RESIZABLE_BAR, 8, Width::Dword);
    let kept = [bar0(endpoint), ids(endpoint), command(endpoint)];
    for (register, value) in [(pages, 0x10), (size, 0x120), (pages, 1)] {
        follows(&mut twin, &bars, &kept, |twin| twin.write(register, value));
    }
}

fn rom_validation() {
    const ROM: u16 = 0x30;
    const ROM_OF_BRIDGE: u16 = 0x38;
    let validated = |model: FunctionModel| model.rom(0x1_0000).rom_validated_at(SECOND);
    let mut twin = machine(validated(port()), validated(devices::nvme()));
    let roms = [("port", ROM_OF_BRIDGE), ("endpoint", ROM)];
    let roms = roms.map(|(name, offset)| at(twin.place(name), offset, Width::Byte));
    for rom in roms {
        assert_eq!(twin.read(rom) & 0xe, 2);
        assert!(!twin.is_cached(rom));
    }
    twin.wait(1000);
    for rom in roms {
        assert_eq!(twin.read(rom) & 0xe, 4);
        // Enabled or not is software's, and so is the address.
        twin.write(rom, 1);
        assert_eq!(twin.read(rom) & 1, 1);
        twin.assert_served(at(rom.function, rom.offset + 1, Width::Byte));
    }
}

fn untagged() {
    let (mut twin, port, endpoint) = build();
    let mut kept = vec![
        ids(endpoint),
        class(endpoint),
        at(endpoint, 0x2c, Width::Dword),
        at(endpoint, 0x34, Width::Dword),
        twin.standard(endpoint, EXPRESS, 0x24, Width::Dword),
        twin.standard(endpoint, EXPRESS, 0x2c, Width::Dword),
        twin.standard(port, EXPRESS, 0x14, Width::Dword),
        ids(port),
        class(port),
        twin.extended(endpoint, SR_IOV, 0x1c, Width::Dword),
        twin.extended(endpoint, RESIZABLE_BAR, 4, Width::Dword),
    ];
    kept.extend(registers(&twin, endpoint, 0x03, [0, 4, 8], Width::Dword));
    let events = [
        twin.standard(endpoint, MSI_X, 2, Width::Word),
        twin.standard(port, MSI_X, 2, Width::Word),
        twin.standard(endpoint, EXPRESS, 0x10, Width::Word),
        twin.standard(port, EXPRESS, 0x10, Width::Word),
        twin.extended(endpoint, SR_IOV, 0x10, Width::Word),
        twin.extended(endpoint, SR_IOV, 0x20, Width::Word),
        twin.extended(endpoint, RESIZABLE_BAR, 8, Width::Word),
        twin.extended(endpoint, VF_RESIZABLE_BAR, 8, Width::Word),
        at(port, 0x3e, Width::Word),
        at(endpoint, 0x30, Width::Word),
    ];
    for (event, value) in events
        .into_iter()
        .zip([0x8000, 0x8000, 0x40, 0x60, 3, 0x10, 0x120, 0x120, 1, 1])
    {
        twin.event(&[], &kept, |twin| twin.write(event, value));
    }
    // A reset takes what software wrote, not them.
    let control = twin.standard(endpoint, EXPRESS, 8, Width::Word);
    twin.event(&[], &kept, |twin| {
        twin.write(control, 0x8000);
        twin.read(ids(endpoint));
    });
}
