//! Writes that change more of their own function, or of its VFs.

use std::collections::BTreeSet;

use warmbus_pci::{PortType, Sbdf, Width};
use warmbus_pcie_sim::{
    BarModel, ExpressModel, FunctionModel, MILLISECOND, SrIovModel, devices, topologies,
};

use crate::twin::{
    EXPRESS, MSI_X, RESIZABLE_BAR, Register, SR_IOV, Twin, at, bar0, below_port, class, command,
    ids, sixteen_vfs, virtual_function,
};

/// The IDs of VFs are all ones: a class code shows whether one is present.
fn classes(vfs: &[Sbdf]) -> Vec<Register> {
    vfs.iter().copied().map(class).collect()
}

/// A physical function whose message number depends on MSI-X.
fn physical(model: SrIovModel) -> FunctionModel {
    devices::nvme()
        .interrupt_messages(0, 5)
        .sriov(model, virtual_function())
}

pub(super) fn plain_register() {
    const INTERRUPT_LINE: u16 = 0x3c;
    let mut twin = below_port(devices::nvme());
    let endpoint = twin.place("endpoint");
    let line = at(endpoint, INTERRUPT_LINE, Width::Byte);
    let before = twin.cached_bytes();
    twin.write(line, 7);
    let after = twin.cached_bytes();
    let dropped: BTreeSet<_> = before.difference(&after).copied().collect();
    assert_eq!(dropped, BTreeSet::from([(endpoint, INTERRUPT_LINE)]));
    assert_eq!(twin.read(line), 7);
    twin.assert_transparent();
}

pub(super) fn self_test() {
    const BIST: u16 = 0x0f;
    let model = physical(SrIovModel::default()).bist_that_resets(5 * MILLISECOND, 3);
    let mut twin = below_port(model);
    let (endpoint, other) = (twin.place("endpoint"), twin.place("other"));
    let vfs = twin.enable_vfs(endpoint, 3);
    let bist = at(endpoint, BIST, Width::Byte);
    let kept = [bar0(other), class(endpoint), bar0(endpoint)];
    twin.event(&[], &kept, |twin| twin.write(bist, 0x80));
    let mut changed = vec![bar0(endpoint), command(endpoint)];
    changed.extend(classes(&vfs));
    twin.event(&changed, &[bar0(other)], |twin| twin.write(bist, 0x40));
    assert_eq!(twin.read(bist), 0xc0);
    twin.wait(5);
    assert_eq!(twin.read(bist), 0x83);
}

pub(super) fn message_control() {
    let mut twin = below_port(physical(SrIovModel::default()));
    let endpoint = twin.place("endpoint");
    let control = twin.standard(endpoint, MSI_X, 2, Width::Word);
    let flags = twin.standard(endpoint, EXPRESS, 2, Width::Word);
    let capabilities = twin.extended(endpoint, SR_IOV, 4, Width::Dword);
    let kept = [bar0(endpoint), ids(endpoint), bar0(twin.place("other"))];
    twin.event(&[flags, capabilities], &kept, |twin| {
        twin.write(control, 0x8000);
    });
}

/// An integrated endpoint, which has no other function level reset.
pub(super) fn advanced_features() {
    const ADVANCED_FEATURES: u8 = 0x13;
    let (mut fabric, host) = topologies::empty();
    let model = FunctionModel::endpoint(0x1234, 1, 0x08_8000)
        .named("endpoint")
        .bar(0, BarModel::memory64(0x1000))
        .reset_time(50 * MILLISECOND)
        .express(ExpressModel::new(PortType::RootComplexIntegratedEndpoint))
        .advanced_features();
    fabric.add_root(host, 3, 0, model);
    let mut twin = Twin::new(fabric);
    let endpoint = twin.place("endpoint");
    let control = twin.standard(endpoint, ADVANCED_FEATURES, 4, Width::Byte);
    twin.event(&[], &[bar0(endpoint), command(endpoint)], |twin| {
        twin.write(control, 0);
    });
    // Not ready at first, which a wait for it must see.
    let changed = [ids(endpoint), bar0(endpoint), command(endpoint)];
    twin.event(&changed, &[], |twin| twin.write(control, 1));
    twin.wait(50);
    assert_ne!(twin.read(ids(endpoint)), u32::MAX);
    assert_eq!(twin.read(bar0(endpoint)), 4);
}

