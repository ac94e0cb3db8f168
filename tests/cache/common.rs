//! Machines whose configuration spaces are cached.

use warmbus_boot::pipeline::{Captured, Pipeline};
use warmbus_pci::Topology;
use warmbus_pcie_sim::Fabric;
use warmbus_pcsc::ConfigCache;

/// Enumerates, assigns and captures `fabric`, which must go without a fault.
pub(crate) fn captured(fabric: Fabric) -> (ConfigCache<Fabric>, Topology) {
    let hosts = fabric.host_bridges();
    let mut clock = fabric.clock();
    let pipeline = Pipeline {
        self_check: true,
        ..Pipeline::default()
    };
    let captured = pipeline.run(&hosts, fabric, &mut clock, &mut ());
    assert_eq!(captured.failure(), None);
    let Captured {
        topology, config, ..
    } = captured;
    // Nothing was read that must not be.
    assert_eq!(config.access().log().violations(), []);
    (config, topology.into_topology())
}
