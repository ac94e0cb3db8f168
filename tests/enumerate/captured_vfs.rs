//! Virtual functions that are enabled to be captured, and those that are found.

use warmbus_boot::pipeline::Pipeline;
use warmbus_pci::{ConfigAccess, ConfigOffset, Sbdf, VfPolicy, VfScope, Width, verify_assignment};
use warmbus_pcie_sim::{
    BarModel, Fabric, Fault, FunctionModel, SrIovModel, VF_ENABLE_TIME, VfLayout, topologies,
};
use warmbus_pcsc_format::{HandoverRecords, RoutingRecord};

use crate::{Machine, at, endpoint, machine, root_port, run};

const ALL: VfPolicy = VfPolicy {
    scope: VfScope::All,
    listed: Vec::new(),
    keep: false,
};

pub(crate) fn boot(fabric: Fabric, policy: &VfPolicy, preserve: bool) -> Machine {
    let pipeline = Pipeline {
        vfs: policy.clone(),
        ..Pipeline::default()
    };
    run(fabric, &pipeline, |host| host.preserve_config = preserve)
}

/// A port with a physical function below, and its place.
fn physical(total_vfs: u16, layout: VfLayout, vf: FunctionModel) -> (Fabric, Sbdf) {
    let (mut fabric, host) = machine(0, 8);
    let port = fabric.add_root(host, 1, 0, root_port().link_up());
    let mut vf_bars = [None; 6];
    vf_bars[0] = Some(BarModel::memory64(0x1000));
    let model = SrIovModel {
        total_vfs,
        layout,
        vf_bars,
        ..SrIovModel::default()
    };
    fabric.add_below(port, 0, 0, endpoint(7).ari(0).sriov(model, vf));
    (fabric, at(1, 0, 0))
}

pub(crate) fn a_vf() -> FunctionModel {
    FunctionModel::virtual_function(0x01_0802)
}

impl Machine {
    pub(crate) fn vfs(&self) -> Vec<Sbdf> {
        let functions = self.topology.functions().iter();
        let vfs = functions.filter(|function| function.virtual_function.is_some());
        vfs.map(|function| function.sbdf).collect()
    }

    pub(crate) fn sr_iov(&self, physical: Sbdf) -> u16 {
        let block = self.config.block(physical).expect("cached");
        block.extended_capability(0x10).expect("SR-IOV")
    }

    /// Reads of the hardware that say what is there, past the cache.
    pub(crate) fn hardware(&mut self, function: Sbdf, offset: u16, width: Width) -> u32 {
        let offset = ConfigOffset::wrapping(offset);
        self.config.access_mut().read(function, offset, width)
    }

    /// Everything that is cached of VFs is what they hold when somebody enables
    /// them again.
    fn assert_true_when_enabled(&mut self, physical: Sbdf, num_vfs: u16) {
        let at = self.sr_iov(physical);
        let control = self.hardware(physical, at + 8, Width::Word);
        assert_eq!(control & 1, 0, "VF Enable is set");
        let fabric = self.config.access_mut();
        let register = |at: u16| ConfigOffset::wrapping(at);
        fabric.write(physical, register(at + 0x10), Width::Word, num_vfs.into());
        fabric.write(physical, register(at + 8), Width::Word, control | 1);
        fabric.clock().advance(VF_ENABLE_TIME);
        for vf in self.vfs() {
            let block = self.config.block(vf).expect("kept").clone();
            assert_eq!(block.cached_bytes(), block.cacheable_bytes(), "{vf}");
            assert!(block.cached_bytes() > 100, "{vf}");
            assert_eq!(block.dword(0), Some(u32::MAX), "{vf}");
            for offset in block.cacheable_dwords() {
                let value = self.hardware(vf, offset.get(), Width::Dword);
                for (lane, byte) in value.to_le_bytes().into_iter().enumerate() {
                    let offset = offset.wrapping_add(lane as u16);
                    if block.is_cached(offset) {
                        assert_eq!(block.data()[offset.index()], byte, "{vf} {offset}");
                    }
                }
            }
        }
        let fabric = self.config.access_mut();
        fabric.write(physical, register(at + 8), Width::Word, control);
    }
}

