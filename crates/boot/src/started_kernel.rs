//! The Linux kernel whose EFI stub is running, of what lies in memory.
//!
//! The EFI stub calls UEFI, which does not say who its caller is. But the stub
//! needs a `LoadedImage` protocol with its own image, whatever loader has
//! started it, and a zboot kernel unpacks into memory of the type `LoaderCode`
//! before it goes on. So the kernel is one of those; where they are not all the
//! same kernel, it is not known which of them is running.

use alloc::vec::Vec;

use warmbus_linux::decompress::is_zboot;
use warmbus_linux::detect;
use warmbus_linux::image::ImageHeader;

/// Where an image may begin: pages of UEFI.
const PAGE: usize = 4096;

/// What an image is that somebody has loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinuxImage {
    /// A kernel that runs where it lies, or copies itself.
    Unpacked,
    /// A kernel that unpacks itself.
    Zboot,
}

impl LinuxImage {
    /// What `image` is, if it is a Linux kernel for arm64.
    #[must_use]
    pub fn of(image: &[u8]) -> Option<Self> {
        if is_zboot(image) {
            return Some(Self::Zboot);
        }
        unpacked(image).map(|_| Self::Unpacked)
    }
}

/// Why it is not known which kernel is running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotKnown {
    /// There is none.
    #[error("the EFI stub of Linux is running, and its kernel is in no image that is loaded")]
    Nowhere,
    /// There are different ones.
    #[error("{0} kernels are in memory that differ, and it is not known which of them is running")]
    Several(usize),
}

/// Finds the kernel that is running: of `images`, those that somebody has
/// loaded, and, where one of those unpacks itself, of what begins at any page of
/// `code`, memory for the code of loaders.
pub fn started<'a>(
    images: &[&'a [u8]],
    code: impl FnOnce() -> Vec<&'a [u8]>,
) -> Result<&'a [u8], NotKnown> {
    let mut kernels: Vec<_> = images.iter().filter_map(|image| unpacked(image)).collect();
    if images.iter().any(|image| is_zboot(image)) {
        for memory in code() {
            let mut at = 0;
            while at < memory.len() {
                let kernel = unpacked(&memory[at..]);
                at += kernel.map_or(PAGE, |kernel| kernel.len().next_multiple_of(PAGE));
                kernels.extend(kernel);
            }
        }
    }
    let (&first, others) = kernels.split_first().ok_or(NotKnown::Nowhere)?;
    if others.iter().all(|other| is_same(first, other)) {
        return Ok(first);
    }
    Err(NotKnown::Several(kernels.len()))
}

/// The kernel at the start of `memory`.
fn unpacked(memory: &[u8]) -> Option<&[u8]> {
    let header = ImageHeader::parse(memory).ok()?;
    let size = usize::try_from(header.image_size).ok()?;
    let kernel = &memory[..size.min(memory.len())];
    detect::release(kernel).map(|_| kernel)
}

/// Whether both are one kernel, by all that a handover depends on. Their bytes
/// differ, as a kernel writes to its own data.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    ImageHeader::parse(one) == ImageHeader::parse(other)
        && detect::release(one) == detect::release(other)
        && detect::detect(one) == detect::detect(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec;

    /// An Image of two pages.
    fn image(release: &str, abi: &str, flags: u8) -> Vec<u8> {
        let mut image = vec![0; 2 * PAGE];
        image[..2].copy_from_slice(b"MZ");
        image[16..24].copy_from_slice(&(2 * PAGE as u64).to_le_bytes());
        image[24] = flags;
        image[56..60].copy_from_slice(b"ARM\x64");
        let texts = format!("\0Linux version {release} (b@h)\0\0{abi}\0");
        image[0x100..0x100 + texts.len()].copy_from_slice(texts.as_bytes());
        image
    }

    fn zboot() -> Vec<u8> {
        let mut image = vec![0; PAGE];
        image[..8].copy_from_slice(b"MZ\0\0zimg");
        image[24..28].copy_from_slice(b"zstd");
        image
    }

    fn none<'a>() -> Vec<&'a [u8]> {
        panic!("nothing unpacks itself")
    }

    #[test]
    fn the_kernel_is_the_only_one_among_images() {
        let kernel = image("7.3.4", "kho-v4", 2);
        let loader = vec![0x55; PAGE];
        assert_eq!(LinuxImage::of(&kernel), Some(LinuxImage::Unpacked));
        assert_eq!(LinuxImage::of(&loader), None);
        assert_eq!(started(&[&loader, &kernel], none), Ok(&kernel[..]));
        // One with more memory than its own.
        let mut longer = kernel.clone();
        longer.resize(5 * PAGE, 0);
        assert_eq!(started(&[&longer], none), Ok(&kernel[..]));
        assert_eq!(started(&[&loader], none), Err(NotKnown::Nowhere));
        assert_eq!(started(&[], none), Err(NotKnown::Nowhere));
    }

    #[test]
    fn one_that_has_written_to_its_data_is_the_same() {
        let kernel = image("7.3.4", "kho-v4", 2);
        let mut running = kernel.clone();
        running[PAGE] = 7;
        assert_eq!(started(&[&kernel, &running], none), Ok(&kernel[..]));
    }

    #[test]
    fn of_kernels_that_differ_none_is_taken() {
        let kernel = image("7.3.4", "kho-v4", 2);
        for other in [
            image("7.3.5", "kho-v4", 2),
            image("7.3.4", "kho-v3", 2),
            image("7.3.4", "kho-v4", 4),
        ] {
            let both = started(&[&kernel, &other], none);
            assert_eq!(both, Err(NotKnown::Several(2)));
        }
    }

    #[test]
    fn what_unpacks_itself_is_found_where_it_is_unpacked() {
        let (packed, kernel) = (zboot(), image("7.3.4", "kho-v4", 2));
        assert_eq!(LinuxImage::of(&packed), Some(LinuxImage::Zboot));
        let mut code = vec![0; 3 * PAGE];
        code.extend(&kernel);
        code.extend(&packed);
        let found = started(&[&packed], || vec![&packed, &code]);
        assert_eq!(found, Ok(&kernel[..]));
        // Two that are there, of which one may run.
        code.extend(image("6.12.0", "", 2));
        let found = started(&[&packed], || vec![&code]);
        assert_eq!(found, Err(NotKnown::Several(2)));
        let found = started(&[&packed], || vec![&packed]);
        assert_eq!(found, Err(NotKnown::Nowhere));
    }

    proptest::proptest! {
        #[test]
        fn any_memory_is_accepted(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), at in 0_usize..3) {
            let mut memory = match at {
                0 => image("7.3.4", "kho-v4", 2),
                1 => zboot(),
                _ => Vec::new(),
            };
            let end = memory.len().min(bytes.len());
            memory[..end].copy_from_slice(&bytes[..end]);
            let _ = started(&[&memory, &bytes], || vec![&memory, &bytes]);
        }
    }
}
