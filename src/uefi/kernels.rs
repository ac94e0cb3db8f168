//! Kernels that are loaded: UEFI says when, and the image is looked at before
//! it is started.

use alloc::boxed::Box;
use alloc::string::ToString;
use core::ffi::c_void;
use core::ptr::NonNull;

use log::debug;
use uefi::boot::{self, EventType, SearchType, Tpl};
use uefi::proto::loaded_image::LoadedImage;
use uefi::{Event, Guid, Handle, Identify, guid};
use warmbus_linux::decompress::KernelFormat;
use warmbus_linux::detect;
use warmbus_linux::image::{HEADER_SIZE, ImageHeader};
use warmbus_linux::pe::kernel_of_unified_image;
use warmbus_memory::{MemoryRange, PhysAddr};

use super::handover::Resident;
use super::pages::Pages;
use super::{Why, shared_protocol};

/// Names the handle of the image that is resident.
static RESIDENT: Guid = guid!("4b5b6a6e-3f1d-4c0e-8a55-2f0f2f1c9b0d");

/// What is called for each image.
struct Watch {
    resident: Box<Resident>,
    images: Option<SearchType<'static>>,
}

/// What ends the watch.
pub(super) struct Watching {
    event: Event,
    watch: *mut Watch,
}

/// Marks this image as the resident one. `false` where there is one.
pub(super) fn claim() -> Result<bool, Why> {
    if boot::locate_handle_buffer(SearchType::ByProtocol(&RESIDENT)).is_ok() {
        return Ok(false);
    }
    let handle = Some(boot::image_handle());
    // SAFETY: the protocol has no interface.
    unsafe { boot::install_protocol_interface(handle, &RESIDENT, core::ptr::null()) }?;
    Ok(true)
}

/// Has `resident` look at each image that is loaded from now on.
pub(super) fn watch(resident: Box<Resident>) -> Result<Watching, Why> {
    let watch = Box::into_raw(Box::new(Watch {
        resident,
        images: None,
    }));
    let context = NonNull::new(watch.cast::<c_void>());
    // SAFETY: the callback runs until `end`, and `watch` stays so long. After
    // boot services it is never called, as nothing is loaded then.
    let event = unsafe {
        boot::create_event(
            EventType::NOTIFY_SIGNAL,
            Tpl::CALLBACK,
            Some(image_loaded),
            context,
        )
    }?;
    let images = boot::register_protocol_notify(&LoadedImage::GUID, &event)?;
    // The first searches return the images that are there already.
    while boot::locate_handle_buffer(images).is_ok() {}
    // SAFETY: a callback would find no key and do nothing.
    unsafe { (*watch).images = Some(images) };
    Ok(Watching { event, watch })
}

/// Ends the watch, and takes back what was handed over.
pub(super) fn end(watching: Watching) {
    // An event that cannot be closed would call what is about to be removed.
    if boot::close_event(watching.event).is_ok() {
        // SAFETY: it was made by `watch`, and no callback has it any more.
        drop(unsafe { Box::from_raw(watching.watch) });
    }
    // SAFETY: it was installed by `claim`.
    let _ = unsafe {
        boot::uninstall_protocol_interface(boot::image_handle(), &RESIDENT, core::ptr::null())
    };
}

/// Called for each image after it was loaded, and before it is started.
unsafe extern "efiapi" fn image_loaded(_: Event, context: Option<NonNull<c_void>>) {
    let Some(watch) = context else {
        return;
    };
    // SAFETY: it is the one of `watch`. Callbacks of one priority do not
    // interrupt each other.
    let watch = unsafe { watch.cast::<Watch>().as_mut() };
    let Some(images) = watch.images else {
        return;
    };
    // Each search returns images that were not returned before.
    while let Ok(handles) = boot::locate_handle_buffer(images) {
        for &handle in handles.iter() {
            if let Some((start, size)) = image_of(handle) {
                // SAFETY: UEFI has just loaded an image there.
                let image = unsafe { core::slice::from_raw_parts(start, size) };
                look_at(image, &mut watch.resident);
            }
        }
    }
}

/// Where an image lies.
fn image_of(handle: Handle) -> Option<(*const u8, usize)> {
    // SAFETY: it is only looked at here, where nobody can remove it.
    let image = unsafe { shared_protocol::<LoadedImage>(handle) }?;
    let (start, size) = image.info();
    let size = usize::try_from(size).ok()?;
    let fits = !start.is_null() && isize::try_from(size).is_ok();
    fits.then_some((start.cast(), size))
}

/// Prepares the handover if `image` is a Linux kernel, or has one.
fn look_at(image: &[u8], resident: &mut Resident) {
    let kernel = kernel_of_unified_image(image).unwrap_or(image);
    let start = PhysAddr(image.as_ptr().addr() as u64);
    let range = MemoryRange::new(start, image.len() as u64);
    debug!("an image was loaded at {range}");
    let unpacked = match KernelFormat::detect(kernel) {
        Ok(KernelFormat::Uncompressed(kernel)) => {
            if is_linux(kernel) {
                resident.prepare(range, kernel);
            }
            return;
        }
        Ok(packed) => unpack(&packed),
        // A kernel that says what it is packed with.
        Err(error) => Err(error.into()),
    };
    match unpacked {
        Ok((mut pages, size)) => {
            let kernel = &pages.bytes_mut()[..size];
            if is_linux(kernel) {
                resident.prepare(range, kernel);
            }
        }
        Err(why) => resident.refuse(&why.to_string()),
    }
}

fn unpack(packed: &KernelFormat<'_>) -> Result<(Pages, usize), Why> {
    let mut start = [0; HEADER_SIZE];
    let count = packed.read_prefix(&mut start)?;
    let header = ImageHeader::parse(&start[..count])?;
    let mut pages = Pages::anywhere(header.image_size)?;
    let size = packed.decompress_into(pages.bytes_mut())?;
    Ok((pages, size))
}

/// Whether `image` is an arm64 kernel, and says which.
fn is_linux(image: &[u8]) -> bool {
    ImageHeader::parse(image).is_ok() && detect::release(image).is_some()
}
