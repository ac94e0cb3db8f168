//! From what enumeration and the cache know to the report.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::model::{
    Accesses, Anomaly, Bar, Bridge, Buses, CacheStatistics, Capability, Difference,
    ExtendedCapability, Function, HostBridge, HostWindow, Machine, Phase, Report, SCHEMA,
    SelfCheck, SrIov, Subsystem, VirtualFunction, Window,
};
use warmbus_pci::{CamLayout, ConfigAccess, Mechanism, Sbdf, Topology, WindowKind};
use warmbus_pcsc::ConfigCache;

use crate::measured_access::Ticks;
use crate::pipeline::Captured;
use crate::recorder::Recorder;

/// What the cache holds of one function.
#[derive(Clone, Copy, Debug)]
pub struct CachedBytes<'a> {
    /// Bytes of the configuration space, 256 or 4096.
    pub size: u16,
    /// The first bytes of it; those that are not cached are 0, and so are all
    /// that follow.
    pub data: &'a [u8],
    /// Bytes that may be cached.
    pub cacheable: u16,
    /// Bytes that are cached.
    pub cached: u16,
}

/// What `config` has cached of `function`; `None` where it does not know it.
pub fn cached_bytes<A: ConfigAccess>(
    config: &ConfigCache<A>,
    function: Sbdf,
) -> Option<CachedBytes<'_>> {
    let block = config.block(function)?;
    Some(CachedBytes {
        size: block.size(),
        data: block.data(),
        cacheable: block.cacheable_bytes(),
        cached: block.cached_bytes(),
    })
}

/// What a report is made from, configuration spaces aside.
#[derive(Clone, Debug)]
pub struct ReportInput<'a> {
    /// What enumeration found.
    pub topology: &'a Topology,
    /// The machine; `bytes_per_function` does not matter.
    pub machine: Machine,
    /// Accesses that reached the hardware.
    pub accesses: Accesses,
    /// What the cache did.
    pub cache: CacheStatistics,
    /// The parts of the boot.
    pub phases: Vec<Phase>,
    /// The comparison with the hardware, if there was one.
    pub self_check: Option<SelfCheck>,
    /// Anomalies that concern no function, as sentences.
    pub anomalies: Vec<String>,
    /// What failed, as a sentence, if something did.
    pub result: Result<(), String>,
}

impl<'a> ReportInput<'a> {
    /// What the pipeline made, without a machine, figures and phases.
    #[must_use]
    pub fn new<A: ConfigAccess>(captured: &'a Captured<A>) -> Self {
        Self {
            topology: &captured.topology,
            machine: Machine::default(),
            accesses: Accesses::default(),
            cache: CacheStatistics::default(),
            phases: Vec::new(),
            self_check: captured.self_check.as_ref().map(SelfCheck::from),
            anomalies: Vec::new(),
            result: captured
                .failure()
                .map_or(Ok(()), |failure| Err(failure.to_string())),
        }
    }
}

impl From<&warmbus_pcsc::SelfCheck> for SelfCheck {
    fn from(check: &warmbus_pcsc::SelfCheck) -> Self {
        let difference = |difference: &warmbus_pcsc::Difference| Difference {
            sbdf: difference.function,
            offset: difference.offset.get(),
            cached: difference.cached,
            hardware: difference.hardware,
        };
        Self {
            bytes: check.bytes,
            reads: check.reads,
            differences: check.differences.iter().map(difference).collect(),
        }
    }
}

