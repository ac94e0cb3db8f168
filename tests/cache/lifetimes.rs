//! How long what is known of a function holds: until something else is in its
//! place, until it is reset, and for VFs as long as they are enabled.

use warmbus_pci::{ConfigSpace, Sbdf, Width};
use warmbus_pcie_sim::{
    BarModel, Fault, FunctionModel, MILLISECOND, SrIovModel, VendorAction, devices, topologies,
};

use crate::twin::{
    EXPRESS, RESIZABLE_BAR, SR_IOV, Twin, at, bar0, below_port, class, command, ids, machine,
    virtual_function,
};

const RESET: u32 = 0x40;
const FUNCTION_LEVEL_RESET: u32 = 1 << 15;

/// Resets what is below "port" and waits until it may be accessed again.
fn reset_below_port(twin: &mut Twin) {
    let control = at(twin.place("port"), 0x3e, Width::Word);
    twin.set(control, RESET);
    twin.wait(1);
    twin.clear(control, RESET);
    twin.wait(200);
}

/// Another function than [`devices::nvme`] in every register.
fn another() -> FunctionModel {
    devices::virtio_network().revision(9).named("endpoint")
}

#[test]
fn nothing_of_a_device_is_left_when_another_answers_after_a_reset() {
    let mut twin = below_port(devices::nvme());
    let endpoint = twin.place("endpoint");
    let node = twin.bare.find("endpoint").unwrap();
    let changed = [ids(endpoint), class(endpoint)];
    twin.event(&changed, &[bar0(twin.place("other"))], |twin| {
        reset_below_port(twin);
        twin.hardware(|fabric| fabric.replace(node, another()));
        assert_eq!(twin.read(ids(endpoint)) & 0xffff, 0x1af4);
    });
    for offset in (0..0x100).step_by(4) {
        twin.read(at(endpoint, offset, Width::Dword));
    }
}

#[test]
fn a_device_that_was_unplugged_is_seen_to_be_another() {
    let mut twin = below_port(devices::nvme());
    let (port, endpoint) = (twin.place("port"), twin.place("endpoint"));
    let [port_node, node] = ["port", "endpoint"].map(|name| twin.bare.find(name).unwrap());
    let status = twin.standard(port, EXPRESS, 0x1a, Width::Word);
    let changed = [ids(endpoint), class(endpoint), bar0(endpoint)];
    twin.event(&changed, &[bar0(port)], |twin| {
        twin.hardware(|fabric| fabric.drop_link(port_node));
        twin.read(status);
        // What is never cached shows first that nobody is there.
        assert_eq!(twin.read(at(endpoint, 6, Width::Word)), 0xffff);
        for register in changed {
            assert_eq!(twin.read(register), u32::MAX);
        }
        twin.hardware(|fabric| fabric.plug_in(port_node, node, another()));
    });
}

#[test]
fn all_functions_of_a_device_go_with_it() {
    let (mut fabric, host) = topologies::empty();
    let port = devices::root_port(1).named("port").link_up();
    let port = fabric.add_root(host, 1, 0, port);
    for (function, name) in [(0, "first"), (1, "second")] {
        let model = devices::nvme().multi_function().named(name);
        fabric.add_below(port, 0, function, model);
    }
    let other = fabric.add_root(host, 2, 0, devices::root_port(2).link_up());
    fabric.add_below(other, 0, 0, devices::nvme().named("other"));
    let mut twin = Twin::new(fabric);
    let [first, second, other] = ["first", "second", "other"].map(|name| twin.place(name));
    let changed = [ids(second), class(second)];
    twin.event(&changed, &[bar0(other)], |twin| {
        twin.hardware(|fabric| fabric.drop_link(port));
        assert_eq!(twin.read(at(first, 6, Width::Word)), 0xffff);
    });
    // One that is gone alone: the other is captured after it has answered.
    let (mut fabric, host) = topologies::empty();
    let port = fabric.add_root(host, 1, 0, devices::root_port(1).link_up());
    for (function, name) in [(0, "first"), (1, "second")] {
        let model = devices::nvme().multi_function().named(name);
        fabric.add_below(port, 0, function, model);
    }
    let mut twin = Twin::new(fabric);
    let [first, second] = ["first", "second"].map(|name| twin.place(name));
    let line = at(second, 0x3c, Width::Byte);
    twin.write(line, 7);
    let node = twin.bare.find("first").unwrap();
    twin.hardware(|fabric| {
        let gone = devices::nvme().fault(Fault::Vanishes { accesses: 0 });
        fabric.replace(node, gone);
    });
    assert_eq!(twin.read(at(first, 6, Width::Word)), 0xffff);
    twin.cached.capture(second);
    for register in [line, class(second)] {
        twin.assert_served(register);
    }
    // One that never was there says nothing of others.
    let mut twin = Twin::new(topologies::small());
    let ports = [Sbdf::new(0, 0, 1, 0), Sbdf::new(0, 0, 2, 0)];
    assert_eq!(twin.read(ids(Sbdf::new(0, 0, 9, 0))), u32::MAX);
    for port in ports {
        twin.assert_served(class(port));
    }
}

