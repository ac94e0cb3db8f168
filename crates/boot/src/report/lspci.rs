//! The captured configuration spaces as a dump that `lspci -F` reads.

use alloc::vec::Vec;
use core::fmt::{self, Write};

use super::{CachedBytes, names};
use warmbus_pci::{ConfigOffset, Function, HexDump, Sbdf, Topology};

/// Writes every function of `topology` in the form of `lspci -D -xxxx`: a line
/// with its address, class and ids, then 256 or 4096 bytes, 16 a line, then an
/// empty line.
///
/// Bytes that are not cached are 00, with one exception: what `lspci` follows
/// to find its way (ids, class, header type, the Capabilities List bit of the
/// Status register, bus numbers, capability headers) is filled in from
/// `topology`. So are the IDs of virtual functions, which have none: those that
/// Linux gives them.
///
/// # Errors
///
/// When `to` fails.
pub fn write<'c>(
    topology: &Topology,
    cached: &dyn Fn(Sbdf) -> Option<CachedBytes<'c>>,
    to: &mut dyn Write,
) -> fmt::Result {
    let mut space = Space { bytes: Vec::new() };
    for function in topology.functions() {
        space.fill(function, cached(function.sbdf));
        write!(
            to,
            "{} {} [{:04x}]: Device [{:04x}:{:04x}] (rev {:02x})\n{}\n",
            function.sbdf,
            names::class(function.class_code),
            function.class_code >> 8,
            function.vendor_id,
            function.device_id,
            function.revision,
            HexDump(&space.bytes),
        )?;
    }
    Ok(())
}

/// Offsets of the common header (PCIe 7.5.1.1).
mod header {
    pub(super) const ID: usize = 0x00;
    pub(super) const STATUS: usize = 0x06;
    pub(super) const REVISION: usize = 0x08;
    pub(super) const TYPE: usize = 0x0e;
    pub(super) const PRIMARY_BUS: usize = 0x18;
    pub(super) const CAPABILITIES: usize = 0x34;
    pub(super) const CARDBUS_CAPABILITIES: usize = 0x14;

    /// Status: the function has a capability list.
    pub(super) const STATUS_CAPABILITIES: u8 = 1 << 4;
    /// Header Type: the device has more functions.
    pub(super) const MULTI_FUNCTION: u8 = 1 << 7;
}

/// The configuration space of one function.
struct Space {
    bytes: Vec<u8>,
}

impl Space {
    fn fill(&mut self, function: &Function, cached: Option<CachedBytes<'_>>) {
        let conventional = usize::from(ConfigOffset::CONVENTIONAL_END);
        let whole = usize::from(ConfigOffset::END);
        let (of, cached) = cached.map_or((0, &[][..]), |cached| (cached.size.into(), cached.data));
        let size = if of > conventional || !function.extended_capabilities.is_empty() {
            whole
        } else {
            conventional
        };
        self.bytes.clear();
        self.bytes
            .extend_from_slice(&cached[..cached.len().min(size)]);
        self.bytes.resize(size, 0);

        if function.virtual_function.is_some() {
            // It has none of its own; shown are those that Linux takes.
            self.bytes[header::ID..header::ID + 4].fill(0);
        }
        self.put(header::ID, &function.vendor_id.to_le_bytes());
        self.put(header::ID + 2, &function.device_id.to_le_bytes());
        self.put(header::REVISION, &[function.revision]);
        let class = function.class_code.to_le_bytes();
        self.put(header::REVISION + 1, &class[..3]);
        let multi_function = if function.multi_function {
            header::MULTI_FUNCTION
        } else {
            0
        };
        self.put(header::TYPE, &[function.header_type | multi_function]);
        if let Some(bridge) = &function.bridge {
            let buses = [bridge.primary, bridge.secondary, bridge.subordinate];
            self.put(header::PRIMARY_BUS, &buses);
        }

        let mut pointer = if function.header_type == 2 {
            header::CARDBUS_CAPABILITIES
        } else {
            header::CAPABILITIES
        };
        if !function.capabilities.is_empty() {
            self.bytes[header::STATUS] |= header::STATUS_CAPABILITIES;
        }
        for capability in &function.capabilities {
            self.put(pointer, &[capability.offset]);
            self.put(capability.offset.into(), &[capability.id]);
            pointer = usize::from(capability.offset) + 1;
        }
        let mut previous = None;
        for capability in &function.extended_capabilities {
            let at = usize::from(capability.offset);
            let id_and_version = u32::from(capability.id) | (u32::from(capability.version) << 16);
            self.put(at, &id_and_version.to_le_bytes()[..3]);
            if let Some(previous) = previous {
                // Bits 31:20 of the header: the low nibble shares its byte
                // with the version.
                let next = capability.offset << 4;
                if self.bytes.get(previous + 3) == Some(&0) {
                    if let Some(byte) = self.bytes.get_mut(previous + 2) {
                        *byte |= next as u8 & 0xf0;
                    }
                    self.put(previous + 3, &[(next >> 8) as u8]);
                }
            }
            previous = Some(at);
        }
    }

    /// Puts `known` at `offset` where nothing is cached.
    fn put(&mut self, offset: usize, known: &[u8]) {
        for (byte, known) in self.bytes.iter_mut().skip(offset).zip(known) {
            if *byte == 0 {
                *byte = *known;
            }
        }
    }
}
