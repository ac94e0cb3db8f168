//! One function: its registers and what is behind them. Built by chaining.

use std::borrow::Cow;

use warmbus_pci::Width;

use crate::bar::{BarModel, BarSpace};
use crate::behaviour::{Bist, Power, Vpd};
use crate::express::Express;
use crate::fault::{Failure, Fault, Quirk};
use crate::link::Link;
use crate::portal::Portal;
use crate::slot::SlotCommands;
use crate::space::Space;
use crate::sriov::SrIov;
use crate::switchable_allocation::SwitchableAllocation;
use crate::training::Lanes;
use crate::vendor::VendorAction;

/// What a function with a type 1 header stands between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BridgeKind {
    /// Conventional PCI bridge.
    Conventional,
    /// Root port or switch downstream port: a link below.
    DownstreamPort,
    /// Switch upstream port: the internal bus of the switch below.
    UpstreamPort,
    /// PCI Express to PCI bridge.
    PcieToPci,
}

impl BridgeKind {
    /// Whether the bus below is a conventional one, which has no way to carry
    /// an extended register number.
    pub(crate) const fn leads_to_conventional(self) -> bool {
        matches!(self, Self::Conventional | Self::PcieToPci)
    }
}

/// The optional windows of a bridge (PCIe 7.5.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BridgeWindows {
    /// I/O window: address bits, 0 (not implemented), 16 or 32.
    pub io_bits: u8,
    /// Prefetchable window: address bits, 0 (not implemented), 32 or 64.
    pub prefetchable_bits: u8,
}

impl Default for BridgeWindows {
    fn default() -> Self {
        Self {
            io_bits: 16,
            prefetchable_bits: 64,
        }
    }
}

/// Beside the bits of the quirks: see [`FunctionModel::spoiled`].
const SPOILED: u8 = 0x80;

/// Where the next capability goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor {
    pub(crate) tail: u16,
    pub(crate) next: u16,
    pub(crate) extended_tail: u16,
    pub(crate) extended_next: u16,
}

/// One function, as it is after power-on.
///
/// Capabilities are placed one after the other from 0x40 and from 0x100 on
/// and linked in the order in which they are added;
/// [`FunctionModel::place_at`] chooses another place for the next one.
///
/// The methods that add a capability panic where it does not fit: that is a
/// mistake in a test.
#[derive(Clone, Debug)]
#[must_use = "a function does nothing until it is put into a fabric"]
pub struct FunctionModel {
    pub(crate) space: Space,
    pub(crate) name: Cow<'static, str>,
    pub(crate) bridge: Option<BridgeKind>,
    pub(crate) windows: BridgeWindows,
    pub(crate) bars: [Option<BarModel>; 6],
    pub(crate) rom: u64,
    pub(crate) express: Option<Express>,
    pub(crate) power: Option<Power>,
    pub(crate) msi: Option<u16>,
    pub(crate) msix: Option<u16>,
    pub(crate) messages: [u8; 2],
    pub(crate) advanced_features: Option<u16>,
    pub(crate) allocation: Option<u16>,
    pub(crate) vpd: Option<Box<Vpd>>,
    pub(crate) sriov: Option<Box<SrIov>>,
    pub(crate) resizable: Vec<(u16, u8)>,
    pub(crate) dpc: Option<u16>,
    pub(crate) root_errors: Option<u16>,
    pub(crate) ari: Option<u16>,
    pub(crate) bist: Option<Bist>,
    pub(crate) switchable: Option<SwitchableAllocation>,
    pub(crate) cxl: Option<u16>,
    pub(crate) lanes: Option<Lanes>,
    pub(crate) portal: Option<Box<Portal>>,
    pub(crate) slot_commands: Option<SlotCommands>,
    pub(crate) vendor: Vec<(u16, VendorAction)>,
    /// A bridge that a vendor register has stopped.
    pub(crate) stopped: bool,
    /// When the validation of the ROM ends.
    pub(crate) rom_validated_at: u64,
    pub(crate) link: Link,
    pub(crate) ready_at: u64,
    pub(crate) reset_time: u64,
    pub(crate) captured_bus: u8,
    pub(crate) quirks: u8,
    pub(crate) faults: Vec<Fault>,
    pub(crate) accesses: u32,
    pub(crate) cursor: Cursor,
}

