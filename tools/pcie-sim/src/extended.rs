//! Extended capabilities (PCIe 7.7 to 7.9).

use warmbus_pci::{PortType, Width};

use crate::behaviour::Effect;
use crate::model::FunctionModel;
use crate::space::Written;

impl FunctionModel {
    /// Whether an extended capability of `length` bytes still fits.
    pub fn has_extended_room(&self, length: u16) -> bool {
        self.cursor.extended_next + length <= 0x1000
    }

    /// Places an extended capability and links it to the end of the list.
    pub(crate) fn reserve_extended(&mut self, id: u16, version: u8, length: u16) -> u16 {
        let at = self.cursor.extended_next;
        assert!(
            self.has_extended_room(length),
            "{}: extended capability {id:04x} of {length} bytes does not fit at {at:03x}",
            self.name
        );
        if self.cursor.extended_tail != 0 {
            let tail = self.cursor.extended_tail;
            let header = self.space.peek(tail, Width::Dword) & 0x000f_ffff;
            self.space
                .set(tail, Width::Dword, header | u32::from(at) << 20);
        }
        let header = u32::from(id) | u32::from(version & 0xf) << 16;
        self.space.set(at, Width::Dword, header);
        self.cursor.extended_tail = at;
        self.cursor.extended_next = (at + length).next_multiple_of(4);
        at
    }

    /// Points the extended capability at `at` to `next`, whatever that is.
    pub fn link_extended(mut self, at: u16, next: u16) -> Self {
        let header = self.space.peek(at, Width::Dword) & 0x000f_ffff;
        self.space
            .set(at, Width::Dword, header | u32::from(next) << 20);
        self
    }

    /// Adds an extended capability that is nothing but read-only dwords after
    /// its header.
    pub fn extended(mut self, id: u16, version: u8, body: &[u32]) -> Self {
        let at = self.reserve_extended(id, version, 4 + 4 * body.len() as u16);
        for (offset, dword) in (at + 4..).step_by(4).zip(body) {
            self.space.set(offset, Width::Dword, *dword);
        }
        self
    }

    /// Adds an extended capability nobody knows, whose `length` bytes after
    /// the header must not be read.
    pub fn unknown_extended(mut self, id: u16, length: u16) -> Self {
        let at = self.reserve_extended(id, 1, 4 + length);
        self.forbidden(at + 4, length)
    }

    /// Adds Advanced Error Reporting; with the root registers in a root port
    /// or event collector, so add [`FunctionModel::express`] first.
    pub fn advanced_errors(mut self) -> Self {
        let root = self.express.is_some_and(|e| {
            matches!(
                e.port,
                PortType::RootPort | PortType::RootComplexEventCollector
            )
        });
        let at = self.reserve_extended(1, 2, if root { 0x38 } else { 0x2c });
        let space = &mut self.space;
        let uncorrectable = 0x003f_f030;
        let correctable = 0x0000_f1c1;
        for (offset, mask, reset) in [
            (8, uncorrectable, 0),
            (0xc, uncorrectable, 0x0006_2030),
            (0x14, correctable, 0x2000),
            // ECRC generation and checking: capable, and the enables.
            (0x18, 0x0140, 0x00a0),
        ] {
            space.set(at + offset, Width::Dword, reset);
            space.writable(at + offset, Width::Dword, mask);
            space.sticky(at + offset, Width::Dword, mask);
        }
        for (offset, mask) in [(4, uncorrectable), (0x10, correctable)] {
            space.clearable(at + offset, Width::Dword, mask);
            space.sticky(at + offset, Width::Dword, mask);
        }
        if root {
            space.writable(at + 0x2c, Width::Dword, 7);
            space.clearable(at + 0x30, Width::Dword, 0x7f);
            space.sticky(at + 0x30, Width::Dword, 0x7f);
            self.root_errors = Some(at);
            self.update_messages();
        }
        self
    }

    /// Adds Device Serial Number.
    pub fn serial_number(self, number: u64) -> Self {
        self.extended(3, 1, &[number as u32, (number >> 32) as u32])
    }

    /// Adds Access Control Services with these capability bits (low 7).
    pub fn access_control(mut self, capabilities: u8) -> Self {
        let at = self.reserve_extended(0xd, 1, 8);
        let bits = u32::from(capabilities & 0x5f);
        self.space.set(at + 4, Width::Word, bits);
        self.space.writable(at + 6, Width::Word, bits);
        self
    }

    /// Adds ARI, which makes the function one of an ARI device;
    /// `next_function` 0 ends the list.
    pub fn ari(mut self, next_function: u8) -> Self {
        let at = self.reserve_extended(0xe, 1, 8);
        self.space
            .set(at + 4, Width::Word, u32::from(next_function) << 8);
        self.ari = Some(at);
        self
    }

    /// Adds L1 PM Substates with all four substates.
    pub fn l1_substates(mut self) -> Self {
        let at = self.reserve_extended(0x1e, 1, 0x10);
        self.space.set(at + 4, Width::Dword, 0x0028_1e1f);
        self.space.writable(at + 8, Width::Dword, 0xe3ff_ff0f);
        self.space.set(at + 0xc, Width::Dword, 0x28);
        self.space.writable(at + 0xc, Width::Dword, 0xfb);
        self
    }

    /// Adds Latency Tolerance Reporting.
    pub fn latency_tolerance(mut self) -> Self {
        let at = self.reserve_extended(0x18, 1, 8);
        self.space.writable(at + 4, Width::Dword, 0x1fff_1fff);
        self
    }

