//! Loads Linux, with the cache handed over if that is possible.
//!
//! Whatever fails with the handover, Linux is started as it would have been
//! without Warmbus: its tree has nothing but what the payload itself needs.

use alloc::string::String;
use core::fmt::{self, Write};

use log::warn;
use warmbus_linux::chosen::{Chosen, ChosenError, ChosenHandover, edit};
use warmbus_linux::decompress::{DecompressError, KernelFormat};
use warmbus_linux::detect;
use warmbus_linux::image::{HEADER_SIZE, ImageError, ImageHeader};
use warmbus_linux::memory_plan::MemoryPlan;
use warmbus_linux::payload::{Module, Payload};
use warmbus_linux::pci_parameters::PciParameters;
use warmbus_machine::Machine;
use warmbus_memory::{MemoryRange, NotMemory};
use warmbus_pci::time::Clock;
use warmbus_pci::{ConfigAccess, VfScope};

use crate::decide::{Decision, Facts, KernelFacts, Refusal, decide};
use crate::handover::{BuiltHandover, HandoverError, survey_facts};
use crate::memory::BootMemory;
use crate::memory_layout::{LayoutRequest, LayoutRequestError};
use crate::options::Options;
use crate::pci_words::word_for_linux;
use crate::phase::{Observer, Phase};
use crate::pipeline::Captured;
use crate::previous_boot::PreviousBoot;

/// What Linux is loaded from.
#[derive(Debug)]
pub struct Loader<'a, M> {
    /// The machine.
    pub machine: &'a Machine,
    /// What the boot arguments ask for.
    pub options: &'a Options,
    /// The boot tree.
    pub tree: &'a [u8],
    /// What is started.
    pub payload: &'a Payload<'a>,
    /// The kernel of the payload.
    pub kernel: Module<'a>,
    /// Memory that may be written to.
    pub memory: M,
    /// What a previous kernel hands over.
    pub previous: &'a PreviousBoot,
    /// A number that differs from boot to boot.
    pub generation: u64,
}

