//! Times as tables: the generated part of `docs/benchmark.md`.

use super::table::{Table, or_dash, thousands};
use super::time::{Counted, Peer, SLOW_ACCESS, SLOW_INSTRUCTION, Timed, Times, Work};

/// Picoseconds that an instruction is taken to last: on a small core, and on a
/// fast one.
pub(super) const INSTRUCTION: [u64; 2] = [2000, 500];
/// Microseconds that an access is taken to last beyond its instruction.
const LATENCIES: [u64; 4] = [0, 1, 5, 17];
/// Nanoseconds of a byte at 115,200 baud, ten bits.
const BYTE: u64 = 86_806;
/// Begin and end of the generated part of the page.
const MARKS: [&str; 2] = [
    "<!-- time: written by `cargo xtask bench --time` -->\n",
    "<!-- time: end -->\n",
];

/// Every table with its heading, in order.
fn tables(times: &Times) -> Vec<(String, Table)> {
    let mut all = vec![(
        "Instructions and accesses to the first process".into(),
        work(times),
    )];
    for picoseconds in INSTRUCTION {
        let nanoseconds = nanoseconds(picoseconds);
        all.push((
            format!("Milliseconds at {nanoseconds} ns an instruction, by the latency of an access"),
            milliseconds(times, picoseconds),
        ));
    }
    all.push((
        "Latency from which on Warmbus and Linux take less time".into(),
        break_even(times),
    ));
    all.push((
        "Milliseconds until a host has all virtual functions, at 17 us an access".into(),
        hosts(times),
    ));
    all.push((
        "Milliseconds until a host has so many virtual functions, at 17 us an access".into(),
        more_functions(times),
    ));
    all.push((
        "Milliseconds of the start of a virtual machine, without its waits".into(),
        virtual_machines(times),
    ));
    all.push((
        "Milliseconds of boots with accesses of 17 us, calculated and timed".into(),
        timed(times),
    ));
    all
}

fn nanoseconds(picoseconds: u64) -> String {
    let text = format!("{}.{}", picoseconds / 1000, picoseconds % 1000 / 100);
    text.trim_end_matches(".0").to_owned()
}

/// The names of the machines: those that begin with a number behind the others, by it.
fn machines(times: &Times) -> Vec<&str> {
    let mut names: Vec<_> = times.topologies.keys().map(String::as_str).collect();
    let number = |name: &str| name.split(' ').next()?.parse::<u64>().ok();
    names.sort_by_key(|name| number(name));
    names
}

fn boots(times: &Times) -> impl Iterator<Item = (&str, Peer, &Timed)> {
    machines(times).into_iter().flat_map(|name| {
        let boots = times.topologies[name].iter();
        boots.map(move |(peer, timed)| (name, *peer, timed))
    })
}

fn name(topology: &str, peer: Peer) -> String {
    format!("{topology}: {}", peer.title())
}

fn work(times: &Times) -> Table {
    let mut table = Table::new(&[
        "boot",
        "firmware",
        "accesses",
        "PCI set-up",
        "accesses",
        "to init",
        "accesses",
        "console bytes",
        "at 115,200 baud",
    ]);
    for (topology, peer, timed) in boots(times) {
        let firmware = timed.firmware;
        let number = |number: Option<u64>| or_dash(number, thousands);
        table.row([
            name(topology, peer),
            number(firmware.map(|firmware| firmware.work.instructions)),
            number(firmware.map(|firmware| firmware.work.accesses)),
            thousands(timed.pci.instructions),
            thousands(timed.pci.accesses),
            thousands(timed.init.instructions),
            thousands(timed.init.accesses),
            number(firmware.map(|firmware| firmware.console_bytes)),
            or_dash(firmware, |firmware| {
                tenths(firmware.console_bytes * BYTE / 1000) + " ms"
            }),
        ]);
    }
    table
}

