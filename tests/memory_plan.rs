//! Memory plans for machines of all kinds, judged by the independent check.

use proptest::prelude::*;
use warmbus_kho::KhoAbi;
use warmbus_linux::memory_plan::{
    HandoverNeeds, InitrdNeeds, KernelNeeds, MemoryPlan, PlanError, PlanRequest, PlanViolation,
    RamRegion, ReservedRegion, ScratchNeeds,
};
use warmbus_memory::MemoryRange;
use warmbus_memory::PageSize;
use warmbus_memory::PhysAddr;
use warmbus_pcie_sim::proptest_config;
use warmbus_pcsc_format::Layout;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A request that owns its lists.
#[derive(Clone, Debug)]
struct Machine {
    ram: Vec<RamRegion>,
    reserved: Vec<ReservedRegion>,
    occupied: Vec<MemoryRange>,
    kernel: KernelNeeds,
    initrd: Option<InitrdNeeds>,
    tree_size: u64,
    handover: Option<HandoverNeeds>,
    scratch: Vec<MemoryRange>,
}

fn range(start: u64, size: u64) -> MemoryRange {
    MemoryRange::new(PhysAddr(start), size)
}

impl Machine {
    /// A machine with 4K pages, a kernel of 40 MiB and 65 functions.
    fn new(ram: &[(u64, u64)]) -> Self {
        let mut machine = Self {
            ram: ram
                .iter()
                .map(|&(start, size)| RamRegion {
                    range: range(start, size),
                    node: 0,
                })
                .collect(),
            reserved: Vec::new(),
            occupied: vec![range(ram[0].0, 2 * MIB)],
            kernel: KernelNeeds {
                text_offset: 0,
                image_size: 40 * MIB,
                loaded: None,
            },
            initrd: None,
            tree_size: 0x1_2345,
            handover: None,
            scratch: Vec::new(),
        };
        machine.hand_over(65, KhoAbi::V4, PageSize::K4);
        machine
    }

    fn hand_over(&mut self, functions: usize, abi: KhoAbi, page_size: PageSize) {
        let layout = Layout::new(functions, abi, page_size).unwrap();
        self.handover = Some(HandoverNeeds {
            abi,
            page_size,
            arena_size: layout.size(),
            arena_align: layout.align(),
            scratch: ScratchNeeds::default(),
        });
    }

    fn request(&self) -> PlanRequest<'_> {
        PlanRequest {
            ram: &self.ram,
            reserved: &self.reserved,
            occupied: &self.occupied,
            kernel: self.kernel,
            initrd: self.initrd,
            tree_size: self.tree_size,
            handover: self.handover,
            scratch: &self.scratch,
        }
    }

    fn plan(&self) -> Result<MemoryPlan, PlanError> {
        let plan = MemoryPlan::new(&self.request())?;
        if let Err(fault) = plan.check(&self.request()) {
            panic!("{fault}\n{plan:#x?}\n{self:#x?}");
        }
        Ok(plan)
    }
}

#[test]
fn every_size_from_512_mib_to_1_tib_has_a_plan_at_any_base() {
    for base in [0, 0x4000_0000, 0x8000_0000, 0x80_0000_0000, 0xff_c020_0000] {
        for megabytes in [512, 768, 1024, 2048, 8192, 65_536, 1 << 20] {
            for page_size in [PageSize::K4, PageSize::K16] {
                for abi in KhoAbi::ALL {
                    let mut machine = Machine::new(&[(base, megabytes * MIB)]);
                    machine.hand_over(65, abi, page_size);
                    let plan = machine.plan();
                    assert!(plan.is_ok(), "{base:#x} {megabytes}: {plan:?}");
                }
            }
        }
    }
}

