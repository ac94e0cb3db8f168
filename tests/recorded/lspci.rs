//! The real `lspci` as an oracle.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use warmbus_pci::{Capability, ExtendedCapability};

/// Runs `lspci -F dump` with `options` and returns what it prints.
pub(crate) fn lspci(dump: &Path, options: &[&str]) -> String {
    let output = Command::new("lspci")
        .arg("-F")
        .arg(dump)
        .args(options)
        .output()
        .expect("the tests need lspci from the package pciutils");
    // lspci also names kernel modules, and says so where there are none.
    let complaints: String = String::from_utf8_lossy(&output.stderr)
        .lines()
        .filter(|line| !line.is_empty() && !line.contains("libkmod"))
        .collect();
    assert!(
        output.status.success() && complaints.is_empty(),
        "lspci on {}: {complaints}",
        dump.display()
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What `lspci` prints for each function, by the address it prints.
pub(crate) fn by_function(printed: &str) -> BTreeMap<String, String> {
    printed
        .split("\n\n")
        .map(|block| block.trim_start_matches('\n'))
        .filter(|block| !block.is_empty())
        .map(|block| {
            let (address, rest) = block.split_once(' ').expect(block);
            (address.to_owned(), rest.to_owned())
        })
        .collect()
}

/// A capability that `lspci -vvv` lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) offset: u16,
    /// Version of an extended capability.
    pub(crate) version: Option<u8>,
    /// What it is.
    pub(crate) name: String,
}

/// The capability lists of one function, as `lspci -vvv` decodes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub(crate) capabilities: Vec<Listed>,
    /// Why lspci lists less than there may be, in its own words.
    pub(crate) remarks: Vec<String>,
}

impl Decoded {
    /// Reads what `lspci -vvv` prints for one function.
    pub(crate) fn new(text: &str) -> Self {
        let mut decoded = Self::default();
        for line in text.lines() {
            if line.starts_with("\t!!!") {
                decoded.remarks.push(line.trim().to_owned());
            }
            let Some(rest) = line.strip_prefix("\tCapabilities: ") else {
                continue;
            };
            let Some((place, name)) = rest.strip_prefix('[').and_then(|r| r.split_once("] "))
            else {
                decoded.remarks.push(rest.to_owned());
                continue;
            };
            let (offset, version) = match place.split_once(" v") {
                Some((offset, version)) => (offset, Some(version.parse().expect(line))),
                None => (place, None),
            };
            if name.starts_with("<chain") {
                decoded.remarks.push(name.to_owned());
                continue;
            }
            decoded.capabilities.push(Listed {
                offset: u16::from_str_radix(offset, 16).expect(line),
                version,
                name: name.to_owned(),
            });
        }
        decoded
    }
}

/// Compares lists of capabilities with those that `lspci` decodes, in order.
/// Returns each difference as a line.
///
/// A null capability (ID 0) carries nothing: either side may leave it out.
pub(crate) fn differences(
    decoded: &Decoded,
    capabilities: &[Capability],
    extended_capabilities: &[ExtendedCapability],
) -> Vec<String> {
    let theirs: Vec<_> = decoded
        .capabilities
        .iter()
        .filter(|listed| ids_of(listed) != [0])
        .collect();
    let standard = capabilities
        .iter()
        .map(|found| (u16::from(found.id), u16::from(found.offset), None));
    let extended = extended_capabilities
        .iter()
        .map(|found| (found.id, found.offset, Some(found.version)));
    let ours: Vec<_> = standard
        .chain(extended)
        .filter(|found| found.0 != 0)
        .collect();
    let mut lines = Vec::new();
    for index in 0..theirs.len().max(ours.len()) {
        let same = match (theirs.get(index), ours.get(index)) {
            (Some(listed), Some((id, offset, version))) => {
                ids_of(listed).contains(id)
                    && (listed.offset, listed.version) == (*offset, *version)
            }
            _ => false,
        };
        if !same {
            lines.push(format!(
                "capability {index}: lspci {:?} {:?}, here (id, offset, version) {:x?}",
                theirs.get(index),
                decoded.remarks,
                ours.get(index)
            ));
        }
    }
    lines
}

