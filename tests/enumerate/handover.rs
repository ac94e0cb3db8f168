//! What becomes of a machine in the end: a report, and the start of Linux,
//! with the cache or without. [`crate::boot`] brings every machine here.

#[path = "../kho/reader/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest of it")]
mod kho_reader;

use warmbus_boot::decide::{
    Decision, Facts, KernelFacts, PciPolicy, PreviousFacts, Refusal, decide,
};
use warmbus_boot::handover::survey_of_functions;
use warmbus_boot::options::KhoChoice;
use warmbus_boot::pipeline::Captured;
use warmbus_boot::report::{self, Report, ReportInput};
use warmbus_kho::KhoAbi;
use warmbus_machine::Source;
use warmbus_memory::MemoryRange;
use warmbus_memory::PageSize;
use warmbus_memory::TestMemory;
use warmbus_pci::{PhysAddr, Topology};
use warmbus_pcie_sim::Fabric;
use warmbus_pcsc::ConfigCache;
use warmbus_pcsc_format::{FunctionRecord, HandoverRecords, Layout, Placement};

use kho_reader::{Kernel, pcsc};

/// How Linux is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// With the cache, and keeping all bus numbers and BARs.
    Keeping,
    /// With the cache, keeping all bus numbers, and assigning BARs: the assignment
    /// has this gap.
    AssigningBars(String),
    /// With the cache if it is a version that does not assign again on its own:
    /// the assignment has this gap.
    Assigning(String),
    /// Without the cache, for this reason.
    Without(String),
}

/// Where the handover goes in these tests, and the scratch memory.
const ARENA: PhysAddr = PhysAddr(0x6000_0000);
const SCRATCH: [MemoryRange; 1] = [MemoryRange::new(PhysAddr(0x8000_0000), 0x1000_0000)];

/// How a kernel with a radix tree is started, or else one with a list of
/// bitmaps, and proof that what is handed over then is what is cached.
pub(crate) fn start(captured: &Captured<Fabric>) -> Start {
    let facts = Facts {
        requested: KhoChoice::Auto,
        may_probe_vfs: true,
        source: Source::DeviceTree,
        pci_word: None,
        survey: Some(survey_of_functions(captured)),
        previous: PreviousFacts::Nothing,
        page_size: Ok(PageSize::K4),
    };
    let (topology, config) = (&captured.topology, &captured.config);
    let started = |abi| {
        let kernel = KernelFacts {
            abi: Ok(Some(abi)),
            abi_name: None,
            keeps_scratch_with_uefi: true,
            reads_vf_routing: false,
        };
        let decision = decide(&facts, &kernel, Ok(()));
        if let Decision::Handover(decision) = &decision {
            assert_eq!(decision.abi, abi);
            hand_over(topology, config, decision.abi, decision.abi.compatible()[0]);
        }
        decision
    };
    match started(KhoAbi::V4) {
        Decision::Handover(decision) => {
            let PciPolicy::Keep { except } = decision.pci else {
                panic!("without a word in /chosen it cannot be {}", decision.pci);
            };
            except.first().map_or(Start::Keeping, |host| {
                Start::AssigningBars(host.to_string())
            })
        }
        Decision::Without(Refusal::Renumbered(gap)) => {
            let Decision::Handover(decision) = started(KhoAbi::V1) else {
                panic!("a list of bitmaps needs no bus numbers");
            };
            assert_eq!(decision.pci, PciPolicy::Reassign(gap.clone()));
            Start::Assigning(gap.to_string())
        }
        Decision::Without(refusal) => Start::Without(refusal.to_string()),
    }
}

/// Writes the handover and reads it with other eyes.
fn hand_over(
    topology: &Topology,
    config: &ConfigCache<Fabric>,
    abi: KhoAbi,
    version: &'static str,
) {
    let gathered = HandoverRecords::new(config, topology);
    let blocks = gathered.blocks();
    let layout = Layout::new(blocks.len(), abi, PageSize::K4).expect("they fit");
    let placement = Placement {
        arena: ARENA,
        scratch: &SCRATCH,
        generation: 1,
    };
    let mut memory = TestMemory::new(ARENA, layout.size() as usize);
    let handover = warmbus_pcsc_format::build(&layout, &placement, &blocks, &mut memory)
        .expect("it is written");
    let in_use = [("scratch memory", SCRATCH[0])];
    let sound =
        warmbus_pcsc_format::verify(&layout, &handover, &[], ARENA, memory.bytes(), &in_use);
    assert_eq!(sound, Ok(()));

    let pair = |range: MemoryRange| (range.start.0, range.size);
    let kernel = Kernel::readers(version, 12)[0];
    let received = kernel
        .receive(&memory, pair(handover.kho.root), pair(handover.kho.scratch))
        .expect("Linux takes it");
    let later = received.under_pressure(pair(handover.kho.scratch));
    let (at, size) = received.subtree("pcsc").expect("it is there");
    let tree = later.get(PhysAddr(at), size as usize).expect("it is kept");
    let restored = pcsc::consume(&later, tree).expect("it can be read");
    let index = pcsc::Index::open(&later, tree).expect("it can be read");
    assert_eq!(index.len(), config.blocks().count());
    // Virtual functions that do not exist now are in the index only.
    let exists = |block: &FunctionRecord<'_>| !block.virtual_function.is_some_and(|vf| vf.disabled);
    let existing = blocks.iter().filter(|block| exists(block)).count();
    assert_eq!(restored.len(), existing);
    for (function, block) in config.blocks() {
        let address = (
            function.segment(),
            function.bus(),
            function.device(),
            function.function(),
        );
        let (at, _) = index.find(address);
        let at = at.expect("it is in the index").0;
        let Some((node, found)) = restored.get(&address) else {
            let bytes = later.get(PhysAddr(at), 8192).expect("it is kept");
            assert_eq!(bytes[..block.data().len()], *block.data(), "{function}");
            continue;
        };
        assert_eq!(*node, at, "{function}");
        let size = block.data().len();
        assert_eq!(found.data[..size], *block.data(), "{function}");
        assert_eq!(
            found.cached[..size / 8],
            *block.cached_bitmap(),
            "{function}"
        );
        assert!(found.cached[size / 8..].iter().all(|byte| *byte == 0));
    }
}

/// The report on the machine: it names every function, and everything that was
/// found to be wrong.
pub(crate) fn report(topology: &Topology, config: &ConfigCache<Fabric>, complaints: &[String]) {
    let cached = |function| report::cached_bytes(config, function);
    let input = ReportInput {
        topology,
        machine: report::Machine::default(),
        accesses: report::Accesses::default(),
        cache: report::CacheStatistics::default(),
        phases: Vec::new(),
        self_check: None,
        anomalies: Vec::new(),
        result: Ok(()),
    };
    let report = Report::new(input, &cached);
    let mut text = String::new();
    report::json::write(&report, &mut text).expect("a string takes it");
    let read: Report = serde_json::from_str(&text).expect("the report is JSON");
    assert_eq!(read, report);
    assert_eq!(read.functions.len(), topology.functions().len());
    let of_functions = read
        .functions
        .iter()
        .map(|function| function.anomalies.len());
    let reported = read.anomalies.len() + of_functions.sum::<usize>();
    assert_eq!(reported, complaints.len());
}
