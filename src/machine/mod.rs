//! The machine, as its device tree describes it.
//!
//! A tree that cannot be read at all is a [`MachineError`]. A smaller fault
//! only costs the thing it describes, and becomes a warning.

mod bindings;
mod bridges;
mod cells;
mod error;
mod lifeline;
mod memory;
mod options;
#[cfg(test)]
mod tests;
mod tree;
mod windows;

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::ControlFlow;

pub use error::MachineError;
pub use lifeline::{Conduit, Console, ConsoleKind, Lifeline};
pub use memory::{Region, Reservation, ReservationKind, subtract};
pub use options::{KhoChoice, Options};

use crate::pci::HostBridge;
use tree::Tree;

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Model name, if the tree has one.
    pub model: Option<String>,
    /// Memory: sorted, without overlaps, neighbours joined; not empty.
    pub memory: Vec<Region>,
    /// The same memory, each region with the number of its NUMA node; 0 where
    /// the tree does not tell.
    pub memory_nodes: Vec<(Region, u32)>,
    /// What of the memory is taken, in no order; may overlap and may lie
    /// outside of [`Machine::memory`].
    pub reservations: Vec<Reservation>,
    /// The host bridges that can be used, in the order of the tree. No two
    /// share configuration space, buses or windows.
    pub hosts: Vec<HostBridge>,
    /// How many more host bridges the tree has; a warning says why each is
    /// left out.
    pub refused_hosts: usize,
    /// Console and power.
    pub lifeline: Lifeline,
    /// Processors that are there to be used.
    pub cpus: usize,
    /// Ticks a second of the system counter where the tree gives it, which it
    /// only does where `CNTFRQ_EL0` is wrong.
    pub timer_frequency: Option<u32>,
    /// The kernel command line in `/chosen`.
    pub bootargs: String,
    /// A running kernel has started this program (`linux,booted-from-kexec`).
    pub from_kexec: bool,
    /// What it hands over: the root tree and the array of scratch areas
    /// (`linux,kho-fdt`, `linux,kho-scratch`).
    pub handover: Option<(Region, Region)>,
    /// What is wrong with the tree, as sentences.
    pub warnings: Vec<String>,
}

impl Machine {
    /// Reads the device tree that starts with `bytes`.
    pub fn from_device_tree(bytes: &[u8]) -> Result<Self, MachineError> {
        let tree = Tree::new(bytes)?;
        let mut warnings = Vec::new();
        let memory_nodes = memory::memory(&tree, &mut warnings)?;
        let regions = memory_nodes.iter().map(|&(region, _)| region);
        let memory = memory::normalize(regions.collect());
        let reservations = memory::reservations(&tree, &mut warnings)?;
        let bridges = bridges::bridges(&tree, &memory, &mut warnings)?;
        let (cpus, timer_frequency, model) = basics(&tree)?;
        Ok(Self {
            model,
            memory,
            memory_nodes,
            reservations,
            hosts: bridges.hosts,
            refused_hosts: bridges.refused,
            lifeline: Lifeline::from_device_tree(bytes),
            cpus,
            timer_frequency,
            bootargs: memory::bootargs(&tree)?,
            from_kexec: tree
                .top_property("chosen", "linux,booted-from-kexec")?
                .is_some(),
            handover: memory::handover(&tree)?,
            warnings,
        })
    }

    /// The host bridges, where there is at least one.
    pub fn host_bridges(&self) -> Result<&[HostBridge], MachineError> {
        if self.hosts.is_empty() {
            return Err(MachineError::NoHostBridge {
                refused: self.refused_hosts,
            });
        }
        Ok(&self.hosts)
    }

    /// The memory that may be mapped: all but what the tree says must not be.
    #[must_use]
    pub fn mappable_memory(&self) -> Vec<Region> {
        let closed = |reservation: &&Reservation| reservation.kind == ReservationKind::NoMap;
        let holes = self.reservations.iter().filter(closed);
        subtract(&self.memory, holes.map(|hole| hole.region))
    }

    /// The memory that nobody has taken, apart from what `taken` names.
    #[must_use]
    pub fn free_memory(&self, taken: &[Region]) -> Vec<Region> {
        let reserved = self.reservations.iter().map(|hole| hole.region);
        subtract(&self.memory, reserved.chain(taken.iter().copied()))
    }
}

/// Number of processors, frequency of the timer, and the model name.
fn basics(tree: &Tree<'_>) -> Result<(usize, Option<u32>, Option<String>), MachineError> {
    let (mut cpus, mut frequency, mut model) = (0, None, None);
    tree.walk(&mut |place| {
        let Some(parent) = place.parent() else {
            model = place.text("model")?.map(String::from);
            return Ok(ControlFlow::Continue(()));
        };
        if parent.parent().is_some() {
            let is_cpu = place.text("device_type")? == Some("cpu");
            cpus += usize::from(is_cpu && place.is_okay()?);
            return Ok(ControlFlow::Break(()));
        }
        if place.is_compatible("arm,armv8-timer")? {
            frequency = place.cell("clock-frequency")?.filter(|&hertz| hertz != 0);
        }
        Ok(match place.name()?.as_str() {
            "cpus" => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        })
    })?;
    Ok((cpus, frequency, model))
}
