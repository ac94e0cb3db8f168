//! Which scratch areas a handover may have.

use alloc::vec::Vec;

use warmbus_memory::{ADDRESS_END, MemoryRange, PageSize, RamRegion};

use super::error::PlanError;
use super::scratch_needs::{GiganticPages, ScratchNeeds, ScratchRequest};
use super::windows::{ALL, LOW, addressable};
use super::{HandoverNeeds, LOW_MEMORY_END, scratch};

/// Most areas for gigantic pages of one size; more pages are in one area.
const MAX_SINGLE_PAGES: u64 = 16;

/// A scratch area that is to be placed.
#[derive(Clone)]
pub(super) struct ScratchArea {
    /// Bytes.
    pub(super) size: u64,
    /// The alignment of its address.
    pub(super) align: u64,
    /// It has to be in one of these.
    pub(super) windows: Vec<MemoryRange>,
}

/// The scratch areas that a machine with `ram`, of `ram_bytes` in all, may have
/// for `handover`: all choices, the best first.
pub(super) fn choices(
    ram: &[RamRegion],
    ram_bytes: u64,
    handover: &HandoverNeeds,
) -> Result<Vec<Vec<ScratchArea>>, PlanError> {
    let page_size = handover.page_size;
    let align = scratch::alignment(page_size);
    let round = |bytes: u64| bytes.clamp(1, ADDRESS_END).next_multiple_of(align);
    let high = ram
        .iter()
        .any(|region| addressable(region.range).end() > LOW_MEMORY_END);
    let has_low = ram
        .iter()
        .any(|region| region.range.start.0 < LOW_MEMORY_END);
    let low = if has_low { LOW } else { ALL };
    let needs = &handover.scratch;
    // A percentage below what was measured would end before the console works.
    let percent = match needs.requested {
        ScratchRequest::Percent(percent) => percent.max(100),
        ScratchRequest::Sizes { .. } => 100,
        ScratchRequest::Default => scratch::MARGIN,
    };
    let scaled = |bytes| scratch::scaled(bytes, percent);
    let mut fixed = scaled(scratch::fixed(needs, page_size, high));

    let mut nodes: Vec<(u32, u64, Vec<MemoryRange>)> = Vec::new();
    for region in ram {
        let window = addressable(region.range);
        let need = scaled(scratch::proportional(
            sections(window, page_size),
            page_size,
        ));
        match nodes.iter_mut().find(|node| node.0 == region.node) {
            Some((_, total, windows)) => {
                *total += need;
                windows.push(window);
            }
            None => nodes.push((region.node, need, alloc::vec![window])),
        }
    }
    let mut proportional: u64 = nodes.iter().map(|node| node.1).sum();
    if let ScratchRequest::Sizes {
        low,
        global,
        per_node,
    } = needs.requested
    {
        fixed = fixed.max(low);
        let of_nodes = per_node.saturating_mul(nodes.len() as u64);
        proportional = proportional.max(global.saturating_add(of_nodes));
        let share = global / nodes.len().max(1) as u64;
        for (_, need, _) in &mut nodes {
            *need = (*need).max(per_node.saturating_add(share));
        }
    }
    let total = round(fixed.saturating_add(proportional));
    // Gigantic pages are memory of the user, not of the kernel.
    let of_pages = needs.gigantic.iter().map(|pages| pages.bytes);
    let rest = ram_bytes.saturating_sub(of_pages.fold(0, u64::saturating_add));
    if total > rest / 2 {
        return Err(PlanError::ScratchTooLarge {
            size: total,
            align,
            ram: rest,
        });
    }

    let anywhere = |bytes: u64, window: MemoryRange| ScratchArea {
        size: round(bytes),
        align,
        windows: alloc::vec![window],
    };
    let one = alloc::vec![anywhere(total, low)];
    let two = alloc::vec![anywhere(fixed, low), anywhere(proportional, ALL)];
    let several = nodes.len() > 1;
    let per_node = core::iter::once(anywhere(fixed, low))
        .chain(nodes.into_iter().map(|(_, need, windows)| ScratchArea {
            size: round(need),
            align,
            windows,
        }))
        .collect::<Vec<_>>();
    let low_ram: u64 = ram
        .iter()
        .map(|region| addressable(region.range).intersection(low).size)
        .sum();
    // The kernel cannot allocate from scratch memory for its own use: it needs
    // the rest of the low memory, of which there may be little.
    let mut choices = Vec::new();
    if several {
        choices.push(per_node);
    }
    if total <= low_ram / 2 {
        choices.push(one);
        choices.push(two);
    } else {
        choices.push(two);
        choices.push(one);
    }
    // Rounding each area up may have made them too many.
    choices.retain(|areas| areas.iter().map(|area| area.size).sum::<u64>() <= rest / 2);
    Ok(choices)
}

/// The areas for the gigantic pages of `needs`, which come after all others:
/// one for each page, or one for all where they are many.
pub(super) fn gigantic_areas(needs: &ScratchNeeds) -> Vec<ScratchArea> {
    needs
        .gigantic
        .iter()
        .flat_map(|&pages| gigantic(pages))
        .collect()
}

fn gigantic(pages: GiganticPages) -> Vec<ScratchArea> {
    let GiganticPages { page, bytes } = pages;
    let (size, count) = match bytes.checked_div(page) {
        None => (0, 0),
        Some(count @ 0..=MAX_SINGLE_PAGES) => (page, count),
        Some(_) => (bytes, 1),
    };
    let area = ScratchArea {
        size,
        align: page,
        windows: alloc::vec![ALL],
    };
    alloc::vec![area; count as usize]
}

/// Bytes of the memory sections that `window` touches: Linux allocates page
/// structures for whole sections.
fn sections(window: MemoryRange, page_size: PageSize) -> u64 {
    let section: u64 = match page_size {
        PageSize::K4 | PageSize::K16 => 128 << 20,
        PageSize::K64 => 512 << 20,
    };
    window.touched_pages(section).size
}
