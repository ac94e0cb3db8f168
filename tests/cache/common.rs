//! Machines whose configuration spaces are cached.

use warmbus_boot::pipeline::{Captured, Pipeline};
use warmbus_pci::Topology;
use warmbus_pcie_sim::Fabric;
use warmbus_pcsc::ConfigCache;

fn boot(fabric: Fabric) -> Captured<Fabric> {
    let hosts = fabric.host_bridges();
    let mut clock = fabric.clock();
    let pipeline = Pipeline {
        self_check: true,
        ..Pipeline::default()
    };
    pipeline.run(&hosts, fabric, &mut clock, &mut ())
}

/// Enumerates, assigns and captures `fabric`, which must go without a fault.
pub(crate) fn captured(fabric: Fabric) -> (ConfigCache<Fabric>, Topology) {
    let captured = boot(fabric);
    assert_eq!(captured.failure(), None);
    let Captured {
        topology, config, ..
    } = captured;
    // Nothing was read that must not be.
    assert_eq!(config.access().log().violations(), []);
    (config, topology.into_topology())
}

/// Enumerates, assigns and captures `fabric`, in which not everything may get
/// an address.
pub(crate) fn captured_with_gaps(fabric: Fabric) -> (ConfigCache<Fabric>, Topology) {
    let Captured {
        topology, config, ..
    } = boot(fabric);
    (config, topology.into_topology())
}
