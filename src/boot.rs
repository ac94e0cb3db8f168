//! The story of one boot, from the first Rust code to the jump into Linux.

use alloc::boxed::Box;
use core::error::Error;

use log::{LevelFilter, info, warn};
use warmbus_boot::decide::{preserves_config, recovers};
use warmbus_boot::fdt_additions;
use warmbus_boot::hosts::open_hosts;
use warmbus_boot::loader::{LoadedLinux, Loader};
use warmbus_boot::measured_access::MeasuredAccess;
use warmbus_boot::options::Options;
use warmbus_boot::pipeline::{Captured, Pipeline};
use warmbus_boot::recorder::Recorder;
use warmbus_linux::payload::{Payload, PayloadError};
use warmbus_machine::board_overlay::FdtWithBoardOverlay;
use warmbus_machine::{EarlyDevices, Machine, MachineError};
use warmbus_memory::{MemoryRange, PhysMemory as _};
use warmbus_pci::HostBridgeAccess;

use crate::arch::mmu::Mmu;
use crate::arch::psci;
use crate::arch::timer::{Timer, stamp};
use crate::boot_fdt::BootTree;
use crate::console::{self, println};
use crate::image::Image;
use crate::kernel_entry;
use crate::mem::{self, heap};
use crate::mmio::{self, Mmio};
use crate::parallel_capture::{self, SecondaryCores};
use crate::uefi::Handoff;
use crate::{logger, recovery, report_output};

/// The hardware, counted and timed.
pub(crate) type Hardware = MeasuredAccess<HostBridgeAccess<Mmio>, Timer>;

type BootError = Box<dyn Error>;

/// Called by the first instructions, with the address of the device tree and
/// the MMU off. `is_second` is not 0 on a second start (see `recovery.rs`).
pub(crate) extern "C" fn start(tree: u64, is_second: u64) -> ! {
    let timer = Timer::start();
    let image = Image::running();
    // SAFETY: the boot protocol promises a device tree at this address; with
    // the MMU off an address that is not memory ends in an exception.
    let tree = unsafe { BootTree::at(tree) };
    // SAFETY: this is the first thing after entry, and runs once.
    let mmu = unsafe { Mmu::turn_on(&image, tree.address, tree.size) };
    let Some(mmu) = mmu else { psci::off() };
    // SAFETY: once, and before anything is allocated.
    unsafe { heap::start() };

    // SAFETY: only on the second start.
    let failure = (is_second != 0).then(|| unsafe { recovery::previous_failure() });

    finish(
        boot_from_device_tree(timer, &image, &tree, mmu, failure),
        &image,
    )
}

/// Called when UEFI was left, with the MMU off.
pub(crate) extern "C" fn start_after_uefi(handoff: *mut Handoff) -> ! {
    let timer = Timer::start();
    let image = Image::running();
    // SAFETY: this runs once, and the image is all that was written since the
    // MMU is off.
    let mmu = unsafe { Mmu::turn_on(&image, 0, 0) };
    // SAFETY: it was made for this call.
    let handoff = unsafe { Box::from_raw(handoff) };
    let Some(mmu) = mmu else { psci::off() };
    finish(boot_from_uefi(timer, &image, &handoff, mmu), &image)
}

