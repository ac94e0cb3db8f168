//! The functions of a capture with their structure: capabilities, names of
//! registers, topology.
//!
//! The cache of the library interprets the captured bytes, so that the tool has
//! no rules of its own.

use std::collections::{BTreeMap, BTreeSet};

use warmbus_boot::report::{Accesses, CacheStatistics, CachedBytes, Machine, Report, ReportInput};
use warmbus_pci::registers::{extended, header_type, sr_iov, status};
use warmbus_pci::{
    AnomalyKind, AssignPolicy, BusNumbers, BusRange, ConfigAccess, ConfigOffset, DumpedConfigSpace,
    Function, HostBridge, PhysAddr, Sbdf, Topology, VirtualInfo, Width, assign,
};
use warmbus_pci::{ConfigSpace, Probe, VfIdentity};
use warmbus_pcsc::names::{Layout, RegisterMap};
use warmbus_pcsc::{ConfigCache, FunctionCache};

use crate::input::{Capture, Space, VirtualFunction};

/// The bytes of `space`, unknown bytes as 0, with the Capabilities List bit
/// inferred from the capabilities pointer where Status is unknown.
#[must_use]
pub fn walkable(space: &Space) -> Vec<u8> {
    const STATUS: u16 = warmbus_pci::registers::STATUS;
    const HEADER_TYPE: usize = 0x0e;

    let mut bytes = space.bytes.clone();
    let pointer = match bytes
        .get(HEADER_TYPE)
        .map(|byte| byte & header_type::LAYOUT)
    {
        Some(2) => warmbus_pci::registers::CARDBUS_CAPABILITIES_POINTER,
        _ => warmbus_pci::registers::CAPABILITIES_POINTER,
    };
    if space.byte(STATUS).is_none()
        && space.byte(pointer).is_some_and(|pointer| pointer != 0)
        && let Some(low) = bytes.get_mut(usize::from(STATUS))
    {
        *low |= status::CAPABILITIES_LIST as u8;
    }
    bytes
}

/// The functions of a capture.
#[derive(Debug)]
pub struct Hierarchy {
    cache: ConfigCache<DumpedConfigSpace>,
    names: BTreeMap<Sbdf, RegisterMap>,
    topology: Topology,
}

impl Hierarchy {
    /// Walks the functions of `capture`.
    #[must_use]
    pub fn new(capture: &Capture) -> Self {
        let spaces = capture.spaces.iter();
        let spaces = spaces.map(|(&sbdf, space)| (sbdf, walkable(space)));
        let mut cache = ConfigCache::new(DumpedConfigSpace::from_functions(spaces));
        let mut names = BTreeMap::new();
        let mut found = BTreeMap::new();
        for (&sbdf, space) in &capture.spaces {
            let mut anomalies = Vec::new();
            let answer = match virtual_function(space) {
                Some(vf) => probe_vf(&mut cache, sbdf, vf),
                None => cache.probe(sbdf),
            };
            if matches!(answer, Probe::Present { .. }) {
                anomalies = cache.infer(sbdf).unwrap_or_default();
            }
            names.insert(sbdf, name_registers(cache.block(sbdf), space));
            let mut function = describe(sbdf, cache.block(sbdf), space, anomalies);
            if let (
                Some(_),
                Probe::Present {
                    vendor_id,
                    device_id,
                },
            ) = (virtual_function(space), answer)
            {
                (function.vendor_id, function.device_id) = (vendor_id, device_id);
            }
            found.insert(sbdf, function);
        }
        let (hosts, mut functions) = arrange(&found);
        note_virtual_functions(&mut functions, capture);
        let topology = Topology::new(hosts, functions);
        // All host bridges are to be preserved: this reads BARs and windows.
        let topology = assign(topology, &AssignPolicy::default(), &mut cache);
        let mut functions = topology.functions().to_vec();
        for function in &mut functions {
            if let Some(space) = capture.spaces.get(&function.sbdf) {
                size_bars(function, space);
            }
        }
        let topology = Topology::new(topology.hosts().to_vec(), functions);
        Self {
            cache,
            names,
            topology,
        }
    }

    /// The cache of a function; `None` if its Vendor ID is not valid.
    #[must_use]
    pub fn block(&self, sbdf: Sbdf) -> Option<&FunctionCache> {
        self.cache.block(sbdf)
    }

