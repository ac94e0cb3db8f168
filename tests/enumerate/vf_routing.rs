//! Where virtual functions would be, asked for every number of them.

use warmbus_pci::{PortType, Sbdf, VfPolicy, Width, probe_vf_routing};
use warmbus_pcie_sim::{
    Access, BridgeWindows, ExpressModel, Fabric, FunctionModel, SrIovModel, VfLayout,
};
use warmbus_pcsc_format::{HandoverRecords, MAX_ROUTINGS, RoutingRecord};

use crate::captured_vfs::{a_vf, boot};
use crate::{Machine, at, endpoint, machine, root_port};

/// Below a port that forwards by ARI, or one that does not, a physical function.
fn physical(total_vfs: u16, layout: VfLayout, ari: bool) -> (Fabric, Sbdf) {
    let (mut fabric, host) = machine(0, 8);
    let port = if ari {
        root_port()
    } else {
        let express = ExpressModel::new(PortType::RootPort).active_reporting();
        FunctionModel::bridge(0x1234, 0x0004, BridgeWindows::default()).express(express)
    };
    let port = fabric.add_root(host, 1, 0, port.link_up());
    let model = SrIovModel {
        total_vfs,
        layout,
        ..SrIovModel::default()
    };
    fabric.add_below(port, 0, 0, endpoint(7).ari(0).sriov(model, a_vf()));
    (fabric, at(1, 0, 0))
}

impl Machine {
    /// Asks, and returns what that took.
    fn ask(&mut self) -> Vec<Access> {
        let log = self.config.access_mut().log_mut();
        log.clear();
        log.record();
        probe_vf_routing(&self.topology, MAX_ROUTINGS, &mut self.config);
        self.fabric().log().entries().to_vec()
    }

    fn routing(&self, sbdf: Sbdf) -> Vec<RoutingRecord> {
        let gathered = HandoverRecords::new(&self.config, &self.topology);
        let blocks = gathered.blocks();
        let block = blocks.iter().find(|block| block.sbdf == sbdf).unwrap();
        block.routing.to_vec()
    }
}

#[test]
fn runs_of_numbers_with_one_answer_become_one_record_with_or_without_ari() {
    for ari in [false, true] {
        let layout: VfLayout = |num_vfs, ari| (1 + num_vfs / 4, 1 + u16::from(ari));
        let (fabric, sbdf) = physical(8, layout, ari);
        let mut machine = boot(fabric, &VfPolicy::default(), false);
        assert!(machine.routing(sbdf).len() <= 1);
        let accesses = machine.ask();
        let record = |first, last, offset| RoutingRecord {
            first,
            last,
            offset,
            stride: 1 + u16::from(ari),
            ari,
            captured: false,
        };
        assert_eq!(
            machine.routing(sbdf),
            [record(1, 3, 1), record(4, 7, 2), record(8, 8, 3)]
        );
        // TotalVFs was asked for before; the last one reads NumVFs back.
        let writes = accesses.iter().filter(|access| access.write).count();
        assert!(accesses.len() - writes <= 8, "{accesses:?}");

        // Only NumVFs is written, which is TotalVFs at the end, as before.
        let sr_iov = machine.sr_iov(sbdf);
        let mut written = Vec::new();
        for access in accesses.iter().filter(|access| access.write) {
            let to = (access.function, access.offset.get(), access.width);
            assert_eq!(to, (sbdf, sr_iov + 0x10, Width::Word));
            written.push(access.value);
        }
        assert_eq!(written, [7, 6, 5, 4, 3, 2, 1, 8]);
        assert_eq!(machine.hardware(sbdf, sr_iov + 0x10, Width::Word), 8);
        assert_eq!(machine.hardware(sbdf, sr_iov + 8, Width::Word) & 1, 0);
        assert_eq!(machine.vfs(), []);
        assert_eq!(machine.config.self_check().differences, []);
        machine.assert_sound();
        // What is known is not asked for again, but NumVFs is read back.
        assert_eq!(machine.ask().iter().filter(|one| !one.write).count(), 1);
    }
}

#[test]
fn nothing_is_asked_where_nothing_may_be_written() {
    let (fabric, _) = physical(8, |_, _| (1, 1), true);
    let mut machine = boot(fabric, &VfPolicy::default(), true);
    assert_eq!(machine.ask(), []);
}

#[test]
fn nothing_is_asked_of_a_function_whose_vfs_are_enabled() {
    let (fabric, sbdf) = physical(8, |_, _| (1, 1), true);
    let policy = VfPolicy {
        listed: vec![(sbdf, 3)],
        keep: true,
        ..VfPolicy::default()
    };
    let mut machine = boot(fabric, &policy, false);
    assert_eq!(machine.vfs().len(), 3);
    assert_eq!(machine.ask(), []);
}

#[test]
fn vfs_that_were_captured_keep_their_record() {
    let (fabric, sbdf) = physical(8, |_, _| (1, 1), true);
    let policy = VfPolicy {
        listed: vec![(sbdf, 3)],
        ..VfPolicy::default()
    };
    let mut machine = boot(fabric, &policy, false);
    machine.ask();
    let runs: Vec<_> = machine
        .routing(sbdf)
        .iter()
        .map(|record| (record.first, record.last, record.captured))
        .collect();
    assert_eq!(runs, [(1, 2, false), (3, 3, true), (4, 8, false)]);
}

#[test]
fn a_function_is_not_asked_for_more_than_can_be_handed_over() {
    // Each number has another answer.
    let (fabric, sbdf) = physical(200, |num_vfs, _| (num_vfs, 1), true);
    let mut machine = boot(fabric, &VfPolicy::default(), false);
    let accesses = machine.ask();
    assert!(accesses.len() <= 2 * (MAX_ROUTINGS + 2), "{accesses:?}");
    for record in machine.routing(sbdf) {
        assert_eq!((record.first, record.last), (record.offset, record.offset));
    }
    // Who claims to have more VFs than all others together.
    let (fabric, _) = physical(u16::MAX, |_, _| (1, 1), true);
    let mut machine = boot(fabric, &VfPolicy::default(), false);
    assert_eq!(machine.ask(), []);
}
