//! What Warmbus would save: the counts of the benchmark for each kind of
//! function, times what a read of each function takes here.

use std::collections::BTreeMap;

use serde_json::Value;

use super::counts::{BootCount, Counts, EventCount, Stage};
use super::kind::Kind;

/// The instructions of the firmware, by topology and phase.
const INSTRUCTIONS: &str = include_str!("../../../../bench/results/instructions.json");
/// Phases whose instructions depend on the kernel and not on functions.
const OF_THE_KERNEL: [&str; 2] = ["detect", "unpack"];

/// One function, as the forecast sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Item {
    /// Its kind.
    pub(super) kind: Kind,
    /// A driver is bound to it.
    pub(super) driver: bool,
    /// The VFs that it can have.
    pub(super) total_vfs: u64,
    /// Nanoseconds of a read.
    pub(super) nanoseconds: u64,
}

/// A time with its spread, in milliseconds. Less than 0 where something would
/// take longer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Span {
    /// With the counts of the function with the smallest ones.
    pub(super) low: f64,
    /// With the average counts.
    pub(super) middle: f64,
    /// With the counts of the function with the largest ones.
    pub(super) high: f64,
}

/// What would be saved.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Forecast {
    /// What a stock Linux spends in configuration accesses during a boot.
    pub(super) boot: Span,
    /// Saved of it after Warmbus, whose own accesses are subtracted.
    pub(super) boot_saved: Span,
    /// Saved of it by Linux with the series that was started by kexec.
    pub(super) kexec_saved: Span,
    /// Saved of one start of a virtual machine with one function; `None`
    /// without a function that could be assigned to one.
    pub(super) machine_saved: Option<Span>,
    /// Saved of the creation of one VF; `None` where there cannot be any.
    pub(super) vf_saved: Option<Span>,
    /// Instructions that Warmbus executes before Linux, whatever the kernel
    /// is.
    pub(super) instructions: u64,
}

/// Accesses of one stage to a function of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct PerFunction {
    least: f64,
    mean: f64,
    most: f64,
    /// For each VF that it can have.
    per_vf: f64,
}

/// The counts, by stage and kind.
struct Table<'a> {
    counts: &'a Counts,
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
const fn real(count: u64) -> f64 {
    count as f64
}

impl Table<'_> {
    /// The rows of `stage` for functions of `kind`, or of all kinds.
    fn rows(&self, stage: Stage, kind: Option<Kind>) -> Vec<&BootCount> {
        let rows = self.counts.boots.iter();
        rows.filter(|row| row.stage == stage && kind.is_none_or(|kind| row.kind == kind))
            .collect()
    }

    /// The accesses to a function like `item`; those of all kinds where the
    /// benchmark has none of its kind.
    fn per_function(&self, stage: Stage, item: &Item) -> PerFunction {
        // Without its VFs a physical function is as any other endpoint.
        let kind = match item.kind {
            Kind::PhysicalFunction => Kind::Endpoint,
            kind => kind,
        };
        let of_kind = self.rows(stage, Some(kind));
        let alike = of_kind.iter().filter(|row| row.driver == item.driver);
        let alike: Vec<&BootCount> = alike.copied().collect();
        let rows = [alike, of_kind, self.rows(stage, None)]
            .into_iter()
            .find(|rows| !rows.is_empty())
            .unwrap_or_default();
        let mut counts = PerFunction {
            least: rows
                .iter()
                .map(|row| real(row.least))
                .fold(f64::MAX, f64::min),
            mean: mean(&rows),
            most: rows.iter().map(|row| real(row.most)).fold(0.0, f64::max),
            per_vf: 0.0,
        };
        let physical = self.rows(stage, Some(Kind::PhysicalFunction));
        let vfs: u64 = physical.iter().map(|row| row.total_vfs).sum();
        let functions: u64 = physical.iter().map(|row| row.functions).sum();
        if item.kind == Kind::PhysicalFunction && vfs != 0 {
            let more = (mean(&physical) - counts.mean) * real(functions);
            counts.per_vf = (more / real(vfs)).max(0.0);
        }
        counts
    }

    fn accesses(&self, stage: Stage, item: &Item) -> [f64; 3] {
        let counts = self.per_function(stage, item);
        let of_vfs = counts.per_vf * real(item.total_vfs);
        [counts.least, counts.mean, counts.most].map(|count| count + of_vfs)
    }
}

/// Average accesses to a function.
fn mean(rows: &[&BootCount]) -> f64 {
    let functions: u64 = rows.iter().map(|row| row.functions).sum();
    let all: u64 = rows.iter().map(|row| row.all).sum();
    real(all) / real(functions.max(1))
}

