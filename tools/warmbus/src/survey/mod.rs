//! `warmbus survey`: what Warmbus would save on a running machine. It reads, and
//! writes nothing.

mod config;
pub mod counts;
mod forecast;
mod hosts;
pub mod kind;
pub mod progress;
mod show;
pub(crate) mod sysfs;
pub mod tally;

use std::path::Path;

use anyhow::{Context, Result};
use warmbus_pci::{CapabilityLists, ConfigSpace, Function, Probe, Sbdf};
use warmbus_pcsc::ConfigCache;

use config::{SysfsConfig, percentile};
use counts::Counts;
use forecast::{Forecast, Item};
use hosts::Hosts;
use kind::Kind;
use progress::{Progress, When};
use sysfs::{Found, Machine};

/// How to survey.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// Where sysfs is.
    pub sysfs: &'a Path,
    /// Reads of each function that are timed.
    pub samples: usize,
    /// VFs whose creation is forecast; `None` for all that there can be.
    pub vfs: Option<u64>,
    /// When progress is shown.
    pub progress: When,
    /// Whether the result is JSON.
    pub json: bool,
}

/// One function with what was read of it.
#[derive(Debug)]
struct Surveyed {
    found: Found,
    kind: Kind,
    /// The kind is from its capabilities, and not from its place.
    is_kind_read: bool,
    time: Option<Time>,
    /// Why it was not read.
    unread: Option<String>,
    bytes: Option<Bytes>,
    /// Its configuration space ended before its capabilities.
    is_cut: bool,
    is_handed_over: bool,
}

/// Nanoseconds of a read.
#[derive(Clone, Copy, Debug)]
struct Time {
    median: u64,
    slow: u64,
    call: u64,
}

/// Bytes of configuration space.
#[derive(Clone, Copy, Debug)]
struct Bytes {
    all: u16,
    cacheable: u16,
}

/// What a survey found.
#[derive(Debug)]
struct Survey {
    machine: Machine,
    functions: Vec<Surveyed>,
    hosts: Hosts,
    /// Configuration space was cut after the header.
    is_cut: bool,
    /// VFs that there can be.
    possible_vfs: u64,
    /// VFs whose creation is forecast.
    vfs: u64,
    /// The median over the functions, and over what 99 of 100 reads of each
    /// take at most.
    time: Option<Time>,
    forecast: Forecast,
    /// The release of Linux that the counts are of.
    counted: String,
}

/// Surveys the machine that sysfs shows.
///
/// # Errors
///
/// If sysfs has no PCI devices, or not as Linux shows them.
pub fn run(options: &Options<'_>) -> Result<String> {
    let counts = Counts::published().context("the counts of the benchmark are damaged")?;
    let survey = Survey::make(options, &counts)?;
    let conclusion = survey.conclusion();
    Ok(if options.json {
        format!("{:#}\n", show::json(&survey, &conclusion))
    } else {
        show::text(&survey, &conclusion)
    })
}

/// Whether Warmbus is worth a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worth {
    Yes,
    No,
}

/// The verdict with its reason, in one line.
#[derive(Debug)]
struct Conclusion {
    worth: Worth,
    sentence: String,
}

/// Milliseconds of a boot from which on somebody may notice what is saved.
const NOTICEABLE: f64 = 100.0;

impl Survey {
    fn make(options: &Options<'_>, counts: &Counts) -> Result<Self> {
        let machine = Machine::read(options.sysfs)?;
        let hosts = Hosts::read(options.sysfs, &machine);
        let places = machine.kinds_by_place();
        let files = machine.functions.iter();
        let files = files.map(|found| (found.sbdf, found.config.clone()));
        let mut cache = ConfigCache::new(SysfsConfig::new(files));
        let mut progress = Progress::new("reading", machine.functions.len(), options.progress);
        let mut is_cut = false;
        let mut functions = Vec::new();
        for found in &machine.functions {
            let kind = places.get(&found.sbdf).copied().unwrap_or(Kind::Other);
            let mut surveyed = Surveyed {
                kind,
                is_kind_read: false,
                time: None,
                unread: found.asleep.clone(),
                bytes: None,
                is_cut: false,
                is_handed_over: hosts.hands_over(found.root),
                found: found.clone(),
            };
            if surveyed.unread.is_none() {
                surveyed.read(&mut cache, options.samples);
                is_cut |= surveyed.is_cut;
            }
            functions.push(surveyed);
            progress.step();
        }
        progress.end();
        let time = median_time(&functions);
        let nanoseconds = time.map_or(0, |time| time.median);
        let items = functions.iter().filter(|function| function.is_handed_over);
        let items: Vec<Item> = items
            .map(|function| Item {
                kind: function.kind,
                driver: function.found.driver || function.kind.is_bridge(),
                total_vfs: function.found.total_vfs,
                nanoseconds: function.time.map_or(nanoseconds, |time| time.median),
            })
            .collect();
        let possible_vfs = functions.iter().map(|one| one.found.total_vfs).sum();
        Ok(Self {
            forecast: Forecast::of(&items, counts),
            counted: counts.linux.clone(),
            vfs: options.vfs.unwrap_or(possible_vfs),
            possible_vfs,
            machine,
            functions,
            hosts,
            is_cut,
            time,
        })
    }