impl Report {
    /// Adds what `recorder`, which counts with `counter`, has recorded up to now,
    /// instead of what was added before.
    #[must_use]
    pub fn with_recorded<T: Ticks>(self, recorder: &Recorder<T>, counter: &T) -> Self {
        let (accesses, figures) = (recorder.accesses, recorder.cache);
        let statistics = figures.statistics;
        Self {
            accesses: Accesses {
                reads: accesses.reads,
                writes: accesses.writes,
                absent_probes: accesses.absent_probes,
                most_reads_of_one_dword: u64::from(figures.max_reads),
                read_backs: accesses.read_backs,
                cacheable_dwords: figures.cacheable_dwords,
            },
            cache: CacheStatistics {
                hits: statistics.hits,
                misses: statistics.misses,
                uncacheable: statistics.uncacheable,
                writes: statistics.writes,
                invalidations: statistics.invalidations,
            },
            phases: recorder
                .all_phases()
                .map(|time| Phase {
                    name: time.phase.name().into(),
                    ticks: time.ticks,
                    nanoseconds: counter.to_nanoseconds(time.ticks),
                    config_ticks: time.config_ticks,
                })
                .collect(),
            ..self
        }
    }

    /// The report of `input`; `cached` returns what the cache holds of a
    /// function.
    pub fn new<'c>(
        input: ReportInput<'_>,
        cached: &dyn Fn(Sbdf) -> Option<CachedBytes<'c>>,
    ) -> Self {
        let topology = input.topology;
        let functions = topology.functions().len() as u64;
        let about_functions = topology.anomalies().iter().map(|anomaly| Anomaly {
            sbdf: Some(anomaly.function),
            text: anomaly.kind.to_string(),
        });
        let about_the_machine = input
            .anomalies
            .into_iter()
            .map(|text| Anomaly { sbdf: None, text });
        Self {
            schema: SCHEMA.into(),
            result: input.result.err().unwrap_or_else(|| "ok".to_string()),
            machine: Machine {
                bytes_per_function: match functions {
                    0 => 0,
                    _ => input.machine.heap_peak_bytes.div_ceil(functions),
                },
                ..input.machine
            },
            host_bridges: topology.hosts().iter().map(host_bridge).collect(),
            functions: topology
                .functions()
                .iter()
                .map(|function| describe(topology, function, cached(function.sbdf)))
                .collect(),
            accesses: input.accesses,
            cache: input.cache,
            phases: input.phases,
            self_check: input.self_check,
            anomalies: about_the_machine.chain(about_functions).collect(),
        }
    }
}

fn host_bridge((host, in_use): &(warmbus_pci::HostBridge, warmbus_pci::BusRange)) -> HostBridge {
    let window = match host.mechanism {
        Mechanism::Window(shape) if shape.bus_shift == CamLayout::ECAM.bus_shift => {
            (host.ecam_base.0, host.ecam_size)
        }
        _ => (0, 0),
    };
    HostBridge {
        name: host.name.clone(),
        segment: host.segment,
        ecam_base: window.0,
        ecam_size: window.1,
        buses: host.buses.into(),
        buses_in_use: (*in_use).into(),
        preserve: host.preserve_config,
        windows: host
            .windows
            .iter()
            .map(|window| HostWindow {
                kind: match window.kind {
                    WindowKind::Io => "io",
                    WindowKind::Memory32 => "mem32",
                    WindowKind::Memory64 => "mem64",
                }
                .into(),
                prefetchable: window.prefetchable,
                pci_address: window.pci_address,
                cpu_address: window.cpu_address.0,
                size: window.size,
            })
            .collect(),
    }
}

