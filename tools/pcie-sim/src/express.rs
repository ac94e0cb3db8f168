//! The PCI Express capability of every kind of function (PCIe 7.5.3).

use warmbus_pci::{PortType, Width};

use crate::behaviour::Effect;
use crate::model::{BridgeKind, FunctionModel};
use crate::space::Written;

/// A slot below a downstream port (PCIe 7.5.3.9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotModel {
    /// Physical Slot Number, 13 bits.
    pub number: u16,
    /// Hot-Plug Capable.
    pub hot_plug: bool,
    /// Power Controller Present: software can switch the slot off.
    pub power_controller: bool,
}

impl SlotModel {
    /// Slot 1: hot-plug capable, without a power controller.
    pub const HOT_PLUG: Self = Self {
        number: 1,
        hot_plug: true,
        power_controller: false,
    };

    fn capabilities(self) -> u32 {
        u32::from(self.number & 0x1fff) << 19
            | u32::from(self.hot_plug) << 6
            | u32::from(self.power_controller) << 1
    }
}

/// What a PCI Express capability says about the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpressModel {
    port: PortType,
    version: u8,
    slot: Option<SlotModel>,
    device: u32,
    device2: u32,
    link: u32,
    root: u16,
    latencies: [(u8, u8); 2],
}

impl ExpressModel {
    /// A version 2 capability of a function of type `port`, with a 16 GT/s x4
    /// link where that type has one.
    #[must_use]
    pub const fn new(port: PortType) -> Self {
        Self {
            port,
            version: 2,
            slot: None,
            // Role-Based Error Reporting, 256 bytes payload.
            device: 0x8001,
            // Completion Timeout ranges and disable, LTR.
            device2: 0x081f,
            // 16 GT/s, x4, ASPM L1, ASPM Optionality.
            link: 0x0040_0844,
            root: 1,
            latencies: [(4, 4); 2],
        }
    }

    /// Sets the capability version: 1 (PCIe 1.x) or 2.
    #[must_use]
    pub const fn version(mut self, version: u8) -> Self {
        self.version = version;
        self
    }

    /// Puts a slot below the port.
    #[must_use]
    pub const fn slot(mut self, slot: SlotModel) -> Self {
        self.slot = Some(slot);
        self
    }

    /// Function Level Reset Capability.
    #[must_use]
    pub const fn flr(mut self) -> Self {
        self.device |= 1 << 28;
        self
    }

    /// ARI Forwarding Supported.
    #[must_use]
    pub const fn ari_forwarding(mut self) -> Self {
        self.device2 |= 1 << 5;
        self
    }

    /// Data Link Layer Link Active Reporting Capable.
    #[must_use]
    pub const fn active_reporting(mut self) -> Self {
        self.link |= 1 << 20;
        self
    }

    /// Takes away Configuration RRS Software Visibility, which the root ports
    /// of this model otherwise have.
    #[must_use]
    pub const fn without_rrs_visibility(mut self) -> Self {
        self.root = 0;
        self
    }

    /// Encoded L0s and L1 exit latencies (0 to 7) with separate reference
    /// clocks and with a common one.
    #[must_use]
    pub const fn exit_latencies(mut self, separate: (u8, u8), common: (u8, u8)) -> Self {
        self.latencies = [separate, common];
        self
    }

    const fn has_link(&self) -> bool {
        !matches!(
            self.port,
            PortType::RootComplexIntegratedEndpoint | PortType::RootComplexEventCollector
        )
    }

    const fn has_root(&self) -> bool {
        matches!(
            self.port,
            PortType::RootPort | PortType::RootComplexEventCollector
        )
    }

    const fn faces_down(&self) -> bool {
        matches!(self.port, PortType::RootPort | PortType::DownstreamPort)
    }

    /// Bytes that the capability takes.
    const fn length(&self) -> u16 {
        if self.version >= 2 {
            0x3c
        } else if self.has_root() {
            0x24
        } else if self.slot.is_some() {
            0x1c
        } else if self.has_link() {
            0x14
        } else {
            0x0c
        }
    }
}

const fn port_bits(port: PortType) -> u32 {
    match port {
        PortType::Endpoint => 0,
        PortType::LegacyEndpoint => 1,
        PortType::RootPort => 4,
        PortType::UpstreamPort => 5,
        PortType::DownstreamPort => 6,
        PortType::PcieToPciBridge => 7,
        PortType::PciToPcieBridge => 8,
        PortType::RootComplexIntegratedEndpoint => 9,
        PortType::RootComplexEventCollector => 10,
        PortType::Reserved(bits) => bits as u32 & 0xf,
    }
}

/// Where the capability of a function is, and what the rest has to know of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Express {
    pub(crate) at: u16,
    pub(crate) port: PortType,
    version: u8,
    latencies: [(u8, u8); 2],
}

impl Express {
    const fn faces_down(&self) -> bool {
        matches!(self.port, PortType::RootPort | PortType::DownstreamPort)
    }
}

