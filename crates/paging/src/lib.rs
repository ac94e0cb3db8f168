//! Translation tables for an identity map.
//!
//! 4 KiB granule, 48-bit input addresses, four levels of lookup (Arm ARM
//! D8.2, VMSAv8-64). Only the contents of the tables are computed here; the
//! firmware points the processor at them. Entries are only ever filled in: what
//! is mapped stays as it is, so no live entry ever changes and no
//! break-before-make is needed.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod all_memory;
mod error;
pub mod size_class;
#[cfg(test)]
mod tests;

pub use all_memory::Unmapped;
pub use error::PagingError;

/// Bytes of a page, the smallest piece that can be mapped.
pub const PAGE_SIZE: u64 = 4096;

/// Entries in one table.
const ENTRIES: usize = 512;

/// One translation table.
#[derive(Clone)]
#[repr(C, align(4096))]
pub struct Table([u64; ENTRIES]);

impl Table {
    /// A table that maps nothing.
    pub const EMPTY: Self = Self([0; ENTRIES]);

    /// The descriptors.
    #[must_use]
    pub const fn entries(&self) -> &[u64; ENTRIES] {
        &self.0
    }
}

/// The translation regime that the tables are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regime {
    /// EL1&0 or, with `HCR_EL2.E2H` set, EL2&0: two privilege levels.
    TwoLevels,
    /// EL2 with `HCR_EL2.E2H` clear: one privilege level.
    OneLevel,
}

/// What a piece of the address space is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Normal memory, executable and read-only.
    Code,
    /// Normal memory, read-only, never executed.
    ReadOnly,
    /// Normal memory, writable, never executed.
    Data,
    /// Device memory with early write acknowledgement (nGnRE).
    Device,
    /// Device memory without early write acknowledgement (nGnRnE), which
    /// configuration requests need.
    ConfigSpace,
}

impl Memory {
    /// `MAIR_ELx` for the attribute indices that the descriptors use.
    pub const MAIR: u64 = 0x00_04_ff;

    const fn attribute_index(self) -> u64 {
        match self {
            Self::Code | Self::ReadOnly | Self::Data => 0,
            Self::Device => 1,
            Self::ConfigSpace => 2,
        }
    }

    const fn is_normal(self) -> bool {
        self.attribute_index() == 0
    }

    /// Upper and lower attributes of a leaf descriptor (Arm ARM D8.3.2).
    const fn attributes(self, regime: Regime) -> u64 {
        const PRIVILEGED_EXECUTE_NEVER: u64 = 1 << 53;
        const EXECUTE_NEVER: u64 = 1 << 54;
        const ACCESSED: u64 = 1 << 10;
        const INNER_SHAREABLE: u64 = 3 << 8;
        const READ_ONLY: u64 = 1 << 7;
        // AP[1] is RES1 where there is one privilege level, and would open the
        // page to EL0 where there are two.
        const AP1: u64 = 1 << 6;

        let executable = matches!(self, Self::Code);
        let writable = !matches!(self, Self::Code | Self::ReadOnly);
        let mut bits = ACCESSED | INNER_SHAREABLE | self.attribute_index() << 2;
        if !writable {
            bits |= READ_ONLY;
        }
        match (regime, executable) {
            (Regime::TwoLevels, true) => bits | EXECUTE_NEVER,
            (Regime::TwoLevels, false) => bits | EXECUTE_NEVER | PRIVILEGED_EXECUTE_NEVER,
            (Regime::OneLevel, true) => bits | AP1,
            (Regime::OneLevel, false) => bits | AP1 | EXECUTE_NEVER,
        }
    }
}

