//! What registers do by themselves and what writes start.

use warmbus_pci::Width;

use crate::model::{BridgeKind, FunctionModel};
use crate::space::{Reset, Written};

/// What a write means beyond the function that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The function resets itself (FLR).
    FunctionReset,
    /// Everything below the bridge is reset.
    SecondaryReset,
    /// Common Clock Configuration changed, for all functions of the device.
    CommonClock(bool),
    /// ARI Capable Hierarchy changed, for all physical functions of the device.
    AriHierarchy(bool),
    /// `NumVFs` was written while VF Enable is set.
    NumVfsWhileEnabled,
    /// A downstream port began or ceased to forward by ARI.
    AriForwarding(bool),
    /// The link below the port trains again.
    Retrain,
    /// CXL Reset of all functions of the device.
    CxlReset,
}

/// A running or finished self test.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bist {
    duration: u64,
    code: u8,
    done_at: Option<u64>,
    /// The test leaves nothing of what software had written.
    resets: bool,
}

impl Bist {
    pub(crate) const fn new(duration: u64, code: u8) -> Self {
        Self {
            duration,
            code: code & 0xf,
            done_at: None,
            resets: false,
        }
    }
}

/// Power Management: where it is and which change of state is under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Power {
    pub(crate) at: u16,
    pub(crate) settle: u64,
    pub(crate) pending: Option<(u64, u8)>,
}

/// Vital Product Data behind its two registers.
#[derive(Clone, Debug)]
pub(crate) struct Vpd {
    pub(crate) at: u16,
    pub(crate) latency: u64,
    pub(crate) data: Vec<u8>,
    pub(crate) pending: Option<(u64, u32)>,
}

impl FunctionModel {
    /// Makes the function BIST capable: a started test takes `duration`
    /// nanoseconds and ends with `code`, 0 to 15.
    pub fn bist(mut self, duration: u64, code: u8) -> Self {
        self.space.set(0x0f, Width::Byte, 0x80);
        self.space.writable(0x0f, Width::Byte, 0x40);
        self.space.live(0x0c);
        self.bist = Some(Bist::new(duration, code));
        self
    }

    /// The same, with a test that resets the function when it starts.
    pub fn bist_that_resets(self, duration: u64, code: u8) -> Self {
        let mut model = self.bist(duration, code);
        if let Some(bist) = &mut model.bist {
            bist.resets = true;
        }
        model
    }

    /// Lets the validation of the expansion ROM, which is to be added first,
    /// end at `time`: Expansion ROM Validation Status goes from in progress to
    /// valid (PCIe 7.5.1.2.4).
    pub fn rom_validated_at(mut self, time: u64) -> Self {
        let at = self.rom_offset();
        self.rom_validated_at = time;
        let now = self.space.peek(at, Width::Byte);
        self.space.set(at, Width::Byte, now | 2);
        self.space.live(at);
        self
    }

    /// Power state now: 0 (D0) to 3 (D3hot).
    pub(crate) fn power_state(&self) -> u8 {
        self.power
            .map_or(0, |p| self.space.peek(p.at + 4, Width::Byte) as u8 & 3)
    }

    /// Lets everything happen that was due before `now`.
    pub(crate) fn settle(&mut self, now: u64) {
        if let Some(power) = &mut self.power
            && let Some((_, state)) = power.pending.filter(|(at, _)| now >= *at)
        {
            power.pending = None;
            let at = power.at;
            self.enter_power_state(at, state, now);
        }
        if let Some(bist) = &mut self.bist
            && bist.done_at.is_some_and(|at| now >= at)
        {
            bist.done_at = None;
            let code = 0x80 | u32::from(bist.code);
            self.space.poke(0x0f, Width::Byte, code);
        }
        self.settle_vpd(now);
        self.settle_slot(now);
    }

    fn enter_power_state(&mut self, at: u16, state: u8, now: u64) {
        let control = self.space.peek(at + 4, Width::Byte);
        let from = control & 3;
        if from == 3 && state == 0 && control & 8 == 0 {
            self.reset(Reset::FunctionLevel);
            self.ready_at = now.saturating_add(self.reset_time);
        }
        let control = self.space.peek(at + 4, Width::Byte) & !3;
        self.space
            .poke(at + 4, Width::Byte, control | u32::from(state));
    }

    fn settle_vpd(&mut self, now: u64) {
        let Some(vpd) = &mut self.vpd else { return };
        let Some((_, address)) = vpd.pending.filter(|(at, _)| now >= *at) else {
            return;
        };
        vpd.pending = None;
        let first = (address & 0x7ffc) as usize;
        if address & 0x8000 == 0 {
            // A read is done: F becomes 1 with the data in place.
            let bytes = core::array::from_fn(|i| vpd.data.get(first + i).copied().unwrap_or(0));
            self.space
                .poke(vpd.at + 4, Width::Dword, u32::from_le_bytes(bytes));
            self.space.poke(vpd.at + 2, Width::Word, address | 0x8000);
        } else {
            // A write is done: F becomes 0.
            let bytes = self.space.peek(vpd.at + 4, Width::Dword).to_le_bytes();
            for (place, byte) in vpd.data.iter_mut().skip(first).zip(bytes) {
                *place = byte;
            }
            self.space.poke(vpd.at + 2, Width::Word, address & 0x7fff);
        }
    }

