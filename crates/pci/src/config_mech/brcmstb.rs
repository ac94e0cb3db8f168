//! The Broadcom STB root port, as the BCM2711 of the Raspberry Pi 4 has it.
//!
//! Its own configuration space is at the start of its registers. An index
//! register chooses the function behind it that a window of 4 KiB shows. No
//! request may be sent while there is no link: it would end in an error, or never
//! complete.

use super::{HostBridgeError, ReadOutcome, RegisterLocation, Registers, buses_of_port};
use crate::{BusRange, PhysAddr, Sbdf, Width};

const MISC_STATUS: u64 = 0x4068;
const STATUS_ROOT_COMPLEX: u32 = 1 << 7;
const STATUS_LINK: u32 = 1 << 5 | 1 << 4;
const CONFIG_DATA: u64 = 0x8000;
const CONFIG_INDEX: u64 = 0x9000;
/// Outside of what it resets, so that it can always be read.
const SOFTWARE_RESET: u64 = 0x9210;
/// Reset of the bridge, and of the slot.
const RESET: u32 = 1 << 1 | 1;

/// Bytes of registers that are used.
pub(crate) const SIZE: u64 = SOFTWARE_RESET + 4;

#[derive(Debug)]
pub(super) struct BrcmStb {
    base: PhysAddr,
    root_bus: u8,
    secondary: u8,
    /// The function that the index selects.
    target: Option<Sbdf>,
    /// What the index register held.
    saved: Option<u32>,
}

impl BrcmStb {
    /// The root port with its registers at `base`. Nothing is written yet, and
    /// nothing is accessed that is in reset.
    pub(super) fn open(
        registers: &mut impl Registers,
        base: PhysAddr,
    ) -> Result<(Self, BusRange), HostBridgeError> {
        let mut read = |offset: u64| {
            let address = PhysAddr(base.0 + offset);
            let value = registers.read(address, Width::Dword);
            value
                .map(|value| (address, value))
                .ok_or(HostBridgeError::NoResponse { address })
        };
        let (address, value) = read(SOFTWARE_RESET)?;
        if value & RESET != 0 {
            return Err(HostBridgeError::InReset { address, value });
        }
        let (address, value) = read(MISC_STATUS)?;
        if value & STATUS_ROOT_COMPLEX == 0 {
            return Err(HostBridgeError::NotRootPort { address, value });
        }
        let (buses, secondary) =
            buses_of_port(registers, base).ok_or(HostBridgeError::NoResponse {
                address: PhysAddr(base.0 + 0x18),
            })?;
        let port = Self {
            base,
            root_bus: buses.first,
            secondary,
            target: None,
            saved: None,
        };
        Ok((port, buses))
    }

    fn select(&mut self, registers: &mut impl Registers, function: Sbdf) -> Option<()> {
        if self.target == Some(function) {
            return Some(());
        }
        let index = PhysAddr(self.base.0 + CONFIG_INDEX);
        if self.saved.is_none() {
            self.saved = Some(registers.read(index, Width::Dword)?);
        }
        self.target = None;
        // The layout of an ECAM address: bus, device, function.
        let target = u32::from(function.routing_id()) << 12;
        registers.write(index, Width::Dword, target)?;
        self.target = Some(function);
        Some(())
    }

    pub(super) fn address(
        &mut self,
        registers: &mut impl Registers,
        function: Sbdf,
        offset: u16,
    ) -> RegisterLocation {
        let offset = u64::from(offset);
        if function.bus() == self.root_bus {
            return match function.devfn() {
                0 => RegisterLocation::At(PhysAddr(self.base.0 + offset)),
                _ => RegisterLocation::Nowhere,
            };
        }
        // One device is on the link and responds to every device number.
        if function.bus() == self.secondary && function.device() != 0 {
            return RegisterLocation::Nowhere;
        }
        match registers.read(PhysAddr(self.base.0 + MISC_STATUS), Width::Dword) {
            Some(status) if status & STATUS_LINK == STATUS_LINK => {}
            Some(_) => return RegisterLocation::Nowhere,
            None => return RegisterLocation::Fault,
        }
        match self.select(registers, function) {
            Some(()) => RegisterLocation::At(PhysAddr(self.base.0 + CONFIG_DATA + offset)),
            None => RegisterLocation::Fault,
        }
    }

    pub(super) fn read(
        &mut self,
        registers: &mut impl Registers,
        function: Sbdf,
        offset: u16,
        width: Width,
    ) -> ReadOutcome {
        self.address(registers, function, offset)
            .read(registers, width)
    }

    /// Restores the index as it was found.
    pub(super) fn restore(&mut self, registers: &mut impl Registers) {
        self.target = None;
        if let Some(index) = self.saved.take() {
            let address = PhysAddr(self.base.0 + CONFIG_INDEX);
            // A register that does not answer cannot be restored.
            let _ = registers.write(address, Width::Dword, index);
        }
    }
}
