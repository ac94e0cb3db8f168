//! Virtual functions in the cache: when they are there, and what of them was
//! never read.

use warmbus_pci::{
    ConfigAccess, ConfigOffset, ConfigSpace, Probe, Sbdf, VfIdentity, VfRouting, Width,
};
use warmbus_pcie_sim::{Fabric, MILLISECOND, VF_ENABLE_TIME, VendorAction, devices};
use warmbus_pcsc::ConfigCache;

use crate::twin::{
    EXPRESS, SR_IOV, Twin, at, below_port, class, ids, sixteen_vfs, virtual_function,
};

const FUNCTION_LEVEL_RESET: u32 = 1 << 15;

#[test]
fn a_vendor_register_of_a_physical_function_can_take_its_vfs_away() {
    let model = devices::nvme()
        .sriov(sixteen_vfs(), virtual_function())
        .vendor_register(
            0xf0,
            VendorAction::Set {
                offset: 8,
                width: Width::Byte,
                value: 7,
            },
        );
    let mut twin = below_port(model);
    let endpoint = twin.place("endpoint");
    let control = twin.extended(endpoint, SR_IOV, 8, Width::Word);
    let vfs = twin.enable_vfs(endpoint, 3);
    let vfs: Vec<_> = vfs.into_iter().map(class).collect();
    twin.event(&vfs, &[], |twin| {
        twin.write(at(endpoint, 0xf0, Width::Dword), 1);
        // Nobody knows any more what this register does.
        twin.clear(control, 1);
    });
}

#[test]
fn vfs_are_gone_with_a_reset_even_if_their_places_are_not_known() {
    let mut twin = below_port(devices::nvme().sriov(sixteen_vfs(), virtual_function()));
    let endpoint = twin.place("endpoint");
    let vfs = twin.enable_vfs(endpoint, 3);
    let num_vfs = twin.extended(endpoint, SR_IOV, 0x10, Width::Word);
    let control = twin.standard(endpoint, EXPRESS, 8, Width::Word);
    // After a reset of its own a VF is ready when it answers.
    let vf_control = twin.standard(vfs[1], EXPRESS, 8, Width::Word);
    twin.write(vf_control, FUNCTION_LEVEL_RESET);
    assert_eq!(twin.read(ids(vfs[1])), u32::MAX);
    assert!(twin.cached.block(vfs[1]).is_some());
    twin.read(class(vfs[1]));
    twin.assert_served(class(vfs[1]));
    // Whichever of its registers is read first.
    twin.write(vf_control, FUNCTION_LEVEL_RESET);
    twin.read(class(vfs[1]));
    twin.assert_served(class(vfs[1]));
    let vfs: Vec<_> = vfs.into_iter().map(class).collect();
    twin.event(&vfs, &[], |twin| {
        // While VFs are enabled it has no effect.
        twin.write(num_vfs, 16);
        twin.set(control, FUNCTION_LEVEL_RESET);
    });
}

#[test]
fn synthesised_bytes_of_a_vf_are_those_that_were_not_read() {
    const CACHE_LINE_SIZE: u16 = 0x0c;
    let mut twin = below_port(devices::nvme().sriov(sixteen_vfs(), virtual_function()));
    let endpoint = twin.place("endpoint");
    let vf = twin.enable_vfs(endpoint, 3)[2];
    let synthesised = |twin: &Twin| twin.cached.block(vf).unwrap().synthesised();
    let all = [(0, 4), (0xc, 4), (0x10, 0x1c), (0x30, 4)];
    let mut merged = vec![all[0], (0xc, 0x20), all[3]];
    assert_eq!(synthesised(&twin), merged);
    twin.write(at(vf, CACHE_LINE_SIZE, Width::Byte), 0);
    merged[1] = (0xd, 0x1f);
    assert_eq!(synthesised(&twin), merged);
    let register = at(vf, CACHE_LINE_SIZE, Width::Word);
    twin.write(register, 0);
    merged[1] = (0xe, 0x1e);
    assert_eq!(synthesised(&twin), merged);
    twin.read(register);
    assert_eq!(synthesised(&twin), merged);
    // Beyond the header nothing is fixed.
    twin.write(at(vf, 0x40, Width::Word), 0);
    assert_eq!(synthesised(&twin), merged);
    twin.assert_transparent();
}

