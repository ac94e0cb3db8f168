//! Whatever an exhaustive search can place is placed: small random machines
//! with little space.
//!
//! The search knows the rules of the specification and tries every address. It
//! counts in MiB, shares nothing with the assignment, and reads as little of
//! the result as possible.

use std::collections::HashMap;

use warmbus_pci::{HostWindow, Sbdf};
use warmbus_pcie_sim::{
    BarModel, BridgeWindows, Fabric, FunctionModel, memory32_window, memory64_window,
    prefetchable_window, proptest_config,
};

use crate::{MIB, at, set_up};

/// A range of addresses in MiB: the first one, and the one behind the last.
type Range = (u64, u64);

/// 4 GiB.
const HIGH: u64 = 1 << 12;

#[derive(Clone, Copy, Debug)]
struct BarItem {
    /// The bridge right above.
    above: Option<usize>,
    size: u64,
    is_64_bit: bool,
    prefetchable: bool,
}

#[derive(Clone, Copy, Debug)]
struct BridgeItem {
    above: Option<usize>,
    prefetchable_bits: u8,
}

/// A window of the host bridge.
#[derive(Clone, Copy, Debug)]
struct Window {
    range: Range,
    prefetchable: bool,
}

#[derive(Clone, Debug)]
struct Small {
    windows: Vec<Window>,
    bridges: Vec<BridgeItem>,
    bars: Vec<BarItem>,
}

/// Numbers that differ from case to case (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }
}

impl Small {
    fn random(case: u64) -> Self {
        let mut random = Random(case.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.below(2);
        // Far from each other, one below 4 GiB that is not prefetchable.
        let windows = (0..=random.below(3)).map(|number| {
            let kind = if number == 0 { 0 } else { random.below(4) };
            let first =
                0x100 * (number + 1) + random.below(8) + if kind & 2 != 0 { HIGH } else { 0 };
            Window {
                range: (first, first + 2 + random.below(6)),
                prefetchable: kind & 1 != 0,
            }
        });
        let windows: Vec<Window> = windows.collect();
        let bridges = (0..random.below(3)).map(|number| BridgeItem {
            above: (number == 1 && random.below(2) == 0).then_some(0),
            prefetchable_bits: [0, 32, 64, 64][random.below(4) as usize],
        });
        let bridges: Vec<BridgeItem> = bridges.collect();
        let count = 2 + random.below(5 - bridges.len() as u64);
        let bars = (0..count).map(|_| BarItem {
            above: (random.below(bridges.len() as u64 + 1) as usize).checked_sub(1),
            size: [1, 1, 2, 2, 4][random.below(5) as usize],
            is_64_bit: random.below(3) != 0,
            prefetchable: random.below(3) != 0,
        });
        let bars = bars.collect();
        Self {
            windows,
            bridges,
            bars,
        }
    }

    /// The machine, and where each BAR is: the device number, on the bus of the
    /// bridge above.
    fn fabric(&self) -> (Fabric, Vec<u8>) {
        let windows = self.windows.iter().map(|window| {
            let (base, size) = (
                window.range.0 * MIB,
                (window.range.1 - window.range.0) * MIB,
            );
            let found: HostWindow = if window.range.0 >= HIGH {
                memory64_window(base, size)
            } else {
                memory32_window(base, size)
            };
            if window.prefetchable {
                prefetchable_window(found)
            } else {
                found
            }
        });
        let (mut fabric, host) = Fabric::with_windows(&windows.collect::<Vec<_>>());
        let mut nodes = Vec::new();
        for (number, bridge) in (1..).zip(&self.bridges) {
            let windows = BridgeWindows {
                io_bits: 0,
                prefetchable_bits: bridge.prefetchable_bits,
            };
            let model = FunctionModel::bridge(0x1234, 4, windows);
            nodes.push(match bridge.above {
                Some(above) => fabric.add_below(nodes[above], number, 0, model),
                None => fabric.add_root(host, number, 0, model),
            });
        }
        let devices = (8..).zip(&self.bars).map(|(device, bar)| {
            let size = bar.size * MIB;
            let mut model = if bar.is_64_bit {
                BarModel::memory64(size)
            } else {
                BarModel::memory32(size)
            };
            model.prefetchable = bar.prefetchable;
            let model = FunctionModel::endpoint(0x1234, 7, 0x08_8000).bar(0, model);
            match bar.above {
                Some(above) => fabric.add_below(nodes[above], device, 0, model),
                None => fabric.add_root(host, device, 0, model),
            };
            device
        });
        let devices = devices.collect();
        (fabric, devices)
    }
}

/// What is to be placed on one bus.
#[derive(Clone, Copy, Debug)]
enum Thing {
    Bar(usize),
    Bridge(usize),
}

/// The search. What fits below a bridge with given windows is searched once.
struct Search<'a> {
    machine: &'a Small,
    known: HashMap<(usize, Option<Range>, Option<Range>), bool>,
}

