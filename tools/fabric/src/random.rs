//! Fabrics made up from arbitrary bytes, sane and hostile ones.
//!
//! The same bytes always give the same fabric, every sequence of bytes gives
//! one, and its size is bounded. What is drawn first is the shape, so that a
//! change of a late byte changes little: that is what a fuzzer needs.

use warmbus::pci::{BusRange, PortType, Width};

use crate::capability::{EaEntry, MsiModel};
use crate::devices;
use crate::express::{ExpressModel, SlotModel};
use crate::fabric::{Fabric, HostId, NodeId, RrsHandling};
use crate::fault::{Fault, Quirk, mix};
use crate::model::{BarModel, BarSpace, BridgeKind, BridgeWindows, FunctionModel};
use crate::sriov::SrIovModel;

/// Functions of a random fabric at most.
pub const MAX_FUNCTIONS: usize = 24;

/// Bridges that a random function is below at most.
const MAX_DEPTH: u8 = 6;

/// Where the decisions come from.
enum Source<'a> {
    /// These bytes, then zeros.
    Bytes(core::slice::Iter<'a, u8>),
    /// An endless sequence: the state of the generator.
    Seed(u64),
}

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        match self {
            Self::Bytes(bytes) => bytes.next().copied().unwrap_or(0),
            Self::Seed(state) => mix(state) as u8,
        }
    }

    fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    fn dword(&mut self) -> u32 {
        u32::from(self.word()) | u32::from(self.word()) << 16
    }

    /// True once in `n` times.
    fn one_in(&mut self, n: u8) -> bool {
        // The last value, so that bytes that have run out say no.
        self.byte() % n == n - 1
    }
}

/// The fabric that these bytes describe.
pub fn from_bytes(bytes: &[u8]) -> Fabric {
    Generator::new(Source::Bytes(bytes.iter())).fabric()
}

/// The fabric number `seed` of an endless series.
pub fn from_seed(seed: u64) -> Fabric {
    // Neighbouring seeds must not give shifted copies of one sequence.
    let mut state = seed;
    let start = mix(&mut state);
    Generator::new(Source::Seed(start)).fabric()
}

struct Generator<'a> {
    source: Source<'a>,
    fabric: Fabric,
    budget: usize,
    hostile: bool,
}

impl<'a> Generator<'a> {
    fn new(source: Source<'a>) -> Self {
        Self {
            source,
            fabric: Fabric::new(),
            budget: 0,
            hostile: false,
        }
    }

    fn fabric(mut self) -> Fabric {
        self.hostile = !self.source.byte().is_multiple_of(4);
        self.budget = 1 + usize::from(self.source.byte()) % MAX_FUNCTIONS;
        if self.source.one_in(4) {
            self.fabric
                .set_rrs_handling(RrsHandling::Repeat(u64::from(self.source.dword())));
        }
        if self.hostile && self.source.one_in(16) {
            self.fabric.clock().stop();
        }
        let hosts = if self.source.one_in(8) { 2 } else { 1 };
        for segment in 0..hosts {
            let buses = self.buses();
            let host = self.fabric.add_host(Fabric::host_bridge(segment, buses));
            self.root_bus(host);
        }
        self.fabric
    }

    fn buses(&mut self) -> BusRange {
        match self.source.byte() % 8 {
            // Few buses: numbers run out.
            5 => BusRange { first: 0, last: 3 },
            6 => BusRange {
                first: 0x40,
                last: 0x5f,
            },
            7 => {
                let (a, b) = (self.source.byte(), self.source.byte());
                BusRange {
                    first: a.min(b),
                    last: a.max(b),
                }
            }
            _ => BusRange {
                first: 0,
                last: 255,
            },
        }
    }

    fn root_bus(&mut self, host: HostId) {
        let mut device = 0;
        while device < 32 && self.budget > 0 {
            let functions = self.functions();
            for function in functions {
                let port = self.source.byte() % 8 < 5;
                let model = if port {
                    self.port(PortType::RootPort)
                } else {
                    self.endpoint(Some(PortType::RootComplexIntegratedEndpoint))
                };
                if let Some(model) = self.finish(model) {
                    let node = self.fabric.add_root(host, device, function, model);
                    self.below(node, 1);
                }
            }
            device += 1 + self.source.byte() % 4;
        }
    }