/// A reserved entry: invalid to the hardware, and never filled in.
const GUARD: u64 = 1 << 62;
const VALID: u64 = 1;
/// Bits 1:0 of a table descriptor, and of a leaf at level 3.
const TABLE: u64 = 3;
/// Bits 1:0 of a block descriptor at level 1 or 2.
const BLOCK: u64 = 1;
const LAST_LEVEL: u8 = 3;
/// Bits 47:12, the address in a descriptor.
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// Translation tables that are being filled.
pub struct PageTables<'pool> {
    /// The tables that were there first, and those that were added.
    pools: [Pool<'pool>; 2],
    /// Tables in use: all of the first pool before any of the second.
    used: usize,
    /// Tables that are not used for the time being.
    spare: usize,
    regime: Regime,
    address_bits: u8,
}

/// Tables at one place in memory.
struct Pool<'pool> {
    tables: &'pool mut [Table],
    /// The physical address of the first one.
    address: u64,
}

/// The content for the entries of a range.
#[derive(Clone, Copy)]
enum Fill {
    Guard,
    Map(Memory),
}

impl<'pool> PageTables<'pool> {
    /// Empty tables in `pool`, which the processor sees at physical address
    /// `pool_address`, a multiple of [`PAGE_SIZE`]. Addresses have
    /// `address_bits` bits, of which no more than 48 are used.
    ///
    /// An empty pool is refused as used up.
    pub fn new(
        pool: &'pool mut [Table],
        pool_address: u64,
        regime: Regime,
        address_bits: u8,
    ) -> Result<Self, PagingError> {
        if pool.is_empty() {
            return Err(PagingError::OutOfTables {
                address: 0,
                tables: 0,
            });
        }
        let first = Pool {
            tables: pool,
            address: pool_address,
        };
        let second = Pool {
            tables: &mut [],
            address: 0,
        };
        Ok(Self {
            pools: [first, second],
            used: 1,
            spare: 0,
            regime,
            address_bits: address_bits.min(48),
        })
    }

    /// Physical address of the first table, for `TTBR0_ELx`.
    #[must_use]
    pub const fn root(&self) -> u64 {
        self.pools[0].address
    }

    /// Adds the tables in `pool`, which the processor sees at physical address
    /// `pool_address`, a multiple of [`PAGE_SIZE`]. They count where none were
    /// added before.
    pub fn extend(&mut self, pool: &'pool mut [Table], pool_address: u64) {
        let second = &mut self.pools[1];
        if second.tables.is_empty() {
            *second = Pool {
                tables: pool,
                address: pool_address,
            };
        }
    }

    /// Tables in use and tables in the pool.
    #[must_use]
    pub const fn usage(&self) -> (usize, usize) {
        (self.used, self.len())
    }

    /// Bits of the addresses that can be mapped.
    #[must_use]
    pub const fn address_bits(&self) -> u8 {
        self.address_bits
    }

    const fn set_spare_tables(&mut self, tables: usize) {
        self.spare = tables;
    }

    const fn len(&self) -> usize {
        self.pools[0].tables.len() + self.pools[1].tables.len()
    }

    /// The pool that table `table` is in, and its number there.
    const fn place(&self, table: usize) -> (usize, usize) {
        match table.checked_sub(self.pools[0].tables.len()) {
            None => (0, table),
            Some(number) => (1, number),
        }
    }

    fn table(&mut self, table: usize) -> &mut Table {
        let (pool, number) = self.place(table);
        &mut self.pools[pool].tables[number]
    }

    const fn address_of(&self, table: usize) -> u64 {
        let (pool, number) = self.place(table);
        self.pools[pool].address + number as u64 * PAGE_SIZE
    }

    /// The table at `address`, which is that of one of them.
    const fn table_at(&self, address: u64) -> usize {
        let [first, second] = &self.pools;
        let first_end = first.address + first.tables.len() as u64 * PAGE_SIZE;
        if first.address <= address && address < first_end {
            ((address - first.address) / PAGE_SIZE) as usize
        } else {
            first.tables.len() + ((address - second.address) / PAGE_SIZE) as usize
        }
    }