pub(super) fn device_control() {
    const INITIATE_FLR: u32 = 1 << 15;
    let mut twin = below_port(physical(sixteen_vfs()));
    let (endpoint, other) = (twin.place("endpoint"), twin.place("other"));
    let message_control = twin.standard(endpoint, MSI_X, 2, Width::Word);
    twin.write(message_control, 0x8000);
    let vfs = twin.enable_vfs(endpoint, 16);
    let control = twin.standard(endpoint, EXPRESS, 8, Width::Word);
    let vf_control = twin.standard(vfs[2], EXPRESS, 8, Width::Word);
    // A VF alone.
    let master = command(vfs[2]);
    twin.write(master, 4);
    let kept = [bar0(endpoint), class(vfs[1]), class(vfs[3])];
    twin.event(&[master], &kept, |twin| {
        twin.write(vf_control, INITIATE_FLR);
    });
    // The physical function, and with it the last VF as well as the first.
    let mut changed = vec![
        bar0(endpoint),
        command(endpoint),
        twin.extended(endpoint, SR_IOV, 0x10, Width::Word),
        twin.extended(endpoint, SR_IOV, 0x14, Width::Dword),
        twin.standard(endpoint, EXPRESS, 2, Width::Word),
    ];
    changed.extend(classes(&vfs));
    twin.event(&changed, &[bar0(other)], |twin| {
        // The upper byte alone.
        let high = at(endpoint, control.offset + 1, Width::Byte);
        twin.set(high, INITIATE_FLR >> 8);
    });
    bridge_to_pci_has_no_function_level_reset();
}

/// The bit is Bridge Configuration Retry Enable there (PCIe 7.5.3.4).
fn bridge_to_pci_has_no_function_level_reset() {
    let (mut fabric, host) = topologies::empty();
    let bridge = devices::pcie_to_pci_bridge().named("bridge");
    fabric.add_root(host, 2, 0, bridge);
    let mut twin = Twin::new(fabric);
    let bridge = twin.place("bridge");
    let control = twin.standard(bridge, EXPRESS, 8, Width::Word);
    twin.event(&[], &[bar0(bridge), command(bridge)], |twin| {
        twin.set(control, 1 << 15);
    });
}

pub(super) fn sr_iov_control() {
    const ARI_CAPABLE_HIERARCHY: u32 = 1 << 4;
    let model = SrIovModel {
        clears_num_vfs: true,
        ..sixteen_vfs()
    };
    let second = SrIovModel {
        lowest: false,
        ..sixteen_vfs()
    };
    let (mut fabric, host) = topologies::empty();
    let port = fabric.add_root(host, 1, 0, devices::root_port(1).link_up());
    for (function, name, model) in [(0, "first", model), (1, "second", second)] {
        let physical = devices::nvme().multi_function().named(name);
        let physical = physical.ari(1 - function).sriov(model, virtual_function());
        fabric.add_below(port, 0, function, physical);
    }
    let mut twin = Twin::new(fabric);
    let (first, second) = (twin.place("first"), twin.place("second"));
    let control = twin.extended(first, SR_IOV, 8, Width::Word);
    let num_vfs = twin.extended(first, SR_IOV, 0x10, Width::Word);
    let routing =
        [first, second].map(|function| twin.extended(function, SR_IOV, 0x14, Width::Dword));
    for function in [first, second] {
        let num_vfs = twin.extended(function, SR_IOV, 0x10, Width::Word);
        twin.write(num_vfs, 16);
    }
    // Both layouts are learned, each for its own hierarchy.
    for ari in [0, ARI_CAPABLE_HIERARCHY, 0, ARI_CAPABLE_HIERARCHY] {
        twin.event(&routing, &[bar0(first), bar0(second)], |twin| {
            let others = twin.read(control) & !ARI_CAPABLE_HIERARCHY;
            twin.write(control, others | ari ^ ARI_CAPABLE_HIERARCHY);
            twin.write(control, others | ari);
        });
        twin.write(num_vfs, 3);
        twin.read(routing[0]);
        twin.write(num_vfs, 16);
    }
    let vfs = twin.enable_vfs(first, 16);
    let mut changed = classes(&vfs);
    changed.extend([control, num_vfs, routing[0]]);
    twin.event(&changed, &[bar0(first), routing[1]], |twin| {
        twin.clear(control, 1);
    });
    twin.wait(1000);
    // What was there before is not there when other VFs are enabled.
    let vfs = twin.enable_vfs(first, 3);
    twin.event(&classes(&vfs), &[], |twin| twin.clear(control, 1));
}

