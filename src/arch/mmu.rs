//! The MMU and the caches.
//!
//! One identity map: the image with its permissions and the device tree
//! first, then all memory of the machine and the windows of the devices that
//! are used.

use alloc::vec::Vec;
use core::arch::asm;
use core::cell::UnsafeCell;

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{
    CurrentEL, HCR_EL2, ID_AA64MMFR0_EL1, MAIR_EL1, MAIR_EL2, SCTLR_EL1, SCTLR_EL2, TCR_EL1,
    TCR_EL2, TTBR0_EL1, TTBR0_EL2,
};
use tock_registers::interfaces::{Readable, Writeable};
use warmbus_memory::{MemoryRange, RangeSet};
use warmbus_paging::{Memory, PAGE_SIZE, PageTables, PagingError, Regime, Table, Unmapped};

use crate::image::Image;

/// Translation tables: 512 KiB, enough for some sixty separate ranges.
const TABLES: usize = 128;
/// Tables that memory does not get: a console that is found after it, in the
/// additions of a board, needs three.
const SPARE_TABLES: usize = 4;

/// `SCTLR_ELx.{M, SA, C, I, WXN}`: MMU, stack alignment check, caches, and
/// writable means not executable.
pub(crate) const SCTLR_ON: u64 = 1 | 1 << 3 | 1 << 2 | 1 << 12 | 1 << 19;
/// The RES1 bits of `SCTLR_EL1`, and of `SCTLR_EL2` with E2H.
const SCTLR_RES1_TWO_LEVELS: u64 = 0x30d0_0800;
/// The RES1 bits of `SCTLR_EL2` without E2H.
const SCTLR_RES1_ONE_LEVEL: u64 = 0x30c5_0830;

#[repr(transparent)]
struct Pool(UnsafeCell<[Table; TABLES]>);

// SAFETY: only `Mmu::turn_on` looks inside, which runs once on one CPU.
unsafe impl Sync for Pool {}

static POOL: Pool = Pool(UnsafeCell::new([const { Table::EMPTY }; TABLES]));

/// The MMU, turned on.
pub(crate) struct Mmu {
    tables: PageTables<'static>,
}

impl Mmu {
    /// Maps the image and the `tree_size` bytes of device tree at `tree` and
    /// turns the MMU and the caches on. `None` where the processor has no
    /// 4 KiB granule, or the image lies where it cannot be reached.
    ///
    /// # Safety
    ///
    /// To be called once, with the MMU off, as the first thing after entry:
    /// memory that was written since entry must lie within the image.
    pub(crate) unsafe fn turn_on(image: &Image, tree: u64, tree_size: u64) -> Option<Self> {
        if ID_AA64MMFR0_EL1.read(ID_AA64MMFR0_EL1::TGran4) == 0xf {
            return None;
        }
        let (output_size, address_bits) = address_size();
        let regime = regime();

        // SAFETY: by the contract of this function there is no other reference.
        let pool = unsafe { &mut *POOL.0.get() };
        let pool_address = core::ptr::from_ref(&*pool).addr() as u64;
        let mut tables = PageTables::new(pool, pool_address, regime, address_bits).ok()?;
        map_image(&mut tables, image).ok()?;
        if tree_size != 0 {
            // A tree out of reach is found out when it is read.
            tables.map(tree, tree_size, Memory::ReadOnly).ok()?;
        }

        // SAFETY: everything in use is mapped to itself, and by the contract
        // of this function nothing outside the image was written.
        unsafe { enable(regime, output_size, tables.root(), image) };
        Some(Self { tables })
    }

    /// Maps as much of `memory` as can be mapped, for reading and writing, ranges
    /// with any of `needed` first. Returns the rest.
    pub(crate) fn map_all_memory(
        &mut self,
        memory: &RangeSet,
        needed: &[MemoryRange],
    ) -> Vec<Unmapped> {
        let unmapped = self.tables.map_all_memory(memory, needed, SPARE_TABLES);
        publish_entries();
        unmapped
    }

