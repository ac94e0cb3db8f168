//! Resource assignment against a simulated fabric: what is probed, what is
//! assigned, what is written, and what is reported.
//!
//! The tests state registers and ranges from the specifications. Only
//! [`set_up`] and [`preserve`] know the order of the stages.

mod bar_probing;
mod bridge_windows;
mod command;
mod enhanced_allocation;
mod exhaustive;
mod fixed_buses;
mod gaps;
mod host_windows;
mod preserved;
mod priorities;
mod reserve;
mod resizable;
mod short_space;
mod verify;
mod verify_addresses;

use warmbus_pci::{
    AssignCounts, AssignPolicy, Bar, BridgeInfo, Function, HostBridge, HostWindow, PortType, Sbdf,
    ScanPolicy, Topology, Width, assign, enumerate, verify_assignment,
};
use warmbus_pcie_sim::{
    BridgeWindows, ExpressModel, Fabric, FunctionModel, HostId, NodeId, SlotModel, io_window,
    memory32_window, memory64_window,
};
use warmbus_pcsc::ConfigCache;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The usual windows of a host bridge, and names for them.
const IO: HostWindow = io_window(0, 64 * KIB);
const LOW: HostWindow = memory32_window(0x1000_0000, 512 * MIB);
const HIGH: HostWindow = memory64_window(0x80_0000_0000, 512 * GIB);

/// A machine after the stages, with every function captured.
struct Machine {
    topology: Topology,
    config: ConfigCache<Fabric>,
    outcome: AssignCounts,
}

/// Enumerates, assigns and captures.
fn set_up(fabric: Fabric) -> Machine {
    run(fabric, |_| {})
}

/// Enumerates and captures without a write.
fn preserve(fabric: Fabric) -> Machine {
    run(fabric, |host| host.preserve_config = true)
}

fn run(fabric: Fabric, change: impl Fn(&mut HostBridge)) -> Machine {
    let mut clock = fabric.clock();
    let mut hosts = fabric.host_bridges();
    hosts.iter_mut().for_each(change);
    let mut config = ConfigCache::new(fabric);
    let topology = enumerate(&hosts, &ScanPolicy::default(), &mut config, &mut clock);
    let assigned = assign(topology, &AssignPolicy::default(), &mut config);
    let outcome = assigned.counts();
    let topology = assigned.into_topology();
    for function in topology.functions() {
        config.capture(function.sbdf);
    }
    Machine {
        topology,
        config,
        outcome,
    }
}

impl Machine {
    fn fabric(&self) -> &Fabric {
        self.config.access()
    }

    fn function(&self, sbdf: Sbdf) -> &Function {
        let mut functions = self.topology.functions().iter();
        let found = functions.find(|function| function.sbdf == sbdf);
        found.unwrap_or_else(|| panic!("{sbdf} was not found"))
    }

    /// Replaces what the topology says of one function.
    fn change_function(&mut self, sbdf: Sbdf, change: impl Fn(&mut Function)) {
        let mut functions = self.topology.functions().to_vec();
        let mut found = functions.iter_mut().filter(|f| f.sbdf == sbdf);
        found.by_ref().for_each(change);
        let hosts = self.topology.hosts().to_vec();
        self.topology = Topology::new(hosts, functions);
    }

    /// Replaces what the topology says of its only host bridge.
    fn change_host(&mut self, change: impl Fn(&mut HostBridge)) {
        let mut hosts = self.topology.hosts().to_vec();
        change(&mut hosts[0].0);
        let functions = self.topology.functions().to_vec();
        self.topology = Topology::new(hosts, functions);
    }

    fn bridge(&self, sbdf: Sbdf) -> BridgeInfo {
        self.function(sbdf).bridge.expect("it is a bridge")
    }

    /// The BAR with this resource number, if it is implemented.
    fn bar(&self, sbdf: Sbdf, index: u8) -> Option<&Bar> {
        let mut bars = self.function(sbdf).bars.iter();
        bars.find(|bar| bar.index == index)
    }

    /// The address that was assigned to a BAR which is implemented.
    fn address(&self, sbdf: Sbdf, index: u8) -> Option<u64> {
        let bar = self.bar(sbdf, index);
        bar.unwrap_or_else(|| panic!("{sbdf} has no BAR {index}"))
            .address
    }

