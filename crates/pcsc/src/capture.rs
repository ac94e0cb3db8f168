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

impl<A: ConfigAccess> ConfigCache<A> {
    /// The reads that [`Self::capture`] would make of `function`, in its order.
    pub fn missing_reads(&self, function: Sbdf) -> Vec<ConfigRead> {
        let Some(block) = self.blocks.get(function) else {
            return Vec::new();
        };
        let mut accesses = Vec::new();
        for dword in block.cacheable_dwords() {
            plan(block, dword.get(), &mut accesses, |byte| {
                block.is_cacheable(byte) && !block.is_cached(byte)
            });
        }
        let read = |(offset, width)| ConfigRead {
            function,
            offset,
            width,
        };
        accesses.into_iter().map(read).collect()
    }

    /// Reads every cacheable byte of `function` that is not cached yet: one
    /// hardware read a dword, none that touches a byte which must not be read.
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
    pub fn self_check(&mut self) -> SelfCheck {
        let mut result = SelfCheck::default();
        let answering = self
            .blocks
            .range(..)
            .filter(|(_, block)| !block.is_disabled());
        for (function, block) in answering {
            let mut accesses = Vec::new();
            for dword in (0..block.size()).step_by(4) {
                plan(block, dword, &mut accesses, |byte| block.is_cached(byte));
            }
            for (start, width) in accesses {
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

/// Adds to `accesses` what reads the `wanted` bytes of one dword: a single
/// access, unless a byte between them must not be read.
fn plan(
    block: &FunctionCache,
    dword: u16,
    accesses: &mut Vec<(ConfigOffset, Width)>,
    wanted: impl Fn(ConfigOffset) -> bool,
) {
    let span =
        |start: u16, width: Width| (start..start + width.bytes()).map(ConfigOffset::wrapping);
    let needs = |start, width| span(start, width).any(&wanted);
    let is_readable =
        |start, width| span(start, width).all(|byte| block.cell(byte).class.is_readable());
    if !needs(dword, Width::Dword) {
        return;
    }
    let halves = [dword, dword + 2].map(|half| needs(half, Width::Word));
    // Constant bits of a status register come with the same read.
    let is_whole = halves == [true, true] || halves[0] && block.misses_constant_bits(dword);
    if is_whole && is_readable(dword, Width::Dword) {
        accesses.push((ConfigOffset::wrapping(dword), Width::Dword));
        return;
    }
    for (half, _) in [dword, dword + 2]
        .into_iter()
        .zip(halves)
        .filter(|(_, is_needed)| *is_needed)
    {
        let bytes = [half, half + 1].map(|byte| needs(byte, Width::Byte));
        if bytes == [true, true] && is_readable(half, Width::Word) {
            accesses.push((ConfigOffset::wrapping(half), Width::Word));
            continue;
        }
        for (byte, _) in [half, half + 1]
            .into_iter()
            .zip(bytes)
            .filter(|(_, is_needed)| *is_needed)
        {
            accesses.push((ConfigOffset::wrapping(byte), Width::Byte));
        }
    }
}
