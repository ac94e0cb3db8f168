//! What is known about each byte of a function's configuration space.

use alloc::boxed::Box;
use alloc::vec::Vec;

use warmbus_pci::{ConfigOffset, Width};

/// How a byte of configuration space behaves, which decides what a cache may
/// do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteClass {
    /// Nothing names it: passed through, never read on the cache's own
    /// initiative. A write to it may change anything in the function.
    Unknown,
    /// A constant of the function.
    Static,
    /// Changes only because software wrote it, at once, or by a reset.
    Software,
    /// Changes on its own. Reading it does no harm, keeping it does.
    Volatile,
    /// Reading it has an effect: never read on the cache's own initiative.
    SideEffect,
    /// Named, but not worth or not safe keeping: passed through.
    PassThrough,
}

impl ByteClass {
    /// Whether the cache may keep the byte.
    #[must_use]
    pub const fn is_cacheable(self) -> bool {
        matches!(self, Self::Static | Self::Software)
    }

    /// Whether the cache may read the byte without being asked.
    #[must_use]
    pub const fn is_readable(self) -> bool {
        matches!(self, Self::Static | Self::Software | Self::Volatile)
    }
}

/// The event beside writes and resets that makes a kept byte stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidatedBy {
    /// None.
    None,
    /// The number of interrupt messages changed (Interrupt Message Number).
    Messages,
    /// Common Clock Configuration changed (exit latencies).
    CommonClock,
    /// The link left or entered `DL_Up`.
    Link,
    /// NumVFs, VF Enable or ARI changed (VF offset and stride).
    VfRouting,
    /// System Page Size or the VF BAR size changed (VF BARs).
    VfPageSize,
    /// Not an event but a condition: Expansion ROM Validation moves the upper
    /// seven bits on its own, so that a byte with any of them set is not kept.
    RomValidation,
}

/// What a write to a byte does beyond changing that byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteEffect {
    /// Nothing.
    None,
    /// Start of the built-in self test.
    Bist,
    /// Primary, secondary and subordinate bus number of a bridge.
    BusNumbers,
    /// Bridge Control: secondary bus reset.
    BridgeControl,
    /// Power Management Control/Status: power state.
    PowerState,
    /// MSI or MSI-X Message Control.
    MessageControl,
    /// Advanced Features control: function level reset.
    AdvancedFeatures,
    /// Device Control: function level reset.
    DeviceControl,
    /// Link Control: common clock, retrain, link disable.
    LinkControl,
    /// Slot Control: power, and a command that takes its time.
    SlotControl,
    /// Device Control 2: ARI forwarding.
    DeviceControl2,
    /// SR-IOV Control: VF Enable, ARI capable hierarchy.
    SrIovControl,
    /// NumVFs.
    NumVfs,
    /// System Page Size or VF Resizable BAR.
    VfPageSize,
    /// Resizable BAR control.
    ResizableBar,
    /// DPC Control: software trigger.
    DpcControl,
    /// Moves other registers or the routing of the functions below.
    Rerouting,
    /// Locks or hides registers of this function.
    Locking,
    /// CXL Control 2: CXL reset of all functions of the device.
    CxlControl2,
}

/// Class, tag and effect of one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ByteRule {
    /// How it behaves.
    pub(super) class: ByteClass,
    /// What else makes it stale.
    pub(super) tag: InvalidatedBy,
    /// What writing it does.
    pub(super) effect: WriteEffect,
}

impl ByteRule {
    /// Whether no write changes the byte, neither to it nor to another register.
    pub(super) fn is_constant(self) -> bool {
        self.class == ByteClass::Static && self.tag == InvalidatedBy::None
    }

    /// A number that is that of no other rule.
    const fn key(self) -> u32 {
        self.class as u32 | (self.tag as u32) << 8 | (self.effect as u32) << 16
    }

    /// A byte that nothing names.
    pub(super) const UNKNOWN: Self = Self::of(ByteClass::Unknown);

