//! The size of the scratch memory.
//!
//! Early Linux allocates from scratch memory only: its page structures, page
//! tables, hash tables, bounce buffers, per-CPU areas. With too little it stops
//! before its console works; with too much, other allocations fail, because
//! scratch memory later serves movable allocations only.

use warmbus_memory::PageSize;

use super::scratch_needs::ScratchNeeds;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Alignment of address and size of a scratch area: the largest block that the
/// page allocator of any supported version handles as one.
pub(super) const fn alignment(page_size: PageSize) -> u64 {
    page_size.bytes() << page_size.max_order()
}

/// Bytes that a machine needs whatever its memory, before the margin and
/// rounding.
/// `bounce_buffers`: there is RAM that not every device reaches.
pub(super) fn fixed(needs: &ScratchNeeds, page_size: PageSize, bounce_buffers: bool) -> u64 {
    let kfence = if page_size == PageSize::K64 { 32 } else { 0 };
    let bounce = if bounce_buffers { 64 } else { 4 };
    let base = (16 + kfence + bounce) * MIB;
    let configured = needs.cma.saturating_add(needs.crash_kernel);
    base.saturating_add(configured)
        .saturating_add(u64::from(needs.cpus) * MIB / 2)
}

/// Bytes that `span` bytes of memory need, before the margin and rounding: page
/// structures, page tables and hash tables, 19.5, 6 or 2.7 MiB for each GiB.
pub(super) fn proportional(span: u64, page_size: PageSize) -> u64 {
    let tenths_of_mib = match page_size {
        PageSize::K4 => 195,
        PageSize::K16 => 60,
        PageSize::K64 => 27,
    };
    span.div_ceil(GIB / 1024) * tenths_of_mib * (MIB / 1024) / 10
}

/// Half as much again: what was measured are the needs of a small kernel.
pub(super) const MARGIN: u32 = 150;

/// `percent` of `bytes`.
pub(super) const fn scaled(bytes: u64, percent: u32) -> u64 {
    let percent = percent as u64;
    (bytes / 100)
        .saturating_mul(percent)
        .saturating_add(bytes % 100 * percent / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alignments_are_those_of_the_largest_page_blocks() {
        assert_eq!(PageSize::ALL.map(alignment), [4 * MIB, 32 * MIB, 512 * MIB]);
    }

    #[test]
    fn sizes_follow_the_formula_for_4_gib_with_4k_pages() {
        let needs = ScratchNeeds {
            cpus: 4,
            cma: 32 * MIB,
            ..ScratchNeeds::default()
        };
        // 1.5 * (19.5 * 4 + 64 + 32 + 0.5 * 4 + 16) MiB
        let total = fixed(&needs, PageSize::K4, true) + proportional(4 * GIB, PageSize::K4);
        assert_eq!(scaled(total, MARGIN), 288 * MIB);
        assert_eq!(scaled(333, 150), 499);
        assert_eq!(scaled(u64::MAX, u32::MAX), u64::MAX);
    }
}