    fn node(&self, sbdf: Sbdf) -> NodeId {
        let reachable = self.fabric().reachable();
        *reachable.get(&sbdf).expect("it is reachable")
    }

    /// What the hardware holds now.
    fn register(&self, sbdf: Sbdf, offset: u16, width: Width) -> u32 {
        self.fabric().peek(self.node(sbdf), offset, width)
    }

    /// What was reported about one function.
    fn reported(&self, sbdf: Sbdf) -> Vec<String> {
        let anomalies = self.function(sbdf).anomalies.iter();
        anomalies.map(ToString::to_string).collect()
    }

    /// What was reported about the whole machine.
    fn all_reported(&self) -> Vec<String> {
        let anomalies = self.topology.anomalies().iter().map(ToString::to_string);
        let functions = self.topology.functions().iter();
        let own = functions.flat_map(|f| f.anomalies.iter().map(|a| format!("{}: {a}", f.sbdf)));
        anomalies.chain(own).collect()
    }

    fn checked(&self) -> Vec<String> {
        let found = verify_assignment(&self.topology, &self.config);
        found.iter().map(ToString::to_string).collect()
    }

    /// What the registers decode by the rules of the fabric, the rules of the
    /// checker and the bytes of the cache: all three agree.
    fn assert_consistent(&mut self) {
        assert_eq!(self.fabric().misrouted(), [""; 0]);
        assert_eq!(self.checked(), [""; 0]);
        let violations = self.fabric().log().violations();
        assert_eq!(violations.len(), 0, "{:?}", violations.first());
        assert_eq!(self.config.self_check().differences, []);
    }

    /// Whether the hardware decodes exactly `size` bytes for this BAR, at the
    /// address that the topology has for it.
    fn decodes(&self, sbdf: Sbdf, index: u8, size: u64) -> bool {
        let node = self.node(sbdf);
        let address = self.address(sbdf, index);
        self.fabric().decoded().iter().any(|range| {
            (range.node, range.index, range.size) == (node, index, size)
                && Some(range.base) == address
        })
    }
}

/// A root port without a slot, its link up.
fn root_port(windows: BridgeWindows) -> FunctionModel {
    port(PortType::RootPort, windows)
}

/// A port of this kind without a slot, its link up.
fn port(kind: PortType, windows: BridgeWindows) -> FunctionModel {
    let express = ExpressModel::new(kind).ari_forwarding().active_reporting();
    FunctionModel::bridge(0x1234, 0x0004, windows)
        .express(express)
        .link_up()
}

/// A root port with a hot-plug capable slot, nothing plugged in.
fn hot_plug_port() -> FunctionModel {
    let slot = SlotModel {
        power_controller: true,
        ..SlotModel::HOT_PLUG
    };
    let express = ExpressModel::new(PortType::RootPort)
        .slot(slot)
        .active_reporting();
    FunctionModel::bridge(0x1234, 0x0005, ALL_WINDOWS).express(express)
}

/// All windows that a bridge can have, with the wider prefetchable one.
const ALL_WINDOWS: BridgeWindows = BridgeWindows {
    io_bits: 16,
    prefetchable_bits: 64,
};

fn endpoint(device: u16) -> FunctionModel {
    FunctionModel::endpoint(0x1234, device, 0x01_0802)
        .express(ExpressModel::new(PortType::Endpoint).flr())
}

/// A function in the root complex.
fn integrated(device: u16) -> FunctionModel {
    FunctionModel::endpoint(0x1234, device, 0x08_8000)
        .express(ExpressModel::new(PortType::RootComplexIntegratedEndpoint))
}

/// `model` below a root port at 00:`device`.0 with these windows.
fn below_port(
    fabric: &mut Fabric,
    host: HostId,
    device: u8,
    windows: BridgeWindows,
    model: FunctionModel,
) {
    let port = fabric.add_root(host, device, 0, root_port(windows));
    fabric.add_below(port, 0, 0, model);
}

fn at(bus: u8, device: u8, function: u8) -> Sbdf {
    Sbdf::new(0, bus, device, function)
}

/// Whether `address..address + size` is inside of `window`.
fn is_inside(window: &HostWindow, address: u64, size: u64) -> bool {
    window.pci_address <= address && address + size <= window.pci_address + window.size
}