    /// A byte of `class` without tag and effect.
    #[must_use]
    pub(super) const fn of(class: ByteClass) -> Self {
        Self {
            class,
            tag: InvalidatedBy::None,
            effect: WriteEffect::None,
        }
    }
}

/// Bytes of a line of a [`ByteRuleMap`].
const LINE: usize = 64;

/// The cells of a configuration space while structure after structure is painted
/// into it. Nothing names most of a space, of which there are no lines.
pub(super) struct ByteRuleMap {
    size: u16,
    /// The place of each line of the space in `lines`, plus 1.
    places: [u8; ConfigOffset::END as usize / LINE],
    /// For each byte the place of its rule in `rules`.
    lines: Vec<[u8; LINE]>,
    /// All rules of the space, after [`ByteRule::UNKNOWN`] in the order in which
    /// they were needed, each behind its key. A function has some dozens.
    rules: Vec<(u32, ByteRule)>,
}

impl ByteRuleMap {
    /// A space of `size` bytes, 256 or 4096, of which nothing is known.
    #[must_use]
    pub(super) fn new(size: u16) -> Self {
        let mut rules = Vec::with_capacity(16);
        rules.push((ByteRule::UNKNOWN.key(), ByteRule::UNKNOWN));
        Self {
            size,
            places: [0; ConfigOffset::END as usize / LINE],
            lines: Vec::with_capacity(usize::from(size) / LINE / 8),
            rules,
        }
    }

    /// Bytes of the space.
    #[must_use]
    pub(super) const fn size(&self) -> u16 {
        self.size
    }

    /// Makes `cell` of all bytes from `first` up to before `end` that the space
    /// has.
    pub(super) fn set_range(&mut self, first: u16, end: u16, cell: ByteRule) {
        let rule = self.rule(cell);
        let end = usize::from(end.min(self.size));
        let mut at = usize::from(first);
        while at < end {
            let stop = end.min((at / LINE + 1) * LINE);
            let length = stop - at;
            let start = at % LINE;
            self.line(at / LINE)[start..start + length].fill(rule);
            at = stop;
        }
    }

    /// The place of `cell` among the rules.
    fn rule(&mut self, cell: ByteRule) -> u8 {
        let key = cell.key();
        let known = self.rules.iter().position(|(known, _)| *known == key);
        let place = known.unwrap_or_else(|| {
            self.rules.push((key, cell));
            self.rules.len() - 1
        });
        // There are fewer rules in all tables. Of one too many nothing would be
        // known, which is always true.
        u8::try_from(place).unwrap_or(0)
    }

    fn line(&mut self, number: usize) -> &mut [u8; LINE] {
        let place = &mut self.places[number];
        if *place == 0 {
            self.lines.push([0; LINE]);
            // There are at most 64.
            *place = self.lines.len() as u8;
        }
        &mut self.lines[usize::from(*place) - 1]
    }

    /// The cells as runs of equal ones.
    #[must_use]
    pub(super) fn compress(&self) -> ClassMap {
        let mut runs: Vec<Run> = Vec::with_capacity(32);
        let mut last = None;
        let mut add = |start, rule: u8| {
            if last != Some(rule) {
                let (_, cell) = self.rules[usize::from(rule)];
                runs.push(Run { start, cell });
                last = Some(rule);
            }
        };
        let mut start = 0;
        while start < self.size {
            match self.places[usize::from(start) / LINE] {
                0 => add(start, 0),
                place => {
                    let mut at = start;
                    for rules in self.lines[usize::from(place) - 1].chunk_by(u8::eq) {
                        add(at, rules[0]);
                        at += rules.len() as u16;
                    }
                }
            }
            start += LINE as u16;
        }
        ClassMap {
            runs: runs.into_boxed_slice(),
        }
    }
}

/// The first byte of a run of equal bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    start: u16,
    cell: ByteRule,
}

/// The cells of a whole configuration space, as runs of equal bytes: a
/// function has some dozens of registers, not thousands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ClassMap {
    /// Sorted by start; the first starts at 0.
    runs: Box<[Run]>,
}

