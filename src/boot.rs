//! The story of one boot, from a description of the machine to the jump into
//! Linux.

use alloc::boxed::Box;
use core::error::Error;

use log::debug;
use warmbus_boot::hosts::open_hosts;
use warmbus_boot::loader::{LoadedLinux, Loader};
use warmbus_boot::measured_access::MeasuredAccess;
use warmbus_boot::options::Options;
use warmbus_boot::pipeline::{Captured, Pipeline};
use warmbus_boot::previous_boot::PreviousBoot;
use warmbus_boot::recorder::Recorder;
use warmbus_boot::start_policy::nothing_to_start;
use warmbus_linux::payload::Payload;
use warmbus_linux::pci_parameters::PciParameters;
use warmbus_machine::board_overlay::FdtWithBoardOverlay;
use warmbus_machine::{Machine, MachineError};
use warmbus_memory::PhysMemory as _;
use warmbus_pci::HostBridgeAccess;

use crate::arch::mmu::Mmu;
use crate::arch::psci;
use crate::arch::timer::{Timer, stamp};
use crate::console::{self, println};
use crate::image::Image;
use crate::mem::physical::PhysicalMemory;
use crate::mem::{self, heap};
use crate::mmio::{self, Mmio};
use crate::{kernel_entry, recovery, report_output};

/// The hardware, counted and timed.
pub(crate) type Hardware = MeasuredAccess<HostBridgeAccess<Mmio>, Timer>;

pub(crate) type BootError = Box<dyn Error>;

/// Prints how the boot ended and starts Linux, if it is loaded.
pub(crate) fn finish(result: Result<BootResult, BootError>, image: &Image) -> ! {
    let BootResult { result, linux } = result.unwrap_or_else(|error| BootResult {
        result: Err(error),
        linux: None,
    });
    match result {
        Ok(()) => println!("warmbus: result: ok"),
        Err(error) => println!("warmbus: result: error: {error}"),
    }
    if let Some(linux) = linux {
        recovery::disarm();
        // SAFETY: nothing has written to the memory of Linux since it was
        // loaded, which was the last thing that `run` did with memory.
        unsafe { kernel_entry::start_linux(&linux, image) }
    }
    psci::off()
}

/// How a boot ends.
pub(crate) struct BootResult {
    result: Result<(), BootError>,
    /// What is to be started then.
    linux: Option<LoadedLinux>,
}

/// What the previous boot stage says about the machine.
pub(crate) struct BootInputs<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) options: &'a Options,
    pub(crate) completed: &'a FdtWithBoardOverlay,
    /// The tree that Linux gets, with additions.
    pub(crate) tree: &'a [u8],
}

/// From a description to the end of a boot: PCI, Linux, report. `memory` is
/// that of the machine, with what a previous kernel hands over; `failure` is why
/// the start before this one failed, on a second start.
pub(crate) fn run(
    timer: Timer,
    image: &Image,
    inputs: &BootInputs<'_>,
    payload: Result<Payload<'_>, BootError>,
    (memory, mut previous): (PhysicalMemory, PreviousBoot),
    mut mmu: Mmu,
    failure: Option<&'static str>,
) -> Result<BootResult, BootError> {
    let &BootInputs {
        machine, options, ..
    } = inputs;
    mem::log(&memory);
    previous.parse(&memory, heap::usage().size);
    report_output::print_banner(machine, options, inputs.completed, image);

    let mut recorder = Recorder::new(timer, 0);
    let mut captured = match failure {
        Some(failure) => Err(failure.into()),
        None => {
            let found = payload.as_ref().ok();
            let line = found.and_then(|found| found.command_line(found.kernel));
            let parameters = PciParameters::from_command_line(line.unwrap_or_default());
            let pipeline =
                Pipeline::from_options(options).with_pci_parameters(&parameters, options);
            capture(machine, options, &pipeline, &mut mmu, timer, &mut recorder)
                .map_err(BootError::from)
        }
    };
    let mut payload = payload?;
    if let (Some(file), None) = (payload.ramdisk, payload.kernel)
        && !options.probe_only
    {
        payload.split(memory.bytes(file.range)?);
    }
    let kernel = payload.kernel.filter(|_| !options.probe_only);
    let loaded = kernel.map(|kernel| {
        let mut loader = Loader {
            machine,
            options,
            tree: inputs.tree,
            payload: &payload,
            kernel,
            memory,
            previous: &previous,
            generation: stamp(),
        };
        loader.load(captured.as_mut().ok(), &mut timer.clone(), &mut recorder)
    });

    let report = captured.as_ref().ok().map(|captured| {
        let report = report_output::report(captured, &recorder, machine, image, timer);
        report_output::print(&report, options);
        report
    });
    if let Some(Ok(linux)) = &loaded {
        console::print(format_args!("{}", linux.description));
    }
    if let (Some(report), Ok(captured)) = (report, &captured) {
        // What was printed took its time as well.
        let report = report.with_recorded(&recorder, &timer);
        report_output::print_sections(&report, captured, options);
    }
    let heap = heap::usage();
    let (tables, all_tables) = mmu.usage();
    debug!(
        "{} of {} bytes of heap used, {} at most; {tables} of {all_tables} translation tables",
        heap.used, heap.size, heap.peak
    );
    let failure = captured.as_ref().map_or(None, Captured::failure);
    let survey = captured.map(|captured| {
        if matches!(loaded, Some(Ok(_))) {
            captured.wait_until_sriov_readable(&mut timer.clone());
        }
    });
    let (linux, result) = match loaded.transpose() {
        Ok(Some(linux)) => (Some(linux), Ok(())),
        Ok(None) => (
            None,
            nothing_to_start(options, &payload).map_err(Into::into),
        ),
        Err(error) => (None, Err(error.into())),
    };
    let failure = failure.map_or(Ok(()), |failure| Err(failure.into()));
    Ok(BootResult {
        result: result.and(survey).and(failure),
        linux,
    })
}

/// Runs `pipeline` over the host bridges of `machine`.
fn capture(
    machine: &Machine,
    options: &Options,
    pipeline: &Pipeline,
    mmu: &mut Mmu,
    timer: Timer,
    recorder: &mut Recorder<Timer>,
) -> Result<Captured<Hardware>, MachineError> {
    mmu.provide_tables(machine.hosts.len());
    let (hosts, access) = open_hosts(machine, options, |hosts| mmio::open(hosts, mmu))?;
    let access = MeasuredAccess::new(access, timer);
    Ok(pipeline.run(&hosts, access, &mut timer.clone(), recorder))
}
