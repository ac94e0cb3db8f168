//! Configuration space through ECAM (PCIe 7.2.2).
//!
//! Every access is one plain load or store with a register as the address,
//! the only form that a hypervisor can always emulate.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::arch::global_asm;

use log::warn;
use warmbus::pci::{
    AccessFault, Answer, BusRange, ConfigAccess, ConfigOffset, ConfigRead, HostBridge, Sbdf, Width,
};

use crate::mmu::Mmu;

/// Faults that are kept for [`ConfigAccess::take_fault`]; more are dropped,
/// since the first ones tell the story.
const KEPT_FAULTS: usize = 64;

// A fault at one of these instructions sends the CPU to `ecam_fault` instead,
// which returns what no access can: all bits of 64 set. The processor reports
// the abort of a store only if it is synchronous; the barrier gives it time.
global_asm!(
    r#"
.section .text.ecam, "ax"
.global ecam_start, ecam_end, ecam_fault
.global ecam_read8, ecam_read16, ecam_read32
.global ecam_write8, ecam_write16, ecam_write32
ecam_start:
ecam_read8:
    ldrb    w0, [x0]
    ret
ecam_read16:
    ldrh    w0, [x0]
    ret
ecam_read32:
    ldr     w0, [x0]
    ret
ecam_write8:
    strb    w1, [x0]
    b       1f
ecam_write16:
    strh    w1, [x0]
    b       1f
ecam_write32:
    str     w1, [x0]
1:  dsb     sy
    mov     x0, xzr
    ret
ecam_end:
ecam_fault:
    mov     x0, #-1
    ret
"#
);

unsafe extern "C" {
    static ecam_start: u8;
    static ecam_end: u8;
    static ecam_fault: u8;
    fn ecam_read8(address: usize) -> u64;
    fn ecam_read16(address: usize) -> u64;
    fn ecam_read32(address: usize) -> u64;
    fn ecam_write8(address: usize, value: u32) -> u64;
    fn ecam_write16(address: usize, value: u32) -> u64;
    fn ecam_write32(address: usize, value: u32) -> u64;
}

/// What an access returns whose abort was caught.
const FAULT: u64 = u64::MAX;

/// Where to go on after a synchronous external abort at `instruction`: `None`
/// where that is not an access to configuration space.
pub(crate) fn fixup(instruction: u64) -> Option<u64> {
    let address = |symbol: *const u8| symbol.addr() as u64;
    let accesses = address(&raw const ecam_start)..address(&raw const ecam_end);
    accesses
        .contains(&instruction)
        .then(|| address(&raw const ecam_fault))
}

/// The part of a host bridge that an access needs.
struct Window {
    segment: u16,
    buses: BusRange,
    base: u64,
}

/// The ECAM windows of all host bridges.
pub(crate) struct Ecam {
    windows: Vec<Window>,
    faults: VecDeque<AccessFault>,
}

impl Ecam {
    /// Maps the windows of `hosts`. One that cannot be mapped is left out of
    /// `hosts`, with a line in the log.
    pub(crate) fn open(hosts: &mut Vec<HostBridge>, mmu: &mut Mmu) -> Self {
        let mut windows = Vec::new();
        hosts.retain(|host| {
            let buses = u64::from(host.buses.last - host.buses.first) + 1;
            let mapped = mmu.map_ecam(host.ecam_base.0, buses << 20);
            match mapped {
                Ok(()) => windows.push(Window {
                    segment: host.segment,
                    buses: host.buses,
                    base: host.ecam_base.0,
                }),
                Err(error) => warn!("{} is left out: {error}", host.name),
            }
            mapped.is_ok()
        });
        Self {
            windows,
            faults: VecDeque::new(),
        }
    }

    /// Address of a register; `None` where no window reaches its bus. The low
    /// bits that `width` does not have are cleared.
    fn address(&self, function: Sbdf, offset: ConfigOffset, width: Width) -> Option<usize> {
        let window = self.windows.iter().find(|window| {
            window.segment == function.segment()
                && (window.buses.first..=window.buses.last).contains(&function.bus())
        })?;
        let bus = u64::from(function.bus() - window.buses.first);
        let aligned = offset.get() & !(width.bytes() - 1);
        let inside = bus << 20 | u64::from(function.devfn()) << 12 | u64::from(aligned);
        Some((window.base + inside) as usize)
    }

    fn record_fault(&mut self, function: Sbdf, offset: ConfigOffset) {
        if self.faults.len() < KEPT_FAULTS {
            self.faults.push_back(AccessFault { function, offset });
        }
    }
}

impl Ecam {
    /// Reads without a note of a fault, so that several cores can read at
    /// once.
    pub(crate) fn read_shared(&self, read: ConfigRead) -> Answer {
        let width = read.width;
        let Some(address) = self.address(read.function, read.offset, width) else {
            return Answer::Value(width.ones());
        };
        // SAFETY: the address is within a window that `open` has mapped, and
        // aligned; an abort is caught.
        let value = unsafe {
            match width {
                Width::Byte => ecam_read8(address),
                Width::Word => ecam_read16(address),
                Width::Dword => ecam_read32(address),
            }
        };
        if value == FAULT {
            Answer::Fault
        } else {
            Answer::Value(value as u32)
        }
    }
}

impl ConfigAccess for Ecam {
    fn read(&mut self, function: Sbdf, offset: ConfigOffset, width: Width) -> u32 {
        let read = ConfigRead {
            function,
            offset,
            width,
        };
        match self.read_shared(read) {
            Answer::Value(value) => value,
            Answer::Fault => {
                self.record_fault(function, offset);
                width.ones()
            }
        }
    }

    fn write(&mut self, function: Sbdf, offset: ConfigOffset, width: Width, value: u32) {
        let Some(address) = self.address(function, offset, width) else {
            return;
        };
        // SAFETY: as for a read: mapped, aligned, an abort is caught; configuration registers are not memory, so no
        // reference can be affected.
        let outcome = unsafe {
            match width {
                Width::Byte => ecam_write8(address, value),
                Width::Word => ecam_write16(address, value),
                Width::Dword => ecam_write32(address, value),
            }
        };
        if outcome == FAULT {
            self.record_fault(function, offset);
        }
    }

    fn take_fault(&mut self) -> Option<AccessFault> {
        self.faults.pop_front()
    }
}