#[test]
fn ones_that_one_register_is_to_return_are_no_value_of_another() {
    let mut twin = below_port(devices::nvme());
    let endpoint = twin.place("endpoint");
    let [port_node, node] = ["port", "endpoint"].map(|name| twin.bare.find(name).unwrap());
    // Not known after the write of a bit that the function need not have.
    twin.write(command(endpoint), 4);
    twin.write(at(endpoint, 0x14, Width::Dword), u32::MAX);
    twin.hardware(|fabric| fabric.drop_link(port_node));
    assert_eq!(twin.read(command(endpoint)), 0xffff);
    twin.hardware(|fabric| fabric.plug_in(port_node, node, devices::nvme()));
    assert_eq!(twin.read(command(endpoint)), 0);
}

#[test]
fn what_was_behind_a_bridge_is_gone_with_it() {
    let mut twin = Twin::new(topologies::switch());
    let port = twin.bare.find("port").unwrap();
    let upstream = twin.place("upstream port");
    let functions: Vec<Sbdf> = twin.topology.functions().iter().map(|f| f.sbdf).collect();
    let last = twin.read(at(twin.place("port"), 0x1a, Width::Byte)) as u8;
    let below = functions
        .into_iter()
        .filter(|f| (upstream.bus()..=last).contains(&f.bus()));
    let below: Vec<_> = below.map(ids).collect();
    assert!(below.len() > 8);
    twin.event(&below, &[], |twin| {
        twin.hardware(|fabric| fabric.drop_link(port));
        assert_eq!(twin.read(at(upstream, 6, Width::Word)), 0xffff);
    });
}

#[test]
fn a_function_that_is_not_ready_yet_is_the_one_that_was_there() {
    let mut twin = below_port(devices::nvme().reset_time(50 * MILLISECOND));
    let endpoint = twin.place("endpoint");
    let control = twin.standard(endpoint, EXPRESS, 8, Width::Word);
    twin.set(control, FUNCTION_LEVEL_RESET);
    let known = twin.cached.block(endpoint).unwrap().cached_bytes();
    for width in [Width::Dword, Width::Word] {
        assert_eq!(twin.read(at(endpoint, 0, width)) & 0xffff, 1);
        assert_eq!(twin.cached.block(endpoint).unwrap().cached_bytes(), known);
        // Nothing is served meanwhile.
        assert_eq!(twin.read(class(endpoint)), u32::MAX);
    }
    twin.wait(50);
    assert_eq!(twin.read(ids(endpoint)) & 0xffff, 0x1b36);
    twin.assert_served(class(endpoint));
    twin.assert_transparent();
}

#[test]
fn a_vendor_register_can_change_everything_in_its_function() {
    // Two bytes of an unknown register each, the last of its vendor's body.
    let unlocks = |offset, width, value| VendorAction::Set {
        offset,
        width,
        value,
    };
    let model = devices::nvme()
        .vendor_register(0xf0, unlocks(0x2c, Width::Dword, 0x1234_5678))
        .vendor_register(0xe00, unlocks(8, Width::Dword, 0x0302_0001));
    let mut twin = below_port(model);
    let endpoint = twin.place("endpoint");
    let kept = [bar0(twin.place("other")), bar0(twin.place("port"))];
    for (register, changed) in [
        (0xf2, at(endpoint, 0x2c, Width::Dword)),
        (0xe00, class(endpoint)),
    ] {
        twin.event(&[changed], &kept, |twin| {
            twin.write(at(endpoint, register, Width::Byte), 1);
        });
        // It is known again when it is asked again.
        twin.read(ids(endpoint));
        assert_eq!(twin.cached.infer(endpoint), Some(Vec::new()));
        twin.cached.capture(endpoint);
        twin.assert_transparent();
    }
}

