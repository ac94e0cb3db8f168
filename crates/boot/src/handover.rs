//! The handover: built where Linux looks for it, then verified by an
//! independent reader.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use log::debug;
use warmbus_linux::chosen::NodeEdit;
use warmbus_linux::memory_plan::MemoryPlan;
use warmbus_machine::Machine;
use warmbus_memory::{MappedRange, MemoryRange, NotMemory};
use warmbus_pci::ConfigAccess;
use warmbus_pcsc_format::{
    BuildError, Handover, HandoverRecords, Layout, LayoutError, Placement, VerifyError,
};

use crate::decide::{HandoverDecision, PciPolicy, SurveyFacts};
use crate::host_policy::host_facts;
use crate::memory::BootMemory;
use crate::pipeline::Captured;
use crate::previous_boot::PreviousBoot;

/// Why a handover that was decided on is not made after all.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The memory plan has no space for it.
    #[error("the memory plan has no space for it")]
    NoArena,
    /// Its space is not usable memory.
    #[error(transparent)]
    Memory(#[from] NotMemory),
    /// So many functions cannot be laid out.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// It could not be written.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The independent reader found a fault in it.
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

/// A handover in memory.
#[derive(Clone, Debug)]
pub struct BuiltHandover {
    /// Where its parts are.
    pub handover: Handover,
    /// What Linux does with bus numbers and BARs.
    pub pci: PciPolicy,
    /// What the nodes of host bridges get for it.
    pub nodes: Vec<NodeEdit>,
    layout: Layout,
    arena: MemoryRange,
    inherited: Option<String>,
}

/// What the decision about a handover depends on, of what the pipeline made of
/// `machine`.
#[must_use]
pub fn survey_facts<A: ConfigAccess>(machine: &Machine, captured: &Captured<A>) -> SurveyFacts {
    SurveyFacts {
        hosts: host_facts(&machine.host_nodes, &captured.topology, &captured.late),
        chosen_probe_only: machine.chosen_probe_only,
        ..survey_of_functions(captured)
    }
}

/// The same without a device tree: of the host bridges in the topology alone.
#[must_use]
pub fn survey_of_functions<A: ConfigAccess>(captured: &Captured<A>) -> SurveyFacts {
    let topology = &captured.topology;
    let reset = |index: usize| {
        let host = topology.hosts().get(index);
        host.is_some_and(|(host, _)| !host.survives_linux_driver)
    };
    let mut lost: Vec<_> = topology
        .functions()
        .iter()
        .filter(|function| reset(function.host))
        .map(|function| function.sbdf)
        .collect();
    lost.sort_unstable();
    let blocks = captured.config.blocks();
    let usable = blocks.filter(|(sbdf, _)| lost.binary_search(sbdf).is_err());
    SurveyFacts {
        failure: captured.failure(),
        hosts: host_facts(&[], topology, &captured.late),
        chosen_probe_only: false,
        captured: captured.config.blocks().count(),
        usable: usable.count(),
    }
}

impl BuiltHandover {
    /// Builds in `memory` what `decision` says, where `plan` has it. Generation
    /// is a number that differs from boot to boot.
    pub fn build<A: ConfigAccess, M: BootMemory>(
        decision: &HandoverDecision,
        captured: &Captured<A>,
        plan: &MemoryPlan,
        machine: &Machine,
        previous: &PreviousBoot,
        generation: u64,
        memory: &mut M,
    ) -> Result<Self, HandoverError> {
        let arena = plan.arena.ok_or(HandoverError::NoArena)?;
        let records = HandoverRecords::new(&captured.config, &captured.topology);
        let blocks = records.blocks();
        let inherited = previous.inherited();
        let layout = Layout::new(blocks.len(), decision.abi, decision.page_size)?;
        let layout = layout.with_inherited(inherited)?;
        let layout = layout.with_name(decision.abi_name.as_deref());
        let placement = Placement {
            arena: arena.start,
            scratch: &plan.scratch,
            generation,
        };
        let arena = MemoryRange::new(arena.start, layout.size());
        let mut target = MappedRange::new(arena.start, memory.bytes_mut(arena)?);
        let handover = warmbus_pcsc_format::build_inheriting(
            &layout,
            &placement,
            inherited,
            &blocks,
            &mut target,
        )?;
        debug!("handover {handover:?}");
        Ok(Self {
            handover,
            nodes: decision
                .pci
                .node_edits(&machine.host_nodes, &captured.topology),
            pci: decision.pci.clone(),
            layout,
            arena,
            inherited: previous.parsed().map(|_| {
                let mut text = alloc::format!("{} entries, subtrees", inherited.entries.len());
                for subtree in inherited.subtrees {
                    text.push(' ');
                    text.push_str(&subtree.name);
                }
                text
            }),
        })
    }

    /// Reads the handover as Linux does: what is preserved must be all of it,
    /// and nothing that is something else.
    pub fn verify<M: BootMemory>(
        &self,
        plan: &MemoryPlan,
        machine: &Machine,
        previous: &PreviousBoot,
        memory: &M,
    ) -> Result<(), HandoverError> {
        let mut in_use: Vec<(&'static str, MemoryRange)> =
            vec![("the kernel", plan.kernel), ("the device tree", plan.tree)];
        in_use.extend(plan.initrd.map(|range| ("the initrd", range)));
        in_use.extend(plan.scratch.iter().map(|area| ("scratch memory", *area)));
        let firmware = memory.map().in_use().iter();
        in_use.extend(firmware.map(|range| ("the firmware", *range)));
        let reserved = machine.reservations.iter();
        in_use.extend(reserved.map(|one| ("reserved memory", one.range)));

        warmbus_pcsc_format::verify(
            &self.layout,
            &self.handover,
            previous.inherited().entries,
            self.arena.start,
            memory.bytes(self.arena)?,
            &in_use,
        )?;
        Ok(())
    }

    /// Writes what is handed over, a line for each part.
    pub fn describe(&self, to: &mut impl Write, plan: &MemoryPlan) -> fmt::Result {
        let handover = &self.handover;
        let subtree = handover.subtree();
        write!(to, "handover     ")?;
        if let Some(name) = self.layout.kho().name() {
            write!(to, "{name}, laid out as ")?;
        }
        writeln!(
            to,
            "{} at {}, root tree at {}",
            self.layout.abi(),
            self.arena,
            handover.kho.root.start
        )?;
        for area in &plan.scratch {
            writeln!(to, "scratch      {} MiB at {area}", area.size >> 20)?;
        }
        writeln!(
            to,
            "pcsc         {} bytes at {}, CRC-32 {:#010x}",
            subtree.size,
            subtree.start,
            handover.subtree_crc()
        )?;
        writeln!(
            to,
            "preserved    {} functions, {} bytes in {} entries",
            handover.functions, handover.kho.preserved_bytes, handover.kho.entries
        )?;
        if let Some(inherited) = &self.inherited {
            writeln!(to, "inherited    {inherited}")?;
        }
        writeln!(to, "PCI          {}", self.pci)
    }
}
