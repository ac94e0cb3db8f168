//! From the cache to what a handover is written from.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::{CapabilityRecord, FunctionRecord, MaskRecord, RoutingRecord, VirtualRecord};
use warmbus_pci::registers::{COMMAND, extended, sr_iov};
use warmbus_pci::{PhysAddr, Sbdf, Topology, VfRouting};
use warmbus_pcsc::{ConfigCache, FunctionCache};

/// What a handover says of each function of a cache.
#[derive(Debug)]
pub struct HandoverRecords<'a> {
    functions: Vec<Function<'a>>,
}

#[derive(Debug)]
struct Function<'a> {
    sbdf: Sbdf,
    config_address: Option<PhysAddr>,
    block: &'a FunctionCache,
    masks: Vec<MaskRecord>,
    capabilities: Vec<CapabilityRecord>,
    capabilities_complete: bool,
    routing: Vec<RoutingRecord>,
    synthesised: Vec<(u16, u16)>,
}

impl<'a> HandoverRecords<'a> {
    /// Gathers everything that `config` has cached, ascending by function, but
    /// for what is below a host bridge where Linux does not find it as it was
    /// ([`HostBridge::survives_linux_driver`](warmbus_pci::HostBridge::survives_linux_driver)).
    /// The capability lists of a function are complete unless an anomaly of
    /// it in `topology` [affects](warmbus_pci::AnomalyKind::affects) them.
    #[must_use]
    pub fn new<A: warmbus_pci::ConfigAccess>(
        config: &'a ConfigCache<A>,
        topology: &Topology,
    ) -> Self {
        let mut incomplete: Vec<Sbdf> = topology
            .functions()
            .iter()
            .filter(|function| {
                let mut anomalies = function.anomalies.iter();
                anomalies.any(|anomaly| anomaly.affects().lists)
            })
            .map(|function| function.sbdf)
            .collect();
        incomplete.sort_unstable();
        let used = captured_routings(config);
        let mut hierarchy = Hierarchy::default();
        let mut lost: Vec<Sbdf> = topology
            .functions()
            .iter()
            .filter(|function| {
                let host = topology.hosts().get(function.host);
                host.is_some_and(|(host, _)| !host.survives_linux_driver)
            })
            .map(|function| function.sbdf)
            .collect();
        lost.sort_unstable();
        let functions = config
            .blocks()
            .filter(|(sbdf, _)| lost.binary_search(sbdf).is_err())
            .map(|(sbdf, block)| Function {
                sbdf,
                config_address: topology.config_address(sbdf),
                block,
                masks: masks(block),
                capabilities: capabilities(block),
                capabilities_complete: incomplete.binary_search(&sbdf).is_err(),
                routing: match block.virtual_function() {
                    Some(vf) => {
                        let ari = hierarchy.of(vf.physical, config);
                        alloc::vec![record(vf.routing, ari, true)]
                    }
                    None => routings(sbdf, block, config, &used, &mut hierarchy),
                },
                synthesised: block.synthesised(),
            })
            .collect();
        Self { functions }
    }

    /// The blocks of a handover, in the order that [`build`](super::build())
    /// wants.
    #[must_use]
    pub fn blocks(&self) -> Vec<FunctionRecord<'_>> {
        self.functions
            .iter()
            .map(|function| FunctionRecord {
                sbdf: function.sbdf,
                config_address: function.config_address,
                size: function.block.size(),
                data: function.block.data(),
                cacheable: function.block.cacheable_bitmap(),
                cached: function.block.cached_bitmap(),
                masks: &function.masks,
                capabilities: &function.capabilities,
                capabilities_complete: function.capabilities_complete,
                routing: &function.routing,
                virtual_function: function.block.virtual_function().map(|vf| VirtualRecord {
                    physical: vf.physical.routing_id(),
                    number: vf.number,
                    disabled: function.block.is_disabled(),
                    synthesised: &function.synthesised,
                }),
            })
            .collect()
    }
}

