//! The cores of the machine, for a capture by several of them.

use alloc::vec::Vec;

use warmbus_boot::options::Options;
use warmbus_boot::parallel::Cores;
use warmbus_machine::{Machine, PsciConduit};
use warmbus_pci::{ConfigRead, HostBridgeAccess, ReadBatches};

use crate::arch::secondary_cores::{run_on, this_mpidr};
use crate::arch::timer::Timer;
use crate::mmio::{self, Mmio};

/// The cores that PSCI can turn on.
pub(crate) struct SecondaryCores {
    others: Vec<u64>,
    conduit: Option<PsciConduit>,
    timer: Timer,
}

impl SecondaryCores {
    /// Those of `machine`.
    pub(crate) fn of(machine: &Machine, timer: Timer) -> Self {
        let this = this_mpidr();
        let others = machine.psci_cpus.iter().copied();
        Self {
            others: others.filter(|&mpidr| mpidr != this).collect(),
            conduit: machine.early_devices.psci,
            timer,
        }
    }
}

/// Cores that are to capture together, as `options` ask for.
pub(crate) fn requested(options: &Options) -> Option<usize> {
    options.cores.map(usize::from)
}

impl Cores<HostBridgeAccess<Mmio>> for SecondaryCores {
    fn available(&self) -> usize {
        self.conduit.map_or(1, |_| self.others.len() + 1)
    }

    fn can_share(&self, hardware: &HostBridgeAccess<Mmio>, read: ConfigRead) -> bool {
        // Behind a controller that takes more than a load, one core is enough.
        hardware.direct_address(read).is_some()
    }

    fn work(
        &mut self,
        hardware: &mut HostBridgeAccess<Mmio>,
        batches: &ReadBatches,
        helpers: usize,
    ) -> usize {
        let hardware = &*hardware;
        let read = || batches.work(|read| mmio::read_shared(hardware, read));
        let Some(conduit) = self.conduit else {
            read();
            return 1;
        };
        let helpers = &self.others[..helpers.min(self.others.len())];
        run_on(helpers, conduit, self.timer, &read)
    }
}
