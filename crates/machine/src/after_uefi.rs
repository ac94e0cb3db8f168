//! What UEFI leaves to a program that a running Linux starts by `kexec`: its memory
//! map and its tables, which `/chosen` names as it did for that Linux (Linux,
//! `Documentation/arch/arm/uefi.rst`).

use alloc::vec::Vec;
use core::ops::ControlFlow;

use super::memory::one_number;
use super::uefi::MemoryMap;
use warmbus_fdt::{DeviceTree, FdtError, FdtNode, is_chosen};
use warmbus_memory::bytes::{array, le_u32, le_u64};
use warmbus_memory::{MemoryRange, NotMemory, PhysAddr, PhysMemory};

/// The properties of `/chosen` that name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UefiInChosen {
    /// The system table (`linux,uefi-system-table`).
    pub system_table: PhysAddr,
    /// The memory map (`linux,uefi-mmap-start`, `linux,uefi-mmap-size`).
    pub map: MemoryRange,
    /// Bytes of each descriptor in it (`linux,uefi-mmap-desc-size`).
    pub descriptor_size: usize,
    /// The tree has nothing but `/chosen`, so that Linux learns the machine from
    /// ACPI.
    pub is_stub: bool,
}

impl UefiInChosen {
    /// Reads `/chosen` of `tree`. `None` where it names no memory map of UEFI.
    pub fn find(tree: &[u8]) -> Result<Option<Self>, FdtError> {
        let mut found = Properties::default();
        let mut is_stub = true;
        DeviceTree::new(tree)?.walk_root_children(&mut |node| {
            if node
                .parent()
                .is_some_and(|parent| parent.parent().is_some())
            {
                return Ok(ControlFlow::Break(()));
            }
            let name = node.name()?;
            if is_chosen(name.as_bytes()) {
                found.read(node)?;
            } else if name != "hypervisor" {
                is_stub = false;
            }
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found.into_uefi(is_stub))
    }
}

#[derive(Default)]
struct Properties {
    system_table: Option<u64>,
    map: Option<u64>,
    map_size: Option<u64>,
    descriptor_size: Option<u64>,
}

impl Properties {
    fn read(&mut self, node: &FdtNode<'_, '_>) -> Result<(), FdtError> {
        // Addresses have two cells and sizes have one.
        let number = |name| Ok::<_, FdtError>(node.property(name)?.and_then(one_number));
        self.system_table = number("linux,uefi-system-table")?;
        self.map = number("linux,uefi-mmap-start")?;
        self.map_size = number("linux,uefi-mmap-size")?;
        self.descriptor_size = number("linux,uefi-mmap-desc-size")?;
        Ok(())
    }

    fn into_uefi(self, is_stub: bool) -> Option<UefiInChosen> {
        let map = MemoryRange::new(PhysAddr(self.map?), self.map_size?);
        Some(UefiInChosen {
            system_table: PhysAddr(self.system_table?),
            map,
            descriptor_size: usize::try_from(self.descriptor_size?).ok()?,
            is_stub,
        })
    }
}

/// Why what UEFI has left cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UefiError {
    /// Something is not in memory.
    #[error("the {what} of UEFI should be at {range}, which is not all memory that it has left")]
    NotInMemory {
        /// What it is.
        what: &'static str,
        /// Where it should be.
        range: MemoryRange,
    },
    /// The system table does not start as it should.
    #[error("what is at {0} is no system table of UEFI")]
    Signature(PhysAddr),
    /// There is more of something than on any machine.
    #[error("UEFI has left more than {limit} {what}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many are accepted.
        limit: usize,
    },
}

/// What the configuration tables of UEFI name (UEFI 2.10, 4.6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UefiTables {
    /// Where the RSDP of ACPI 2.0 or later is.
    pub rsdp: Option<PhysAddr>,
    /// The memory that a Linux has reserved for all that come after it, such as
    /// tables of the interrupt controller, which it goes on writing to.
    pub reserved: Vec<MemoryRange>,
}

/// `EFI_ACPI_20_TABLE_GUID`.
const ACPI_20: [u8; 16] = guid(
    0x8868_e871,
    0xe4f1,
    0x11d3,
    *b"\xbc\x22\x00\x80\xc7\x3c\x88\x81",
);
/// `LINUX_EFI_MEMRESERVE_TABLE_GUID`.
const MEMRESERVE: [u8; 16] = guid(
    0x888e_b0c6,
    0x8ede,
    0x4ff5,
    *b"\xa8\xf0\x9a\xee\x5c\xb9\x77\xc2",
);