#[test]
fn pages_of_64k_work_from_1_gib_on_and_are_refused_clearly_below() {
    for (base, megabytes) in [(0x4000_0000, 1024), (0, 2048), (0x8000_0000, 8192)] {
        let mut machine = Machine::new(&[(base, megabytes * MIB)]);
        machine.hand_over(65, KhoAbi::V4, PageSize::K64);
        let plan = machine.plan().unwrap();
        assert!(plan.scratch[0].size >= 512 * MIB);
    }
    let mut machine = Machine::new(&[(0x4000_0000, 512 * MIB)]);
    machine.hand_over(65, KhoAbi::V4, PageSize::K64);
    let error = machine.plan().unwrap_err().to_string();
    assert!(error.contains("512 MiB of scratch memory"), "{error}");
    assert!(error.contains("the 512 MiB of RAM"), "{error}");
    // Enough RAM, but no aligned 512 MiB in it.
    let mut machine = Machine::new(&[(0x4010_0000, 1023 * MIB)]);
    machine.hand_over(65, KhoAbi::V4, PageSize::K64);
    machine.reserved.push(ReservedRegion {
        range: range(0x7000_0000, 4096),
        no_map: true,
    });
    let error = machine.plan().unwrap_err();
    assert!(matches!(
        error,
        PlanError::ScratchTooLarge { .. } | PlanError::Scratch { .. }
    ));
}

#[test]
fn a_plain_boot_needs_no_scratch() {
    let mut machine = Machine::new(&[(0x4000_0000, 64 * MIB)]);
    machine.handover = None;
    let plan = machine.plan().unwrap();
    assert!(plan.scratch.is_empty() && plan.arena.is_none());
}

#[test]
fn scratch_handover_and_kernel_stay_below_4_gib_where_there_is_ram() {
    let machine = Machine::new(&[(0x8000_0000, 2 * GIB), (0x8_8000_0000, 30 * GIB)]);
    let plan = machine.plan().unwrap();
    assert!(plan.scratch[0].end() <= 4 * GIB);
    assert!(plan.arena.unwrap().end() <= 4 * GIB);
    // With 1 TiB the share for the page structures would not fit there.
    let machine = Machine::new(&[(0x8000_0000, 2 * GIB), (0x80_0000_0000, 1022 * GIB)]);
    let plan = machine.plan().unwrap();
    assert_eq!(plan.scratch.len(), 2);
    assert!(plan.scratch[0].end() <= 4 * GIB);
    assert!(plan.scratch[1].size > 20 * GIB);
}

#[test]
fn scratch_is_more_than_the_measured_minimum_and_at_most_half() {
    for (gib, measured) in [(2, 38 * MIB), (4, 74 * MIB), (8, 148 * MIB)] {
        let machine = Machine::new(&[(0x4000_0000, gib * GIB)]);
        let plan = machine.plan().unwrap();
        let total: u64 = plan.scratch.iter().map(|area| area.size).sum();
        assert!(total > measured * 3 / 2, "{gib} GiB: {total:#x}");
        assert!(total <= gib * GIB / 2);
    }
}

#[test]
fn an_initrd_stays_where_it_is_unless_something_is_wrong_with_the_place() {
    let mut machine = Machine::new(&[(0x4000_0000, 2 * GIB)]);
    let loaded = range(0x4800_1000, 100 * MIB + 17);
    machine.initrd = Some(InitrdNeeds { loaded });
    assert_eq!(machine.plan().unwrap().initrd, Some(loaded));

    // In the way of a reservation: it is copied elsewhere.
    machine.reserved.push(ReservedRegion {
        range: range(0x4900_0000, 0x1000),
        no_map: false,
    });
    let plan = machine.plan().unwrap();
    assert_eq!(plan.initrd.unwrap().size, loaded.size);
    assert_ne!(plan.initrd, Some(loaded));

    // Too far from any place for the kernel.
    let mut machine = Machine::new(&[(0x4000_0000, 3 * GIB), (0x100_0000_0000, GIB)]);
    let loaded = range(0x100_0000_0000, 1000 * MIB);
    machine.initrd = Some(InitrdNeeds { loaded });
    let plan = machine.plan().unwrap();
    assert_ne!(plan.initrd, Some(loaded));
}

