//! Prints what the boot found, for people and for programs.

use alloc::string::String;
use core::fmt;

use log::{debug, info, warn};
use warmbus_boot::board::Completed;
use warmbus_boot::options::Options;
use warmbus_boot::report::console::Section;
use warmbus_boot::report::{self, Accesses, CacheStatistics, CachedBytes, Facts, Report};
use warmbus_machine::Machine;

use crate::arch::mmu;
use crate::arch::timer::Timer;
use crate::console::{self, println};
use crate::image::Image;
use crate::mem::heap;
use crate::phase_times::Phases;
use crate::pipeline::Outcome;

/// Logs the version, the machine and its host bridges.
pub(crate) fn print_banner(
    machine: &Machine,
    options: &Options,
    completed: &Completed,
    image: &Image,
) {
    info!(
        "Warmbus {} on {}, {} CPUs, EL{}, image at {:#x}",
        env!("CARGO_PKG_VERSION"),
        machine.model.as_deref().unwrap_or("an unnamed machine"),
        machine.cpus,
        if mmu::at_el2() { 2 } else { 1 },
        image.start
    );
    if let Some(board) = completed.board {
        let additions = match completed.tree {
            Some(_) => ", which adds to the device tree",
            None => "",
        };
        debug!("board {}, {}{additions}", board.id, board.name);
    }
    let warnings = machine.warnings.iter().chain(&options.warnings);
    for warning in warnings.chain(&completed.warnings) {
        warn!("{warning}");
    }
    for host in &machine.hosts {
        info!(
            "{}: segment {:04x}, buses {}, {} at {}",
            host.name, host.segment, host.buses, host.mechanism, host.ecam_base
        );
        for window in &host.windows {
            debug!(
                "  {:?}{} at PCI address {:#x}, CPU address {}, {:#x} bytes",
                window.kind,
                if window.prefetchable {
                    " prefetchable"
                } else {
                    ""
                },
                window.pci_address,
                window.cpu_address,
                window.size
            );
        }
    }
}

/// Prints the tree and the summary, and where it is asked for the report and
/// the dump, each between two lines by which a program finds them.
pub(crate) fn print_report(
    outcome: &Outcome,
    phases: &Phases,
    machine: &Machine,
    options: &Options,
    image: &Image,
    timer: Timer,
) {
    let cached = |function| {
        let block = outcome.config.block(function)?;
        Some(CachedBytes {
            size: block.size(),
            data: block.data(),
            cacheable: block.cacheable_bytes(),
            cached: block.cached_bytes(),
        })
    };
    let report = Report::new(facts(outcome, phases, machine, image, timer), &cached);
    let mut console = Console;
    // The console cannot fail: what it cannot print is lost.
    let _ = report::tree::write(&report, &mut console);
    println!("");
    let _ = report::summary::write(&report, &mut console);
    if options.report {
        section(Section::Report, || {
            report::json::write(&report, &mut Console)
        });
    }
    if options.lspci {
        section(Section::Lspci, || {
            report::lspci::write(&outcome.topology, &cached, &mut Console)
        });
    }
}

fn section(section: Section, write: impl FnOnce() -> fmt::Result) {
    println!("{}", section.begin());
    let _ = write();
    println!("{}", section.end());
}

/// Writes to the console as it is.
struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        console::print(format_args!("{text}"));
        Ok(())
    }
}

fn facts<'a>(
    outcome: &'a Outcome,
    phases: &Phases,
    machine: &Machine,
    image: &Image,
    timer: Timer,
) -> Facts<'a> {
    Facts {
        topology: &outcome.topology,
        machine: report::Machine {
            model: machine.model.clone(),
            exception_level: if mmu::at_el2() { 2 } else { 1 },
            cores: machine.cpus as u32,
            memory_bytes: machine.memory.iter().map(|region| region.size).sum(),
            timer_hz: timer.frequency(),
            image_bytes: image.region().size,
            heap_peak_bytes: heap::usage().peak as u64,
            bytes_per_function: 0,
        },
        accesses: Accesses {
            reads: outcome.accesses.reads,
            writes: outcome.accesses.writes,
            absent_probes: outcome.accesses.absent_probes,
            most_reads_of_one_dword: u64::from(outcome.max_reads),
            read_backs: outcome.accesses.read_backs,
            cacheable_dwords: outcome.cacheable_dwords,
        },
        cache: CacheStatistics {
            hits: outcome.statistics.hits,
            misses: outcome.statistics.misses,
            uncacheable: outcome.statistics.uncacheable,
            writes: outcome.statistics.writes,
            invalidations: outcome.statistics.invalidations,
        },
        phases: phases
            .done
            .iter()
            .map(|phase| report::Phase {
                name: phase.name.into(),
                ticks: phase.ticks,
                nanoseconds: timer.to_nanoseconds(phase.ticks),
                config_ticks: phase.config_ticks,
            })
            .collect(),
        self_check: outcome.self_check.as_ref().map(|check| report::SelfCheck {
            bytes: check.bytes,
            reads: check.reads,
            differences: check
                .differences
                .iter()
                .map(|difference| report::Difference {
                    sbdf: difference.function,
                    offset: difference.offset.get(),
                    cached: difference.cached,
                    hardware: difference.hardware,
                })
                .collect(),
        }),
        anomalies: machine.warnings.clone(),
        result: outcome.failure.clone().map_or(Ok(()), Err::<(), String>),
    }
}
