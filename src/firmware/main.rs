//! Warmbus, the doing half: the story of one boot.
#![no_std]
#![no_main]

extern crate alloc;

mod chainload;
mod console;
mod earlier;
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
mod telling;
mod timed;
mod timer;
mod tree;

use alloc::boxed::Box;
use core::error::Error;

use log::{LevelFilter, info};
use warmbus::machine::{Lifeline, Machine, Options};

use chainload::{Linux, Loader};
use console::println;
use image::Image;
use mmu::Mmu;
use phases::Phases;
use timer::Timer;
use tree::BootTree;

/// Called by the first instructions, with the address of the device tree and
/// the MMU off.
extern "C" fn start(tree: u64) -> ! {
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

    let ending = boot(timer, &image, &tree, mmu).unwrap_or_else(Ending::failed);
    match ending.result {
        Ok(()) => println!("warmbus: result: ok"),
        Err(error) => println!("warmbus: result: error: {error}"),
    }
    if let Some(linux) = ending.linux {
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

/// One boot, from the device tree to the end.
fn boot(
    timer: Timer,
    image: &Image,
    tree: &BootTree,
    mut mmu: Mmu,
) -> Result<Ending, Box<dyn Error>> {
    // SAFETY: the tree was mapped when the MMU was turned on, read-only.
    let bytes = unsafe { tree.bytes() };

    // A voice and a way out come first, so that all that follows can fail
    // with a line. Without a readable tree there is neither.
    let lifeline = Lifeline::from_device_tree(bytes);
    power::set_conduit(lifeline.psci);
    let console = lifeline.console.as_ref();
    console.map_or(Ok(()), |console| console::open(console, &mut mmu))?;
    logger::start(timer, LevelFilter::Info);

    let mut machine = Machine::from_device_tree(bytes)?;
    let mut options = Options::from_bootargs(&machine.bootargs);
    // What runs on below a kernel that has just ended must not be disturbed.
    options.preserve |= machine.from_kexec || machine.handover.is_some();
    let timer = timer.with_frequency(machine.timer_frequency);
    logger::start(timer, options.log_level);
    let (memory, earlier) = memory::take(&mut machine, image, tree, &mut mmu)?;
    telling::introduce(&machine, &options, image);

    let mut phases = Phases::new(timer);
    let outcome = pipeline::open(&machine, &options, &mut mmu)
        .map(|(hosts, reach)| pipeline::run(&hosts, &options, reach, timer, &mut phases));
    let payload = chainload::find(bytes, &memory)?;
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
                earlier: &earlier,
            };
            Some(loader.load(outcome.as_ref().ok(), &mut phases))
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
            (Some(linux), Ok(()))
        }
        Some(Err(error)) => (None, Err(error)),
    };
    let failure = outcome.map_or_else(
        |error| Err(error.into()),
        |outcome| {
            outcome
                .failure
                .map_or(Ok(()), |failure| Err(failure.into()))
        },
    );
    Ok(Ending {
        result: result.and(failure),
        linux,
    })
}