#[test]
fn a_kernel_stays_where_it_is_unless_something_is_wrong_with_the_place() {
    const LOADED: u64 = 0x5000_0000;
    let planned = |change: &dyn Fn(&mut Machine)| {
        let mut machine = Machine::new(&[(0x4000_0000, GIB)]);
        machine.kernel.loaded = Some(range(LOADED, 12 * MIB + 512));
        machine.initrd = Some(InitrdNeeds {
            loaded: range(0x5800_0000, 10 * MIB),
        });
        change(&mut machine);
        machine.plan().unwrap()
    };
    let loaded = PhysAddr(LOADED);
    let plan = planned(&|_| {});
    assert_eq!(plan.kernel, range(LOADED, 40 * MIB));
    assert_eq!(plan.initrd, Some(range(0x5800_0000, 10 * MIB)));
    assert_eq!(
        planned(&|machine| machine.handover = None).kernel.start,
        loaded
    );
    assert_eq!(
        planned(&|machine| machine.initrd = None).kernel.start,
        loaded
    );
    // Behind the file is what Linux clears, up to 40 MiB.
    let just_behind = |machine: &mut Machine| {
        machine.occupied.push(range(LOADED + 40 * MIB, MIB));
        let loaded = range(LOADED - MIB, MIB);
        machine.initrd = Some(InitrdNeeds { loaded });
    };
    assert_eq!(planned(&just_behind).kernel.start, loaded);
    let offset = |machine: &mut Machine| {
        machine.kernel.text_offset = 0x8_0000;
        machine.kernel.loaded = Some(range(LOADED + 0x8_0000, 12 * MIB));
    };
    assert_eq!(planned(&offset).kernel.start, PhysAddr(LOADED + 0x8_0000));

    let wrong: [&dyn Fn(&mut Machine); 8] = [
        &|machine| machine.kernel.loaded = Some(range(LOADED + 4096, 12 * MIB)),
        &|machine| machine.kernel.text_offset = 0x8_0000,
        &|machine| machine.kernel.image_size = 12 * MIB,
        &|machine| machine.occupied.push(range(LOADED + 39 * MIB, MIB)),
        &|machine| machine.occupied.push(range(LOADED + MIB, 1)),
        &|machine| {
            machine.reserved.push(ReservedRegion {
                range: range(LOADED + 20 * MIB, 4096),
                no_map: false,
            });
        },
        &|machine| {
            let loaded = range(LOADED + 13 * MIB, MIB);
            machine.initrd = Some(InitrdNeeds { loaded });
        },
        &|machine| {
            let areas = [range(LOADED, 64 * MIB), range(0x6000_0000, 64 * MIB)];
            machine.scratch = areas.to_vec();
        },
    ];
    for (number, change) in wrong.into_iter().enumerate() {
        let plan = planned(change);
        let near = range(LOADED, 4 * MIB);
        assert!(
            !near.contains(range(plan.kernel.start.0, 1)),
            "{number}: {plan:#x?}"
        );
    }
}

#[test]
fn an_initrd_of_100_mib_fits_into_512_mib_wherever_it_was_loaded() {
    for megabyte in (8..400).step_by(7) {
        let mut machine = Machine::new(&[(0x4000_0000, 512 * MIB)]);
        machine.initrd = Some(InitrdNeeds {
            loaded: range(0x4000_0000 + megabyte * MIB + 123, 100 * MIB),
        });
        let plan = machine.plan();
        assert!(plan.is_ok(), "at {megabyte} MiB: {plan:?}");
    }
}

