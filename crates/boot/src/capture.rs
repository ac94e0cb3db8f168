//! Capture: from a hierarchy with addresses to a full cache.

use warmbus_pci::time::Clock;
use warmbus_pci::{AnomalyKind, ConfigAccess, ConfigSpace, EnabledVfs, Step, Topology};
use warmbus_pcsc::ConfigCache;

/// Finds the virtual functions that `vfs` has enabled, captures them, and
/// disables those again that are not to stay enabled. To be called after
/// [`EnabledVfs::wait`].
///
/// Returns the time, in nanoseconds of `clock`, before which the SR-IOV
/// capabilities may not be read; `None` where that does not matter.
pub fn capture_vfs<A: ConfigAccess, C: Clock>(
    vfs: EnabledVfs,
    topology: &mut Topology,
    config: &mut ConfigCache<A>,
    clock: &mut C,
) -> Option<u64> {
    let found = vfs.find(topology, config, clock);
    for function in &found {
        config.capture(function.sbdf);
    }
    vfs.finish(topology, found, config, clock)
}

/// Captures the functions of `topology` that were evicted from the cache since
/// they were captured and are still present; what is not present any more
/// becomes an anomaly.
pub fn capture_evicted<A: ConfigAccess>(topology: &mut Topology, config: &mut ConfigCache<A>) {
    for function in &mut topology.functions {
        let sbdf = function.sbdf;
        if config.block(sbdf).is_some() || topology.excluded.contains(&sbdf) {
            continue;
        }
        if config.is_present(sbdf) {
            config.capture(sbdf);
        }
        if config.block(sbdf).is_none() {
            let during = Step::Capture;
            function
                .anomalies
                .push(AnomalyKind::StoppedAnswering { during });
        }
    }
}
