//! The handover for a kernel that somebody else starts, while boot services of
//! UEFI run.
//!
//! Nothing of the boot is changed but one table: a device tree whose `/chosen`
//! names the handover, which the EFI stub of Linux copies. What is handed over
//! was read before other programs ran, and has to be true after they did.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use warmbus_fdt::{FdtError, FdtWriter, RawTree, Token};
use warmbus_linux::chosen::{Chosen, ChosenError, ChosenHandover, edit};
use warmbus_linux::detect;
use warmbus_linux::image::{ImageError, ImageHeader};
use warmbus_linux::memory_plan::MemoryPlan;
use warmbus_linux::payload::{Module, Payload};
use warmbus_machine::{Machine, Source};
use warmbus_memory::MemoryRange;
use warmbus_pci::ConfigAccess;

use crate::decide::{Decision, Facts, HandoverDecision, KernelFacts, Refusal, decide};
use crate::handover::{BuiltHandover, HandoverError, survey_facts};
use crate::memory::BootMemory;
use crate::memory_layout::{LayoutRequest, LayoutRequestError};
use crate::options::Options;
use crate::pipeline::Captured;
use crate::previous_boot::PreviousBoot;

/// A kernel that somebody else starts.
#[derive(Clone, Copy, Debug)]
pub struct LoadedKernel<'a> {
    /// Where it lies: that memory is in use.
    pub range: MemoryRange,
    /// The unpacked kernel.
    pub image: &'a [u8],
    /// Its command line, of which scratch memory depends on some words.
    pub command_line: &'a str,
}

/// Why there is nothing for a kernel.
#[derive(Debug, thiserror::Error)]
pub enum ResidentError {
    /// It is no arm64 Image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// It was decided so.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The handover could not be made, or the independent reader refused it.
    #[error(transparent)]
    Failed(#[from] HandoverError),
    /// The device tree cannot be made.
    #[error(transparent)]
    Tree(#[from] FdtError),
    /// The device tree cannot be edited.
    #[error(transparent)]
    Chosen(#[from] ChosenError),
    /// A device tree that is there already describes a machine, from which Linux
    /// would take it.
    #[error(
        "the device tree of UEFI has the node '{node}', from which Linux would take the machine"
    )]
    DescribesMachine {
        /// The first such node.
        node: String,
    },
}

/// A kernel that takes a handover, as far as it depends on the kernel alone.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    kernel: LoadedKernel<'a>,
    header: ImageHeader,
    facts: Facts,
    kernel_facts: KernelFacts,
}

impl<'a> Candidate<'a> {
    /// Looks at `kernel`, before anything is read for it.
    pub fn new(options: &Options, kernel: LoadedKernel<'a>) -> Result<Self, ResidentError> {
        let header = ImageHeader::parse(kernel.image)?;
        let facts = Facts {
            requested: options.kho.for_linux(kernel.command_line),
            // Nothing is written here, so that the kernel need not be searched for
            // whether it reads what a probe finds.
            may_probe_vfs: false,
            source: Source::Acpi,
            pci_word: None,
            survey: None,
            previous: PreviousBoot::default().facts(),
            page_size: detect::page_size(&header),
        };
        let kernel_facts = KernelFacts::of(&facts, kernel.image);
        match decide(&facts, &kernel_facts, Ok(())) {
            // What is missing is not up to the kernel.
            Decision::Without(Refusal::NoSurvey) | Decision::Handover(_) => Ok(Self {
                kernel,
                header,
                facts,
                kernel_facts,
            }),
            Decision::Without(refusal) => Err(refusal.into()),
        }
    }
}

/// What is to be handed over, and where.
#[derive(Debug)]
pub struct ResidentPlan {
    decision: HandoverDecision,
    plan: MemoryPlan,
}

