//! The initrd: a file, or what a boot loader before us offers to the EFI stub
//! of Linux.

use alloc::format;
use alloc::string::String;
use core::ptr;

use uefi::proto::device_path::DevicePath;
use uefi::proto::unsafe_protocol;
use uefi::{Status, boot};
use uefi_raw::protocol::media::LoadFile2Protocol;
use warmbus_linux::load_options::LoadOptions;
use warmbus_memory::MemoryRange;

use super::Why;
use super::files::{Pages, Volume};

/// A vendor media device path with `LINUX_EFI_INITRD_MEDIA_GUID`
/// (5568e427-68fc-4f3d-ac74-ca555231cc68), and its end.
const PATH: [u8; 24] = [
    4, 3, 20, 0, 0x27, 0xe4, 0x68, 0x55, 0xfc, 0x68, 0x3d, 0x4f, 0xac, 0x74, 0xca, 0x55, 0x52,
    0x31, 0xcc, 0x68, 0x7f, 0xff, 4, 0,
];

/// The file that is looked for where nothing else is said.
const DEFAULT: &str = "\\warmbus\\initrd";

#[repr(transparent)]
#[unsafe_protocol(LoadFile2Protocol::GUID)]
struct LoadFile2(LoadFile2Protocol);

/// An initrd in memory.
pub(super) struct Initrd {
    pub(super) range: MemoryRange,
    /// Its file, where it is one.
    pub(super) path: Option<String>,
}

/// The initrd, if there is one: the file that was named, or else what a boot
/// loader offers, or else the file with the usual name.
pub(super) fn load(volume: &mut Volume, options: &LoadOptions) -> Result<Option<Initrd>, Why> {
    let from_file = |path: &str, pages: Pages| Initrd {
        range: pages.range(),
        path: Some(path.into()),
    };
    if let Some(path) = options.initrd.as_deref() {
        let pages = volume.read(path)?;
        let pages = pages.ok_or_else(|| format!("there is no initrd {path}"))?;
        return Ok(Some(from_file(path, pages)));
    }
    if let Some(pages) = offered()? {
        return Ok(Some(Initrd {
            range: pages.range(),
            path: None,
        }));
    }
    let pages = volume.read(DEFAULT)?;
    Ok(pages.map(|pages| from_file(DEFAULT, pages)))
}

/// What a boot loader offers.
fn offered() -> Result<Option<Pages>, Why> {
    let Ok(mut path) = <&DevicePath>::try_from(&PATH[..]) else {
        return Ok(None);
    };
    let Ok(handle) = boot::locate_device_path::<LoadFile2>(&mut path) else {
        return Ok(None);
    };
    let mut protocol = boot::open_protocol_exclusive::<LoadFile2>(handle)?;
    let mut load = |buffer: *mut u8, size: &mut usize| {
        let this = &raw mut protocol.0;
        // SAFETY: the protocol is open; there are `size` bytes at `buffer`, or
        // none, and then nothing is written.
        unsafe {
            ((*this).load_file)(
                this,
                path.as_ffi_ptr().cast(),
                uefi_raw::Boolean::FALSE,
                size,
                buffer.cast(),
            )
        }
    };
    let mut size = 0;
    match load(ptr::null_mut(), &mut size) {
        Status::BUFFER_TOO_SMALL => {}
        status => return Err(format!("the initrd that is offered has no size: {status}").into()),
    }
    let mut pages = Pages::new(size as u64)?;
    match load(pages.bytes_mut().as_mut_ptr(), &mut size) {
        Status::SUCCESS => Ok(Some(pages)),
        status => Err(format!("the initrd that is offered cannot be loaded: {status}").into()),
    }
}
