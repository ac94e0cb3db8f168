//! A machine that is made up from the bytes.

use warmbus_boot::unassigned::first_unassigned;
use warmbus_kho::KhoAbi;
use warmbus_memory::MemoryRange;
use warmbus_memory::PageSize;
use warmbus_memory::TestMemory;
use warmbus_pci::{
    AssignPolicy, PhysAddr, ScanPolicy, Topology, assign, enumerate, verify_assignment,
};
use warmbus_pcie_sim::{Fabric, ProtocolViolation, random};
use warmbus_pcsc::ConfigCache;
use warmbus_pcsc_format::{HandoverRecords, Layout, Placement};

/// Accesses that one function can cost at the very most, by all stages.
const ACCESSES: u64 = 20_000;

/// Goes all the way, from the scan to the handover.
///
/// # Panics
///
/// If that does not end, reads what it must not, or caches what is not so.
pub fn machine(data: &[u8]) {
    let fabric = random::from_bytes(data);
    let hosts = fabric.host_bridges();
    let mut clock = fabric.clock();
    let mut config = ConfigCache::new(fabric);
    let topology = enumerate(&hosts, &ScanPolicy::default(), &mut config, &mut clock);
    let topology = assign(topology, &AssignPolicy::default(), &mut config);
    for function in topology.functions() {
        config.capture(function.sbdf);
    }
    let log = config.access().log();
    let most = ACCESSES * (random::MAX_FUNCTIONS as u64 + 1);
    assert!(log.reads() + log.writes() < most, "it does not end");
    for violation in log.violations() {
        let is_grave = matches!(
            violation,
            ProtocolViolation::OutsideHosts { .. }
                | ProtocolViolation::Misaligned { .. }
                | ProtocolViolation::EarlyVf { .. }
        );
        assert!(!is_grave, "{violation}");
    }
    if verify_assignment(&topology, &config).is_empty() {
        hand_over(&topology, &config);
    }
    // Functions that keep to the rules, and nobody else can answer for.
    let reachable = config.access().reachable();
    let mut differences = config.self_check().differences;
    let fabric = config.access();
    differences.retain(|difference| {
        let node = reachable.get(&difference.function);
        node.is_some_and(|node| fabric.is_compliant(*node))
    });
    assert_eq!(differences, []);
}

fn hand_over(topology: &Topology, config: &ConfigCache<Fabric>) {
    let abi = match first_unassigned(topology) {
        None => KhoAbi::V4,
        Some(_) => KhoAbi::V1,
    };
    let gathered = HandoverRecords::new(config, topology);
    let blocks = gathered.blocks();
    let layout = Layout::new(blocks.len(), abi, PageSize::K4).expect("so few fit");
    let base = PhysAddr(0x4000_0000);
    let placement = Placement {
        arena: base,
        scratch: &[MemoryRange::new(PhysAddr(0x8000_0000), 0x1000_0000)],
        generation: 1,
        absent: &[],
    };
    let mut memory = TestMemory::new(base, layout.size() as usize);
    let handover = warmbus_pcsc_format::build(&layout, &placement, &blocks, &mut memory)
        .expect("it is written");
    let sound = warmbus_pcsc_format::verify(&layout, &handover, &[], base, memory.bytes(), &[]);
    assert_eq!(sound, Ok(()));
}