    /// Milliseconds that a boot saves, with what Warmbus executes itself at one
    /// instruction a nanosecond.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    fn net(&self) -> f64 {
        self.forecast.boot_saved.middle - self.forecast.instructions as f64 / 1e6
    }

    fn conclusion(&self) -> Conclusion {
        let net = self.net();
        let no = |sentence: String| Conclusion {
            worth: Worth::No,
            sentence,
        };
        if !self.machine.is_arm64 {
            return no(format!(
                "not for this machine: Warmbus is for arm64. An arm64 machine with these functions and reads would {}",
                saved(net)
            ));
        }
        if self.functions.is_empty() {
            return no("not worth it: there is no PCI function".into());
        }
        if self
            .functions
            .iter()
            .all(|function| !function.is_handed_over)
        {
            return no("not worth it: no host bridge would be handed over".into());
        }
        if self.time.is_none() {
            return no("not known: no configuration space could be read".into());
        }
        if net < NOTICEABLE {
            return no(format!("not worth it for a boot: it would {}", saved(net)));
        }
        Conclusion {
            worth: Worth::Yes,
            sentence: format!("worth a try: a boot would {}", saved(net)),
        }
    }
}

fn saved(net: f64) -> String {
    if net < 0.0 {
        format!("take {:.1} ms longer", -net)
    } else {
        format!("save {net:.1} ms")
    }
}

impl Surveyed {
    /// Reads the function: its capability lists, and its ID many times.
    fn read(&mut self, cache: &mut ConfigCache<SysfsConfig>, samples: usize) {
        let sbdf = self.found.sbdf;
        match cache.access_mut().time(sbdf, samples) {
            Ok(samples) => {
                self.time = Some(Time {
                    median: samples.median(),
                    slow: samples.slow(),
                    call: samples.call(),
                });
            }
            Err(error) => {
                self.unread = Some(format!("cannot read its configuration space: {error}"));
                return;
            }
        }
        // A virtual function has no IDs, and nothing of it is served.
        if self.found.is_virtual {
            return;
        }
        if !matches!(cache.probe(sbdf), Probe::Present { .. }) {
            self.unread = Some("it does not respond".into());
            return;
        }
        let responds = cache.infer(sbdf).is_some();
        self.is_cut = cache.access_mut().take_cut();
        let is_known = responds && !self.is_cut;
        let Some(block) = cache.block(sbdf).filter(|_| is_known) else {
            return;
        };
        self.bytes = Some(Bytes {
            all: block.size(),
            cacheable: block.cacheable_bytes(),
        });
        self.kind = Kind::of(&described(
            sbdf,
            &self.found,
            block.header_type(),
            block.lists(),
        ));
        self.is_kind_read = true;
    }
}

/// A function with what decides about its kind.
fn described(sbdf: Sbdf, found: &Found, header_type: u8, lists: &CapabilityLists) -> Function {
    let ids = u32::from(found.ids.1) << 16 | u32::from(found.ids.0);
    let header = u32::from(header_type) << 16;
    Function::from_header(sbdf, ids, found.class_code << 8, header, lists)
}

/// The medians over all functions that were timed.
fn median_time(functions: &[Surveyed]) -> Option<Time> {
    let sorted = |of: fn(&Time) -> u64| {
        let times = functions.iter().filter_map(|function| function.time);
        let mut times: Vec<u64> = times.map(|time| of(&time)).collect();
        times.sort_unstable();
        times
    };
    let medians = sorted(|time| time.median);
    (!medians.is_empty()).then(|| Time {
        median: percentile(&medians, 50),
        slow: percentile(&sorted(|time| time.slow), 50),
        call: percentile(&sorted(|time| time.call), 50),
    })
}
