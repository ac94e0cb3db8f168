//! A simulated machine that the bytes describe.

use warmbus_boot::decide::{Decision, Facts, KernelFacts, PreviousFacts, decide};
use warmbus_boot::handover::survey_of_functions;
use warmbus_boot::options::KhoChoice;
use warmbus_boot::pipeline::{Captured, Pipeline};
use warmbus_kho::KhoAbi;
use warmbus_machine::Source;
use warmbus_memory::MemoryRange;
use warmbus_memory::PageSize;
use warmbus_memory::TestMemory;
use warmbus_pci::PhysAddr;
use warmbus_pcie_sim::{Fabric, ProtocolViolation, random};
use warmbus_pcsc_format::{HandoverRecords, Layout, Placement};

/// An upper bound of the accesses to one function, by all stages.
const ACCESSES: u64 = 20_000;

/// Runs the pipeline from enumeration to the handover.
///
/// # Panics
///
/// If that does not end, reads what it must not, or caches what is not so.
pub fn machine(data: &[u8]) {
    let fabric = random::from_bytes(data);
    let hosts = fabric.host_bridges();
    let mut clock = fabric.clock();
    let mut captured = Pipeline::default().run(&hosts, fabric, &mut clock, &mut ());
    let log = captured.config.access().log();
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
    for abi in [KhoAbi::V4, KhoAbi::V1] {
        hand_over(&captured, abi);
    }
    // Compliant functions whose place no other function can respond in.
    let reachable = captured.config.access().reachable();
    let mut differences = captured.config.self_check().differences;
    let fabric = captured.config.access();
    differences.retain(|difference| {
        let node = reachable.get(&difference.function);
        node.is_some_and(|node| fabric.is_compliant(*node))
    });
    assert_eq!(differences, []);
}

/// Hands `captured` over to a kernel that reads version `abi`, if that is
/// decided.
fn hand_over(captured: &Captured<Fabric>, abi: KhoAbi) {
    let facts = Facts {
        requested: KhoChoice::Auto,
        may_probe_vfs: true,
        source: Source::DeviceTree,
        pci_word: None,
        survey: Some(survey_of_functions(captured)),
        previous: PreviousFacts::Nothing,
        page_size: Ok(PageSize::K4),
    };
    let kernel = KernelFacts {
        abi: Ok(Some(abi)),
        abi_name: None,
        keeps_scratch_with_uefi: true,
        reads_vf_routing: true,
    };
    let Decision::Handover(decision) = decide(&facts, &kernel, Ok(())) else {
        return;
    };
    let gathered = HandoverRecords::new(&captured.config, &captured.topology);
    let blocks = gathered.blocks();
    let layout = Layout::new(blocks.len(), decision.abi, decision.page_size).expect("so few fit");
    let base = PhysAddr(0x4000_0000);
    let placement = Placement {
        arena: base,
        scratch: &[MemoryRange::new(PhysAddr(0x8000_0000), 0x1000_0000)],
        generation: 1,
    };
    let mut memory = TestMemory::new(base, layout.size() as usize);
    let handover = warmbus_pcsc_format::build(&layout, &placement, &blocks, &mut memory)
        .expect("it is written");
    let sound = warmbus_pcsc_format::verify(&layout, &handover, &[], base, memory.bytes(), &[]);
    assert_eq!(sound, Ok(()));
}