    /// The function numbers of one device: mostly 0 alone, now and then
    /// several with holes, or even without a function 0.
    fn functions(&mut self) -> Vec<u8> {
        if !self.source.one_in(4) {
            return vec![0];
        }
        let mut set = self.source.byte();
        if !self.hostile {
            set |= 1;
        }
        (0..8).filter(|f| set & 1 << f != 0).collect()
    }

    /// Fills the bus below `bridge`.
    fn below(&mut self, bridge: NodeId, depth: u8) {
        if depth > MAX_DEPTH || self.budget == 0 {
            return;
        }
        match self.fabric.nodes[bridge.0].model.bridge {
            Some(BridgeKind::DownstreamPort) => self.below_link(bridge, depth),
            Some(BridgeKind::UpstreamPort) => {
                let ports = 1 + self.source.byte() % 4;
                for device in 0..ports {
                    let model = self.port(PortType::DownstreamPort);
                    self.hang(bridge, device << 3, model, depth);
                }
            }
            Some(_) => {
                let cards = self.source.byte() % 4;
                for _ in 0..cards {
                    let devfn = self.source.byte() & !7;
                    let model = if self.source.one_in(3) {
                        FunctionModel::bridge(0x1234, 0x0001, self.windows())
                    } else {
                        self.endpoint(None)
                    };
                    self.hang(bridge, devfn, model, depth);
                }
            }
            None => {}
        }
    }

    fn below_link(&mut self, port: NodeId, depth: u8) {
        match self.source.byte() % 8 {
            0 => {}
            1 | 2 => {
                let model = FunctionModel::bridge(0x1234, 0x0005, self.windows())
                    .express(ExpressModel::new(PortType::UpstreamPort));
                self.hang(port, 0, model, depth);
            }
            3 => {
                let model = FunctionModel::bridge(0x1234, 0x0007, self.windows())
                    .express(ExpressModel::new(PortType::PcieToPciBridge));
                self.hang(port, 0, model, depth);
            }
            4 => {
                // An ARI device; its list may lead anywhere.
                let mut devfn = 0_u8;
                for _ in 0..=(self.source.byte() % 4) {
                    let next = if self.source.one_in(8) {
                        self.source.byte()
                    } else {
                        devfn.wrapping_add(1 + self.source.byte() % 32)
                    };
                    let last = self.source.one_in(4);
                    let model =
                        self.endpoint(Some(PortType::Endpoint))
                            .ari(if last { 0 } else { next });
                    self.hang(port, devfn, model, depth);
                    if last || next <= devfn {
                        break;
                    }
                    devfn = next;
                }
            }
            _ => {
                for function in self.functions() {
                    let model = self.endpoint(Some(PortType::Endpoint));
                    self.hang(port, function, model, depth);
                }
            }
        }
    }

    fn hang(&mut self, bridge: NodeId, devfn: u8, model: FunctionModel, depth: u8) {
        if let Some(model) = self.finish(model) {
            let node = self.fabric.add_below_devfn(bridge, devfn, model);
            self.below(node, depth + 1);
        }
    }

    /// What every function gets at the end; `None` where the fabric is full.
    fn finish(&mut self, mut model: FunctionModel) -> Option<FunctionModel> {
        self.budget = self.budget.checked_sub(1)?;
        if self.source.one_in(3) {
            model = model.multi_function();
        }
        if self.source.one_in(8) {
            model = model.ready_at(u64::from(self.source.word()) << 14);
        }
        if self.hostile && self.source.one_in(3) {
            for _ in 0..=(self.source.byte() % 4) {
                model = self.spoil(model).spoiled();
            }
        }
        Some(model)
    }

    fn windows(&mut self) -> BridgeWindows {
        let kinds = self.source.byte();
        BridgeWindows {
            io_bits: [16, 0, 32, 16][usize::from(kinds % 4)],
            prefetchable_bits: [64, 0, 32, 64][usize::from(kinds / 4 % 4)],
        }
    }

