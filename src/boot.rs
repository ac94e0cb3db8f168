//! The story of one boot, from the first Rust code to the jump into Linux.

use alloc::boxed::Box;
use core::error::Error;

use log::{LevelFilter, info, warn};
use warmbus_boot::board::Completed;
use warmbus_boot::options::Options;
use warmbus_linux::payload::Payload;
use warmbus_machine::{EarlyDevices, Machine};
use warmbus_memory::MemoryRange;

use crate::arch::mmu::Mmu;
use crate::arch::psci;
use crate::arch::timer::Timer;
use crate::boot_fdt::BootTree;
use crate::chainload::{Linux, Loader};
use crate::console::println;
use crate::image::Image;
use crate::mem::heap;
use crate::parallel_capture::Cores;
use crate::phase_times::Phases;
use crate::uefi::Handoff;
use crate::{chainload, console, logger, mem, pipeline, recovery, report_output};

/// Called by the first instructions, with the address of the device tree and
/// the MMU off. `is_second` is not 0 where the start before this one broke.
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

    // SAFETY: only where it is the second start.
    let broke = (is_second != 0).then(|| unsafe { recovery::why() });

    finish(boot(timer, &image, &tree, mmu, broke), &image)
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

/// Says how the boot ended and starts Linux, if it is there.
fn finish(ending: Result<BootResult, Box<dyn Error>>, image: &Image) -> ! {
    let ending = ending.unwrap_or_else(BootResult::failed);
    match ending.result {
        Ok(()) => println!("warmbus: result: ok"),
        Err(error) => println!("warmbus: result: error: {error}"),
    }
    if let Some(linux) = ending.linux {
        recovery::disarm();
        // SAFETY: nobody has written to the memory of Linux since it was
        // loaded, which was the last thing that `boot` did with memory.
        unsafe { linux.start(image) }
    }
    psci::off()
}

/// How a boot ends.
struct BootResult {
    result: Result<(), Box<dyn Error>>,
    /// What is to be started then.
    linux: Option<Linux>,
}

impl BootResult {
    fn failed(error: Box<dyn Error>) -> Self {
        Self {
            result: Err(error),
            linux: None,
        }
    }
}

/// One boot, from the device tree to the end. `broke` is why the start before
/// this one broke, if one did.
fn boot(
    timer: Timer,
    image: &Image,
    tree: &BootTree,
    mut mmu: Mmu,
    broke: Option<&'static str>,
) -> Result<BootResult, Box<dyn Error>> {
    // SAFETY: the tree was mapped when the MMU was turned on, read-only.
    let bytes = unsafe { tree.bytes() };
    let completed = Completed::new(bytes);
    let bytes = completed.tree.as_deref().unwrap_or(bytes);

    // A voice and a way out come first, so that all that follows can fail
    // with a line. Without a readable tree there is neither.
    let early_devices = EarlyDevices::from_device_tree(bytes);
    psci::set_conduit(early_devices.psci);
    let console = early_devices.console.as_ref();
    console.map_or(Ok(()), |console| console::open(console, &mut mmu))?;
    logger::start(timer, LevelFilter::Info);

    let machine = Machine::from_device_tree(bytes)?;
    let mut options = completed.options(&machine.bootargs);
    let timer = timer.with_frequency(machine.timer_frequency);
    logger::start(timer, options.log_level);
    let payload = chainload::find(bytes);
    let is = |what: fn(&Payload<'_>) -> bool| payload.as_ref().is_ok_and(what);
    // What runs on below a kernel that has just ended must not be disturbed.
    options.preserve |= is(|found| found.from_kexec || found.handover.is_some());
    // The kernel may be in what looks like an initrd.
    let may_start = is(|found| found.kernel.is_some() || found.ramdisk.is_some());
    if may_start && !options.probe_only && broke.is_none() {
        // From here on there is a Linux that must not be lost.
        // SAFETY: the first start, on the only CPU.
        unsafe { recovery::arm(tree.address) };
    }
    let described = BootInputs {
        machine: &machine,
        options: &options,
        completed: &completed,
        tree: bytes,
        place: Some(tree.region()),
    };
    let payload = payload.map_err(Into::into);
    run(timer, image, &described, payload, mmu, broke)
}

/// The same for a machine that UEFI and ACPI describe. There is no second
/// start: UEFI, which would have to load everything again, is gone.
fn boot_from_uefi(
    timer: Timer,
    image: &Image,
    handoff: &Handoff,
    mut mmu: Mmu,
) -> Result<BootResult, Box<dyn Error>> {
    let early_devices = &handoff.machine.early_devices;
    psci::set_conduit(early_devices.psci);
    // Without a console the work is the same.
    let console = early_devices.console.as_ref();
    let opened = console.map_or(Ok(()), |console| console::open(console, &mut mmu));
    let options = Options::from_bootargs(&handoff.command_line);
    logger::start(timer, options.log_level);
    if let Err(error) = opened {
        warn!("the console cannot be used: {error}");
    }
    let tree = handoff.state.device_tree();
    let tree = tree.map_err(|error| alloc::format!("no device tree can be made: {error}"))?;
    let described = BootInputs {
        machine: &handoff.machine,
        options: &options,
        completed: &Completed::default(),
        tree: &tree,
        place: None,
    };
    run(timer, image, &described, Ok(handoff.payload()), mmu, None)
}

/// What the one before us says about the machine.
struct BootInputs<'a> {
    machine: &'a Machine,
    options: &'a Options,
    completed: &'a Completed,
    /// The tree that Linux gets, with additions.
    tree: &'a [u8],
    /// Where in memory the description is.
    place: Option<MemoryRange>,
}

