//! Machines whose configuration spaces are cached.

use warmbus_pci::{AssignPolicy, ScanPolicy, Topology, assign, enumerate, verify_assignment};
use warmbus_pcie_sim::Fabric;
use warmbus_pcsc::ConfigCache;

/// Enumerates, assigns and captures `fabric`, which must go without a fault.
pub(crate) fn captured(fabric: Fabric) -> (ConfigCache<Fabric>, Topology) {
    let hosts = fabric.host_bridges();
    let mut clock = fabric.clock();
    let mut config = ConfigCache::new(fabric);
    let topology = enumerate(&hosts, &ScanPolicy::default(), &mut config, &mut clock);
    let topology = assign(topology, &AssignPolicy::default(), &mut config);
    for function in topology.functions() {
        config.capture(function.sbdf);
    }
    assert_eq!(verify_assignment(&topology, &config), []);
    assert_eq!(config.self_check().differences, []);
    // Nothing was read that must not be.
    assert_eq!(config.access().log().violations(), []);
    (config, topology.into_topology())
}
