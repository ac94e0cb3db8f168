//! Every branch of the decisions: each row is what is known, and what follows.

use alloc::string::ToString;
use alloc::vec;

use warmbus_linux::memory_plan::PlanError;

use warmbus_pci::{ConfigOffset, Sbdf};
use warmbus_pcsc::Difference;

use super::*;
use crate::unassigned::{Unassigned, UnassignedReason};

/// A machine with a device tree, two captured functions, and no previous
/// kernel.
fn facts() -> Facts {
    Facts {
        requested: KhoChoice::Auto,
        may_probe_vfs: true,
        source: Source::DeviceTree,
        pci_word: None,
        survey: Some(SurveyFacts {
            captured: 2,
            usable: 2,
            ..SurveyFacts::default()
        }),
        previous: PreviousFacts::Nothing,
        page_size: Ok(PageSize::K4),
    }
}

fn with(change: impl FnOnce(&mut Facts)) -> Facts {
    let mut facts = facts();
    change(&mut facts);
    facts
}

fn surveyed(change: impl FnOnce(&mut SurveyFacts)) -> Facts {
    with(|facts| change(facts.survey.as_mut().expect("it has a survey")))
}

/// A kernel that reads version `abi` and nothing else.
fn kernel(abi: KhoAbi) -> KernelFacts {
    KernelFacts {
        abi: Ok(Some(abi)),
        abi_name: None,
        keeps_scratch_with_uefi: false,
        reads_vf_routing: false,
    }
}

fn handed_over(abi: KhoAbi, page_size: PageSize, pci: PciPolicy) -> Decision {
    Decision::Handover(HandoverDecision {
        abi,
        abi_name: None,
        page_size,
        pci,
        probe_vf_routing: false,
    })
}

fn readable(page_size: PageSize) -> PreviousFacts {
    PreviousFacts::Readable { page_size }
}

/// A host bridge below which there is a bridge without a bus number.
fn renumbered() -> HostFacts {
    HostFacts {
        name: "/pcie@1".into(),
        reassign: Some(ReassignReason::Unassigned(Unassigned {
            function: Sbdf::new(0, 1, 0, 0),
            reason: UnassignedReason::BusNumbers,
        })),
    }
}

/// A host bridge that is not supported.
fn excluded() -> HostFacts {
    HostFacts {
        name: "/pcie@2".into(),
        reassign: Some(ReassignReason::Excluded),
    }
}

fn failure() -> PipelineFailure {
    PipelineFailure::CacheDiffers {
        count: 1,
        first: Difference {
            function: Sbdf::new(0, 1, 0, 0),
            offset: ConfigOffset::wrapping(8),
            cached: 1,
            hardware: 2,
        },
    }
}

const UNKNOWN: DetectError = DetectError::NoPageSize;

#[test]
fn a_cache_is_handed_over_where_nothing_speaks_against_it() {
    let rows = [
        (facts(), KhoAbi::V4, PageSize::K4, PciPolicy::KEEP_ALL),
        (facts(), KhoAbi::V1, PageSize::K4, PciPolicy::KEEP_ALL),
        (
            with(|facts| facts.page_size = Ok(PageSize::K64)),
            KhoAbi::V3,
            PageSize::K64,
            PciPolicy::KEEP_ALL,
        ),
        (
            with(|facts| facts.previous = readable(PageSize::K4)),
            KhoAbi::V4,
            PageSize::K4,
            PciPolicy::KEEP_ALL,
        ),
        (
            surveyed(|survey| survey.usable = 1),
            KhoAbi::V4,
            PageSize::K4,
            PciPolicy::KEEP_ALL,
        ),
        // A list of bitmaps is looked up by what a device is, not by its bus.
        (
            surveyed(|survey| survey.hosts = vec![renumbered()]),
            KhoAbi::V1,
            PageSize::K4,
            PciPolicy::Reassign(renumbered()),
        ),
        // The others are kept, whatever version it is.
        (
            surveyed(|survey| survey.hosts = vec![excluded()]),
            KhoAbi::V4,
            PageSize::K4,
            PciPolicy::Keep {
                except: vec![excluded()],
            },
        ),
        // The tree has Linux keep bus numbers already.
        (
            surveyed(|survey| {
                survey.hosts = vec![excluded(), renumbered()];
                survey.chosen_probe_only = true;
            }),
            KhoAbi::V4,
            PageSize::K4,
            PciPolicy::AsFound,
        ),
    ];
    for (facts, abi, page_size, pci) in rows {
        let expected = handed_over(abi, page_size, pci);
        assert_eq!(decide(&facts, &kernel(abi), Ok(())), expected, "{facts:?}");
        assert_eq!(facts.request(), Ok(page_size));
    }
}

