//! The kernel: for us the bytes, for UEFI an image that it could start.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use uefi::boot::{self, LoadImageSource};
use uefi::data_types::CString16;
use uefi::proto::loaded_image::LoadedImage;
use uefi::{Handle, Status};
use warmbus_linux::decompress::KernelFormat;
use warmbus_linux::image::{HEADER_SIZE, ImageHeader};
use warmbus_memory::MemoryRange;

use super::Why;
use super::files::{Pages, Volume};

/// A kernel in memory.
pub(super) struct Kernel {
    path: String,
    pages: Pages,
    /// Why it is not to be started by us.
    trouble: Option<String>,
    /// What UEFI makes of it. It is asked first, so that it has checked the
    /// signature, and measured, what is started, by UEFI or by us.
    image: Result<Handle, Status>,
}

impl Kernel {
    /// Reads the kernel of `volume` and unpacks it. Where that is not
    /// possible, what was read may still be something that UEFI can start.
    pub(super) fn load(volume: &mut Volume) -> Result<Self, Why> {
        let path = volume.kernel.clone();
        let file = volume.read(&path)?.ok_or("the kernel is gone")?;
        let is_program = file.bytes().starts_with(b"MZ");
        let (pages, trouble) = match unpack(&file) {
            Ok(Some(unpacked)) => (unpacked, None),
            Ok(None) => (file, None),
            Err(why) if is_program => (file, Some(format!("{path}: {why}"))),
            Err(why) => return Err(format!("{path}: {why}").into()),
        };
        let mut storage = Vec::new();
        let source = LoadImageSource::FromBuffer {
            buffer: pages.bytes(),
            file_path: volume.kernel_path(&mut storage),
        };
        let image = boot::load_image(boot::image_handle(), source).map_err(|error| error.status());
        Ok(Self {
            path,
            pages,
            trouble,
            image,
        })
    }

    /// Fails where UEFI does not let the kernel be started.
    pub(super) fn may_be_started(&self) -> Result<(), Why> {
        match self.image {
            Err(status @ (Status::SECURITY_VIOLATION | Status::ACCESS_DENIED)) => {
                Err(format!("UEFI does not let {} be started: {status}", self.path).into())
            }
            _ => Ok(()),
        }
    }

    /// Fails where the kernel cannot be started by us.
    pub(super) fn check(&self) -> Result<(), Why> {
        if let Some(trouble) = &self.trouble {
            return Err(trouble.clone().into());
        }
        let header = ImageHeader::parse(self.pages.bytes())?;
        header.check_file(self.pages.range().size)?;
        Ok(())
    }

    /// Where it is, unpacked.
    pub(super) const fn unpacked(&self) -> MemoryRange {
        self.pages.range()
    }

    /// Gives back what UEFI made of it.
    pub(super) fn forget(self) {
        if let Ok(image) = self.image {
            // It only takes memory until boot services are left.
            let _ = boot::unload_image(image);
        }
    }

    /// Lets UEFI start the kernel. Its EFI stub reads the file `initrd` by
    /// itself, and finds what a boot loader offers.
    pub(super) fn start(&self, command_line: &str, initrd: Option<&str>) -> Result<(), Why> {
        let failed = |what, status| format!("UEFI cannot {what} {}: {status}", self.path);
        let image = self.image.map_err(|status| failed("load", status))?;
        let mut line = String::from(command_line);
        if let Some(initrd) = initrd {
            line = format!("initrd={initrd} {line}");
        }
        let line =
            CString16::try_from(line.as_str()).map_err(|_| "the command line is no UCS-2")?;
        {
            let mut loaded = boot::open_protocol_exclusive::<LoadedImage>(image)?;
            // SAFETY: the line lives until the kernel comes back.
            unsafe { loaded.set_load_options(line.as_ptr().cast(), line.num_bytes() as u32) };
        }
        boot::start_image(image).map_err(|error| failed("start", error.status()).into())
    }
}

/// The kernel in `file`, unpacked into pages of its own, if it is packed.
fn unpack(file: &Pages) -> Result<Option<Pages>, Why> {
    let packed = KernelFormat::detect(file.bytes())?;
    let KernelFormat::Gzip(_) = packed else {
        return Ok(None);
    };
    let mut start = [0; HEADER_SIZE];
    let count = packed.read_prefix(&mut start)?;
    let header = ImageHeader::parse(&start[..count])?;
    let mut pages = Pages::new(header.image_size)?;
    let size = packed.decompress_into(pages.bytes_mut())?;
    Ok(Some(pages.shortened(size as u64)))
}
