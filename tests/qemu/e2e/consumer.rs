//! Linux with our patches: how much of its reads still comes to the hardware,
//! by QEMU's trace, and whether what it serves instead is true, by the hardware
//! itself.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use warmbus_boot::report::console::Outcome;
use warmbus_cli::trace::{Counts, counts};
use warmbus_qemu_tests::boot::{Lab, TOPOLOGIES};
use warmbus_qemu_tests::consumer;
use warmbus_qemu_tests::linux::{self, LinuxBoot, payload};
use xtask::paths;

/// What a boot does that is counted. What it compares stands between marks.
const COUNTED: &str = "summary,mark:1,compare,mark:2,cache";

/// Linux did all it was asked to, and the firmware before it, if there was one.
pub(crate) fn ended_well(linux: &LinuxBoot) {
    let console = linux.boot.console.join("\n");
    assert!(linux.done && linux.powered_off, "{console}");
    assert!(
        matches!(linux.boot.outcome, None | Some(Outcome::Ok)),
        "{console}"
    );
    for trouble in ["no step is called", "linux: tool:"] {
        assert!(!console.contains(trouble), "{trouble} in {console}");
    }
}

/// What the firmware handed over is in use: all functions that it found, and the
/// virtual functions that they may have.
pub(crate) fn everything_was_restored(linux: &LinuxBoot) {
    let report = linux.boot.report();
    let functions = report["functions"].as_array().expect("functions");
    let counters = &consumer::counters(linux)[0];
    let log = consumer::log(linux);
    assert!(
        counters["restored"] >= functions.len() as u64,
        "{counters:?}, {log:?}"
    );
    assert_eq!(counters["rejected"], 0, "{log:?}");
}

/// `part` of `whole` in percent.
#[expect(clippy::cast_precision_loss, reason = "the counts are small")]
pub(crate) fn percent(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64 * 100.0
}

/// Accesses of one topology.
#[derive(Clone, Copy, Debug)]
struct Measured {
    /// Of a stock kernel, booted cold.
    stock: Counts,
    /// Of the firmware.
    firmware: Counts,
    /// Of our kernel, booted cold: what series A saves without a cache.
    alone: Counts,
    /// Of our kernel after it.
    warm: Counts,
}

fn measure(topology: &str) -> Measured {
    let lab = Lab::new();
    let stock = lab
        .boot_linux_alone(topology, linux::kernel(), "summary")
        .expect("it boots");
    ended_well(&stock);

    let alone = lab
        .boot_linux_alone(topology, consumer::kernel(), "summary")
        .expect("it boots");
    ended_well(&alone);

    let machine = lab
        .machine(topology)
        .payload(payload(consumer::kernel(), COUNTED));
    let ours = lab.boot_linux(machine.trace()).expect("it boots");
    ended_well(&ours);
    everything_was_restored(&ours);
    consumer::matches_hardware(&ours, 1);

    let all = counts(&ours.boot.accesses());
    let own = counts(&ours.accesses());
    let measured = Measured {
        stock: counts(&stock.boot.accesses()),
        firmware: Counts {
            reads: all.reads - own.reads,
            writes: all.writes - own.writes,
        },
        alone: counts(&alone.boot.accesses()),
        warm: consumer::without(&ours.accesses(), 1, 2),
    };
    println!(
        "{topology}: {measured:?}: {:.1} % of the reads, {:.1} % without a cache, with the \
         firmware {:.1} % of the accesses",
        percent(measured.warm.reads, measured.stock.reads),
        percent(measured.alone.reads, measured.stock.reads),
        percent(
            measured.firmware.total() + measured.warm.total(),
            measured.stock.total()
        )
    );
    measured
}

/// The counts of a topology, taken when they are first asked for.
fn measured(topology: &str) -> Measured {
    static DONE: [OnceLock<Measured>; TOPOLOGIES.len()] =
        [const { OnceLock::new() }; TOPOLOGIES.len()];
    let index = TOPOLOGIES.iter().position(|known| *known == topology);
    *DONE[index.expect("the topology is one of the board")].get_or_init(|| measure(topology))
}

/// What `docs/linux-consumer.md` says of a topology: the reads of the stock
/// kernel, of ours without the firmware and of ours after it.
fn documented(topology: &str) -> [u64; 3] {
    let page = fs::read_to_string(paths::root().join("docs/linux-consumer.md")).unwrap();
    let row = page
        .lines()
        .find_map(|line| line.strip_prefix(&format!("| {topology} | ")))
        .expect("the page has a row for each topology");
    let cells: Vec<u64> = row
        .split('|')
        .filter_map(|cell| {
            let number = cell.split_whitespace().next()?;
            number.replace(',', "").parse().ok()
        })
        .collect();
    // Shares are no whole numbers.
    cells[..3].try_into().expect("three counts")
}

/// The page says what QEMU counts, to within the reads of links and slots that
/// are asked for until they are ready.
fn page_is_true(topology: &str) {
    let measured = measured(topology);
    let documented = documented(topology);
    let counted = [measured.stock, measured.alone, measured.warm].map(|counts| counts.reads);
    for (said, counted) in documented.into_iter().zip(counted) {
        assert!(
            said.abs_diff(counted) <= said / 50 + 2,
            "{topology}: the page says {documented:?} reads, QEMU counts {measured:?}"
        );
    }
}