#[test]
fn acpi_has_linux_keep_bus_numbers_whatever_is_unassigned() {
    let facts = with(|facts| {
        facts.source = Source::Acpi;
        let survey = facts.survey.as_mut().expect("it has a survey");
        survey.hosts = vec![excluded(), renumbered()];
    });
    let kernel = KernelFacts {
        keeps_scratch_with_uefi: true,
        ..kernel(KhoAbi::V4)
    };
    assert_eq!(
        decide(&facts, &kernel, Ok(())),
        handed_over(KhoAbi::V4, PageSize::K4, PciPolicy::KeepBusNumbers)
    );
}

#[test]
fn the_boot_arguments_have_the_last_word_on_the_version() {
    let facts = with(|facts| facts.requested = KhoChoice::Abi(KhoAbi::V3));
    for abi in [Ok(None), Ok(Some(KhoAbi::V1)), Err(UNKNOWN)] {
        let kernel = KernelFacts {
            abi,
            ..kernel(KhoAbi::V1)
        };
        assert_eq!(
            decide(&facts, &kernel, Ok(())),
            handed_over(KhoAbi::V3, PageSize::K4, PciPolicy::KEEP_ALL)
        );
    }
}

#[test]
fn routing_is_probed_for_a_kernel_that_reads_it_if_that_is_allowed() {
    for (allowed, reads, expected) in [
        (true, true, true),
        (true, false, false),
        (false, true, false),
        (false, false, false),
    ] {
        let facts = with(|facts| facts.may_probe_vfs = allowed);
        let kernel = KernelFacts {
            reads_vf_routing: reads,
            ..kernel(KhoAbi::V4)
        };
        let Decision::Handover(handover) = decide(&facts, &kernel, Ok(())) else {
            panic!("it is handed over");
        };
        assert_eq!(handover.probe_vf_routing, expected);
    }
}

