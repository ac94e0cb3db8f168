//! Enumeration, assignment and the cache against a simulated fabric that
//! follows the PCI Express rules.

mod absent;
mod ari;
mod broken;
mod bus_numbers;
mod captured_vfs;
mod checker;
mod handover;
mod hostile;
mod late;
mod late_vfs;
mod links;
mod machines;
mod not_ready;
mod numbering;
mod planned;
mod preserved;
mod preserved_numbers;
mod vf_places;
mod vf_policy;
mod vf_routing;
mod virtual_functions;

use std::collections::{BTreeMap, BTreeSet};

use handover::Start;
use warmbus_boot::pipeline::{Captured, Pipeline};
use warmbus_pci::{
    AssignCounts, Assigned, ConfigOffset, Function, HostBridge, PortType, Sbdf, ScanPolicy,
    verify_assignment,
};
use warmbus_pcie_sim::{BridgeWindows, ExpressModel, Fabric, FunctionModel, HostId};
use warmbus_pcsc::ConfigCache;

/// What is left after all stages.
struct Machine {
    topology: Assigned,
    config: ConfigCache<Fabric>,
    outcome: AssignCounts,
    start: Start,
}

/// Runs the pipeline over `fabric`, reports, and decides how Linux starts.
fn boot(fabric: Fabric) -> Machine {
    boot_with(fabric, &ScanPolicy::default(), |_| {})
}

fn boot_with(fabric: Fabric, policy: &ScanPolicy, change: impl Fn(&mut HostBridge)) -> Machine {
    let pipeline = Pipeline {
        scan: policy.clone(),
        ..Pipeline::default()
    };
    let machine = run(fabric, &pipeline, change);
    handover::report(&machine.topology, &machine.config, &machine.complaints());
    machine
}

/// Runs `pipeline` over `fabric`, with what `change` makes of its host bridges.
fn run(fabric: Fabric, pipeline: &Pipeline, change: impl Fn(&mut HostBridge)) -> Machine {
    let mut clock = fabric.clock();
    let mut hosts = fabric.host_bridges();
    hosts.iter_mut().for_each(change);
    let captured = pipeline.run(&hosts, fabric, &mut clock, &mut ());
    captured.wait_until_sriov_readable(&mut clock);
    let start = handover::start(&captured);
    let Captured {
        topology, config, ..
    } = captured;
    let outcome = topology.counts();
    Machine {
        topology,
        config,
        outcome,
        start,
    }
}

impl Machine {
    fn fabric(&self) -> &Fabric {
        self.config.access()
    }

    fn addresses(&self) -> Vec<Sbdf> {
        self.topology.functions().iter().map(|f| f.sbdf).collect()
    }

    fn function(&self, sbdf: Sbdf) -> &Function {
        let mut functions = self.topology.functions().iter();
        functions.find(|f| f.sbdf == sbdf).expect("not found")
    }

    /// Everything that was reported to be wrong.
    fn complaints(&self) -> Vec<String> {
        let anomalies = self.topology.anomalies().iter().map(ToString::to_string);
        let functions = self.topology.functions().iter();
        let own = functions.flat_map(|f| f.anomalies.iter().map(|a| format!("{}: {a}", f.sbdf)));
        anomalies.chain(own).collect()
    }

    /// The functions of the fabric that software can reach and those that
    /// were found, where they differ.
    fn differences(&self) -> BTreeSet<Sbdf> {
        let reachable: BTreeSet<_> = self.fabric().reachable().into_keys().collect();
        let found: BTreeSet<_> = self.addresses().into_iter().collect();
        assert_eq!(found.len(), self.addresses().len(), "found twice");
        reachable.symmetric_difference(&found).copied().collect()
    }

    /// Everything that must hold wherever the hardware keeps to the rules.
    fn assert_sound(&mut self) {
        assert_eq!(self.differences(), BTreeSet::new());
        let fabric = self.fabric();
        let texts = |v: &[warmbus_pcie_sim::ProtocolViolation]| -> Vec<String> {
            v.iter().map(ToString::to_string).collect()
        };
        assert_eq!(texts(fabric.log().violations()), [""; 0]);
        assert_eq!(fabric.misrouted(), [""; 0]);
        let found = verify_assignment(&self.topology, &self.config);
        assert_eq!(found, []);
        for function in self.topology.functions() {
            let block = self.config.block(function.sbdf);
            let block = block.unwrap_or_else(|| panic!("{} is not cached", function.sbdf));
            assert_eq!(block.cached_bytes(), block.cacheable_bytes());
            assert!(block.cached_bytes() > 50);
        }
        let same = self.config.self_check();
        assert_eq!(same.differences, []);
        assert!(same.bytes > 0);
    }

    /// How often each dword that may be cached as a whole was read from the
    /// hardware, by function and offset.
    fn cacheable_reads(&self) -> Vec<(Sbdf, u16, u32)> {
        let addresses: BTreeMap<_, _> = self
            .fabric()
            .reachable()
            .into_iter()
            .map(|(sbdf, node)| (node, sbdf))
            .collect();
        let reads = self.fabric().log().reads_by_dword().into_iter();
        reads
            .filter_map(|((node, vf, offset), count)| {
                let sbdf = *addresses.get(&node)?;
                let block = self.config.block(sbdf)?;
                let mut bytes = (offset..offset + 4).map(ConfigOffset::wrapping);
                let whole = vf.is_none() && bytes.all(|byte| block.is_cacheable(byte));
                whole.then_some((sbdf, offset, count))
            })
            .collect()
    }
}

/// A fabric with one host bridge of segment 0 and these buses, recording.
fn machine(first: u8, last: u8) -> (Fabric, HostId) {
    let (mut fabric, host) = Fabric::with_buses(first, last);
    fabric.log_mut().record();
    (fabric, host)
}

fn root_port() -> FunctionModel {
    let express = ExpressModel::new(PortType::RootPort)
        .ari_forwarding()
        .active_reporting();
    FunctionModel::bridge(0x1234, 0x0004, BridgeWindows::default()).express(express)
}

fn endpoint(device: u16) -> FunctionModel {
    FunctionModel::endpoint(0x1234, device, 0x01_0802)
        .express(ExpressModel::new(PortType::Endpoint).flr())
}

fn at(bus: u8, device: u8, function: u8) -> Sbdf {
    Sbdf::new(0, bus, device, function)
}
