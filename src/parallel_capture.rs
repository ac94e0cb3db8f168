//! Capture by several cores: what is still missing in the cache is read ahead,
//! behind each root port by another core.

use alloc::vec::Vec;

use log::{debug, info};
use warmbus_boot::options::Options;
use warmbus_machine::{Machine, PsciConduit};
use warmbus_pci::{ReadBatches, Topology, group_reads_by_root_port};

use crate::arch::secondary_cores;
use crate::arch::timer::Timer;
use crate::mmio;
use crate::pipeline::Config;

/// More cores than this are not asked for help: a root complex does not serve
/// more reads at once.
const MAX: usize = 16;
/// Nanoseconds that the reads must take on one core for help to be worth it.
/// Turning a core on and off again takes some hundred microseconds.
const WORTH_IT: u64 = 2_000_000;

/// The cores that may be asked for help.
#[derive(Clone, Copy)]
pub(crate) struct Cores<'a> {
    affinities: &'a [u64],
    conduit: Option<PsciConduit>,
    /// How many are to work, this one included; `None` for as many as help.
    wanted: Option<usize>,
}

impl<'a> Cores<'a> {
    /// Those of `machine`, as far as `options` want them.
    pub(crate) fn of(machine: &'a Machine, options: &Options) -> Self {
        Self {
            affinities: &machine.psci_cpus,
            conduit: machine.early_devices.psci,
            wanted: options.cores.map(usize::from),
        }
    }
}

/// Reads ahead what `config` has not cached yet, if several cores are faster
/// at it than one, or are asked for.
pub(crate) fn read_ahead(topology: &Topology, config: &mut Config, cores: Cores<'_>, timer: Timer) {
    let Some(conduit) = cores.conduit else {
        return;
    };
    let wanted = cores.wanted.unwrap_or(MAX).min(MAX);
    if wanted < 2 || cores.affinities.len() < 2 {
        return;
    }
    // Behind a controller that takes more than a load, one core is enough.
    let reach = config.access().access().access().access();
    let queue = ReadBatches::new(group_reads_by_root_port(topology, |function| {
        let mut reads = config.missing_reads(function);
        reads.retain(|&read| reach.direct_address(read).is_some());
        reads
    }));
    let helpers = (queue.batches().min(wanted)).saturating_sub(1);
    if helpers == 0 || cores.wanted.is_none() && !is_worth_it(config, &queue, timer) {
        debug!("one core makes the {} reads that are left", queue.reads());
        return;
    }
    let own = secondary_cores::this_mpidr();
    let others: Vec<u64> = cores
        .affinities
        .iter()
        .copied()
        .filter(|&affinity| affinity != own)
        .take(helpers)
        .collect();
    let start = timer.ticks();
    let ahead = config.access_mut().access_mut();
    let reach = ahead.access().access();
    let count = secondary_cores::run_on(&others, conduit, timer, &|| {
        queue.work(|read| mmio::read_shared(reach, read));
    });
    info!(
        "{count} cores made {} reads behind {} root ports",
        queue.reads(),
        queue.batches()
    );
    ahead.access_mut().add(timer.ticks() - start);
    ahead.load(queue.into_results());
}

/// Whether the reads of `queue` take so long, at the pace of the reads so far,
/// that other cores are worth their start.
fn is_worth_it(config: &Config, queue: &ReadBatches, timer: Timer) -> bool {
    let counts = config.access().counts();
    let ticks = config.access().access().access().ticks();
    let so_far = timer.to_nanoseconds(ticks);
    let each = so_far
        .checked_div(counts.reads + counts.writes)
        .unwrap_or(0);
    each.saturating_mul(queue.reads() as u64) >= WORTH_IT
}
