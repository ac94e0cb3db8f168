//! Simulated machines whose functions are captured, and what is said of them.

use warmbus_boot::capture::capture_vfs;
use warmbus_pci::{
    AssignPolicy, Assigned, BusRange, ConfigAccess, ConfigOffset, PortType, Sbdf, ScanPolicy,
    VfPolicy, VfScope, Width, assign, enable_vfs, enumerate,
};
use warmbus_pcie_sim::{
    BridgeWindows, ExpressModel, Fabric, FunctionModel, HostId, SrIovModel, VfLayout,
};
use warmbus_pcsc::ConfigCache;
use warmbus_pcsc_format::{FunctionRecord, HandoverRecords, RoutingRecord};

/// A machine whose functions are captured.
pub(crate) struct CapturedMachine {
    pub(crate) config: ConfigCache<Fabric>,
    pub(crate) topology: Assigned,
}

impl CapturedMachine {
    /// With as many VFs of these physical functions as are listed.
    pub(crate) fn new(fabric: Fabric, vfs: &[(Sbdf, u16)]) -> Self {
        let hosts = fabric.host_bridges();
        let mut clock = fabric.clock();
        let mut config = ConfigCache::new(fabric);
        let topology = enumerate(&hosts, &ScanPolicy::default(), &mut config, &mut clock);
        let topology = assign(topology, &AssignPolicy::default(), &mut config);
        let policy = VfPolicy {
            scope: VfScope::Off,
            listed: vfs.to_vec(),
            keep: false,
        };
        let (mut topology, enabled) = enable_vfs(topology, &policy, &mut config, &mut clock);
        for function in topology.functions() {
            config.capture(function.sbdf);
        }
        if let Some(enabled) = enabled {
            enabled.wait(&mut clock);
            (topology, _) = capture_vfs(enabled, topology, &mut config, &mut clock);
        }
        Self { config, topology }
    }

    pub(crate) fn gathered(&self) -> HandoverRecords<'_> {
        HandoverRecords::new(&self.config, &self.topology)
    }

    /// The routing records of a function, each as NumVFs from and to, offset,
    /// stride, ARI Capable Hierarchy, captured.
    pub(crate) fn routing(&self, function: Sbdf) -> Vec<RoutingRecord> {
        let gathered = self.gathered();
        let blocks = gathered.blocks();
        of(&blocks, function).routing.to_vec()
    }

    /// Reads where VFs are with each of these values of NumVFs.
    pub(crate) fn read_routing(&mut self, physical: Sbdf, num_vfs: &[u16]) {
        let block = self.config.block(physical).expect("captured");
        let at = block.extended_capability(0x10).expect("SR-IOV");
        for number in num_vfs {
            let number = u32::from(*number);
            let register = ConfigOffset::wrapping(at + 0x10);
            self.config.write(physical, register, Width::Word, number);
            let register = ConfigOffset::wrapping(at + 0x14);
            self.config.read(physical, register, Width::Dword);
        }
    }
}

pub(crate) fn of<'a>(blocks: &'a [FunctionRecord<'a>], function: Sbdf) -> &'a FunctionRecord<'a> {
    let found = blocks.iter().find(|block| block.sbdf == function);
    found.expect("it is handed over")
}

pub(crate) fn at(segment: u16, bus: u8, device: u8, function: u8) -> Sbdf {
    Sbdf::new(segment, bus, device, function)
}

/// A root port with its link up.
pub(crate) fn root_port(forwards_ari: bool) -> FunctionModel {
    let express = ExpressModel::new(PortType::RootPort).active_reporting();
    let express = if forwards_ari {
        express.ari_forwarding()
    } else {
        express
    };
    FunctionModel::bridge(0x1234, 4, BridgeWindows::default())
        .express(express)
        .link_up()
}

pub(crate) fn endpoint() -> FunctionModel {
    FunctionModel::endpoint(0x1234, 7, 0x01_0802)
        .express(ExpressModel::new(PortType::Endpoint).flr())
}

/// A physical function of an ARI device, the last one of it.
pub(crate) fn physical(total_vfs: u16, layout: VfLayout) -> FunctionModel {
    let model = SrIovModel {
        total_vfs,
        layout,
        ..SrIovModel::default()
    };
    let vf = FunctionModel::virtual_function(0x01_0802);
    endpoint().ari(0).sriov(model, vf)
}

pub(crate) fn add_host(fabric: &mut Fabric, segment: u16) -> HostId {
    let buses = BusRange { first: 0, last: 31 };
    fabric.add_host(Fabric::host_bridge(segment, buses))
}
