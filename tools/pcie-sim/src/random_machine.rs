//! Well-formed random machines whose host bridges have little space: what is below
//! one mostly fits, and sometimes does not.
//!
//! A fabric has as many of them as it has segments, so that one boot of Linux
//! assigns resources to all. Their windows do not overlap on the CPU side, which
//! Linux asks for.

use warmbus_pci::{BusRange, HostBridge, HostWindow, PhysAddr, PortType, WindowKind};

use crate::bar::{BarModel, BarSpace};
use crate::express::{ExpressModel, SlotModel};
use crate::fabric::{Fabric, HostId, NodeId};
use crate::fault::mix;
use crate::model::{BridgeWindows, FunctionModel};
use crate::sriov::SrIovModel;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The ECAM window of segment 0. That of each other one is right behind the one
/// before it.
pub const ECAM: PhysAddr = PhysAddr(0x40_0000_0000);
/// Bytes of the ECAM window of a segment.
pub const ECAM_SIZE: u64 = 256 * MIB;
/// Where the windows of segment 0 are on the CPU side, and how many bytes those of
/// each segment share. An address on the PCI side has the same distance from a
/// multiple of them.
const WINDOWS: u64 = 0x100_0000_0000;
const WINDOWS_SIZE: u64 = 64 * GIB;
/// Where its I/O window is among them.
const IO: u64 = 7 * GIB;

/// Bridges that a function is below at most.
const MAX_DEPTH: u8 = 4;

/// What is on the other side of a bus.
#[derive(Clone, Copy, Debug)]
enum Bus {
    Root(HostId),
    /// At the end of a link.
    Link(NodeId),
    /// In a switch.
    Internal(NodeId),
    Conventional(NodeId),
}

/// Adds the machine number `seed` of an endless series as segment `segment`, which
/// is to be below 128.
pub fn add_machine(fabric: &mut Fabric, segment: u16, seed: u64) -> HostId {
    // Neighbouring seeds must not give shifted copies of one sequence.
    let mut state = seed;
    let state = mix(&mut state);
    let mut generator = Generator {
        state,
        budget: 0,
        largest: 0,
    };
    generator.machine(fabric, segment)
}

struct Generator {
    state: u64,
    /// Functions that may still be added.
    budget: u64,
    /// Binary logarithm of the bytes of the largest BAR.
    largest: u64,
}