    /// The names of the registers of a function.
    #[must_use]
    pub fn names(&self, sbdf: Sbdf) -> Option<&RegisterMap> {
        self.names.get(&sbdf)
    }

    /// The functions, depth first.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// A report of the functions, without the facts that only the machine has.
    #[must_use]
    pub fn report(&self, capture: &Capture) -> Report {
        let facts = ReportInput {
            topology: &self.topology,
            machine: Machine::default(),
            accesses: Accesses::default(),
            cache: CacheStatistics::default(),
            phases: Vec::new(),
            self_check: None,
            anomalies: capture.problems.clone(),
            result: Ok(()),
        };
        Report::new(facts, &|sbdf| {
            let space = capture.spaces.get(&sbdf)?;
            let (cacheable, cached) = self.counts(sbdf, space);
            Some(CachedBytes {
                size: space.bytes.len() as u16,
                data: &space.bytes,
                cacheable,
                cached,
            })
        })
    }

    /// The number of cacheable bytes, and how many of them are known.
    fn counts(&self, sbdf: Sbdf, space: &Space) -> (u16, u16) {
        let is_cacheable = |offset: u16| match &space.extension {
            Some(extension) => extension.cacheable[usize::from(offset)],
            None => self
                .block(sbdf)
                .is_some_and(|block| block.is_cacheable(ConfigOffset::wrapping(offset))),
        };
        let cacheable = (0..space.bytes.len() as u16).filter(|&offset| is_cacheable(offset));
        cacheable.fold((0, 0), |(all, cached), offset| {
            (all + 1, cached + u16::from(space.byte(offset).is_some()))
        })
    }
}

fn name_registers(block: Option<&FunctionCache>, space: &Space) -> RegisterMap {
    RegisterMap::new(&Layout {
        header_type: block.map_or(header_type::LAYOUT, FunctionCache::header_type),
        capabilities: block.map_or(&[], FunctionCache::capabilities),
        extended_capabilities: block.map_or(&[], FunctionCache::extended_capabilities),
        bytes: &space.bytes,
    })
}

/// A function by its bytes, without BARs and without its position.
fn describe(
    sbdf: Sbdf,
    block: Option<&FunctionCache>,
    space: &Space,
    anomalies: Vec<AnomalyKind>,
) -> Function {
    let dword = |offset: u16| {
        let bytes = [0, 1, 2, 3].map(|lane| space.byte(offset + lane).unwrap_or(0));
        u32::from_le_bytes(bytes)
    };
    let lists = block.map(FunctionCache::lists).cloned().unwrap_or_default();
    let mut function = Function::from_header(sbdf, dword(0), dword(8), dword(0x0c), &lists);
    if let Some(bridge) = &mut function.bridge {
        let numbers = BusNumbers::from_dword(dword(0x18));
        bridge.primary = numbers.primary;
        bridge.secondary = numbers.secondary;
        bridge.subordinate = numbers.subordinate;
    }
    function.anomalies = anomalies;
    function
}

fn virtual_function(space: &Space) -> Option<VirtualFunction> {
    space.extension.as_ref()?.virtual_function
}

/// Links virtual functions to their physical functions.
fn note_virtual_functions(functions: &mut [Function], capture: &Capture) {
    let numbered = functions.iter().enumerate();
    let places: BTreeMap<Sbdf, usize> = numbered.map(|(at, f)| (f.sbdf, at)).collect();
    for function in functions {
        let vf = capture
            .spaces
            .get(&function.sbdf)
            .and_then(virtual_function);
        function.virtual_function = vf.and_then(|vf| {
            Some(VirtualInfo {
                physical: *places.get(&vf.physical)?,
                number: vf.number,
            })
        });
    }
}

/// Probes a virtual function by its physical function, which the cache has
/// already: its routing ID is lower.
fn probe_vf(cache: &mut ConfigCache<DumpedConfigSpace>, sbdf: Sbdf, vf: VirtualFunction) -> Probe {
    let sr_iov = cache
        .block(vf.physical)
        .and_then(|block| block.extended_capability(extended::SR_IOV));
    if let Some(base) = sr_iov {
        let offset = ConfigOffset::wrapping(base + sr_iov::VF_DEVICE_ID);
        cache.read(vf.physical, offset, Width::Dword);
    }
    let identity = VfIdentity {
        physical: vf.physical,
        number: vf.number,
        routing: vf.routing,
    };
    cache.probe_vf(sbdf, identity)
}

