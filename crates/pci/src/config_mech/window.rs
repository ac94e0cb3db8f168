//! One window with the configuration space of all buses: ECAM (PCIe 7.2.2)
//! and its relatives.

use super::{ReadOutcome, RegisterLocation, Registers};
use crate::{CamLayout, HostBridge, PhysAddr, Sbdf, Width};

#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    base: PhysAddr,
    first_bus: u8,
    shape: CamLayout,
}

impl Window {
    pub(super) const fn new(host: &HostBridge, shape: CamLayout) -> Self {
        Self {
            base: host.ecam_base,
            first_bus: host.buses.first,
            shape,
        }
    }

    pub(super) fn address(&self, function: Sbdf, offset: u16) -> RegisterLocation {
        let Some(start) = self.shape.offset_of(function, self.first_bus) else {
            return RegisterLocation::Nowhere;
        };
        // 256 functions share the space of a bus.
        if u32::from(offset) >> (self.shape.bus_shift - 8) != 0 {
            return RegisterLocation::Nowhere;
        }
        RegisterLocation::At(PhysAddr(self.base.0 + start + u64::from(offset)))
    }

    pub(super) fn read(
        &self,
        registers: &mut impl Registers,
        function: Sbdf,
        offset: u16,
        width: Width,
    ) -> ReadOutcome {
        self.address(function, offset).read(registers, width)
    }
}