impl Search<'_> {
    fn things(&self, above: Option<usize>) -> Vec<Thing> {
        let bridges = self.machine.bridges.iter().enumerate();
        let bridges = bridges.filter(|(_, bridge)| bridge.above == above);
        let bars = self.machine.bars.iter().enumerate();
        let bars = bars.filter(|(_, bar)| bar.above == above);
        bridges
            .map(|(bridge, _)| Thing::Bridge(bridge))
            .chain(bars.map(|(bar, _)| Thing::Bar(bar)))
            .collect()
    }

    /// Whether everything has a place.
    fn all_fits(&mut self) -> bool {
        let windows: Vec<(Range, bool)> = self
            .machine
            .windows
            .iter()
            .map(|window| (window.range, window.prefetchable))
            .collect();
        let things = self.things(None);
        self.place(&things, &windows, true, &mut Vec::new())
    }

    /// Whether all below `bridge` fits into its windows.
    fn fits(&mut self, bridge: usize, memory: Option<Range>, prefetchable: Option<Range>) -> bool {
        let key = (bridge, memory, prefetchable);
        if let Some(&known) = self.known.get(&key) {
            return known;
        }
        let windows: Vec<(Range, bool)> = memory
            .map(|range| (range, false))
            .into_iter()
            .chain(prefetchable.map(|range| (range, true)))
            .collect();
        let things = self.things(Some(bridge));
        let found = self.place(&things, &windows, false, &mut Vec::new());
        self.known.insert(key, found);
        found
    }

    /// Whether `things` fit into `windows`, each with whether it is prefetchable,
    /// beside what is `taken`.
    fn place(
        &mut self,
        things: &[Thing],
        windows: &[(Range, bool)],
        is_root: bool,
        taken: &mut Vec<Range>,
    ) -> bool {
        let Some((&thing, rest)) = things.split_first() else {
            return true;
        };
        match thing {
            Thing::Bar(index) => {
                let bar = self.machine.bars[index];
                let allowed = windows.iter().filter(|(range, prefetchable)| {
                    (bar.prefetchable || !prefetchable) && (bar.is_64_bit || range.0 < HIGH)
                });
                for &((first, end), _) in allowed {
                    let mut base = first.next_multiple_of(bar.size);
                    while base + bar.size <= end {
                        let range = (base, base + bar.size);
                        if is_free(range, taken) {
                            taken.push(range);
                            if self.place(rest, windows, is_root, taken) {
                                return true;
                            }
                            taken.pop();
                        }
                        base += bar.size;
                    }
                }
                false
            }
            Thing::Bridge(index) => {
                let bits = self.machine.bridges[index].prefetchable_bits;
                let memory = windows
                    .iter()
                    .filter(|(range, prefetchable)| range.0 < HIGH && !prefetchable);
                let memory = ranges(memory);
                // A host window that is not prefetchable holds prefetchable
                // windows of bridges, too.
                let prefetchable = windows.iter().filter(|(range, prefetchable)| {
                    bits != 0 && (bits == 64 || range.0 < HIGH) && (is_root || *prefetchable)
                });
                let prefetchable = ranges(prefetchable);
                let mut smallest: Vec<(Option<Range>, Option<Range>)> = Vec::new();
                for &memory in &memory {
                    for &prefetchable in &prefetchable {
                        let is_larger = smallest.iter().any(|&(other, other_prefetchable)| {
                            holds(memory, other) && holds(prefetchable, other_prefetchable)
                        });
                        if !is_larger && self.fits(index, memory, prefetchable) {
                            smallest.push((memory, prefetchable));
                        }
                    }
                }
                for (memory, prefetchable) in smallest {
                    let open: Vec<Range> = memory.into_iter().chain(prefetchable).collect();
                    let is_apart = open.len() < 2 || is_free(open[0], &open[1..]);
                    if is_apart && open.iter().all(|&range| is_free(range, taken)) {
                        let before = taken.len();
                        taken.extend(&open);
                        if self.place(rest, windows, is_root, taken) {
                            return true;
                        }
                        taken.truncate(before);
                    }
                }
                false
            }
        }
    }
}

/// No window, and all ranges inside of `windows`, small ones first.
fn ranges<'a>(windows: impl Iterator<Item = &'a (Range, bool)>) -> Vec<Option<Range>> {
    let mut found = Vec::new();
    for &((first, end), _) in windows {
        for base in first..end {
            found.extend((base + 1..=end).map(|limit| (base, limit)));
        }
    }
    found.sort_by_key(|(base, end)| end - base);
    core::iter::once(None)
        .chain(found.into_iter().map(Some))
        .collect()
}

fn holds(outer: Option<Range>, inner: Option<Range>) -> bool {
    inner.is_none_or(|inner| outer.is_some_and(|outer| outer.0 <= inner.0 && inner.1 <= outer.1))
}

fn is_free(range: Range, taken: &[Range]) -> bool {
    taken
        .iter()
        .all(|other| range.1 <= other.0 || other.1 <= range.0)
}

#[test]
fn whatever_an_exhaustive_search_can_place_is_placed() {
    let (mut fitting, mut full) = (0, 0);
    for case in proptest_config::cases(4000) {
        let small = Small::random(case);
        let mut search = Search {
            machine: &small,
            known: HashMap::new(),
        };
        let fits = search.all_fits();
        let (fabric, devices) = small.fabric();
        let mut machine = set_up(fabric);
        machine.assert_consistent();
        // Buses are numbered in the order in which bridges are found.
        let lost: Vec<Sbdf> = devices
            .iter()
            .zip(&small.bars)
            .map(|(&device, bar)| {
                let bus = bar.above.map_or(0, |above| above as u8 + 1);
                at(bus, device, 0)
            })
            .filter(|&sbdf| machine.address(sbdf, 0).is_none())
            .collect();
        if fits {
            fitting += 1;
            assert!(lost.is_empty(), "case {case}: {lost:?} of {small:#?}");
        } else {
            full += 1;
            assert!(
                !lost.is_empty(),
                "case {case}: the search is too strict: {small:#?}"
            );
        }
    }
    // Both outcomes are frequent enough to mean something.
    assert!(
        fitting > full / 8 && full > fitting / 8,
        "{fitting} fit, {full} do not"
    );
}