/// The third VF of a function with 16 that take `extra_time`, the moment when
/// VF Enable is set, and how the cache knows it.
fn third_vf(extra_time: u64) -> (ConfigCache<Fabric>, Sbdf, VfIdentity) {
    let template = virtual_function().ready_at(extra_time);
    let mut twin = below_port(devices::nvme().sriov(sixteen_vfs(), template));
    let physical = twin.place("endpoint");
    let [control, num_vfs] =
        [8, 0x10].map(|offset| twin.extended(physical, SR_IOV, offset, Width::Word));
    twin.write(num_vfs, 3);
    twin.set(control, 1);
    let routing = VfRouting {
        num_vfs: 3,
        offset: 1,
        stride: 1,
    };
    let identity = VfIdentity {
        physical,
        number: 3,
        routing,
    };
    let vf = routing.address(physical, 3);
    (twin.cached, vf, identity)
}

#[test]
fn a_vf_that_is_not_ready_is_neither_there_nor_absent() {
    let (mut cached, vf, identity) = third_vf(100 * MILLISECOND);
    let clock = cached.access().clock();
    clock.advance(VF_ENABLE_TIME);
    assert_eq!(cached.probe_vf(vf, identity), Probe::NotReady);
    assert!(cached.block(vf).is_none());
    clock.advance(100 * MILLISECOND);
    let expected = Probe::Present {
        vendor_id: 0x1b36,
        device_id: 0x0010,
    };
    assert_eq!(cached.probe_vf(vf, identity), expected);
    let block = cached.block(vf).unwrap();
    assert_eq!(block.virtual_function(), Some(identity));
    // IDs, Revision ID to BIST, BARs and CIS pointer, ROM BAR; and Command.
    assert_eq!(block.cached_bytes(), 4 + 8 + 0x1c + 4);
    assert_eq!(block.cacheable_bytes(), 4 + 8 + 0x1c + 4 + 2);
    // The one after the last is not there at all.
    let beyond = Sbdf::from_routing_id(0, vf.routing_id() + 1);
    assert_eq!(cached.probe_vf(beyond, identity), Probe::Absent);
    assert_eq!(cached.access().log().violations(), []);
    // Nor is one whose physical function nobody knows.
    let unknown = VfIdentity {
        physical: Sbdf::new(0, 9, 0, 0),
        ..identity
    };
    assert_eq!(cached.probe_vf(vf, unknown), Probe::Absent);
}

#[test]
fn vfs_that_are_disabled_are_remembered_and_not_served() {
    let mut twin = below_port(devices::nvme().sriov(sixteen_vfs(), virtual_function()));
    let endpoint = twin.place("endpoint");
    let vfs = twin.enable_vfs(endpoint, 3);
    let bytes = |twin: &Twin| twin.cached.block(vfs[1]).unwrap().cached_bytes();
    let before = bytes(&twin);
    twin.cached.disable_vfs(endpoint, &mut vfs.iter().copied());
    let control = twin.extended(endpoint, SR_IOV, 8, Width::Word);
    let offset = ConfigOffset::wrapping(control.offset);
    let enabled = twin.bare.read(endpoint, offset, Width::Word);
    twin.bare.write(endpoint, offset, Width::Word, enabled & !1);
    twin.wait(1000);
    assert_eq!(twin.read(control), enabled & !1);
    for &vf in &vfs {
        assert!(twin.cached.block(vf).unwrap().is_disabled());
        assert_eq!(
            twin.cached
                .read(vf, ConfigOffset::wrapping(8), Width::Dword),
            u32::MAX
        );
    }
    assert_eq!(bytes(&twin), before);
    assert_eq!(twin.cached.self_check().differences, []);
}