/// Orders bridges before the functions below them, and adds a host bridge for
/// every bus without a bridge above it.
fn arrange(found: &BTreeMap<Sbdf, Function>) -> (Vec<(HostBridge, BusRange)>, Vec<Function>) {
    let bridges: Vec<&Function> = found.values().filter(|f| f.bridge.is_some()).collect();
    let above = |function: &Function| {
        bridges
            .iter()
            .filter(|other| {
                other.sbdf.segment() == function.sbdf.segment()
                    && other.sbdf.bus() < function.sbdf.bus()
            })
            .filter(|other| {
                other.bridge.is_some_and(|bridge| {
                    (bridge.secondary..=bridge.subordinate).contains(&function.sbdf.bus())
                })
            })
            .max_by_key(|other| other.bridge.map(|bridge| bridge.secondary))
            .map(|other| other.sbdf)
    };
    let mut below: BTreeMap<Option<Sbdf>, Vec<Sbdf>> = BTreeMap::new();
    for function in found.values() {
        below
            .entry(above(function))
            .or_default()
            .push(function.sbdf);
    }
    let roots: BTreeSet<(u16, u8)> = below
        .get(&None)
        .into_iter()
        .flatten()
        .map(|sbdf| (sbdf.segment(), sbdf.bus()))
        .collect();
    let mut hosts = Vec::new();
    let mut functions = Vec::new();
    for &(segment, first) in &roots {
        let next = roots.range((segment, first)..=(segment, 0xff)).nth(1);
        let last = next.map_or(0xff, |(_, next)| next - 1);
        let host = hosts.len();
        let mut in_use = first;
        // A parent is on a lower bus than its children: this ends.
        let mut pending: Vec<(Sbdf, Option<usize>)> = below[&None]
            .iter()
            .filter(|sbdf| (sbdf.segment(), sbdf.bus()) == (segment, first))
            .map(|&sbdf| (sbdf, None))
            .rev()
            .collect();
        while let Some((sbdf, parent)) = pending.pop() {
            let index = functions.len();
            let mut function = found[&sbdf].clone();
            function.host = host;
            function.parent = parent;
            functions.push(function);
            in_use = in_use.max(sbdf.bus());
            let children = below.get(&Some(sbdf)).into_iter().flatten();
            pending.extend(children.rev().map(|&child| (child, Some(index))));
        }
        let buses = BusRange { first, last };
        // A capture does not have the address of ECAM.
        let mut host = HostBridge::ecam(segment, PhysAddr(0), buses).preserved();
        host.ecam_size = 0;
        hosts.push((
            host.with_name(format!("root bus {first:02x}")),
            BusRange {
                first,
                last: in_use,
            },
        ));
    }
    (hosts, functions)
}

/// Computes BAR sizes from the write masks of a handover.
fn size_bars(function: &mut Function, space: &Space) {
    let Some(extension) = &space.extension else {
        return;
    };
    let writable = |offset: u16| {
        let found = extension.masks.iter().find(|mask| mask.offset == offset)?;
        Some(found.writable)
    };
    let virtual_bars = function
        .extended_capabilities
        .iter()
        .find(|found| found.id == extended::SR_IOV)
        .map(|found| found.offset + sr_iov::VF_BAR0);
    let rom = if function.header_type == 1 {
        0x38
    } else {
        0x30
    };
    for bar in &mut function.bars {
        use warmbus_pci::BarKind::{Io, Memory32, Memory64, Rom, VfMemory32, VfMemory64};

        let register = match bar.index {
            index @ 0..=5 => Some(0x10 + 4 * u16::from(index)),
            6 => Some(rom),
            index => virtual_bars.map(|first| first + 4 * u16::from(index - 7)),
        };
        let Some(low) = register.and_then(writable) else {
            continue;
        };
        let bits = match bar.kind {
            Io => u64::from(low & !3),
            Memory32 | VfMemory32 => u64::from(low & !0xf),
            Rom => u64::from(low & !0x7ff),
            Memory64 | VfMemory64 => {
                let Some(high) = register.and_then(|register| writable(register + 4)) else {
                    continue;
                };
                u64::from(high) << 32 | u64::from(low & !0xf)
            }
        };
        if bits != 0 {
            bar.size = Some(1 << bits.trailing_zeros());
        }
    }
}