    /// Adds Downstream Port Containment, with the root port extensions where
    /// the function is a root port: add [`FunctionModel::express`] first.
    pub fn containment(mut self) -> Self {
        let root = self.express.is_some_and(|e| e.port == PortType::RootPort);
        let at = self.reserve_extended(0x1d, 1, if root { 0x34 } else { 0xc });
        // Software triggering; five dwords of log.
        let capabilities = if root { 0x05a0 } else { 0x0080 };
        let space = &mut self.space;
        space.set(at + 4, Width::Word, capabilities);
        space.writable(at + 6, Width::Word, 0x1f);
        space.clearable(at + 8, Width::Word, 0x29);
        space.live(at + 4);
        space.live(at + 8);
        if root {
            let errors = 0x0007_0707;
            space.clearable(at + 0xc, Width::Dword, errors);
            space.set(at + 0x10, Width::Dword, errors);
            for offset in [0x10, 0x14, 0x18, 0x1c] {
                space.writable(at + offset, Width::Dword, errors);
            }
        }
        self.dpc = Some(at);
        self.update_messages();
        self
    }

    /// Whether containment holds the link down (DPC Trigger Status).
    pub(crate) fn is_contained(&self) -> bool {
        self.dpc
            .is_some_and(|at| self.space.peek(at + 8, Width::Word) & 1 != 0)
    }

    pub(crate) fn written_dpc(
        &mut self,
        offset: u16,
        written: &Written,
        now: u64,
        effects: &mut Vec<Effect>,
    ) {
        let Some(at) = self.dpc else { return };
        if offset == at + 4 && written.data & 0x0040_0000 != 0 && written.new & 0x0003_0000 != 0 {
            let status = self.space.peek(at + 8, Width::Word);
            // Trigger Status, Trigger Reason 3 with extension 1: software.
            self.space.poke(at + 8, Width::Word, status | 0x27);
            self.link_switched(false, now, effects);
        } else if offset == at + 8 && written.old & !written.new & 1 != 0 {
            self.link_switched(true, now, effects);
        }
    }

    /// Adds Virtual Channel with `extra` (0 to 7) channels beside VC0 and no
    /// arbitration tables.
    pub fn virtual_channels(mut self, extra: u8) -> Self {
        let extra = extra.min(7);
        let at = self.reserve_extended(2, 1, 0x10 + 0xc * (u16::from(extra) + 1));
        self.space.set(at + 4, Width::Dword, extra.into());
        for channel in 0..=u16::from(extra) {
            let control = at + 0x14 + 0xc * channel;
            let first = channel == 0;
            // VC0 is enabled and carries all traffic classes.
            let (reset, mask) = if first {
                (0x8000_00ff, 0x0000_00fe)
            } else {
                (u32::from(channel) << 24, 0x8700_00fe)
            };
            self.space.set(control, Width::Dword, reset);
            self.space.writable(control, Width::Dword, mask);
            self.space.survives_flr(control, Width::Dword, mask);
        }
        self
    }

    /// Adds Resizable BAR for these BARs: index, the supported sizes (bit n is
    /// 1 MiB times 2^n, n up to 27) and the size that is set now. Add the BARs
    /// first.
    pub fn resizable(mut self, bars: &[(u8, u32, u8)]) -> Self {
        let at = self.reserve_extended(0x15, 1, 4 + 8 * bars.len() as u16);
        for (entry, (bar, sizes, size)) in (at + 4..).step_by(8).zip(bars) {
            let control = entry + 4;
            let count = if entry == at + 4 {
                bars.len() as u32
            } else {
                0
            };
            self.space.set(entry, Width::Dword, sizes << 4);
            let value = u32::from(bar & 7) | (count & 7) << 5 | u32::from(size & 0x3f) << 8;
            self.space.set(control, Width::Dword, value);
            self.space.writable(control, Width::Dword, 0x3f00);
            self.space.live(control);
            self.resizable.push((control, *bar));
        }
        self.resize_all();
        self
    }

    /// Gives a BAR `size` bytes; the address bits that it no longer has fall
    /// to 0.
    fn resize(&mut self, index: u8, size: u64) {
        let Some(Some(bar)) = self.bars.get_mut(usize::from(index)) else {
            return;
        };
        bar.size = size;
        let bar = *bar;
        self.space
            .shape_bar(0x10 + u16::from(index) * 4, bar, bar.decoded_size());
    }

    pub(crate) fn resize_all(&mut self) {
        for n in 0..self.resizable.len() {
            let (control, bar) = self.resizable[n];
            let size = self.space.peek(control + 1, Width::Byte) & 0x3f;
            self.resize(bar, 1 << (20 + size).min(62));
        }
    }

    pub(crate) fn written_resizable(&mut self, offset: u16, written: &Written) {
        let Some((control, bar)) = self.resizable.iter().find(|(c, _)| *c == offset).copied()
        else {
            return;
        };
        let size = written.new >> 8 & 0x3f;
        let supported = self.space.peek(control - 4, Width::Dword) >> 4;
        if size < 28 && supported & 1 << size != 0 {
            self.resize(bar, 1 << (20 + size));
        }
    }

    /// Adds a designated vendor-specific capability; the `length` bytes after
    /// its three header words must not be read.
    pub fn designated(mut self, vendor: u16, id: u16, revision: u8, length: u16) -> Self {
        let total = 0xa + length;
        let at = self.reserve_extended(0x23, 1, total);
        let header = u32::from(vendor) | u32::from(revision & 0xf) << 16 | u32::from(total) << 20;
        self.space.set(at + 4, Width::Dword, header);
        self.space.set(at + 8, Width::Word, id.into());
        self.forbidden(at + 0xa, length)
    }
}
