//! Writes that change what is below a bridge, or at the other end of its link.

use warmbus_pci::{ConfigSpace, PortType, Sbdf, Width};
use warmbus_pcie_sim::{
    BridgeWindows, ExpressModel, FunctionModel, MILLISECOND, SrIovModel, devices, topologies,
};

use crate::twin::{
    EXPRESS, MSI_X, POWER_MANAGEMENT, SR_IOV, Twin, at, bar0, below_port, class, command, ids,
    machine, sixteen_vfs, virtual_function,
};

const DEVICE_CONTROL_2: u16 = 0x28;
const LINK_CONTROL: u16 = 0x10;
const LTR_ENABLE: u32 = 1 << 10;
const BRIDGE_CONTROL: u16 = 0x3e;

/// An endpoint with registers that depend on the link: presets, exit latencies.
fn linked() -> FunctionModel {
    devices::nvme()
        .interrupt_messages(0, 5)
        .secondary_pcie(4)
        .ari(0)
        .sriov(sixteen_vfs(), virtual_function())
}

pub(super) fn bus_numbers() {
    let mut twin = Twin::new(topologies::switch());
    let port = twin.place("port");
    let (upstream, bridge) = (
        twin.place("upstream port"),
        twin.place("PCIe to PCI bridge"),
    );
    let numbers = |function| at(function, 0x18, Width::Dword);
    let last = at(port, 0x1a, Width::Byte);
    let below: Vec<_> = twin.topology.functions().iter().map(|f| f.sbdf).collect();
    let on = |buses: std::ops::RangeInclusive<u8>| -> Vec<_> {
        let functions = below.iter().filter(|f| buses.contains(&f.bus()));
        functions.copied().map(ids).collect()
    };
    let [_, first, end] = [0, 1, 2].map(|byte| twin.read(at(port, 0x18 + byte, Width::Byte)) as u8);
    // The primary number alone moves nothing.
    let all = on(first..=end);
    twin.event(&[], &all, |twin| {
        twin.write(at(upstream, 0x18, Width::Byte), first.into());
    });
    // The last bus is cut off, the others stay where they are.
    let cut = all.iter().map(|register| register.function.bus()).max();
    let cut = cut.expect("there are functions below");
    let (kept, evicted) = (on(first..=cut - 1), on(cut..=end));
    assert!(!kept.is_empty() && !evicted.is_empty());
    twin.event(&evicted, &kept, |twin| twin.write(last, u32::from(cut) - 1));
    for register in &evicted {
        assert_eq!(twin.read(*register), u32::MAX);
    }
    twin.write(last, end.into());
    for register in &evicted {
        twin.read(*register);
    }
    // Another first bus: everything below has another address.
    let own = twin.read(numbers(bridge));
    let [_, first, end] = [0, 8, 16].map(|shift| (own >> shift) as u8);
    let moved = on(first..=end);
    let kept = on(1..=first - 1);
    twin.event(&moved, &kept, |twin| {
        twin.write(numbers(bridge), 0x00f7_f000 | own & 0xff);
    });
    // No bus at all.
    twin.write(numbers(bridge), own);
    for register in &moved {
        twin.read(*register);
    }
    twin.event(&moved, &kept, |twin| twin.write(numbers(bridge), 0));
}

pub(super) fn secondary_bus_reset() {
    reset_below_port(false);
    reset_below_port(true);
}