/// The bytes of a GUID (UEFI 2.10, appendix A).
const fn guid(a: u32, b: u16, c: u16, rest: [u8; 8]) -> [u8; 16] {
    let (a, b, c, d) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes(), rest);
    [
        a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6],
        d[7],
    ]
}

impl UefiTables {
    /// Reads the system table at `place`, whose pointers are those that Linux has
    /// given UEFI by `SetVirtualAddressMap`, as `map` has them.
    pub fn read(
        memory: &dyn PhysMemory,
        place: PhysAddr,
        map: &MemoryMap<'_>,
    ) -> Result<Self, UefiError> {
        const SIZE: u64 = 120;
        const SIGNATURE: &[u8] = b"IBI SYST";
        const ENTRIES: usize = 104;
        const TABLES: usize = 112;
        const ENTRY_SIZE: u64 = 24;
        const MAX_ENTRIES: u64 = 1024;

        let header = read(memory, "system table", MemoryRange::new(place, SIZE))?;
        if !header.starts_with(SIGNATURE) {
            return Err(UefiError::Signature(place));
        }
        let number = |at| le_u64(header, at).unwrap_or(0);
        let count = number(ENTRIES);
        if count > MAX_ENTRIES {
            return Err(UefiError::TooMany {
                what: "configuration tables",
                limit: MAX_ENTRIES as usize,
            });
        }
        let mut tables = Self::default();
        if count == 0 {
            return Ok(tables);
        }
        let start = map.physical(number(TABLES));
        let range = MemoryRange::new(start, count * ENTRY_SIZE);
        let mut first_reserved = None;
        let entries = read(memory, "list of configuration tables", range)?;
        for entry in entries.chunks_exact(ENTRY_SIZE as usize) {
            let place = le_u64(entry, 16).filter(|place| *place != 0);
            match array::<16>(entry, 0) {
                Some(ACPI_20) => tables.rsdp = place.map(PhysAddr),
                Some(MEMRESERVE) => first_reserved = place,
                _ => {}
            }
        }
        if let Some(first) = first_reserved {
            tables.reserved = memory_reservations(memory, PhysAddr(first))?;
        }
        Ok(tables)
    }
}

/// The list of `struct linux_efi_memreserve` at `first` (Linux, `include/linux/efi.h`),
/// and what is named in it.
fn memory_reservations(
    memory: &dyn PhysMemory,
    first: PhysAddr,
) -> Result<Vec<MemoryRange>, UefiError> {
    const WHAT: &str = "list of reserved memory";
    const HEADER_SIZE: u64 = 16;
    const ENTRY_SIZE: u64 = 16;
    /// More than on any machine, and in any list that ends.
    const MAX: usize = 65_536;

    let mut reserved = Vec::new();
    let mut next = first;
    while next.0 != 0 {
        let header = read(memory, WHAT, MemoryRange::new(next, HEADER_SIZE))?;
        let (space, used) = (le_u32(header, 0), le_u32(header, 4));
        let (space, used) = (space.unwrap_or(0), used.unwrap_or(0));
        let range = MemoryRange::new(next, HEADER_SIZE + u64::from(space) * ENTRY_SIZE);
        let node = read(memory, WHAT, range)?;
        reserved.push(range);
        // One that is being filled may count further than it has space.
        let entries = node[HEADER_SIZE as usize..].chunks_exact(ENTRY_SIZE as usize);
        let entries = entries.take(used as usize).filter_map(|entry| {
            let range = MemoryRange::new(PhysAddr(le_u64(entry, 0)?), le_u64(entry, 8)?);
            (!range.is_empty() && range.fits()).then_some(range)
        });
        reserved.extend(entries);
        if reserved.len() > MAX {
            return Err(UefiError::TooMany {
                what: "ranges of reserved memory",
                limit: MAX,
            });
        }
        next = PhysAddr(le_u64(node, 8).unwrap_or(0));
    }
    Ok(reserved)
}

fn read<'m>(
    memory: &'m dyn PhysMemory,
    what: &'static str,
    range: MemoryRange,
) -> Result<&'m [u8], UefiError> {
    let bytes = if range.fits() {
        memory.bytes(range)
    } else {
        Err(NotMemory { range })
    };
    bytes.map_err(|_| UefiError::NotInMemory { what, range })
}
