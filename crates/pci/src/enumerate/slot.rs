//! The slot below a port, and what is to be reserved for what comes into it.

use super::Scan;
use crate::registers::{capability, express};
use crate::reserve::{self, Reserve};
use crate::{ConfigSpace, Sbdf};

impl<S: ConfigSpace> Scan<'_, S> {
    /// Records whether the slot below a port is hot-plug capable.
    pub(super) fn read_slot(&mut self, index: usize) {
        let port = self.topology.functions[index].sbdf;
        if let Some(capabilities) = self.slot_capabilities(port) {
            let hot_plug = capabilities & express::HOT_PLUG_CAPABLE != 0;
            if let Some(bridge) = &mut self.topology.functions[index].bridge {
                bridge.hot_plug = hot_plug;
            }
        }
        self.read_reserve(index);
    }

    /// Records what a bridge of QEMU asks to be reserved below it.
    fn read_reserve(&mut self, index: usize) {
        let function = &self.topology.functions[index];
        let port = function.sbdf;
        if function.vendor_id != reserve::VENDOR_ID {
            return;
        }
        let capabilities = function.capabilities.clone().into_iter();
        let mut vendor = capabilities.filter(|one| one.id == capability::VENDOR);
        let found =
            vendor.find_map(|one| Reserve::read(|at| self.dword(port, u16::from(one.offset) + at)));
        if let Some(bridge) = &mut self.topology.functions[index].bridge {
            bridge.reserve = found.unwrap_or_default();
        }
    }

    /// Slot Capabilities, where the port has a slot.
    pub(super) fn slot_capabilities(&mut self, port: Sbdf) -> Option<u32> {
        let lists = self.config.lists(port)?;
        let base = lists.capability(capability::EXPRESS)?;
        if !lists.has_slot {
            return None;
        }
        let capabilities = self.dword(port, base + express::SLOT_CAPABILITIES);
        (capabilities != u32::MAX).then_some(capabilities)
    }

    /// Presence Detect State of the slot below a port.
    pub(super) fn is_occupied(&mut self, port: Sbdf, base: u16) -> bool {
        // The dword is read for Slot Control beside it, too.
        let slot = self.dword(port, base + express::SLOT_CONTROL);
        (slot >> 16) as u16 & express::PRESENCE_DETECT != 0
    }
}
