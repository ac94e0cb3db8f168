//! Capture by several cores: what is not cached yet is read ahead, behind each
//! root port by another core.

use log::{debug, info};
use warmbus_pci::{ConfigAccess, ConfigRead, ReadBatches, Topology, group_reads_by_root_port};
use warmbus_pcsc::ConfigCache;

use crate::measured_access::{MeasuredAccess, Ticks};

/// More cores than this are not used: a root complex does not serve more
/// reads at once.
pub const MAX_CORES: usize = 16;

/// Nanoseconds that the reads must take on one core for others to be started.
/// Turning a core on and off again takes some hundred microseconds.
pub const WORTHWHILE: u64 = 2_000_000;

/// The cores of a machine, which can read at the same time.
pub trait Cores<A> {
    /// Cores that may be used, this one included; 1 where there is no way to
    /// start others.
    fn available(&self) -> usize;

    /// Whether `read` may be made by any core while others make theirs.
    fn can_share(&self, hardware: &A, read: ConfigRead) -> bool;

    /// Runs [`ReadBatches::work`] of `batches` on this core and on as many
    /// as `helpers` others. Returns how many cores worked.
    fn work(&mut self, hardware: &mut A, batches: &ReadBatches, helpers: usize) -> usize;
}

/// One core.
impl<A> Cores<A> for () {
    fn available(&self) -> usize {
        1
    }

    fn can_share(&self, _hardware: &A, _read: ConfigRead) -> bool {
        false
    }

    fn work(&mut self, _hardware: &mut A, _batches: &ReadBatches, _helpers: usize) -> usize {
        0
    }
}

/// What decides whether other cores help with a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaptureFacts {
    /// Cores that are to work, this one included; `None` for as many as make
    /// it faster.
    pub requested: Option<usize>,
    /// Cores that there are, this one included.
    pub available: usize,
    /// Root ports with something left to read behind them.
    pub root_ports: usize,
    /// Reads that are left.
    pub reads: u64,
    /// Accesses so far.
    pub accesses: u64,
    /// Nanoseconds that they took.
    pub access_time: u64,
}

impl CaptureFacts {
    /// How many other cores are to help: none where one root port is all
    /// there is, or where what is left takes less time than starting them.
    #[must_use]
    pub fn helpers(&self) -> usize {
        let limit = self.requested.unwrap_or(MAX_CORES).min(MAX_CORES);
        let cores = limit.min(self.available).min(self.root_ports);
        let is_worthwhile = self.requested.is_some() || self.time_on_one_core() >= WORTHWHILE;
        if is_worthwhile {
            cores.saturating_sub(1)
        } else {
            0
        }
    }

    /// Nanoseconds that one core takes for what is left, at the pace so far.
    fn time_on_one_core(&self) -> u64 {
        let each = self.access_time.checked_div(self.accesses).unwrap_or(0);
        each.saturating_mul(self.reads)
    }
}

/// Reads ahead what `config` has not cached yet of the functions of `topology`
/// if [`CaptureFacts::helpers`] has it; `requested` as there.
pub fn read_ahead<A, T, K>(
    topology: &Topology,
    config: &mut ConfigCache<MeasuredAccess<A, T>>,
    cores: &mut K,
    requested: Option<usize>,
) where
    A: ConfigAccess,
    T: Ticks,
    K: Cores<A>,
{
    let available = cores.available();
    if available < 2 || requested.is_some_and(|requested| requested < 2) {
        return;
    }
    let hardware = config.access().hardware();
    let batches = ReadBatches::new(group_reads_by_root_port(topology, |function| {
        let mut reads = config.missing_reads(function);
        reads.retain(|&read| cores.can_share(hardware, read));
        reads
    }));
    let access = config.access_mut();
    let counts = access.counts();
    let facts = CaptureFacts {
        requested,
        available,
        root_ports: batches.batches(),
        reads: batches.reads() as u64,
        accesses: counts.reads + counts.writes,
        access_time: access.counter().to_nanoseconds(access.ticks()),
    };
    let helpers = facts.helpers();
    if helpers == 0 {
        debug!("one core makes the {} reads that are left", facts.reads);
        return;
    }
    let start = access.counter().ticks();
    let count = cores.work(access.hardware_mut(), &batches, helpers);
    let ticks = access.counter().ticks().saturating_sub(start);
    info!(
        "{count} cores made {} reads behind {} root ports",
        facts.reads, facts.root_ports
    );
    access.load_prefetched(batches.into_results(), ticks);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other cores that help one of `available` with `reads` behind
    /// `root_ports`, where each of 500 accesses so far took 2 microseconds.
    fn helpers(requested: Option<usize>, available: usize, root_ports: usize, reads: u64) -> usize {
        let facts = CaptureFacts {
            requested,
            available,
            root_ports,
            reads,
            accesses: 500,
            access_time: 500 * 2000,
        };
        facts.helpers()
    }

    #[test]
    fn as_many_cores_help_as_there_are_root_ports_to_read_behind() {
        assert_eq!(helpers(None, 8, 4, 1000), 3);
        assert_eq!(helpers(None, 2, 4, 1000), 1);
        assert_eq!(helpers(None, 1, 4, 1000), 0);
        // Another core helps no read behind the same root port.
        assert_eq!(helpers(None, 8, 1, 1000), 0);
        assert_eq!(helpers(None, 8, 0, 0), 0);
        assert_eq!(helpers(None, 64, 40, 1000), 15);
    }

    #[test]
    fn cores_are_started_for_two_milliseconds_of_reads() {
        assert_eq!(helpers(None, 8, 4, 1000), 3);
        assert_eq!(helpers(None, 8, 4, 999), 0);
        assert_eq!(helpers(None, 8, 4, u64::MAX), 3);
        // An unknown pace is no reason to start cores.
        let unknown = CaptureFacts {
            requested: None,
            available: 8,
            root_ports: 4,
            reads: 1_000_000,
            accesses: 0,
            access_time: 0,
        };
        assert_eq!(unknown.helpers(), 0);
    }

    #[test]
    fn the_cores_that_are_requested_need_not_be_worthwhile() {
        assert_eq!(helpers(Some(2), 8, 4, 1), 1);
        assert_eq!(helpers(Some(4), 8, 4, 1), 3);
        assert_eq!(helpers(Some(6), 8, 4, 1), 3);
        assert_eq!(helpers(Some(1), 8, 4, 1000), 0);
        assert_eq!(helpers(Some(99), 99, 99, 1000), 15);
    }
}
