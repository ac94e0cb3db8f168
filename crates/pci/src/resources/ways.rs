//! Which of two ways each BAR is forwarded: by the memory windows of the
//! bridges above it, or by their prefetchable windows.

use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::Kind;
use super::apertures::{Apertures, Places};
use crate::{Bar, BarKind};

/// With up to so many BARs that have two ways, all combinations are tried.
const MAX_COMBINED: usize = 6;

/// By which windows a BAR is forwarded, and the apertures that it may be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) kind: Kind,
    pub(super) places: Places,
}

/// What the bridges above a BAR forward beside 32-bit memory, all of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forwarding {
    /// Prefetchable memory.
    pub(super) prefetchable: bool,
    /// Prefetchable memory with 64-bit addresses.
    pub(super) prefetchable_64: bool,
}

/// How a BAR can be forwarded: the preferred way, and another
/// one.
///
/// The memory window of a bridge has 32 bits. Its prefetchable window may
/// have 64, and anything in it may be prefetched from, as from a
/// prefetchable window of the host bridge. An expansion ROM may be
/// prefetched from: reading it has no side effects. On a root bus there
/// is no window that limits a BAR.
pub(super) fn of_bar(
    bar: &Bar,
    forwarding: Option<Forwarding>,
    apertures: &Apertures,
) -> (Way, Option<Way>) {
    let is_64_bit = matches!(bar.kind, BarKind::Memory64 | BarKind::VfMemory64);
    let may_prefetch = bar.prefetchable || bar.kind == BarKind::Rom;
    let mut places = Places::LOW;
    if may_prefetch {
        places = places.or(Places::LOW_PREFETCHABLE);
    }
    let way = |kind, places| Way { kind, places };
    if bar.kind == BarKind::Io {
        return (way(Kind::Io, Places::IO), None);
    }
    let Some(forwarding) = forwarding else {
        if is_64_bit {
            places = places.or(Places::HIGH);
        }
        if is_64_bit && may_prefetch {
            places = places.or(Places::HIGH_PREFETCHABLE);
        }
        return (way(Kind::Memory, places), None);
    };
    let memory = way(Kind::Memory, Places::LOW);
    if !may_prefetch || !forwarding.prefetchable {
        return (memory, None);
    }
    if is_64_bit {
        places = places.or(Places::ALL_HIGH);
    }
    let prefetchable = way(Kind::Prefetchable, places);
    let reaches_high = is_64_bit && forwarding.prefetchable_64;
    let has_high = apertures.has_memory(Places::ALL_HIGH);
    let prefers_prefetchable = if has_high {
        // What has 32 bits would keep the window below 4 GiB.
        reaches_high
    } else {
        bar.prefetchable && apertures.has_memory(Places::LOW_PREFETCHABLE)
    };
    if prefers_prefetchable {
        (prefetchable, Some(memory))
    } else {
        (memory, Some(prefetchable))
    }
}

/// The combinations to try, the preferred one first: for each of `count` BARs
/// whether it is forwarded by its other way. `size` is that of a BAR that
/// has another way.
///
/// Beyond [`MAX_COMBINED`] of them, the largest is changed first, then the
/// two largest, and so on.
pub(super) fn choices(count: usize, size: impl Fn(usize) -> Option<u64>) -> Vec<Vec<bool>> {
    let mut flexible: Vec<(u64, usize)> = (0..count)
        .filter_map(|bar| Some((size(bar)?, bar)))
        .collect();
    flexible.sort_by_key(|&(size, bar)| (Reverse(size), bar));
    let combination = |is_other: &dyn Fn(usize) -> bool| {
        let mut ways = vec![false; count];
        for (rank, &(_, bar)) in flexible.iter().enumerate() {
            ways[bar] = is_other(rank);
        }
        ways
    };
    if flexible.len() <= MAX_COMBINED {
        let combinations = 0..1_usize << flexible.len();
        combinations
            .map(|bits| combination(&|rank| bits >> rank & 1 != 0))
            .collect()
    } else {
        let changed = 0..=flexible.len();
        changed
            .map(|changed| combination(&|rank| rank < changed))
            .collect()
    }
}
