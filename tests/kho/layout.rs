//! What fits into a handover, to the last function, entry and page.

use warmbus_kho::preserved_map::{Preserved, split};
use warmbus_kho::{InheritedState, KhoAbi, Subtree};
use warmbus_memory::{PageSize, PhysAddr, PhysMemoryWrite};
use warmbus_pci::Sbdf;
use warmbus_pcsc_format::{
    BuildError, FunctionRecord, Handover, Layout, LayoutError, Placement, build, build_inheriting,
};

use crate::common::SCRATCH;
use crate::damaged::kinds;
use crate::map::MapPages;

const GIB: u64 = 1 << 30;

/// Memory that keeps nothing.
struct Nowhere;

impl PhysMemoryWrite for Nowhere {
    fn write(&mut self, _: PhysAddr, _: &[u8]) {}
    fn zero(&mut self, _: PhysAddr, _: u64) {}
}

fn block(number: usize) -> FunctionRecord<'static> {
    FunctionRecord {
        sbdf: Sbdf::from_routing_id((number >> 16) as u16, number as u16),
        config_address: None,
        size: 256,
        data: &[0; 64],
        cacheable: &[0; 8],
        cached: &[0; 8],
        masks: &[],
        capabilities: &[],
        capabilities_complete: true,
        routing: &[],
        virtual_function: None,
    }
}

/// Builds what `layout` is for at `arena`, upon `inherited`.
fn built(
    layout: &Layout,
    arena: u64,
    inherited: InheritedState<'_>,
) -> Result<Handover, BuildError> {
    let blocks: Vec<_> = (0..layout.functions() as usize).map(block).collect();
    let placement = Placement {
        arena: PhysAddr(arena),
        scratch: &SCRATCH,
        generation: 1,
    };
    build_inheriting(layout, &placement, inherited, &blocks, &mut Nowhere)
}

/// The most functions that fit.
fn most(abi: KhoAbi, page_size: PageSize) -> usize {
    let (mut fits, mut refused) = (0, 1 << 20);
    while fits + 1 < refused {
        let middle = usize::midpoint(fits, refused);
        match Layout::new(middle, abi, page_size) {
            Ok(_) => fits = middle,
            Err(error) => {
                assert_eq!(error, LayoutError { functions: middle });
                refused = middle;
            }
        }
    }
    fits
}

#[test]
fn a_subtree_is_one_folio_that_linux_can_restore() {
    // MAX_PAGE_ORDER of Linux for each page size.
    for (page_size, max_order) in PageSize::ALL.into_iter().zip([10, 11, 13]) {
        for abi in KhoAbi::ALL {
            let largest = page_size.bytes() << max_order;
            let most = most(abi, page_size);
            let layout = Layout::new(most, abi, page_size).unwrap();
            assert!(layout.align() <= largest, "{abi} {page_size}: {most}");
            // With pages of 4 KiB it is the subtree that is too large first.
            if page_size == PageSize::K4 {
                assert_eq!(layout.align(), 4 << 20);
                assert!(layout.size() < GIB - (256 << 20));
                assert_eq!(most, ((4 << 20) - 512) / 48);
            }
        }
    }
}

#[test]
fn an_arena_takes_no_more_than_a_gib() {
    for abi in KhoAbi::ALL {
        for page_size in [PageSize::K16, PageSize::K64] {
            let most = most(abi, page_size);
            let layout = Layout::new(most, abi, page_size).unwrap();
            // One more takes one more run of pages, and little for its map.
            let one = layout.block_stride();
            assert!(layout.size() <= GIB);
            assert!(layout.size() + 2 * one > GIB, "{abi} {page_size}");
        }
    }
    let error = Layout::new(1 << 17, KhoAbi::V1, PageSize::K64).unwrap_err();
    assert_eq!(
        error.to_string(),
        "131072 functions are more than the 1024 MiB of one handover can carry"
    );
}