#[test]
fn what_speaks_against_a_handover_is_named() {
    let off = with(|facts| facts.requested = KhoChoice::Off);
    let v1 = KhoAbi::V1;
    let v4 = KhoAbi::V4;
    let acpi = with(|facts| facts.source = Source::Acpi);
    let no_kho = KernelFacts {
        abi: Ok(None),
        ..kernel(v1)
    };
    let unknown = KernelFacts {
        abi: Err(UNKNOWN),
        ..kernel(v1)
    };
    let differ = |kernel, previous| Refusal::PageSizesDiffer { kernel, previous };
    let rows = [
        (off.clone(), kernel(v4), Refusal::SwitchedOff),
        (off, no_kho.clone(), Refusal::SwitchedOff),
        (
            with(|facts| facts.requested = KhoChoice::UnusedByLinux),
            kernel(v4),
            Refusal::UnusedByLinux,
        ),
        (facts(), no_kho.clone(), Refusal::NoKho),
        (facts(), unknown, Refusal::Kernel(UNKNOWN)),
        (acpi.clone(), kernel(v4), Refusal::ScratchLostWithUefi),
        (acpi, no_kho.clone(), Refusal::NoKho),
        (
            with(|facts| facts.survey = None),
            kernel(v4),
            Refusal::NoSurvey,
        ),
        // Where the kernel reads no handover, the rest does not matter.
        (with(|facts| facts.survey = None), no_kho, Refusal::NoKho),
        (
            surveyed(|survey| survey.failure = Some(failure())),
            kernel(v4),
            Refusal::Failed(failure()),
        ),
        (
            with(|facts| facts.page_size = Err(DetectError::BigEndian)),
            kernel(v4),
            Refusal::Kernel(DetectError::BigEndian),
        ),
        (
            with(|facts| facts.previous = PreviousFacts::Unreadable),
            kernel(v4),
            Refusal::PreviousUnreadable,
        ),
        (
            with(|facts| facts.previous = readable(PageSize::K64)),
            kernel(v4),
            differ(PageSize::K4, PageSize::K64),
        ),
        (
            with(|facts| facts.previous = readable(PageSize::K4)),
            kernel(v1),
            Refusal::PreviousVersion(v1),
        ),
        (
            surveyed(|survey| survey.hosts = vec![renumbered()]),
            kernel(v4),
            Refusal::Renumbered(renumbered()),
        ),
        (
            surveyed(|survey| survey.hosts = vec![renumbered()]),
            kernel(KhoAbi::V3),
            Refusal::Renumbered(renumbered()),
        ),
        (
            surveyed(|survey| survey.usable = 0),
            kernel(v4),
            Refusal::NothingUsable,
        ),
        (
            surveyed(|survey| (survey.captured, survey.usable) = (0, 0)),
            kernel(v4),
            Refusal::NothingCaptured,
        ),
    ];
    for (facts, kernel, refusal) in rows {
        assert_eq!(
            decide(&facts, &kernel, Ok(())),
            Decision::Without(refusal),
            "{facts:?}"
        );
    }
    let full = LayoutRequestError::Plan(PlanError::NoRam);
    assert_eq!(
        decide(&facts(), &kernel(v4), Err(full.clone())),
        Decision::Without(Refusal::NoMemory(full))
    );
}

#[test]
fn space_is_wanted_unless_something_known_early_speaks_against_it() {
    let rows = [
        (
            with(|facts| facts.requested = KhoChoice::Off),
            Err(Refusal::SwitchedOff),
        ),
        (with(|facts| facts.survey = None), Err(Refusal::NoSurvey)),
        (
            surveyed(|survey| survey.failure = Some(failure())),
            Err(Refusal::Failed(failure())),
        ),
        (
            with(|facts| facts.page_size = Err(UNKNOWN)),
            Err(Refusal::Kernel(UNKNOWN)),
        ),
        (
            with(|facts| facts.previous = PreviousFacts::Unreadable),
            Err(Refusal::PreviousUnreadable),
        ),
        // Only the unpacked kernel says which version it reads, so that what
        // depends on that is no reason yet.
        (
            surveyed(|survey| survey.hosts = vec![renumbered()]),
            Ok(PageSize::K4),
        ),
        (with(|facts| facts.source = Source::Acpi), Ok(PageSize::K4)),
    ];
    for (facts, expected) in rows {
        assert_eq!(facts.request(), expected, "{facts:?}");
    }
}

#[test]
fn sentences_about_a_decision_have_their_numbers() {
    let rows = [
        (
            Refusal::PageSizesDiffer {
                kernel: PageSize::K4,
                previous: PageSize::K64,
            },
            "this kernel has 4K pages, and the previous one 64K pages",
        ),
        (
            Refusal::PreviousVersion(KhoAbi::V1),
            "the handover of the previous kernel cannot be converted to kho-v1",
        ),
        (
            Refusal::Renumbered(renumbered()),
            "this Linux assigns new bus numbers, which the cache does not match, because of /pcie@1 (0000:01:00.0: the bridge has no bus number)",
        ),
    ];
    for (refusal, text) in rows {
        assert_eq!(refusal.to_string(), text);
    }
}