    /// Maps every page that `size` bytes at `first` touch, each to itself.
    ///
    /// Normal memory over normal memory leaves what is there, so that the
    /// firmware image keeps its permissions when the memory around it is
    /// mapped. On an error a part of the range may be mapped.
    pub fn map(&mut self, first: u64, size: u64, memory: Memory) -> Result<(), PagingError> {
        self.fill_range(first, size, Fill::Map(memory))
    }

    /// Reserves every page that `size` bytes at `first` touch: it is never mapped.
    pub fn guard(&mut self, first: u64, size: u64) -> Result<(), PagingError> {
        self.fill_range(first, size, Fill::Guard)
    }

    fn fill_range(&mut self, first: u64, size: u64, fill: Fill) -> Result<(), PagingError> {
        let Some(bytes_before_last) = size.checked_sub(1) else {
            return Ok(());
        };
        let last = first
            .checked_add(bytes_before_last)
            .filter(|last| last >> self.address_bits == 0)
            .ok_or(PagingError::OutOfReach {
                first,
                size,
                address_bits: self.address_bits,
            })?;
        self.fill_table(0, 0, first & !(PAGE_SIZE - 1), last | (PAGE_SIZE - 1), fill)
    }

    /// Fills the part of table `table` at `level` that `first..=last` covers.
    /// Both ends lie within the range of the table.
    fn fill_table(
        &mut self,
        table: usize,
        level: u8,
        first: u64,
        last: u64,
        fill: Fill,
    ) -> Result<(), PagingError> {
        let shift = 39 - 9 * u32::from(level);
        let span = 1_u64 << shift;
        let mut start = first;
        loop {
            let entry_first = start & !(span - 1);
            let entry_last = entry_first + (span - 1);
            let end = entry_last.min(last);
            let index = (start >> shift) as usize % ENTRIES;
            let covered = start == entry_first && end == entry_last;
            let leaf_fits = level == LAST_LEVEL || (level > 0 && covered);
            let entry = self.table(table).0[index];

            if level < LAST_LEVEL && entry & TABLE == TABLE {
                let below = self.table_at(entry & ADDRESS);
                self.fill_table(below, level + 1, start, end, fill)?;
            } else if entry != 0 {
                check_filled(entry, (entry_first, span), fill)?;
            } else if leaf_fits {
                self.table(table).0[index] = self.leaf(entry_first, level, fill);
            } else {
                let below = self.allocate_table(start)?;
                self.fill_table(below, level + 1, start, end, fill)?;
                // Linked only when it is filled: a table walk may come along
                // at any time.
                self.table(table).0[index] = self.address_of(below) | TABLE;
            }

            if end == last {
                return Ok(());
            }
            start = end + 1;
        }
    }

    const fn leaf(&self, address: u64, level: u8, fill: Fill) -> u64 {
        match fill {
            Fill::Guard => GUARD,
            Fill::Map(memory) => {
                let kind = if level == LAST_LEVEL { TABLE } else { BLOCK };
                address | memory.attributes(self.regime) | kind
            }
        }
    }

    fn allocate_table(&mut self, address: u64) -> Result<usize, PagingError> {
        let tables = self.len();
        if self.used + self.spare >= tables {
            return Err(PagingError::OutOfTables { address, tables });
        }
        *self.table(self.used) = Table::EMPTY;
        self.used += 1;
        Ok(self.used - 1)
    }
}

/// Refuses an entry that is already filled in with something else.
fn check_filled(entry: u64, (address, size): (u64, u64), fill: Fill) -> Result<(), PagingError> {
    let Fill::Map(wanted) = fill else {
        // A guard over mapped memory would not guard.
        return if entry & VALID == 0 {
            Ok(())
        } else {
            Err(PagingError::Conflict {
                address,
                size,
                wanted: Memory::Data,
            })
        };
    };
    let index = entry >> 2 & 7;
    let same = if entry & VALID == 0 {
        wanted.is_normal()
    } else {
        index == wanted.attribute_index()
    };
    if same {
        Ok(())
    } else {
        Err(PagingError::Conflict {
            address,
            size,
            wanted,
        })
    }
}