    /// Maps memory for reading, where it is not mapped yet.
    pub(crate) fn map_memory(&mut self, range: MemoryRange) -> Result<(), PagingError> {
        self.map(range.start.0, range.size, Memory::ReadOnly)
    }

    /// Maps device registers.
    pub(crate) fn map_device(&mut self, base: u64, size: u64) -> Result<(), PagingError> {
        self.map(base, size, Memory::Device)
    }

    /// Maps registers through which configuration space is reached.
    pub(crate) fn map_config_space(&mut self, base: u64, size: u64) -> Result<(), PagingError> {
        self.map(base, size, Memory::ConfigSpace)
    }

    /// Provides translation tables for the windows of `hosts` host bridges,
    /// from the heap where those of the image are not enough. Where that has no
    /// memory either, a window that cannot be mapped costs its host bridge.
    pub(crate) fn provide_tables(&mut self, hosts: usize) {
        /// Tables for one window, of which each level may need one.
        const TABLES_PER_HOST: usize = 3;
        let (used, all) = self.tables.usage();
        let needed = hosts.saturating_mul(TABLES_PER_HOST);
        if all - used >= needed {
            return;
        }
        let mut tables: Vec<Table> = Vec::new();
        if tables.try_reserve_exact(needed).is_ok() {
            tables.resize(needed, Table::EMPTY);
            let tables = tables.leak();
            let address = tables.as_ptr().addr() as u64;
            self.tables.extend(tables, address);
        }
    }

    /// Translation tables in use, and how many there are.
    pub(crate) const fn usage(&self) -> (usize, usize) {
        self.tables.usage()
    }

    fn map(&mut self, base: u64, size: u64, memory: Memory) -> Result<(), PagingError> {
        let result = self.tables.map(base, size, memory);
        publish_entries();
        result
    }
}

/// Has the table walker see new entries. They only ever become valid, so there is
/// nothing to invalidate.
fn publish_entries() {
    barrier::dsb(barrier::ISHST);
    barrier::isb(barrier::SY);
}

/// The size of physical addresses, as the registers have it and in bits.
fn address_size() -> (u64, u8) {
    let range = ID_AA64MMFR0_EL1.read(ID_AA64MMFR0_EL1::PARange);
    // 48 bits are the most without the 52-bit extensions.
    let output_size = range.min(5);
    (output_size, [32, 36, 40, 42, 44, 48][output_size as usize])
}

/// Whether this is EL2, whose registers have other names.
pub(crate) fn at_el2() -> bool {
    CurrentEL.read(CurrentEL::EL) == 2
}

/// Whether the MMU is on, and with it the data cache.
pub(crate) fn is_on() -> bool {
    if at_el2() {
        SCTLR_EL2.is_set(SCTLR_EL2::M)
    } else {
        SCTLR_EL1.is_set(SCTLR_EL1::M)
    }
}

/// The regime is taken as it is found: a CPU may have E2H fixed to 1.
fn regime() -> Regime {
    if at_el2() && !HCR_EL2.is_set(HCR_EL2::E2H) {
        Regime::OneLevel
    } else {
        Regime::TwoLevels
    }
}

fn map_image(tables: &mut PageTables<'_>, image: &Image) -> Result<(), PagingError> {
    for guard in image.guards {
        tables.guard(guard, PAGE_SIZE)?;
    }
    tables.map(image.start, image.rodata - image.start, Memory::Code)?;
    tables.map(image.rodata, image.data - image.rodata, Memory::ReadOnly)?;
    tables.map(image.data, image.end - image.data, Memory::Data)
}

