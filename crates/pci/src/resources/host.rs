//! Assignment below one host bridge.

use alloc::vec;
use alloc::vec::Vec;

use super::allocate::AddressSpace;
use super::apertures::{Aperture, Apertures, Places};
use super::attempt::{Attempt, Priority, Request, Window, Wish};
use super::excess::{self, Contender};
use super::probe::ProbedResources;
use super::ways::{self, Forwarding, Way};
use super::{AssignPolicy, Kind, program};
use crate::decode::{IO_GRANULE, MEMORY_GRANULE};
use crate::{AnomalyKind, BarKind, BridgeInfo, ConfigSpace, Function, Topology};

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

/// A BAR that is to be assigned addresses.
#[derive(Clone, Copy, Debug)]
struct BarRequest {
    /// Index of the function.
    function: usize,
    /// Index of the BAR in [`Function::bars`].
    bar: usize,
    size: u64,
    align: u64,
    priority: Priority,
    way: Way,
    /// Another way that the bridges above can forward it.
    other_way: Option<Way>,
}

impl BarRequest {
    /// The apertures that it may be in.
    fn places(&self) -> Places {
        let other = self.other_way.map(|way| way.places);
        other.map_or(self.way.places, |other| other.or(self.way.places))
    }
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
        let forwarding = bridge.map(|_| Forwarding {
            prefetchable: self.has_prefetchable(bridge),
            prefetchable_64: self.has_prefetchable_64(bridge),
        });
        let (way, other_way) = ways::of_bar(bar, forwarding, &self.apertures);
        self.requests.push(BarRequest {
            function: index,
            bar: number,
            size: size.saturating_mul(count),
            align: size,
            priority,
            way,
            other_way,
        });
    }

    fn has_prefetchable(&self, bridge: Option<usize>) -> bool {
        self.tree.all_above(bridge, |index| {
            let probed = &self.probed[index];
            probed.prefetchable_64 || probed.prefetchable_32
        })
    }

    fn has_prefetchable_64(&self, bridge: Option<usize>) -> bool {
        let probed = self.probed;
        self.tree
            .all_above(bridge, |index| probed[index].prefetchable_64)
    }

    /// Allocates each space, then programs the registers.
    pub(super) fn assign<S: ConfigSpace>(
        self,
        topology: &mut Topology,
        policy: &AssignPolicy,
        config: &mut S,
    ) {
        self.assign_space(topology, policy, &[Kind::Io], &self.apertures.io);
        let kinds = [Kind::Memory, Kind::Prefetchable];
        self.assign_space(topology, policy, &kinds, &self.apertures.memory);
        for (function, probed) in topology.functions.iter_mut().zip(self.probed) {
            if function.host == self.host {
                program::write(function, probed, config);
            }
        }
    }

    /// Assigns what is forwarded by windows of `kinds`.
    fn assign_space(
        &self,
        topology: &mut Topology,
        policy: &AssignPolicy,
        kinds: &[Kind],
        apertures: &[Aperture],
    ) {
        let windows: Vec<Window> = (0..self.tree.bridges.len())
            .flat_map(|bridge| kinds.iter().map(move |&kind| (bridge, kind)))
            .map(|(bridge, kind)| self.window(bridge, kind, kinds))
            .collect();
        let space = AddressSpace::new(&windows, apertures);
        let of_kinds = self.requests.iter();
        let bars: Vec<&BarRequest> = of_kinds
            .filter(|bar| kinds.contains(&bar.way.kind))
            .collect();
        let mut attempt = self.choose_ways(&space, &bars, kinds);
        for wishes in self.wishes(topology, policy, kinds) {
            space.grant(&mut attempt, &wishes);
        }
        let placement = space.place(&attempt);
        let largest_free = placement.largest_free(&attempt, &space);
        for (index, wanted) in bars.iter().enumerate() {
            let function = &mut topology.functions[wanted.function];
            let address = placement.requests[index];
            function.bars[wanted.bar].address = address;
            if address.is_none() {
                let above = attempt.requests[index].window;
                let is_forwarded = above.is_none_or(|window| windows[window].exists);
                let bar = &function.bars[wanted.bar];
                let kind = if is_forwarded {
                    AnomalyKind::BarUnassigned {
                        index: bar.index,
                        kind: bar.kind,
                        size: wanted.size,
                        largest_free,
                        is_excess: is_excess(&bars, index, apertures),
                    }
                } else {
                    AnomalyKind::BarNotForwarded {
                        index: bar.index,
                        kind: bar.kind,
                        size: wanted.size,
                    }
                };
                function.anomalies.push(kind);
            }
        }
        for (number, &kind) in kinds.iter().enumerate() {
            let windows = placement.windows.iter().skip(number).step_by(kinds.len());
            program::set_windows(topology, &self.tree.bridges, kind, windows);
        }
    }

    /// Decides by which windows each of `bars` is forwarded, and which of them
    /// are dropped: as few as can be.
    fn choose_ways(
        &self,
        space: &AddressSpace<'_>,
        bars: &[&BarRequest],
        kinds: &[Kind],
    ) -> Attempt {
        let attempt = |ways: &[bool]| {
            let requests = bars.iter().zip(ways).map(|(bar, &is_other)| {
                let way = bar.other_way.filter(|_| is_other).unwrap_or(bar.way);
                self.request(bar, way, kinds)
            });
            let mut attempt = Attempt::new(requests.collect(), space.windows.len());
            space.drop_impossible(&mut attempt);
            attempt
        };
        let preferred = attempt(&vec![false; bars.len()]);
        if preferred.losses() == Attempt::NO_LOSSES && space.try_place(&preferred).is_some() {
            return preferred;
        }
        let choices = ways::choices(bars.len(), |bar| {
            let bar = bars[bar];
            bar.other_way.map(|_| bar.size)
        });
        let least = choices.iter().map(|ways| attempt(ways).losses()).min();
        for ways in &choices {
            let attempt = attempt(ways);
            if Some(attempt.losses()) == least && space.try_place(&attempt).is_some() {
                return attempt;
            }
        }
        // Not everything fits, whatever the ways: the uniform ones are compared.
        let uniform = [None, Some(Kind::Memory), Some(Kind::Prefetchable)];
        let attempts = uniform.into_iter().map(|kind| {
            let ways: Vec<bool> = bars
                .iter()
                .map(|bar| kind.is_some_and(|kind| bar.way.kind != kind))
                .collect();
            let mut attempt = attempt(&ways);
            space.drop_until_it_fits(&mut attempt);
            attempt
        });
        attempts.min_by_key(Attempt::losses).unwrap_or(preferred)
    }

    fn request(&self, bar: &BarRequest, way: Way, kinds: &[Kind]) -> Request {
        let bridge = self.tree.above[bar.function];
        Request {
            window: bridge.map(|bridge| number_of_window(bridge, way.kind, kinds)),
            size: bar.size,
            align: bar.align,
            places: way.places,
            priority: bar.priority,
        }
    }

    /// The window of one kind of the bridge with this number.
    fn window(&self, bridge: usize, kind: Kind, kinds: &[Kind]) -> Window {
        let probed = self.probed;
        let up = Some(bridge);
        let (exists, places, granule) = match kind {
            Kind::Io => {
                let exists = self.tree.all_above(up, |index| probed[index].io_window);
                (exists, Places::IO, IO_GRANULE)
            }
            Kind::Memory => (true, Places::LOW, MEMORY_GRANULE),
            Kind::Prefetchable => {
                let low = Places::LOW.or(Places::LOW_PREFETCHABLE);
                let places = if self.has_prefetchable_64(up) {
                    low.or(Places::ALL_HIGH)
                } else {
                    low
                };
                (self.has_prefetchable(up), places, MEMORY_GRANULE)
            }
        };
        let above = self.tree.above[self.tree.bridges[bridge]];
        Window {
            parent: above.map(|above| number_of_window(above, kind, kinds)),
            exists,
            places,
            granule,
        }
    }

    /// What windows are to have beyond what is asked for, in the order of
    /// importance: a window for each bridge, since what is below may change,
    /// then space for what is plugged in.
    fn wishes(&self, topology: &Topology, policy: &AssignPolicy, kinds: &[Kind]) -> Vec<Vec<Wish>> {
        let wishes = |kind: Kind, of: &dyn Fn(&BridgeInfo) -> Option<u64>| {
            let bridges = self.tree.bridges.iter().enumerate();
            let wishes = bridges.filter_map(|(bridge, &index)| {
                Some(Wish {
                    window: number_of_window(bridge, kind, kinds),
                    size: topology.functions[index].bridge.as_ref().and_then(of)?,
                    align: 1,
                })
            });
            wishes.collect::<Vec<Wish>>()
        };
        let mut all = Vec::new();
        for &kind in kinds {
            let (granule, padding) = match kind {
                Kind::Io => (IO_GRANULE, policy.hot_plug_io),
                Kind::Memory => (MEMORY_GRANULE, policy.hot_plug_memory),
                Kind::Prefetchable => (MEMORY_GRANULE, policy.hot_plug_prefetchable),
            };
            let reserve = |bridge: &BridgeInfo| match kind {
                Kind::Io => bridge.reserve.io,
                Kind::Memory => bridge.reserve.memory,
                Kind::Prefetchable => bridge.reserve.prefetchable,
            };
            all.push(wishes(kind, &|_| Some(granule)));
            all.push(wishes(kind, &|bridge| {
                let is_wanted = bridge.hot_plug && reserve(bridge) != Some(0);
                is_wanted.then_some(padding)
            }));
            all.push(wishes(kind, &|bridge| {
                reserve(bridge).filter(|&size| size > 0)
            }));
        }
        // Memory below 4 GiB is short where there is some beyond.
        let has_high = self.apertures.has_memory(Places::ALL_HIGH);
        for wishes in &mut all {
            wishes.retain(|wish| {
                let (bridge, kind) = (wish.window / kinds.len(), wish.window % kinds.len());
                kinds[kind] != Kind::Prefetchable
                    || !has_high
                    || self.has_prefetchable_64(Some(bridge))
            });
        }
        all
    }
}

/// The index in [`AddressSpace::windows`] of the window of a bridge: each has
/// one of each of the kinds of the space.
fn number_of_window(bridge: usize, kind: Kind, kinds: &[Kind]) -> usize {
    let number = kinds.iter().position(|&one| one == kind).unwrap_or(0);
    bridge * kinds.len() + number
}

/// Whether the BAR with this number is one of too many of its size.
fn is_excess(bars: &[&BarRequest], number: usize, apertures: &[Aperture]) -> bool {
    let is_needed = |bar: &BarRequest| bar.priority == Priority::Bar;
    if !is_needed(bars[number]) {
        return false;
    }
    let before = bars[..number].iter().filter(|bar| is_needed(bar)).count();
    let needed = bars.iter().filter(|bar| is_needed(bar));
    let contenders: Vec<Contender> = needed
        .map(|bar| Contender {
            size: bar.size,
            places: bar.places(),
        })
        .collect();
    excess::is_one_too_many(&contenders, before, apertures)
}
