//! Started by UEFI: load everything while boot services run, leave them, and
//! go on as always.
//!
//! Until boot services are left, whatever goes wrong ends in the kernel being
//! started by UEFI itself, through its EFI stub, as it would have been without
//! Warmbus.

mod files;
mod initrd;
mod kernel;
mod tables;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::error::Error;

use uefi::boot;
use uefi::mem::memory_map::{MemoryMap as _, MemoryMapMut as _};
use uefi::{Handle, Status};
use uefi_raw::table::boot::MemoryType;
use uefi_raw::table::system::SystemTable;
use warmbus_boot::memory::mapped_pages;
use warmbus_linux::load_options::LoadOptions;
use warmbus_linux::payload;
use warmbus_linux::uefi::{SecureBoot, UefiState};
use warmbus_machine::{
    Machine, MemoryMap, Reservation, ReservationKind, map_runtime_services_flat,
};
use warmbus_memory::{MemoryRange, NotMemory, PhysMemory};
use warmbus_paging::PAGE_SIZE;
use warmbus_pci::{HostBridge, PhysAddr};

use crate::arch::entry::leave_uefi;
use crate::arch::mmu::Mmu;
use crate::console::{self, println};
use crate::image::Image;
use crate::mem::heap;
use crate::recovery;
use initrd::Initrd;
use kernel::Kernel;

type Why = Box<dyn Error>;

/// All that is taken along from UEFI.
pub(crate) struct Handoff {
    pub(crate) machine: Machine,
    pub(crate) state: UefiState,
    /// The command line for Linux and Warmbus.
    pub(crate) command_line: String,
    /// The kernel, unpacked.
    pub(crate) kernel: MemoryRange,
    pub(crate) initrd: Option<MemoryRange>,
}

impl Handoff {
    /// What is to be started.
    pub(crate) fn payload(&self) -> payload::Payload<'_> {
        let module = |range| payload::Module {
            range,
            bootargs: None,
        };
        payload::Payload {
            kernel: Some(payload::Module {
                bootargs: Some(self.command_line.as_bytes()),
                ..module(self.kernel)
            }),
            ramdisk: self.initrd.map(module),
            ..payload::Payload::default()
        }
    }
}

/// What there is to start.
struct Payload {
    kernel: Kernel,
    initrd: Option<Initrd>,
    command_line: String,
}

/// Called by the first instructions. Returns only where nothing can be
/// started, so that the firmware goes on with its next choice.
pub(crate) extern "C" fn start_in_uefi(
    handle: *mut core::ffi::c_void,
    table: *const SystemTable,
) -> Status {
    // SAFETY: UEFI promises a handle or NULL.
    let Some(handle) = (unsafe { Handle::from_ptr(handle) }) else {
        return Status::INVALID_PARAMETER;
    };
    // SAFETY: both are those of this image, and boot services are active.
    unsafe {
        boot::set_image_handle(handle);
        uefi::table::set_system_table(table);
        heap::start();
    }
    console::open_uefi();
    recovery::set_fallback(give_up);
    match run(PhysAddr(table.addr() as u64)) {
        Ok(never) => match never {},
        Err(error) => {
            println!("warmbus: result: error: {error}");
            Status::LOAD_ERROR
        }
    }
}

/// Ends the program where it cannot go on, with boot services still there.
fn give_up() -> ! {
    // SAFETY: nothing that this image has allocated runs by itself.
    let result = unsafe {
        boot::exit(
            boot::image_handle(),
            Status::ABORTED,
            0,
            core::ptr::null_mut(),
        )
    };
    // Exit returns only if the platform refuses it. Its boot manager has
    // another try after a reset.
    if let Err(error) = result {
        println!("warmbus: the platform refused Exit: {error}");
    }
    uefi::runtime::reset(uefi::runtime::ResetType::COLD, Status::ABORTED, None)
}

fn run(system_table: PhysAddr) -> Result<core::convert::Infallible, Why> {
    println!("Warmbus {} in UEFI", env!("CARGO_PKG_VERSION"));
    let options = files::load_options();
    let payload = load(&options)?;
    payload.kernel.may_be_started()?;
    match describe(system_table, &payload) {
        Ok(handoff) => leave(handoff, payload),
        Err(why) => {
            println!("warmbus: no cache handed over: {why}; UEFI boots Linux without it");
            let initrd = payload.initrd.as_ref();
            let path = initrd.and_then(|initrd| initrd.path.as_deref());
            payload.kernel.start(&payload.command_line, path)?;
            Err("Linux came back".into())
        }
    }
}

/// Brings everything that is to be started into memory.
fn load(options: &LoadOptions) -> Result<Payload, Why> {
    let mut volume = files::Volume::with_kernel(options)?;
    let kernel = Kernel::load(&mut volume)?;
    let command_line = options.command_line(&volume.command_line(options)?);
    let initrd = initrd::load(&mut volume, options)?;
    Ok(Payload {
        kernel,
        initrd,
        command_line,
    })
}

