//! `warmbus-pci` alone, without the cache, over the simulated fabric.

use warmbus_pci::{AssignPolicy, Assigned, PlainConfig, ScanPolicy, assign, enumerate};
use warmbus_pcie_sim::{Fabric, topologies};
use warmbus_pcsc::ConfigCache;

fn enumerate_and_assign(fabric: Fabric) -> Assigned {
    let hosts = fabric.host_bridges();
    let mut clock = fabric.clock();
    let mut config = PlainConfig::new(fabric);
    let topology = enumerate(&hosts, &ScanPolicy::default(), &mut config, &mut clock);
    assign(topology, &AssignPolicy::default(), &mut config)
}

#[test]
fn a_fabric_is_enumerated_and_assigned_without_the_cache() {
    let fabric = topologies::switch();
    let functions = fabric.nodes().count();
    let assigned = enumerate_and_assign(fabric);
    for function in assigned.functions() {
        println!("{} {:?}", function.sbdf, function.port_type);
    }
    assert_eq!(assigned.functions().len(), functions);
    assert!(assigned.counts().assigned > 0);
    assert_eq!(assigned.counts().disabled, 0);
}

#[test]
fn the_result_is_that_with_the_cache() {
    for fabric in [
        topologies::small(),
        topologies::switch(),
        topologies::fan(9),
        topologies::sriov(2, 16),
    ] {
        let hosts = fabric.host_bridges();
        let mut clock = fabric.clock();
        let mut config = ConfigCache::new(fabric.clone());
        let topology = enumerate(&hosts, &ScanPolicy::default(), &mut config, &mut clock);
        let cached = assign(topology, &AssignPolicy::default(), &mut config);
        assert!(cached.functions().len() > 4);
        assert_eq!(enumerate_and_assign(fabric), cached);
    }
}