/// The cells of every conventional header that is not known yet (PCIe 7.5.1.1).
const HEADER: [Run; 7] = {
    const fn run(start: u16, class: ByteClass) -> Run {
        let cell = ByteRule::of(class);
        Run { start, cell }
    }
    [
        run(0, ByteClass::Static),
        // COMMAND; STATUS changes by itself.
        run(4, ByteClass::Software),
        run(6, ByteClass::Unknown),
        run(8, ByteClass::Static),
        // Cache Line Size and Latency Timer.
        run(0xc, ByteClass::Software),
        run(0xe, ByteClass::Static),
        run(0xf, ByteClass::Unknown),
    ]
};

impl ClassMap {
    /// What holds for every header.
    pub(super) fn of_any_header() -> Self {
        Self {
            runs: Box::from(HEADER),
        }
    }

    /// The cell of the byte at `offset`.
    #[must_use]
    pub(super) fn cell(&self, offset: ConfigOffset) -> ByteRule {
        let after = self.runs.partition_point(|run| run.start <= offset.get());
        after
            .checked_sub(1)
            .map_or(ByteRule::UNKNOWN, |index| self.runs[index].cell)
    }

    /// Whether every byte of `width` at `offset`, not beyond the end of the
    /// space, has a cell that `matches`.
    pub(super) fn all(
        &self,
        offset: ConfigOffset,
        width: Width,
        matches: impl Fn(ByteRule) -> bool,
    ) -> bool {
        let end = offset.get() + width.bytes();
        let after = self.runs.partition_point(|run| run.start <= offset.get());
        let from = &self.runs[after.saturating_sub(1)..];
        let runs = from.iter().take_while(|run| run.start < end);
        after > 0 && runs.map(|run| run.cell).all(matches)
    }

    /// The runs of equal cells as (first byte, first byte after, cell), up to
    /// the offset `end`.
    pub(super) fn runs(&self, end: u16) -> impl Iterator<Item = (u16, u16, ByteRule)> + '_ {
        self.runs.iter().enumerate().map(move |(index, run)| {
            let next = self.runs.get(index + 1).map_or(end, |next| next.start);
            (run.start, next, run.cell)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_map_answers_as_it_was_painted() {
        let [constant, volatile] = [ByteClass::Static, ByteClass::Volatile].map(ByteRule::of);
        // Over the end of a line, over each other, and past the end of the space.
        let strokes = [(4, 6, constant), (60, 200, volatile), (100, 101, constant)];
        for size in [256, 4096] {
            let mut rule_map = ByteRuleMap::new(size);
            let mut cells = alloc::vec![ByteRule::UNKNOWN; usize::from(size)];
            for (first, end, cell) in strokes {
                rule_map.set_range(first, end, cell);
                cells[usize::from(first)..usize::from(end)].fill(cell);
            }
            rule_map.set_range(size - 1, u16::MAX, constant);
            cells[usize::from(size) - 1] = constant;
            let map = rule_map.compress();
            for (offset, cell) in (0..).zip(&cells) {
                assert_eq!(map.cell(ConfigOffset::wrapping(offset)), *cell);
                for width in [Width::Byte, Width::Word, Width::Dword] {
                    let bytes = usize::from(offset)..usize::from(offset + width.bytes());
                    let Some(bytes) = cells.get(bytes) else {
                        continue;
                    };
                    let place = ConfigOffset::wrapping(offset);
                    let are_all = map.all(place, width, |cell| cell == constant);
                    assert_eq!(are_all, bytes.iter().all(|cell| *cell == constant));
                }
            }
            let runs: Vec<_> = map.runs(size).map(|(start, end, _)| (start, end)).collect();
            let ends = [0, 4, 6, 60, 100, 101, 200, size - 1, size];
            let expected: Vec<_> = ends.windows(2).map(|pair| (pair[0], pair[1])).collect();
            assert_eq!(runs, expected);
        }
    }
}
