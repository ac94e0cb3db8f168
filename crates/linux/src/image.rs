//! The header of an arm64 Linux `Image`.
//!
//! The layout is that of "Booting AArch64 Linux"
//! (`Documentation/arch/arm64/booting.rst`).

use warmbus_memory::PageSize;
use warmbus_memory::bytes::{le_u32, le_u64};

/// Bytes of the header.
pub const HEADER_SIZE: usize = 64;

/// The largest memory size that is accepted: no Linux comes near it, and sums
/// with it do not overflow.
const MAX_IMAGE_SIZE: u64 = 1 << 32;

const MAGIC_OFFSET: usize = 56;
const MAGIC: [u8; 4] = *b"ARM\x64";

/// The header of a decompressed arm64 `Image`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageHeader {
    /// Offset of the image from a 2 MiB boundary, in bytes; below 2 MiB.
    pub text_offset: u64,
    /// Bytes of memory that the kernel occupies from its first byte on, BSS
    /// included; never less than [`HEADER_SIZE`].
    pub image_size: u64,
    /// The kernel runs big endian.
    pub big_endian: bool,
    /// The page size, where the header names it.
    pub page_size: Option<PageSize>,
    /// The kernel may be placed anywhere in memory; without it, it cannot use
    /// the memory below itself.
    pub anywhere: bool,
}

impl ImageHeader {
    /// Reads the header at the start of a decompressed image. Only the first
    /// [`HEADER_SIZE`] bytes are read.
    pub fn parse(image: &[u8]) -> Result<Self, ImageError> {
        let Some(header) = image.get(..HEADER_SIZE) else {
            return Err(ImageError::TooShort { bytes: image.len() });
        };
        let field = |offset| le_u64(header, offset).unwrap_or_default();
        let found = le_u32(header, MAGIC_OFFSET).unwrap_or_default();
        if found != u32::from_le_bytes(MAGIC) {
            return Err(ImageError::NoMagic { found });
        }
        let text_offset = field(8);
        let image_size = field(16);
        let flags = field(24);
        if image_size == 0 {
            return Err(ImageError::NoSize);
        }
        if image_size < HEADER_SIZE as u64 || image_size > MAX_IMAGE_SIZE {
            return Err(ImageError::Size { image_size });
        }
        if text_offset >= 2 << 20 || !text_offset.is_multiple_of(4096) {
            return Err(ImageError::TextOffset { text_offset });
        }
        Ok(Self {
            text_offset,
            image_size,
            big_endian: flags & 1 != 0,
            page_size: match flags >> 1 & 3 {
                1 => Some(PageSize::K4),
                2 => Some(PageSize::K16),
                3 => Some(PageSize::K64),
                _ => None,
            },
            anywhere: flags & 8 != 0,
        })
    }

    /// Refuses a file that holds more bytes than the kernel claims: they would
    /// be written over the memory after it.
    pub fn check_file(&self, file_size: u64) -> Result<(), ImageError> {
        if file_size > self.image_size {
            return Err(ImageError::LongerThanItsSize {
                file_size,
                image_size: self.image_size,
            });
        }
        Ok(())
    }
}

/// Why a file is not an arm64 `Image` that can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// There is not even a header.
    #[error("the kernel image has {bytes} bytes, less than the {HEADER_SIZE} of its header")]
    TooShort {
        /// Bytes that there are.
        bytes: usize,
    },
    /// The magic number is another one.
    #[error(
        "the kernel is no arm64 Image: its magic number is {found:#010x} instead of {:#010x}",
        u32::from_le_bytes(MAGIC)
    )]
    NoMagic {
        /// What is in its place.
        found: u32,
    },
    /// The header does not name the size in memory.
    #[error(
        "the kernel image does not name its size in memory (Linux before 3.17), which is not supported"
    )]
    NoSize,
    /// The memory size is invalid.
    #[error("the kernel image claims {image_size:#x} bytes of memory, which is invalid")]
    Size {
        /// The value in the header.
        image_size: u64,
    },
    /// The text offset is invalid.
    #[error(
        "the text offset {text_offset:#x} of the kernel image is not a page-aligned number below 2 MiB"
    )]
    TextOffset {
        /// The value in the header.
        text_offset: u64,
    },
    /// The file is longer than the memory that the kernel claims.
    #[error(
        "the kernel image has {file_size:#x} bytes but claims only {image_size:#x} bytes of memory"
    )]
    LongerThanItsSize {
        /// Bytes of the file.
        file_size: u64,
        /// Bytes of memory that the header claims.
        image_size: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;
    use alloc::vec::Vec;

    /// The first 64 bytes of a Linux 7.3.4 with 64K pages, as the build wrote them.
    fn linux_7_3_64k() -> Vec<u8> {
        let mut image = vec![0; HEADER_SIZE];
        image[..8].copy_from_slice(&[0x1f, 0x20, 0x03, 0xd5, 0xff, 0x3f, 0x12, 0x14]);
        image[18..20].copy_from_slice(&[0x8f, 0x00]);
        image[24] = 0x0e;
        image[56..60].copy_from_slice(&[0x41, 0x52, 0x4d, 0x64]);
        image
    }

    #[test]
    fn a_header_has_size_page_size_and_freedom_of_placement() {
        let header = ImageHeader::parse(&linux_7_3_64k()).unwrap();
        assert_eq!(header.image_size, 0x8f_0000);
        assert_eq!(header.text_offset, 0);
        assert_eq!(header.page_size, Some(PageSize::K64));
        assert!(header.anywhere && !header.big_endian);
    }

    #[test]
    fn every_field_out_of_reason_is_named_in_the_error() {
        let refused = |at: usize, bytes: &[u8]| {
            let mut image = linux_7_3_64k();
            image[at..at + bytes.len()].copy_from_slice(bytes);
            ImageHeader::parse(&image).unwrap_err()
        };
        assert_eq!(
            refused(56, b"MZ\0\0"),
            ImageError::NoMagic { found: 0x5a4d }
        );
        assert_eq!(refused(16, &[0; 8]), ImageError::NoSize);
        assert!(refused(16, &[0xff; 8]).to_string().contains("0xffffffff"));
        assert!(refused(8, &[0, 0, 0x20]).to_string().contains("0x200000"));
        assert!(refused(8, &[1]).to_string().contains("0x1 "));
        assert_eq!(
            ImageHeader::parse(&linux_7_3_64k()[..63]),
            Err(ImageError::TooShort { bytes: 63 })
        );
    }

    #[test]
    fn a_file_longer_than_its_memory_is_refused() {
        let header = ImageHeader::parse(&linux_7_3_64k()).unwrap();
        assert_eq!(header.check_file(0x8f_0000), Ok(()));
        assert!(header.check_file(0x8f_0001).is_err());
    }
}