/// One module of the same tests for each topology, so that each has a name.
macro_rules! on {
    ($topology:ident, $alone:expr, $most:expr) => {
        mod $topology {
            use super::*;

            #[test]
            fn few_reads_of_linux_come_to_the_hardware_and_what_it_serves_is_true() {
                let measured = measured(stringify!($topology));
                let share = percent(measured.warm.reads, measured.stock.reads);
                assert!(share <= $most, "{share:.1} % of {measured:?}");
            }

            #[test]
            fn fewer_reads_are_made_without_a_cache_and_no_more_writes() {
                let measured = measured(stringify!($topology));
                let share = percent(measured.alone.reads, measured.stock.reads);
                assert!(share <= $alone, "{share:.1} % of {measured:?}");
                assert!(measured.alone.writes <= measured.stock.writes);
                assert!(measured.warm.writes <= measured.stock.writes);
            }

            #[test]
            fn the_page_has_the_reads_that_qemu_counts() {
                page_is_true(stringify!($topology));
            }
        }
    };
}

on!(small, 58.0, 24.0);
on!(switch, 62.0, 27.0);
on!(fan, 57.0, 28.0);
on!(sriov, 60.0, 20.0);

#[test]
fn firmware_and_linux_together_make_few_accesses() {
    for (topology, most) in [("switch", 54.0), ("fan", 51.0)] {
        let measured = measured(topology);
        let both = measured.firmware.total() + measured.warm.total();
        let share = percent(both, measured.stock.total());
        assert!(share <= most, "{topology}: {share:.1} % of {measured:?}");
    }
}

#[test]
fn unit_tests_of_the_series_pass() {
    let lab = Lab::new();
    let mut payload = payload(consumer::kernel(), "log");
    payload.bootargs += " kunit.enable=1";
    let linux = lab
        .boot_linux(lab.machine("small").payload(payload))
        .expect("it boots");
    ended_well(&linux);
    unit_tests_passed(&linux);
}

/// Linux, which `kunit.enable=1` was given to, ran all unit tests of the patches.
pub(crate) fn unit_tests_passed(linux: &LinuxBoot) {
    let log = linux.kernel_log();
    // Of each case of the patches the kernel says that it passed.
    let mut cases = 0;
    for patch in fs::read_dir(paths::root().join("linux/patches")).unwrap() {
        let patch = fs::read_to_string(patch.unwrap().path()).unwrap();
        for line in patch.lines() {
            let Some(case) = line.strip_prefix("+\tKUNIT_CASE(") else {
                continue;
            };
            let case = case.trim_end_matches("),");
            let passed = |line: &str| line.contains("    ok ") && line.ends_with(case);
            assert!(log.lines().any(passed), "{case}: {log}");
            cases += 1;
        }
    }
    assert!(cases >= 16 && !log.contains("not ok "), "{log}");
}

/// KiB of memory that a Linux has which does `cache`.
fn memory(topology: &str, mode: &str, firmware: &str) -> [u64; 2] {
    let lab = Lab::new();
    let mut payload = payload(consumer::kernel(), "cache");
    payload.bootargs.extend([" pcsc=", mode]);
    let machine = lab.machine(topology).bootargs(firmware).payload(payload);
    let linux = lab.boot_linux(machine).expect("it boots");
    ended_well(&linux);
    let counters = &consumer::counters(&linux)[0];
    ["MemTotal", "Slab"].map(|name| counters[name])
}

#[test]
fn what_is_not_used_is_freed_and_a_function_takes_little() {
    let [small, _] = memory("small", "off", consumer::IN_EACH_MODE);
    let [fan, slab] = memory("fan", "off", consumer::IN_EACH_MODE);
    let [without, _] = memory("fan", "on", "warmbus.kho=off");
    let [unused, _] = memory("fan", "off", "");
    let [_, used] = memory("fan", "on", "");
    println!("MemTotal {small}, {fan} KiB, {without} without a handover; slab {slab}, {used}");
    // Where Linux is to use nothing, there is none.
    assert_eq!(unused, without);
    // Blocks of 65 functions take no more than those of 9: Kexec HandOver keeps
    // the same few pages of its own, whatever is handed over.
    assert_eq!(small, fan);
    assert!(without - fan <= 16);
    let each = used.saturating_sub(slab) * 1024 / 65;
    // Other slabs differ by some pages from boot to boot.
    assert!(each <= 12 << 10, "{each} bytes of each function");
}

/// The time of the set-up of all functions of `fan`, in microseconds of 500
/// instructions each.
fn set_up(kernel: &Path, words: &str) -> f64 {
    let lab = Lab::new();
    let mut payload = payload(kernel, "log");
    payload.bootargs.extend([" initcall_debug ", words]);
    let machine = lab.machine("fan").instruction_time(1);
    let machine = machine.bootargs(consumer::IN_EACH_MODE).payload(payload);
    let linux = lab.boot_linux(machine).expect("it boots");
    ended_well(&linux);
    let log = linux.kernel_log().lines();
    let mut done = log.filter_map(|line| {
        line.split_once("initcall gen_pci_driver_init")?
            .1
            .split_once("after ")
    });
    let (_, time) = done.next().expect("the host bridge was probed");
    time.split(' ')
        .next()
        .and_then(|time| time.parse().ok())
        .expect("a time")
}

#[test]
fn setting_functions_up_takes_few_more_instructions() {
    let stock = set_up(linux::kernel(), "");
    for (words, most) in [("pcsc=on", 1.08), ("pcsc=off", 1.01)] {
        let ours = set_up(consumer::kernel(), words);
        println!("{words}: {ours} us, stock {stock} us");
        assert!(ours <= stock * most, "{words}: {ours} us, stock {stock} us");
    }
}