#[test]
fn what_is_inherited_fits_into_the_arena_too() {
    let page_size = PageSize::K64;
    let page = page_size.bytes();
    let functions = most(KhoAbi::V4, page_size) - 100;
    let layout = Layout::new(functions, KhoAbi::V4, page_size).unwrap();
    let left = (GIB - layout.size()) / page;
    assert!(left >= 100);
    // A leaf of the map is for 32 GiB of single pages, a table above it for
    // 8192 leaves: so many entries take one table more each.
    let far: Vec<_> = (0..left)
        .map(|number| Preserved {
            order: 0,
            address: PhysAddr(number << 35),
        })
        .collect();
    let with = |count: usize| {
        let inherited = InheritedState {
            subtrees: &[],
            entries: &far[..count],
        };
        layout.clone().with_inherited(inherited)
    };
    // The root page and the table above the leaves are shared.
    let most = (0..far.len()).rfind(|count| with(*count).is_ok()).unwrap();
    let largest = with(most).unwrap();
    assert_eq!(largest.size(), GIB);
    assert_eq!(with(most + 1), Err(LayoutError { functions }));
    assert!(most as u64 >= left - 8);

    let inherited = InheritedState {
        subtrees: &[],
        entries: &far[..most],
    };
    built(&largest, 0x4000_0000, inherited).unwrap();
    assert_eq!(
        built(&layout, 0x4000_0000, inherited),
        Err(BuildError::Handover(warmbus_kho::BuildError::MapTooLarge {
            pages: (layout.size() - map_at(&layout)) / page
        }))
    );
}

#[test]
fn room_for_what_is_inherited_is_that_of_a_map_of_its_own() {
    for page_size in PageSize::ALL {
        let layout = Layout::new(9, KhoAbi::V4, page_size).unwrap();
        let page = page_size.bytes();
        // Side by side, in two leaves, in two tables of each level, and of
        // several orders.
        let leaf = 8 * page * page;
        let near = (0..5).map(|number| (0x8000_0000 + number * page, 0));
        let in_leaves = (0..7).map(|number| (number * leaf, 0));
        let far = (30..52).map(|bit| (1 << bit, 0));
        let orders = (0..10).map(|order| (0x8000_0000 + (page << (order + 1)), order));
        let sets: [Vec<(u64, u32)>; 5] = [
            vec![(0x8000_0000, 0)],
            near.collect(),
            in_leaves.clone().chain(orders.clone()).collect(),
            far.clone().collect(),
            far.chain(in_leaves).chain(orders).collect(),
        ];
        for entries in sets {
            let pages = MapPages::of(KhoAbi::V4, page_size, 0x1_0000_0000, &entries).len();
            let entries: Vec<_> = entries
                .into_iter()
                .map(|(address, order)| Preserved {
                    order,
                    address: PhysAddr(address),
                })
                .collect();
            let inherited = InheritedState {
                subtrees: &[],
                entries: &entries,
            };
            let with = layout.clone().with_inherited(inherited).unwrap();
            assert_eq!(with.size() - layout.size(), pages * page, "{entries:?}");
        }
        let with = layout.clone().with_inherited(InheritedState::default());
        assert_eq!(with.unwrap(), layout);
    }
}

/// Where the map starts in the arena: behind all else and the page of the
/// scratch areas.
fn map_at(layout: &Layout) -> u64 {
    layout.preserved_size() + layout.page_size().bytes()
}

#[test]
fn a_map_has_the_pages_that_it_takes_and_few_more() {
    for (abi, page_size) in kinds() {
        for functions in [0, 1, 9, 100, 4000] {
            let layout = Layout::new(functions, abi, page_size).unwrap();
            let planned = (layout.size() - map_at(&layout)) / page_size.bytes();
            // Wherever it is, also across what a table or a bitmap is for.
            let places = (GIB - layout.size()) / layout.align();
            let mut taken = 0;
            for eighth in 0..=8 {
                let arena = 4 * GIB + places * eighth / 8 * layout.align();
                let handover = built(&layout, arena, InheritedState::default()).unwrap();
                taken = taken.max(handover.kho.map_pages);
            }
            assert!(taken <= planned);
            // At most two spans more for each order and level.
            let orders = 4;
            let levels = if abi.has_radix_tree() { 5 } else { 2 };
            assert!(
                planned <= taken + 2 * orders * levels,
                "{abi} {page_size} {functions}: {planned} pages for {taken}"
            );
        }
    }
}

#[test]
fn a_full_handover_is_written_wherever_its_arena_is() {
    for (abi, page_size) in kinds() {
        // Not more, or this takes minutes.
        let functions = most(abi, page_size).min(20_000);
        let layout = Layout::new(functions, abi, page_size).unwrap();
        let places = (GIB - layout.size()) / layout.align();
        for place in [0, 1, places / 2, places] {
            let arena = 6 * GIB + place.min(places) * layout.align();
            let handover = built(&layout, arena, InheritedState::default()).unwrap();
            assert_eq!(handover.functions, functions);
        }
    }
}

