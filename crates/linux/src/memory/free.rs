//! Free memory, as plain half-open intervals.

use alloc::vec::Vec;

/// An interval of addresses: first, and the one after the last.
pub(super) type Span = (u64, u64);

/// Which end of the free memory to prefer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Low,
    High,
}

/// Free intervals, ascending, none empty, none touching another.
#[derive(Clone, Debug, Default)]
pub(super) struct FreeRanges {
    spans: Vec<Span>,
}

impl FreeRanges {
    /// The union of `spans`.
    pub(super) fn new(spans: impl Iterator<Item = Span>) -> Self {
        let mut sorted: Vec<Span> = spans.filter(|span| span.0 < span.1).collect();
        sorted.sort_unstable();
        let mut merged: Vec<Span> = Vec::with_capacity(sorted.len());
        for span in sorted {
            match merged.last_mut() {
                Some(last) if span.0 <= last.1 => last.1 = last.1.max(span.1),
                _ => merged.push(span),
            }
        }
        Self { spans: merged }
    }

    /// Bytes in all.
    pub(super) fn total(&self) -> u64 {
        self.spans.iter().map(|span| span.1 - span.0).sum()
    }

    /// Takes `hole` away.
    pub(super) fn remove(&mut self, hole: Span) {
        if hole.0 >= hole.1 {
            return;
        }
        let mut rest = Vec::with_capacity(self.spans.len() + 1);
        for &(start, end) in &self.spans {
            for piece in [(start, end.min(hole.0)), (start.max(hole.1), end)] {
                if piece.0 < piece.1 {
                    rest.push(piece);
                }
            }
        }
        self.spans = rest;
    }

    /// An aligned place of `size` bytes within `window`.
    pub(super) fn find(&self, size: u64, align: u64, window: Span, from: From) -> Option<u64> {
        let fit = |span: &Span| fit(*span, size, align, window, from);
        match from {
            From::Low => self.spans.iter().find_map(fit),
            From::High => self.spans.iter().rev().find_map(fit),
        }
    }

    /// The lowest and highest aligned place of `size` bytes in each free
    /// interval within `window`, from high to low.
    pub(super) fn candidates(&self, size: u64, align: u64, window: Span) -> Vec<u64> {
        let mut places: Vec<u64> = self
            .spans
            .iter()
            .rev()
            .flat_map(|span| {
                [From::High, From::Low].map(|from| fit(*span, size, align, window, from))
            })
            .flatten()
            .collect();
        places.dedup();
        places
    }

    /// The largest number of bytes, in steps of `align`, that has an aligned
    /// place within `window`.
    pub(super) fn largest(&self, align: u64, window: Span) -> u64 {
        let sizes = self.spans.iter().filter_map(|&(start, end)| {
            let start = start.max(window.0).checked_next_multiple_of(align)?;
            Some(end.min(window.1).checked_sub(start)? / align * align)
        });
        sizes.max().unwrap_or(0)
    }
}

fn fit(span: Span, size: u64, align: u64, window: Span, from: From) -> Option<u64> {
    let (start, end) = (span.0.max(window.0), span.1.min(window.1));
    let lowest = start.checked_next_multiple_of(align)?;
    let highest = end.checked_sub(size)? / align * align;
    if lowest > highest {
        return None;
    }
    Some(match from {
        From::Low => lowest,
        From::High => highest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn removing_splits_and_finding_respects_alignment_and_window() {
        let mut free = FreeRanges::new([(0x1000, 0x5000), (0x5000, 0x9000), (7, 7)].into_iter());
        assert_eq!(free.spans, vec![(0x1000, 0x9000)]);
        free.remove((0x3000, 0x4800));
        assert_eq!(free.spans, vec![(0x1000, 0x3000), (0x4800, 0x9000)]);
        let all = (0, u64::MAX);
        assert_eq!(free.find(0x1000, 0x2000, all, From::Low), Some(0x2000));
        assert_eq!(free.find(0x1000, 0x2000, all, From::High), Some(0x8000));
        assert_eq!(free.find(0x4800, 1, all, From::Low), Some(0x4800));
        assert_eq!(free.find(0x4801, 1, all, From::Low), None);
        assert_eq!(free.find(0x1000, 0x1000, (0x2800, 0x5800), From::Low), None);
        assert_eq!(free.largest(0x1000, all), 0x4000);
        assert_eq!(
            free.candidates(0x1000, 0x1000, (0, 0x3000)),
            [0x2000, 0x1000]
        );
    }
}