/// Why Linux cannot be started at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The payload, or the place for it, is not usable memory.
    #[error(transparent)]
    Memory(#[from] NotMemory),
    /// The kernel is no arm64 Image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The kernel cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] DecompressError),
    /// There is no place for everything.
    #[error(transparent)]
    Layout(#[from] LayoutRequestError),
    /// The boot tree cannot be edited.
    #[error(transparent)]
    Tree(#[from] ChosenError),
}

/// Why Linux starts without the cache.
#[derive(Debug, thiserror::Error)]
pub enum NoHandover {
    /// It was decided so.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The handover could not be made, or the independent reader refused it.
    #[error(transparent)]
    Failed(#[from] HandoverError),
}

/// A Linux in memory that only has to be entered.
#[derive(Debug)]
pub struct LoadedLinux {
    /// Its first instruction.
    pub entry: u64,
    /// The device tree for it.
    pub tree: MemoryRange,
    /// Why the cache is not handed over, if it is not.
    pub without_cache: Option<NoHandover>,
    /// What is where, a line for each part.
    pub description: String,
}

impl<M: BootMemory> Loader<'_, M> {
    /// Loads Linux. `captured` is what there is to be handed over, if there
    /// is anything.
    pub fn load<A, C, O>(
        &mut self,
        mut captured: Option<&mut Captured<A>>,
        clock: &mut C,
        observer: &mut O,
    ) -> Result<LoadedLinux, LoadError>
    where
        A: ConfigAccess,
        C: Clock,
        O: Observer<A>,
    {
        let header = self.header()?;
        let mut facts = self.facts(&header, captured.as_deref());
        let (mut plan, space) = run(observer, Phase::Plan, || self.plan(&header, &facts))?;
        let kernel = run(observer, Phase::Unpack, || self.unpack(&plan))?;
        let kernel_facts = run(observer, Phase::Detect, || {
            let image = self.memory.bytes(kernel)?;
            Ok::<_, LoadError>(KernelFacts::of(&facts, image))
        })?;
        // Unpacking takes so long that a slow device may have come meanwhile.
        if let Some(captured) = captured.as_deref_mut() {
            captured.look_again(observer);
            facts = self.facts(&header, Some(captured));
        }
        let decision = decide(&facts, &kernel_facts, space);
        if plan.gigantic_areas > 0 && detect::extends_scratch(self.memory.bytes(kernel)?) {
            plan.exclude_gigantic();
        }
        let mut result = self.hand_over(decision, captured, &plan, clock, observer);
        let mut tree = run(observer, Phase::Tree, || {
            self.write_tree(&plan, result.as_ref().ok())
        })?;
        run(observer, Phase::Clean, || self.clean(&plan, result.is_ok()));
        if let Ok(built) = &result {
            let verified = run(observer, Phase::HandoverCheck, || {
                built.verify(&plan, self.machine, self.previous, &self.memory)
            });
            if let Err(error) = verified {
                result = Err(NoHandover::Failed(error));
                tree = self.write_tree(&plan, None)?;
                self.memory.clean(tree);
            }
        }
        if let Err(reason) = &result {
            warn!("no cache handed over: {reason}; booting Linux without it");
        }
        let mut description = String::new();
        // A string takes whatever is written to it.
        let _ = self.describe(&mut description, &header, &plan, kernel, tree);
        if let Ok(built) = &result {
            let _ = built.describe(&mut description, &plan);
        }
        Ok(LoadedLinux {
            entry: plan.kernel.start.0,
            tree,
            without_cache: result.err(),
            description,
        })
    }

    /// Builds the handover that was decided on.
    fn hand_over<A, C, O>(
        &mut self,
        decision: Decision,
        captured: Option<&mut Captured<A>>,
        plan: &MemoryPlan,
        clock: &mut C,
        observer: &mut O,
    ) -> Result<BuiltHandover, NoHandover>
    where
        A: ConfigAccess,
        C: Clock,
        O: Observer<A>,
    {
        let decision = match decision {
            Decision::Handover(decision) => decision,
            Decision::Without(refusal) => return Err(refusal.into()),
        };
        let captured = captured.ok_or(Refusal::NoSurvey)?;
        if decision.probe_vf_routing {
            captured.probe_vf_routing(clock, observer);
        }
        let built = run(observer, Phase::Build, || {
            BuiltHandover::build(
                &decision,
                captured,
                plan,
                self.machine,
                self.previous,
                self.generation,
                &mut self.memory,
            )
        });
        Ok(built?)
    }

    /// The header of the kernel, whatever the kernel is packed in.
    fn header(&self) -> Result<ImageHeader, LoadError> {
        let file = self.memory.bytes(self.kernel.range)?;
        let mut start = [0; HEADER_SIZE];
        let count = KernelFormat::detect(file)?.read_prefix(&mut start)?;
        Ok(ImageHeader::parse(&start[..count])?)
    }

    /// What the decision depends on and is known before the kernel is
    /// unpacked.
    fn facts<A: ConfigAccess>(
        &self,
        header: &ImageHeader,
        captured: Option<&Captured<A>>,
    ) -> Facts {
        let vfs = &self.options.vfs;
        let has_vfs = captured.is_some_and(|captured| {
            let mut functions = captured.topology.functions().iter();
            functions.any(|function| function.sriov.is_some())
        });
        Facts {
            requested: self.options.kho.for_linux(self.command_line()),
            may_probe_vfs: has_vfs && (vfs.scope != VfScope::Off || !vfs.listed.is_empty()),
            source: self.machine.source,
            pci_word: captured.and_then(|captured| {
                let parameters = PciParameters::from_command_line(self.command_line());
                word_for_linux(&parameters, &captured.topology)
            }),
            survey: captured.map(|captured| survey_facts(self.machine, captured)),
            previous: self.previous.facts(),
            page_size: detect::page_size(header),
        }
    }

    /// The command line of the kernel, where it has one.
    fn command_line(&self) -> &str {
        let line = self.payload.command_line(Some(self.kernel));
        line.unwrap_or_default()
    }

    /// Finds a place for everything, with the handover if there is one for
    /// it; why there is none for it otherwise.
    fn plan(
        &self,
        header: &ImageHeader,
        facts: &Facts,
    ) -> Result<(MemoryPlan, Result<(), LayoutRequestError>), LoadError> {
        if let Some(ramdisk) = self.payload.ramdisk {
            self.memory.bytes(ramdisk.range)?;
        }
        let file = self.memory.bytes(self.kernel.range)?;
        let request = LayoutRequest {
            machine: self.machine,
            tree: self.tree,
            payload: self.payload,
            kernel: self.kernel,
            may_stay: matches!(KernelFormat::detect(file)?, KernelFormat::Uncompressed(_)),
            header,
            in_use: self.memory.map().in_use(),
            previous: self.previous,
        };
        let functions = facts.survey.as_ref().map_or(0, |survey| survey.captured);
        let Ok(page_size) = facts.request() else {
            return Ok((request.plan(None)?, Ok(())));
        };
        let with_handover = request
            .handover_needs(self.options.kho, functions, page_size)
            .map_err(LayoutRequestError::from)
            .and_then(|needs| Ok((request.plan(Some(needs))?, needs.scratch)));
        match with_handover {
            Ok((plan, needs)) => {
                if let Some(requested) = needs.requested_bytes() {
                    let planned = plan.kernel_scratch_bytes();
                    if planned >= 2 * requested {
                        warn!(
                            "kho_scratch= asks for {} MiB; the kernel gets {} MiB of scratch memory",
                            requested >> 20,
                            planned >> 20
                        );
                    }
                }
                Ok((plan, Ok(())))
            }
            Err(error) => Ok((request.plan(None)?, Err(error))),
        }
    }

    /// Moves kernel and initrd to their places, where they are not there yet.
    /// Returns the kernel without what it clears by itself.
    fn unpack(&mut self, plan: &MemoryPlan) -> Result<MemoryRange, LoadError> {
        let file = self.kernel.range;
        let size = if file.start == plan.kernel.start {
            file.size
        } else {
            let (packed, target) = self.memory.source_and_target(file, plan.kernel)?;
            match KernelFormat::detect(packed)? {
                KernelFormat::Uncompressed(_) if file.size <= plan.kernel.size => {
                    self.memory.copy(file, plan.kernel.start)?;
                    file.size
                }
                packed => packed.decompress_into(target)? as u64,
            }
        };
        if let (Some(module), Some(range)) = (self.payload.ramdisk, plan.initrd)
            && module.range != range
        {
            self.memory.copy(module.range, range.start)?;
        }
        Ok(MemoryRange::new(plan.kernel.start, size))
    }

    /// Writes the tree for Linux. Returns where it is.
    fn write_tree(
        &mut self,
        plan: &MemoryPlan,
        handover: Option<&BuiltHandover>,
    ) -> Result<MemoryRange, LoadError> {
        let chosen = Chosen {
            bootargs: self.kernel.bootargs,
            initrd: plan.initrd,
            handover: handover.map(|built| ChosenHandover {
                root: built.handover.kho.root,
                scratch: built.handover.kho.scratch,
            }),
            probe_only: handover.is_some_and(|built| built.pci.is_probe_only()),
            nodes: handover.map_or(&[], |built| &built.nodes),
            released: self.payload.combined_initrd,
        };
        let tree = edit(self.tree, &chosen)?;
        let range = MemoryRange::new(plan.tree.start, tree.len() as u64);
        self.memory.bytes_mut(range)?.copy_from_slice(&tree);
        Ok(range)
    }

    /// Cleans everything that Linux gets; the space of the handover only where
    /// there is one, as without one it may be no memory.
    fn clean(&self, plan: &MemoryPlan, has_handover: bool) {
        let arena = plan.arena.filter(|_| has_handover);
        let pieces = [Some(plan.kernel), plan.initrd, Some(plan.tree), arena];
        for piece in pieces.into_iter().flatten() {
            self.memory.clean(piece);
        }
    }

    /// Writes what is where, a line for each part.
    fn describe(
        &self,
        to: &mut impl Write,
        header: &ImageHeader,
        plan: &MemoryPlan,
        kernel: MemoryRange,
        tree: MemoryRange,
    ) -> fmt::Result {
        let release = self.memory.bytes(kernel).ok().and_then(detect::release);
        write!(
            to,
            "kernel       Linux {}, ",
            release.unwrap_or("of unknown version")
        )?;
        if let Some(size) = header.page_size {
            write!(to, "{size} pages, ")?;
        }
        writeln!(to, "at {}", plan.kernel)?;
        if let Some(initrd) = plan.initrd {
            writeln!(to, "initrd       {} bytes at {initrd}", initrd.size)?;
        }
        writeln!(to, "device tree  {} bytes at {tree}", tree.size)
    }
}

/// Runs one phase that accesses no configuration space.
fn run<A: ConfigAccess, T>(
    observer: &mut impl Observer<A>,
    phase: Phase,
    run: impl FnOnce() -> T,
) -> T {
    observer.phase_begins(phase, None);
    let result = run();
    observer.phase_ends(phase, None);
    result
}
