//! Assignment below one host bridge.

use alloc::vec;
use alloc::vec::Vec;

use super::allocate::{AddressSpace, Bridge, Placement, Priority, Request};
use super::apertures::Apertures;
use super::probe::ProbedResources;
use super::{AssignPolicy, KINDS, Kind, program};
use crate::decode::{IO_GRANULE, MEMORY_GRANULE};
use crate::{AnomalyKind, Bar, BarKind, ConfigSpace, Function, Topology};

/// The bridges below one host bridge, and the bridge above each function.
struct Tree {
    /// Indices into [`Topology::functions`], parents first.
    bridges: Vec<usize>,
    /// For each function the bridge above, as an index into `bridges`.
    above: Vec<Option<usize>>,
}

impl Tree {
    fn new(topology: &Topology, host: usize) -> Self {
        let mut bridges = Vec::new();
        let mut number = vec![None; topology.functions.len()];
        let mut above = vec![None; topology.functions.len()];
        for (index, function) in topology.functions.iter().enumerate() {
            if function.host != host {
                continue;
            }
            above[index] = function.parent.and_then(|parent| number[parent]);
            if function.bridge.is_some() {
                number[index] = Some(bridges.len());
                bridges.push(index);
            }
        }
        Self { bridges, above }
    }

    /// Whether all bridges from `bridge` up satisfy `test`.
    fn all_above(&self, mut bridge: Option<usize>, test: impl Fn(usize) -> bool) -> bool {
        while let Some(index) = bridge {
            if !test(self.bridges[index]) {
                return false;
            }
            bridge = self.above[self.bridges[index]];
        }
        true
    }
}

/// A BAR that is to be assigned addresses of one space.
#[derive(Clone, Copy, Debug)]
struct BarRequest {
    kind: Kind,
    request: Request,
    /// Index of the function.
    function: usize,
    /// Index of the BAR in [`Function::bars`].
    bar: usize,
}

/// What is to be assigned below one host bridge, and from which apertures.
pub(super) struct HostAssignment<'a> {
    host: usize,
    probed: &'a [ProbedResources],
    tree: Tree,
    apertures: Apertures,
    requests: Vec<BarRequest>,
}

impl<'a> HostAssignment<'a> {
    /// Collects what the BARs of the functions of `host` request.
    pub(super) fn new(topology: &Topology, host: usize, probed: &'a [ProbedResources]) -> Self {
        let mut assignment = Self {
            host,
            probed,
            tree: Tree::new(topology, host),
            apertures: Apertures::new(topology, host),
            requests: Vec::new(),
        };
        for (index, function) in topology.functions.iter().enumerate() {
            if function.host == host {
                for bar in 0..function.bars.len() {
                    assignment.add_request(index, function, bar);
                }
            }
        }
        assignment
    }

    fn add_request(&mut self, index: usize, function: &Function, number: usize) {
        let bar = &function.bars[number];
        let Some(size) = bar.size.filter(|_| !bar.fixed) else {
            return;
        };
        let vfs = function.sriov.map_or(0, |sriov| u64::from(sriov.total_vfs));
        let (priority, count) = match bar.kind {
            BarKind::VfMemory32 | BarKind::VfMemory64 => (Priority::VirtualFunctions, vfs),
            BarKind::Rom => (Priority::Rom, 1),
            _ => (Priority::Bar, 1),
        };
        let bridge = self.tree.above[index];
        self.requests.push(BarRequest {
            kind: self.kind_of(bar, bridge),
            request: Request {
                bridge,
                size: size.saturating_mul(count),
                align: size,
                priority,
            },
            function: index,
            bar: number,
        });
    }

