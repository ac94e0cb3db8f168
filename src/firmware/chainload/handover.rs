//! The handover: built where Linux looks for it, then looked at once more.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use log::debug;
use warmbus::kho::map::Preserved;
use warmbus::kho::{
    self, Gathered, Handover, Inherited, KhoAbi, Layout, LayoutError, Placement, Window,
};
use warmbus::linux::detect;
use warmbus::linux::image::{ImageHeader, PageSize};
use warmbus::linux::memory::{MemoryPlan, MemoryRange};
use warmbus::machine::KhoChoice;

use super::{Loader, Why};
use crate::earlier::Earlier;
use crate::pipeline::Outcome;
use crate::timer;

/// Entries of an earlier map that are copied, of 16 bytes each.
const MOST_ENTRIES: usize = 1 << 20;

const NO_KHO: &str = "the kernel has no Kexec HandOver";

/// A handover that is to be made.
pub(super) struct Wanted<'o> {
    pub(super) outcome: &'o Outcome,
    pub(super) page_size: PageSize,
    /// Memory that an earlier handover keeps preserved.
    entries: Vec<Preserved>,
}

impl Wanted<'_> {
    /// The layout for a number of functions.
    pub(super) fn layout(&self, functions: usize, abi: KhoAbi) -> Result<Layout, LayoutError> {
        let layout = Layout::new(functions, abi, self.page_size)?;
        if self.entries.is_empty() {
            return Ok(layout);
        }
        layout.with_inherited(&self.entries)
    }
}

/// A handover that was made.
pub(super) struct Handed {
    pub(super) handover: Handover,
    /// Why Linux may not keep bus numbers and BARs, if it may not.
    pub(super) gap: Option<String>,
    layout: Layout,
    arena: MemoryRange,
    inherits: Option<Inherits>,
}

/// What goes on from an earlier handover.
struct Inherits {
    subtrees: Vec<String>,
    entries: usize,
}