impl Span {
    /// From accesses, with nanoseconds of each.
    fn of(accesses: [f64; 3], nanoseconds: u64) -> Self {
        let [one, middle, other] = accesses.map(|count| count * real(nanoseconds) / 1e6);
        // Where more accesses cost more than they save, most of them are least.
        Self {
            low: one.min(other),
            middle,
            high: one.max(other),
        }
    }

    fn add(&mut self, other: Self) {
        self.low += other.low;
        self.middle += other.middle;
        self.high += other.high;
    }

    /// `self` times `count`.
    #[must_use]
    pub(super) fn times(self, count: u64) -> Self {
        let [low, middle, high] = [self.low, self.middle, self.high].map(|one| one * real(count));
        Self { low, middle, high }
    }
}

impl Forecast {
    /// For the functions `items`, by `counts`.
    #[must_use]
    pub(super) fn of(items: &[Item], counts: &Counts) -> Self {
        let table = Table { counts };
        let (mut boot, mut boot_saved, mut kexec_saved) =
            (Span::default(), Span::default(), Span::default());
        // Many functions are alike.
        let mut alike: BTreeMap<Item, u64> = BTreeMap::new();
        // VFs appear when a driver asks for them, after the boot.
        for item in items
            .iter()
            .filter(|item| item.kind != Kind::VirtualFunction)
        {
            *alike.entry(*item).or_default() += 1;
        }
        for (item, count) in alike {
            let stock = table.accesses(Stage::LinuxStock, &item);
            let warmbus = table.accesses(Stage::Warmbus, &item);
            let after = table.accesses(Stage::LinuxAfterWarmbus, &item);
            let kexec = table.accesses(Stage::LinuxAfterKexec, &item);
            let saved = |later: f64| {
                // A function that costs more costs all of them more.
                let share = 1.0 - later / stock[1].max(1.0);
                stock.map(|count| count * share)
            };
            let span = |accesses| Span::of(accesses, item.nanoseconds).times(count);
            boot.add(span(stock));
            boot_saved.add(span(saved(warmbus[1] + after[1])));
            kexec_saved.add(span(saved(kexec[1])));
        }
        let assignable: Vec<Item> = items
            .iter()
            .filter(|item| {
                matches!(
                    item.kind,
                    Kind::Endpoint | Kind::PhysicalFunction | Kind::VirtualFunction
                )
            })
            .copied()
            .collect();
        let physical: Vec<Item> = items
            .iter()
            .filter(|item| item.total_vfs != 0)
            .copied()
            .collect();
        Self {
            boot,
            boot_saved,
            kexec_saved,
            machine_saved: event(&counts.virtual_machines, &assignable),
            vf_saved: event(&counts.created_vfs, &physical),
            instructions: instructions(items.len() as u64, counts),
        }
    }
}

/// What is saved of an event, for the average of `items`.
fn event(counts: &[EventCount], items: &[Item]) -> Option<Span> {
    let time: u64 = items.iter().map(|item| item.nanoseconds).sum();
    let time = time.checked_div(items.len() as u64)?;
    let saved = counts.iter().map(|count| {
        (real(count.stock) - real(count.after_warmbus)) / real(count.functions.max(1))
    });
    let saved: Vec<f64> = saved.collect();
    let (low, high) = (
        saved.iter().copied().reduce(f64::min)?,
        saved.iter().copied().reduce(f64::max)?,
    );
    let middle = saved.iter().sum::<f64>() / real(saved.len() as u64);
    Some(Span::of([low, middle, high], time))
}

