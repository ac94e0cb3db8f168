//! Random well-formed topologies for property tests: a plan that proptest can
//! print and shrink, and the fabric that it describes.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use warmbus_pci::{BusRange, PortType};

use crate::bar::{BarModel, BarSpace};
use crate::capability::MsiModel;
use crate::express::{ExpressModel, SlotModel};
use crate::fabric::{Fabric, HostId, NodeId};
use crate::model::{BridgeWindows, FunctionModel};
use crate::sriov::SrIovModel;

/// A machine with one or two host bridges.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The devices of each root bus, from device 0 on.
    pub hosts: Vec<Vec<Device>>,
}

/// A device on a bus.
#[derive(Clone, Debug)]
pub enum Device {
    /// Functions 0, 1, and so on.
    Functions(Vec<Function>),
    /// A downstream facing port and the device in its slot.
    Port {
        /// Hot-plug capable slot.
        hot_plug: bool,
        /// ARI forwarding supported.
        ari: bool,
        /// The device below the link.
        below: Option<Box<Device>>,
    },
    /// A switch: its ports.
    Switch(Vec<Device>),
    /// A bridge to conventional PCI, with the devices of that bus.
    Bridge(Vec<Device>),
}

/// An endpoint function.
#[derive(Clone, Debug)]
pub struct Function {
    /// BARs in the order of their registers.
    pub bars: Vec<BarModel>,
    /// An expansion ROM.
    pub rom: bool,
    /// The capabilities, one bit each.
    pub capabilities: u8,
    /// Virtual functions.
    pub vfs: u16,
}

impl Function {
    /// The function; `port` is its type, `None` for conventional PCI.
    fn model(&self, port: Option<PortType>) -> FunctionModel {
        let mut model = FunctionModel::endpoint(0x1234, 0x5678, 0x01_0802).named("endpoint");
        let mut index = 0;
        for bar in &self.bars {
            let registers = if bar.space == BarSpace::Memory64 {
                2
            } else {
                1
            };
            if index + registers <= 6 {
                model = model.bar(index, *bar);
                index += registers;
            }
        }
        if self.rom {
            model = model.rom(0x1_0000);
        }
        let has = |bit: u8| self.capabilities & 1 << bit != 0;
        if has(0) {
            model = model.power_management(has(1), 0);
        }
        if has(2) {
            model = model.msi(MsiModel {
                vectors_log2: self.capabilities % 6,
                address64: has(3),
                masking: has(4),
                extended_data: false,
            });
        }
        let Some(port) = port else { return model };
        model = model.express(ExpressModel::new(port).flr());
        if has(5) {
            model = model.msix(8, 0, 0x800);
        }
        if has(6) {
            model = model.advanced_errors();
        }
        if has(7) {
            model = model.serial_number(0x0123_4567_89ab_cdef);
        }
        if self.vfs > 0 {
            let mut vf_bars = [None; 6];
            vf_bars[0] = Some(BarModel::memory64(0x1000));
            let sriov = SrIovModel {
                total_vfs: self.vfs,
                // Always on the next bus, so that they never meet functions.
                layout: |_, _| (0x100, 1),
                vf_bars,
                ..SrIovModel::default()
            };
            model = model.sriov(sriov, FunctionModel::virtual_function(0x01_0802));
        }
        model
    }
}

/// A bridge without a link below; `None` for conventional PCI.
fn bridge(port: Option<PortType>) -> FunctionModel {
    let model = FunctionModel::bridge(0x1234, 0x0005, BridgeWindows::default())
        .named("bridge")
        .bar(0, BarModel::memory64(0x100))
        .power_management(true, 0);
    match port {
        Some(port) => model.express(ExpressModel::new(port)),
        None => model,
    }
}

/// The bus of a device.
#[derive(Clone, Copy)]
enum Bus {
    Root(HostId),
    Link(NodeId),
    Internal(NodeId),
    Conventional(NodeId),
}

impl Bus {
    fn add(self, fabric: &mut Fabric, device: u8, function: u8, model: FunctionModel) -> NodeId {
        match self {
            Self::Root(host) => fabric.add_root(host, device, function, model),
            Self::Link(bridge) | Self::Internal(bridge) | Self::Conventional(bridge) => {
                fabric.add_below(bridge, device, function, model)
            }
        }
    }
}

impl Plan {
    /// The machine. Every function of it can be reached once all buses are
    /// numbered, and all memory fits; 64 KiB of I/O may be too little for the
    /// bridges of a large machine.
    pub fn build(&self) -> Fabric {
        let mut fabric = Fabric::new();
        for (segment, devices) in (0..).zip(&self.hosts) {
            let buses = BusRange {
                first: 0,
                last: 255,
            };
            let host = fabric.add_host(Fabric::host_bridge(segment, buses));
            for (number, device) in (0..32).zip(devices) {
                device.build(&mut fabric, Bus::Root(host), number);
            }
        }
        fabric
    }
}

