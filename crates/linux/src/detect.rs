//! Which version of the Kexec HandOver ABI a kernel has, and whether it reads
//! the extension of the format, from the bytes of its image.
//!
//! The kernel compares the handover tree with one string literal. The literal
//! is in the decompressed image once, between two NULs.

use alloc::string::String;

use warmbus_kho::KhoAbi;
use warmbus_memory::PageSize;
use warmbus_memory::search::Finder;

/// The start of the literal that names the version of the ABI.
const ABI_MARKER: &[u8] = b"\0kho-v";

/// Bytes of the longest string that may be one of the ABI.
const MAX_ABI: usize = 256;

/// The name of a property that only kernels look for which read the extension
/// of the blocks (`docs/pcsc-format.md`), as their string literal.
const EXTENSION_MARKER: &[u8] = b"\0warmbus,version\0";

/// The start of the banner; the release follows, then a space.
const BANNER: &[u8] = b"Linux version ";

/// Bytes of the longest release: the size of the field of `uname`.
const MAX_RELEASE: usize = 65;

/// Looks for the handover ABI string in a decompressed kernel image.
///
/// `None` means that the kernel has no Kexec HandOver.
pub fn detect(image: &[u8]) -> Result<Option<KhoAbi>, DetectError> {
    let mut only: Option<&[u8]> = None;
    for at in Finder::new(ABI_MARKER).find_in(image) {
        let tail = &image[at + 1..];
        if !tail
            .get(ABI_MARKER.len() - 1)
            .is_some_and(u8::is_ascii_digit)
        {
            continue;
        }
        let tail = &tail[..tail.len().min(MAX_ABI)];
        let end = memchr::memchr(0, tail).ok_or(DetectError::Unterminated { offset: at + 1 })?;
        let found = &tail[..end];
        match only {
            Some(first) if first != found => {
                return Err(DetectError::Several {
                    first: text(first),
                    second: text(found),
                });
            }
            _ => only = Some(found),
        }
    }
    match only {
        None => Ok(None),
        Some(b"kho-v1") => Ok(Some(KhoAbi::V1)),
        Some(b"kho-v3") => Ok(Some(KhoAbi::V3)),
        Some(b"kho-v4") => Ok(Some(KhoAbi::V4)),
        Some(other) => Err(DetectError::Unknown { found: text(other) }),
    }
}

/// Whether a decompressed kernel image reads the extension of the blocks, with
/// its routing records.
///
/// This decides only which facts are worth probing: every kernel can read the
/// handover, with or without the extension.
#[must_use]
pub fn supports_pcsc_extension(image: &[u8]) -> bool {
    Finder::new(EXTENSION_MARKER)
        .find_in(image)
        .next()
        .is_some()
}

/// The release of a decompressed kernel image, for example `7.3.4-arm64`, from
/// its banner; `None` where there is no banner.
#[must_use]
pub fn release(image: &[u8]) -> Option<&str> {
    let finder = Finder::new(BANNER);
    let mut banners = finder.find_in(image);
    banners.find_map(|at| {
        let tail = &image[at + BANNER.len()..];
        let tail = &tail[..tail.len().min(MAX_RELEASE)];
        let end = memchr::memchr2(b' ', 0, tail)?;
        let text = core::str::from_utf8(&tail[..end]).ok()?;
        let is_release = text.starts_with(|letter: char| letter.is_ascii_digit())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_release.then_some(text)
    })
}

/// The page size that a handover for this kernel is laid out with.
///
/// Big-endian kernels are refused: they read every number of the handover in
/// the other byte order.
pub fn page_size(header: &crate::image::ImageHeader) -> Result<PageSize, DetectError> {
    if header.big_endian {
        return Err(DetectError::BigEndian);
    }
    header.page_size.ok_or(DetectError::NoPageSize)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Why no handover can be made for a kernel. It can be started without one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DetectError {
    /// A version, or a part of one, that is not known.
    #[error(
        "the kernel has the handover version '{found}', which is not supported (kho-v1, kho-v3 and kho-v4 are)"
    )]
    Unknown {
        /// The whole string.
        found: String,
    },
    /// Two different versions in one image.
    #[error("the kernel holds two handover versions, '{first}' and '{second}'")]
    Several {
        /// The first one.
        first: String,
        /// One that differs from it.
        second: String,
    },
    /// A string without an end.
    #[error("the handover version at offset {offset:#x} of the kernel has no end")]
    Unterminated {
        /// Where it starts in the image.
        offset: usize,
    },
    /// The kernel is big endian.
    #[error("the kernel is big endian, for which no handover is made")]
    BigEndian,
    /// The header does not name the page size.
    #[error("the kernel image does not name its page size, so no handover can be made for it")]
    NoPageSize,
}

