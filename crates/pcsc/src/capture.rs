//! Reads what is cacheable and not cached yet, and checks what is.

use alloc::vec::Vec;

use super::config_cache::ConfigCache;
use super::function_cache::{FunctionCache, State};
use warmbus_pci::{ConfigAccess, ConfigOffset, ConfigRead, Sbdf, Width};

/// A cached byte that the hardware no longer returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The function.
    pub function: Sbdf,
    /// Offset of the byte.
    pub offset: ConfigOffset,
    /// What is cached.
    pub cached: u8,
    /// What the hardware returns.
    pub hardware: u8,
}

/// Result of comparing the cache with the hardware.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelfCheck {
    /// Bytes that were compared.
    pub bytes: u64,
    /// Hardware reads that it took.
    pub reads: u64,
    /// Bytes that differ.
    pub differences: Vec<Difference>,
}

/// Reads that the capture of a function takes.
const SOME_READS: usize = 16;

impl<A: ConfigAccess> ConfigCache<A> {
    /// The reads that [`Self::capture`] would make of `function`, in its order.
    pub fn missing_reads(&self, function: Sbdf) -> Vec<ConfigRead> {
        let Some(block) = self.blocks.get(function) else {
            return Vec::new();
        };
        let mut plan = ReadPlan {
            block,
            wanted: |byte| block.is_cacheable(byte) && !block.is_cached(byte),
            narrowest: self.access.narrowest_read(function),
            is_halved: false,
            reads: Vec::with_capacity(SOME_READS),
        };
        // The walk of the lists has read most of them.
        let missing = |dword: &ConfigOffset| block.dword(dword.get()).is_none();
        for dword in block.cacheable_dwords().filter(missing) {
            plan.add(dword.get(), Width::Dword);
        }
        let read = |(offset, width)| ConfigRead {
            function,
            offset,
            width,
        };
        plan.reads.into_iter().map(read).collect()
    }

    /// Reads every cacheable byte of `function` that is not cached yet: one
    /// hardware read a dword wherever all of it may be read, and none that
    /// touches a byte which must not be. Where such a byte is in a dword and the
    /// host bridge performs no narrower reads, the dword stays uncached.
    pub fn capture(&mut self, function: Sbdf) {
        self.confirm_ready(function);
        for missing in self.missing_reads(function) {
            // A function that stops answering is forgotten on the way.
            let is_ready = self
                .blocks
                .get(function)
                .is_some_and(|block| block.state == State::Ready);
            if !is_ready {
                return;
            }
            self.read(function, missing.offset, missing.width);
        }
    }

    /// Compares every cached byte with a fresh read from the hardware. The
    /// cache and its statistics stay as they are.
    ///
    /// Where the host bridge performs narrow reads, each of these is narrower
    /// than the one that filled the cache, so that a host bridge which returns
    /// something else for one of the two is noticed.
    pub fn self_check(&mut self) -> SelfCheck {
        let mut result = SelfCheck::default();
        let answering = self
            .blocks
            .range(..)
            .filter(|(_, block)| !block.is_disabled());
        for (function, block) in answering {
            let mut plan = ReadPlan {
                block,
                wanted: |byte| block.is_cached(byte),
                narrowest: self.access.narrowest_read(function),
                is_halved: true,
                reads: Vec::new(),
            };
            for dword in (0..block.size()).step_by(4) {
                plan.add(dword, Width::Dword);
            }
            for (start, width) in plan.reads {
                let value = self.access.read(function, start, width);
                result.reads += 1;
                for lane in 0..width.bytes() {
                    let offset = start.wrapping_add(lane);
                    if !block.is_cached(offset) {
                        continue;
                    }
                    result.bytes += 1;
                    let hardware = (value >> (8 * lane)) as u8;
                    let cached = block.data()[offset.index()];
                    if cached != hardware {
                        result.differences.push(Difference {
                            function,
                            offset,
                            cached,
                            hardware,
                        });
                    }
                }
            }
        }
        result
    }
}

/// Reads that return the `wanted` bytes of a function.
struct ReadPlan<'a, W> {
    block: &'a FunctionCache,
    wanted: W,
    /// The narrowest read that reaches the function as it is made.
    narrowest: Width,
    /// Each read is to be half as wide as it could be.
    is_halved: bool,
    reads: Vec<(ConfigOffset, Width)>,
}

impl<W: Fn(ConfigOffset) -> bool> ReadPlan<'_, W> {
    /// Adds what reads the bytes of `width` at `start`: one read, unless a byte
    /// between them must not be read.
    fn add(&mut self, start: u16, width: Width) {
        if !self.needs(start, width) {
            return;
        }
        let is_readable = self.block.is_readable(ConfigOffset::wrapping(start), width);
        let half = match width {
            Width::Dword => Some(Width::Word),
            Width::Word => Some(Width::Byte),
            Width::Byte => None,
        };
        let Some(half) = half.filter(|&half| half >= self.narrowest) else {
            if is_readable {
                self.reads.push((ConfigOffset::wrapping(start), width));
            }
            return;
        };
        let halves = [start, start + half.bytes()];
        if !is_readable {
            for start in halves {
                self.add(start, half);
            }
        } else if self.is_halved {
            for start in halves {
                if self.needs(start, half) {
                    self.reads.push((ConfigOffset::wrapping(start), half));
                }
            }
        } else {
            self.reads.push((ConfigOffset::wrapping(start), width));
        }
    }

    fn needs(&self, start: u16, width: Width) -> bool {
        bytes(start, width).any(&self.wanted)
    }
}

fn bytes(start: u16, width: Width) -> impl Iterator<Item = ConfigOffset> {
    (start..start + width.bytes()).map(ConfigOffset::wrapping)
}
