//! What bridges of QEMU ask to be reserved and did not get.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use warmbus_pci::{BridgeInfo, PciRange, Topology};

/// A sentence for each such wish of the bridges of `topology`, where addresses
/// were assigned. Linux does not read these wishes.
#[must_use]
pub fn unmet_wishes(topology: &Topology) -> Vec<String> {
    let mut sentences = Vec::new();
    for function in topology.functions() {
        let host = topology.hosts().get(function.host);
        let is_assigned = host.is_some_and(|(host, _)| !host.preserve_config);
        let Some(bridge) = function.bridge.filter(|_| is_assigned) else {
            continue;
        };
        for (what, wanted, found) in wishes(&bridge) {
            if found < wanted {
                let port = function.sbdf;
                sentences.push(format!(
                    "{port}: QEMU asks for {wanted:#x} {what} below this bridge, which has {found:#x}"
                ));
            }
        }
    }
    sentences
}

/// What a bridge asks for, how much, and how much it has.
fn wishes(bridge: &BridgeInfo) -> impl Iterator<Item = (&'static str, u64, u64)> {
    let size = |window: Option<PciRange>| {
        window.map_or(0, |window| {
            (window.limit() - window.base()).saturating_add(1)
        })
    };
    let reserve = bridge.reserve;
    let spare = bridge.subordinate.saturating_sub(bridge.secondary);
    let all = [
        ("spare buses", reserve.buses.map(u64::from), spare.into()),
        ("bytes of I/O space", reserve.io, size(bridge.io)),
        ("bytes of memory", reserve.memory, size(bridge.memory)),
        (
            "bytes of prefetchable memory",
            reserve.prefetchable,
            size(bridge.prefetchable),
        ),
    ];
    let all = all.into_iter();
    all.filter_map(|(what, wanted, found)| Some((what, wanted?, found)))
}
