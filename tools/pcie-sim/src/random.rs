//! Fabrics made up from arbitrary bytes, sane and hostile ones.
//!
//! The same bytes always give the same fabric, every sequence of bytes gives
//! one, and its size is bounded. What is drawn first is the shape, so that a
//! change of a late byte changes little: that is what a fuzzer needs.

mod functions;

use warmbus_pci::{BusRange, PortType};

use crate::express::ExpressModel;
use crate::fabric::{Fabric, HostId, NodeId, RrsHandling};
use crate::fault::mix;
use crate::model::{BridgeKind, FunctionModel};

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
}