#[test]
fn all_vfs_are_captured_and_disabled_again() {
    let mut fabric = topologies::sriov(2, 127);
    fabric.log_mut().record();
    let mut machine = boot(fabric, &ALL, false);
    assert_eq!(machine.vfs().len(), 254);
    assert_eq!(machine.complaints(), [""; 0]);
    assert_eq!(verify_assignment(&machine.topology, &machine.config), []);
    assert_eq!(machine.config.self_check().differences, []);
    // Nobody was asked too early, and nothing twice.
    let log = machine.fabric().log();
    assert_eq!(log.violations().len(), 0, "{:?}", log.violations().first());
    for ((_, vf, offset), count) in log.reads_by_dword() {
        if vf.is_some() {
            assert_eq!(count, 1, "{offset:#x}");
            // What the specification fixes is not read at all.
            let fixed = [0x00..0x04, 0x0c..0x2c, 0x30..0x34];
            assert!(!fixed.iter().any(|range| range.contains(&offset)));
        }
    }
    let physical: Vec<_> = machine
        .topology
        .functions()
        .iter()
        .filter(|function| function.sriov.is_some())
        .map(|function| function.sbdf)
        .collect();
    assert_eq!(physical.len(), 2);
    for sbdf in physical {
        let at = machine.sr_iov(sbdf);
        assert_eq!(machine.hardware(sbdf, at + 8, Width::Word) & 1, 0);
    }
}

#[test]
fn a_vf_stands_behind_its_physical_function_and_is_known_by_its_identity() {
    let (fabric, sbdf) = physical(8, |_, _| (2, 3), a_vf());
    let machine = boot(fabric, &ALL, false);
    let functions = machine.topology.functions();
    let at = functions.iter().position(|f| f.sbdf == sbdf).unwrap();
    for (number, vf) in (1..=8).zip(&functions[at + 1..]) {
        let rid = sbdf.routing_id() + 2 + (number - 1) * 3;
        assert_eq!(vf.sbdf, Sbdf::from_routing_id(0, rid));
        let info = vf.virtual_function.unwrap();
        assert_eq!((info.physical, info.number), (at, number));
        assert_eq!((vf.vendor_id, vf.device_id), (0x1234, 0x0010));
        assert_eq!(vf.parent, functions[at].parent);
        assert_eq!(vf.class_code, 0x01_0802);
        let identity = machine.config.block(vf.sbdf).unwrap().virtual_function();
        let identity = identity.unwrap();
        assert_eq!((identity.physical, identity.number), (sbdf, number));
    }
    let sriov = functions[at].sriov.unwrap();
    assert_eq!((sriov.num_vfs, sriov.vfs_enabled), (8, false));
}

#[test]
fn what_is_kept_of_vfs_is_what_they_hold_when_they_are_enabled_again() {
    let layouts: [VfLayout; 3] = [
        |_, _| (1, 1),
        |num_vfs, _| (0x100, num_vfs),
        |num_vfs, ari| if ari { (num_vfs, 1) } else { (0x80, 2) },
    ];
    for layout in layouts {
        for count in [1, 5, 8] {
            let (fabric, sbdf) = physical(8, layout, a_vf());
            let policy = VfPolicy {
                listed: vec![(sbdf, count)],
                ..VfPolicy::default()
            };
            let mut machine = boot(fabric, &policy, false);
            assert_eq!(machine.vfs().len(), usize::from(count));
            assert_eq!(machine.complaints(), [""; 0]);
            machine.assert_true_when_enabled(sbdf, count);
        }
    }
}

#[test]
fn the_handover_says_under_which_conditions_a_vf_holds() {
    let (fabric, sbdf) = physical(8, |num_vfs, ari| (num_vfs, 1 + u16::from(ari)), a_vf());
    let policy = VfPolicy {
        listed: vec![(sbdf, 5)],
        ..VfPolicy::default()
    };
    let machine = boot(fabric, &policy, false);
    let gathered = HandoverRecords::new(&machine.config, &machine.topology);
    let blocks = gathered.blocks();
    // The port forwards ARI, so that the device knows its number.
    let record = |num_vfs, captured| RoutingRecord {
        first: num_vfs,
        last: num_vfs,
        offset: num_vfs,
        stride: 2,
        ari: true,
        captured,
    };
    let of = |sbdf| blocks.iter().find(|block| block.sbdf == sbdf).unwrap();
    assert_eq!(of(sbdf).routing, [record(5, true), record(8, false)]);
    assert_eq!(of(sbdf).virtual_function, None);
    for (number, vf) in (1..).zip(machine.vfs()) {
        assert_eq!(of(vf).routing, [record(5, true)]);
        let found = of(vf).virtual_function.unwrap();
        assert_eq!(
            (found.physical, found.number, found.disabled),
            (sbdf.routing_id(), number, true)
        );
        let fixed = [(0x00, 4), (0x0c, 0x20), (0x30, 4)];
        assert_eq!(found.synthesised, fixed);
    }
}

#[test]
fn without_a_word_no_vf_is_enabled() {
    for policy in [
        VfPolicy::default(),
        VfPolicy {
            scope: VfScope::Off,
            ..VfPolicy::default()
        },
    ] {
        let (fabric, _) = physical(8, |_, _| (1, 1), a_vf());
        let mut machine = boot(fabric, &policy, false);
        assert_eq!(machine.vfs(), []);
        machine.assert_sound();
    }
}