/// Microseconds as milliseconds with one digit.
fn tenths(microseconds: u64) -> String {
    let tenths = (microseconds + 50) / 100;
    format!("{}.{}", thousands(tenths / 10), tenths % 10)
}

fn milliseconds(times: &Times, picoseconds: u64) -> Table {
    let latencies = LATENCIES.map(|latency| format!("{latency} us"));
    let [none, one, five, most] = latencies.each_ref().map(String::as_str);
    let mut table = Table::new(&["boot", none, one, five, most]);
    for (topology, peer, timed) in boots(times) {
        let [none, one, five, most] =
            LATENCIES.map(|latency| tenths(timed.total().microseconds(picoseconds, latency)));
        table.row([name(topology, peer), none, one, five, most]);
    }
    table
}

/// What it takes to create all virtual functions, and until they are there.
fn hosts(times: &Times) -> Table {
    let mut table = Table::new(&[
        "boot",
        "VFs: instructions",
        "accesses",
        "all at 2 ns an instruction",
        "of stock",
        "all at 0.5 ns an instruction",
        "of stock",
    ]);
    for (topology, peer, timed) in boots(times) {
        let Some(vfs) = timed.vfs else {
            continue;
        };
        let stock = if peer.is_kexec() {
            Peer::KexecLinuxStock
        } else {
            Peer::LinuxStock
        };
        let stock = times.get(topology, stock).map(Timed::total);
        let vfs = vfs.work;
        let [slow, fast] = INSTRUCTION.map(|picoseconds| {
            let microseconds = |work: Work| work.microseconds(picoseconds, LATENCIES[3]);
            let all = microseconds(timed.total());
            [tenths(all), share(all, stock.map(microseconds))]
        });
        let [all_slow, share_slow] = slow;
        let [all_fast, share_fast] = fast;
        table.row([
            name(topology, peer),
            thousands(vfs.instructions),
            thousands(vfs.accesses),
            all_slow,
            share_slow,
            all_fast,
            share_fast,
        ]);
    }
    table
}

/// `part` of `all` in percent.
fn share(part: u64, all: Option<u64>) -> String {
    let share = all.map(|all| part * 1000 / all.max(1));
    or_dash(share, |share| format!("{}.{} %", share / 10, share % 10))
}

/// What a host takes for other numbers of virtual functions, of which each takes as much
/// as one of those that were created.
fn more_functions(times: &Times) -> Table {
    const COUNTS: [u64; 4] = [100, 250, 1000, 2500];
    let names = COUNTS.map(|count| format!("{} VFs", thousands(count)));
    let [few, some, many, most] = names.each_ref().map(String::as_str);
    let mut table = Table::new(&["boot", few, some, many, most]);
    for (topology, peer, timed) in boots(times) {
        let Some(vfs) = timed.vfs else {
            continue;
        };
        let [few, some, many, most] = COUNTS.map(|count| {
            let part = |all: u64| all * count / vfs.count.max(1);
            let work = Work {
                instructions: part(vfs.work.instructions),
                accesses: part(vfs.work.accesses),
            };
            let before = Timed {
                vfs: None,
                ..*timed
            }
            .total();
            let all = before.and(work);
            tenths(all.microseconds(INSTRUCTION[0], LATENCIES[3]))
        });
        table.row([name(topology, peer), few, some, many, most]);
    }
    table
}

/// What one of the virtual machines takes.
fn virtual_machines(times: &Times) -> Table {
    let mut table = Table::new(&[
        "function and Linux",
        "instructions",
        "accesses",
        "1 us",
        "of stock",
        "17 us",
        "of stock",
    ]);
    for (topology, starts) in &times.machines {
        let one = |counted: &Counted| Work {
            instructions: counted.work.instructions / counted.count.max(1),
            accesses: counted.work.accesses / counted.count.max(1),
        };
        let stock = starts.get(&Peer::LinuxStock).map(one);
        for (&peer, counted) in starts {
            let work = one(counted);
            let [low, high] = [LATENCIES[1], LATENCIES[3]].map(|latency| {
                let microseconds = |work: Work| work.microseconds(INSTRUCTION[0], latency);
                let all = microseconds(work);
                let text = format!("{}.{:02}", all / 1000, all % 1000 / 10);
                [text, share(all, stock.map(microseconds))]
            });
            let ([low, share_low], [high, share_high]) = (low, high);
            table.row([
                name(topology, peer),
                thousands(work.instructions),
                thousands(work.accesses),
                low,
                share_low,
                high,
                share_high,
            ]);
        }
    }
    table
}

