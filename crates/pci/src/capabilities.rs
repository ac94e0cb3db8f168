//! Capability lists: where the structures of a function are.

use alloc::vec::Vec;

use super::registers::{self, capability, header_type};
use super::{AnomalyKind, Capability, ConfigOffset, ExtendedCapability, PortType};

/// Where the capabilities of a function are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapabilityLists {
    /// Header layout: 0 endpoint, 1 bridge, 2 CardBus, others unknown.
    pub header_type: u8,
    /// Capabilities in list order.
    pub capabilities: Vec<Capability>,
    /// Extended capabilities in list order.
    pub extended_capabilities: Vec<ExtendedCapability>,
    /// Device/Port Type, where there is a PCI Express capability.
    pub port_type: Option<PortType>,
    /// The Slot Implemented bit of the PCI Express capability.
    pub has_slot: bool,
    /// Bytes of configuration space that can be reached: 256, or 4096.
    pub size: u16,
}

impl CapabilityLists {
    /// Offset of the first capability `id`.
    #[must_use]
    pub fn capability(&self, id: u8) -> Option<u16> {
        let mut capabilities = self.capabilities.iter();
        let found = capabilities.find(|capability| capability.id == id)?;
        Some(u16::from(found.offset))
    }

    /// Offset of the first extended capability `id`.
    #[must_use]
    pub fn extended_capability(&self, id: u16) -> Option<u16> {
        let mut capabilities = self.extended_capabilities.iter();
        let found = capabilities.find(|capability| capability.id == id)?;
        Some(found.offset)
    }
}

/// The lists of a function and what is wrong with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundLists {
    /// The lists, up to where they could be followed.
    pub lists: CapabilityLists,
    /// What is wrong with them.
    pub anomalies: Vec<AnomalyKind>,
}

/// Walks both lists of a function whose dwords `read` returns; all ones where
/// it does not answer.
///
/// Reads the header, the first dword of each capability and nothing else. Each
/// dword is read once by `read` only if that remembers what it has read.
pub fn read_capability_lists(read: &mut dyn FnMut(u16) -> u32) -> FoundLists {
    let mut walk = Walk {
        read,
        out: FoundLists::default(),
    };
    walk.run();
    walk.out
}

struct Walk<'a> {
    read: &'a mut dyn FnMut(u16) -> u32,
    out: FoundLists,
}

impl Walk<'_> {
    fn run(&mut self) {
        self.out.lists.size = ConfigOffset::CONVENTIONAL_END;
        let layout = ((self.read)(registers::CACHE_LINE_SIZE) >> 16) as u8;
        self.out.lists.header_type = layout & header_type::LAYOUT;
        let status = ((self.read)(registers::COMMAND) >> 16) as u16;
        if status & registers::status::CAPABILITIES_LIST != 0 {
            self.walk_capabilities();
        }
        if let Some(express) = self.out.lists.capability(capability::EXPRESS) {
            let flags = ((self.read)(express) >> 16) as u16;
            self.out.lists.port_type = Some(PortType::from_flags(flags));
            self.out.lists.has_slot = flags & registers::express::SLOT_IMPLEMENTED != 0;
            self.out.lists.size = self.walk_extended_capabilities();
        }
    }

    fn anomaly(&mut self, kind: AnomalyKind) {
        self.out.anomalies.push(kind);
    }

    /// The capability list (PCIe 7.5.1.1.11): at most one structure a dword
    /// from 0x40 on, so that a mark a dword ends every cycle.
    fn walk_capabilities(&mut self) {
        let (pointer, first) = match self.out.lists.header_type {
            0 | 1 => (registers::CAPABILITIES_POINTER, 0x40),
            2 => (registers::CARDBUS_CAPABILITIES_POINTER, 0x40),
            _ => return,
        };
        let mut visited = [false; 64];
        let mut from = pointer;
        // The lower two bits are reserved and to be masked.
        let mut at = ((self.read)(pointer) >> (8 * (pointer & 3))) as u8 & !3;
        while at != 0 {
            if at < first {
                return self.anomaly(AnomalyKind::CapabilityPointer { from, to: at });
            }
            if core::mem::replace(&mut visited[usize::from(at / 4)], true) {
                return self.anomaly(AnomalyKind::CapabilityLoop { from, to: at });
            }
            let header = (self.read)(u16::from(at));
            if header == u32::MAX {
                return self.anomaly(AnomalyKind::CapabilityAllOnes { at });
            }
            self.out.lists.capabilities.push(Capability {
                id: header as u8,
                offset: at,
            });
            from = u16::from(at) + 1;
            at = (header >> 8) as u8 & !3;
        }
    }

    /// The extended list (PCIe 7.6.3). Returns the size of the configuration
    /// space: 256 bytes where the extended part cannot be reached.
    fn walk_extended_capabilities(&mut self) -> u16 {
        let mut visited = [0u64; 16];
        let mut from = 0;
        let mut at = registers::EXTENDED_CAPABILITIES;
        while at != 0 {
            if at < registers::EXTENDED_CAPABILITIES {
                self.anomaly(AnomalyKind::ExtendedCapabilityPointer { from, to: at });
                break;
            }
            let (word, bit) = (usize::from(at / 256), at / 4 % 64);
            if visited[word] >> bit & 1 != 0 {
                self.anomaly(AnomalyKind::ExtendedCapabilityLoop { from, to: at });
                break;
            }
            visited[word] |= 1 << bit;
            let header = (self.read)(at);
            if header == u32::MAX {
                if at == registers::EXTENDED_CAPABILITIES {
                    return ConfigOffset::CONVENTIONAL_END;
                }
                self.anomaly(AnomalyKind::ExtendedCapabilityAllOnes { at });
                break;
            }
            if header == 0 && at == registers::EXTENDED_CAPABILITIES {
                break;
            }
            self.out
                .lists
                .extended_capabilities
                .push(ExtendedCapability {
                    id: header as u16,
                    version: (header >> 16 & 0xf) as u8,
                    offset: at,
                });
            from = at;
            at = (header >> 20) as u16 & !3;
        }
        ConfigOffset::END
    }
}
