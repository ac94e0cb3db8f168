//! From the first Rust code to a description of the machine, by a device tree.

use alloc::vec::Vec;

use log::{LevelFilter, warn};
use warmbus_boot::fdt_additions::{self, named_modules};
use warmbus_boot::options::Options;
use warmbus_boot::start_policy::{preserves_config, recovers};
use warmbus_linux::payload::Payload;
use warmbus_machine::{EarlyDevices, Machine, MachineMemory, Psci, Source};

use crate::after_uefi::AfterUefi;
use crate::arch::mmu::Mmu;
use crate::arch::psci;
use crate::arch::serror::{self, Syndrome};
use crate::arch::timer::Timer;
use crate::boot::{BootError, BootInputs, BootResult, finish, run};
use crate::boot_fdt::BootTree;
use crate::console;
use crate::image::Image;
use crate::mem::{self, Loaded, heap};
use crate::{logger, recovery};

/// Called by the first instructions, with the address of the device tree and
/// the MMU off. `is_second` is not 0 on a second start (see `recovery.rs`);
/// `entry` is the system counter as it was at the first instruction.
pub(crate) extern "C" fn start(tree: u64, is_second: u64, entry: u64) -> ! {
    let timer = Timer::start_at(entry);
    let image = Image::running();
    // SAFETY: the boot protocol promises a device tree at this address; with
    // the MMU off an address that is not memory ends in an exception.
    let tree = unsafe { BootTree::at(tree) };
    if tree.is_tree {
        // It may say that PSCI is not to be called.
        psci::set_conduit(Psci::None);
    }
    // SAFETY: this is the first thing after entry, and runs once.
    let mmu = unsafe { Mmu::turn_on(&image, tree.address, tree.size) };
    let Some(mmu) = mmu else { psci::off() };
    let serror = serror_at_entry();
    // SAFETY: once, and before anything is allocated.
    unsafe { heap::start() };

    // SAFETY: only on the second start.
    let failure = (is_second != 0).then(|| unsafe { recovery::previous_failure() });

    finish(
        boot_from_device_tree(timer, &image, &tree, mmu, (failure, serror)),
        &image,
    )
}

/// Takes an `SError` that an access before this program has caused, so that no
/// access of ours is blamed for it.
fn serror_at_entry() -> Option<Syndrome> {
    serror::synchronise();
    serror::take_pending()
}

/// Warns of what [`serror_at_entry`] has found.
fn warn_of_serror_at_entry(serror: Option<Syndrome>) {
    if let Some(Syndrome(syndrome)) = serror {
        warn!("an SError was pending at entry, with the syndrome {syndrome:#x}; it was taken");
    }
}

/// A boot that a device tree describes. `failure` is why the start before this
/// one failed, on a second start, and `serror` what [`serror_at_entry`] has found.
fn boot_from_device_tree(
    timer: Timer,
    image: &Image,
    tree: &BootTree,
    mut mmu: Mmu,
    (failure, serror): (Option<&'static str>, Option<Syndrome>),
) -> Result<BootResult, BootError> {
    // SAFETY: the tree was mapped when the MMU was turned on, read-only.
    let raw = unsafe { tree.bytes() };

    // Console and PSCI come first, so that all that follows can fail with a
    // line and power off. Without a readable tree there is no line.
    let mut early_devices = EarlyDevices::from_device_tree(raw);
    psci::set_conduit(early_devices.psci);
    open_console(&early_devices, &mut mmu);
    logger::start(timer, LevelFilter::Info);
    warn_of_serror_at_entry(serror);

    // Then comes memory: the rest takes as much of it as the tree is large.
    let mut payload = Payload::find(raw);
    let found = payload.as_ref().ok();
    let after_uefi = AfterUefi::read(tree, raw, found, image, &mut mmu)?;
    let (after_uefi, mut ranges) = match after_uefi {
        Some((after_uefi, ranges)) => (Some(after_uefi), ranges),
        None => (None, MachineMemory::from_device_tree(raw)?),
    };
    let modules: Vec<_> = named_modules(found).map(|(_, range)| range).collect();
    // Memory may not be there. Whether nothing is to be started at all is an
    // option, and not known yet.
    let is_second = failure.is_some();
    let names_kernel = !modules.is_empty() && !is_second;
    if names_kernel || recovers(&Options::default(), found, is_second) {
        // SAFETY: the first start, on the only CPU.
        unsafe { recovery::arm(tree.address) };
    }
    let loaded = Loaded {
        description: Some(tree.region()),
        modules: &modules,
        handover: found.and_then(|found| found.handover),
    };
    let memory = mem::map_all(&ranges, image, loaded, &mut mmu, is_second);

    let completed = fdt_additions::complete(raw, found);
    let bytes = completed.tree.as_deref().unwrap_or(raw);
    if completed.tree.is_some() {
        let had_console = early_devices.console.is_some();
        early_devices = EarlyDevices::from_device_tree(bytes);
        psci::set_conduit(early_devices.psci);
        if !had_console {
            open_console(&early_devices, &mut mmu);
        }
        if after_uefi.is_none() {
            ranges = MachineMemory::from_device_tree(bytes)?;
        }
        payload = Payload::find(bytes);
    }
    let by_acpi = after_uefi.as_ref().and_then(|after_uefi| {
        let payload = payload.as_ref().ok();
        after_uefi.machine(&ranges, payload, &mut mmu)
    });
    let machine = match by_acpi {
        Some(machine) => {
            psci::set_conduit(machine.early_devices.psci);
            open_console(&machine.early_devices, &mut mmu);
            machine
        }
        None => {
            let mut machine = Machine::with_early_devices(bytes, ranges, early_devices)?;
            if after_uefi.is_some() {
                machine.source = Source::DeviceTreeAndUefi;
            }
            machine
        }
    };
    let mut options = fdt_additions::options(&completed, &machine.bootargs);
    let timer = timer.with_frequency(machine.timer_frequency);
    logger::start(timer, options.log_level);
    options.preserve = preserves_config(&options, payload.as_ref().ok());
    if !recovers(&options, payload.as_ref().ok(), is_second) {
        recovery::disarm();
    }
    let inputs = BootInputs {
        machine: &machine,
        options: &options,
        completed: &completed,
        tree: bytes,
    };
    run(
        timer,
        image,
        &inputs,
        payload.map_err(Into::into),
        memory,
        mmu,
        failure,
    )
}

/// Opens the console of `devices`, if there is one. One that cannot be mapped is
/// not used: nobody could read why, and the boot goes on without.
fn open_console(devices: &EarlyDevices, mmu: &mut Mmu) {
    if let Some(console) = &devices.console {
        // The line goes to a console that was opened before, if any.
        if let Err(error) = console::open(console, mmu) {
            warn!("the console cannot be used: {error}");
        }
    }
}