pub(super) fn num_vfs() {
    let mut twin = below_port(physical(sixteen_vfs()));
    let endpoint = twin.place("endpoint");
    let num_vfs = twin.extended(endpoint, SR_IOV, 0x10, Width::Word);
    let routing = twin.extended(endpoint, SR_IOV, 0x14, Width::Dword);
    let kept = [bar0(endpoint), bar0(twin.place("other"))];
    twin.write(num_vfs, 16);
    for count in [3, 16, 4, 5] {
        twin.event(&[routing], &kept, |twin| twin.write(num_vfs, count));
    }
    // What is known of a number needs no read when it comes again.
    twin.event(&[num_vfs, routing], &kept, |twin| {
        twin.write(num_vfs, 3);
        twin.assert_served(routing);
    });
    // By bytes it is no number that was known before it is complete.
    for (byte, value) in [(0, 16), (1, 0), (1, 1), (0, 3), (1, 0)] {
        twin.write(at(endpoint, num_vfs.offset + byte, Width::Byte), value);
        twin.read(routing);
    }
    // VFs are off for certain, whatever else the register holds.
    let control = twin.extended(endpoint, SR_IOV, 8, Width::Word);
    for (enable, is_known) in [(8, true), (1, false), (8, true)] {
        twin.write(control, enable);
        assert!(!twin.is_cached(control));
        twin.write(num_vfs, 16);
        if is_known {
            twin.assert_served(routing);
        }
        twin.read(routing);
        twin.read(control);
        twin.write(num_vfs, 3);
        twin.read(routing);
    }
    twin.write(control, 0);
    // They are off after a reset too, if the register says so.
    let device_control = twin.standard(endpoint, EXPRESS, 8, Width::Word);
    twin.write(device_control, 1 << 15);
    twin.read(ids(endpoint));
    twin.read(control);
    for count in [16, 3] {
        twin.write(num_vfs, count);
        twin.read(routing);
    }
    twin.write(num_vfs, 16);
    twin.assert_served(routing);
    // While VFs are enabled the register keeps its value; the upper byte of
    // Control, which holds nothing, does not disable them.
    twin.enable_vfs(endpoint, 3);
    twin.write(at(endpoint, control.offset + 1, Width::Byte), 0);
    twin.write(num_vfs, 16);
    twin.read(routing);
    twin.clear(control, 1);
    twin.write(num_vfs, 16);
    twin.read(routing);
    twin.assert_transparent();
}

/// A function with VF BARs of 4 KiB.
fn with_vf_bars() -> FunctionModel {
    let mut vf_bars = [None; 6];
    vf_bars[0] = Some(BarModel::memory64(0x1000));
    vf_bars[2] = Some(BarModel::memory32(0x1000));
    physical(SrIovModel {
        vf_bars,
        ..SrIovModel::default()
    })
}

pub(super) fn vf_page_size() {
    let mut twin = below_port(with_vf_bars());
    let endpoint = twin.place("endpoint");
    let page_size = twin.extended(endpoint, SR_IOV, 0x20, Width::Dword);
    let bars = [0x24, 0x2c].map(|bar| twin.extended(endpoint, SR_IOV, bar, Width::Dword));
    for bar in bars {
        twin.write(bar, 0xabcd_f000);
    }
    let kept = [bar0(endpoint), ids(endpoint)];
    // 64 KiB pages: address bits fall to 0.
    twin.event(&bars, &kept, |twin| twin.write(page_size, 0x10));
    for pages in [0x10, 1, 0x100] {
        twin.write(page_size, pages);
        for bar in bars {
            // The mask is another one as well.
            twin.read(bar);
            for value in [0xabcd_f000, u32::MAX, 0xabcd_f000] {
                twin.write(bar, value);
                twin.read(bar);
            }
        }
    }
}

pub(super) fn resizable_bar() {
    // 1, 2 and 4 MiB.
    let model = devices::nvme()
        .bar(2, BarModel::memory64(1 << 20))
        .resizable(&[(2, 7, 0)]);
    let mut twin = below_port(model);
    let endpoint = twin.place("endpoint");
    let control = twin.extended(endpoint, RESIZABLE_BAR, 8, Width::Dword);
    let bar = at(endpoint, 0x18, Width::Dword);
    twin.write(bar, 0xabf0_0000);
    let kept = [ids(endpoint), class(endpoint), command(endpoint)];
    let size = |twin: &mut Twin, size: u32| {
        let value = twin.read(control) & !0x3f00;
        twin.write(control, value | size << 8);
    };
    twin.event(&[bar], &kept, |twin| size(twin, 2));
    for encoded in [1, 0, 2] {
        size(&mut twin, encoded);
        twin.read(bar);
        for value in [0xabf0_0000, u32::MAX, 0xabf0_0000] {
            twin.write(bar, value);
            twin.read(bar);
        }
    }
}