/// Enables VFs as another firmware would, and forgets the cache.
fn enabled_before(num_vfs: u16) -> (Fabric, Sbdf) {
    let (fabric, sbdf) = physical(8, |_, _| (1, 1), a_vf());
    let keep = VfPolicy {
        scope: VfScope::Off,
        listed: vec![(sbdf, num_vfs)],
        keep: true,
    };
    let mut machine = boot(fabric, &keep, false);
    assert_eq!(machine.vfs().len(), usize::from(num_vfs));
    assert_eq!(machine.config.self_check().differences, []);
    (machine.config.access().clone(), sbdf)
}

#[test]
fn vfs_that_are_enabled_are_found_without_a_write() {
    let (mut fabric, sbdf) = enabled_before(5);
    fabric.log_mut().clear();
    fabric.log_mut().record();
    let mut machine = boot(fabric, &VfPolicy::default(), true);
    assert_eq!(machine.vfs().len(), 5);
    assert_eq!(machine.fabric().log().writes(), 0);
    assert_eq!(machine.config.self_check().differences, []);
    let sriov = machine.function(sbdf).sriov.unwrap();
    assert_eq!((sriov.num_vfs, sriov.vfs_enabled), (5, true));
    let at = machine.sr_iov(sbdf);
    assert_eq!(machine.hardware(sbdf, at + 8, Width::Word) & 1, 1);
}

#[test]
fn vfs_that_were_enabled_are_captured_although_all_is_assigned_anew() {
    let (fabric, sbdf) = enabled_before(5);
    let mut machine = boot(fabric, &VfPolicy::default(), false);
    assert_eq!(machine.vfs().len(), 5);
    machine.assert_true_when_enabled(sbdf, 5);
}

#[test]
fn vfs_without_a_place_are_excluded_and_reported() {
    let layouts: [(u16, VfLayout); 5] = [
        (65535, |_, _| (1, 1)),
        (65535, |_, _| (0xffff, 0xffff)),
        (8, |_, _| (0xffff, 0xffff)),
        (8, |_, _| (0, 1)),
        (8, |_, _| (1, 0)),
    ];
    for (total, layout) in layouts {
        let (fabric, sbdf) = physical(total, layout, a_vf());
        let machine = boot(fabric, &ALL, false);
        assert_eq!(machine.vfs(), []);
        let found = &machine.function(sbdf).anomalies;
        assert!(
            found
                .iter()
                .any(|text| text.to_string().contains("VFs are excluded")),
            "{found:?}"
        );
        assert_eq!(
            machine
                .config
                .block(sbdf)
                .map(warmbus_pcsc::FunctionCache::size),
            Some(4096)
        );
    }
}

#[test]
fn vfs_in_the_place_of_another_function_are_excluded() {
    let (mut fabric, host) = machine(0, 8);
    let port = fabric.add_root(host, 1, 0, root_port().link_up());
    for number in 0..2 {
        let model = SrIovModel {
            lowest: number == 0,
            // Those of function 0 begin at function 1.
            layout: |_, _| (1, 1),
            total_vfs: 4,
            ..SrIovModel::default()
        };
        let next = u8::from(number == 0);
        let physical = endpoint(7).multi_function().ari(next).sriov(model, a_vf());
        fabric.add_below(port, 0, number, physical);
    }
    let machine = boot(fabric, &ALL, false);
    // Those of function 1 are at 2 to 5.
    assert_eq!(
        machine.vfs(),
        [2, 3, 4, 5].map(|n| Sbdf::from_devfn(0, 1, n))
    );
    let found = &machine.function(at(1, 0, 0)).anomalies;
    assert!(
        found
            .iter()
            .any(|text| text.to_string().contains("there is another function")),
        "{found:?}"
    );
}

#[test]
fn vfs_that_never_answer_are_given_up_and_reported_once() {
    let silent = a_vf().fault(Fault::Hole {
        from: 0,
        to: 0x1000,
    });
    let (fabric, sbdf) = physical(40, |_, _| (1, 1), silent);
    let machine = boot(fabric, &ALL, false);
    assert_eq!(machine.vfs(), []);
    let found = &machine.function(sbdf).anomalies;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0]
            .to_string()
            .starts_with("40 of 40 VFs do not answer"),
        "{found:?}"
    );
}

