//! The handover: built where Linux looks for it, then looked at once more.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use log::debug;
use warmbus_boot::options::KhoChoice;
use warmbus_kho::{self, KhoAbi};
use warmbus_linux::detect;
use warmbus_linux::image::ImageHeader;
use warmbus_linux::memory::MemoryPlan;
use warmbus_machine::Source;
use warmbus_memory::MappedRange;
use warmbus_memory::MemoryRange;
use warmbus_memory::PageSize;
use warmbus_pci::VfScope;
use warmbus_pcsc_format::{Handover, HandoverRecords, Layout, Placement};

use super::{Loader, Why};
use crate::arch::timer;
use crate::pipeline::Outcome;

const NO_KHO: &str = "the kernel has no Kexec HandOver";

/// A handover that is to be made.
pub(super) struct Wanted<'o> {
    pub(super) outcome: &'o mut Outcome,
    pub(super) page_size: PageSize,
}

/// A handover that was made.
pub(super) struct Handed {
    pub(super) handover: Handover,
    /// What Linux makes of bus numbers and BARs.
    setup: Setup,
    layout: Layout,
    arena: MemoryRange,
    /// What goes on from an earlier handover, for people.
    inherited: Option<String>,
}

/// What Linux makes of bus numbers and BARs.
enum Setup {
    /// It is told to keep all of them.
    Kept,
    /// It gives all of them anew, for this reason.
    Anew(String),
    /// It keeps the bus numbers that it finds, since it is told by ACPI, and
    /// gives BARs other addresses where ACPI does not forbid that (`_DSM` of a
    /// host bridge, function 5). Both it writes.
    KeptBuses,
}

