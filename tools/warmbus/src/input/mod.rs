//! The input of the commands: reports, dumps, consoles and memory.

mod handover;
mod memory;
mod tables;
mod text;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use warmbus_boot::report::Report;
use warmbus_pci::Sbdf;
use warmbus_pci::VfRouting;
use warmbus_pcsc_format::{CapabilityRecord, MaskRecord};

/// What kind of file a capture was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A report, JSON.
    Report,
    /// A log of the firmware's console.
    Console,
    /// A dump as `lspci -xxxx` writes it.
    Dump,
    /// Memory with a handover.
    Memory,
}

impl Kind {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Console => "console",
            Self::Dump => "dump",
            Self::Memory => "memory",
        }
    }
}

/// Addresses in a memory image, as far as the caller knows them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    /// Physical address of the first byte of a raw image.
    pub base: Option<u64>,
    /// Physical address of the `pcsc` tree or of the KHO root tree.
    pub root: Option<u64>,
}

/// The configuration space of one function as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// 64 to 4096 bytes; those that are not known are 0.
    pub bytes: Vec<u8>,
    /// Which bytes are known, one for each of `bytes`.
    pub known: Vec<bool>,
    /// The additional data of a handover.
    pub extension: Option<Extension>,
}

/// The extension of a data block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extension {
    /// Which bytes may be cached, one for each byte of the space.
    pub cacheable: Vec<bool>,
    /// Writable and constant bits.
    pub masks: Vec<MaskRecord>,
    /// The capabilities in list order.
    pub capabilities: Vec<CapabilityRecord>,
    /// Whether no capability is missing.
    pub capabilities_complete: bool,
    /// Its identity, if it is a virtual function.
    pub virtual_function: Option<VirtualFunction>,
}

/// The identity of a virtual function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtualFunction {
    /// Its physical function.
    pub physical: Sbdf,
    /// Its number, from 1.
    pub number: u16,
    /// The routing under which it was captured.
    pub routing: VfRouting,
    /// Whether VF Enable was clear: the block has the registers right after it is
    /// set.
    pub disabled: bool,
}

impl Space {
    /// Whether this is a virtual function that was disabled again after its
    /// capture.
    #[must_use]
    pub fn is_disabled_vf(&self) -> bool {
        self.extension
            .as_ref()
            .and_then(|extension| extension.virtual_function)
            .is_some_and(|vf| vf.disabled)
    }

    /// A space of which every byte is known.
    #[must_use]
    pub fn whole(bytes: &[u8]) -> Self {
        Self {
            known: vec![true; bytes.len()],
            bytes: bytes.to_vec(),
            extension: None,
        }
    }

    /// The byte at `offset`, if it is known.
    #[must_use]
    pub fn byte(&self, offset: u16) -> Option<u8> {
        let offset = usize::from(offset);
        self.known
            .get(offset)
            .filter(|known| **known)
            .and_then(|_| self.bytes.get(offset).copied())
    }
}

/// A handover as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handover {
    /// Physical address of the `pcsc` tree.
    pub tree: u64,
    /// Physical address of the index, if there is one.
    pub index: Option<u64>,
    /// Generation stamp, if there is one.
    pub generation: Option<u64>,
}

/// The configuration spaces in a file.
#[derive(Clone, Debug)]
pub struct Capture {
    /// The name of the file.
    pub file: String,
    /// What kind of file it is.
    pub kind: Kind,
    /// The report, if there is one.
    pub report: Option<Report>,
    /// The configuration spaces; empty where there is only a report.
    pub spaces: BTreeMap<Sbdf, Space>,
    /// The handover, if it is memory.
    pub handover: Option<Handover>,
    /// Damage that was skipped, as sentences.
    pub problems: Vec<String>,
}

impl Capture {
    /// Reads `file`.
    ///
    /// # Errors
    ///
    /// They name the byte or the line that is invalid.
    pub fn load(file: &Path, place: Place) -> Result<Self> {
        let name = file.display().to_string();
        let bytes = fs::read(file).with_context(|| format!("cannot read {name}"))?;
        Self::from_bytes(&name, &bytes, place).with_context(|| name)
    }

    /// Reads `bytes` as the content of the file `name`.
    ///
    /// # Errors
    ///
    /// They name the byte or the line that is invalid.
    pub fn from_bytes(name: &str, bytes: &[u8], place: Place) -> Result<Self> {
        let is_memory = place.base.is_some() || memory::is_elf(bytes) || bytes.contains(&0);
        // Two captures of different kinds may be compared, and only one of
        // them has a base.
        if is_memory && !text::is_text(bytes) {
            return handover::read(name, bytes, place);
        }
        text::read(name, &String::from_utf8_lossy(bytes))
    }

    /// An empty capture of `kind`.
    fn new(file: &str, kind: Kind) -> Self {
        Self {
            file: file.to_owned(),
            kind,
            report: None,
            spaces: BTreeMap::new(),
            handover: None,
            problems: Vec::new(),
        }
    }
}