#[test]
fn vfs_of_what_is_no_physical_function_are_reported() {
    let (fabric, _) = physical(8, |_, _| (1, 1), a_vf());
    let policy = VfPolicy {
        listed: vec![(at(0, 1, 0), 3)],
        ..VfPolicy::default()
    };
    let machine = boot(fabric, &policy, false);
    assert_eq!(machine.complaints().len(), 1);
    let (fabric, sbdf) = physical(8, |_, _| (1, 1), a_vf());
    let policy = VfPolicy {
        listed: vec![(sbdf, 9)],
        ..VfPolicy::default()
    };
    let machine = boot(fabric, &policy, false);
    assert_eq!((machine.vfs().len(), machine.complaints().len()), (8, 1));
}

#[test]
fn places_of_vfs_are_read_once_for_each_number_of_them() {
    let (fabric, sbdf) = physical(8, |num_vfs, ari| (1 + num_vfs, 1 + u16::from(ari)), a_vf());
    let mut machine = boot(fabric, &VfPolicy::default(), false);
    let at = machine.sr_iov(sbdf);
    let places = |machine: &mut Machine| -> Vec<u32> {
        let mut seen = Vec::new();
        for num_vfs in (1..=8).rev() {
            let register = ConfigOffset::wrapping(at + 0x10);
            machine.config.write(sbdf, register, Width::Word, num_vfs);
            let offset = machine
                .config
                .read(sbdf, ConfigOffset::wrapping(at + 0x14), Width::Word);
            let stride = machine
                .config
                .read(sbdf, ConfigOffset::wrapping(at + 0x16), Width::Word);
            let hardware = machine.hardware(sbdf, at + 0x14, Width::Dword);
            assert_eq!(stride << 16 | offset, hardware, "NumVFs {num_vfs}");
            seen.push(hardware);
        }
        seen
    };
    let reads = |machine: &Machine| machine.config.statistics().misses;
    // Learned are reads of both at once, as Linux with the patches does.
    for num_vfs in 1..=8 {
        machine.config.write(
            sbdf,
            ConfigOffset::wrapping(at + 0x10),
            Width::Word,
            num_vfs,
        );
        machine
            .config
            .read(sbdf, ConfigOffset::wrapping(at + 0x14), Width::Dword);
    }
    let before = reads(&machine);
    let first = places(&mut machine);
    assert_eq!(reads(&machine), before, "all were known");
    // The other ARI Capable Hierarchy: nothing of it holds.
    let control = machine.hardware(sbdf, at + 8, Width::Word);
    machine.config.write(
        sbdf,
        ConfigOffset::wrapping(at + 8),
        Width::Word,
        control ^ 0x10,
    );
    let second = places(&mut machine);
    assert_ne!(first, second);
    assert!(reads(&machine) > before);
}

#[test]
fn the_work_for_a_vf_does_not_grow_with_their_number() {
    let accesses = |ports: u8, vfs: u16| {
        let mut fabric = topologies::sriov(ports, vfs);
        fabric.log_mut().record();
        let plain = topologies::sriov(ports, vfs);
        let count = |fabric: Fabric, policy: &VfPolicy| {
            let machine = boot(fabric, policy, false);
            let found = machine.vfs().len();
            (
                machine.fabric().log().reads() + machine.fabric().log().writes(),
                found,
            )
        };
        let (without, _) = count(plain, &VfPolicy::default());
        let (with, found) = count(fabric, &ALL);
        assert_eq!(found, usize::from(ports) * usize::from(vfs));
        (with - without, found as u64)
    };
    let ((few, of_few), (many, of_many)) = (accesses(2, 31), accesses(31, 131));
    // Both for the same number of VFs.
    let (few, many) = (few * of_many, many * of_few);
    assert!(few.abs_diff(many) <= few / 5, "{few} and {many} accesses");
}

#[test]
fn buses_without_room_for_vfs_keep_their_functions() {
    let (mut fabric, host) = Fabric::with_buses(0, 1);
    let port = fabric.add_root(host, 1, 0, root_port().link_up());
    let model = SrIovModel {
        total_vfs: 300,
        layout: |_, _| (1, 1),
        ..SrIovModel::default()
    };
    fabric.add_below(port, 0, 0, endpoint(7).ari(0).sriov(model, a_vf()));
    let machine = boot(fabric, &ALL, false);
    assert_eq!(machine.addresses(), [at(0, 1, 0), at(1, 0, 0)]);
}

#[test]
fn constants_are_those_of_no_virtual_function() {
    let (fabric, physical) = physical(4, |_, _| (1, 1), a_vf());
    let mut machine = boot(fabric, &ALL, false);
    assert_eq!(machine.vfs().len(), 4);
    machine.config.retain_constants();
    let gathered = HandoverRecords::new(&machine.config, &machine.topology);
    let blocks = gathered.blocks();
    assert!(blocks.iter().all(|block| block.virtual_function.is_none()));
    assert!(blocks.iter().all(|block| block.routing.is_empty()));
    assert!(blocks.iter().any(|block| block.sbdf == physical));
}
