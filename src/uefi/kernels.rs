//! Kernels that start: the EFI stub of Linux says when, whatever loader has
//! loaded it, and before it copies the device tree.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ffi::c_void;
use core::ptr::NonNull;

use uefi::boot::{self, EventType, SearchType, Tpl};
use uefi::proto::loaded_image::LoadedImage;
use uefi::{Event, Guid, Handle, Status, guid};
use warmbus_boot::load_options;
use warmbus_boot::resident::LoadedKernel;
use warmbus_boot::started_kernel::{LinuxImage, started};
use warmbus_memory::{MemoryRange, PhysAddr, PhysMemory as _};

use super::handover::Resident;
use super::mapped::{MapNow, Mapped};
use super::{Why, cannot, shared_protocol};

/// Names the handle of the image that is resident.
static RESIDENT: Guid = guid!("4b5b6a6e-3f1d-4c0e-8a55-2f0f2f1c9b0d");

/// `LINUX_EFI_MEMRESERVE_TABLE_GUID`: the last table that the EFI stub of each
/// arm64 Linux since 5.0 installs before it copies the device tree. UEFI signals
/// the events of this group then (UEFI 2.10, 7.5.6).
static STUB_IS_READY: Guid = guid!("888eb0c6-8ede-4ff5-a8f0-9aee5cb977c2");

/// The mark of the image that is resident. It ends with this value.
pub(super) struct Claim;

impl Claim {
    /// Marks this image; `None` where another one is resident.
    pub(super) fn new() -> Result<Option<Self>, Why> {
        match boot::locate_handle_buffer(SearchType::ByProtocol(&RESIDENT)) {
            Ok(_) => return Ok(None),
            Err(error) if error.status() == Status::NOT_FOUND => {}
            Err(error) => return Err(cannot("look for another Warmbus")(error).into()),
        }
        let handle = Some(boot::image_handle());
        // SAFETY: the protocol has no interface.
        let marked =
            unsafe { boot::install_protocol_interface(handle, &RESIDENT, core::ptr::null()) };
        marked.map_err(cannot("mark Warmbus as resident"))?;
        Ok(Some(Self))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let handle = boot::image_handle();
        // SAFETY: `new` has installed it. A mark that stays keeps others away.
        let _ = unsafe { boot::uninstall_protocol_interface(handle, &RESIDENT, core::ptr::null()) };
    }
}

/// The watch for kernels that start. With it ends what was handed over.
pub(super) struct Watch {
    event: Option<Event>,
    resident: *mut Resident,
    _claim: Claim,
}

impl Watch {
    /// Has `resident` look at each kernel that starts from now on.
    pub(super) fn new(claim: Claim, resident: Box<Resident>) -> Result<Self, Why> {
        let mut watch = Self {
            event: None,
            resident: Box::into_raw(resident),
            _claim: claim,
        };
        let context = NonNull::new(watch.resident.cast::<c_void>());
        // SAFETY: the callback runs until `drop`, and `resident` stays so long.
        // After boot services nobody signals it.
        let event = unsafe {
            boot::create_event_ex(
                EventType::NOTIFY_SIGNAL,
                Tpl::CALLBACK,
                Some(stub_is_ready),
                context,
                Some(&STUB_IS_READY),
            )
        };
        watch.event = Some(event.map_err(cannot("say when a kernel starts"))?);
        Ok(watch)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // An event that cannot be closed would call what is about to be removed.
        if self
            .event
            .take()
            .is_none_or(|event| boot::close_event(event).is_ok())
        {
            // SAFETY: `new` has made it, and no callback has it any more.
            drop(unsafe { Box::from_raw(self.resident) });
        }
    }
}

/// Called while the EFI stub of a kernel runs.
unsafe extern "efiapi" fn stub_is_ready(_: Event, context: Option<NonNull<c_void>>) {
    let Some(resident) = context else {
        return;
    };
    // SAFETY: it is the one of the watch. Callbacks of one priority do not
    // interrupt each other.
    let resident = unsafe { resident.cast::<Resident>().as_mut() };
    if let Err(why) = look_for_kernel(resident) {
        resident.refuse(&why.to_string());
    }
}

/// Finds the kernel that is running, and has `resident` prepare its handover.
fn look_for_kernel(resident: &mut Resident) -> Result<(), Why> {
    let map = MapNow::read()?;
    let memory = Mapped::of(&map);
    let mut images = Vec::new();
    let mut lines = Vec::new();
    let handles = boot::find_handles::<LoadedImage>();
    for handle in handles.map_err(cannot("list what it has loaded"))? {
        let Some((range, line)) = image_of(handle) else {
            continue;
        };
        let image = memory.bytes(range).unwrap_or_default();
        if LinuxImage::of(image).is_some() {
            images.push(image);
            lines.extend(line);
        }
    }
    let code = || {
        let code = memory.map().loader_code();
        code.filter_map(|range| memory.bytes(range).ok()).collect()
    };
    let image = started(&images, code)?;
    let start = PhysAddr(image.as_ptr().addr() as u64);
    resident.prepare(LoadedKernel {
        range: MemoryRange::new(start, image.len() as u64),
        image,
        command_line: &lines.join(" "),
    });
    Ok(())
}

/// Where an image lies, and its load options, which are the command line of a
/// kernel.
fn image_of(handle: Handle) -> Option<(MemoryRange, Option<String>)> {
    // SAFETY: it is only looked at here, where nobody can remove it.
    let image = unsafe { shared_protocol::<LoadedImage>(handle) }?;
    let (start, size) = image.info();
    let start = PhysAddr(start.addr() as u64);
    start.0.checked_add(size)?;
    let line = image.load_options_as_bytes().and_then(load_options::text);
    Some((MemoryRange::new(start, size), line))
}
