//! Capabilities of the first 256 bytes (PCIe 7.5 and 7.9).

use warmbus_pci::Width;

use crate::behaviour::{Power, Vpd};
use crate::model::FunctionModel;

/// The shape of an MSI capability (PCIe 7.7.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MsiModel {
    /// Multiple Message Capable: log2 of the vectors, 0 to 5.
    pub vectors_log2: u8,
    /// 64-bit address capable.
    pub address64: bool,
    /// Per-vector masking capable.
    pub masking: bool,
    /// Extended message data capable.
    pub extended_data: bool,
}

/// One entry of an Enhanced Allocation capability (PCIe 7.8.5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EaEntry {
    /// BAR Equivalent Indicator: 0 to 5 for a BAR, 6 for a bridge resource,
    /// 8 for the ROM, 9 to 14 for VF BARs.
    pub bei: u8,
    /// Primary Properties, for example 0 memory, 1 prefetchable memory, 2 I/O.
    pub properties: u8,
    /// First address, a multiple of 4.
    pub base: u64,
    /// Bytes, a multiple of 4.
    pub size: u64,
}

impl EaEntry {
    /// The entry as dwords: 64-bit fields only where the number needs them.
    fn dwords(self) -> Vec<u32> {
        let max_offset = self.size.saturating_sub(1) & !3;
        let wide = |value: u64| value > u64::from(u32::MAX);
        let field = |value: u64| value as u32 & !3 | u32::from(wide(value)) << 1;
        let mut dwords = vec![0, field(self.base), field(max_offset)];
        if wide(self.base) {
            dwords.push((self.base >> 32) as u32);
        }
        if wide(max_offset) {
            dwords.push((max_offset >> 32) as u32);
        }
        let size = dwords.len() as u32 - 1;
        // Secondary Properties: ff, not used. Enable set.
        dwords[0] = size
            | u32::from(self.bei & 0xf) << 4
            | u32::from(self.properties) << 8
            | 0x00ff_0000
            | 1 << 31;
        dwords
    }
}

impl FunctionModel {
    /// Places the next capability at `offset`: a multiple of 4, from 0x40 for
    /// a capability and from 0x100 for an extended one.
    pub fn place_at(mut self, offset: u16) -> Self {
        if offset < 0x100 {
            self.cursor.next = offset;
        } else {
            self.cursor.extended_next = offset;
        }
        self
    }

    /// Whether a capability of `length` bytes still fits.
    pub fn has_room(&self, length: u16) -> bool {
        self.cursor.next + length <= 0x100
    }

    /// Places a capability and links it to the end of the list.
    pub(crate) fn reserve(&mut self, id: u8, length: u16) -> u16 {
        let at = self.cursor.next;
        assert!(
            self.has_room(length),
            "{}: capability {id:02x} of {length} bytes does not fit at {at:03x}",
            self.name
        );
        self.space.set(self.cursor.tail, Width::Byte, at.into());
        let status = self.space.peek(6, Width::Byte);
        self.space.set(6, Width::Byte, status | 0x10);
        self.space.set(at, Width::Byte, id.into());
        self.cursor.tail = at + 1;
        self.cursor.next = (at + length).next_multiple_of(4);
        at
    }

    /// Points the capability at `at` to `next`, whatever that is: for lists
    /// that are broken.
    pub fn link_capability(self, at: u16, next: u8) -> Self {
        self.set(at + 1, Width::Byte, next.into())
    }

    /// Adds a capability that is nothing but read-only bytes after its header.
    pub fn capability(mut self, id: u8, body: &[u8]) -> Self {
        let at = self.reserve(id, 2 + body.len() as u16);
        for (offset, byte) in (at + 2..).zip(body) {
            self.space.set(offset, Width::Byte, (*byte).into());
        }
        self
    }

    /// Adds Power Management. `settle` is the time in nanoseconds that a
    /// change of the power state takes; D1 and D2 are not supported.
    pub fn power_management(mut self, no_soft_reset: bool, settle: u64) -> Self {
        let at = self.reserve(1, 8);
        let space = &mut self.space;
        // Version 3, PME from D0, D3hot and D3cold.
        space.set(at + 2, Width::Word, 0xc803);
        space.set(at + 4, Width::Word, u32::from(no_soft_reset) << 3);
        space.writable(at + 4, Width::Word, 0x0100);
        space.clearable(at + 4, Width::Word, 0x8000);
        space.sticky(at + 4, Width::Word, 0x8100);
        space.live(at + 4);
        self.power = Some(Power {
            at,
            settle,
            pending: None,
        });
        self
    }