impl Loader<'_> {
    /// Whether there is anything to hand over, and to whom.
    pub(super) fn wanted<'o>(
        &self,
        header: &ImageHeader,
        outcome: Option<&'o mut Outcome>,
    ) -> Result<Wanted<'o>, Why> {
        if self.options.kho == KhoChoice::Off {
            return Err("it was switched off with warmbus.kho=off".into());
        }
        let outcome = outcome.ok_or("there is nothing to hand over")?;
        if let Some(failure) = &outcome.failure {
            return Err(failure.clone().into());
        }
        let page_size = detect::page_size(header)?;
        match &self.earlier.incoming {
            Some(Err(_)) => return Err("what an earlier kernel hands over goes first".into()),
            Some(Ok(incoming)) if incoming.page_size != page_size => {
                return Err(format!(
                    "this kernel has {page_size} pages, and the one that handed over {} ones",
                    incoming.page_size
                )
                .into());
            }
            _ => {}
        }
        Ok(Wanted { outcome, page_size })
    }

    /// The version of the handover that the kernel, which is unpacked at
    /// `kernel`, or the user wants; `None` where the kernel wants none.
    pub(super) fn abi(&self, kernel: MemoryRange) -> Result<Option<KhoAbi>, Why> {
        let image = self.memory.bytes(kernel)?;
        if self.machine.source == Source::Acpi && !detect::keeps_scratch_with_uefi(image) {
            return Err(
                "on a machine with UEFI a Linux before 7.0 forgets its scratch memory".into(),
            );
        }
        Ok(match self.options.kho {
            KhoChoice::Abi(abi) => Some(abi),
            KhoChoice::Off => None,
            KhoChoice::Auto => detect::detect(image)?,
        })
    }

    /// Whether the kernel, which is unpacked at `kernel`, asks less where it is
    /// told where virtual functions would be, and the user lets us ask.
    pub(super) fn wants_routing(&self, kernel: MemoryRange) -> bool {
        let vfs = &self.options.vfs;
        let is_off = vfs.scope == VfScope::Off && vfs.listed.is_empty();
        let image = self.memory.bytes(kernel);
        !is_off && image.is_ok_and(detect::supports_pcsc_extension)
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
        if self.earlier.incoming.is_some() && !abi.has_radix_tree() {
            return Err(format!("what an earlier kernel hands over cannot become {abi}").into());
        }
        let setup = self.setup(wanted.outcome);
        if let Setup::Anew(gap) = &setup
            && abi.has_radix_tree()
        {
            return Err(format!(
                "this Linux gives all buses other numbers, so that the cache would not fit: {gap}"
            )
            .into());
        }
        let arena = plan.arena.ok_or("it has no place")?;
        let outcome = &*wanted.outcome;
        let gathered = HandoverRecords::new(&outcome.config, &outcome.topology);
        let blocks = gathered.blocks();
        if blocks.is_empty() && outcome.config.blocks().next().is_some() {
            return Err("Linux finds no function as it was captured".into());
        }
        let earlier = self.earlier;
        let inherited = earlier.inherited();
        let layout = Layout::new(blocks.len(), abi, wanted.page_size)?;
        let layout = layout.with_inherited(inherited)?;
        let placement = Placement {
            arena: arena.start,
            scratch: &plan.scratch,
            absent: outcome.topology.absent(),
            generation: timer::stamp(),
        };
        let told = earlier.incoming.as_ref().map(|_| {
            let mut told = format!("{} entries, subtrees", inherited.entries.len());
            for subtree in inherited.subtrees {
                told.push(' ');
                told.push_str(&subtree.name);
            }
            told
        });
        let arena = MemoryRange::new(arena.start, layout.size());
        let mut memory = MappedRange::new(arena.start, self.memory.bytes_mut(arena)?);
        let handover = warmbus_pcsc_format::build_inheriting(
            &layout,
            &placement,
            inherited,
            &blocks,
            &mut memory,
        )?;
        debug!("handover {handover:?}");
        Ok(Handed {
            handover,
            setup,
            layout,
            arena,
            inherited: told,
        })
    }

    /// What Linux is going to make of bus numbers and BARs.
    fn setup(&self, outcome: &Outcome) -> Setup {
        if self.machine.source == Source::Acpi {
            return Setup::KeptBuses;
        }
        // What is not assigned here has to be by Linux, which is told to for
        // all host bridges or for none.
        let hosts = self.machine.hosts.len() + self.machine.unusable_host_bridges;
        let excluded = hosts - outcome.topology.hosts().len();
        let refused = (excluded != 0).then(|| format!("{excluded} host bridges are left out"));
        let mut hosts = outcome.topology.hosts().iter().map(|(host, _)| host);
        let reset = hosts.find(|host| !host.kept).map(|host| {
            format!(
                "the driver that Linux has for {} does not take it as it is",
                host.name
            )
        });
        match outcome.gap.clone().or(refused).or(reset) {
            None => Setup::Kept,
            Some(gap) => Setup::Anew(gap),
        }
    }

    /// Goes the way of the kernel through what is in memory: what is preserved
    /// must be all of the handover, and nothing of what else there is.
    pub(super) fn verify(&self, plan: &MemoryPlan, handed: &Handed) -> Result<(), Why> {
        let mut in_use: Vec<(&'static str, MemoryRange)> =
            vec![("the kernel", plan.kernel), ("the device tree", plan.tree)];
        in_use.extend(plan.initrd.map(|range| ("the initrd", range)));
        in_use.extend(plan.scratch.iter().map(|area| ("scratch memory", *area)));
        let taken = self.memory.taken().iter();
        in_use.extend(taken.map(|range| ("the firmware", *range)));
        let reserved = self.machine.reservations.iter();
        in_use.extend(reserved.map(|one| ("reserved memory", one.range)));

        let arena = self.memory.bytes(handed.arena)?;
        let start = handed.arena.start;
        let inherited = self.earlier.inherited().entries;
        warmbus_pcsc_format::verify(
            &handed.layout,
            &handed.handover,
            inherited,
            start,
            arena,
            &in_use,
        )?;
        Ok(())
    }
}

impl Handed {
    /// Whether Linux is told to keep bus numbers and BARs.
    pub(super) const fn is_probe_only(&self) -> bool {
        matches!(self.setup, Setup::Kept)
    }

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
        if let Some(inherited) = &self.inherited {
            writeln!(to, "inherited    {inherited}")?;
        }
        match &self.setup {
            Setup::Kept => writeln!(to, "PCI          Linux keeps all bus numbers and BARs"),
            Setup::Anew(gap) => writeln!(to, "PCI          Linux assigns again: {gap}"),
            Setup::KeptBuses => writeln!(
                to,
                "PCI          Linux keeps all bus numbers, and may move BARs (ACPI)"
            ),
        }
    }
}