    /// Resets the registers and everything that was under way. Not the time
    /// that it takes to be ready again: the fabric sets that.
    pub(crate) fn reset(&mut self, reset: Reset) {
        self.space.reset(reset);
        if let Some(power) = &mut self.power {
            power.pending = None;
        }
        if let Some(bist) = &mut self.bist {
            bist.done_at = None;
        }
        if let Some(vpd) = &mut self.vpd {
            vpd.pending = None;
        }
        if reset == Reset::Conventional {
            self.captured_bus = 0;
        }
        let common = self
            .express
            .is_some_and(|e| self.space.peek(e.at + 0x10, Width::Byte) & 0x40 != 0);
        self.set_latencies(common);
        self.resize_all();
        self.shape_allocation();
        self.reset_sriov();
        self.reset_portal();
        self.reset_slot();
        if reset == Reset::Conventional {
            self.reset_cxl();
        }
        self.update_messages();
    }

    /// Before the live dword at `offset` is read.
    pub(crate) fn refresh(&mut self, offset: u16, now: u64) {
        self.refresh_express(offset, now);
        if offset == self.rom_offset() && now >= self.rom_validated_at {
            let register = self.space.peek(offset, Width::Byte) & !0xe;
            self.space.poke(offset, Width::Byte, register | 4);
        }
    }

    /// After the live dword at `offset` was written.
    pub(crate) fn written(
        &mut self,
        offset: u16,
        written: &Written,
        now: u64,
        effects: &mut Vec<Effect>,
    ) {
        match offset {
            0x0c => self.written_bist(written, now),
            0x3c => self.written_bridge_control(written, now, effects),
            _ => {}
        }
        self.written_express(offset, written, now, effects);
        self.written_power(offset, written, now);
        self.written_vpd(offset, written, now);
        if self.msi == Some(offset) || self.msix == Some(offset) {
            self.update_messages();
        }
        if self.advanced_features.is_some_and(|at| offset == at + 4) && written.data & 1 != 0 {
            effects.push(Effect::FunctionReset);
        }
        self.written_dpc(offset, written, now, effects);
        self.written_resizable(offset, written);
        self.written_sriov(offset, written, now, effects);
        self.written_cxl(offset, written, effects);
        self.written_portal(offset, written);
        self.written_vendor(offset, written);
        self.written_allocation(offset, written);
    }

    fn written_bist(&mut self, written: &Written, now: u64) {
        if let Some(bist) = self.bist
            && written.data & 0x4000_0000 != 0
        {
            let done_at = now.saturating_add(bist.duration);
            if bist.resets {
                self.reset(Reset::FunctionLevel);
                self.space.poke(0x0f, Width::Byte, 0xc0);
            }
            if let Some(bist) = &mut self.bist {
                bist.done_at = Some(done_at);
            }
        }
    }

    fn written_bridge_control(&mut self, written: &Written, now: u64, effects: &mut Vec<Effect>) {
        if (written.old ^ written.new) & 0x0040_0000 == 0 {
            return;
        }
        let asserted = written.new & 0x0040_0000 != 0;
        match self.bridge {
            Some(BridgeKind::DownstreamPort) => self.link_switched(!asserted, now, effects),
            Some(_) => effects.push(Effect::SecondaryReset),
            None => {}
        }
    }

    fn written_power(&mut self, offset: u16, written: &Written, now: u64) {
        let Some(power) = &mut self.power else { return };
        if offset != power.at + 4 || written.lanes & 1 == 0 {
            return;
        }
        let at = power.at;
        let state = (written.data & 3) as u8;
        let capabilities = self.space.peek(at + 2, Width::Word);
        let supported = match state {
            1 => capabilities & 1 << 9 != 0,
            2 => capabilities & 1 << 10 != 0,
            _ => true,
        };
        if !supported || state == (written.old & 3) as u8 {
            return;
        }
        if power.settle == 0 {
            self.enter_power_state(at, state, now);
        } else {
            power.pending = Some((now.saturating_add(power.settle), state));
        }
    }

    fn written_vpd(&mut self, offset: u16, written: &Written, now: u64) {
        if let Some(vpd) = &mut self.vpd
            && offset == vpd.at
            && written.lanes & 0x8000_0000 != 0
        {
            vpd.pending = Some((now.saturating_add(vpd.latency), written.new >> 16));
        }
    }

    /// Interrupt Message Number follows what MSI or MSI-X grants
    /// (PCIe 7.5.3.2, and likewise in DPC, SR-IOV and AER).
    pub(crate) fn update_messages(&mut self) {
        let control = |at: Option<u16>| at.map_or(0, |at| self.space.peek(at + 2, Width::Word));
        let (msi, msix) = (control(self.msi), control(self.msix));
        let number = if msix & 0x8000 != 0 {
            self.messages[1]
        } else {
            let granted = 1_u32 << (msi >> 4 & 7).min(5);
            self.messages[0] & (granted - 1) as u8
        };
        let number = u32::from(number & 0x1f);
        let sriov = self.sriov.as_ref().map(|s| s.at + 4);
        let express = self.express.map(|e| e.at);
        let root_errors = self.root_errors.map(|at| at + 0x30);
        let dpc = self.dpc.map(|at| at + 4);
        let holders = [(express, 25), (sriov, 21), (root_errors, 27), (dpc, 0)];
        for (at, shift) in holders {
            if let Some(at) = at {
                let rest = self.space.peek(at, Width::Dword) & !(0x1f << shift);
                self.space.poke(at, Width::Dword, rest | number << shift);
            }
        }
    }
}
