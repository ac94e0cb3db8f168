//! The boots that a run of the benchmark consists of.

use std::collections::BTreeSet;

use anyhow::Result;

use super::contender::{Boot, Contender};
use super::{Options, sizes};
use crate::topology::{self, Topology};

/// One boot, and the contenders that it shows.
pub(super) struct Task {
    pub(super) topology: Topology,
    pub(super) boot: Boot,
    pub(super) contenders: Vec<Contender>,
}

/// All boots of a run.
pub(super) struct Plan {
    topologies: Vec<Topology>,
    sizes: Vec<u32>,
    contenders: Vec<Contender>,
    pub(super) vms: bool,
}

impl Plan {
    pub(super) fn of(options: &Options) -> Result<Self> {
        let load = |names: &[String]| -> Result<Vec<Topology>> {
            let names = names.iter().filter(|name| *name != "none");
            names.map(|name| Topology::load(name)).collect()
        };
        if options.quick {
            return Ok(Self {
                topologies: load(&["small".to_owned()])?,
                sizes: Vec::new(),
                // All of one chain, since a Linux that ends with kexec writes
                // more than one that powers off.
                contenders: vec![
                    Contender::Warmbus,
                    Contender::LinuxStock,
                    Contender::LinuxAfterWarmbus,
                    Contender::LinuxAfterKexec,
                ],
                vms: false,
            });
        }
        let topologies = match &options.topology[..] {
            [] => in_order_of_size(topology::all()?),
            names => load(names)?,
        };
        let sizes = match &options.sizes[..] {
            [] if options.everything() => &sizes::SIZES[..],
            sizes => sizes,
        };
        let sizes = sizes.iter().copied();
        Ok(Self {
            topologies,
            sizes: sizes.filter(|size| *size > 0).collect(),
            contenders: match &options.contender[..] {
                [] => Contender::ALL.into(),
                contenders => Contender::ALL
                    .into_iter()
                    .filter(|contender| contenders.contains(contender))
                    .collect(),
            },
            vms: options.vms || options.everything(),
        })
    }

    /// The boots of all topologies.
    pub(super) fn of_topologies(&self) -> Vec<Task> {
        let tasks = self.topologies.iter();
        tasks
            .flat_map(|topology| tasks_on(topology, &self.contenders))
            .collect()
    }

    /// The boots of the scaling runs.
    pub(super) fn of_sizes(&self) -> Vec<Task> {
        let tasks = self.sizes.iter().flat_map(|&size| {
            let contenders = self.contenders.iter().copied();
            let contenders: Vec<Contender> = contenders
                .filter(|contender| sizes::shows(*contender, size))
                .collect();
            tasks_on(&sizes::topology(size), &contenders)
        });
        tasks.collect()
    }
}

/// The boots of one topology that show `contenders`.
fn tasks_on(topology: &Topology, contenders: &[Contender]) -> Vec<Task> {
    let boots: BTreeSet<Boot> = contenders
        .iter()
        .map(|contender| contender.boot())
        .collect();
    let task = |boot| Task {
        topology: topology.clone(),
        boot,
        contenders: contenders
            .iter()
            .copied()
            .filter(|contender| contender.boot() == boot)
            .collect(),
    };
    boots.into_iter().map(task).collect()
}

/// The topologies with the fewest devices first.
fn in_order_of_size(mut topologies: Vec<Topology>) -> Vec<Topology> {
    topologies.sort_by_key(|topology| topology.arguments.len());
    topologies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_boot_shows_all_that_it_can() {
        let plan = Plan {
            topologies: Vec::new(),
            sizes: vec![64, 2048],
            contenders: Contender::ALL.into(),
            vms: false,
        };
        let tasks = plan.of_sizes();
        let boots: Vec<_> = tasks
            .iter()
            .map(|task| (task.boot, task.contenders.len()))
            .collect();
        assert_eq!(
            boots,
            [
                (Boot::UBoot, 1),
                (Boot::Edk2, 1),
                (Boot::Stock, 1),
                (Boot::Chain, 2),
                (Boot::Stock, 1),
                (Boot::Chain, 2),
            ]
        );
    }
}
