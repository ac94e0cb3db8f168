//! Which host bridges of a machine are accessed.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use log::warn;
use warmbus_machine::{Machine, MachineError};
use warmbus_pci::HostBridge;

use crate::options::Options;

/// The host bridges of `machine` that are accessed, as `options` and `open`
/// have it: `open` opens the way to them, and excludes what it cannot reach.
///
/// Those that Linux may have to start are accessed if `options` say that they
/// run (`warmbus.controllers`).
pub fn open_hosts<A>(
    machine: &Machine,
    options: &Options,
    open: impl FnOnce(&mut Vec<HostBridge>) -> A,
) -> Result<(Vec<HostBridge>, A), MachineError> {
    let mut hosts = machine.host_bridges()?.to_vec();
    // A controller whose clocks are stopped may never complete an access, and
    // no machine description says whether they run.
    hosts.retain(|host| {
        let excluded = not_running(host).filter(|_| !options.controllers);
        if let Some(reason) = &excluded {
            warn!("{} is excluded: {reason}", host.name);
        }
        excluded.is_none()
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

/// Why the first access to `host` may never complete, if that is so.
fn not_running(host: &HostBridge) -> Option<String> {
    if let Some(what) = &host.depends_on {
        return Some(format!(
            "Linux starts {what} first, so that it is accessed with warmbus.controllers only"
        ));
    }
    let reason = "its controller is accessed with warmbus.controllers only";
    host.mechanism.is_controller().then(|| reason.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use warmbus_pci::{BusRange, Mechanism, PhysAddr};

    #[test]
    fn what_linux_starts_is_accessed_on_request_only() {
        let ecam = HostBridge::ecam(0, PhysAddr(0x40_0000_0000), BusRange::ALL);
        let mut below_clocks = ecam.clone();
        below_clocks.depends_on = Some("/soc/block@0".into());
        let mut port = ecam.clone();
        port.mechanism = Mechanism::BrcmStb;
        assert_eq!(not_running(&ecam), None);
        assert_eq!(
            not_running(&below_clocks).as_deref(),
            Some(
                "Linux starts /soc/block@0 first, so that it is accessed with warmbus.controllers only"
            )
        );
        assert!(not_running(&port).is_some());

        let tree = include_bytes!("../../../tests/fixtures/device-trees/mixed-hosts.dtb");
        let machine = Machine::from_device_tree(tree).expect("it is a machine");
        for (words, count) in [("", 3), ("warmbus.controllers", 7)] {
            let options = Options::from_bootargs(words);
            let (hosts, opened) =
                open_hosts(&machine, &options, |hosts| hosts.len()).expect("some");
            assert_eq!((hosts.len(), opened), (count, count), "{words}");
        }
    }
}
