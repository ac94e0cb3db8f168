//! Probes each BAR and window register: what it implements shows when ones are
//! written to it, with decode off.

use alloc::vec::Vec;

use crate::decode::{BarWalk, address_bits, bar_count, bar_type, rom_register};
use crate::registers::{
    BAR0, COMMAND, IO_BASE, PREFETCHABLE_BASE, capability, command, extended, sr_iov,
};
use crate::{AnomalyKind, Bar, BarKind, ConfigOffset, ConfigSpace, Sbdf, Width};

/// Resource index of the expansion ROM.
pub(super) const ROM_INDEX: u8 = 6;
/// Resource index of the first VF BAR.
pub(super) const FIRST_VF_INDEX: u8 = 7;

/// Resource indices: BARs, expansion ROM, VF BARs.
const RESOURCES: usize = 13;

/// What probing the registers of one function found.
#[derive(Clone, Debug, Default)]
pub(super) struct ProbedResources {
    pub(super) bars: Vec<Bar>,
    /// The low bits of each BAR, by resource index: they encode its type.
    pub(super) type_bits: [u8; RESOURCES],
    /// The bridge forwards I/O.
    pub(super) io_window: bool,
    /// The bridge forwards prefetchable memory, with 64-bit addresses.
    pub(super) prefetchable_64: bool,
    /// The bridge forwards prefetchable memory, with 32-bit addresses.
    pub(super) prefetchable_32: bool,
    pub(super) anomalies: Vec<AnomalyKind>,
}

/// Probes the BARs and windows of one function.
pub(super) struct ResourceProbe<'a, S> {
    pub(super) config: &'a mut S,
    pub(super) function: Sbdf,
    pub(super) header_type: u8,
    pub(super) class_code: u32,
    pub(super) out: ProbedResources,
}

