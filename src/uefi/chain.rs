//! Load options, and the program that an application starts.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use uefi::boot::{self, LoadImageSource};
use uefi::data_types::CString16;
use uefi::proto::BootPolicy;
use uefi::proto::device_path::DevicePath;
use uefi::proto::device_path::build::{self, DevicePathBuilder};
use uefi::proto::loaded_image::LoadedImage;
use uefi::proto::media::file::{
    Directory, File as _, FileAttribute, FileInfo, FileMode, RegularFile,
};
use uefi::proto::media::fs::SimpleFileSystem;
use uefi::{Handle, Status};
use warmbus_boot::load_options::LoadOptions;

use super::{Why, cannot};

/// The file with load options, for a boot manager that passes none.
pub(super) const OPTIONS: &str = "\\warmbus\\options.txt";
/// Most bytes of that file.
const LONGEST_OPTIONS: u64 = 64 << 10;

/// The load options of this image, or those in its file where it has none.
pub(super) fn load_options() -> LoadOptions {
    let image = boot::open_protocol_exclusive::<LoadedImage>(boot::image_handle());
    let raw = image
        .as_ref()
        .ok()
        .and_then(|image| image.load_options_as_bytes());
    let options = raw.and_then(LoadOptions::from_utf16);
    drop(image);
    options
        .or_else(|| Some(LoadOptions::from_text(&options_file()?)))
        .unwrap_or_default()
}

/// The text of the file with options, if there is one.
fn options_file() -> Option<String> {
    let mut root = root()?;
    let mut file = open(&mut root, OPTIONS, FileMode::Read).ok()?;
    let size = file.get_boxed_info::<FileInfo>().ok()?.file_size();
    if size > LONGEST_OPTIONS {
        return None;
    }
    let mut bytes = alloc::vec![0; size as usize];
    let read = file.read(&mut bytes).ok()?;
    bytes.truncate(read);
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The volume that this image was loaded from.
fn volume() -> Option<Handle> {
    let image = boot::open_protocol_exclusive::<LoadedImage>(boot::image_handle()).ok()?;
    image.device()
}

fn root() -> Option<Directory> {
    let mut system = boot::open_protocol_exclusive::<SimpleFileSystem>(volume()?).ok()?;
    system.open_volume().ok()
}

fn open(root: &mut Directory, path: &str, mode: FileMode) -> Result<RegularFile, Why> {
    let name = CString16::try_from(path).map_err(|_| format!("{path} is no name of a file"))?;
    let file = root
        .open(&name, mode, FileAttribute::empty())
        .map_err(|error| format!("{path} cannot be opened: {}", error.status()))?;
    let file = file.into_regular_file();
    file.ok_or_else(|| format!("{path} is no file").into())
}

/// Writes `text` to the file `path` of the volume of this image, in place of
/// one that there may be.
pub(super) fn write_file(path: &str, text: &str) -> Result<(), Why> {
    let mut root = root().ok_or("the volume of Warmbus has no files")?;
    if let Ok(old) = open(&mut root, path, FileMode::ReadWrite) {
        old.delete()
            .map_err(|error| format!("{path} cannot be replaced: {}", error.status()))?;
    }
    let mut file = open(&mut root, path, FileMode::CreateReadWrite)?;
    file.write(text.as_bytes())
        .map_err(|error| format!("{path} cannot be written: {}", error.status()))?;
    file.flush()
        .map_err(|error| format!("{path} cannot be written: {}", error.status()).into())
}

/// Loads the program `next` from the volume of this image and starts it with
/// `options`. Returns what it returns.
pub(super) fn start(next: &str, options: &str) -> Result<Status, Why> {
    let mut storage = Vec::new();
    let path = device_path(next, &mut storage).ok_or("the volume of Warmbus has no device path")?;
    let source = LoadImageSource::FromDevicePath {
        device_path: path,
        boot_policy: BootPolicy::ExactMatch,
    };
    let image =
        boot::load_image(boot::image_handle(), source).map_err(cannot(&format!("load {next}")))?;
    let line =
        CString16::try_from(options).map_err(|_| "the load options of next= are no UCS-2")?;
    if !options.is_empty() {
        let mut loaded = boot::open_protocol_exclusive::<LoadedImage>(image)
            .map_err(cannot(&format!("pass load options to {next}")))?;
        // SAFETY: the line lives until the program comes back.
        unsafe { loaded.set_load_options(line.as_ptr().cast(), line.num_bytes() as u32) };
    }
    match boot::start_image(image) {
        Ok(()) => Ok(Status::SUCCESS),
        Err(error) => Ok(error.status()),
    }
}

/// The device path of the file `name` on the volume of this image, in
/// `storage`.
fn device_path<'s>(name: &str, storage: &'s mut Vec<u8>) -> Option<&'s DevicePath> {
    let volume = boot::open_protocol_exclusive::<DevicePath>(volume()?).ok()?;
    let name = CString16::try_from(name).ok()?;
    let mut path = DevicePathBuilder::with_vec(storage);
    for node in volume.node_iter() {
        path = path.push(&node).ok()?;
    }
    let file = build::media::FilePath { path_name: &name };
    path.push(&file).ok()?.finalize().ok()
}
