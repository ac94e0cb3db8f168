//! What the rows of a structure can depend on.

use warmbus_pci::registers::{capability, express};
use warmbus_pci::{Capability, ConfigOffset, ExtendedCapability, PortType};

/// What is known about a function when its structures are described.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// Vendor ID.
    pub(crate) vendor_id: u16,
    /// Header layout.
    pub(crate) header_type: u8,
    /// Device/port type, if there is a PCI Express capability.
    pub(crate) port_type: Option<PortType>,
    /// Maximum Link Width in lanes; 0 without a link.
    pub(crate) lanes: u16,
}

impl Facts {
    /// Adds the width of the link, which the PCI Express capability among
    /// `capabilities` contains. `read` returns the dword at an offset; `end_of`
    /// the end of the structure at an offset.
    pub(crate) fn with_lanes(
        mut self,
        capabilities: &[Capability],
        end_of: impl Fn(u16) -> u16,
        read: impl FnOnce(u16) -> u32,
    ) -> Self {
        let has_link = !matches!(
            self.port_type,
            None | Some(
                PortType::RootComplexIntegratedEndpoint | PortType::RootComplexEventCollector
            )
        );
        let found = capabilities
            .iter()
            .find(|found| found.id == capability::EXPRESS);
        if let Some(found) = found
            && has_link
        {
            let start = u16::from(found.offset);
            let link = start + express::LINK_CAPABILITIES;
            if link < end_of(start) {
                self.lanes = (read(link) >> 4 & 0x3f) as u16;
            }
        }
        self
    }
}

/// Where the structure at `start` ends at the latest: at the next one in
/// address order or at the end of its space.
pub(crate) fn structure_end(
    start: u16,
    capabilities: &[Capability],
    extended: &[ExtendedCapability],
) -> u16 {
    let limit = if start < ConfigOffset::CONVENTIONAL_END {
        ConfigOffset::CONVENTIONAL_END
    } else {
        ConfigOffset::END
    };
    capabilities
        .iter()
        .map(|found| u16::from(found.offset))
        .chain(extended.iter().map(|found| found.offset))
        .filter(|&other| other > start)
        .fold(limit, u16::min)
}

/// One structure of a function, on the content of which its rows depend.
pub(crate) struct Shape<'a> {
    start: u16,
    end: u16,
    facts: &'a Facts,
    read: &'a mut dyn FnMut(u16) -> u32,
}

impl<'a> Shape<'a> {
    /// The structure from `start` to `end`. `read` returns the dword at an
    /// offset of configuration space, and 0 where it is not known.
    pub(crate) fn new(
        start: u16,
        end: u16,
        facts: &'a Facts,
        read: &'a mut dyn FnMut(u16) -> u32,
    ) -> Self {
        Self {
            start,
            end,
            facts,
            read,
        }
    }

    /// The dword at `at` bytes from the start of the structure. It is 0 beyond
    /// its end: those bytes belong to another structure, which no row may have
    /// read.
    pub(super) fn dword(&mut self, at: u16) -> u32 {
        let offset = self.start.saturating_add(at);
        if offset.saturating_add(4) > self.end {
            return 0;
        }
        (self.read)(offset)
    }

    /// What is known about the function as a whole.
    pub(super) const fn facts(&self) -> &Facts {
        self.facts
    }

    /// Bytes of the structure.
    pub(super) const fn len(&self) -> u16 {
        self.end.saturating_sub(self.start)
    }

    /// Whether the byte at `at` from the start is in the structure.
    pub(super) const fn holds(&self, at: u16) -> bool {
        at < self.len()
    }
}
