//! Finding the tables and checking that they are whole (ACPI 6.5, 5.2.5 to
//! 5.2.8).

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use warmbus_memory::bytes::{le_u32, le_u64};
use warmbus_memory::{MemoryRange, PhysAddr, PhysMemory};

/// Bytes of the header that every table starts with.
pub(super) const HEADER_SIZE: usize = 36;
/// Bytes of the RSDP since ACPI 2.0, and of the part that ACPI 1.0 had.
const RSDP_SIZE: u64 = 36;
const RSDP_FIRST_PART: usize = 20;
/// More bytes than any table has.
const MAX_TABLE: u32 = 16 << 20;
/// More tables than any machine has.
const MAX_TABLES: usize = 1024;
/// More bytes than the tables of any machine have together. Each byte is read
/// a few times.
const MAX_BYTES: usize = 64 << 20;

/// Why the tables of ACPI cannot be used at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcpiError {
    /// UEFI names no RSDP of ACPI 2.0 or later.
    #[error("UEFI has no table that names the RSDP of ACPI 2.0 or later")]
    NoRsdp,
    /// A structure is not in memory that may be read.
    #[error("the {what} should be at {address}, where there are no {size:#x} bytes of memory")]
    NotInMemory {
        /// What it is.
        what: &'static str,
        /// Where it should be.
        address: PhysAddr,
        /// Its bytes, as far as is known.
        size: u64,
    },
    /// A structure does not start as it should.
    #[error("what is at {address} is no {what}")]
    Signature {
        /// What it should be.
        what: &'static str,
        /// Where it is.
        address: PhysAddr,
    },
    /// The RSDP is of ACPI 1.0, which has no 64-bit addresses; arm64 needs 5.1.
    #[error("the RSDP is of revision {revision}, from before the 64-bit addresses of revision 2")]
    Revision {
        /// Its revision.
        revision: u8,
    },
    /// The size of a structure is invalid.
    #[error("the {what} at {address} has an invalid size of {size:#x} bytes")]
    Size {
        /// What it is.
        what: &'static str,
        /// Where it is.
        address: PhysAddr,
        /// The size in its header.
        size: u32,
    },
    /// The bytes of a structure do not add up to zero.
    #[error("the bytes of the {what} at {address} add up to {sum:#04x} instead of 0")]
    Checksum {
        /// What it is.
        what: &'static str,
        /// Where it is.
        address: PhysAddr,
        /// What they add up to.
        sum: u8,
    },
}

/// A table that is whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'m> {
    pub(super) signature: [u8; 4],
    /// All bytes, the header included.
    pub(super) bytes: &'m [u8],
}

/// The tables that the XSDT lists, and the DSDT.
#[derive(Debug)]
pub(super) struct Tables<'m> {
    list: Vec<Table<'m>>,
    /// The name that the manufacturer gave the machine.
    pub(super) oem: String,
}

impl<'m> Tables<'m> {
    /// Follows the RSDP at `rsdp`. A table that is damaged is excluded, with a
    /// sentence in `warnings`.
    pub(super) fn find(
        memory: &'m dyn PhysMemory,
        rsdp: PhysAddr,
        warnings: &mut Vec<String>,
    ) -> Result<Self, AcpiError> {
        let xsdt_address = read_rsdp(memory, rsdp)?;
        let xsdt = table(memory, xsdt_address, Some((*b"XSDT", "XSDT")))?;
        let mut tables = Self {
            list: Vec::new(),
            oem: oem(xsdt.bytes),
        };
        let entries = xsdt.bytes[HEADER_SIZE..].chunks_exact(8);
        if entries.len() > MAX_TABLES {
            warnings.push(format!(
                "the XSDT lists {} tables, of which the first {MAX_TABLES} are looked at",
                entries.len()
            ));
        }
        let mut seen = BTreeSet::new();
        let mut bytes_left = MAX_BYTES;
        for entry in entries.take(MAX_TABLES) {
            let address = PhysAddr(le_u64(entry, 0).unwrap_or(0));
            if !seen.insert(address) {
                continue;
            }
            match table(memory, address, None) {
                Ok(table) => {
                    let Some(left) = bytes_left.checked_sub(table.bytes.len()) else {
                        warnings.push(format!(
                            "the ACPI tables have more than {MAX_BYTES:#x} bytes; those from {address} on are ignored"
                        ));
                        break;
                    };
                    bytes_left = left;
                    tables.list.push(table);
                }
                Err(error) => warnings.push(format!("an ACPI table is excluded: {error}")),
            }
        }
        if let Some(dsdt) = tables.dsdt_address() {
            match table(memory, dsdt, Some((*b"DSDT", "DSDT"))) {
                Ok(dsdt) => tables.list.push(dsdt),
                Err(error) => warnings.push(format!("the DSDT is excluded: {error}")),
            }
        }
        Ok(tables)
    }

