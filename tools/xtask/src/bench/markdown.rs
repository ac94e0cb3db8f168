//! The results as text: tables for the terminal, a page of Markdown, and the
//! generated part of the README.

use std::time::Duration;

use super::board_reports::Board;
use super::contender::Contender;
use super::results::{Case, Results};
use super::table::{Table, or_dash, percent, thousands};

/// Microseconds that an access is taken to cost in projections: through PCIe
/// alone, and the most that was published, through a hypervisor.
pub(super) const PROJECTIONS: [u64; 2] = [1, 17];

/// Begin and end of the generated part of the README.
const MARKS: [&str; 2] = [
    "<!-- bench: written by `cargo xtask bench` -->\n",
    "<!-- bench: end -->\n",
];

/// Every table with its heading, in order.
fn tables(results: &Results) -> Vec<(String, Table)> {
    let mut all = Vec::new();
    for case in &results.topologies {
        all.push((title(case), contenders(case)));
    }
    all.push((
        "Firmware and Linux together, cold boot".into(),
        together(&results.topologies),
    ));
    all.push(("Cost against size".into(), sizes(&results.sizes)));
    all.push((
        "Starts of virtual machines".into(),
        virtual_machines(results),
    ));
    all.push(("Board reports".into(), boards(&results.boards)));
    all.retain(|(_, table)| !table.is_empty());
    all
}

fn title(case: &Case) -> String {
    match case.functions {
        Some(functions) => format!("{}: {functions} functions; {}", case.name, case.description),
        None => format!("{}: {}", case.name, case.description),
    }
}