/// The IDs that `lspci` gives this name. Two where it does not distinguish them.
pub(crate) fn ids_of(listed: &Listed) -> Vec<u16> {
    let unnamed = listed
        .name
        .strip_prefix("Extended Capability ID ")
        .or_else(|| listed.name.strip_prefix("Capability ID "));
    if let Some(rest) = unnamed {
        let digits = rest.split(' ').next().and_then(|id| id.strip_prefix("0x"));
        return vec![u16::from_str_radix(digits.expect(rest), 16).expect(rest)];
    }
    let names = if listed.version.is_some() {
        EXTENDED
    } else {
        STANDARD
    };
    names
        .iter()
        .filter(|(_, name)| listed.name.starts_with(name))
        .map(|(id, _)| *id)
        .collect()
}

/// How the text of each capability begins.
const STANDARD: &[(u16, &str)] = &[
    (0x00, "Null"),
    (0x01, "Power Management version"),
    (0x02, "AGP version"),
    (0x03, "Vital Product Data"),
    (0x04, "Slot ID:"),
    (0x05, "MSI:"),
    (0x06, "CompactPCI hot-swap"),
    (0x07, "PCI-X "),
    (0x08, "HyperTransport:"),
    (0x09, "Vendor Specific Information:"),
    (0x0a, "Debug port:"),
    (0x0b, "CompactPCI central resource control"),
    (0x0c, "Hot-plug capable"),
    (0x0d, "Subsystem:"),
    (0x0e, "AGP3"),
    (0x0f, "Secure device"),
    (0x10, "Express "),
    (0x11, "MSI-X:"),
    (0x12, "SATA HBA"),
    (0x13, "PCI Advanced Features"),
    (0x14, "Enhanced Allocation (EA):"),
];

const EXTENDED: &[(u16, &str)] = &[
    (0x00, "Null"),
    (0x01, "Advanced Error Reporting"),
    (0x02, "Virtual Channel"),
    (0x03, "Device Serial Number"),
    (0x04, "Power Budgeting"),
    (0x05, "Root Complex Link"),
    (0x06, "Root Complex Internal Link"),
    (0x07, "Root Complex Event Collector"),
    (0x08, "Multi-Function Virtual Channel"),
    (0x09, "Virtual Channel"),
    (0x0a, "Root Complex Register FunctionCache"),
    (0x0b, "Vendor Specific Information:"),
    (0x0d, "Access Control Services"),
    (0x0e, "Alternative Routing-ID Interpretation"),
    (0x0f, "Address Translation Service"),
    (0x10, "Single Root I/O Virtualization"),
    (0x11, "Multi-Root I/O Virtualization"),
    (0x12, "Multicast"),
    (0x13, "Page Request Interface"),
    (0x15, "Physical Resizable BAR"),
    (0x16, "Dynamic Power Allocation"),
    (0x17, "Transaction Processing Hints"),
    (0x18, "Latency Tolerance Reporting"),
    (0x19, "Secondary PCI Express"),
    (0x1a, "Protocol Multiplexing"),
    (0x1b, "Process Address Space ID"),
    (0x1c, "LN Requester"),
    (0x1d, "Downstream Port Containment"),
    (0x1e, "L1 PM Substates"),
    (0x1f, "Precision Time Measurement"),
    (0x20, "PCI Express over M_PHY"),
    (0x21, "FRS Queueing"),
    (0x22, "Readiness Time Reporting"),
    (0x23, "Designated Vendor-Specific:"),
    (0x24, "Virtual Resizable BAR"),
    (0x25, "Data Link Feature"),
    (0x26, "Physical Layer 16.0 GT/s"),
    (0x27, "Lane Margining at the Receiver"),
    (0x28, "Hierarchy ID"),
    (0x29, "Native PCIe Enclosure Management"),
    (0x2a, "Physical Layer 32.0 GT/s"),
    (0x2b, "Alternate Protocol"),
    (0x2e, "Data Object Exchange"),
    (0x30, "Integrity & Data Encryption"),
    (0x31, "Physical Layer 64.0 GT/s"),
];