impl Loader<'_> {
    /// Whether there is anything to hand over, and to whom.
    pub(super) fn wanted<'o>(
        &self,
        header: &ImageHeader,
        outcome: Option<&'o Outcome>,
    ) -> Result<Wanted<'o>, Why> {
        if self.options.kho == KhoChoice::Off {
            return Err("it was switched off with warmbus.kho=off".into());
        }
        let outcome = outcome.ok_or("there is nothing to hand over")?;
        if let Some(failure) = &outcome.failure {
            return Err(failure.clone().into());
        }
        let page_size = detect::page_size(header)?;
        let entries = match self.earlier {
            Earlier::None => Vec::new(),
            Earlier::Opaque => return Err("what an earlier kernel hands over goes first".into()),
            Earlier::Followed(incoming) if incoming.page_size != page_size => {
                return Err(format!(
                    "this kernel has {page_size} pages, and the one that handed over had {} ones",
                    incoming.page_size
                )
                .into());
            }
            Earlier::Followed(incoming) => incoming.entries(&self.memory, MOST_ENTRIES)?,
        };
        Ok(Wanted {
            outcome,
            page_size,
            entries,
        })
    }

    /// The version of the handover that the kernel, which is unpacked at
    /// `kernel`, or the user wants; `None` where the kernel wants none.
    pub(super) fn abi(&self, kernel: MemoryRange) -> Result<Option<KhoAbi>, Why> {
        Ok(match self.options.kho {
            KhoChoice::Abi(abi) => Some(abi),
            KhoChoice::Off => None,
            KhoChoice::Auto => detect::detect(self.memory.bytes(kernel)?)?,
        })
    }

    /// Builds the handover in memory.
    pub(super) fn hand_over(
        &mut self,
        plan: &MemoryPlan,
        abi: Result<Option<KhoAbi>, Why>,
        wanted: Result<Wanted<'_>, Why>,
    ) -> Result<Handed, Why> {
        // Where the kernel wants no handover, it matters little what else is
        // in the way of one.
        let (abi, wanted) = match (abi?, wanted) {
            (None, _) if self.options.kho == KhoChoice::Auto => return Err(NO_KHO.into()),
            (abi, wanted) => (abi.ok_or(NO_KHO), wanted?),
        };
        let abi = abi?;
        if self.earlier.followed().is_some() && !abi.has_radix_tree() {
            return Err(format!("what an earlier kernel hands over cannot become {abi}").into());
        }
        let gap = self.gap(wanted.outcome);
        if let Some(gap) = gap.as_ref().filter(|_| abi.has_radix_tree()) {
            return Err(format!(
                "this Linux gives all buses other numbers, so that the cache would not fit: {gap}"
            )
            .into());
        }
        let arena = plan.arena.ok_or("it has no place")?;
        let outcome = wanted.outcome;
        let gathered = Gathered::new(&outcome.config, &outcome.topology);
        let blocks = gathered.blocks();
        if blocks.is_empty() && outcome.config.blocks().next().is_some() {
            return Err("Linux finds no function as it was captured".into());
        }
        let layout = wanted.layout(blocks.len(), abi)?;
        let placement = Placement {
            arena: arena.start,
            scratch: &plan.scratch,
            generation: timer::stamp(),
        };
        let subtrees = self.earlier.followed().map(|incoming| &incoming.subtrees);
        let inherited = Inherited {
            subtrees: subtrees.map_or(&[], Vec::as_slice),
            entries: &wanted.entries,
        };
        let names = inherited
            .subtrees
            .iter()
            .map(|subtree| subtree.name.clone());
        let inherits = self.earlier.followed().map(|_| Inherits {
            subtrees: names.collect(),
            entries: inherited.entries.len(),
        });
        let arena = MemoryRange::new(arena.start, layout.size());
        let mut memory = Window::new(arena.start, self.memory.bytes_mut(arena)?);
        let handover = kho::build_upon(&layout, &placement, inherited, &blocks, &mut memory)?;
        debug!("handover {handover:?}");
        Ok(Handed {
            handover,
            gap,
            layout,
            arena,
            inherits,
        })
    }

    /// Why Linux may not keep bus numbers and BARs, if it may not.
    fn gap(&self, outcome: &Outcome) -> Option<String> {
        // What is not assigned here has to be by Linux, which is told to for
        // all host bridges or for none.
        let hosts = self.machine.hosts.len() + self.machine.refused_hosts;
        let left_out = hosts - outcome.topology.hosts.len();
        let refused = (left_out != 0).then(|| format!("{left_out} host bridges are left out"));
        let mut hosts = outcome.topology.hosts.iter().map(|(host, _)| host);
        let reset = hosts.find(|host| !host.kept).map(|host| {
            format!(
                "the driver that Linux has for {} does not take it as it is",
                host.name
            )
        });
        outcome.gap.clone().or(refused).or(reset)
    }

    /// Calculates every checksum again from what is in memory.
    pub(super) fn verify(&self, handed: &Handed) -> Result<(), Why> {
        let arena = self.memory.bytes(handed.arena)?;
        kho::verify(&handed.layout, &handed.handover, handed.arena.start, arena)?;
        Ok(())
    }
}

impl Handed {
    /// Says what is handed over, for people.
    pub(super) fn describe(&self, to: &mut impl Write, plan: &MemoryPlan) -> fmt::Result {
        let handover = &self.handover;
        writeln!(
            to,
            "handover     {} at {}, root tree at {}",
            self.layout.abi(),
            self.arena,
            handover.root.start
        )?;
        for area in &plan.scratch {
            writeln!(to, "scratch      {} MiB at {area}", area.size >> 20)?;
        }
        writeln!(
            to,
            "pcsc         {} bytes at {}, CRC-32 {:#010x}",
            handover.subtree.size, handover.subtree.start, handover.subtree_crc
        )?;
        writeln!(
            to,
            "preserved    {} functions, {} bytes in {} entries",
            handover.functions, handover.preserved_bytes, handover.entries
        )?;
        if let Some(inherits) = &self.inherits {
            writeln!(
                to,
                "inherited    {} entries, subtrees {}",
                inherits.entries,
                inherits.subtrees.join(" ")
            )?;
        }
        match &self.gap {
            None => writeln!(to, "PCI          Linux keeps all bus numbers and BARs"),
            Some(gap) => writeln!(to, "PCI          Linux assigns again: {gap}"),
        }
    }
}