fn describe(
    topology: &Topology,
    function: &warmbus_pci::Function,
    cached: Option<CachedBytes<'_>>,
) -> Function {
    Function {
        sbdf: function.sbdf,
        parent: function
            .parent
            .and_then(|index| topology.functions().get(index))
            .map(|parent| parent.sbdf),
        host_bridge: function.host as u32,
        vendor_id: function.vendor_id,
        device_id: function.device_id,
        revision: function.revision,
        class_code: function.class_code,
        header_type: function.header_type,
        multi_function: function.multi_function,
        subsystem: cached.and_then(|cached| subsystem(function, cached.data)),
        port_type: function.port_type.map(|port| port.name().into()),
        bars: function.bars.iter().copied().map(Bar::from).collect(),
        bridge: function.bridge.map(Bridge::from),
        sriov: function.sriov.map(SrIov::from),
        virtual_function: function.virtual_function.and_then(|vf| {
            let physical = topology.functions().get(vf.physical)?.sbdf;
            Some(VirtualFunction {
                physical,
                number: vf.number,
            })
        }),
        retries: function.readiness.retries,
        ready_nanoseconds: function
            .readiness
            .after
            .map(|after| u64::try_from(after.as_nanos()).unwrap_or(u64::MAX)),
        capabilities: function
            .capabilities
            .iter()
            .map(|&warmbus_pci::Capability { id, offset }| Capability { id, offset })
            .collect(),
        extended_capabilities: function
            .extended_capabilities
            .iter()
            .map(|capability| ExtendedCapability {
                id: capability.id,
                offset: capability.offset,
                version: capability.version,
            })
            .collect(),
        config_bytes: cached.map_or(0, |cached| cached.size),
        cacheable_bytes: cached.map_or(0, |cached| cached.cacheable),
        cached_bytes: cached.map_or(0, |cached| cached.cached),
        anomalies: function.anomalies.iter().map(ToString::to_string).collect(),
    }
}

/// Capability ID of Subsystem ID and Subsystem Vendor ID (PCIe 7.9.24).
const CAP_SUBSYSTEM: u8 = 0x0d;

/// The subsystem IDs: in the type 0 header, in the CardBus header, and in a
/// capability of bridges.
fn subsystem(function: &warmbus_pci::Function, data: &[u8]) -> Option<Subsystem> {
    let offset = match function.header_type {
        0 => 0x2c,
        1 => {
            let found = function
                .capabilities
                .iter()
                .find(|capability| capability.id == CAP_SUBSYSTEM)?;
            usize::from(found.offset) + 4
        }
        2 => 0x40,
        _ => return None,
    };
    let bytes = data.get(offset..offset + 4)?;
    let ids = Subsystem {
        vendor_id: u16::from_le_bytes([bytes[0], bytes[1]]),
        device_id: u16::from_le_bytes([bytes[2], bytes[3]]),
    };
    (ids.vendor_id != 0).then_some(ids)
}

impl From<warmbus_pci::BusRange> for Buses {
    fn from(range: warmbus_pci::BusRange) -> Self {
        Self {
            first: range.first,
            last: range.last,
        }
    }
}

impl From<warmbus_pci::PciRange> for Window {
    fn from(window: warmbus_pci::PciRange) -> Self {
        Self {
            base: window.base(),
            limit: window.limit(),
        }
    }
}

impl From<warmbus_pci::Bar> for Bar {
    fn from(bar: warmbus_pci::Bar) -> Self {
        Self {
            index: bar.index,
            kind: bar.kind.name().into(),
            prefetchable: bar.prefetchable,
            fixed: bar.fixed,
            address: bar.address,
            size: bar.size,
        }
    }
}

impl From<warmbus_pci::BridgeInfo> for Bridge {
    fn from(bridge: warmbus_pci::BridgeInfo) -> Self {
        Self {
            primary: bridge.primary,
            secondary: bridge.secondary,
            subordinate: bridge.subordinate,
            io: bridge.io.map(Window::from),
            memory: bridge.memory.map(Window::from),
            prefetchable: bridge.prefetchable.map(Window::from),
            link_up: bridge.link_up,
            hot_plug: bridge.hot_plug,
            ari_forwarding: bridge.ari_forwarding,
        }
    }
}

impl From<warmbus_pci::SrIovInfo> for SrIov {
    fn from(sriov: warmbus_pci::SrIovInfo) -> Self {
        Self {
            total_vfs: sriov.total_vfs,
            first_vf_offset: sriov.first_vf_offset,
            vf_stride: sriov.vf_stride,
            vf_device_id: sriov.vf_device_id,
            last_bus: sriov.last_bus,
            num_vfs: sriov.num_vfs,
            vfs_enabled: sriov.vfs_enabled,
        }
    }
}