/// Whether a decompressed kernel image preserves the scratch memory of a
/// handover when it reads the memory map of UEFI. Kernels from 7.0 on do;
/// those without a release in their banner are taken for older ones.
#[must_use]
pub fn keeps_scratch_with_uefi(image: &[u8]) -> bool {
    const FIRST_MAJOR: u32 = 7;

    let major = release(image).and_then(|release| release.split('.').next()?.parse::<u32>().ok());
    major.is_some_and(|major| major >= FIRST_MAJOR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec::Vec;

    fn image(parts: &[&[u8]]) -> Vec<u8> {
        let mut image = alloc::vec![0x55; 5000];
        for part in parts {
            image.extend_from_slice(part);
            image.extend_from_slice(&[0xaa; 77]);
        }
        image
    }

    #[test]
    fn each_released_version_is_recognised() {
        for (string, abi) in [
            (&b"\0kho-v1\0"[..], KhoAbi::V1),
            (b"\0kho-v3\0", KhoAbi::V3),
            (b"\0kho-v4\0", KhoAbi::V4),
        ] {
            assert_eq!(detect(&image(&[string])), Ok(Some(abi)));
            assert_eq!(detect(&image(&[string, string])), Ok(Some(abi)));
        }
        assert_eq!(detect(&image(&[])), Ok(None));
        assert_eq!(detect(b""), Ok(None));
    }

    #[test]
    fn only_kernels_from_7_0_on_are_known_to_keep_scratch_with_uefi() {
        for (banner, keeps) in [
            (&b"Linux version 7.3.4 (me)"[..], true),
            (b"Linux version 10.0-rc1+ (me)", true),
            (b"Linux version 6.18.15-arm64 (me)", false),
            (b"Linux version %s (%s)", false),
            (b"no banner", false),
        ] {
            assert_eq!(keeps_scratch_with_uefi(&image(&[banner])), keeps);
        }
    }

    #[test]
    fn a_message_that_only_mentions_a_version_is_none() {
        assert_eq!(
            detect(&image(&[b"no kho-v3\0", b"\0kho-vector\0"])),
            Ok(None)
        );
        assert_eq!(detect(&image(&[b"skho-v4\0"])), Ok(None));
    }

    #[test]
    fn the_string_is_taken_whole_so_unknown_parts_are_refused() {
        for unknown in [
            "kho-v2",
            "kho-v41",
            "kho-v4;radix-v1",
            "kho-v4 test",
            "kho-v5",
        ] {
            let bytes = alloc::format!("\0{unknown}\0");
            let error = detect(&image(&[bytes.as_bytes()])).unwrap_err();
            assert_eq!(
                error,
                DetectError::Unknown {
                    found: unknown.to_string()
                }
            );
            assert!(error.to_string().contains(unknown));
        }
    }

    #[test]
    fn the_release_is_what_the_banner_names() {
        let banner = b"\0Linux version 7.3.4-arm64 (user@host) (gcc) #1 SMP\n\0";
        let format = b"Linux version %s (%s)\0";
        assert_eq!(release(&image(&[format, banner])), Some("7.3.4-arm64"));
        assert_eq!(release(&image(&[format])), None);
        assert_eq!(release(b"Linux version 7.3.4"), None);
        assert_eq!(release(b"Linux version 7\x1b[2J "), None);
    }

    #[test]
    fn a_reader_of_the_extension_has_the_name_of_its_property() {
        assert!(supports_pcsc_extension(&image(&[b"\0warmbus,version\0"])));
        for other in [
            &b"\0warmbus,versions\0"[..],
            b"no warmbus,version\0",
            b"\0warmbus,version",
            b"\0pcsc-v1\0",
        ] {
            assert!(!supports_pcsc_extension(&image(&[other])), "{other:?}");
        }
    }

    #[test]
    fn two_versions_or_no_end_are_refused() {
        assert!(matches!(
            detect(&image(&[b"\0kho-v1\0", b"\0kho-v3\0"])),
            Err(DetectError::Several { .. })
        ));
        assert_eq!(
            detect(b"x\0kho-v3"),
            Err(DetectError::Unterminated { offset: 2 })
        );
    }
}