#[test]
fn each_node_gets_scratch_of_its_own_and_the_handover_stays_in_one() {
    let mut machine = Machine::new(&[
        (0x4000_0000, 4 * GIB),
        (0x1_4000_0000, 4 * GIB),
        (0x2_4000_0000, 8 * GIB),
    ]);
    for (node, region) in machine.ram.iter_mut().enumerate() {
        region.node = node as u32;
    }
    machine.hand_over(4096, KhoAbi::V4, PageSize::K4);
    let plan = machine.plan().unwrap();
    assert_eq!(plan.scratch.len(), 4);
    for region in &machine.ram {
        assert!(plan.scratch.iter().any(|area| region.range.contains(*area)));
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let fails = |change: &dyn Fn(&mut Machine)| {
        let mut machine = Machine::new(&[(0x4000_0000, GIB)]);
        change(&mut machine);
        machine.plan().unwrap_err()
    };
    assert_eq!(fails(&|machine| machine.ram.clear()), PlanError::NoRam);
    let error = fails(&|machine| machine.kernel.image_size = GIB);
    assert_eq!(error, PlanError::Kernel { size: GIB });
    let error = fails(&|machine| machine.kernel.image_size = u64::MAX);
    assert_eq!(error, PlanError::Kernel { size: u64::MAX });
    let error = fails(&|machine| machine.tree_size = 2 * MIB + 1);
    assert!(matches!(error, PlanError::TreeTooLarge { .. }));
    let error = fails(&|machine| {
        machine.initrd = Some(InitrdNeeds {
            loaded: range(0, 900 * MIB),
        });
    });
    assert_eq!(error, PlanError::Initrd { size: 900 * MIB });
    let error = fails(&|machine| {
        machine.handover.as_mut().unwrap().arena_size = 1000 * MIB;
    });
    assert_eq!(error, PlanError::Arena { size: 1000 * MIB });
    let error = fails(&|machine| {
        machine.handover.as_mut().unwrap().scratch.crash_kernel = u64::MAX;
    });
    assert!(matches!(error, PlanError::ScratchTooLarge { .. }));
}

#[test]
fn the_check_notices_every_kind_of_fault() {
    use PlanViolation::{
        Alignment, NoLowScratch, NotInRam, Overlap, Presence, Size, Split, TooMuchScratch, Window,
    };
    let mut machine = Machine::new(&[(0x4000_0000, 2 * GIB), (0x10_0000_0000, 40 * GIB)]);
    machine.initrd = Some(InitrdNeeds {
        loaded: range(0x4800_0000, 8 * MIB),
    });
    machine.reserved.push(ReservedRegion {
        range: range(0x5000_0000, MIB),
        no_map: true,
    });
    machine.kernel.image_size -= 0x1_0000;
    let good = machine.plan().unwrap();
    let fault = |change: &dyn Fn(&mut MemoryPlan)| {
        let mut plan = good.clone();
        change(&mut plan);
        plan.check(&machine.request()).unwrap_err()
    };
    let arena = good.arena.unwrap();
    let moved = |to: u64, piece: MemoryRange| range(to, piece.size);
    assert!(matches!(
        fault(&|plan| plan.kernel.start.0 += 0x1000),
        Alignment("kernel", _)
    ));
    assert!(matches!(
        fault(&|plan| plan.kernel.start.0 = 0x3000_0000),
        NotInRam("kernel", _)
    ));
    assert!(matches!(
        fault(&|plan| plan.kernel.start.0 = 0x4fe0_0000),
        Overlap("kernel", ..)
    ));
    assert!(matches!(
        fault(&|plan| plan.kernel.start.0 = 0x4000_0000),
        Overlap("kernel", ..)
    ));
    assert!(matches!(
        fault(&|plan| plan.kernel.size -= 1),
        Size("kernel", _)
    ));
    assert!(matches!(
        fault(&|plan| plan.kernel.start.0 = 0x10_0000_0000),
        Window(..)
    ));
    assert!(matches!(
        fault(&|plan| plan.tree.start.0 += 4),
        Alignment("device tree", _)
    ));
    assert!(matches!(
        fault(&|plan| plan.tree.start.0 = 0x5010_0000),
        Overlap("device tree", ..)
    ));
    assert!(matches!(
        fault(&|plan| plan.initrd = None),
        Presence("initrd")
    ));
    assert!(matches!(
        fault(&|plan| plan.arena = Some(moved(arena.start.0 + 4096, arena))),
        Alignment("handover", _)
    ));
    assert!(matches!(
        fault(&|plan| plan.arena = Some(moved(0x7ff8_0000, arena))),
        Split(_)
    ));
    assert!(matches!(
        fault(&|plan| plan.arena = Some(moved(plan.scratch[0].start.0, arena))),
        Overlap("handover", ..)
    ));
    assert!(matches!(
        fault(&|plan| plan.scratch[0].start.0 = 0x6010_0000),
        Alignment("scratch area", _)
    ));
    assert!(matches!(
        fault(&|plan| plan.scratch = vec![moved(0x10_4000_0000, plan.scratch[0])]),
        NoLowScratch
    ));
    assert!(matches!(
        fault(&|plan| plan.scratch.push(range(0x11_0000_0000, 24 * GIB))),
        TooMuchScratch
    ));
}

#[test]
fn the_check_notices_what_is_put_over_the_file_of_the_kernel() {
    use PlanViolation::{Overlap, Size};
    let mut machine = Machine::new(&[(0x4000_0000, 2 * GIB)]);
    machine.initrd = Some(InitrdNeeds {
        loaded: range(0x4800_0000, 8 * MIB),
    });
    machine.kernel.image_size -= 0x1_0000;
    let good = machine.plan().unwrap();
    let check = |file: MemoryRange| {
        let mut machine = machine.clone();
        machine.kernel.loaded = Some(file);
        good.check(&machine.request())
    };
    assert_eq!(check(range(good.kernel.start.0, 8 * MIB)), Ok(()));
    let larger = range(good.kernel.start.0, good.kernel.size + 1);
    assert!(matches!(check(larger), Err(Size("file of the kernel", _))));
    for piece in [Some(good.kernel), Some(good.tree), good.arena, good.initrd] {
        let file = range(piece.unwrap().end() - 1, 8 * MIB);
        let found = check(file);
        assert!(
            matches!(found, Err(Overlap("file of the kernel", ..))),
            "{found:?}"
        );
    }
}

/// RAM of 1 to 6 regions with gaps, somewhere.
fn ram() -> impl Strategy<Value = Vec<RamRegion>> {
    let region = (0..8_u64 << 30, 1..5_u32, 64..4096_u64, 0..3_u32);
    (0..(1_u64 << 44), prop::collection::vec(region, 1..6)).prop_map(|(base, regions)| {
        // One in two machines starts where boards do.
        let mut at = if base % 2 == 0 {
            0x4000_0000
        } else {
            base & !0xfff
        };
        regions
            .into_iter()
            .map(|(gap, shift, size, node)| {
                at += if gap % 3 == 0 { 0 } else { gap & !0xfff };
                let region = RamRegion {
                    range: range(at, (size << (18 + shift)) & !0xfff),
                    node,
                };
                at += region.range.size;
                region
            })
            .collect()
    })
}

fn machine() -> impl Strategy<Value = Machine> {
    let holes = || prop::collection::vec((0..1000_u64, 1..32 * MIB), 0..6);
    (
        ram(),
        holes(),
        holes(),
        (1..96 * MIB, prop::sample::select(vec![0, 0x8_0000_u64])),
        prop::option::of((0..1000_u64, 1..64 * MIB)),
        prop::option::of((0..1000_u64, 1..200 * MIB)),
        prop::option::of((
            0..3000_usize,
            prop::sample::select(&KhoAbi::ALL[..]),
            prop::sample::select(&PageSize::ALL[..]),
        )),
    )
        .prop_map(
            |(ram, reserved, occupied, kernel, loaded, initrd, handover)| {
                // A thousandth of the RAM, counted without its gaps.
                let total: u64 = ram.iter().map(|region| region.range.size).sum();
                let place = |thousandth: u64| {
                    let mut left = total / 1000 * thousandth;
                    for region in &ram {
                        if left < region.range.size {
                            return region.range.start.0 + left;
                        }
                        left -= region.range.size;
                    }
                    unreachable!()
                };
                let hole = |&(at, size): &(u64, u64)| range(place(at), size);
                let mut machine = Machine::new(&[(0, GIB)]);
                machine.reserved = reserved
                    .iter()
                    .map(|at| ReservedRegion {
                        range: hole(at),
                        no_map: at.1 % 2 == 0,
                    })
                    .collect();
                machine.occupied = occupied.iter().map(hole).collect();
                machine.kernel = KernelNeeds {
                    text_offset: kernel.1,
                    image_size: kernel.0,
                    loaded: loaded.as_ref().map(|&(thousandth, size)| {
                        // Most loaders align it, and some do not.
                        let align = if size % 4 == 0 { 4096 } else { 2 * MIB };
                        let base = place(thousandth) / align * align;
                        range(base + kernel.1, size.min(kernel.0).max(1))
                    }),
                };
                machine.initrd = initrd.as_ref().map(|at| InitrdNeeds { loaded: hole(at) });
                match handover {
                    None => machine.handover = None,
                    Some((functions, abi, page_size)) => {
                        machine.hand_over(functions, abi, page_size);
                    }
                }
                machine.ram = ram;
                machine
            },
        )
}

proptest! {
    #![proptest_config(proptest_config::properties(2000))]

    #[test]
    fn a_plan_for_any_machine_passes_the_check(machine in machine()) {
        // The check is in plan(); no plan is fine if there is no room.
        let _ = machine.plan();
    }

    #[test]
    fn one_region_with_ample_room_always_has_a_plan(
        base in 0..(1_u64 << 44),
        megabytes in 640..(1_u64 << 20),
        kernel in 1..64_u64,
        initrd in 1..100_u64,
        at in 0..1000_u64,
        page_size in prop::sample::select(&[PageSize::K4, PageSize::K16][..]),
    ) {
        let base = base & !0xfff;
        let mut machine = Machine::new(&[(base, megabytes * MIB)]);
        // RAM that only just reaches below 4 GiB cannot hold what must be there.
        prop_assume!(!(3 * GIB..4 * GIB).contains(&base));
        machine.hand_over(300, KhoAbi::V3, page_size);
        machine.kernel.image_size = kernel * MIB;
        machine.initrd = Some(InitrdNeeds {
            loaded: range(base + (megabytes - initrd) * MIB / 1000 * at, initrd * MIB),
        });
        let plan = machine.plan();
        prop_assert!(plan.is_ok(), "{plan:?}");
    }
}

#[test]
fn most_random_machines_with_two_gib_have_a_plan() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut planned, mut all) = (0, 0);
    for _ in 0..1000 {
        let mut machine = machine().new_tree(&mut runner).unwrap().current();
        let ram: u64 = machine.ram.iter().map(|region| region.range.size).sum();
        if ram < 2 * GIB {
            continue;
        }
        machine.hand_over(65, KhoAbi::V4, PageSize::K4);
        all += 1;
        planned += u32::from(machine.plan().is_ok());
    }
    println!("{planned} of {all} machines have a plan");
    assert!(all > 300 && planned > all * 9 / 10, "{planned} of {all}");
}