/// Writes 0 to the registers that extend `TCR_ELx` and `SCTLR_ELx`, where the
/// processor has them (Arm ARM D24.2.95, `ID_AA64MMFR3_EL1`).
///
/// A kernel that ran before may have left them as it needed them: with
/// `TCR2_ELx.PIE` the permissions in our tables would be indices into a register,
/// and with `SCTLR2_ELx.EASE` an external abort would arrive as an `SError`.
fn reset_extended_controls(el2: bool) {
    const TCRX: u64 = 0xf;
    const SCTLRX: u64 = 0xf << 4;
    let features: u64;
    // SAFETY: the register has no side effect, and reads as 0 where there is no
    // such register yet; the others are written only where they exist, and 0
    // turns all of their features off, none of which is used here.
    unsafe {
        asm!("mrs {}, s3_0_c0_c7_3", out(reg) features,
            options(nomem, nostack, preserves_flags));
        match (features & TCRX != 0, el2) {
            (false, _) => {}
            (true, false) => asm!("msr s3_0_c2_c0_3, xzr", options(nostack)),
            (true, true) => asm!("msr s3_4_c2_c0_3, xzr", options(nostack)),
        }
        match (features & SCTLRX != 0, el2) {
            (false, _) => {}
            (true, false) => asm!("msr s3_0_c1_c0_3, xzr", options(nostack)),
            (true, true) => asm!("msr s3_4_c1_c0_3, xzr", options(nostack)),
        }
    }
}

/// # Safety
///
/// The tables at `root` must map everything in use to itself, and no line of
/// the image may be dirty in a cache.
unsafe fn enable(regime: Regime, output_size: u64, root: u64, image: &Image) {
    // 48-bit addresses, 4 KiB granule, table walks cacheable and inner
    // shareable; nothing through TTBR1.
    let two_levels = (TCR_EL1::T0SZ.val(16)
        + TCR_EL1::TG0::KiB_4
        + TCR_EL1::SH0::Inner
        + TCR_EL1::ORGN0::WriteBack_ReadAlloc_WriteAlloc_Cacheable
        + TCR_EL1::IRGN0::WriteBack_ReadAlloc_WriteAlloc_Cacheable
        + TCR_EL1::EPD1::DisableTTBR1Walks
        + TCR_EL1::IPS.val(output_size))
    .value;
    let one_level = (TCR_EL2::T0SZ.val(16)
        + TCR_EL2::TG0::KiB_4
        + TCR_EL2::SH0::Inner
        + TCR_EL2::ORGN0::WriteBack_ReadAlloc_WriteAlloc_Cacheable
        + TCR_EL2::IRGN0::WriteBack_ReadAlloc_WriteAlloc_Cacheable
        + TCR_EL2::PS.val(output_size))
    .value
        | 1 << 31
        | 1 << 23;
    let (control, sctlr) = match regime {
        Regime::TwoLevels => (two_levels, SCTLR_RES1_TWO_LEVELS | SCTLR_ON),
        Regime::OneLevel => (one_level, SCTLR_RES1_ONE_LEVEL | SCTLR_ON),
    };
    let el2 = at_el2();
    reset_extended_controls(el2);
    if el2 {
        MAIR_EL2.set(Memory::MAIR);
        TCR_EL2.set(control);
        TTBR0_EL2.set(root);
    } else {
        MAIR_EL1.set(Memory::MAIR);
        TCR_EL1.set(control);
        TTBR0_EL1.set(root);
    }
    // What was written with the MMU off is in memory; a line that a cache
    // fetched before that must not be believed.
    // SAFETY: the caller promises that no line of the image is dirty, so
    // invalidating loses nothing; registers and stack are not touched between
    // the invalidation and the moment the caches are on.
    unsafe {
        asm!(
            "mrs {line}, ctr_el0",
            "ubfx {line}, {line}, #16, #4",
            "lsl {line}, {four}, {line}",
            "2:",
            "dc ivac, {at}",
            "add {at}, {at}, {line}",
            "cmp {at}, {end}",
            "b.lo 2b",
            "dsb sy",
            "isb",
            "cbnz {el2}, 3f",
            "tlbi vmalle1",
            "ic iallu",
            "dsb sy",
            "isb",
            "msr sctlr_el1, {sctlr}",
            "isb",
            "b 4f",
            "3:",
            "tlbi alle2",
            "ic iallu",
            "dsb sy",
            "isb",
            "msr sctlr_el2, {sctlr}",
            "isb",
            "4:",
            line = out(reg) _,
            four = in(reg) 4_u64,
            at = inout(reg) image.start => _,
            end = in(reg) image.end,
            el2 = in(reg) u64::from(el2),
            sctlr = in(reg) sctlr,
            options(nostack),
        );
    }
}
