//! Warmbus, the doing half: the story of one boot.
#![no_std]
#![no_main]

extern crate alloc;

mod chainload;
mod console;
mod cores;
mod entry;
mod exceptions;
mod heap;
mod image;
mod jump;
mod logger;
mod memory;
mod mmu;
mod phases;
mod physical;
mod pipeline;
mod power;
mod registers;
mod restart;
mod telling;
mod timed;
mod timer;
mod together;
mod tree;

use alloc::boxed::Box;
use core::error::Error;

use log::{LevelFilter, info};
use warmbus::board::Completed;
use warmbus::machine::{Lifeline, Machine};

use chainload::{Linux, Loader};
use console::println;
use image::Image;
use mmu::Mmu;
use phases::Phases;
use timer::Timer;
use together::Cores;
use tree::BootTree;

/// Called by the first instructions, with the address of the device tree and
/// the MMU off. `is_second` is not 0 where the start before this one broke.
extern "C" fn start(tree: u64, is_second: u64) -> ! {
    let timer = Timer::start();
    let image = Image::running();
    // SAFETY: the boot protocol promises a device tree at this address; with
    // the MMU off an address that is not memory ends in an exception.
    let tree = unsafe { BootTree::at(tree) };
    // SAFETY: this is the first thing after entry, and runs once.
    let mmu = unsafe { Mmu::turn_on(&image, tree.address, tree.size) };
    let Some(mmu) = mmu else { power::off() };
    // SAFETY: once, and before anything is allocated.
    unsafe { heap::start() };

    // SAFETY: only where it is the second start.
    let broke = (is_second != 0).then(|| unsafe { restart::why() });

    let ending = boot(timer, &image, &tree, mmu, broke).unwrap_or_else(Ending::failed);
    match ending.result {
        Ok(()) => println!("warmbus: result: ok"),
        Err(error) => println!("warmbus: result: error: {error}"),
    }
    if let Some(linux) = ending.linux {
        restart::disarm();
        // SAFETY: nobody has written to the memory of Linux since it was
        // loaded, which was the last thing that `boot` did with memory.
        unsafe { linux.start(&image) }
    }
    power::off()
}

/// How a boot ends.
struct Ending {
    result: Result<(), Box<dyn Error>>,
    /// What is to be started then.
    linux: Option<Linux>,
}

impl Ending {
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
) -> Result<Ending, Box<dyn Error>> {
    // SAFETY: the tree was mapped when the MMU was turned on, read-only.
    let bytes = unsafe { tree.bytes() };
    let completed = Completed::new(bytes);
    let bytes = completed.tree.as_deref().unwrap_or(bytes);

    // A voice and a way out come first, so that all that follows can fail
    // with a line. Without a readable tree there is neither.
    let lifeline = Lifeline::from_device_tree(bytes);
    power::set_conduit(lifeline.psci);
    let console = lifeline.console.as_ref();
    console.map_or(Ok(()), |console| console::open(console, &mut mmu))?;
    logger::start(timer, LevelFilter::Info);

    let machine = Machine::from_device_tree(bytes)?;
    let options = completed.options(&machine.bootargs);
    let timer = timer.with_frequency(machine.timer_frequency);
    logger::start(timer, options.log_level);
    let payload = chainload::find(bytes);
    let has_kernel = payload.as_ref().is_ok_and(|found| found.kernel.is_some());
    if has_kernel && !options.probe_only && broke.is_none() {
        // From here on there is a Linux that must not be lost.
        // SAFETY: the first start, on the only CPU.
        unsafe { restart::arm(tree.address) };
    }
    let memory = memory::take(&machine, image, tree, &mut mmu, broke.is_some())?;
    telling::introduce(&machine, &options, &completed, image);

    let mut phases = Phases::new(timer);
    let mut outcome = match broke {
        Some(why) => Err(why.into()),
        None => pipeline::open(&machine, &options, &mut mmu)
            .map(|(hosts, reach)| {
                let cores = Cores::of(&machine, &options);
                pipeline::run(&hosts, &options, cores, reach, timer, &mut phases)
            })
            .map_err(Box::<dyn Error>::from),
    };
    let payload = payload?;
    let loaded = match payload.kernel.filter(|_| !options.probe_only) {
        None => None,
        Some(kernel) => {
            let loader = Loader {
                machine: &machine,
                options: &options,
                tree: bytes,
                payload: &payload,
                kernel,
                memory,
                timer,
            };
            Some(loader.load(outcome.as_mut().ok(), &mut phases))
        }
    };

    if let Ok(outcome) = &outcome {
        telling::tell(outcome, &phases, &machine, &options, image, timer);
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
    Ok(Ending {
        result: result.and(failure),
        linux,
    })
}