#[test]
fn an_arena_is_aligned_and_in_one_gib() {
    for (abi, page_size) in kinds() {
        let layout = Layout::new(9, abi, page_size).unwrap();
        let last = (GIB - layout.size()) / layout.align() * layout.align();
        for gib in [0, 1, 1000] {
            let base = gib * GIB;
            assert!(built(&layout, base + last, InheritedState::default()).is_ok());
            for arena in [
                base + last + layout.align(),
                base + GIB - layout.align(),
                base + last - layout.align() / 2,
                base + 8,
            ] {
                let error = BuildError::Handover(warmbus_kho::BuildError::Misaligned {
                    arena: PhysAddr(arena),
                    align: layout.align(),
                });
                let refused = built(&layout, arena, InheritedState::default());
                assert_eq!(refused.as_ref(), Err(&error), "{arena:#x}");
                let text = error.to_string();
                assert!(text.contains(&format!("aligned to {:#x}", layout.align())));
                assert!(text.contains(&PhysAddr(arena).to_string()));
            }
        }
        // The last of all addresses, whatever is behind them.
        let arena = u64::MAX - layout.align() + 1;
        assert!(matches!(
            built(&layout, arena, InheritedState::default()),
            Err(BuildError::Handover(
                warmbus_kho::BuildError::Misaligned { .. }
            ))
        ));
    }
    // The whole of a GiB.
    let page_size = PageSize::K64;
    let full = (0..=most(KhoAbi::V1, page_size))
        .rev()
        .take(4)
        .filter_map(|count| Layout::new(count, KhoAbi::V1, page_size).ok())
        .find(|layout| layout.size() == GIB);
    let full = full.expect("a number of functions that fills it");
    assert!(built(&full, 5 * GIB, InheritedState::default()).is_ok());
}

#[test]
fn the_metadata_of_the_kernel_before_goes_on_instead_of_our_own() {
    for abi in [KhoAbi::V3, KhoAbi::V4] {
        for (name, own) in [("kexec-metadata", false), ("kexec", true)] {
            let layout = Layout::new(3, abi, PageSize::K4).unwrap();
            let subtrees = [Subtree {
                name: name.into(),
                properties: Vec::new(),
            }];
            let inherited = InheritedState {
                subtrees: &subtrees,
                entries: &[],
            };
            let with = layout.clone().with_inherited(inherited).unwrap();
            let saved = layout.preserved_size() - with.preserved_size();
            assert_eq!(saved, if own { 0 } else { 4096 }, "{name}");
            assert_eq!(with == layout, own);
        }
    }
}

#[test]
fn more_or_fewer_functions_than_were_laid_out_are_refused() {
    let layout = Layout::new(3, KhoAbi::V4, PageSize::K4).unwrap();
    for given in [0, 2, 4] {
        let blocks: Vec<_> = (0..given).map(block).collect();
        let placement = Placement {
            arena: PhysAddr(0x4000_0000),
            scratch: &SCRATCH,
            generation: 1,
        };
        let error = build(&layout, &placement, &blocks, &mut Nowhere).unwrap_err();
        assert_eq!(error, BuildError::Count { planned: 3, given });
        assert_eq!(
            error.to_string(),
            format!("the handover is laid out for 3 functions but gets {given}")
        );
    }
}

#[test]
fn a_range_is_split_into_the_fewest_aligned_blocks() {
    for page_size in PageSize::ALL {
        let page = page_size.bytes();
        for first in 0..40 {
            for pages in 0..40 {
                let entries: Vec<_> = split(PhysAddr(first * page), pages, page_size).collect();
                let mut next = first;
                for entry in &entries {
                    let size = 1 << entry.order;
                    assert_eq!(entry.address.0, next * page);
                    assert!(next.is_multiple_of(size));
                    // Twice as much would not be aligned, or too much.
                    let more = next.is_multiple_of(2 * size) && next + 2 * size <= first + pages;
                    assert!(!more);
                    next += size;
                }
                assert_eq!(next, first + pages);
            }
        }
    }
}