    /// Adds MSI.
    pub fn msi(mut self, model: MsiModel) -> Self {
        let data = if model.address64 { 0xc } else { 8 };
        let length = data + if model.masking { 0xc } else { 2 };
        let length = if model.extended_data {
            length.max(data + 4)
        } else {
            length
        };
        let at = self.reserve(5, length);
        let control = u32::from(model.vectors_log2 & 7) << 1
            | u32::from(model.address64) << 7
            | u32::from(model.masking) << 8
            | u32::from(model.extended_data) << 9;
        let space = &mut self.space;
        space.set(at + 2, Width::Word, control);
        let extended = u32::from(model.extended_data) << 10;
        space.writable(at + 2, Width::Word, 0x71 | extended);
        space.writable(at + 4, Width::Dword, 0xffff_fffc);
        if model.address64 {
            space.writable(at + 8, Width::Dword, 0xffff_ffff);
        }
        space.writable(at + data, Width::Word, 0xffff);
        if model.extended_data {
            space.writable(at + data + 2, Width::Word, 0xffff);
        }
        if model.masking {
            let vectors = 1_u64 << model.vectors_log2.min(5);
            let mask = ((1_u64 << vectors) - 1) as u32;
            space.writable(at + data + 4, Width::Dword, mask);
        }
        space.live(at);
        self.msi = Some(at);
        self
    }

    /// Adds MSI-X with `vectors` (1 to 2048) vectors, its table at `table` and
    /// its pending bits at `pending` (offset, with the BAR in bits 2:0).
    pub fn msix(mut self, vectors: u16, table: u32, pending: u32) -> Self {
        let at = self.reserve(0x11, 0xc);
        let size = u32::from(vectors.clamp(1, 2048) - 1);
        self.space.set(at + 2, Width::Word, size);
        self.space.writable(at + 2, Width::Word, 0xc000);
        self.space.set(at + 4, Width::Dword, table);
        self.space.set(at + 8, Width::Dword, pending);
        self.space.live(at);
        self.msix = Some(at);
        self
    }

    /// Adds the subsystem IDs of a bridge.
    pub fn bridge_subsystem(self, vendor: u16, device: u16) -> Self {
        let [v0, v1] = vendor.to_le_bytes();
        let [d0, d1] = device.to_le_bytes();
        self.capability(0x0d, &[0, 0, v0, v1, d0, d1])
    }

    /// Adds a vendor specific capability whose bytes after the length must not
    /// be read: what they do is not known.
    pub fn vendor_specific(mut self, body: &[u8]) -> Self {
        let at = self.cursor.next;
        let length = 3 + body.len() as u16;
        let bytes = [&[length as u8], body].concat();
        self = self.capability(9, &bytes);
        self.forbidden(at + 3, length - 3)
    }

    /// Adds the virtio configuration access capability, type 5 (virtio 1.3,
    /// 4.1.4.9): its last dword reads the BAR that the others select.
    pub fn virtio_access(mut self) -> Self {
        let at = self.cursor.next;
        self = self.capability(9, &[0x14, 5]);
        self.cursor.next = at + 0x14;
        self.writable(at + 4, Width::Byte, 0xff)
            .writable(at + 8, Width::Dword, 0xffff_ffff)
            .writable(at + 0xc, Width::Dword, 0xffff_ffff)
            .forbidden(at + 0x10, 4)
    }

    /// Adds SATA with index and data registers in configuration space: reads
    /// of the data register reach AHCI registers.
    pub fn sata(mut self) -> Self {
        let at = self.cursor.next;
        self = self.capability(0x12, &[0x10, 0, 0x0f, 0, 0, 0]);
        self.cursor.next = at + 0x10;
        self.writable(at + 8, Width::Dword, 0x1ffc)
            .forbidden(at + 0xc, 4)
    }

    /// Adds Vital Product Data of these bytes; a transfer takes `latency`
    /// nanoseconds, and only then the flag turns over.
    pub fn vpd(mut self, data: Vec<u8>, latency: u64) -> Self {
        let at = self.reserve(3, 8);
        self.space.writable(at + 2, Width::Word, 0xffff);
        self.space.writable(at + 4, Width::Dword, 0xffff_ffff);
        self.space.live(at);
        self.vpd = Some(Box::new(Vpd {
            at,
            latency,
            data,
            pending: None,
        }));
        self
    }

    /// Adds Advanced Features with FLR (PCI 3.0 ECN).
    pub fn advanced_features(mut self) -> Self {
        let at = self.cursor.next;
        self = self.capability(0x13, &[6, 3, 0, 0]);
        self.space.live(at + 4);
        self.advanced_features = Some(at);
        self
    }

    /// Adds Enhanced Allocation. In a bridge `buses` are its fixed secondary
    /// and subordinate numbers, 0 for none. BARs that an entry stands for
    /// must not be added as BARs: they read 0 and are not writable.
    pub fn enhanced_allocation(mut self, entries: &[EaEntry], buses: (u8, u8)) -> Self {
        let mut dwords = Vec::new();
        if self.bridge.is_some() {
            dwords.push(u32::from(buses.0) | u32::from(buses.1) << 8);
        }
        for entry in entries {
            dwords.extend(entry.dwords());
        }
        let at = self.reserve(0x14, 4 + 4 * dwords.len() as u16);
        self.allocation = Some(at);
        self.space
            .set(at + 2, Width::Word, entries.len() as u32 & 0x3f);
        for (offset, dword) in (at + 4..).step_by(4).zip(dwords) {
            self.space.set(offset, Width::Dword, dword);
        }
        if self.bridge.is_some() && buses != (0, 0) {
            let numbers = u32::from(buses.0) | u32::from(buses.1) << 8;
            self = self.hardwired(0x19, Width::Byte, numbers & 0xff);
            self = self.hardwired(0x1a, Width::Byte, numbers >> 8);
        }
        self
    }
}