    /// The space that a BAR below `bridge` takes its addresses from. Below a
    /// bridge only prefetchable memory reaches beyond 32 bits; on a root bus
    /// any does, unless the host bridge forwards it as prefetchable.
    fn kind_of(&self, bar: &Bar, bridge: Option<usize>) -> Kind {
        let is_64_bit = matches!(bar.kind, BarKind::Memory64 | BarKind::VfMemory64);
        let may_be_high = is_64_bit
            && (bar.prefetchable || bridge.is_none() && !self.apertures.is_high_prefetchable);
        let probed = self.probed;
        match bar.kind {
            BarKind::Io => Kind::Io,
            _ if may_be_high && self.tree.all_above(bridge, |up| probed[up].prefetchable_64) => {
                self.apertures.prefetchable_or_memory()
            }
            _ => Kind::Memory,
        }
    }

    /// Allocates each space, then programs the registers.
    pub(super) fn assign<S: ConfigSpace>(
        mut self,
        topology: &mut Topology,
        policy: &AssignPolicy,
        config: &mut S,
    ) {
        for kind in KINDS {
            let placement = self.assign_space(topology, policy, kind);
            if kind == Kind::Memory && !self.apertures.is_high {
                // Without memory beyond 4 GiB prefetchable windows share what
                // is still free below.
                self.apertures.prefetchable = placement.free;
            }
        }
        for (function, probed) in topology.functions.iter_mut().zip(self.probed) {
            if function.host == self.host {
                program::write(function, probed, config);
            }
        }
    }

    fn assign_space(
        &self,
        topology: &mut Topology,
        policy: &AssignPolicy,
        kind: Kind,
    ) -> Placement {
        let bridges: Vec<Bridge> = (0..self.tree.bridges.len())
            .map(|number| self.bridge(topology, number, kind))
            .collect();
        let of_kind: Vec<&BarRequest> = self
            .requests
            .iter()
            .filter(|bar| bar.kind == kind)
            .collect();
        let requests: Vec<Request> = of_kind.iter().map(|bar| bar.request).collect();
        let (granule, padding) = match kind {
            Kind::Io => (IO_GRANULE, policy.hot_plug_io),
            Kind::Memory => (MEMORY_GRANULE, policy.hot_plug_memory),
            Kind::Prefetchable => (MEMORY_GRANULE, policy.hot_plug_prefetchable),
        };
        let space = AddressSpace {
            bridges: &bridges,
            requests: &requests,
            apertures: self.apertures.of(kind),
            granule,
            padding,
        };
        let placement = space.place_all();
        for (wanted, address) in of_kind.iter().zip(&placement.requests) {
            let function = &mut topology.functions[wanted.function];
            function.bars[wanted.bar].address = *address;
            if address.is_none() {
                let above = wanted.request.bridge;
                let is_forwarded = above.is_none_or(|bridge| bridges[bridge].has_window);
                let bar = &function.bars[wanted.bar];
                let kind = describe_unplaced(bar, wanted.request.size, is_forwarded, &placement);
                function.anomalies.push(kind);
            }
        }
        program::set_windows(topology, &self.tree.bridges, kind, &placement.windows);
        placement
    }

    fn bridge(&self, topology: &Topology, number: usize, kind: Kind) -> Bridge {
        let forwards = |index: usize| {
            let probed = &self.probed[index];
            match kind {
                Kind::Io => probed.io_window,
                Kind::Memory => true,
                Kind::Prefetchable if self.apertures.is_high => probed.prefetchable_64,
                Kind::Prefetchable => probed.prefetchable_64 || probed.prefetchable_32,
            }
        };
        let index = self.tree.bridges[number];
        Bridge {
            parent: self.tree.above[index],
            has_window: self.tree.all_above(Some(number), forwards),
            hot_plug: topology.functions[index]
                .bridge
                .is_some_and(|bridge| bridge.hot_plug),
        }
    }
}

/// Why a BAR has no address.
fn describe_unplaced(
    bar: &Bar,
    size: u64,
    is_forwarded: bool,
    placement: &Placement,
) -> AnomalyKind {
    let (index, kind) = (bar.index, bar.kind);
    if is_forwarded {
        AnomalyKind::BarUnassigned {
            index,
            kind,
            size,
            largest_free: placement.largest_free(),
        }
    } else {
        AnomalyKind::BarNotForwarded { index, kind, size }
    }
}
