//! Which host bridges of a machine are accessed.

use alloc::vec::Vec;

use log::warn;
use warmbus_machine::{Machine, MachineError};
use warmbus_pci::HostBridge;

use crate::options::Options;

/// The host bridges of `machine` that are accessed, as `options` and `open`
/// have it: `open` opens the way to them, and excludes what it cannot reach.
pub fn open_hosts<A>(
    machine: &Machine,
    options: &Options,
    open: impl FnOnce(&mut Vec<HostBridge>) -> A,
) -> Result<(Vec<HostBridge>, A), MachineError> {
    let mut hosts = machine.host_bridges()?.to_vec();
    // A controller whose clocks are stopped may never complete an access, and
    // no machine description says whether they run.
    hosts.retain(|host| {
        let is_safe = options.controllers || !host.mechanism.is_controller();
        if !is_safe {
            warn!(
                "{} is excluded: its controller is accessed with warmbus.controllers only",
                host.name
            );
        }
        is_safe
    });
    let access = open(&mut hosts);
    if hosts.is_empty() {
        let refused = machine.unusable_host_bridges + machine.hosts.len();
        return Err(MachineError::NoHostBridge { unusable: refused });
    }
    for host in &mut hosts {
        host.preserve_config |= options.preserve;
    }
    Ok((hosts, access))
}
