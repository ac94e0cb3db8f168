//! Enhanced Allocation: the ranges that a function decodes without a writable
//! BAR (PCIe 7.8.5).

use warmbus_pci::Width;

use crate::model::FunctionModel;

/// One range as the registers of an Enhanced Allocation entry describe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allocation {
    /// Resource number: 0 to 5 for a BAR, 6 for the ROM, 7 to 12 for VF BARs.
    pub(crate) index: u8,
    pub(crate) io: bool,
    pub(crate) base: u64,
    /// Bytes; of a VF BAR those of all VFs.
    pub(crate) size: u64,
}

impl FunctionModel {
    /// The enabled entries that stand for a BAR, the ROM or VF BARs, decoded
    /// from the registers.
    pub(crate) fn allocations(&self) -> Vec<Allocation> {
        let Some(capability) = self.allocation else {
            return Vec::new();
        };
        let dword = |at: u16| self.space.peek(at, Width::Dword);
        let count = self.space.peek(capability + 2, Width::Byte) & 0x3f;
        let mut at = capability + if self.bridge.is_some() { 8 } else { 4 };
        let mut found = Vec::new();
        for _ in 0..count {
            let header = dword(at);
            let (base, offset) = (dword(at + 4), dword(at + 8));
            // Bit 1 of each field says that its upper half follows.
            let mut upper = at + 12;
            let mut wide = |low: u32| {
                if low & 2 == 0 {
                    return 0;
                }
                upper += 4;
                u64::from(dword(upper - 4)) << 32
            };
            let first = u64::from(base & !3) | wide(base);
            let last = u64::from(offset | 3) | wide(offset);
            at += 4 + 4 * (header & 7) as u16;
            let properties = header >> 8 & 0xff;
            let is_enabled = header >> 31 != 0;
            let vfs = self.total_vfs();
            let (index, copies) = match header >> 4 & 0xf {
                bar @ 0..=5 => (bar as u8, 1),
                8 => (6, 1),
                vf @ 9..=14 => (vf as u8 - 2, vfs),
                _ => continue,
            };
            if !is_enabled || properties > 4 || copies == 0 {
                continue;
            }
            found.push(Allocation {
                index,
                io: properties == 2,
                base: first,
                size: last.saturating_add(1).saturating_mul(copies),
            });
        }
        found
    }
}