/// The time that `accesses` take at `microseconds` each, as text.
fn projected(accesses: u64, microseconds: u64) -> String {
    let time = Duration::from_micros(accesses * microseconds);
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

fn contenders(case: &Case) -> Table {
    let mut table = Table::new(&[
        "contender",
        "reads",
        "writes",
        "absent",
        "of stock reads",
        "time to find all",
        "at 1 us",
        "at 17 us",
    ]);
    for row in &case.contenders {
        let [one, most] = PROJECTIONS.map(|time| projected(row.measure.total(), time));
        table.row([
            row.contender.title().to_owned(),
            thousands(row.measure.reads),
            thousands(row.measure.writes),
            thousands(row.measure.absent_probes),
            or_dash(case.share_of_stock(row), percent),
            or_dash(case.time_ratio(row), |ratio| format!("{ratio:.2}")),
            one,
            most,
        ]);
    }
    table
}

fn together(cases: &[Case]) -> Table {
    let mut table = Table::new(&[
        "topology",
        "stock Linux alone",
        "Warmbus and Linux",
        "share",
    ]);
    for case in cases {
        if let (Some((both, share)), Some(stock)) =
            (case.together(), case.measure(Contender::LinuxStock))
        {
            table.row([
                case.name.clone(),
                thousands(stock.total()),
                thousands(both),
                percent(share),
            ]);
        }
    }
    table
}

/// Reads and writes of each contender, per function.
fn sizes(cases: &[Case]) -> Table {
    let shown = [
        Contender::UBoot,
        Contender::Edk2,
        Contender::Warmbus,
        Contender::LinuxStock,
        Contender::LinuxAfterWarmbus,
    ];
    let heading = [
        "functions",
        "U-Boot",
        "EDK2",
        "Warmbus",
        "Linux, stock",
        "Linux, after Warmbus",
        "heap of Warmbus",
    ];
    let mut table = Table::new(&heading);
    for case in cases {
        let Some(functions) = case.functions.filter(|functions| *functions > 0) else {
            continue;
        };
        let each = |total: u64| format!("{} ({} each)", thousands(total), total / functions);
        let [u_boot, edk2, warmbus, stock, warm] = shown
            .map(|contender| or_dash(case.measure(contender), |measure| each(measure.total())));
        let heap = or_dash(case.heap_peak_bytes, |bytes| {
            format!(
                "{} KiB ({:.1} each)",
                thousands(bytes >> 10),
                super::results::ratio(bytes, functions << 10)
            )
        });
        table.row([
            thousands(functions),
            u_boot,
            edk2,
            warmbus,
            stock,
            warm,
            heap,
        ]);
    }
    table
}

fn virtual_machines(results: &Results) -> Table {
    let mut table = Table::new(&[
        "topology",
        "functions",
        "monitor reads",
        "stock: reads each",
        "with the cache: reads each",
        "of stock reads",
        "served by the cache",
    ]);
    for one in &results.virtual_machines {
        let each = |reads: u64| format!("{:.1}", super::results::ratio(reads, one.functions));
        table.row([
            one.name.clone(),
            one.functions.to_string(),
            one.monitor.clone(),
            each(one.stock.reads),
            each(one.cached.reads),
            percent(one.share_of_stock()),
            percent(one.served()),
        ]);
    }
    table
}

fn boards(boards: &[Board]) -> Table {
    let mut table = Table::new(&[
        "board",
        "functions",
        "reads",
        "writes",
        "absent",
        "an access",
        "of the time",
    ]);
    for board in boards {
        table.row([
            // The name comes from a report and must not end the cell.
            board.name.replace(['|', '\n'], " "),
            thousands(board.functions),
            thousands(board.reads),
            thousands(board.writes),
            thousands(board.absent_probes),
            format!("{:.2} us", board.microseconds_per_access()),
            percent(board.share_of_time()),
        ]);
    }
    table
}

/// All of it for a terminal.
#[must_use]
pub(super) fn text(results: &Results) -> String {
    let parts = tables(results).into_iter();
    let parts = parts.map(|(title, table)| format!("{title}\n\n{}", table.text()));
    parts.collect::<Vec<_>>().join("\n")
}

/// All of it as a page of its own, beside the plots.
#[must_use]
pub(super) fn markdown(results: &Results) -> String {
    let mut page = String::from(
        "# Benchmark\n\nWritten by `cargo xtask bench`. [docs/benchmark.md](../../docs/benchmark.md)\n\
         explains what is measured and how. All counts are those of QEMU's trace. Times\n\
         depend on the host that ran QEMU and are only an indication.\n\n\
         ![Accesses to configuration space by topology](topologies.svg)\n\n\
         ![Accesses to configuration space against the number of functions](sizes.svg)\n",
    );
    for (title, table) in tables(results) {
        page.extend(["\n## ", &title, "\n\n", &table.markdown()]);
    }
    page += "\n## Versions\n\n";
    let mut versions = Table::new(&["what", "version"]);
    for (name, version) in results.versions.rows() {
        versions.row([name.to_owned(), version.to_owned()]);
    }
    page + &versions.markdown()
}

/// The generated part of the README, between its marks.
fn essence(results: &Results) -> String {
    let mut table = Table::new(&[
        "topology",
        "functions",
        "U-Boot",
        "EDK2",
        "Warmbus",
        "Linux, stock",
        "Linux, after Warmbus",
        "Linux reads, share of stock",
        "Warmbus and Linux, share of stock",
    ]);
    for case in &results.topologies {
        let [u_boot, edk2, warmbus, stock, warm] = [
            Contender::UBoot,
            Contender::Edk2,
            Contender::Warmbus,
            Contender::LinuxStock,
            Contender::LinuxAfterWarmbus,
        ]
        .map(|contender| {
            or_dash(case.measure(contender), |measure| {
                thousands(measure.total())
            })
        });
        let row = case
            .contenders
            .iter()
            .find(|row| row.contender == Contender::LinuxAfterWarmbus);
        table.row([
            case.name.clone(),
            or_dash(case.functions, thousands),
            u_boot,
            edk2,
            warmbus,
            stock,
            warm,
            or_dash(row.and_then(|row| case.share_of_stock(row)), percent),
            or_dash(case.together(), |(_, share)| percent(share)),
        ]);
    }
    format!(
        "![Accesses to configuration space by topology](bench/results/topologies.svg)\n\n{}",
        table.markdown()
    )
}

/// `readme` with its part generated from `results`; `None` if it has no marks.
#[must_use]
pub(super) fn readme(readme: &str, results: &Results) -> Option<String> {
    let (before, rest) = readme.split_once(MARKS[0])?;
    let (_, after) = rest.split_once(MARKS[1])?;
    let [begin, end] = MARKS;
    Some(format!(
        "{before}{begin}\n{}\n{end}{after}",
        essence(results)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::sample;

    #[test]
    fn a_row_holds_what_was_counted_and_what_follows() {
        let text = text(&sample());
        let row = text
            .lines()
            .find(|line| line.starts_with("Linux, after Warmbus"))
            .unwrap();
        let cells: Vec<_> = row
            .split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .collect();
        assert_eq!(
            cells,
            [
                "Linux, after Warmbus",
                "199",
                "300",
                "31",
                "9.6%",
                "0.50",
                "0.5 ms",
                "8.5 ms"
            ]
        );
        assert!(text.contains("small"), "{text}");
        // 10% of 4000 reads of 12 functions.
        assert!(text.contains("33.3") && text.contains("90.0%"), "{text}");
    }

    #[test]
    fn what_was_not_measured_has_no_table() {
        let mut results = sample();
        results.sizes.clear();
        results.virtual_machines.clear();
        let text = text(&results);
        assert!(
            !text.contains("Cost against size") && !text.contains("virtual"),
            "{text}"
        );
    }

    #[test]
    fn only_the_marked_part_of_the_readme_changes() {
        let [begin, end] = MARKS;
        let page = format!("# A\n\n{begin}old\n{end}\nb\n");
        let new = readme(&page, &sample()).unwrap();
        assert!(new.starts_with("# A\n\n") && new.ends_with("\nb\n"));
        assert!(
            new.contains("| small | 9 | 954 |") && !new.contains("old"),
            "{new}"
        );
        assert_eq!(readme(&new, &sample()).unwrap(), new, "twice is once");
        assert_eq!(readme("# A\n", &sample()), None);
    }

    #[test]
    fn a_board_cannot_break_the_table() {
        let mut results = sample();
        results.boards.push(Board {
            name: "a|b\nc".into(),
            functions: 3,
            reads: 100,
            writes: 20,
            absent_probes: 4,
            config_ticks: 1200,
            ticks: 2400,
            timer_hz: 1_000_000,
        });
        let page = markdown(&results);
        assert!(
            page.contains("| a b c | 3 | 100 | 20 | 4 | 10.00 us | 50.0% |"),
            "{page}"
        );
    }
}