/// Software may look for the function during the reset, or wait for its end.
fn reset_below_port(is_polled: bool) {
    const RESET: u32 = 0x40;
    let mut twin = below_port(linked());
    let (port, endpoint) = (twin.place("port"), twin.place("endpoint"));
    let control = at(port, BRIDGE_CONTROL, Width::Word);
    let ltr = twin.standard(port, EXPRESS, DEVICE_CONTROL_2, Width::Word);
    twin.set(ltr, LTR_ENABLE);
    let messages = twin.standard(endpoint, MSI_X, 2, Width::Word);
    twin.write(messages, 0x8000);
    let link_control = twin.standard(endpoint, EXPRESS, LINK_CONTROL, Width::Word);
    twin.set(link_control, 0x40);
    let vfs = twin.enable_vfs(endpoint, 16);
    // Other bits of the register reset nothing.
    let kept = [bar0(endpoint), ids(endpoint), class(vfs[15]), bar0(port)];
    twin.event(&[], &kept, |twin| {
        twin.set(control, 1);
        // The upper byte of the register, in which no bit resets anything.
        twin.write(at(port, BRIDGE_CONTROL + 1, Width::Byte), 0xff);
        twin.write(at(port, BRIDGE_CONTROL - 2, Width::Byte), 0x40);
    });
    let mut changed = vec![
        ltr,
        bar0(endpoint),
        command(endpoint),
        // The message number, which MSI-X gave.
        twin.standard(endpoint, EXPRESS, 2, Width::Word),
        // Presets of the first and the last lane.
        twin.extended(endpoint, 0x19, 0xc, Width::Word),
        twin.extended(endpoint, 0x19, 0x12, Width::Word),
        twin.extended(endpoint, SR_IOV, 0x10, Width::Word),
        twin.extended(endpoint, SR_IOV, 0x14, Width::Dword),
    ];
    changed.extend(vfs.iter().copied().map(class));
    let kept = [bar0(port), bar0(twin.place("other"))];
    twin.event(&changed, &kept, |twin| {
        twin.set(control, RESET);
        twin.wait(1);
        if is_polled {
            assert_eq!(twin.read(ids(endpoint)), u32::MAX);
        }
        twin.clear(control, RESET);
        twin.wait(200);
        assert_ne!(twin.read(ids(endpoint)), u32::MAX);
    });
    if is_polled {
        return;
    }
    // ARI Capable Hierarchy is clear again: the same number of VFs elsewhere.
    let [control, num_vfs, routing] = [(8, Width::Word), (0x10, Width::Word), (0x14, Width::Dword)]
        .map(|(offset, width)| twin.extended(endpoint, SR_IOV, offset, width));
    assert_eq!(twin.read(control), 0);
    twin.write(num_vfs, 16);
    assert_eq!(twin.read(routing), 0x0002_0100);
}

pub(super) fn power_state() {
    const D3_HOT: u32 = 3;
    let mut twin = below_port(linked().reset_time(10 * MILLISECOND));
    let (port, endpoint, other) = (
        twin.place("port"),
        twin.place("endpoint"),
        twin.place("other"),
    );
    let vfs = twin.enable_vfs(endpoint, 16);
    let control = twin.standard(endpoint, POWER_MANAGEMENT, 4, Width::Word);
    let kept = [class(endpoint), bar0(other), class(vfs[0])];
    twin.event(&[], &[kept[0], kept[1], bar0(endpoint)], |twin| {
        // The state that it is in.
        twin.write(control, 0);
    });
    twin.event(&[], &kept, |twin| twin.write(control, D3_HOT));
    // PME_Status is in the upper byte, the power state is not.
    let high = at(endpoint, control.offset + 1, Width::Byte);
    twin.event(&[], &[kept[0], kept[1], bar0(endpoint)], |twin| {
        twin.write(high, 0x80);
    });
    // From D3hot to D3hot nothing happens, and D1 is not D0.
    twin.event(&[], &[kept[0], bar0(endpoint)], |twin| {
        twin.write(control, D3_HOT);
    });
    let mut another = below_port(linked());
    another.event(&[], &[class(endpoint), ids(endpoint)], |twin| {
        for state in [1, 0] {
            twin.write(control, state);
        }
    });
    // Back in D0 without its registers, and not at once.
    let mut changed = vec![ids(endpoint), bar0(endpoint), command(endpoint)];
    changed.extend(vfs.iter().copied().map(class));
    twin.event(&changed, &[bar0(other)], |twin| twin.write(control, 0));
    twin.wait(10);
    assert_ne!(twin.read(ids(endpoint)), u32::MAX);
    let routing = twin.extended(endpoint, SR_IOV, 0x14, Width::Dword);
    twin.read(routing);
    twin.assert_transparent();
    // A port that is not in D0 forwards nothing.
    let port_control = twin.standard(port, POWER_MANAGEMENT, 4, Width::Word);
    twin.read(command(endpoint));
    twin.event(
        &[ids(endpoint), command(endpoint)],
        &[bar0(other)],
        |twin| {
            twin.write(port_control, D3_HOT);
        },
    );
    twin.write(port_control, 0);
    twin.wait(200);
    assert_ne!(twin.read(ids(endpoint)), u32::MAX);
    twin.assert_transparent();
}