/// What was calculated against what the clock of the guest had.
fn timed(times: &Times) -> Table {
    let mut table = Table::new(&["boot", "calculated", "timed", "difference"]);
    for (topology, peer, boot) in boots(times) {
        let Some(nanoseconds) = boot.slow else {
            continue;
        };
        let calculated = boot.total().microseconds(SLOW_INSTRUCTION, SLOW_ACCESS);
        let taken = nanoseconds / 1000;
        let difference = taken.abs_diff(calculated) * 10_000 / calculated.max(1);
        let sign = if taken < calculated { "-" } else { "" };
        table.row([
            name(topology, peer),
            tenths(calculated),
            tenths(taken),
            format!("{sign}{}.{:02} %", difference / 100, difference % 100),
        ]);
    }
    table
}

fn break_even(times: &Times) -> Table {
    let mut table = Table::new(&[
        "against",
        "at 2 ns an instruction",
        "at 0.5 ns an instruction",
    ]);
    let pairs = [
        (Peer::WarmbusLinux, Peer::LinuxStock),
        (Peer::WarmbusLinux, Peer::UBootLinuxStock),
        (Peer::WarmbusLinux, Peer::LinuxCold),
        (Peer::LinuxCold, Peer::LinuxStock),
        (Peer::Edk2WarmbusLinux, Peer::Edk2LinuxStock),
        (Peer::Edk2WarmbusLinux, Peer::Edk2LinuxCold),
        (Peer::KexecLinux, Peer::KexecLinuxStock),
    ];
    for topology in machines(times) {
        for (with, without) in pairs {
            let (Some(a), Some(b)) = (times.get(topology, with), times.get(topology, without))
            else {
                continue;
            };
            let [slow, fast] =
                INSTRUCTION.map(
                    |picoseconds| match a.total().break_even(b.total(), picoseconds) {
                        None => "never".to_owned(),
                        Some(0) => "always".to_owned(),
                        Some(nanoseconds) => {
                            format!("{}.{:02} us", nanoseconds / 1000, nanoseconds % 1000 / 10)
                        }
                    },
                );
            let both = format!("{topology}: {} against {}", with.title(), without.title());
            table.row([both, slow, fast]);
        }
    }
    table
}

/// All of it for a terminal.
#[must_use]
pub(super) fn text(times: &Times) -> String {
    let parts = tables(times).into_iter();
    let parts = parts.map(|(title, table)| format!("{title}\n\n{}", table.text()));
    parts.collect::<Vec<_>>().join("\n")
}

