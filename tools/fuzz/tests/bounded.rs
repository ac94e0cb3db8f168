//! Every target over its corpus, and over a bounded number of mutations of it.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::time::Duration;

use warmbus_fuzz::mutate::{Series, mutate};
use warmbus_fuzz::{TARGETS, Target, sound_handover};
use warmbus_pci::DumpedConfigSpace;
use warmbus_pcie_sim::proptest_config;

/// Mutations of each target in an ordinary run.
const USUAL: u32 = 500;

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(name);
    let mut files: Vec<_> = fs::read_dir(&directory)
        .expect("the target has a corpus")
        .map(|entry| entry.expect("it can be listed").path())
        .collect();
    files.sort();
    let mut inputs: Vec<_> = files
        .iter()
        .map(|file| fs::read(file).expect("it can be read"))
        .collect();
    match name {
        "handover" => inputs.extend(sound_handover().map(<[u8]>::to_vec)),
        "tree" => inputs.extend(given_trees()),
        "function" => inputs.extend(recorded()),
        _ => {}
    }
    inputs
}

/// The device trees in the folder that `WARMBUS_TREES` names, if there is one.
fn given_trees() -> Vec<Vec<u8>> {
    let Some(folder) = std::env::var_os("WARMBUS_TREES") else {
        return Vec::new();
    };
    let files = fs::read_dir(folder).expect("the folder can be listed");
    let files = files.map(|file| file.expect("it can be listed").path());
    let trees = files.filter(|file| file.extension().is_some_and(|end| end == "dtb"));
    trees
        .map(|file| fs::read(file).expect("it can be read"))
        .collect()
}

/// The configuration spaces of real functions.
fn recorded() -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus");
    let mut spaces = BTreeSet::new();
    for file in fs::read_dir(directory).expect("there are dumps") {
        let text = fs::read_to_string(file.expect("it can be listed").path());
        if let Ok(dump) = DumpedConfigSpace::parse(&text.expect("it can be read")) {
            let known = dump.functions().filter_map(|function| dump.bytes(function));
            spaces.extend(known.map(<[u8]>::to_vec));
        }
    }
    spaces.into_iter().collect()
}

/// The processor time that one input may take.
const LIMIT: Duration = Duration::from_secs(1);

/// The processor time of this thread, which others on the machine do not add to.
fn processor_time() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat");
    let text = text.expect("Linux counts the time of threads");
    let nanoseconds = text
        .split(' ')
        .next()
        .and_then(|number| number.parse().ok());
    Duration::from_nanos(nanoseconds.expect("the first number is that time"))
}

/// Gives `input` to `target`, and says what it was where that panics or takes too
/// long.
fn give(name: &str, target: Target, input: &[u8]) {
    let done = panic::catch_unwind(AssertUnwindSafe(|| {
        let start = processor_time();
        target(input);
        let time = processor_time().saturating_sub(start);
        // What is simulated, captured or written takes its time.
        assert!(name != "tree" || time < LIMIT, "{time:?}");
    }));
    if let Err(cause) = done {
        let file = std::env::temp_dir().join(format!("warmbus-fuzz-{name}"));
        // The input is what matters, and where it cannot be kept the panic is.
        let _ = fs::write(&file, input);
        eprintln!("the input is kept in {}", file.display());
        panic::resume_unwind(cause);
    }
}

fn run(name: &str) {
    let (_, target) = *TARGETS
        .iter()
        .find(|known| known.0 == name)
        .expect("it is a target");
    let inputs = corpus(name);
    assert!(!inputs.is_empty());
    for input in &inputs {
        give(name, target, input);
    }
    for case in proptest_config::cases(USUAL) {
        let mut series = Series::new(case);
        let mut input = inputs[series.below(inputs.len())].clone();
        let other = &inputs[series.below(inputs.len())];
        mutate(&mut input, other, &mut series);
        give(name, target, &input);
    }
}

#[test]
fn any_function_can_be_walked() {
    run("function");
}

#[test]
fn any_machine_can_be_scanned_and_handed_over() {
    run("machine");
}

#[test]
fn any_device_tree_can_be_read_and_edited() {
    run("tree");
}

#[test]
fn any_memory_can_be_checked_for_a_handover() {
    run("handover");
}

#[test]
fn any_file_can_be_shown() {
    run("report");
}

#[test]
fn the_corpus_is_small_and_belongs_to_targets() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let mut bytes = 0;
    for target in fs::read_dir(directory).expect("there is a corpus") {
        let target = target.expect("it can be listed");
        let name = target.file_name().into_string().expect("it is text");
        assert!(TARGETS.iter().any(|known| known.0 == name), "{name}");
        for file in fs::read_dir(target.path()).expect("it can be listed") {
            bytes += file
                .expect("it can be listed")
                .metadata()
                .expect("it is there")
                .len();
        }
    }
    assert!(bytes < 1 << 20, "{bytes} bytes");
}
