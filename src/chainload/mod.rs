//! Starting Linux, with the cache handed over if that is possible at all.
//!
//! Whatever goes wrong with the handover, Linux is started as it would have
//! been without Warmbus: its tree says nothing but what the payload itself
//! needs.

mod handover;
mod memory_layout;

use alloc::boxed::Box;
use alloc::string::String;
use core::error::Error;
use core::fmt::{self, Write};

use log::warn;
use warmbus_boot::options::Options;
use warmbus_linux::detect;
use warmbus_linux::devicetree::{Chosen, ChosenHandover, edit};
use warmbus_linux::image::{HEADER_SIZE, ImageHeader};
use warmbus_linux::memory::MemoryPlan;
use warmbus_linux::payload::{Module, Payload, PayloadError};
use warmbus_linux::unpack::KernelFormat;
use warmbus_machine::Machine;
use warmbus_memory::MemoryRange;

use crate::arch::cache;
use crate::arch::timer::Timer;
use crate::console::{self, println};
use crate::image::Image;
use crate::kernel_entry;
use crate::mem::heap;
use crate::mem::physical::PhysicalMemory;
use crate::phase_times::Phases;
use crate::pipeline::{self, Outcome};
use crate::previous_handover::PreviousBoot;
use handover::Handed;

/// Why something is not done.
type Why = Box<dyn Error>;

/// Everything that Linux is loaded from.
pub(crate) struct Loader<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) options: &'a Options,
    /// The boot tree.
    pub(crate) tree: &'a [u8],
    pub(crate) payload: &'a Payload<'a>,
    /// The kernel of the payload.
    pub(crate) kernel: Module<'a>,
    pub(crate) memory: PhysicalMemory,
    /// What an earlier kernel hands over.
    pub(crate) earlier: &'a PreviousBoot,
    pub(crate) timer: Timer,
}

/// A Linux in memory that only has to be entered.
pub(crate) struct Linux {
    entry: u64,
    tree: MemoryRange,
    has_cache: bool,
    /// What is where, for people.
    about: String,
}

/// What the loaders before us say is to be started. A tree that cannot be
/// followed to its end holds nothing to start.
pub(crate) fn find(tree: &[u8]) -> Result<Payload<'_>, PayloadError> {
    match Payload::find(tree) {
        Err(PayloadError::Tree(error)) => {
            warn!("no kernel is looked for: {error}");
            Ok(Payload::default())
        }
        found => found,
    }
}

impl Loader<'_> {
    /// Brings Linux into memory. `outcome` is what is to be handed over, or
    /// `None` where there is nothing.
    pub(crate) fn load(
        mut self,
        outcome: Option<&mut Outcome>,
        phases: &mut Phases,
    ) -> Result<Linux, Why> {
        let header = self.header()?;
        let wanted = self.wanted(&header, outcome);
        let (plan, mut wanted) = phases.run("plan", || self.plan(&header, wanted))?;
        let kernel = phases.run("unpack", || self.unpack(&plan))?;
        let abi = phases.run("detect", || self.abi(kernel));
        if let (Ok(Some(_)), Ok(wanted)) = (&abi, &mut wanted)
            && self.wants_routing(kernel)
        {
            pipeline::ask_routing(wanted.outcome, self.timer, phases);
        }
        let mut handed = phases.run("kho", || self.hand_over(&plan, abi, wanted));
        let mut tree = phases.run("tree", || self.write_tree(&plan, handed.as_ref().ok()))?;
        phases.run("clean", || clean(&plan));
        if let Ok(written) = &handed {
            let verified = phases.run("handover-check", || self.verify(&plan, written));
            if let Err(error) = verified {
                handed = Err(error);
                tree = self.write_tree(&plan, None)?;
                cache::clean_and_invalidate_to_poc(tree);
            }
        }
        if let Err(why) = &handed {
            warn!("nothing is handed over, Linux starts plainly: {why}");
        }
        let mut about = String::new();
        // A string takes whatever is written to it.
        let _ = self.describe(&mut about, &header, &plan, kernel, tree);
        let _ = handed.as_ref().map(|done| done.describe(&mut about, &plan));
        Ok(Linux {
            entry: plan.kernel.start.0,
            tree,
            has_cache: handed.is_ok(),
            about,
        })
    }

    /// The header of the kernel, whatever the kernel is packed in.
    fn header(&self) -> Result<ImageHeader, Why> {
        let file = self.memory.bytes(self.kernel.range)?;
        let mut start = [0; HEADER_SIZE];
        let count = KernelFormat::detect(file)?.peek(&mut start)?;
        Ok(ImageHeader::parse(&start[..count])?)
    }

    /// Brings kernel and initrd to their places. Returns the kernel without
    /// what it clears by itself.
    fn unpack(&mut self, plan: &MemoryPlan) -> Result<MemoryRange, Why> {
        let (file, room) = self
            .memory
            .source_and_target(self.kernel.range, plan.kernel)?;
        let size = KernelFormat::detect(file)?.unpack_into(room)?;
        if let (Some(module), Some(place)) = (self.payload.ramdisk, plan.initrd)
            && module.range != place
        {
            let (loaded, room) = self.memory.source_and_target(module.range, place)?;
            room.copy_from_slice(loaded);
        }
        Ok(MemoryRange::new(plan.kernel.start, size as u64))
    }

    /// Writes the tree for Linux and tells where it is.
    fn write_tree(
        &mut self,
        plan: &MemoryPlan,
        handed: Option<&Handed>,
    ) -> Result<MemoryRange, Why> {
        let chosen = Chosen {
            bootargs: self.kernel.bootargs,
            initrd: plan.initrd,
            handover: handed.map(|handed| ChosenHandover {
                root: handed.handover.root,
                scratch: handed.handover.scratch,
            }),
            probe_only: handed.is_some_and(Handed::is_probe_only),
            released: self.payload.bundle,
        };
        let tree = edit(self.tree, &chosen)?;
        let range = MemoryRange::new(plan.tree.start, tree.len() as u64);
        self.memory.bytes_mut(range)?.copy_from_slice(&tree);
        Ok(range)
    }

    /// Says what is where, for people.
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
            release.unwrap_or("of no known version")
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

/// Cleans everything that Linux gets to the point of coherency.
fn clean(plan: &MemoryPlan) {
    let pieces = [Some(plan.kernel), plan.initrd, Some(plan.tree), plan.arena];
    pieces
        .into_iter()
        .flatten()
        .for_each(cache::clean_and_invalidate_to_poc);
}

impl Linux {
    /// Says what is where, for people.
    pub(crate) fn tell(&self) {
        console::print(format_args!("{}", self.about));
    }

    /// Starts it.
    ///
    /// # Safety
    ///
    /// Nothing may have been written since [`Loader::load`] to the memory that
    /// Linux was loaded to.
    pub(crate) unsafe fn start(self, image: &Image) -> ! {
        println!(
            "warmbus: starting Linux at {:#x}, {}",
            self.entry,
            if self.has_cache {
                "with the cache"
            } else {
                "plainly"
            }
        );
        // Linux may use this memory before its caches are on.
        cache::clean_and_invalidate_to_poc(heap::touched());
        // SAFETY: `load` has put both there and cleaned them; that nobody has
        // written since is the contract of this function.
        unsafe { kernel_entry::enter_kernel(self.entry, self.tree.start.0, image) }
    }
}
