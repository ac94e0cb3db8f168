//! The Synopsys `DesignWare` root port.
//!
//! Its own configuration space is in its register block (DBI). The functions
//! behind it are accessed through a window of the processor, which an outbound
//! region of its address translation unit (iATU) translates into configuration
//! requests for one function; for another function the region is reprogrammed.
//!
//! Cores before 4.80 show one region at a time, chosen by a viewport register;
//! later ones have all regions side by side ("unrolled").

use super::{HostBridgeError, ReadOutcome, RegisterLocation, Registers, buses_of_port};
use crate::{BusRange, PhysAddr, Sbdf, Width};

/// Port logic: the state of the link.
const PORT_DEBUG1: u64 = 0x72c;
const LINK_UP: u32 = 1 << 4;
const LINK_IN_TRAINING: u32 = 1 << 29;

/// Chooses the region that the registers behind it show; bit 31 is for
/// inbound regions.
const VIEWPORT: u64 = 0x900;
const VIEWPORT_REGION: u64 = 0x904;
/// How far apart unrolled outbound regions are.
const UNROLLED_STRIDE: u64 = 0x200;

// Registers of a region.
const CONTROL_1: u64 = 0x00;
const CONTROL_2: u64 = 0x04;
const LOWER_BASE: u64 = 0x08;
const UPPER_BASE: u64 = 0x0c;
const LIMIT: u64 = 0x10;
const LOWER_TARGET: u64 = 0x14;
const UPPER_TARGET: u64 = 0x18;
/// Only where regions are unrolled.
const UPPER_LIMIT: u64 = 0x20;

/// The registers of a region in the order in which they are restored: the one
/// with the enable bit is the last.
const REGION: [u64; 7] = [
    LOWER_BASE,
    UPPER_BASE,
    LIMIT,
    LOWER_TARGET,
    UPPER_TARGET,
    CONTROL_1,
    CONTROL_2,
];

const ENABLE: u32 = 1 << 31;
/// TLP types in the low bits of the first control register.
const CONFIGURATION_0: u32 = 4;
const CONFIGURATION_1: u32 = 5;
/// Reads of the enable bit until it counts as stuck.
const ENABLE_READS: u32 = 100_000;

/// Bytes of the window of a region: the configuration space of one function.
pub(crate) const FUNCTION_SIZE: u64 = 4096;

#[derive(Clone, Copy, Debug)]
enum Layout {
    Viewport,
    Unrolled { base: PhysAddr },
}

#[derive(Debug)]
pub(super) struct DesignWare {
    dbi: PhysAddr,
    window: PhysAddr,
    layout: Layout,
    /// The outbound region that is used.
    region: u32,
    root_bus: u8,
    /// The bus directly below the root port.
    secondary: u8,
    /// The function that the region is programmed for.
    target: Option<Sbdf>,
    saved: Option<Saved>,
}

#[derive(Debug)]
struct Saved {
    viewport: u32,
    region: [u32; REGION.len()],
    upper_limit: u32,
}

impl DesignWare {
    /// The root port with its registers at `dbi`, which accesses the
    /// functions behind it through the window at `window`. Nothing is written yet.
    pub(super) fn open(
        registers: &mut impl Registers,
        window: PhysAddr,
        dbi: PhysAddr,
        atu: Option<PhysAddr>,
    ) -> Result<(Self, BusRange), HostBridgeError> {
        let mut read = |offset: u64| {
            let address = PhysAddr(dbi.0 + offset);
            let value = registers.read(address, Width::Dword);
            value.ok_or(HostBridgeError::NoResponse { address })
        };
        // The header type in bits 23:16: 1 is a bridge.
        let header = read(0x0c)?;
        if header >> 16 & 0x7f != 1 {
            return Err(HostBridgeError::NotRootPort {
                address: PhysAddr(dbi.0 + 0x0c),
                value: header,
            });
        }
        let viewport = read(VIEWPORT)?;
        // There is no viewport where regions are unrolled.
        let layout = match (viewport, atu) {
            (u32::MAX, Some(base)) => Layout::Unrolled { base },
            (u32::MAX, None) => {
                let address = PhysAddr(dbi.0 + VIEWPORT);
                return Err(HostBridgeError::NoResponse { address });
            }
            _ => Layout::Viewport,
        };
        let (buses, secondary) =
            buses_of_port(registers, dbi).ok_or(HostBridgeError::NoResponse {
                address: PhysAddr(dbi.0 + 0x18),
            })?;
        let port = Self {
            dbi,
            window,
            layout,
            // The one that U-Boot uses, which also switches it to I/O.
            region: 1,
            root_bus: buses.first,
            secondary,
            target: None,
            saved: None,
        };
        Ok((port, buses))
    }

    fn link_is_up(&self, registers: &mut impl Registers) -> Option<bool> {
        let state = registers.read(PhysAddr(self.dbi.0 + PORT_DEBUG1), Width::Dword)?;
        Some(state & LINK_UP != 0 && state & LINK_IN_TRAINING == 0)
    }

    const fn register(&self, register: u64) -> PhysAddr {
        PhysAddr(match self.layout {
            Layout::Viewport => self.dbi.0 + VIEWPORT_REGION + register,
            Layout::Unrolled { base } => base.0 + self.region as u64 * UNROLLED_STRIDE + register,
        })
    }

