//! Machines whose MCFG describes configuration space that does not behave as
//! ECAM does.
//!
//! The facts are those of the table of Linux 7.3 (`drivers/acpi/pci_mcfg.c`),
//! which is keyed by three fields of the MCFG header and the segment. Every row
//! there is for all buses of its segment. Only machines of arm64 are here.

use core::fmt;
use core::ops::RangeInclusive;

use warmbus_memory::bytes::le_u32;
use warmbus_pci::AccessWidths;

/// What of the header of an MCFG identifies the machine (ACPI 6.5, table 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct McfgId {
    /// OEM ID, padded with blanks.
    pub oem_id: [u8; 6],
    /// OEM Table ID, padded with blanks.
    pub oem_table_id: [u8; 8],
    /// OEM Revision.
    pub oem_revision: u32,
}

impl McfgId {
    /// The identity in a table that starts with `header`; `None` where that has
    /// less than 28 bytes.
    #[must_use]
    pub fn from_header(header: &[u8]) -> Option<Self> {
        Some(Self {
            oem_id: header.get(10..16)?.try_into().ok()?,
            oem_table_id: header.get(16..24)?.try_into().ok()?,
            oem_revision: le_u32(header, 24)?,
        })
    }

    /// What is known to be different about the configuration space of
    /// `segment` on this machine; `None` where it is taken for ECAM.
    #[must_use]
    pub fn quirk(&self, segment: u16) -> Option<McfgQuirk> {
        let row = QUIRKS.iter().find(|row| {
            row.oem_id == self.oem_id
                && row.oem_table_id == self.oem_table_id
                && row.oem_revisions.contains(&self.oem_revision)
                && row.segments.contains(&segment)
        });
        row.map(|row| row.quirk)
    }
}

impl fmt::Display for McfgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (vendor, table) = (&self.oem_id, &self.oem_table_id);
        write!(
            f,
            "{} {} revision {:#x}",
            vendor.trim_ascii().escape_ascii(),
            table.trim_ascii().escape_ascii(),
            self.oem_revision
        )
    }
}

/// How configuration space differs from ECAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum McfgQuirk {
    /// It is ECAM, but not all widths of accesses are performed.
    Widths(AccessWidths),
    /// Linux reads it by another driver, so that neither the addresses nor the
    /// values are those of ECAM. It must not be accessed. The text is the
    /// reason, a clause about the host bridge.
    NotEcam(&'static str),
}

struct Row {
    oem_id: [u8; 6],
    oem_table_id: [u8; 8],
    oem_revisions: RangeInclusive<u32>,
    segments: RangeInclusive<u16>,
    quirk: McfgQuirk,
}

const fn row(
    oem_id: [u8; 6],
    oem_table_id: [u8; 8],
    oem_revisions: RangeInclusive<u32>,
    segments: RangeInclusive<u16>,
    quirk: McfgQuirk,
) -> Row {
    Row {
        oem_id,
        oem_table_id,
        oem_revisions,
        segments,
        quirk,
    }
}

/// The root port has registers of its own elsewhere, and a read of the root
/// bus in the window goes to the device behind it, whatever the device number.
const SHADOWED: McfgQuirk =
    McfgQuirk::NotEcam("the window does not show its root port, whose registers are elsewhere");
/// A register of the controller has to be written before each access.
const AIMED: McfgQuirk =
    McfgQuirk::NotEcam("a register of its controller selects the function that the window shows");
const PEM: McfgQuirk = McfgQuirk::NotEcam("its registers are not laid out as ECAM");
const EMULATED: McfgQuirk =
    McfgQuirk::NotEcam("Linux emulates capabilities of the functions below it");
/// A read of a function that does not exist ends in an error of the
/// interconnect, and the root port is elsewhere. The rule is not in Linux, but
/// in the platform's own firmware and in patches of its vendor.
const ABORTING: McfgQuirk =
    McfgQuirk::NotEcam("a read of a function that does not exist is an error of its bus");

static QUIRKS: [Row; 16] = [
    row(*b"AMAZON", *b"GRAVITON", 0..=0, 0..=7, SHADOWED),
    row(
        *b"QCOM  ",
        *b"QDF2432 ",
        1..=1,
        0..=7,
        McfgQuirk::Widths(AccessWidths::Dwords),
    ),
    row(*b"HISI  ", *b"HIP05   ", 0..=0, 0..=3, SHADOWED),
    row(*b"HISI  ", *b"HIP06   ", 0..=0, 0..=3, SHADOWED),
    row(*b"HISI  ", *b"HIP07   ", 0..=0, 0..=15, SHADOWED),
    row(*b"CAVIUM", *b"THUNDERX", 1..=2, 4..=9, PEM),
    row(*b"CAVIUM", *b"THUNDERX", 1..=2, 14..=19, PEM),
    row(*b"CAVIUM", *b"THUNDERX", 1..=1, 10..=10, EMULATED),
    row(*b"CAVIUM", *b"THUNDERX", 2..=2, 0..=3, EMULATED),
    row(*b"CAVIUM", *b"THUNDERX", 2..=2, 10..=13, EMULATED),
    row(*b"NVIDIA", *b"TEGRA194", 1..=1, 0..=5, AIMED),
    row(*b"APM   ", *b"XGENE   ", 1..=2, 0..=4, AIMED),
    row(*b"APM   ", *b"XGENE   ", 3..=3, 0..=1, AIMED),
    row(*b"APM   ", *b"XGENE   ", 4..=4, 0..=2, AIMED),
    row(
        *b"Ampere",
        *b"Altra   ",
        1..=1,
        0..=15,
        McfgQuirk::Widths(AccessWidths::DwordReads),
    ),
    row(
        *b"ARMLTD",
        *b"ARMN1SDP",
        0..=u32::MAX,
        0..=u16::MAX,
        ABORTING,
    ),
];