#[test]
fn scratch_areas_that_an_earlier_handover_made_stay_what_they_are() {
    let mut machine = Machine::new(&[(0x4000_0000, 2048 * MIB)]);
    // As a kernel made them, and aligned to no more than it needed.
    machine.scratch = vec![range(0x4020_0000, 34 * MIB), range(0x7000_0000, 128 * MIB)];
    // What it keeps in other memory, and what it loaded into its scratch.
    machine.reserved.push(ReservedRegion {
        range: range(0x4800_0000, 512 * MIB),
        no_map: false,
    });
    machine.reserved.push(ReservedRegion {
        range: range(0x7100_0000, MIB),
        no_map: false,
    });
    machine.occupied = vec![range(0x7200_0000, 16 * MIB)];
    let plan = machine.plan().unwrap();
    assert_eq!(plan.scratch, machine.scratch);
    let pieces = [Some(plan.kernel), Some(plan.tree), plan.arena];
    for piece in pieces.into_iter().flatten() {
        for taken in machine.scratch.iter().chain([&machine.reserved[0].range]) {
            assert!(!piece.overlaps(*taken), "{piece} {taken}");
        }
    }
}

/// The plan for a command line on a machine with `gib` GiB of memory.
fn with_line(gib: u64, page_size: PageSize, line: &str) -> Result<MemoryPlan, PlanError> {
    let mut machine = Machine::new(&[(0x4000_0000, gib << 30)]);
    machine.hand_over(65, KhoAbi::V4, page_size);
    let needs = ScratchNeeds::from_command_line(1, page_size, line.as_bytes());
    machine.handover.as_mut().expect("it is wanted").scratch = needs;
    machine.plan()
}