/// The NumVFs with which the VFs of each physical function were captured.
fn captured_routings<A: warmbus_pci::ConfigAccess>(config: &ConfigCache<A>) -> BTreeMap<Sbdf, u16> {
    let vfs = config
        .blocks()
        .filter_map(|(_, block)| block.virtual_function());
    vfs.map(|vf| (vf.physical, vf.routing.num_vfs)).collect()
}

/// ARI Capable Hierarchy of devices: the bit of the lowest-numbered physical
/// function of a device holds for all of them (PCIe 9.3.3.3.5).
#[derive(Default)]
struct Hierarchy {
    /// The bus that was looked at last, and its bit.
    last: Option<((u16, u8), bool)>,
}

impl Hierarchy {
    fn of<A: warmbus_pci::ConfigAccess>(
        &mut self,
        physical: Sbdf,
        config: &ConfigCache<A>,
    ) -> bool {
        let bus = (physical.segment(), physical.bus());
        if let Some((_, ari)) = self.last.filter(|(last, _)| *last == bus) {
            return ari;
        }
        let first = Sbdf::from_devfn(bus.0, bus.1, 0);
        let ari = config
            .blocks_from(first)
            .take_while(|(sbdf, _)| (sbdf.segment(), sbdf.bus()) == bus)
            .find_map(|(_, block)| {
                let at = block.extended_capability(extended::SR_IOV)?;
                block.word(at + sr_iov::CONTROL)
            })
            .is_some_and(|control| control & sr_iov::ARI_CAPABLE_HIERARCHY != 0);
        self.last = Some((bus, ari));
        ari
    }
}

/// What is known of the places of the VFs of a physical function.
fn routings<A: warmbus_pci::ConfigAccess>(
    sbdf: Sbdf,
    block: &FunctionCache,
    config: &ConfigCache<A>,
    used: &BTreeMap<Sbdf, u16>,
    hierarchy: &mut Hierarchy,
) -> Vec<RoutingRecord> {
    let mut records: Vec<RoutingRecord> = Vec::new();
    for routing in block.vf_routing() {
        let captured = used.get(&sbdf) == Some(&routing.num_vfs);
        let next = record(routing, hierarchy.of(sbdf, config), captured);
        match records.last_mut() {
            Some(last) if continues(last, &next) => last.last = next.last,
            _ => records.push(next),
        }
    }
    records
}

/// Whether `next` only goes on with what `last` says.
fn continues(last: &RoutingRecord, next: &RoutingRecord) -> bool {
    !last.captured
        && !next.captured
        && last.last.checked_add(1) == Some(next.first)
        && (last.offset, last.stride) == (next.offset, next.stride)
}

fn record(routing: VfRouting, ari: bool, captured: bool) -> RoutingRecord {
    RoutingRecord {
        first: routing.num_vfs,
        last: routing.num_vfs,
        offset: routing.offset,
        stride: routing.stride,
        ari,
        captured,
    }
}

/// The masks of a function, ascending.
fn masks(block: &FunctionCache) -> Vec<MaskRecord> {
    let mut masks: Vec<MaskRecord> = block
        .write_masks()
        .iter()
        .map(|mask| MaskRecord {
            offset: mask.offset,
            writable: mask.writable,
            fixed: mask.fixed,
            value: None,
        })
        .collect();
    masks.extend(block.constant_bits().iter().map(|found| MaskRecord {
        offset: found.offset,
        writable: match found.offset {
            COMMAND => u32::from(block.writable_command_bits()),
            _ => 0,
        },
        fixed: found.bits,
        value: Some(found.value),
    }));
    masks.sort_by_key(|mask| mask.offset);
    masks
}

fn capabilities(block: &FunctionCache) -> Vec<CapabilityRecord> {
    let conventional = block
        .capabilities()
        .iter()
        .map(|capability| CapabilityRecord {
            id: u16::from(capability.id),
            offset: u16::from(capability.offset),
            version: 0,
        });
    let extended = block
        .extended_capabilities()
        .iter()
        .map(|capability| CapabilityRecord {
            id: capability.id,
            offset: capability.offset,
            version: capability.version,
        });
    conventional.chain(extended).collect()
}
