//! The machines of the corpus, enumerated as they were recorded.
//!
//! Nothing is written: the host bridges are to be preserved.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use warmbus_boot::pipeline::Pipeline;
use warmbus_boot::report;
use warmbus_pci::time::Clock;
use warmbus_pci::{
    BusRange, ConfigOffset, CountingAccess, DumpedConfigSpace, Function, HostBridge, PhysAddr,
    Sbdf, Topology,
};
use warmbus_pcsc::ConfigCache;

use super::lspci::lspci;
use super::{Dump, corpus, scratch};

/// A clock that only waiting moves.
struct Patient(Duration);

impl Clock for Patient {
    fn now(&mut self) -> Duration {
        self.0
    }

    fn wait(&mut self, duration: Duration) {
        self.0 += duration;
    }
}

/// The buses below a bridge of any kind, as its registers say.
fn buses_below(space: &[u8]) -> Option<(u8, u8)> {
    let is_bridge = matches!(space[0x0e] & 0x7f, 1 | 2);
    (is_bridge && space[0x19] != 0 && space[0x19] <= space[0x1a])
        .then_some((space[0x19], space[0x1a]))
}

/// A host bridge for every bus that no bridge leads to.
fn hosts(recorded: &DumpedConfigSpace) -> Vec<HostBridge> {
    let mut segments: BTreeMap<u16, (BTreeSet<u8>, BTreeSet<u8>)> = BTreeMap::new();
    for sbdf in recorded.functions() {
        let (buses, below) = segments.entry(sbdf.segment()).or_default();
        buses.insert(sbdf.bus());
        if let Some((first, last)) = recorded.bytes(sbdf).and_then(buses_below) {
            below.extend(first..=last);
        }
    }
    let mut hosts = Vec::new();
    for (segment, (buses, below)) in segments {
        let roots: Vec<u8> = buses.difference(&below).copied().collect();
        for (index, &first) in roots.iter().enumerate() {
            let last = roots.get(index + 1).map_or(0xff, |next| next - 1);
            let buses = BusRange { first, last };
            let host = HostBridge::ecam(segment, PhysAddr(0), buses).preserved();
            hosts.push(host.with_name(format!("/pcie@{segment:x}{first:02x}")));
        }
    }
    hosts
}

/// Whether software can get at a function: not where its configuration space
/// is all ones, where the post left its function 0 out, or where it is a card
/// behind a CardBus bridge.
fn is_reachable(recorded: &DumpedConfigSpace, sbdf: Sbdf) -> bool {
    let answers = |sbdf| {
        recorded
            .bytes(sbdf)
            .is_some_and(|space| space[..2] != [0xff, 0xff])
    };
    let first = Sbdf::new(sbdf.segment(), sbdf.bus(), sbdf.device(), 0);
    let above = recorded
        .functions()
        .filter(|bridge| bridge.segment() == sbdf.segment() && bridge.bus() < sbdf.bus())
        .filter_map(|bridge| Some((bridge, buses_below(recorded.bytes(bridge)?)?)))
        .filter(|(_, (secondary, subordinate))| (*secondary..=*subordinate).contains(&sbdf.bus()))
        .max_by_key(|(_, (secondary, _))| *secondary)
        .map(|(bridge, _)| bridge);
    let way_is_open = above.is_none_or(|bridge| {
        let space = recorded.bytes(bridge).expect("it was recorded");
        space[0x0e] & 0x7f == 1 && is_reachable(recorded, bridge)
    });
    answers(sbdf) && answers(first) && way_is_open
}

/// Everything that is to be read of a machine, read.
fn read_machine(
    recorded: &DumpedConfigSpace,
) -> (Topology, ConfigCache<CountingAccess<DumpedConfigSpace>>) {
    let access = CountingAccess::new(recorded.clone());
    let pipeline = Pipeline::default();
    let captured = pipeline.run(
        &hosts(recorded),
        access,
        &mut Patient(Duration::ZERO),
        &mut (),
    );
    (captured.topology.into_topology(), captured.config)
}

#[test]
fn every_function_that_can_be_reached_is_found_without_a_write() {
    let mut problems = Vec::new();
    let mut functions = 0;
    for Dump { path, recorded } in corpus() {
        let (topology, cache) = read_machine(&recorded);
        let wanted: BTreeSet<Sbdf> = recorded
            .functions()
            .filter(|sbdf| is_reachable(&recorded, *sbdf))
            .collect();
        let found: BTreeSet<Sbdf> = topology.functions().iter().map(|f| f.sbdf).collect();
        if found != wanted || found.len() != topology.functions().len() {
            let missing: Vec<_> = wanted.difference(&found).collect();
            problems.push(format!("{}: {missing:?} missing", path.display()));
        }
        assert_eq!(cache.access().counts().writes, 0, "{}", path.display());
        for (sbdf, block) in cache.blocks() {
            // A read of all ones is verified by another read of the IDs.
            for offset in (4..block.size()).map(ConfigOffset::wrapping) {
                let reads = cache.access().dword_read_count(sbdf, offset);
                assert!(
                    reads <= 1 || !block.is_cacheable(offset),
                    "{} {sbdf}: {reads} reads of {offset}",
                    path.display()
                );
            }
        }
        functions += found.len();
    }
    println!("{functions} functions");
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn lspci_draws_the_same_tree_from_a_dump_of_the_cache() {
    let mut trees = 0;
    for (index, Dump { path, recorded }) in corpus().into_iter().enumerate() {
        let (topology, cache) = read_machine(&recorded);
        // What was not found is not drawn, the cache knows nothing of CardBus,
        // and lspci has a domain where the dump has a segment of its own.
        let is_alike =
            |function: &Function| function.header_type != 2 && function.sbdf.segment() != 0xffff;
        if topology.functions().len() != recorded.functions().count()
            || !topology.functions().iter().all(is_alike)
        {
            continue;
        }
        let cached = |sbdf| report::cached_bytes(&cache, sbdf);
        let mut dump = String::new();
        report::lspci::write(&topology, &cached, &mut dump).expect("a string takes it");
        let ours = scratch(&format!("machine-{index}.txt"), &dump);
        assert_eq!(
            lspci(&ours, &["-t"]),
            lspci(&path, &["-t"]),
            "{}",
            path.display()
        );
        trees += 1;
    }
    println!("{trees} trees");
    assert!(trees > 10, "only {trees} machines were drawn");
}