/// Prints how the boot ended and starts Linux, if it is loaded.
fn finish(result: Result<BootResult, BootError>, image: &Image) -> ! {
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
struct BootResult {
    result: Result<(), BootError>,
    /// What is to be started then.
    linux: Option<LoadedLinux>,
}

/// A boot that a device tree describes. `failure` is why the start before this
/// one failed, on a second start.
fn boot_from_device_tree(
    timer: Timer,
    image: &Image,
    tree: &BootTree,
    mut mmu: Mmu,
    failure: Option<&'static str>,
) -> Result<BootResult, BootError> {
    // SAFETY: the tree was mapped when the MMU was turned on, read-only.
    let bytes = unsafe { tree.bytes() };
    let completed = fdt_additions::complete(bytes);
    let bytes = completed.tree.as_deref().unwrap_or(bytes);

    // Console and PSCI come first, so that all that follows can fail with a
    // line and power off. Without a readable tree there is neither.
    let early_devices = EarlyDevices::from_device_tree(bytes);
    psci::set_conduit(early_devices.psci);
    let console = early_devices.console.as_ref();
    console.map_or(Ok(()), |console| console::open(console, &mut mmu))?;
    logger::start(timer, LevelFilter::Info);

    let machine = Machine::from_device_tree(bytes)?;
    let mut options = fdt_additions::options(&completed, &machine.bootargs);
    let timer = timer.with_frequency(machine.timer_frequency);
    logger::start(timer, options.log_level);
    let payload = match Payload::find(bytes) {
        // A tree that cannot be read to its end has nothing to start.
        Err(PayloadError::Tree(error)) => {
            warn!("no kernel is looked for: {error}");
            Ok(Payload::default())
        }
        found => found,
    };
    options.preserve = preserves_config(&options, payload.as_ref().ok());
    if recovers(&options, payload.as_ref().ok(), failure.is_some()) {
        // SAFETY: the first start, on the only CPU.
        unsafe { recovery::arm(tree.address) };
    }
    let inputs = BootInputs {
        machine: &machine,
        options: &options,
        completed: &completed,
        tree: bytes,
        description: Some(tree.region()),
    };
    run(
        timer,
        image,
        &inputs,
        payload.map_err(Into::into),
        mmu,
        failure,
    )
}

/// A boot that UEFI and ACPI describe. There is no second start: UEFI, which
/// would have to load everything again, is gone.
fn boot_from_uefi(
    timer: Timer,
    image: &Image,
    handoff: &Handoff,
    mut mmu: Mmu,
) -> Result<BootResult, BootError> {
    let early_devices = &handoff.machine.early_devices;
    psci::set_conduit(early_devices.psci);
    // The boot goes on without a console.
    let console = early_devices.console.as_ref();
    let opened = console.map_or(Ok(()), |console| console::open(console, &mut mmu));
    let options = Options::from_bootargs(&handoff.command_line);
    logger::start(timer, options.log_level);
    if let Err(error) = opened {
        warn!("the console cannot be used: {error}");
    }
    let tree = handoff.state.device_tree();
    let tree = tree.map_err(|error| alloc::format!("no device tree can be made: {error}"))?;
    let inputs = BootInputs {
        machine: &handoff.machine,
        options: &options,
        completed: &FdtWithBoardOverlay::default(),
        tree: &tree,
        description: None,
    };
    run(timer, image, &inputs, Ok(handoff.payload()), mmu, None)
}

/// What the previous boot stage says about the machine.
struct BootInputs<'a> {
    machine: &'a Machine,
    options: &'a Options,
    completed: &'a FdtWithBoardOverlay,
    /// The tree that Linux gets, with additions.
    tree: &'a [u8],
    /// The memory that holds the description.
    description: Option<MemoryRange>,
}

/// From a description to the end of a boot: memory, PCI, Linux, report.
/// `failure` is as for [`boot_from_device_tree`].
fn run(
    timer: Timer,
    image: &Image,
    inputs: &BootInputs<'_>,
    payload: Result<Payload<'_>, BootError>,
    mut mmu: Mmu,
    failure: Option<&'static str>,
) -> Result<BootResult, BootError> {
    let &BootInputs {
        machine, options, ..
    } = inputs;
    let handover = payload.as_ref().ok().and_then(|found| found.handover);
    let (memory, previous) = mem::map_all(
        machine,
        image,
        inputs.description,
        handover,
        &mut mmu,
        failure.is_some(),
    )?;
    report_output::print_banner(machine, options, inputs.completed, image);

    let cores = SecondaryCores::of(machine, timer);
    let mut recorder = Recorder::new(timer, cores, parallel_capture::requested(options));
    let mut captured = match failure {
        Some(failure) => Err(failure.into()),
        None => capture(machine, options, &mut mmu, timer, &mut recorder).map_err(BootError::from),
    };
    let mut payload = payload?;
    if let Some(Ok(file)) = payload.ramdisk.map(|file| memory.bytes(file.range)) {
        payload.split(file);
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

    if let Ok(captured) = &captured {
        report_output::print_report(captured, &recorder, machine, options, image, timer);
    }
    let heap = heap::usage();
    let (tables, all_tables) = mmu.usage();
    info!(
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
        Ok(linux) => (linux, Ok(())),
        Err(error) => (None, Err(error.into())),
    };
    if let Some(linux) = &linux {
        console::print(format_args!("{}", linux.description));
    }
    let failure = failure.map_or(Ok(()), |failure| Err(failure.into()));
    Ok(BootResult {
        result: result.and(survey).and(failure),
        linux,
    })
}

/// Runs the pipeline over the host bridges of `machine`.
fn capture(
    machine: &Machine,
    options: &Options,
    mmu: &mut Mmu,
    timer: Timer,
    recorder: &mut Recorder<Timer, SecondaryCores>,
) -> Result<Captured<Hardware>, MachineError> {
    let (hosts, access) = open_hosts(machine, options, |hosts| mmio::open(hosts, mmu))?;
    let access = MeasuredAccess::new(access, timer);
    let pipeline = Pipeline::from_options(options);
    Ok(pipeline.run(&hosts, access, &mut timer.clone(), recorder))
}
