//! What is placed where not everything fits.
//!
//! Which requests are the fewest to be dropped is not searched for. Two ways to choose
//! them are compared: one drops the largest requests, so that many small ones have a
//! place; the other one fills what is there as Linux does, so that a bridge with
//! many BARs in one window is not dropped for another one that has a single BAR.

use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::allocate::{AddressSpace, largest_passing};
use super::attempt::{Attempt, Priority};

/// Attempts to restore a request, each a whole placement.
const SECOND_CHANCES: usize = 64;

impl AddressSpace<'_> {
    /// Drops as few requests as one of both ways finds.
    pub(super) fn drop_until_it_fits(&self, attempt: &mut Attempt) {
        if self.try_place(attempt).is_some() {
            return;
        }
        // The same number is no reason to drop another request than the largest.
        let count = |choice: &Attempt| choice.losses().map(|(count, _)| count);
        let choices = [self.without_the_largest(attempt), self.by_window(attempt)];
        if let Some(best) = choices.into_iter().min_by_key(count) {
            *attempt = best;
        }
    }

    /// Drops requests, lowest priority and largest first, until the rest fits,
    /// then restores those that still fit.
    fn without_the_largest(&self, attempt: &Attempt) -> Attempt {
        let mut order = kept(attempt);
        // By priority, the largest first, and of one size the last, as Linux
        // does.
        order.sort_by_key(|&index| {
            let request = &attempt.requests[index];
            (request.priority, Reverse(request.size), Reverse(index))
        });
        let kept_with = |dropped: usize| {
            let mut attempt = attempt.clone();
            for &index in &order[..dropped] {
                attempt.keep[index] = false;
            }
            attempt
        };
        // With everything dropped nothing remains that could not fit.
        let kept = largest_passing(order.len(), |kept| {
            self.try_place(&kept_with(order.len() - kept)).is_some()
        });
        let dropped = order.len() - kept;
        let mut found = kept_with(dropped);
        self.restore(&mut found, order[..dropped].iter().rev().copied());
        found
    }

    /// Keeps requests as Linux does: on the root bus one by one, and below a bridge
    /// all BARs that are in one of its windows or none of them, what has the largest
    /// alignment first, and of one alignment what is found first. Then restores the others that still fit, the highest
    /// priority and the smallest first.
    fn by_window(&self, attempt: &Attempt) -> Attempt {
        let mut found = attempt.clone();
        found.keep = vec![false; attempt.requests.len()];
        let all = kept(attempt);
        let mut units: Vec<(Option<usize>, Vec<usize>)> = Vec::new();
        for &index in &all {
            if attempt.requests[index].priority != Priority::Bar {
                continue;
            }
            let window = self.root_window(attempt.requests[index].window);
            let known = units
                .iter_mut()
                .find(|(other, _)| window.is_some() && *other == window);
            match known {
                Some((_, unit)) => unit.push(index),
                None => units.push((window, vec![index])),
            }
        }
        units.sort_by_key(|(window, unit)| {
            let granule = window.map_or(1, |window| self.windows[window].granule);
            let aligns = unit.iter().map(|&index| attempt.requests[index].align);
            Reverse(aligns.fold(granule, u64::max))
        });
        for (_, unit) in &units {
            for &index in unit {
                found.keep[index] = true;
            }
            if self.try_place(&found).is_none() {
                for &index in unit {
                    found.keep[index] = false;
                }
            }
        }
        let mut others: Vec<usize> = all
            .into_iter()
            .filter(|&index| !found.keep[index])
            .collect();
        others.sort_by_key(|&index| {
            let request = &attempt.requests[index];
            (Reverse(request.priority), request.size, index)
        });
        self.restore(&mut found, others.into_iter());
        found
    }

    /// Keeps those of `dropped` that still fit, one after the other.
    fn restore(&self, attempt: &mut Attempt, dropped: impl Iterator<Item = usize>) {
        for index in dropped.take(SECOND_CHANCES) {
            attempt.keep[index] = true;
            if self.try_place(attempt).is_none() {
                attempt.keep[index] = false;
            }
        }
    }

    /// The window on the root bus that `window` is in.
    fn root_window(&self, mut window: Option<usize>) -> Option<usize> {
        while let Some(above) = window.and_then(|window| self.windows[window].parent) {
            window = Some(above);
        }
        window
    }
}

/// The requests that are to be placed.
fn kept(attempt: &Attempt) -> Vec<usize> {
    let all = 0..attempt.requests.len();
    all.filter(|&index| attempt.keep[index]).collect()
}