    fn port(&mut self, kind: PortType) -> FunctionModel {
        let shape = self.source.byte();
        let mut express = ExpressModel::new(kind);
        if shape & 1 != 0 {
            express = express.ari_forwarding();
        }
        if shape & 2 != 0 {
            express = express.active_reporting();
        }
        if shape & 4 != 0 {
            express = express.slot(SlotModel {
                number: shape.into(),
                hot_plug: shape & 8 != 0,
                power_controller: shape & 16 != 0,
            });
        }
        if shape & 0xe0 == 0x20 {
            express = express.without_rrs_visibility();
        }
        if shape & 0xe0 == 0x40 {
            express = express.version(1);
        }
        let windows = self.windows();
        let mut model = FunctionModel::bridge(0x1234, 0x000c, windows);
        if self.source.one_in(4) {
            model = model.bar(0, BarModel::memory32(0x1000));
        }
        model = model.power_management(true, 0).express(express);
        match self.source.byte() % 16 {
            13 => model,
            14 => model.link_up_at(u64::from(self.source.word()) << 14),
            15 => model.link_up().link_drops_at(self.source.word().into()),
            _ => model.link_up(),
        }
    }

    fn bar(&mut self) -> BarModel {
        let shape = self.source.byte();
        let space = match shape % 8 {
            0 | 1 => BarSpace::Memory32,
            2 => BarSpace::Io,
            3 => BarSpace::Io16,
            _ => BarSpace::Memory64,
        };
        // Mostly small, now and then too much for any window.
        let shift = if shape & 0xc0 == 0xc0 {
            shape & 0x3f
        } else {
            shape / 8 % 20
        };
        let bar = BarModel::new(space, 1 << shift);
        if shape & 0x20 != 0 {
            bar.prefetchable()
        } else {
            bar
        }
    }

    fn endpoint(&mut self, kind: Option<PortType>) -> FunctionModel {
        let class_code = 0x01_0802;
        let mut model = match self.source.byte() % 16 {
            1 => return devices::virtio_network(),
            2 => return devices::old_network(),
            3 => return devices::conventional_network(),
            _ => FunctionModel::endpoint(0x1234, self.source.word(), class_code),
        };
        let present = self.source.byte();
        let mut index = 0;
        while index < 6 {
            let bar = self.bar();
            let wide = bar.space == BarSpace::Memory64;
            if present & 1 << index != 0 && !(wide && index == 5) {
                model = model.bar(index, bar);
                index += u8::from(wide);
            }
            index += 1;
        }
        if present & 0x40 != 0 {
            model = model.rom(0x1_0000);
        }
        let shape = self.source.word();
        if let Some(kind) = kind {
            let mut express = ExpressModel::new(kind);
            if shape & 1 != 0 {
                express = express.flr();
            }
            if shape & 2 != 0 {
                express = express.version(1);
            }
            model = model.express(express);
        }
        model = self.capabilities(model, shape);
        if kind.is_some() {
            model = self.extended(model, shape);
        }
        model
    }

    fn capabilities(&mut self, mut model: FunctionModel, shape: u16) -> FunctionModel {
        if shape & 4 != 0 {
            model = model.power_management(shape & 8 != 0, 0);
        }
        if shape & 0x10 != 0 {
            let kind = self.source.byte();
            model = model.msi(MsiModel {
                vectors_log2: kind % 6,
                address64: kind & 0x20 != 0,
                masking: kind & 0x40 != 0,
                extended_data: kind & 0x80 != 0,
            });
        }
        if shape & 0x20 != 0 {
            model = model.msix(self.source.word(), 0, 0x800);
        }
        if shape & 0x40 != 0 && self.source.one_in(4) {
            let [base, size] = [self.source.dword(), self.source.dword()].map(u64::from);
            let bei = self.source.byte();
            let wide = u64::from(bei >> 7) << 36;
            let entry = EaEntry {
                bei: bei & 0xf,
                properties: self.source.byte(),
                base: base | wide,
                size,
            };
            model = model.enhanced_allocation(&[entry], (0, 0));
        }
        if shape & 0x80 != 0 && model.has_room(0x10) {
            let body = [self.source.byte(), self.source.byte()];
            model = model.vendor_specific(&body);
        }
        model
    }