    fn set(&self, registers: &mut impl Registers, register: u64, value: u32) -> Option<()> {
        registers.write(self.register(register), Width::Dword, value)
    }

    fn get(&self, registers: &mut impl Registers, register: u64) -> Option<u32> {
        registers.read(self.register(register), Width::Dword)
    }

    /// Saves what the region holds. A region 0 that covers the window is used
    /// instead: it has priority over all others.
    fn save(&mut self, registers: &mut impl Registers) -> Option<()> {
        let viewport_register = PhysAddr(self.dbi.0 + VIEWPORT);
        let viewport = match self.layout {
            Layout::Viewport => registers.read(viewport_register, Width::Dword)?,
            Layout::Unrolled { .. } => 0,
        };
        for region in [0, 1] {
            self.region = region;
            if matches!(self.layout, Layout::Viewport) {
                registers.write(viewport_register, Width::Dword, region)?;
            }
            let enabled = self.get(registers, CONTROL_2)? & ENABLE != 0;
            let base = u64::from(self.get(registers, UPPER_BASE)?) << 32
                | u64::from(self.get(registers, LOWER_BASE)?);
            if region == 0 && !(enabled && base == self.window.0) {
                continue;
            }
            let mut held = [0; REGION.len()];
            for (value, register) in held.iter_mut().zip(REGION) {
                *value = self.get(registers, register)?;
            }
            let upper_limit = match self.layout {
                Layout::Viewport => 0,
                Layout::Unrolled { .. } => self.get(registers, UPPER_LIMIT)?,
            };
            self.saved = Some(Saved {
                viewport,
                region: held,
                upper_limit,
            });
            break;
        }
        let last = self.window.0 + (FUNCTION_SIZE - 1);
        self.set(registers, LOWER_BASE, self.window.0 as u32)?;
        self.set(registers, UPPER_BASE, (self.window.0 >> 32) as u32)?;
        self.set(registers, LIMIT, last as u32)?;
        if matches!(self.layout, Layout::Unrolled { .. }) {
            self.set(registers, UPPER_LIMIT, (last >> 32) as u32)?;
        }
        self.set(registers, UPPER_TARGET, 0)
    }

    /// Programs the region for `function`. `None` where a register does not
    /// answer or the enable bit does not stick.
    fn select(&mut self, registers: &mut impl Registers, function: Sbdf) -> Option<()> {
        if self.target == Some(function) {
            return Some(());
        }
        if self.saved.is_none() {
            self.save(registers)?;
        }
        self.target = None;
        let kind = if function.bus() == self.secondary {
            CONFIGURATION_0
        } else {
            CONFIGURATION_1
        };
        let target = u32::from(function.routing_id()) << 16;
        self.set(registers, LOWER_TARGET, target)?;
        self.set(registers, CONTROL_1, kind)?;
        self.set(registers, CONTROL_2, ENABLE)?;
        // A request that leaves before the region is enabled goes elsewhere.
        for _ in 0..ENABLE_READS {
            if self.get(registers, CONTROL_2)? & ENABLE != 0 {
                self.target = Some(function);
                return Some(());
            }
        }
        None
    }

    pub(super) fn address(
        &mut self,
        registers: &mut impl Registers,
        function: Sbdf,
        offset: u16,
    ) -> RegisterLocation {
        if function.bus() == self.root_bus {
            return match function.devfn() {
                0 => RegisterLocation::At(PhysAddr(self.dbi.0 + u64::from(offset))),
                _ => RegisterLocation::Nowhere,
            };
        }
        // Without a link a request may never be answered.
        match self.link_is_up(registers) {
            Some(true) => {}
            Some(false) => return RegisterLocation::Nowhere,
            None => return RegisterLocation::Fault,
        }
        match self.select(registers, function) {
            Some(()) => RegisterLocation::At(PhysAddr(self.window.0 + u64::from(offset))),
            None => RegisterLocation::Fault,
        }
    }

    /// Reads the dword around the register, as not every bus that such a
    /// controller is on has narrower accesses.
    pub(super) fn read(
        &mut self,
        registers: &mut impl Registers,
        function: Sbdf,
        offset: u16,
        width: Width,
    ) -> ReadOutcome {
        let dword = self.address(registers, function, offset & !3);
        match dword.read(registers, Width::Dword) {
            ReadOutcome::Value(value) => {
                ReadOutcome::Value(value >> (8 * (offset & 3)) & width.ones())
            }
            other => other,
        }
    }

    /// Restores the region as it was found.
    pub(super) fn restore(&mut self, registers: &mut impl Registers) {
        let Some(saved) = self.saved.take() else {
            return;
        };
        self.target = None;
        // A register that does not answer cannot be restored.
        let _ = match self.layout {
            Layout::Viewport => Some(()),
            Layout::Unrolled { .. } => self.set(registers, UPPER_LIMIT, saved.upper_limit),
        };
        for (register, value) in REGION.into_iter().zip(saved.region) {
            let _ = self.set(registers, register, value);
        }
        if matches!(self.layout, Layout::Viewport) {
            let viewport_register = PhysAddr(self.dbi.0 + VIEWPORT);
            let _ = registers.write(viewport_register, Width::Dword, saved.viewport);
        }
    }
}