impl Generator {
    fn below(&mut self, end: u64) -> u64 {
        mix(&mut self.state) % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    fn machine(&mut self, fabric: &mut Fabric, segment: u16) -> HostId {
        let first = if self.one_in(4) { 0x20 } else { 0 };
        let count = self.of(&[8, 16, 32, 64, 224, 224]);
        let buses = BusRange {
            first,
            last: first + (count - 1),
        };
        let ecam = ECAM.0 + ECAM_SIZE * u64::from(segment);
        let bridge =
            HostBridge::ecam(segment, PhysAddr(ecam), buses).with_name(format!("/pcie@{ecam:x}"));
        let bridge = self.windows(bridge, segment);
        let host = fabric.add_host(bridge);
        let most = self.of(&[6, 12, 24, 32]);
        self.budget = 2 + self.below(most);
        self.largest = 16 + self.below(14);
        let mut device = 0;
        while device < 32 && self.budget > 0 {
            self.device(fabric, Bus::Root(host), device, 0);
            device += 1 + self.below(3) as u8;
        }
        host
    }

    fn windows(&mut self, bridge: HostBridge, segment: u16) -> HostBridge {
        let cpu = WINDOWS + WINDOWS_SIZE * u64::from(segment);
        // Away from each other, and aligned to a MiB.
        let window = |kind, at: u64, multiple: u64, size, prefetchable| HostWindow {
            prefetchable,
            ..HostWindow::new(kind, at + multiple * WINDOWS_SIZE, PhysAddr(cpu + at), size)
        };
        let low = WindowKind::Memory32;
        let high = WindowKind::Memory64;
        let mut windows = Vec::new();
        if !self.one_in(8) {
            let size = self.of(&[64 * KIB, 64 * KIB, 64 * KIB, 32 * KIB, 16 * KIB]);
            windows.push(HostWindow::new(WindowKind::Io, 0, PhysAddr(cpu + IO), size));
        }
        let at = 0x1000_0000 + self.jitter();
        let size = MIB * self.of(&[4, 8, 16, 32, 64, 128, 256, 512]);
        windows.push(window(low, at, 0, size, false));
        if self.one_in(6) {
            let at = 0x5000_0000 + self.jitter();
            let size = MIB * self.of(&[1, 3, 16, 64]);
            windows.push(window(low, at, 0, size, false));
        }
        if self.one_in(4) {
            let at = 0x6000_0000 + self.jitter();
            let size = MIB * self.of(&[2, 16, 64, 256, 512]);
            windows.push(window(low, at, 0, size, true));
        }
        if self.one_in(12) {
            // It crosses 4 GiB.
            let at = 0xf000_0000 - self.jitter();
            let size = 512 * MIB + MIB * self.below(512);
            windows.push(window(high, at, 0, size, true));
        }
        if !self.one_in(3) {
            let at = 8 * GIB + self.jitter() * self.below(16);
            let size = MIB * self.of(&[16, 64, 256, 768, 1024, 5120, 16384]);
            let (multiple, is_prefetchable) = (self.below(3), self.one_in(2));
            windows.push(window(high, at, multiple, size, is_prefetchable));
        }
        windows.into_iter().fold(bridge, HostBridge::with_window)
    }

    /// Less than 256 MiB, mostly 0.
    fn jitter(&mut self) -> u64 {
        if self.one_in(2) {
            0
        } else {
            self.below(256) * MIB
        }
    }

    /// Adds one device with all below it.
    fn device(&mut self, fabric: &mut Fabric, bus: Bus, device: u8, depth: u8) {
        if self.budget == 0 {
            return;
        }
        let shape = self.below(8);
        match bus {
            Bus::Root(_) | Bus::Internal(_) if shape < 6 && depth < MAX_DEPTH => {
                self.port(fabric, bus, device, depth);
            }
            Bus::Link(_) if shape < 2 && depth < MAX_DEPTH => {
                self.switch(fabric, bus, device, depth);
            }
            Bus::Link(_) if shape == 2 && depth < MAX_DEPTH => {
                self.bridge_to_conventional(fabric, bus, device, depth);
            }
            Bus::Conventional(_) if shape == 0 && depth < MAX_DEPTH => {
                self.bridge_to_conventional(fabric, bus, device, depth);
            }
            // A switch has nothing but ports.
            Bus::Internal(_) => {}
            _ => self.functions(fabric, bus, device),
        }
    }

    fn port(&mut self, fabric: &mut Fabric, bus: Bus, device: u8, depth: u8) {
        let kind = match bus {
            Bus::Root(_) => PortType::RootPort,
            _ => PortType::DownstreamPort,
        };
        let mut express = ExpressModel::new(kind).active_reporting();
        if self.one_in(2) {
            express = express.ari_forwarding();
        }
        if self.one_in(4) {
            express = express.slot(SlotModel {
                number: device.into(),
                hot_plug: true,
                power_controller: false,
            });
        }
        let mut model = self.bridge().express(express);
        let is_empty = self.one_in(5) || self.budget < 2;
        if !is_empty {
            model = model.link_up();
        }
        let Some(port) = self.add(fabric, bus, (device, 0), model) else {
            return;
        };
        if !is_empty {
            self.device(fabric, Bus::Link(port), 0, depth + 1);
        }
    }

    fn switch(&mut self, fabric: &mut Fabric, bus: Bus, device: u8, depth: u8) {
        let express = ExpressModel::new(PortType::UpstreamPort);
        let model = self.bridge().express(express);
        let Some(upstream) = self.add(fabric, bus, (device, 0), model) else {
            return;
        };
        for device in 0..=self.below(5) as u8 {
            self.device(fabric, Bus::Internal(upstream), device, depth + 1);
        }
    }

    fn bridge_to_conventional(&mut self, fabric: &mut Fabric, bus: Bus, device: u8, depth: u8) {
        let mut model = self.bridge();
        if let Bus::Link(_) = bus {
            model = model.express(ExpressModel::new(PortType::PcieToPciBridge));
        }
        let Some(above) = self.add(fabric, bus, (device, 0), model) else {
            return;
        };
        for device in 1..=1 + self.below(3) as u8 {
            self.device(fabric, Bus::Conventional(above), device, depth + 1);
        }
    }

    fn bridge(&mut self) -> FunctionModel {
        let windows = BridgeWindows {
            io_bits: self.of(&[16, 16, 16, 32, 0]),
            prefetchable_bits: self.of(&[64, 64, 64, 64, 32, 0]),
        };
        let model = FunctionModel::bridge(0x1234, 0x0005, windows).power_management(true, 0);
        match self.below(6) {
            0 => model.bar(0, BarModel::memory32(4 * KIB)),
            1 => model.bar(0, BarModel::memory64(16 * KIB)),
            _ => model,
        }
    }

    /// Adds an endpoint with one function or some.
    fn functions(&mut self, fabric: &mut Fabric, bus: Bus, device: u8) {
        let count = if self.one_in(4) { 2 + self.below(3) } else { 1 };
        let kind = match bus {
            Bus::Root(_) => Some(PortType::RootComplexIntegratedEndpoint),
            Bus::Link(_) | Bus::Internal(_) => Some(PortType::Endpoint),
            Bus::Conventional(_) => None,
        };
        for function in 0..count as u8 {
            let mut model = self.endpoint(kind);
            if count > 1 {
                model = model.multi_function();
            }
            self.add(fabric, bus, (device, function), model);
        }
    }

    fn endpoint(&mut self, kind: Option<PortType>) -> FunctionModel {
        // No driver knows it.
        let mut model = FunctionModel::endpoint(0x1234, 0x5678, 0xff_0000);
        let mut index = 0;
        for _ in 0..self.below(4) {
            let bar = self.bar();
            model = model.bar(index, bar);
            index += if bar.space == BarSpace::Memory64 {
                2
            } else {
                1
            };
        }
        if self.one_in(5) {
            model = model.rom(2048 << self.below(9));
        }
        let Some(kind) = kind else { return model };
        model = model.express(ExpressModel::new(kind));
        if kind == PortType::Endpoint && self.one_in(8) {
            let mut vf_bars = [None; 6];
            let space = self.of(&[BarSpace::Memory64, BarSpace::Memory32]);
            let mut bar = BarModel::new(space, 4096 << self.below(8));
            bar.prefetchable = self.one_in(2);
            vf_bars[0] = Some(bar);
            let sriov = SrIovModel {
                total_vfs: 1 + self.below(16) as u16,
                layout: |_, _| (0x100, 1),
                vf_bars,
                ..SrIovModel::default()
            };
            model = model.sriov(sriov, FunctionModel::virtual_function(0xff_0000));
        }
        model
    }

    fn bar(&mut self) -> BarModel {
        let range = self.largest - 11;
        // Small ones are more frequent.
        let log2 = 12 + self.below(range).min(self.below(range));
        let memory = |space| BarModel::new(space, 1 << log2);
        match self.below(16) {
            0 => BarModel::io(4 << self.below(7)),
            1 => BarModel::new(BarSpace::Io16, 4 << self.below(7)),
            2..=4 => memory(BarSpace::Memory32),
            5 => memory(BarSpace::Memory32).prefetchable(),
            6..=9 => memory(BarSpace::Memory64),
            _ => memory(BarSpace::Memory64).prefetchable(),
        }
    }

    fn add(
        &mut self,
        fabric: &mut Fabric,
        bus: Bus,
        (device, function): (u8, u8),
        model: FunctionModel,
    ) -> Option<NodeId> {
        self.budget = self.budget.checked_sub(1)?;
        Some(match bus {
            Bus::Root(host) => fabric.add_root(host, device, function, model),
            Bus::Link(above) | Bus::Internal(above) | Bus::Conventional(above) => {
                fabric.add_below(above, device, function, model)
            }
        })
    }
}