pub(super) fn link_control() {
    const LINK_DISABLE: u32 = 1 << 4;
    const RETRAIN: u32 = 1 << 5;
    const COMMON_CLOCK: u32 = 1 << 6;
    let latencies = |port| ExpressModel::new(port).exit_latencies((6, 5), (2, 1));
    let (mut fabric, host) = topologies::empty();
    let port = devices::root_port(1).named("port").link_up();
    let port = fabric.add_root(host, 1, 0, port);
    for (function, name) in [(0, "first"), (1, "second")] {
        let model = FunctionModel::endpoint(0x1234, 1, 0x02_0000).multi_function();
        let model = model.express(latencies(PortType::Endpoint)).named(name);
        fabric.add_below(port, 0, function, model.secondary_pcie(4));
    }
    let other = fabric.add_root(host, 2, 0, devices::root_port(2).link_up());
    fabric.add_below(other, 0, 0, linked().named("other"));
    let mut twin = Twin::new(fabric);
    let [port, first, second, other] = ["port", "first", "second", "other"].map(|n| twin.place(n));
    let both = [first, second];
    let capabilities = both.map(|f| twin.standard(f, EXPRESS, 0xc, Width::Dword));
    let control = twin.standard(first, EXPRESS, LINK_CONTROL, Width::Word);
    let presets = |twin: &Twin, function| {
        let offsets = [0xc, 0xe, 0x10, 0x12];
        offsets.map(|offset| twin.extended(function, 0x19, offset, Width::Word))
    };
    let others = twin.standard(other, EXPRESS, 0xc, Width::Dword);
    let mut kept = vec![others, ids(first), ids(second)];
    kept.extend(presets(&twin, first));
    // All functions of a device have its link.
    for _ in 0..2 {
        twin.event(&capabilities, &kept, |twin| {
            let value = twin.read(control);
            twin.write(control, value ^ COMMON_CLOCK);
        });
    }
    let unchanged = [kept[..].to_vec(), capabilities.to_vec()].concat();
    twin.event(&[], &unchanged, |twin| twin.set(control, 1));
    // What it was set to before is not known after a write.
    for bits in [COMMON_CLOCK, 0, COMMON_CLOCK] {
        twin.write(control, bits);
        twin.read(capabilities[0]);
        twin.read(capabilities[1]);
    }
    // The port trains the link anew.
    let port_control = twin.standard(port, EXPRESS, LINK_CONTROL, Width::Word);
    let mut changed = presets(&twin, first).to_vec();
    changed.extend(presets(&twin, second));
    let mut kept = vec![ids(first), bar0(port), others];
    kept.extend(presets(&twin, other));
    twin.event(&changed, &kept, |twin| twin.set(port_control, RETRAIN));
    // And switches it off and on.
    let ltr = twin.standard(port, EXPRESS, DEVICE_CONTROL_2, Width::Word);
    twin.set(ltr, LTR_ENABLE);
    twin.event(&[ids(first), ids(second), ltr], &kept[1..], |twin| {
        twin.set(port_control, LINK_DISABLE);
    });
    twin.clear(port_control, LINK_DISABLE);
    twin.wait(200);
    assert_ne!(twin.read(ids(first)), u32::MAX);
    twin.assert_transparent();
}

pub(super) fn slot_control() {
    const POWER_OFF: u32 = 1 << 10;
    const SLOT_CONTROL: u16 = 0x18;
    let port = devices::root_port(1).slot_command_time(5 * MILLISECOND);
    let mut twin = machine(port, devices::nvme());
    let (port, endpoint) = (twin.place("port"), twin.place("endpoint"));
    let control = twin.standard(port, EXPRESS, SLOT_CONTROL, Width::Word);
    let capabilities = twin.standard(port, EXPRESS, 0x14, Width::Dword);
    let kept = [capabilities, bar0(port), bar0(endpoint), ids(endpoint)];
    // The first command is seen at once; the second, which did not wait for
    // it, when it is completed.
    let now = twin.read(control);
    twin.event(&[], &kept, |twin| {
        twin.write(control, now ^ 0x40);
        twin.read(control);
        twin.write(control, now ^ 0x100);
        twin.read(control);
        twin.wait(5);
        assert_eq!(twin.read(control), now ^ 0x100);
    });
    let ltr = twin.standard(port, EXPRESS, DEVICE_CONTROL_2, Width::Word);
    twin.set(ltr, LTR_ENABLE);
    let others = bar0(twin.place("other"));
    twin.event(&[ids(endpoint), ltr], &[others, bar0(port)], |twin| {
        twin.write(control, now | POWER_OFF);
    });
}