/// Finds out all that is to be known before boot services are left.
fn describe(system_table: PhysAddr, payload: &Payload) -> Result<Handoff, Why> {
    payload.kernel.check()?;
    let map = boot::memory_map(MemoryType::LOADER_DATA)?;
    let tables_in = Mapped(MemoryMap::new(written(&map), map.meta().desc_size));
    let rsdp = tables::rsdp().ok_or("there are no ACPI tables")?;
    let machine = Machine::from_acpi(&tables_in, rsdp, &tables_in.0)?;
    let hosts = machine.host_bridges()?.iter();
    let hosts: Vec<MemoryRange> = hosts.flat_map(HostBridge::regions).collect();
    let initrd = payload.initrd.as_ref().map(|initrd| initrd.range);
    let modules: Vec<_> = [Some(payload.kernel.unpacked()), initrd]
        .into_iter()
        .flatten()
        .collect();
    // SAFETY: the MMU is turned on when UEFI was left.
    unsafe {
        Mmu::would_map(
            &Image::running(),
            &mapped_pages(&machine.mappable_memory(), PAGE_SIZE),
            &modules,
            &hosts,
        )
    }?;
    tables::install_memory_reservations()?;
    tables::install_random_seed();
    Ok(Handoff {
        machine,
        state: UefiState {
            system_table,
            memory_map: MemoryRange::new(PhysAddr(0), 0),
            descriptor_size: 0,
            descriptor_version: 0,
            secure_boot: secure_boot(),
            kaslr_seed: tables::random().map(u64::from_le_bytes),
        },
        command_line: payload.command_line.clone(),
        kernel: payload.kernel.unpacked(),
        initrd,
    })
}

/// Leaves boot services, and UEFI with them.
fn leave(mut handoff: Handoff, payload: Payload) -> ! {
    payload.kernel.forget();
    println!("warmbus: leaving UEFI");
    console::close();
    recovery::set_fallback(crate::arch::psci::off);
    // SAFETY: nothing that boot services gave is used from here on but memory,
    // which stays: all references are to memory that this image has allocated.
    let mut map = unsafe { boot::exit_boot_services(Some(MemoryType::ACPI_RECLAIM)) };
    let meta = map.meta();
    // SAFETY: the descriptors stay what they are but for one number.
    let bytes = unsafe { map.buffer_mut() };
    map_runtime_services_flat(&mut bytes[..meta.map_size], meta.desc_size);
    let place = PhysAddr(map.buffer().as_ptr().addr() as u64);
    handoff.state.memory_map = MemoryRange::new(place, meta.map_size as u64);
    handoff.state.descriptor_size = meta.desc_size as u32;
    handoff.state.descriptor_version = meta.desc_version;
    handoff
        .machine
        .set_memory(&MemoryMap::new(written(&map), meta.desc_size));
    for module in [Some(handoff.kernel), handoff.initrd].into_iter().flatten() {
        handoff.machine.reservations.push(Reservation {
            range: module,
            kind: ReservationKind::Module,
        });
    }
    // Linux reads it.
    core::mem::forget(map);
    // SAFETY: boot services were left, once.
    unsafe { leave_uefi(Box::into_raw(Box::new(handoff)).cast()) }
}

/// The part of the buffer of a map that holds descriptors.
fn written(map: &uefi::mem::memory_map::MemoryMapOwned) -> &[u8] {
    map.buffer().get(..map.meta().map_size).unwrap_or_default()
}

/// Memory that boot services have mapped.
struct Mapped<'a>(MemoryMap<'a>);

impl PhysMemory for Mapped<'_> {
    fn bytes(&self, range: MemoryRange) -> Result<&[u8], NotMemory> {
        if range.start.0 == 0 || !self.0.is_memory(range) {
            return Err(NotMemory { range });
        }
        let start = core::ptr::with_exposed_provenance(range.start.0 as usize);
        // SAFETY: all of it is memory, which UEFI maps one to one; tables do
        // not change.
        Ok(unsafe { core::slice::from_raw_parts(start, range.size as usize) })
    }
}

/// What the firmware says about signatures (UEFI 2.10, 3.3).
fn secure_boot() -> SecureBoot {
    use uefi::runtime::{VariableVendor, get_variable};
    let mut value = [0; 1];
    match get_variable(
        uefi::cstr16!("SecureBoot"),
        &VariableVendor::GLOBAL_VARIABLE,
        &mut value,
    ) {
        Ok(([1], _)) => SecureBoot::Enabled,
        Ok(_) => SecureBoot::Disabled,
        Err(error) if error.status() == Status::NOT_FOUND => SecureBoot::Disabled,
        Err(_) => SecureBoot::Unknown,
    }
}
