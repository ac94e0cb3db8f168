//! Capture by several cores against capture by one.

use std::sync::Mutex;
use std::thread;

use warmbus_boot::measured_access::MeasuredAccess;
use warmbus_boot::parallel::Cores;
use warmbus_boot::pipeline::{Captured, Pipeline, Prepared};
use warmbus_boot::recorder::Recorder;
use warmbus_pci::{
    AccessFault, ConfigAccess, ConfigOffset, ConfigRead, PrefetchedAccess, ReadBatches, ReadResult,
    Sbdf, Width, group_reads_by_root_port,
};
use warmbus_pcie_sim::{Fabric, topologies};
use warmbus_pcsc::ConfigCache;

type Hardware = MeasuredAccess<Fabric>;

/// Threads that stand for the cores of a machine.
struct Threads {
    count: usize,
    /// Cores that worked, and their reads.
    worked: Vec<(usize, usize)>,
    /// The read that ends in a fault, if it is one of them.
    bad: Option<ConfigRead>,
}

impl Threads {
    fn new(count: usize) -> Self {
        Self {
            count,
            worked: Vec::new(),
            bad: None,
        }
    }
}

impl Cores<Fabric> for &mut Threads {
    fn available(&self) -> usize {
        self.count
    }

    fn can_share(&self, _: &Fabric, _: ConfigRead) -> bool {
        true
    }

    fn work(&mut self, fabric: &mut Fabric, batches: &ReadBatches, helpers: usize) -> usize {
        let bad = self.bad;
        let fabric = Mutex::new(fabric);
        let work = || {
            batches.work(|read| {
                thread::yield_now();
                let mut fabric = fabric.lock().expect("no thread panics");
                let value = fabric.read(read.function, read.offset, read.width);
                match fabric.take_fault() {
                    None if bad != Some(read) => ReadResult::Value(value),
                    _ => ReadResult::Fault,
                }
            });
        };
        thread::scope(|scope| {
            for _ in 0..helpers {
                scope.spawn(work);
            }
            work();
        });
        self.worked.push((helpers + 1, batches.reads()));
        helpers + 1
    }
}

/// Everything up to the capture.
fn prepared(fabric: Fabric) -> Prepared<Hardware> {
    let hosts = fabric.host_bridges();
    let mut clock = fabric.clock();
    let access = MeasuredAccess::new(fabric, ());
    Pipeline::default().prepare(&hosts, access, &mut clock, &mut ())
}

/// Boots `fabric` with `threads`, and as many as the command line asks for.
fn boot(
    fabric: Fabric,
    threads: &mut Threads,
    requested: Option<usize>,
) -> (Captured<Hardware>, Recorder<()>) {
    let hosts = fabric.host_bridges();
    let mut clock = fabric.clock();
    let mut recorder = Recorder::new((), threads, requested);
    let access = MeasuredAccess::new(fabric, ());
    let captured = Pipeline::default().run(&hosts, access, &mut clock, &mut recorder);
    let mut without = Recorder::new((), (), None);
    (without.accesses, without.cache) = (recorder.accesses, recorder.cache);
    (captured, without)
}

/// All that is cached, as bytes.
fn contents(config: &ConfigCache<Hardware>) -> Vec<(Sbdf, Vec<u8>, Vec<u8>)> {
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
        let (alone, of_one) = boot(fabric.clone(), &mut Threads::new(1), None);
        for cores in [2, 7] {
            let mut threads = Threads::new(cores);
            let (captured, of_many) = boot(fabric.clone(), &mut threads, Some(cores));
            let functions = captured.topology.functions().len();
            let [(worked, reads)] = threads.worked[..] else {
                panic!("{:?}", threads.worked);
            };
            assert!(worked > 1 && worked <= cores, "{worked} of {cores}");
            assert!(reads > functions, "{reads} reads made ahead");
            assert_eq!(contents(&captured.config), contents(&alone.config));
            assert_eq!(captured.topology, alone.topology);
            assert_eq!(captured.config.statistics(), alone.config.statistics());
            assert_eq!(of_many.accesses, of_one.accesses);
            assert_eq!(of_many.cache, of_one.cache);
            let log = captured.config.access().hardware().log();
            assert_eq!(log.reads(), of_many.accesses.reads);
            assert_eq!(log.reads(), alone.config.access().hardware().log().reads());
            assert_eq!(log.violations(), []);
        }
    }
}

#[test]
fn one_core_works_alone_where_others_are_not_worth_their_start() {
    // What nothing takes any time for is not worth it, and one core is enough
    // where the command line says so.
    for (count, requested) in [(8, None), (8, Some(1)), (1, Some(8))] {
        let mut threads = Threads::new(count);
        boot(topologies::switch(), &mut threads, requested);
        assert_eq!(threads.worked, [], "{requested:?} of {count}");
    }
}

#[test]
fn a_function_whose_read_fails_on_another_core_is_reported_and_captured() {
    let Prepared {
        topology, config, ..
    } = prepared(topologies::small());
    let mut functions = topology.functions().iter();
    let bad = functions
        .find_map(|function| config.missing_reads(function.sbdf).get(1).copied())
        .expect("something is missing");
    let mut threads = Threads::new(2);
    threads.bad = Some(bad);
    let (captured, _) = boot(topologies::small(), &mut threads, Some(2));
    assert_eq!(threads.worked.len(), 1);
    let mut functions = captured.topology.functions().iter();
    let function = functions.find(|function| function.sbdf == bad.function);
    let anomalies = &function.expect("it is there").anomalies;
    let fault = format!("access to offset {} ended in an external abort", bad.offset);
    let anomalies: Vec<_> = anomalies.iter().map(ToString::to_string).collect();
    assert!(
        anomalies.iter().any(|text| text.contains(&fault)),
        "{anomalies:?}"
    );
}

#[test]
fn functions_behind_one_root_port_are_read_by_one_core() {
    let Prepared {
        topology, config, ..
    } = prepared(topologies::switch());
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
    let Prepared {
        topology, config, ..
    } = prepared(topologies::small());
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
    let fabric = Mutex::new(config.access().hardware().clone());
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

    let mut ahead = PrefetchedAccess::new(config.access().hardware().clone());
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
    // What the other core skipped is read now.
    let before = ahead.access().log().reads();
    let rest = missing[2];
    ahead.read(rest.function, rest.offset, rest.width);
    assert_eq!(ahead.access().log().reads(), before + 1);
}

#[test]
fn a_write_discards_what_was_read_ahead() {
    let Prepared {
        topology, config, ..
    } = prepared(topologies::small());
    let queue = ReadBatches::new(group_reads_by_root_port(&topology, |function| {
        config.missing_reads(function)
    }));
    queue.work(|_| ReadResult::Value(0));
    let reads = queue.reads() as u64;
    let mut access = config.access().hardware().clone();
    access.log_mut().clear();
    let mut ahead = MeasuredAccess::new(access, ());
    ahead.load_prefetched(queue.into_results(), 0);
    let missing = config.missing_reads(topology.functions()[0].sbdf)[0];
    ahead.write(
        missing.function,
        ConfigOffset::wrapping(0x3c),
        Width::Byte,
        1,
    );
    assert_eq!(ahead.counts().reads, reads);
    ahead.read(missing.function, missing.offset, missing.width);
    assert_eq!(ahead.counts().reads, reads + 1);
    assert_eq!(ahead.hardware().log().reads(), 1);
}