    fn extended(&mut self, mut model: FunctionModel, shape: u16) -> FunctionModel {
        if shape & 0x100 != 0 {
            model = model.advanced_errors();
        }
        if shape & 0x200 != 0 {
            model = model.serial_number(u64::from(self.source.dword()));
        }
        if shape & 0x400 != 0 && self.source.one_in(2) {
            let (total_vfs, kind) = (self.source.word(), self.source.byte());
            let mut vf_bars = [None; 6];
            vf_bars[0] = Some(self.bar());
            let model_of_vfs = SrIovModel {
                total_vfs: if kind & 1 == 0 {
                    total_vfs % 16
                } else {
                    total_vfs
                },
                layout: match kind / 2 % 4 {
                    0 => |_, _| (1, 1),
                    1 => |_, ari| if ari { (1, 1) } else { (0x100, 1) },
                    2 => |num_vfs, _| (num_vfs, num_vfs),
                    _ => |_, _| (0xffff, 0),
                },
                page_sizes: if kind & 8 == 0 {
                    0x553
                } else {
                    self.source.dword()
                },
                vf_bars,
                ..SrIovModel::default()
            };
            let template = FunctionModel::virtual_function(0x01_0802);
            model = model.sriov(model_of_vfs, template);
        }
        if shape & 0x800 != 0 {
            model = model.latency_tolerance();
        }
        if shape & 0x1000 != 0 {
            model = model.virtual_channels(self.source.byte());
        }
        if shape & 0x2000 != 0 {
            let (bar, size) = (self.source.byte() % 6, self.source.byte() % 28);
            model = model.resizable(&[(bar, self.source.dword(), size)]);
        }
        if shape & 0x4000 != 0 {
            let length = u16::from(self.source.byte());
            model = model.unknown_extended(self.source.word(), length);
        }
        if shape & 0x8000 != 0 {
            model = model.designated(0x1e98, self.source.byte().into(), 1, 0x20);
        }
        model
    }

    /// Breaks one thing.
    fn spoil(&mut self, model: FunctionModel) -> FunctionModel {
        let kind = self.source.byte();
        let at = self.source.word();
        let low = at % 0x100;
        let range = (at % 0x1000, (at % 0x1000).saturating_add(kind.into()));
        match kind % 20 {
            0 => model.set(low, Width::Byte, self.source.byte().into()),
            1 => model.set(low & !3, Width::Dword, self.source.dword()),
            2 => model.writable(low & !3, Width::Dword, self.source.dword()),
            3 => model.set(0x100, Width::Dword, self.source.dword()),
            4 => model.set((at % 0x1000) & !3, Width::Dword, self.source.dword()),
            // Lists that go in circles, out of bounds, or to odd places.
            5 => model.link_capability(0x40, self.source.byte()),
            6 => model.set(0x34, Width::Byte, self.source.byte().into()),
            7 => model.link_extended(0x100, at % 0x1000),
            8 => model.set(0x0e, Width::Byte, self.source.byte().into()),
            9 => model.set(0x0e, Width::Byte, 0x7f),
            // Bus numbers that do not stick, or only in part.
            10 => model.hardwired(0x18, Width::Dword, 0),
            11 => model.hardwired(0x18, Width::Dword, self.source.dword()),
            12 => model.writable(0x18, Width::Dword, self.source.dword()),
            13 => model.fault(Fault::Vanishes {
                accesses: (low % 64).into(),
            }),
            14 => model.fault(Fault::Hole {
                from: range.0,
                to: range.1,
            }),
            15 => model.fault(Fault::Aborts {
                from: range.0,
                to: range.1,
            }),
            16 => model.fault(Fault::Noise {
                from: range.0,
                to: range.1,
                seed: at.into(),
            }),
            17 => model.ready_at(u64::MAX),
            18 => model.quirk(match at % 4 {
                0 => Quirk::EveryDevice,
                1 => Quirk::EveryFunction,
                2 => Quirk::ForwardsEveryDevice,
                _ => Quirk::RepeatsLowSpace,
            }),
            _ => model.hardwired(0x10 + low % 6 * 4, Width::Dword, self.source.dword()),
        }
    }
}