/// `page` with its part generated from `times`; `None` if it has no marks.
#[must_use]
pub(super) fn page(page: &str, times: &Times) -> Option<String> {
    let [begin, end] = MARKS;
    let (before, rest) = page.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    let parts = tables(times).into_iter();
    let parts = parts.map(|(title, table)| format!("### {title}\n\n{}\n", table.markdown()));
    let parts: String = parts.collect();
    Some(format!("{before}{begin}\n{parts}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::time::{Firmware, SCHEMA};
    use std::collections::BTreeMap;

    fn sample() -> Times {
        let work = |instructions, accesses| Work {
            instructions,
            accesses,
        };
        let stock = Timed {
            firmware: None,
            pci: work(1_000_000, 1000),
            init: work(2_000_000, 0),
            vfs: Some(Counted {
                count: 10,
                work: work(500_000, 1000),
            }),
            slow: None,
        };
        let warmbus = Timed {
            firmware: Some(Firmware {
                work: work(1_500_000, 100),
                console_bytes: 1000,
            }),
            pci: work(500_000, 400),
            ..stock
        };
        let boots = |stock: Timed, warmbus: Timed| {
            BTreeMap::from([(Peer::LinuxStock, stock), (Peer::WarmbusLinux, warmbus)])
        };
        let host = boots(stock, warmbus);
        let [stock, warmbus] = [stock, warmbus].map(|timed| Timed { vfs: None, ..timed });
        let stock = Timed {
            slow: Some(23_100_000),
            ..stock
        };
        let two = |work| Counted { count: 2, work };
        let starts = BTreeMap::from([
            (Peer::LinuxStock, two(work(2_000_000, 400))),
            (Peer::WarmbusLinux, two(work(1_800_000, 200))),
        ]);
        Times {
            schema: SCHEMA.into(),
            topologies: BTreeMap::from([
                ("small".to_owned(), boots(stock, warmbus)),
                ("sriov-host".to_owned(), host),
            ]),
            machines: BTreeMap::from([("fan".to_owned(), starts)]),
        }
    }

    #[test]
    fn times_and_break_even_follow_from_the_integers() {
        let text = text(&sample());
        let has = |start: &str, cells: &[&str]| {
            let lines = text.lines().filter(|line| line.starts_with(start));
            let all: Vec<_> = lines
                .map(|line| {
                    line.trim_start_matches(start)
                        .split_whitespace()
                        .collect::<Vec<_>>()
                })
                .collect();
            assert!(all.iter().any(|found| found == cells), "{start}: {all:?}");
        };
        // 3 million instructions and 1,000 accesses; 4 million and 500.
        has("small: Linux, stock ", &["6.0", "7.0", "11.0", "23.0"]);
        has("small: Warmbus + Linux ", &["8.0", "8.5", "10.5", "16.5"]);
        has("small: Warmbus + Linux ", &["2.0", "2.5", "4.5", "10.5"]);
        has(
            "small: Warmbus + Linux against Linux, stock ",
            &["4.00", "us", "1.00", "us"],
        );
        assert!(text.contains("86.8 ms"), "{text}");
        // 3.5 million instructions and 2,000 accesses; 4.5 million and 1,500.
        has(
            "sriov-host: Linux, stock ",
            &[
                "500,000", "1,000", "41.0", "100.0", "%", "35.8", "100.0", "%",
            ],
        );
        has(
            "sriov-host: Warmbus + Linux ",
            &["500,000", "1,000", "34.5", "84.1", "%", "27.8", "77.6", "%"],
        );
        // Ten times, 25, 100 and 250 times as much for the functions.
        has(
            "sriov-host: Linux, stock ",
            &["203.0", "473.0", "1,823.0", "4,523.0"],
        );
        // A million instructions and 200 accesses; 900,000 and 100.
        has(
            "fan: Linux, stock ",
            &[
                "1,000,000",
                "200",
                "2.20",
                "100.0",
                "%",
                "5.40",
                "100.0",
                "%",
            ],
        );
        has(
            "fan: Warmbus + Linux ",
            &["900,000", "100", "1.90", "86.3", "%", "3.50", "64.8", "%"],
        );
        has("small: Linux, stock ", &["23.0", "23.1", "0.43", "%"]);
    }

    #[test]
    fn only_the_marked_part_of_the_page_changes() {
        let [begin, end] = MARKS;
        let old = format!("# A\n\n{begin}old\n{end}\nb\n");
        let new = page(&old, &sample()).unwrap();
        assert!(new.starts_with("# A\n\n") && new.ends_with("\nb\n") && !new.contains("old"));
        assert_eq!(page(&new, &sample()).unwrap(), new, "twice is once");
        assert_eq!(page("# A\n", &sample()), None);
    }
}
