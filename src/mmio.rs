//! The registers through which configuration space is reached.
//!
//! Every access is one plain load or store with a register as the address,
//! the only form that a hypervisor can always emulate.

use alloc::string::ToString;
use alloc::vec::Vec;
use core::arch::global_asm;

use log::warn;
use warmbus_pci::{HostBridge, HostBridgeAccess, HostBridgeError, PhysAddr, Registers, Width};

use crate::arch::mmu::Mmu;
use crate::arch::serror;

// A synchronous fault at one of these instructions sends the CPU to
// `register_fault` instead, which returns what no access can: all bits of 64 set.
global_asm!(
    r#"
.section .text.registers, "ax"
.global register_start, register_end, register_fault
.global register_read8, register_read16, register_read32
.global register_write8, register_write16, register_write32
register_start:
register_read8:
    ldrb    w0, [x0]
    ret
register_read16:
    ldrh    w0, [x0]
    ret
register_read32:
    ldr     w0, [x0]
    ret
register_write8:
    strb    w1, [x0]
    mov     x0, xzr
    ret
register_write16:
    strh    w1, [x0]
    mov     x0, xzr
    ret
register_write32:
    str     w1, [x0]
    mov     x0, xzr
    ret
register_end:
register_fault:
    mov     x0, #-1
    ret
"#
);

unsafe extern "C" {
    static register_start: u8;
    static register_end: u8;
    static register_fault: u8;
    fn register_read8(address: usize) -> u64;
    fn register_read16(address: usize) -> u64;
    fn register_read32(address: usize) -> u64;
    fn register_write8(address: usize, value: u32) -> u64;
    fn register_write16(address: usize, value: u32) -> u64;
    fn register_write32(address: usize, value: u32) -> u64;
}

/// What an access returns whose abort was caught.
const FAULT: u64 = u64::MAX;

/// Where to go on after a synchronous external abort at `instruction`: `None`
/// where that is not an access to such a register.
pub(crate) fn fixup(instruction: u64) -> Option<u64> {
    let address = |symbol: *const u8| symbol.addr() as u64;
    let accesses = address(&raw const register_start)..address(&raw const register_end);
    accesses
        .contains(&instruction)
        .then(|| address(&raw const register_fault))
}

/// Reads a device register; `None` where a synchronous abort was the answer.
///
/// # Safety
///
/// `address` must be that of a register of this width, aligned and mapped as
/// device memory, and the read must have no effect on memory.
pub(crate) unsafe fn read_register(address: usize, width: Width) -> Option<u32> {
    // SAFETY: by the contract of this function; an abort is caught.
    let value = unsafe {
        match width {
            Width::Byte => register_read8(address),
            Width::Word => register_read16(address),
            Width::Dword => register_read32(address),
        }
    };
    (value != FAULT).then_some(value as u32)
}

/// Writes a device register; `None` where a synchronous abort was the answer.
///
/// # Safety
///
/// As [`read_register`].
pub(crate) unsafe fn write_register(address: usize, width: Width, value: u32) -> Option<()> {
    // SAFETY: by the contract of this function; an abort is caught.
    let outcome = unsafe {
        match width {
            Width::Byte => register_write8(address, value),
            Width::Word => register_write16(address, value),
            Width::Dword => register_write32(address, value),
        }
    };
    (outcome != FAULT).then_some(())
}

/// Registers at the addresses that are mapped.
pub(crate) struct Mmio(());

/// Opens access to the functions below `hosts`. A host bridge that cannot be
/// accessed is excluded from `hosts`, with a line in the log.
pub(crate) fn open(hosts: &mut Vec<HostBridge>, mmu: &mut Mmu) -> HostBridgeAccess<Mmio> {
    let mut access = HostBridgeAccess::new(Mmio(()));
    hosts.retain_mut(|host| {
        let mut regions = host.regions().into_iter();
        let mapped = regions.try_for_each(|range| mmu.map_config_space(range.start.0, range.size));
        let added = mapped
            .map_err(|error| HostBridgeError::Unmapped(error.to_string()))
            .and_then(|()| access.add(host));
        if let Err(error) = &added {
            warn!("{} is excluded: {error}", host.name);
        }
        added.is_ok()
    });
    access
}

/// Reads a register that [`HostBridgeAccess`] gave the address of.
fn load(address: PhysAddr, width: Width) -> Option<u32> {
    // SAFETY: only `open` makes an `Mmio`, for a `HostBridgeAccess` that keeps to
    // the regions of its host bridges, which `open` has mapped; aligned;
    // registers are not memory, so no reference can be affected.
    let value = unsafe { read_register(address.0 as usize, width) };
    // An access that ends in an `SError` reads as all ones on most machines. On
    // others it is noticed here if the processor knows of it already, and at the
    // next access otherwise.
    let may_have_failed = value.is_none_or(|value| value == width.ones());
    unless_serror(value, may_have_failed)
}

/// Returns `outcome` unless an `SError` is pending, which is taken. `may_have_failed`
/// has the processor wait for it.
fn unless_serror<T>(outcome: Option<T>, may_have_failed: bool) -> Option<T> {
    if may_have_failed {
        serror::synchronise();
    }
    serror::take_pending().map_or(outcome, |_| None)
}

impl Registers for Mmio {
    fn read(&mut self, address: PhysAddr, width: Width) -> Option<u32> {
        load(address, width)
    }

    fn write(&mut self, address: PhysAddr, width: Width, value: u32) -> Option<()> {
        // SAFETY: as for a read.
        let outcome = unsafe { write_register(address.0 as usize, width, value) };
        unless_serror(outcome, true)
    }
}
