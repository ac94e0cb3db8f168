//! Capture: from a hierarchy with addresses to a full cache.

use alloc::vec::Vec;
use core::time::Duration;

use warmbus_pci::time::Clock;
use warmbus_pci::{Anomaly, AnomalyKind, Assigned, ConfigAccess, ConfigSpace, EnabledVfs, Step};
use warmbus_pcsc::ConfigCache;

/// Finds the virtual functions that `vfs` has enabled, captures them, and
/// disables those again that are not to stay enabled. To be called after
/// [`EnabledVfs::wait`].
///
/// Returns the topology with these functions, and the time of `clock`
/// before which the SR-IOV capabilities may not be read; `None` where
/// that does not matter.
pub fn capture_vfs<A: ConfigAccess, C: Clock>(
    vfs: EnabledVfs,
    topology: Assigned,
    config: &mut ConfigCache<A>,
    clock: &mut C,
) -> (Assigned, Option<Duration>) {
    let found = vfs.find(&topology, config, clock);
    for function in found.functions() {
        config.capture(function.sbdf);
    }
    vfs.finish(topology, found, config, clock)
}

/// Captures the functions of `topology` that were evicted from the cache since
/// they were captured and are still present. Returns the topology; what is not
/// present any more is an anomaly of it.
#[must_use]
pub fn capture_evicted<A: ConfigAccess>(
    topology: Assigned,
    config: &mut ConfigCache<A>,
) -> Assigned {
    let mut anomalies = Vec::new();
    for function in topology.functions() {
        let sbdf = function.sbdf;
        if config.block(sbdf).is_some() || topology.excluded().contains(&sbdf) {
            continue;
        }
        if config.is_present(sbdf) {
            config.capture(sbdf);
        }
        if config.block(sbdf).is_none() {
            let during = Step::Capture;
            anomalies.push(Anomaly::new(sbdf, AnomalyKind::StoppedAnswering { during }));
        }
    }
    topology.with_anomalies(anomalies)
}