impl FunctionModel {
    fn new(vendor: u16, device: u16, class_code: u32) -> Self {
        let mut space = Space::new();
        space.set(0, Width::Word, vendor.into());
        space.set(2, Width::Word, device.into());
        space.set(8, Width::Dword, class_code << 8);
        // Bus Master, Parity Error Response, SERR#.
        space.writable(4, Width::Word, 0x0144);
        space.clearable(6, Width::Word, 0xf900);
        space.writable(0x3c, Width::Byte, 0xff);
        Self {
            space,
            name: Cow::Borrowed(""),
            bridge: None,
            windows: BridgeWindows::default(),
            bars: [None; 6],
            rom: 0,
            express: None,
            power: None,
            msi: None,
            msix: None,
            messages: [0; 2],
            advanced_features: None,
            allocation: None,
            vpd: None,
            sriov: None,
            resizable: Vec::new(),
            dpc: None,
            root_errors: None,
            ari: None,
            bist: None,
            switchable: None,
            cxl: None,
            lanes: None,
            portal: None,
            slot_commands: None,
            vendor: Vec::new(),
            stopped: false,
            rom_validated_at: 0,
            link: Link::default(),
            ready_at: 0,
            reset_time: 0,
            captured_bus: 0,
            quirks: 0,
            faults: Vec::new(),
            accesses: 0,
            cursor: Cursor {
                tail: 0x34,
                next: 0x40,
                extended_tail: 0,
                extended_next: 0x100,
            },
        }
    }

    /// A function with a type 0 header and nothing else: a conventional PCI
    /// function until [`FunctionModel::express`] adds the capability that
    /// makes it more. `class_code` has 24 bits.
    pub fn endpoint(vendor: u16, device: u16, class_code: u32) -> Self {
        let mut model = Self::new(vendor, device, class_code);
        // Cache Line Size is RW and without effect (PCIe 7.5.1.1.7).
        model.space.writable(0x0c, Width::Byte, 0xff);
        model
    }

    /// A function with a type 1 header: a conventional PCI-PCI bridge until
    /// [`FunctionModel::express`] makes it a port.
    pub fn bridge(vendor: u16, device: u16, windows: BridgeWindows) -> Self {
        let mut model = Self::new(vendor, device, 0x06_0400);
        model.bridge = Some(BridgeKind::Conventional);
        model.windows = windows;
        let space = &mut model.space;
        space.set(0x0e, Width::Byte, 1);
        space.writable(0x0c, Width::Byte, 0xff);
        space.writable(0x18, Width::Dword, 0x00ff_ffff);
        // Conventional bridges also have the secondary latency timer, master
        // abort mode, the discard timers and their RW1C status.
        space.writable(0x1b, Width::Byte, 0xf8);
        space.writable(0x3e, Width::Word, 0x0b7f);
        space.clearable(0x3e, Width::Word, 0x0400);
        space.live(0x3c);
        if windows.io_bits > 0 {
            let kind = u32::from(windows.io_bits >= 32);
            space.set(0x1c, Width::Word, kind * 0x0101);
            space.writable(0x1c, Width::Word, 0xf0f0);
            if windows.io_bits >= 32 {
                space.writable(0x30, Width::Dword, 0xffff_ffff);
            }
            space.writable(4, Width::Byte, 0x47);
        } else {
            space.writable(4, Width::Byte, 0x46);
        }
        space.clearable(0x1e, Width::Word, 0xf900);
        space.writable(0x20, Width::Dword, 0xfff0_fff0);
        if windows.prefetchable_bits > 0 {
            let kind = u32::from(windows.prefetchable_bits >= 64);
            space.set(0x24, Width::Dword, kind * 0x0001_0001);
            space.writable(0x24, Width::Dword, 0xfff0_fff0);
            if windows.prefetchable_bits >= 64 {
                space.writable(0x28, Width::Dword, 0xffff_ffff);
                space.writable(0x2c, Width::Dword, 0xffff_ffff);
            }
        }
        model
    }