impl ResidentPlan {
    /// Decides what is handed over to the kernel of `candidate`, and finds free
    /// memory for it.
    pub fn new<A: ConfigAccess>(
        machine: &Machine,
        captured: &Captured<A>,
        candidate: Candidate<'_>,
    ) -> Result<Self, ResidentError> {
        let Candidate {
            kernel,
            header,
            mut facts,
            kernel_facts,
        } = candidate;
        facts.survey = Some(survey_facts(machine, captured));
        let previous = PreviousBoot::default();
        let request = LayoutRequest {
            machine,
            tree: &tree()?,
            payload: &Payload::default(),
            kernel: Module {
                range: kernel.range,
                bootargs: Some(kernel.command_line.as_bytes()),
            },
            // It is not this program that places it.
            may_stay: false,
            header: &header,
            in_use: &[],
            previous: &previous,
        };
        let functions = captured.config.blocks().count();
        let page_size = facts.request()?;
        let plan = request
            .handover_needs(facts.requested, functions, page_size)
            .map_err(LayoutRequestError::from)
            .and_then(|needs| request.plan(Some(needs)));
        let (plan, space) = match plan {
            Ok(plan) => (Some(plan), Ok(())),
            Err(error) => (None, Err(error)),
        };
        match (decide(&facts, &kernel_facts, space), plan) {
            (Decision::Without(refusal), _) => Err(refusal.into()),
            (Decision::Handover(_), None) => Err(HandoverError::NoArena.into()),
            (Decision::Handover(decision), Some(mut plan)) => {
                if plan.gigantic_areas > 0 && detect::extends_scratch(kernel.image) {
                    plan.exclude_gigantic();
                }
                Ok(Self { decision, plan })
            }
        }
    }

    /// The free memory that it takes: the handover, then scratch memory.
    pub fn ranges(&self) -> impl Iterator<Item = MemoryRange> + '_ {
        let arena = self.plan.arena.into_iter();
        arena.chain(self.plan.scratch.iter().copied())
    }

    /// Builds the handover in `memory`, which has all [ranges](Self::ranges),
    /// and has the independent reader verify it. `generation` is a number that
    /// differs from boot to boot.
    ///
    /// Returns it with the device tree for the EFI stub of Linux: that of
    /// somebody else, `other`, with the properties of the handover, or a new one.
    pub fn build<A: ConfigAccess, M: BootMemory>(
        &self,
        machine: &Machine,
        captured: &Captured<A>,
        generation: u64,
        memory: &mut M,
        other: Option<&[u8]>,
    ) -> Result<(BuiltHandover, Vec<u8>), ResidentError> {
        let base = match other {
            Some(other) => stub(other)?,
            None => tree()?,
        };
        let previous = PreviousBoot::default();
        let built = BuiltHandover::build(
            &self.decision,
            captured,
            &self.plan,
            machine,
            &previous,
            generation,
            memory,
        )?;
        built.verify(&self.plan, machine, &previous, memory)?;
        let chosen = Chosen {
            handover: Some(ChosenHandover {
                root: built.handover.kho.root,
                scratch: built.handover.kho.scratch,
            }),
            ..Chosen::default()
        };
        let tree = edit(&base, &chosen)?;
        Ok((built, tree))
    }

    /// The plan, to describe what was built.
    #[must_use]
    pub const fn memory_plan(&self) -> &MemoryPlan {
        &self.plan
    }
}

/// A device tree with `/chosen` alone: with nothing else in it, Linux takes the
/// machine from ACPI (`dt_is_stub()`).
fn tree() -> Result<Vec<u8>, FdtError> {
    let mut tree = FdtWriter::new();
    tree.begin_node("");
    tree.property_u32("#address-cells", 2);
    tree.property_u32("#size-cells", 2);
    tree.begin_node("chosen");
    tree.end_node();
    tree.end_node();
    tree.finish()
}

/// The tree of somebody else, as GRUB makes one for the initrd: with the numbers
/// of cells that a handover needs, and nothing that Linux would take a machine
/// from.
fn stub(other: &[u8]) -> Result<Vec<u8>, ResidentError> {
    const CELLS: [&str; 2] = ["#address-cells", "#size-cells"];

    let other = RawTree::new(other)?;
    let text = |name| {
        core::str::from_utf8(name).map_err(|_| FdtError::Structure {
            path: "/chosen".into(),
            reason: "a name is no text".into(),
        })
    };
    let mut missing = CELLS.to_vec();
    let (mut tree, mut depth) = (FdtWriter::new(), 0);
    for token in other.tokens() {
        match token?.1 {
            Token::Begin { name } => {
                let name = text(name)?;
                if depth == 1 {
                    if name != "chosen" {
                        let node = name.to_owned();
                        return Err(ResidentError::DescribesMachine { node });
                    }
                    // Properties come before the nodes.
                    missing
                        .drain(..)
                        .for_each(|cells| tree.property_u32(cells, 2));
                }
                tree.begin_node(name);
                depth += 1;
            }
            Token::Property { name, value } => {
                let name = text(name)?;
                if depth == 1 {
                    missing.retain(|cells| *cells != name);
                }
                tree.property(name, value);
            }
            Token::End => {
                depth -= 1;
                if depth == 0 {
                    missing
                        .drain(..)
                        .for_each(|cells| tree.property_u32(cells, 2));
                }
                tree.end_node();
            }
        }
    }
    Ok(tree.finish()?)
}
