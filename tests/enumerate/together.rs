//! Capture by several cores against capture by one.

use std::sync::Mutex;
use std::thread;

use warmbus_pci::{
    AccessFault, AssignPolicy, ConfigAccess, ConfigOffset, PrefetchedAccess, ReadBatches,
    ReadResult, Sbdf, ScanPolicy, Topology, Width, assign, enumerate, group_reads_by_root_port,
};
use warmbus_pcie_sim::{Fabric, topologies};
use warmbus_pcsc::ConfigCache;

type Ahead = PrefetchedAccess<Fabric>;

/// Everything up to the capture.
fn prepared(fabric: Fabric) -> (ConfigCache<Ahead>, Topology) {
    let hosts = fabric.host_bridges();
    let mut clock = fabric.clock();
    let mut config = ConfigCache::new(PrefetchedAccess::new(fabric));
    let topology = enumerate(&hosts, &ScanPolicy::default(), &mut config, &mut clock);
    let topology = assign(topology, &AssignPolicy::default(), &mut config);
    (config, topology.into_topology())
}

/// Makes the missing reads by `cores` threads.
fn read_ahead(config: &mut ConfigCache<Ahead>, topology: &Topology, cores: usize) -> usize {
    let queue = ReadBatches::new(group_reads_by_root_port(topology, |function| {
        config.missing_reads(function)
    }));
    let reads = queue.reads();
    let fabric = Mutex::new(config.access_mut().access_mut());
    let read_one = || {
        queue.work(|read| {
            thread::yield_now();
            let mut fabric = fabric.lock().expect("no thread panics");
            let value = fabric.read(read.function, read.offset, read.width);
            match fabric.take_fault() {
                Some(_) => ReadResult::Fault,
                None => ReadResult::Value(value),
            }
        });
    };
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(read_one);
        }
    });
    config.access_mut().load(queue.into_results());
    reads
}

fn capture(config: &mut ConfigCache<Ahead>, topology: &Topology) {
    let mut functions: Vec<Sbdf> = topology.functions().iter().map(|f| f.sbdf).collect();
    functions.sort_unstable();
    for function in functions {
        config.capture(function);
    }
    config.access_mut().discard();
}

/// All that is cached, as bytes.
fn contents(config: &ConfigCache<Ahead>) -> Vec<(Sbdf, Vec<u8>, Vec<u8>)> {
    config
        .blocks()
        .map(|(function, block)| (function, block.data().into(), block.cached_bitmap().into()))
        .collect()
}

#[test]
fn several_cores_capture_the_same_bytes_with_the_same_reads_as_one() {
    for fabric in [
        topologies::small(),
        topologies::switch(),
        topologies::sriov(4, 8),
    ] {
        let (mut alone, topology) = prepared(fabric.clone());
        capture(&mut alone, &topology);
        for cores in [1, 2, 7] {
            let (mut config, topology) = prepared(fabric.clone());
            let hardware = config.access().access().log().reads();
            let ahead = read_ahead(&mut config, &topology, cores);
            assert!(
                ahead > topology.functions().len(),
                "{ahead} reads made ahead"
            );
            let after = config.access().access().log().reads();
            assert_eq!(after - hardware, ahead as u64);
            capture(&mut config, &topology);
            assert_eq!(contents(&config), contents(&alone));
            assert_eq!(config.statistics(), alone.statistics());
            assert_eq!(config.access().discarded(), 0);
            assert_eq!(
                config.access().access().log().reads(),
                alone.access().access().log().reads()
            );
            assert_eq!(config.access().access().log().violations(), []);
        }
    }
}

#[test]
fn functions_behind_one_root_port_are_read_by_one_core() {
    let (config, topology) = prepared(topologies::switch());
    let lists = group_reads_by_root_port(&topology, |function| config.missing_reads(function));
    for list in &lists {
        let mut roots: Vec<usize> = list
            .iter()
            .map(|read| {
                let of = |sbdf| topology.functions().iter().position(|f| f.sbdf == sbdf);
                let mut at = of(read.function).expect("it was found");
                while let Some(parent) = topology.functions()[at].parent {
                    at = parent;
                }
                at
            })
            .collect();
        roots.dedup();
        assert_eq!(roots.len(), 1);
    }
    let all: usize = lists.iter().map(Vec::len).sum();
    let missing = topology.functions().iter();
    let missing: usize = missing.map(|f| config.missing_reads(f.sbdf).len()).sum();
    assert_eq!(all, missing);
}

#[test]
fn a_fault_on_another_core_is_told_and_costs_only_its_function() {
    let (mut config, topology) = prepared(topologies::small());
    let missing = topology
        .functions()
        .iter()
        .map(|function| config.missing_reads(function.sbdf))
        .find(|reads| reads.len() > 3)
        .expect("something is missing");
    let bad = missing[1];
    let queue = ReadBatches::new(group_reads_by_root_port(&topology, |function| {
        config.missing_reads(function)
    }));
    let all = queue.reads();
    let fabric = Mutex::new(config.access_mut().access_mut());
    queue.work(|read| {
        if read == bad {
            return ReadResult::Fault;
        }
        let mut fabric = fabric.lock().expect("no thread panics");
        ReadResult::Value(fabric.read(read.function, read.offset, read.width))
    });
    let answers = queue.into_results();
    let of_bad = answers
        .iter()
        .filter(|(read, _)| read.function == bad.function);
    assert_eq!(of_bad.count(), 2, "one value and the fault");
    assert_eq!(answers.len(), all - (missing.len() - 2));

    let ahead = config.access_mut();
    ahead.load(answers);
    for read in &missing[..2] {
        let value = ahead.read(read.function, read.offset, read.width);
        assert_eq!(value == read.width.ones(), *read == bad);
    }
    let fault = AccessFault {
        function: bad.function,
        offset: bad.offset,
    };
    assert_eq!(ahead.take_fault(), Some(fault));
    // What the other core left out is read now.
    let before = ahead.access().log().reads();
    let rest = missing[2];
    ahead.read(rest.function, rest.offset, rest.width);
    assert_eq!(ahead.access().log().reads(), before + 1);
}

#[test]
fn a_write_makes_answers_worthless() {
    let (mut config, topology) = prepared(topologies::small());
    read_ahead(&mut config, &topology, 1);
    let function = topology.functions()[0].sbdf;
    config
        .access_mut()
        .write(function, ConfigOffset::new(0x3c), Width::Byte, 1);
    assert!(config.access().discarded() > 0);
    let before = config.access().access().log().reads();
    capture(&mut config, &topology);
    assert!(config.access().access().log().reads() > before);
}