impl Device {
    fn build(&self, fabric: &mut Fabric, bus: Bus, number: u8) {
        match self {
            Self::Functions(functions) => {
                let port = match bus {
                    Bus::Root(_) => Some(PortType::RootComplexIntegratedEndpoint),
                    Bus::Link(_) | Bus::Internal(_) => Some(PortType::Endpoint),
                    Bus::Conventional(_) => None,
                };
                for (function, plan) in (0..8).zip(functions) {
                    let mut model = plan.model(port);
                    if functions.len() > 1 {
                        model = model.multi_function();
                    }
                    bus.add(fabric, number, function, model);
                }
            }
            Self::Port {
                hot_plug,
                ari,
                below,
            } => {
                let kind = match bus {
                    Bus::Root(_) => PortType::RootPort,
                    _ => PortType::DownstreamPort,
                };
                let mut express = ExpressModel::new(kind).active_reporting();
                if *ari {
                    express = express.ari_forwarding();
                }
                if *hot_plug {
                    express = express.slot(SlotModel {
                        number: number.into(),
                        hot_plug: true,
                        power_controller: true,
                    });
                }
                let mut model = FunctionModel::bridge(0x1234, 0x0004, BridgeWindows::default())
                    .named("port")
                    .express(express);
                if below.is_some() {
                    model = model.link_up();
                }
                let port = bus.add(fabric, number, 0, model);
                if let Some(below) = below {
                    below.build(fabric, Bus::Link(port), 0);
                }
            }
            Self::Switch(ports) => {
                let upstream = bus.add(fabric, number, 0, bridge(Some(PortType::UpstreamPort)));
                for (device, port) in (0..32).zip(ports) {
                    port.build(fabric, Bus::Internal(upstream), device);
                }
            }
            Self::Bridge(cards) => {
                let port = match bus {
                    Bus::Conventional(_) => None,
                    _ => Some(PortType::PcieToPciBridge),
                };
                let above = bus.add(fabric, number, 0, bridge(port));
                // Below an inner bridge device 0 stays free.
                for (device, card) in (u8::from(port.is_none())..32).zip(cards) {
                    card.build(fabric, Bus::Conventional(above), device);
                }
            }
        }
    }
}

/// BARs that fit into a machine many times over.
fn bar() -> impl Strategy<Value = BarModel> {
    let space = prop_oneof![
        Just(BarSpace::Memory32),
        Just(BarSpace::Memory64),
        Just(BarSpace::Io),
    ];
    (space, any::<bool>(), 4_u32..17).prop_map(|(space, prefetchable, log2)| {
        let io = space == BarSpace::Io;
        let size = 1 << if io { log2.min(7) } else { log2 };
        let bar = BarModel::new(space, size);
        if prefetchable && !io {
            bar.prefetchable()
        } else {
            bar
        }
    })
}

fn function() -> impl Strategy<Value = Function> {
    let vfs = prop_oneof![4 => Just(0_u16), 1 => 1_u16..64];
    (vec(bar(), 0..4), any::<bool>(), any::<u8>(), vfs).prop_map(
        |(bars, rom, capabilities, vfs)| Function {
            bars,
            rom,
            capabilities,
            vfs,
        },
    )
}

/// Endpoints on a bus that has no other bus for VFs behind it.
fn functions_without_vfs() -> impl Strategy<Value = Device> {
    vec(function(), 1..4).prop_map(|mut functions| {
        for function in &mut functions {
            function.vfs = 0;
        }
        Device::Functions(functions)
    })
}

fn card() -> impl Strategy<Value = Device> {
    functions_without_vfs()
        .prop_recursive(2, 8, 3, |inner| vec(inner, 1..4).prop_map(Device::Bridge))
}

/// A device below a link.
fn at_link() -> impl Strategy<Value = Device> {
    let leaf = prop_oneof![
        4 => vec(function(), 1..4).prop_map(Device::Functions),
        1 => vec(card(), 1..4).prop_map(Device::Bridge),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        vec(port(inner), 1..5).prop_map(Device::Switch)
    })
}

fn port(below: impl Strategy<Value = Device>) -> impl Strategy<Value = Device> {
    (any::<bool>(), any::<bool>(), option::weighted(0.8, below)).prop_map(
        |(hot_plug, ari, below)| Device::Port {
            hot_plug,
            ari,
            below: below.map(Box::new),
        },
    )
}

/// Well-formed machines of up to about a hundred functions.
pub fn plan() -> impl Strategy<Value = Plan> {
    let device = prop_oneof![
        1 => functions_without_vfs(),
        3 => port(at_link()),
    ];
    vec(vec(device, 1..6), 1..3).prop_map(|hosts| Plan { hosts })
}