impl<S: ConfigSpace> ResourceProbe<'_, S> {
    pub(super) fn run(mut self, total_vfs: u16) -> ProbedResources {
        if self.header_type > 1 || self.is_host_bridge() {
            return self.out;
        }
        self.disable_decode();
        let fixed = self.enhanced_allocation();
        let count = bar_count(self.header_type);
        self.probe_bars(BAR0, count, 0, &fixed);
        if let Some(register) = rom_register(self.header_type)
            && !fixed.iter().any(|bar| bar.index == ROM_INDEX)
        {
            self.probe_rom(register);
        }
        let sr_iov = self
            .config
            .extended_capability(self.function, extended::SR_IOV);
        if let Some(base) = sr_iov
            && total_vfs > 0
        {
            self.probe_bars(base + sr_iov::VF_BAR0, 6, FIRST_VF_INDEX, &fixed);
        }
        self.out.bars.extend(fixed);
        self.out.bars.sort_by_key(|bar| bar.index);
        if self.header_type == 1 {
            self.probe_windows();
        }
        self.out
    }

    /// A host bridge decodes memory whatever its Command register holds, so
    /// that ones in its BARs would capture addresses of others.
    fn is_host_bridge(&self) -> bool {
        self.class_code >> 8 == 0x0600
    }

    fn dword(&mut self, offset: u16) -> u32 {
        self.config
            .read(self.function, ConfigOffset::wrapping(offset), Width::Dword)
    }

    fn write(&mut self, offset: u16, width: Width, value: u32) {
        self.config
            .write(self.function, ConfigOffset::wrapping(offset), width, value);
    }

    fn disable_decode(&mut self) {
        const ACTIVE: u16 = command::IO | command::MEMORY | command::BUS_MASTER;
        // Command is cached, Status beside it never is.
        let value = self
            .config
            .read(self.function, ConfigOffset::wrapping(COMMAND), Width::Word)
            as u16;
        if value & ACTIVE != 0 && value != u16::MAX {
            self.write(COMMAND, Width::Word, u32::from(value & !ACTIVE));
        }
    }

    /// The BARs in the `count` registers from `base` on; `first` is the resource
    /// index of the first one.
    fn probe_bars(&mut self, base: u16, count: u8, first: u8, fixed: &[Bar]) {
        let mut walk = BarWalk::new(count);
        while let Some(number) = walk.next() {
            let register = base + 4 * u16::from(number);
            let index = first + number;
            if fixed.iter().any(|bar| bar.index == index) || self.is_legacy_ide(index) {
                continue;
            }
            let mask = self.probe_writable_bits(register, u32::MAX);
            if mask == u32::MAX {
                // Nothing answers, or every bit is writable, which no BAR is.
                self.clear(register);
            }
            if mask == 0 || mask == u32::MAX {
                continue;
            }
            let Some((kind, prefetchable)) = bar_type(mask) else {
                self.reject_bar(register, AnomalyKind::BarType { index, value: mask });
                continue;
            };
            let mut address_mask = u64::from(address_bits(kind, mask));
            if kind == BarKind::Memory64 {
                if !walk.skip_upper_half() {
                    self.reject_bar(register, AnomalyKind::BarWithoutUpperHalf { index });
                    continue;
                }
                let upper = self.probe_writable_bits(register + 4, u32::MAX);
                address_mask |= u64::from(upper) << 32;
            } else {
                // Upper bits that a 32-bit BAR does not have do not matter,
                // nor those that an I/O BAR of 16 bits does not implement.
                address_mask |= 0xffff_ffff_0000_0000;
                if kind == BarKind::Io && mask >> 16 == 0 {
                    address_mask |= 0xffff_0000;
                }
            }
            let size = address_mask.wrapping_neg();
            if !size.is_power_of_two() {
                let mask = address_mask;
                self.reject_bar(register, AnomalyKind::BarMask { index, mask });
                if kind == BarKind::Memory64 {
                    self.clear(register + 4);
                }
                continue;
            }
            self.out.type_bits[usize::from(index)] = (mask & !address_bits(kind, mask)) as u8;
            self.out.bars.push(Bar {
                index,
                kind: match (kind, first) {
                    (BarKind::Memory32, FIRST_VF_INDEX) => BarKind::VfMemory32,
                    (BarKind::Memory64, FIRST_VF_INDEX) => BarKind::VfMemory64,
                    (kind, _) => kind,
                },
                prefetchable,
                fixed: false,
                address: None,
                size: Some(size),
            });
        }
    }

    /// IDE in compatibility mode decodes fixed ports, whatever BARs 0 to 3
    /// hold (PCI IDE Controller 1.0, 2.1).
    fn is_legacy_ide(&self, index: u8) -> bool {
        let interface = self.class_code & 0xff;
        self.class_code >> 8 == 0x0101
            && match index {
                0 | 1 => interface & 1 == 0,
                2 | 3 => interface & 4 == 0,
                _ => false,
            }
    }

    fn probe_rom(&mut self, register: u16) {
        // The enable bit stays off.
        let mask = self.probe_writable_bits(register, 0xffff_f800);
        let address = address_bits(BarKind::Rom, mask);
        if address == 0 || mask == u32::MAX {
            return;
        }
        let size = u64::from(address.wrapping_neg());
        if !size.is_power_of_two() {
            return self.reject_bar(register, AnomalyKind::RomMask { mask: address });
        }
        self.out.bars.push(Bar {
            index: ROM_INDEX,
            kind: BarKind::Rom,
            prefetchable: false,
            fixed: false,
            address: None,
            size: Some(size),
        });
    }

    fn probe_writable_bits(&mut self, register: u16, ones: u32) -> u32 {
        self.write(register, Width::Dword, ones);
        self.dword(register)
    }

    /// Clears a BAR that violates the specification, and reports it.
    fn reject_bar(&mut self, register: u16, kind: AnomalyKind) {
        self.clear(register);
        self.out.anomalies.push(kind);
    }

    /// Writes 0 to a register that need not hold it.
    fn clear(&mut self, register: u16) {
        self.write(register, Width::Dword, 0);
        self.config.invalidate_register(self.function, register);
    }

    /// The ranges that Enhanced Allocation fixes (PCIe 7.8.5.3).
    fn enhanced_allocation(&mut self) -> Vec<Bar> {
        const ENABLE: u32 = 1 << 31;
        const SIXTY_FOUR_BIT: u32 = 1 << 1;

        let mut bars = Vec::new();
        let Some(base) = self
            .config
            .capability(self.function, capability::ENHANCED_ALLOCATION)
        else {
            return bars;
        };
        let entries = self.dword(base) >> 16 & 0x3f;
        let mut at = base + if self.header_type == 1 { 8 } else { 4 };
        for _ in 0..entries {
            let header = self.dword(at);
            let size = 4 + 4 * (header as u16 & 7);
            if at + size > ConfigOffset::CONVENTIONAL_END {
                let kind = AnomalyKind::EnhancedAllocationEntry { at };
                self.out.anomalies.push(kind);
                break;
            }
            let low = self.dword(at + 4);
            let offset_low = self.dword(at + 8);
            let mut field = at + 12;
            let mut upper = |probe: &mut Self, low: u32| {
                if low & SIXTY_FOUR_BIT == 0 {
                    return 0;
                }
                field += 4;
                u64::from(probe.dword(field - 4)) << 32
            };
            let address = u64::from(low & !3) | upper(self, low);
            let last = u64::from(offset_low | 3) | upper(self, offset_low);
            at += size;
            // Primary Properties 0 to 4 describe what a BAR would.
            let (properties, bei) = (header >> 8 & 0xff, (header >> 4 & 0xf) as u8);
            let is_io = properties == 2;
            let index = match bei {
                0..=5 => bei,
                8 => ROM_INDEX,
                9..=14 => FIRST_VF_INDEX + bei - 9,
                _ => continue,
            };
            if header & ENABLE == 0 || properties > 4 {
                continue;
            }
            bars.push(Bar {
                index,
                kind: match index {
                    ROM_INDEX => BarKind::Rom,
                    FIRST_VF_INDEX.. => BarKind::VfMemory64,
                    _ if is_io => BarKind::Io,
                    _ => BarKind::Memory64,
                },
                prefetchable: matches!(properties, 1 | 3),
                fixed: true,
                address: Some(address),
                size: last.checked_add(1),
            });
        }
        bars
    }

    /// Closes the I/O and prefetchable windows, which shows whether they exist
    /// (PCIe 7.5.1.3.6, 7.5.1.3.9): both are optional.
    fn probe_windows(&mut self) {
        self.write(IO_BASE, Width::Word, 0x00f0);
        let io = self.dword(IO_BASE) as u16;
        self.out.io_window = io & 0xf0f0 == 0x00f0;
        if !self.out.io_window && io & 0xf0f0 != 0 {
            let (wrote, read) = (0x00f0, io);
            let kind = AnomalyKind::IoWindowHardwired { wrote, read };
            self.out.anomalies.push(kind);
        }
        self.write(PREFETCHABLE_BASE, Width::Dword, 0x0000_fff0);
        let prefetchable = self.dword(PREFETCHABLE_BASE);
        let exists = prefetchable & 0xfff0_fff0 == 0x0000_fff0;
        let is_64_bit = prefetchable & 0xf == 1;
        self.out.prefetchable_64 = exists && is_64_bit;
        self.out.prefetchable_32 = exists && !is_64_bit;
        if !exists && prefetchable & 0xfff0_fff0 != 0 {
            let kind = AnomalyKind::PrefetchableWindowHardwired {
                wrote: 0x0000_fff0,
                read: prefetchable,
            };
            self.out.anomalies.push(kind);
        }
    }
}