#[test]
fn a_vendor_register_of_a_bridge_can_change_everything_behind_it() {
    let port = devices::root_port(1).vendor_register(0xf0, VendorAction::StopForwarding);
    let mut twin = machine(port, devices::nvme());
    let (port, endpoint) = (twin.place("port"), twin.place("endpoint"));
    twin.event(&[ids(endpoint), bar0(endpoint)], &[], |twin| {
        twin.write(at(port, 0xf0, Width::Dword), 1);
    });
}

#[test]
fn bus_numbers_of_a_bridge_that_is_not_known_any_more_move_what_is_below() {
    let port = devices::root_port(1).vendor_register(
        0xf0,
        VendorAction::Set {
            offset: 8,
            width: Width::Byte,
            value: 7,
        },
    );
    let mut twin = machine(port, devices::nvme());
    let (port, endpoint) = (twin.place("port"), twin.place("endpoint"));
    twin.write(at(port, 0xf0, Width::Dword), 1);
    // Software goes on with the endpoint, and looks at the IDs of the port.
    twin.read(ids(port));
    twin.read(ids(endpoint));
    twin.cached.walk(endpoint);
    twin.event(&[ids(endpoint), class(endpoint)], &[], |twin| {
        twin.write(at(port, 0x19, Width::Byte), 0x80);
    });
}

#[test]
fn a_probe_that_a_reset_interrupts_teaches_nothing() {
    let mut twin = below_port(devices::nvme());
    let endpoint = twin.place("endpoint");
    twin.write(bar0(endpoint), u32::MAX);
    reset_below_port(&mut twin);
    twin.read(ids(endpoint));
    assert_eq!(twin.read(bar0(endpoint)), 4);
    for value in [0xe000_0000, 0x1234_4000] {
        twin.write(bar0(endpoint), value);
        assert_eq!(twin.read(bar0(endpoint)), value | 4);
    }
}

#[test]
fn a_reset_gives_bars_their_first_sizes_back() {
    let mut vf_bars = [None; 6];
    vf_bars[0] = Some(BarModel::memory32(0x1000));
    let sriov = SrIovModel {
        vf_bars,
        ..SrIovModel::default()
    };
    let model = devices::nvme()
        .bar(2, BarModel::memory32(1 << 20))
        .resizable(&[(2, 7, 0)])
        .sriov(sriov, virtual_function());
    let mut twin = below_port(model);
    let endpoint = twin.place("endpoint");
    let size = twin.extended(endpoint, RESIZABLE_BAR, 9, Width::Byte);
    let pages = twin.extended(endpoint, SR_IOV, 0x20, Width::Dword);
    let bars = [
        at(endpoint, 0x18, Width::Dword),
        twin.extended(endpoint, SR_IOV, 0x24, Width::Dword),
    ];
    twin.write(size, 2);
    twin.write(pages, 0x10);
    for bar in bars {
        twin.write(bar, u32::MAX);
        twin.read(bar);
    }
    let control = twin.standard(endpoint, EXPRESS, 8, Width::Word);
    twin.set(control, FUNCTION_LEVEL_RESET);
    twin.read(ids(endpoint));
    // Those of the ROM and of the bridges above are what they were.
    let masks = twin.cached.block(endpoint).unwrap().write_masks();
    let offsets: Vec<u16> = masks.iter().map(|mask| mask.offset).collect();
    assert_eq!(offsets, [0x30]);
    for (bar, sizes) in bars.into_iter().zip([0xfff0_0000, 0xffff_f000]) {
        twin.read(bar);
        // No ones: this is no probe.
        twin.write(bar, 0xfff3_3000);
        assert_eq!(twin.read(bar), 0xfff3_3000 & sizes);
    }
}

#[test]
fn the_last_probe_of_a_bar_is_the_one_that_counts() {
    // A reset activates new firmware of the device.
    let model = |size| {
        devices::nvme()
            .bar(0, BarModel::memory32(size))
            .named("endpoint")
    };
    let mut twin = below_port(model(0x1_0000));
    let endpoint = twin.place("endpoint");
    let node = twin.bare.find("endpoint").unwrap();
    let control = twin.standard(endpoint, EXPRESS, 8, Width::Word);
    twin.set(control, FUNCTION_LEVEL_RESET);
    twin.hardware(|fabric| fabric.replace(node, model(0x1000)));
    twin.read(ids(endpoint));
    twin.write(bar0(endpoint), u32::MAX);
    twin.read(bar0(endpoint));
    twin.write(bar0(endpoint), 0xe000_7000);
    assert_eq!(twin.read(bar0(endpoint)), 0xe000_7000);
    twin.assert_served(bar0(endpoint));
}
