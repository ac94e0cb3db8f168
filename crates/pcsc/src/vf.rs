//! Virtual functions come into the cache, and leave it, by way of their
//! physical function: nobody can ask them who they are.

use alloc::vec::Vec;

use super::config_cache::ConfigCache;
use super::function_cache::{FunctionCache, State};
use super::{read_class, read_ids};
use warmbus_pci::registers::{self, extended, sr_iov};
use warmbus_pci::{ConfigAccess, ConfigOffset, Probe, Sbdf, VfIdentity, Width};

impl<A: ConfigAccess> ConfigCache<A> {
    /// Asks the hardware whether the virtual function at `function`, which is
    /// `identity`, is there, and takes it in if it is.
    ///
    /// To be called at the earliest 100 ms after VF Enable was set
    /// (PCIe 9.3.3.3.1). What the specification fixes in a virtual function is
    /// not read. The IDs of the answer are those that software takes instead
    /// of the ones of the function: the Vendor ID of the physical function and
    /// its VF Device ID (PCIe 9.3.4.1.1 and 9.3.3.11).
    pub(super) fn add_vf(&mut self, function: Sbdf, identity: VfIdentity) -> Probe {
        let physical = self.blocks.get(identity.physical);
        let ids = physical.and_then(|block| {
            let at = block.extended_capability(extended::SR_IOV)?;
            let vendor_id = block.word(registers::VENDOR_ID)?;
            Some((vendor_id, block.word(at + sr_iov::VF_DEVICE_ID + 2)?))
        });
        let Some((vendor_id, device_id)) = ids else {
            return Probe::Absent;
        };
        let class = read_class(&mut self.access, function);
        if class == u32::MAX {
            return Probe::from_ids_of_vf(read_ids(&mut self.access, function));
        }
        let mut block = FunctionCache::of_virtual_function(identity);
        block.fill(
            ConfigOffset::wrapping(registers::REVISION),
            Width::Dword,
            class,
        );
        self.blocks.insert(function, block);
        Probe::Present {
            vendor_id,
            device_id,
        }
    }

    /// Clears VF Enable of `physical` and keeps what is cached of `vfs`, its
    /// virtual functions, as what they will hold when they are enabled again.
    ///
    /// The SR-IOV capability may not be read for one second after that
    /// (PCIe 9.3.3.3.1).
    pub(super) fn keep_disabled(&mut self, physical: Sbdf, vfs: &mut dyn Iterator<Item = Sbdf>) {
        let Some(register) = self
            .blocks
            .get(physical)
            .and_then(|block| block.sr_iov_register(sr_iov::CONTROL))
        else {
            return;
        };
        let control = self
            .blocks
            .get(physical)
            .and_then(|block| block.word(register));
        let Some(control) = control else { return };
        let mut kept: Vec<(Sbdf, FunctionCache)> = Vec::new();
        for function in vfs {
            if let Some(mut block) = self.blocks.remove(function) {
                block.state = State::Disabled;
                kept.push((function, block));
            }
        }
        self.write(
            physical,
            ConfigOffset::wrapping(register),
            Width::Word,
            u32::from(control & !sr_iov::VF_ENABLE),
        );
        for (function, block) in kept {
            self.blocks.insert(function, block);
        }
    }
}
