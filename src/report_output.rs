//! Prints what the boot found, for people and for programs.

use core::fmt;

use log::{Level, debug, info, log_enabled, warn};
use warmbus_boot::measured_access::MeasuredAccess;
use warmbus_boot::options::Options;
use warmbus_boot::pipeline::Captured;
use warmbus_boot::recorder::Recorder;
use warmbus_boot::report::console::Section;
use warmbus_boot::report::{self, Report, ReportInput};
use warmbus_machine::Machine;
use warmbus_machine::board_overlay::FdtWithBoardOverlay;
use warmbus_pci::ConfigAccess;

use crate::arch::mmu;
use crate::arch::timer::Timer;
use crate::console::{self, println};
use crate::image::Image;
use crate::mem::heap;

/// Logs the version, the machine and its host bridges.
pub(crate) fn print_banner(
    machine: &Machine,
    options: &Options,
    completed: &FdtWithBoardOverlay,
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

/// What a boot has found, and what it took up to now.
pub(crate) fn report<A: ConfigAccess>(
    captured: &Captured<MeasuredAccess<A, Timer>>,
    recorder: &Recorder<Timer>,
    machine: &Machine,
    image: &Image,
    timer: Timer,
) -> Report {
    let input = ReportInput {
        machine: report::Machine {
            model: machine.model.clone(),
            exception_level: if mmu::at_el2() { 2 } else { 1 },
            cores: machine.cpus as u32,
            memory_bytes: machine.memory.total(),
            timer_hz: timer.frequency(),
            image_bytes: image.region().size,
            heap_peak_bytes: heap::usage().peak as u64,
            bytes_per_function: 0,
        },
        anomalies: machine.warnings.clone(),
        ..ReportInput::new(captured)
    };
    let cached = |function| report::cached_bytes(&captured.config, function);
    Report::new(input, &cached).with_recorded(recorder, &timer)
}

/// Prints a few lines or, where they are requested, the tree and the summary.
pub(crate) fn print(report: &Report, options: &Options) {
    let mut console = Console;
    // The console cannot fail: what it cannot print is lost.
    if options.show.tree {
        let _ = report::tree::write(report, &mut console);
        println!("");
    }
    if options.show.summary {
        let _ = report::summary::write(report, &mut console);
    } else if log_enabled!(Level::Info) {
        let _ = report::summary::write_brief(report, &mut console);
    }
}

/// Prints the report and the dump, where they are requested, each between two lines
/// by which a program finds them.
pub(crate) fn print_sections<A: ConfigAccess>(
    report: &Report,
    captured: &Captured<MeasuredAccess<A, Timer>>,
    options: &Options,
) {
    let cached = |function| report::cached_bytes(&captured.config, function);
    if options.report {
        section(Section::Report, || {
            report::json::write(report, &mut Console)
        });
    }
    if options.lspci {
        section(Section::Lspci, || {
            report::lspci::write(&captured.topology, &cached, &mut Console)
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