impl FunctionModel {
    /// Adds a PCI Express capability. A function with a type 1 header becomes
    /// the port that it names.
    pub fn express(mut self, model: ExpressModel) -> Self {
        let at = self.reserve(0x10, model.length());
        let flags = u32::from(model.version)
            | port_bits(model.port) << 4
            | u32::from(model.slot.is_some()) << 8;
        let space = &mut self.space;
        space.set(at + 2, Width::Word, flags);
        space.set(at + 4, Width::Dword, model.device);
        // Relaxed Ordering and No Snoop on, 512 bytes read requests.
        space.set(at + 8, Width::Word, 0x2810);
        space.writable(at + 8, Width::Word, 0x78ff);
        space.survives_flr(at + 8, Width::Word, 0x00e0);
        space.clearable(at + 0xa, Width::Word, 0xf);
        space.live(at + 8);
        if model.has_link() {
            let link_control = if model.faces_down() { 0x0ed3 } else { 0x02cb };
            space.set(at + 0xc, Width::Dword, model.link);
            space.writable(at + 0x10, Width::Word, link_control);
            space.survives_flr(at + 0x10, Width::Word, 0x03cb);
            // Slot Clock Configuration; speed and width of the trained link.
            space.set(at + 0x12, Width::Word, 0x1000 | (model.link & 0x3ff));
            space.live(at + 0x10);
            if model.faces_down() {
                space.clearable(at + 0x12, Width::Word, 0xc000);
            }
        }
        if let Some(slot) = model.slot.filter(|_| model.faces_down()) {
            space.set(at + 0x14, Width::Dword, slot.capabilities());
            space.set(at + 0x18, Width::Word, 0x03c0);
            space.writable(at + 0x18, Width::Word, 0x17ff);
            space.clearable(at + 0x1a, Width::Word, 0x011f);
            space.live(at + 0x18);
        }
        if model.has_root() {
            let visibility = u32::from(model.root & 1);
            space.writable(at + 0x1c, Width::Word, 0xf | visibility << 4);
            space.set(at + 0x1e, Width::Word, visibility);
            space.clearable(at + 0x20, Width::Dword, 0x0001_0000);
        }
        if model.version >= 2 {
            space.set(at + 0x24, Width::Dword, model.device2);
            let ari = if model.faces_down() {
                model.device2 & 0x20
            } else {
                0
            };
            space.writable(at + 0x28, Width::Word, 0x041f | ari);
            space.live(at + 0x28);
            if model.has_link() {
                // Every speed up to the maximum.
                let speeds = (2_u32 << (model.link & 0xf)) - 2;
                space.set(at + 0x2c, Width::Dword, speeds);
                space.set(at + 0x30, Width::Word, model.link & 0xf);
                space.writable(at + 0x30, Width::Word, 0xffbf);
                space.sticky(at + 0x30, Width::Word, 0xffff);
            }
        }
        self.express = Some(Express {
            at,
            port: model.port,
            version: model.version,
            latencies: model.latencies,
        });
        self.set_latencies(false);
        self.become_port(&model);
        self
    }

    fn become_port(&mut self, model: &ExpressModel) {
        if self.bridge.is_none() {
            return;
        }
        let kind = match model.port {
            PortType::RootPort | PortType::DownstreamPort => BridgeKind::DownstreamPort,
            PortType::UpstreamPort => BridgeKind::UpstreamPort,
            PortType::PcieToPciBridge => BridgeKind::PcieToPci,
            _ => BridgeKind::Conventional,
        };
        self.bridge = Some(kind);
        if matches!(kind, BridgeKind::DownstreamPort | BridgeKind::UpstreamPort) {
            // No latency timer, no master abort mode, no discard timers.
            self.space.writable(0x1b, Width::Byte, 0);
            self.space.writable(0x3e, Width::Word, 0x5f);
            self.space.clearable(0x3e, Width::Word, 0);
        }
    }

    /// Plugs something in below this port, with the link already up.
    pub fn link_up(mut self) -> Self {
        self.link.present = true;
        self
    }

    /// Plugs something in below this port; the link comes up at `time`.
    pub fn link_up_at(mut self, time: u64) -> Self {
        self.link.present = true;
        self.link.up_from = time;
        self.link.training_until = time;
        self
    }

    /// The link below this port drops at `time` and stays down.
    pub fn link_drops_at(mut self, time: u64) -> Self {
        self.link.drops_at = time;
        self
    }

    fn express_word(&self, offset: u16) -> u32 {
        self.express
            .map_or(0, |e| self.space.peek(e.at + offset, Width::Word))
    }

    /// Whether ARI forwarding is on in this port (Device Control 2, bit 5).
    pub(crate) fn forwards_ari(&self) -> bool {
        self.express.is_some_and(|e| e.version >= 2) && self.express_word(0x28) & 0x20 != 0
    }