const DVSEC: u16 = 0x23;

/// Two functions of a CXL device, "first" and "second" (CXL 3.1, 8.1.3), and
/// one elsewhere, "other".
fn cxl_device() -> Twin {
    let (mut fabric, host) = topologies::empty();
    let port = fabric.add_root(host, 1, 0, devices::root_port(1).link_up());
    for (function, name) in [(0, "first"), (1, "second")] {
        let model = devices::nvme().multi_function().named(name);
        let model = model.reset_time(20 * MILLISECOND).cxl_device();
        fabric.add_below(port, 0, function, model);
    }
    let other = fabric.add_root(host, 2, 0, devices::root_port(2).link_up());
    fabric.add_below(other, 0, 0, devices::nvme().named("other"));
    Twin::new(fabric)
}

/// An entry of Enhanced Allocation that is switched off leaves its BAR to
/// software, which the BAR may have been sized without.
fn enhanced_allocation() {
    const ENHANCED_ALLOCATION: u8 = 0x14;
    let (mut fabric, host) = topologies::empty();
    for (device, name) in [(2, "endpoint"), (3, "other")] {
        let model = devices::integrated_usb().named(name);
        let base = u64::from(device) << 28;
        let model = model.switchable_allocation(2, base, 0x1000);
        fabric.add_root(host, device, 0, model);
    }
    let mut twin = Twin::new(fabric);
    let endpoint = twin.place("endpoint");
    let bar = at(endpoint, 0x18, Width::Dword);
    let enable = twin.standard(endpoint, ENHANCED_ALLOCATION, 7, Width::Byte);
    let kept = [ids(endpoint), class(endpoint), bar0(twin.place("other"))];
    // Sized as firmware does: it is not there.
    twin.write(bar, u32::MAX);
    assert_eq!(twin.read(bar), 0);
    twin.event(&[], &kept, |twin| twin.write(enable, 0));
    twin.read(bar);
    for value in [0xe123_4000, u32::MAX, 0xe000_1000] {
        twin.write(bar, value);
        assert_eq!(twin.read(bar), value & 0xffff_f000);
    }
    twin.event(&[bar], &kept, |twin| twin.write(enable, 0x80));
}

pub(super) fn locking() {
    enhanced_allocation();
    let mut twin = cxl_device();
    let first = twin.place("first");
    let [control, lock] = [0xc, 0x14].map(|at| twin.extended(first, DVSEC, at, Width::Word));
    let base = twin.extended(first, DVSEC, 0x24, Width::Dword);
    let kept = [class(first), bar0(twin.place("other"))];
    twin.event(&[control, base], &kept, |twin| {
        twin.write(control, 0x4007);
        twin.write(base, 0x8000_0000);
    });
    twin.event(&[lock], &kept, |twin| twin.write(lock, 1));
    // What is locked ignores writes.
    for (register, value) in [(control, 2), (base, 0x4000_0000)] {
        twin.event(&[], &kept, |twin| twin.write(register, value));
        twin.read(register);
    }
}

/// CXL 3.1, 8.1.3.4 and 9.7.
pub(super) fn cxl_control_2() {
    const INITIATE_CXL_RESET: u32 = 1 << 2;
    let mut twin = cxl_device();
    let (first, second) = (twin.place("first"), twin.place("second"));
    let control_2 = twin.extended(first, DVSEC, 0x10, Width::Dword);
    let kept = [bar0(twin.place("other"))];
    let own = [bar0(first), bar0(second), kept[0]];
    // Initiate Cache Write Back and Invalidation.
    twin.event(&[], &own, |twin| twin.write(control_2, 2));
    let changed = [ids(first), ids(second), bar0(first), command(second)];
    twin.event(&changed, &kept, |twin| {
        twin.write(control_2, INITIATE_CXL_RESET);
    });
    twin.wait(20);
    for function in [first, second] {
        assert_eq!(twin.read(ids(function)) & 0xffff, 0x1b36);
        assert_eq!(twin.read(bar0(function)), 4);
        assert_eq!(twin.read(command(function)), 0);
    }
    twin.assert_transparent();
}
