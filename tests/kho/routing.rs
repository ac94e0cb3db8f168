//! What a handover says of the routing IDs of virtual functions.

use warmbus_pci::{ConfigAccess, ConfigOffset, Sbdf, Width};
use warmbus_pcie_sim::{Fabric, FunctionModel, SrIovModel, VfLayout};

use crate::captured::{CapturedMachine, add_host, at, endpoint, physical, root_port};

#[test]
fn every_routing_record_has_the_ari_bit_of_its_own_device() {
    // The same bus numbers in both segments, in turn and one after the other.
    for order in [
        &[true, false, true][..],
        &[false, true, false],
        &[true],
        &[false],
    ] {
        let mut fabric = Fabric::new();
        for segment in 0..2 {
            let host = add_host(&mut fabric, segment);
            for (device, ari) in (1..).zip(order) {
                let ari = *ari != (segment == 1);
                let port = fabric.add_root(host, device, 0, root_port(ari));
                fabric.add_below(port, 0, 0, physical(2, |_, _| (1, 1)));
            }
        }
        let vfs: Vec<_> = (0..2)
            .flat_map(|segment| (1..=order.len()).map(move |bus| (segment, bus as u8)))
            .map(|(segment, bus)| (at(segment, bus, 0, 0), 1))
            .collect();
        let machine = CapturedMachine::new(fabric, &vfs);
        for (physical, _) in vfs {
            let nth = usize::from(physical.bus()) - 1;
            let expected = order[nth] != (physical.segment() == 1);
            let vf = Sbdf::from_routing_id(physical.segment(), physical.routing_id() + 1);
            for function in [physical, vf] {
                let records = machine.routing(function);
                assert!(!records.is_empty());
                for record in records {
                    assert_eq!(record.ari, expected, "{function}");
                }
            }
        }
    }
}

#[test]
fn the_ari_bit_of_a_device_is_that_of_its_lowest_physical_function() {
    let mut fabric = Fabric::new();
    let host = add_host(&mut fabric, 0);
    let port = fabric.add_root(host, 1, 0, root_port(true));
    // Function 0 has no SR-IOV. In function 2 the bit reads 0 whatever is
    // written to that of function 1 (PCIe 9.3.3.3.5).
    fabric.add_below(port, 0, 0, endpoint().multi_function().ari(1));
    for (function, next, lowest) in [(1, 2, true), (2, 0, false)] {
        let model = SrIovModel {
            total_vfs: 2,
            layout: |_, _| (4, 4),
            lowest,
            ..SrIovModel::default()
        };
        let vf = FunctionModel::virtual_function(0x01_0802);
        let physical = endpoint().multi_function().ari(next).sriov(model, vf);
        fabric.add_below(port, 0, function, physical);
    }
    // A device without ARI behind it.
    let port = fabric.add_root(host, 2, 0, root_port(false));
    fabric.add_below(port, 0, 0, physical(2, |_, _| (1, 1)));
    let machine = CapturedMachine::new(fabric, &[]);
    for (function, ari) in [
        (at(0, 1, 0, 1), true),
        (at(0, 1, 0, 2), true),
        (at(0, 2, 0, 0), false),
    ] {
        let records = machine.routing(function);
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].ari, ari, "{function}");
    }
    assert_eq!(machine.routing(at(0, 1, 0, 0)), []);
}

#[test]
fn an_ari_bit_that_is_not_known_is_not_that_of_another_bus() {
    let mut fabric = Fabric::new();
    let host = add_host(&mut fabric, 0);
    for (device, ari) in [(1, false), (2, true)] {
        let port = fabric.add_root(host, device, 0, root_port(ari));
        fabric.add_below(port, 0, 0, physical(2, |_, _| (1, 1)));
    }
    let mut machine = CapturedMachine::new(fabric, &[]);
    let (first, second) = (at(0, 1, 0, 0), at(0, 2, 0, 0));
    // A write of VF Memory Space Enable leaves the byte with the ARI bit
    // unknown.
    let block = machine.config.block(first).expect("captured");
    let control = block.extended_capability(0x10).expect("SR-IOV") + 8;
    assert_eq!(block.word(control), Some(0));
    let register = ConfigOffset::wrapping(control);
    machine.config.write(first, register, Width::Word, 1 << 3);
    let block = machine.config.block(first).expect("captured");
    assert_eq!(block.word(control), None);
    assert!(!machine.routing(first)[0].ari);
    assert!(machine.routing(second)[0].ari);
}

/// The records of a physical function with `layout`, after VFs were read with
/// these values of NumVFs and captured with `captured`.
fn routing_after(layout: VfLayout, num_vfs: &[u16], captured: u16) -> Vec<[u16; 5]> {
    let mut fabric = Fabric::new();
    let host = add_host(&mut fabric, 0);
    let port = fabric.add_root(host, 1, 0, root_port(true));
    fabric.add_below(port, 0, 0, physical(12, layout));
    let sbdf = at(0, 1, 0, 0);
    let vfs = [(sbdf, captured)];
    let listed = if captured > 0 { &vfs[..] } else { &[] };
    let mut machine = CapturedMachine::new(fabric, listed);
    machine.read_routing(sbdf, num_vfs);
    let records = machine.routing(sbdf);
    assert!(records.iter().all(|record| record.ari));
    records
        .iter()
        .map(|record| {
            let captured = u16::from(record.captured);
            [
                record.first,
                record.last,
                record.offset,
                record.stride,
                captured,
            ]
        })
        .collect()
}

#[test]
fn values_of_numvfs_with_one_layout_share_a_record() {
    // TotalVFs, 12, is always known.
    let same: VfLayout = |_, _| (1, 1);
    assert_eq!(routing_after(same, &[], 0), [[12, 12, 1, 1, 0]]);
    let all: Vec<_> = (1..=12).collect();
    assert_eq!(routing_after(same, &all, 0), [[1, 12, 1, 1, 0]]);
    // Read in any order, with one value that nobody read.
    assert_eq!(
        routing_after(same, &[9, 3, 1, 2, 10, 11], 0),
        [[1, 3, 1, 1, 0], [9, 12, 1, 1, 0]]
    );
    // The one that was captured stands alone.
    assert_eq!(
        routing_after(same, &all, 5),
        [[1, 4, 1, 1, 0], [5, 5, 1, 1, 1], [6, 12, 1, 1, 0]]
    );
}

#[test]
fn another_offset_or_stride_takes_another_record() {
    let all: Vec<_> = (1..=12).collect();
    let offset: VfLayout = |num_vfs, _| (if num_vfs < 5 { 1 } else { 2 }, 3);
    assert_eq!(
        routing_after(offset, &all, 0),
        [[1, 4, 1, 3, 0], [5, 12, 2, 3, 0]]
    );
    let stride: VfLayout = |num_vfs, _| (1, if num_vfs < 5 { 1 } else { 2 });
    assert_eq!(
        routing_after(stride, &all, 0),
        [[1, 4, 1, 1, 0], [5, 12, 1, 2, 0]]
    );
}