#[test]
fn gigantic_pages_have_a_place_in_scratch_memory() {
    let plain = with_line(12, PageSize::K4, "").unwrap();
    let mut pages = with_line(12, PageSize::K4, "hugepagesz=1G hugepages=3").unwrap();
    assert_eq!(pages.gigantic_areas, 3);
    for area in &pages.scratch[pages.scratch.len() - 3..] {
        assert_eq!((area.start.0 % (1 << 30), area.size), (0, 1 << 30));
    }
    assert_eq!(pages.kernel_scratch_bytes(), plain.kernel_scratch_bytes());
    let others = pages.scratch.len() - 3;
    pages.exclude_gigantic();
    assert_eq!((pages.scratch.len(), pages.gigantic_areas), (others, 0));
    // One area for many pages.
    let many = with_line(64, PageSize::K16, "hugepagesz=1G hugepages=40").unwrap();
    assert_eq!(many.gigantic_areas, 1);
    assert_eq!(many.scratch.last().map(|area| area.size), Some(40 << 30));
    // The rest would be too little.
    for line in ["hugepagesz=1G hugepages=11", "hugetlb_cma=900G"] {
        let error = with_line(12, PageSize::K4, line).unwrap_err();
        assert!(error.to_string().contains("scratch memory"), "{error}");
    }
}