    /// Whether the root port shows RRS to software (Root Control, bit 4).
    pub(crate) fn shows_rrs(&self) -> bool {
        self.express.is_some_and(|e| e.port == PortType::RootPort)
            && self.express_word(0x1c) & 0x10 != 0
    }

    fn has_slot(&self) -> bool {
        self.express.is_some_and(|e| e.faces_down()) && self.express_word(2) & 0x100 != 0
    }

    fn slot_power_off(&self) -> bool {
        self.has_slot() && self.express_word(0x14) & 2 != 0 && self.express_word(0x18) & 0x400 != 0
    }

    /// Whether the data link below this downstream port is up.
    pub(crate) fn link_is_up(&self, now: u64) -> bool {
        self.link.is_trained(now)
            && self.express_word(0x10) & 0x10 == 0
            && self.space.peek(0x3e, Width::Word) & 0x40 == 0
            && !self.slot_power_off()
            && !self.is_contained()
    }

    /// L0s and L1 exit latencies follow Common Clock Configuration
    /// (PCIe 7.5.3.6).
    pub(crate) fn set_latencies(&mut self, common: bool) {
        let Some(express) = self.express else { return };
        let (l0s, l1) = express.latencies[usize::from(common)];
        let link = self.space.peek(express.at + 0xc, Width::Dword);
        if link == 0 {
            return;
        }
        let link = (link & !0x0003_f000) | u32::from(l0s & 7) << 12 | u32::from(l1 & 7) << 15;
        self.space.poke(express.at + 0xc, Width::Dword, link);
    }

    /// The registers that show the present state of link and slot.
    pub(crate) fn refresh_express(&mut self, offset: u16, now: u64) {
        let Some(express) = self.express.filter(Express::faces_down) else {
            return;
        };
        if offset == express.at + 0x10 {
            let up = self.link_is_up(now);
            let capabilities = self.space.peek(express.at + 0xc, Width::Dword);
            let mut status = self.express_word(0x12) & 0xd000;
            if up {
                status |= capabilities & 0x3ff;
                // Active only where reporting is implemented.
                status |= u32::from(capabilities & 1 << 20 != 0) << 13;
            }
            if self.link.present && now < self.link.training_until {
                status |= 0x0800;
            }
            self.space.poke(express.at + 0x12, Width::Word, status);
        } else if offset == express.at + 0x18 && self.has_slot() {
            let present = u32::from(self.link.present && now < self.link.drops_at) << 6;
            let status = self.express_word(0x1a) & !0x40 | present;
            self.space.poke(express.at + 0x1a, Width::Word, status);
            if now >= self.link.drops_at && !self.link.drop_seen {
                self.link.drop_seen = true;
                self.slot_changed();
            }
        }
    }

    /// Presence Detect Changed and Data Link Layer State Changed, where the
    /// port has a slot.
    pub(crate) fn slot_changed(&mut self) {
        if let Some(express) = self.express.filter(|_| self.has_slot()) {
            let status = self.express_word(0x1a) | 0x0108;
            self.space.poke(express.at + 0x1a, Width::Word, status);
        }
    }

    /// What a write to the dword at `offset` of the capability starts.
    pub(crate) fn written_express(
        &mut self,
        offset: u16,
        written: &Written,
        now: u64,
        effects: &mut Vec<Effect>,
    ) {
        let Some(express) = self.express else { return };
        let device = self.space.peek(express.at + 4, Width::Dword);
        if offset == express.at + 8 {
            if written.data & 0x8000 != 0 && device & 1 << 28 != 0 {
                effects.push(Effect::FunctionReset);
            }
        } else if offset == express.at + 0x10 {
            let changed = written.old ^ written.new;
            if changed & 0x40 != 0 {
                effects.push(Effect::CommonClock(written.new & 0x40 != 0));
            }
            if express.faces_down() {
                if changed & 0x10 != 0 {
                    self.link_switched(written.new & 0x10 == 0, now, effects);
                }
                if written.data & 0x20 != 0 {
                    self.link.training_until = now.saturating_add(self.link.training_time);
                    effects.push(Effect::Retrain);
                }
            }
        } else if offset == express.at + 0x18 && self.has_slot() {
            self.written_slot(express.at, written, now, effects);
        } else if offset == express.at + 0x28
            && express.faces_down()
            && (written.old ^ written.new) & 0x20 != 0
        {
            effects.push(Effect::AriForwarding(written.new & 0x20 != 0));
        }
    }

    /// Software took the link down, or lets it come up again. What is below
    /// was reset either way; on the port LTR Mechanism Enable falls to 0.
    pub(crate) fn link_switched(&mut self, on: bool, now: u64, effects: &mut Vec<Effect>) {
        if on {
            self.link.train(now);
        } else if let Some(express) = self.express.filter(|e| e.version >= 2) {
            let control = self.express_word(0x28) & !0x400;
            self.space.poke(express.at + 0x28, Width::Word, control);
        }
        effects.push(Effect::SecondaryReset);
    }
}
