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
        let bus = function.bus() - self.first_bus;
        if bus == 0 && self.shape.single_device_on_root_bus && function.device() != 0 {
            return RegisterLocation::Nowhere;
        }
        // 256 functions share the space of a bus.
        let function_shift = self.shape.bus_shift - 8;
        if u32::from(offset) >> function_shift != 0 {
            return RegisterLocation::Nowhere;
        }
        let inside = u64::from(bus) << self.shape.bus_shift
            | u64::from(function.devfn()) << function_shift
            | u64::from(offset);
        RegisterLocation::At(PhysAddr(self.base.0 + inside))
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