pub(super) fn device_control_2() {
    const ARI_FORWARDING: u32 = 1 << 5;
    let model = SrIovModel {
        follows_forwarding: true,
        ..sixteen_vfs()
    };
    let (mut fabric, host) = topologies::empty();
    let port = devices::root_port(1).named("port").link_up();
    let port = fabric.add_root(host, 1, 0, port);
    let first = devices::nvme().named("first").ari(9);
    let first = first.sriov(model, virtual_function());
    fabric.add_below_devfn(port, 0, first);
    fabric.add_below_devfn(port, 9, devices::nvme().named("last").ari(0));
    let other = fabric.add_root(host, 2, 0, devices::root_port(2).link_up());
    let physical = linked().named("other");
    fabric.add_below(other, 0, 0, physical);
    let mut twin = Twin::new(fabric);
    let [port, first, last, other] = ["port", "first", "last", "other"].map(|n| twin.place(n));
    let control = twin.standard(port, EXPRESS, DEVICE_CONTROL_2, Width::Word);
    assert_ne!(twin.read(control) & ARI_FORWARDING, 0);
    // Only the port has a say in where VFs are.
    let hierarchy = twin.extended(first, SR_IOV, 8, Width::Word);
    twin.clear(hierarchy, 1 << 4);
    let num_vfs = twin.extended(first, SR_IOV, 0x10, Width::Word);
    let routing = twin.extended(first, SR_IOV, 0x14, Width::Dword);
    for count in [16, 3, 16] {
        twin.write(num_vfs, count);
        twin.read(routing);
    }
    let others = twin.extended(other, SR_IOV, 0x14, Width::Dword);
    let kept = [bar0(first), ids(first), others];
    twin.event(
        &[],
        &[kept[0], kept[1], others, routing, ids(last)],
        |twin| {
            twin.set(control, 1);
        },
    );
    twin.event(&[routing, ids(last)], &kept, |twin| {
        twin.clear(control, ARI_FORWARDING);
    });
    // What was learned with ARI holds no longer.
    for count in [3, 16] {
        twin.write(num_vfs, count);
        twin.read(routing);
    }
    twin.set(control, ARI_FORWARDING);
    assert_ne!(twin.read(ids(last)), u32::MAX);
    twin.assert_transparent();
}

pub(super) fn containment() {
    const CONTAINMENT: u16 = 0x1d;
    let mut twin = below_port(devices::nvme());
    let (port, endpoint) = (twin.place("port"), twin.place("endpoint"));
    let control = twin.extended(port, CONTAINMENT, 6, Width::Word);
    let status = twin.extended(port, CONTAINMENT, 8, Width::Word);
    let ltr = twin.standard(port, EXPRESS, DEVICE_CONTROL_2, Width::Word);
    twin.set(ltr, LTR_ENABLE);
    let kept = [bar0(port), bar0(twin.place("other"))];
    let below = [bar0(endpoint), ids(endpoint)];
    twin.event(&[], &[kept[0], kept[1], below[0], below[1]], |twin| {
        twin.write(control, 1);
    });
    // Software trigger, by a write of the register and of its dword.
    let dword = at(port, control.offset - 2, Width::Dword);
    for (register, value) in [(control, 0x41), (dword, 0x0042_0000)] {
        twin.read(bar0(endpoint));
        twin.set(ltr, LTR_ENABLE);
        twin.event(&[ids(endpoint), bar0(endpoint), ltr], &kept, |twin| {
            twin.write(register, value);
        });
        // Released.
        twin.write(status, 1);
        twin.wait(200);
        assert_ne!(twin.read(ids(endpoint)), u32::MAX);
        twin.cached.walk(endpoint);
        twin.write(bar0(endpoint), 0x1000_0000);
        twin.assert_transparent();
    }
}

/// A port that decodes routing IDs by the vector of a flattening portal.
pub(super) fn rerouting() {
    const PORTAL: u8 = 0x15;
    let express = ExpressModel::new(PortType::RootPort);
    let port = FunctionModel::bridge(0x1234, 4, BridgeWindows::default()).express(express);
    let mut twin = machine(port.flattening_portal(), devices::nvme());
    let (port, endpoint) = (twin.place("port"), twin.place("endpoint"));
    let register = |twin: &Twin, offset| twin.standard(port, PORTAL, offset, Width::Dword);
    let [control, secondary, element, data] =
        [8, 0xc, 0x1c, 0x20].map(|offset| register(&twin, offset));
    let kept = [bar0(port), class(port)];
    // Buses 0x80 on, a bit each: only bus 0x82 goes down, and is the one below.
    let moved = Sbdf::new(0, 0x82, 0, 0);
    twin.write(element, 0);
    twin.write(secondary, 0x8200);
    twin.write(data, 1 << 2);
    twin.event(&[ids(endpoint)], &kept, |twin| {
        twin.write(control, 0x8000_0051);
    });
    assert_ne!(twin.read(ids(moved)), u32::MAX);
    assert_ne!(twin.read(class(moved)), u32::MAX);
    // The vector alone decides, too.
    twin.event(&[ids(moved), class(moved)], &kept, |twin| {
        twin.write(data, 0);
    });
}