    /// The first table with this signature.
    pub(super) fn get(&self, signature: [u8; 4]) -> Option<&'m [u8]> {
        self.all(signature).next()
    }

    /// All tables with this signature.
    pub(super) fn all(&self, signature: [u8; 4]) -> impl Iterator<Item = &'m [u8]> + '_ {
        self.list
            .iter()
            .filter(move |table| table.signature == signature)
            .map(|table| table.bytes)
    }

    /// The address of the DSDT in the FADT (ACPI 5.2.9).
    fn dsdt_address(&self) -> Option<PhysAddr> {
        const DSDT: usize = 40;
        const X_DSDT: usize = 140;

        let fadt = self.get(*b"FACP")?;
        let address = le_u64(fadt, X_DSDT)
            .filter(|&address| address != 0)
            .or_else(|| le_u32(fadt, DSDT).map(u64::from))?;
        (address != 0).then_some(PhysAddr(address))
    }
}

/// The address of the XSDT.
fn read_rsdp(memory: &dyn PhysMemory, address: PhysAddr) -> Result<PhysAddr, AcpiError> {
    let what = "RSDP";
    let gone = AcpiError::NotInMemory {
        what,
        address,
        size: RSDP_SIZE,
    };
    let range = MemoryRange::new(address, RSDP_SIZE);
    let bytes = memory.bytes(range).map_err(|_| gone)?;
    if !bytes.starts_with(b"RSD PTR ") {
        return Err(AcpiError::Signature { what, address });
    }
    let revision = bytes.get(15).copied().unwrap_or(0);
    if revision < 2 {
        return Err(AcpiError::Revision { revision });
    }
    for part in [&bytes[..RSDP_FIRST_PART], bytes] {
        check_sum(part, what, address)?;
    }
    Ok(PhysAddr(le_u64(bytes, 24).unwrap_or(0)))
}

/// The table at `address`, which has to be the `wanted` one if one is.
fn table<'m>(
    memory: &'m dyn PhysMemory,
    address: PhysAddr,
    wanted: Option<([u8; 4], &'static str)>,
) -> Result<Table<'m>, AcpiError> {
    let what = wanted.map_or("table", |(_, name)| name);
    let read = |size| {
        let bytes = memory.bytes(MemoryRange::new(address, size));
        bytes.map_err(|_| AcpiError::NotInMemory {
            what,
            address,
            size,
        })
    };
    let header = read(HEADER_SIZE as u64)?;
    let mut signature = [0; 4];
    signature.copy_from_slice(&header[..4]);
    if wanted.is_some_and(|(wanted, _)| wanted != signature) {
        return Err(AcpiError::Signature { what, address });
    }
    let size = le_u32(header, 4).unwrap_or(0);
    if (size as usize) < HEADER_SIZE || size > MAX_TABLE {
        return Err(AcpiError::Size {
            what,
            address,
            size,
        });
    }
    let bytes = read(size.into())?;
    // The FACS has neither a header of this form nor a checksum, and is not in
    // the XSDT.
    check_sum(bytes, what, address)?;
    Ok(Table { signature, bytes })
}

fn check_sum(bytes: &[u8], what: &'static str, address: PhysAddr) -> Result<(), AcpiError> {
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    if sum != 0 {
        return Err(AcpiError::Checksum { what, address, sum });
    }
    Ok(())
}

/// OEM ID and OEM table ID of a header, as words.
fn oem(header: &[u8]) -> String {
    let text = |bytes: &[u8]| {
        let printable = bytes
            .iter()
            .filter(|byte| byte.is_ascii_graphic() || **byte == b' ');
        let text: String = printable.map(|&byte| char::from(byte)).collect();
        String::from(text.trim())
    };
    let words = [text(&header[10..16]), text(&header[16..24])].join(" ");
    String::from(words.trim())
}