/// From a description, and what is to be started, to an end. `broke` is as
/// for [`boot`].
fn run(
    timer: Timer,
    image: &Image,
    described: &BootInputs<'_>,
    payload: Result<Payload<'_>, Box<dyn Error>>,
    mut mmu: Mmu,
    broke: Option<&'static str>,
) -> Result<BootResult, Box<dyn Error>> {
    let &BootInputs {
        machine, options, ..
    } = described;
    let handover = payload.as_ref().ok().and_then(|found| found.handover);
    let place = described.place;
    let taken = mem::take(machine, image, place, handover, &mut mmu, broke.is_some());
    let (memory, earlier) = taken?;
    report_output::print_banner(machine, options, described.completed, image);

    let mut phases = Phases::new(timer);
    let mut outcome = match broke {
        Some(why) => Err(why.into()),
        None => pipeline::open(machine, options, &mut mmu)
            .map(|(hosts, reach)| {
                let cores = Cores::of(machine, options);
                pipeline::run(&hosts, options, cores, reach, timer, &mut phases)
            })
            .map_err(Box::<dyn Error>::from),
    };
    let mut payload = payload?;
    if let Some(Ok(file)) = payload.ramdisk.map(|file| memory.bytes(file.range)) {
        payload.split(file);
    }
    let loaded = match payload.kernel.filter(|_| !options.probe_only) {
        None => None,
        Some(kernel) => {
            let loader = Loader {
                machine,
                options,
                tree: described.tree,
                payload: &payload,
                kernel,
                memory,
                earlier: &earlier,
                timer,
            };
            Some(loader.load(outcome.as_mut().ok(), &mut phases))
        }
    };

    if let Ok(outcome) = &outcome {
        report_output::print_report(outcome, &phases, machine, options, image, timer);
    }
    let heap = heap::usage();
    let (tables, all_tables) = mmu.usage();
    info!(
        "{} of {} bytes of heap used, {} at most; {tables} of {all_tables} translation tables",
        heap.used, heap.size, heap.peak
    );
    let (linux, result) = match loaded {
        None => (None, Ok(())),
        Some(Ok(linux)) => {
            linux.tell();
            if let Ok(outcome) = &outcome {
                pipeline::settle(outcome.settled_at, timer);
            }
            (Some(linux), Ok(()))
        }
        Some(Err(error)) => (None, Err(error)),
    };
    let failure = outcome.map_or_else(Err, |outcome| {
        outcome
            .failure
            .map_or(Ok(()), |failure| Err(failure.into()))
    });
    Ok(BootResult {
        result: result.and(failure),
        linux,
    })
}