#[test]
fn kho_scratch_is_honoured_but_never_below_what_linux_starts_with() {
    let bytes = |line: &str| {
        let plan = with_line(12, PageSize::K4, line).unwrap();
        plan.kernel_scratch_bytes() >> 20
    };
    let default = bytes("");
    // 1.5 * (19.5 * 12 + 64 + 64 + 0.5 + 16) MiB, in steps of 4 MiB.
    assert_eq!(default, 568);
    assert_eq!(bytes("kho_scratch=200%"), 760);
    assert_eq!(bytes("kho_scratch=256M,1G,0"), 1280);
    assert_eq!(bytes("kho_scratch=256M,512M,512M"), 1280);
    // The least that it starts with.
    let least = 380;
    assert_eq!(bytes("kho_scratch=100%"), least);
    assert_eq!(bytes("kho_scratch=1%"), least);
    assert_eq!(bytes("kho_scratch=1M,1M,1M"), least);
    let areas = |line: &str| {
        let plan = with_line(12, PageSize::K4, line).unwrap();
        plan.scratch
    };
    // As many bytes below 4 GiB as it asks for.
    let low = areas("kho_scratch=512M,1G,0");
    assert!(
        low.iter()
            .any(|area| area.end() <= 4 << 30 && area.size >= 512 << 20)
    );
    let error = with_line(12, PageSize::K4, "kho_scratch=1G,8G,0").unwrap_err();
    assert!(error.to_string().contains("9216 MiB"), "{error}");
}