/// Instructions of the firmware for `functions`, from the two topologies for
/// which they are published: they grow with the number of functions.
fn instructions(functions: u64, counts: &Counts) -> u64 {
    let Ok(published) = serde_json::from_str::<Value>(INSTRUCTIONS) else {
        return 0;
    };
    let sum = |topology: &str| -> u64 {
        let phases = published["topologies"][topology].as_object();
        let phases = phases.into_iter().flatten();
        phases
            .filter(|(name, _)| !OF_THE_KERNEL.contains(&name.as_str()))
            .filter_map(|(_, count)| count.as_u64())
            .sum()
    };
    let counted = |topology: &str| -> u64 {
        let rows = counts.boots.iter();
        let rows = rows.filter(|row| row.stage == Stage::Warmbus && row.topology == topology);
        rows.map(|row| row.functions).sum()
    };
    let (few, many) = (counted("small"), counted("fan"));
    let slope = sum("fan").saturating_sub(sum("small")) / many.saturating_sub(few).max(1);
    sum("small") + slope * functions.saturating_sub(few)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BENCH: &str = include_str!("../../../../bench/results/bench.json");

    fn counts() -> Counts {
        Counts::published().expect("the published counts are read")
    }

    /// The functions of a topology, with one microsecond for each access.
    fn items(counts: &Counts, topology: &str) -> Vec<Item> {
        let rows = counts.boots.iter();
        rows.filter(|row| row.stage == Stage::LinuxStock && row.topology == topology)
            .flat_map(|row| {
                let item = Item {
                    kind: row.kind,
                    driver: row.driver,
                    total_vfs: row.total_vfs / row.functions,
                    nanoseconds: 1000,
                };
                (0..row.functions).map(move |_| item)
            })
            .collect()
    }

    /// The forecast uses the averages of all topologies; the benchmark has
    /// counted each on its own, and all accesses together.
    #[test]
    fn boots_are_forecast_within_10_percent_of_what_the_benchmark_counted() {
        let counts = counts();
        let bench: Value = serde_json::from_str(BENCH).unwrap();
        for name in ["small", "switch", "fan", "sriov"] {
            let topologies = bench["topologies"].as_array().unwrap();
            let case = topologies.iter().find(|case| case["name"] == name).unwrap();
            let counted = |peer: &str| {
                let mut peers = case["peers"].as_array().unwrap().iter();
                let row = peers.find(|row| row["peer"] == peer).unwrap();
                let all = row["reads"].as_u64().unwrap() + row["writes"].as_u64().unwrap();
                real(all) / 1000.0
            };
            let stock = counted("linux-stock");
            let forecast = Forecast::of(&items(&counts, name), &counts);
            let near = |found: f64, expected: f64, by: f64| (found / expected - 1.0).abs() < by;
            assert!(
                near(forecast.boot.middle, stock, 0.1),
                "{name}: {forecast:?}, {stock}"
            );
            let saved = stock - counted("warmbus") - counted("linux-after-warmbus");
            assert!(
                near(forecast.boot_saved.middle, saved, 0.15),
                "{name}: {forecast:?}, {saved}"
            );
            let saved = stock - counted("linux-after-kexec");
            assert!(
                near(forecast.kexec_saved.middle, saved, 0.15),
                "{name}: {forecast:?}, {saved}"
            );
            for span in [forecast.boot, forecast.boot_saved, forecast.kexec_saved] {
                assert!(
                    span.low <= span.middle && span.middle <= span.high,
                    "{span:?}"
                );
            }
        }
    }

    /// Warmbus reads a host bridge once, which costs more than Linux saves there.
    #[test]
    fn a_loss_has_its_spread_in_order_too() {
        let item = Item {
            kind: Kind::HostBridge,
            driver: false,
            total_vfs: 0,
            nanoseconds: 1000,
        };
        let saved = Forecast::of(&[item], &counts()).boot_saved;
        assert!(saved.middle < 0.0, "{saved:?}");
        assert!(
            saved.low < saved.middle && saved.middle < saved.high,
            "{saved:?}"
        );
    }

    #[test]
    fn a_read_that_takes_twice_as_long_saves_twice_as_much() {
        let counts = counts();
        let once = items(&counts, "fan");
        let twice: Vec<Item> = once
            .iter()
            .map(|item| Item {
                nanoseconds: 2000,
                ..*item
            })
            .collect();
        let [once, twice] = [once, twice].map(|items| Forecast::of(&items, &counts));
        let ratio = twice.boot_saved.middle / once.boot_saved.middle;
        assert!((ratio - 2.0).abs() < 1e-9, "{ratio}");
        assert_eq!(once.instructions, twice.instructions);
    }

    #[test]
    fn vfs_cost_at_the_boot_only_where_linux_probes_them() {
        let counts = counts();
        let of = |kind, total_vfs| {
            let item = Item {
                kind,
                driver: true,
                total_vfs,
                nanoseconds: 1000,
            };
            Forecast::of(&[item], &counts)
        };
        let (few, many) = (
            of(Kind::PhysicalFunction, 8),
            of(Kind::PhysicalFunction, 256),
        );
        assert!(many.boot.middle > few.boot.middle + 0.5, "{few:?} {many:?}");
        assert_eq!(of(Kind::VirtualFunction, 0).boot, Span::default());
        assert!(of(Kind::VirtualFunction, 0).machine_saved.is_some());
        assert_eq!(of(Kind::RootPort, 0).machine_saved, None);
        assert_eq!(of(Kind::Endpoint, 0).vf_saved, None);
        assert!(few.vf_saved.unwrap().middle > 0.0);
    }

    #[test]
    fn instructions_are_those_that_were_counted() {
        let published: Value = serde_json::from_str(INSTRUCTIONS).unwrap();
        let fan = published["topologies"]["fan"].as_object().unwrap();
        let all: u64 = fan.values().filter_map(Value::as_u64).sum();
        let of_kernel = fan["detect"].as_u64().unwrap() + fan["unpack"].as_u64().unwrap();
        let forecast = instructions(65, &counts());
        assert!(forecast.abs_diff(all - of_kernel) < 100, "{forecast}");
    }
}
