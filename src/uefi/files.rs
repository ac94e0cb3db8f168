//! Files, read into pages that stay when UEFI is left.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use uefi::boot::{self, AllocateType, ScopedProtocol};
use uefi::data_types::CString16;
use uefi::proto::device_path::DevicePath;
use uefi::proto::device_path::build::{self, DevicePathBuilder};
use uefi::proto::loaded_image::LoadedImage;
use uefi::proto::media::file::{
    Directory, File as _, FileAttribute, FileInfo, FileMode, RegularFile,
};
use uefi::proto::media::fs::SimpleFileSystem;
use uefi::{Handle, Status};
use uefi_raw::table::boot::MemoryType;
use warmbus_linux::load_options::LoadOptions;
use warmbus_memory::MemoryRange;
use warmbus_memory::PhysAddr;

use super::Why;

const KERNEL: &str = "\\warmbus\\Image";
const COMMAND_LINE: &str = "\\warmbus\\cmdline.txt";
/// Most bytes that the file with the command line may have; Linux takes 2048.
const LONGEST_COMMAND_LINE: u64 = 64 << 10;
const PAGE: usize = 4096;
/// Bytes of one read: some firmware fails with more than a few MiB.
const PIECE: usize = 1 << 20;

/// The load options of this image.
pub(super) fn load_options() -> LoadOptions {
    let image = boot::open_protocol_exclusive::<LoadedImage>(boot::image_handle());
    let raw = image
        .as_ref()
        .ok()
        .and_then(|image| image.load_options_as_bytes());
    LoadOptions::parse(raw.unwrap_or_default())
}

/// The volume that the kernel is on.
pub(super) struct Volume {
    handle: Handle,
    /// Open as long as files are read.
    _system: ScopedProtocol<SimpleFileSystem>,
    root: Directory,
    /// The path of the kernel.
    pub(super) kernel: String,
}

impl Volume {
    /// The volume that this image was loaded from, or else the first one that
    /// has the kernel.
    pub(super) fn with_kernel(options: &LoadOptions) -> Result<Self, Why> {
        let own = boot::open_protocol_exclusive::<LoadedImage>(boot::image_handle())
            .ok()
            .and_then(|image| image.device());
        let others = boot::find_handles::<SimpleFileSystem>().unwrap_or_default();
        let kernel = options.kernel.as_deref().unwrap_or(KERNEL);
        own.into_iter()
            .chain(others)
            .find_map(|handle| Self::open(handle, kernel))
            .ok_or_else(|| format!("there is no kernel: no volume has the file {kernel}").into())
    }

    fn open(handle: Handle, kernel: &str) -> Option<Self> {
        let mut system = boot::open_protocol_exclusive::<SimpleFileSystem>(handle).ok()?;
        let root = system.open_volume().ok()?;
        let mut volume = Self {
            handle,
            _system: system,
            root,
            kernel: kernel.into(),
        };
        volume.file(kernel).ok()??;
        Some(volume)
    }

    /// Opens a file; `None` where there is none of that name.
    fn file(&mut self, path: &str) -> Result<Option<RegularFile>, Why> {
        let name = CString16::try_from(path).map_err(|_| format!("{path} is no name of a file"))?;
        match self
            .root
            .open(&name, FileMode::Read, FileAttribute::empty())
        {
            Ok(file) => Ok(file.into_regular_file()),
            Err(error) if error.status() == Status::NOT_FOUND => Ok(None),
            Err(error) => Err(format!("{path} cannot be opened: {error}").into()),
        }
    }

    /// Reads a file into pages of its own; `None` where there is none of that
    /// name.
    pub(super) fn read(&mut self, path: &str) -> Result<Option<Pages>, Why> {
        let Some(mut file) = self.file(path)? else {
            return Ok(None);
        };
        let failed = |error: uefi::Error| format!("{path} cannot be read: {error}");
        let size = file
            .get_boxed_info::<FileInfo>()
            .map_err(failed)?
            .file_size();
        let mut pages = Pages::new(size)?;
        for piece in pages.bytes_mut().chunks_mut(PIECE) {
            let read = file.read(piece).map_err(failed)?;
            if read != piece.len() {
                return Err(format!("{path} ends before the {size:#x} bytes that it has").into());
            }
        }
        Ok(Some(pages))
    }

    /// The text of the file with the command line, which need not be there
    /// unless it was named.
    pub(super) fn command_line(&mut self, options: &LoadOptions) -> Result<String, Why> {
        let named = options.command_line_file.as_deref();
        let path = named.unwrap_or(COMMAND_LINE);
        let Some(pages) = self.read(path)? else {
            return match named {
                Some(path) => Err(format!("there is no file {path}").into()),
                None => Ok(String::new()),
            };
        };
        if pages.range().size > LONGEST_COMMAND_LINE {
            return Err(format!("{path} is too large for a command line").into());
        }
        let text = String::from_utf8_lossy(pages.bytes()).into_owned();
        Ok(text)
    }

    /// The device path of the kernel, in `storage`.
    pub(super) fn kernel_path<'s>(&self, storage: &'s mut Vec<u8>) -> Option<&'s DevicePath> {
        let volume = boot::open_protocol_exclusive::<DevicePath>(self.handle).ok()?;
        let name = CString16::try_from(self.kernel.as_str()).ok()?;
        let mut path = DevicePathBuilder::with_vec(storage);
        for node in volume.node_iter() {
            path = path.push(&node).ok()?;
        }
        let file = build::media::FilePath { path_name: &name };
        path.push(&file).ok()?.finalize().ok()
    }
}

/// Pages that stay allocated.
pub(super) struct Pages {
    range: MemoryRange,
}

impl Pages {
    /// Pages for `size` bytes, which is not 0.
    pub(super) fn new(size: u64) -> Result<Self, Why> {
        let bytes = usize::try_from(size)
            .ok()
            .filter(|&size| size != 0 && size < isize::MAX as usize);
        let count = bytes.map(|size| size.div_ceil(PAGE));
        let place = count
            .map(|count| {
                boot::allocate_pages(AllocateType::AnyPages, MemoryType::LOADER_DATA, count)
            })
            .ok_or("a file is empty")?
            .map_err(|error| format!("there is no memory for {size:#x} bytes: {error}"))?;
        // SAFETY: just allocated. It may hold anything, which is made bytes.
        unsafe { place.write_bytes(0, size as usize) };
        Ok(Self {
            range: MemoryRange::new(PhysAddr(place.addr().get() as u64), size),
        })
    }

    /// Where they are; as many bytes as were asked for.
    pub(super) const fn range(&self) -> MemoryRange {
        self.range
    }

    /// The same with fewer bytes, of which there are at least `size`.
    pub(super) fn shortened(mut self, size: u64) -> Self {
        self.range.size = self.range.size.min(size);
        self
    }

    pub(super) fn bytes(&self) -> &[u8] {
        let start = core::ptr::with_exposed_provenance(self.range.start.0 as usize);
        // SAFETY: they belong to this value, and are written.
        unsafe { core::slice::from_raw_parts(start, self.range.size as usize) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        let start = core::ptr::with_exposed_provenance_mut(self.range.start.0 as usize);
        // SAFETY: they belong to this value, and are written.
        unsafe { core::slice::from_raw_parts_mut(start, self.range.size as usize) }
    }
}