    /// The name that logs and violations call it by.
    pub fn named(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the Multi-Function bit of Header Type.
    pub fn multi_function(mut self) -> Self {
        let kind = self.space.peek(0x0e, Width::Byte);
        self.space.set(0x0e, Width::Byte, kind | 0x80);
        self
    }

    /// Sets Revision ID.
    pub fn revision(self, revision: u8) -> Self {
        self.set(8, Width::Byte, revision.into())
    }

    /// Sets the subsystem IDs of a type 0 header.
    pub fn subsystem(self, vendor: u16, device: u16) -> Self {
        self.set(
            0x2c,
            Width::Dword,
            u32::from(device) << 16 | u32::from(vendor),
        )
    }

    /// Gives the function an interrupt pin: 1 (INTA) to 4.
    pub fn interrupt_pin(mut self, pin: u8) -> Self {
        self.space.set(0x3d, Width::Byte, pin.into());
        self.allow_command(0x400);
        self
    }

    /// Makes bits of COMMAND writable.
    fn allow_command(&mut self, bits: u32) {
        let now = self.space.register(4).writable & 0xffff;
        self.space.writable(4, Width::Word, now | bits);
    }

    /// Puts a BAR at register `index`: 0 to 5, or 0 to 1 in a bridge. A
    /// 64-bit one also takes `index + 1`.
    pub fn bar(mut self, index: u8, bar: BarModel) -> Self {
        let size = bar.decoded_size();
        let (flags, mask) = bar.registers(size);
        let at = 0x10 + u16::from(index) * 4;
        self.space.set(at, Width::Dword, flags);
        self.space.writable(at, Width::Dword, mask as u32);
        if bar.space == BarSpace::Memory64 {
            self.space
                .writable(at + 4, Width::Dword, (mask >> 32) as u32);
        }
        let io = matches!(bar.space, BarSpace::Io | BarSpace::Io16);
        self.allow_command(if io { 1 } else { 2 });
        if let Some(slot) = self.bars.get_mut(usize::from(index)) {
            *slot = Some(bar);
        }
        self
    }

    /// Where the expansion ROM BAR is: it depends on the header type.
    pub(crate) fn rom_offset(&self) -> u16 {
        if self.bridge.is_some() { 0x38 } else { 0x30 }
    }

    /// Adds an expansion ROM of `size` bytes, 2 KiB to 16 MiB.
    pub fn rom(mut self, size: u32) -> Self {
        let size = size.clamp(2 << 10, 16 << 20).next_power_of_two();
        self.rom = size.into();
        let at = self.rom_offset();
        self.space.writable(at, Width::Dword, !(size - 1) | 1);
        self.allow_command(2);
        self
    }

    /// Sets the power-on value of a register.
    pub fn set(mut self, offset: u16, width: Width, value: u32) -> Self {
        self.space.set(offset, width, value);
        self
    }

    /// Sets which bits of a register are RW; all others become read-only or
    /// keep being RW1C.
    pub fn writable(mut self, offset: u16, width: Width, mask: u32) -> Self {
        self.space.writable(offset, width, mask);
        self
    }

    /// Sets which bits of a register are RW1C.
    pub fn clearable(mut self, offset: u16, width: Width, mask: u32) -> Self {
        self.space.clearable(offset, width, mask);
        self
    }

    /// Fixes a register to `value`.
    pub fn hardwired(self, offset: u16, width: Width, value: u32) -> Self {
        self.set(offset, width, value)
            .writable(offset, width, 0)
            .clearable(offset, width, 0)
    }

    /// Marks bytes whose read has a side effect: a read that touches one is
    /// recorded as a violation.
    pub fn forbidden(mut self, offset: u16, length: u16) -> Self {
        self.space.forbid(offset, length);
        self
    }

    /// Time from power-on until the function answers anything but RRS.
    /// `u64::MAX`: never.
    pub fn ready_at(mut self, nanoseconds: u64) -> Self {
        self.ready_at = nanoseconds;
        self
    }

    /// Time from the end of a reset until the function is ready again.
    pub fn reset_time(mut self, nanoseconds: u64) -> Self {
        self.reset_time = nanoseconds;
        self
    }

    /// Interrupt Message Number with MSI and with MSI-X. With MSI the hardware
    /// reduces it to the vectors that are enabled.
    pub fn interrupt_messages(mut self, msi: u8, msix: u8) -> Self {
        self.messages = [msi & 0x1f, msix & 0x1f];
        self
    }

    /// Adds a departure from the rules.
    pub fn quirk(mut self, quirk: Quirk) -> Self {
        self.quirks |= quirk.bit();
        self
    }

    /// Says that the registers are not as the specification has them.
    pub(crate) fn spoiled(mut self) -> Self {
        self.quirks |= SPOILED;
        self
    }

    /// Adds a fault.
    pub fn fault(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// Counts an access and says which fault strikes it.
    pub(crate) fn failure(&mut self, now: u64, offset: u16) -> Option<Failure> {
        self.accesses = self.accesses.saturating_add(1);
        let count = self.accesses;
        let strikes = |fault: &mut Fault| fault.strikes(count, now, offset);
        self.faults.iter_mut().find_map(strikes)
    }

    /// Whether a fault has removed the function permanently.
    pub(crate) fn is_gone(&self, now: u64) -> bool {
        self.faults.iter().any(|fault| match fault {
            Fault::Vanishes { accesses } => self.accesses >= *accesses,
            Fault::VanishesAt { time } => now >= *time,
            _ => false,
        })
    }

    pub(crate) fn has(&self, quirk: Quirk) -> bool {
        self.quirks & quirk.bit() != 0
    }
}
