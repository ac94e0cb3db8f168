//! Which version of the Kexec HandOver ABI a kernel has, and whether it reads
//! the extension of the format, from the bytes of its image.
//!
//! The kernel compares the handover tree with one string literal. The literal
//! is in the decompressed image once, between two NULs, and among the constants
//! of the kernel. An image whose constants are not found, or without the literal
//! among them, is searched as a whole.

use alloc::string::{String, ToString};

use warmbus_kho::KhoAbi;
use warmbus_memory::PageSize;
use warmbus_memory::search::{Finder, RareByteFinder};

use crate::constants::constants;

/// The start of the literal that names the version of the ABI.
const ABI_MARKER: &[u8] = b"\0kho-v";

/// Where its hyphen is, which is rarer among the constants of a kernel than any
/// other byte of it.
const HYPHEN: usize = 4;

/// Bytes of the longest string that may be one of the ABI.
const MAX_ABI: usize = 256;

/// The name of a property that only kernels look for which read the extension
/// of the blocks (`docs/pcsc-format.md`), as their string literal.
const EXTENSION_MARKER: &[u8] = b"\0warmbus,version\0";

/// The start of the banner; the release follows, then a space.
pub(crate) const BANNER: &[u8] = b"Linux version ";

/// Bytes of the longest release: the size of the field of `uname`.
const MAX_RELEASE: usize = 65;

/// Looks for the handover ABI string in a decompressed kernel image.
///
/// `None` means that the kernel has no Kexec HandOver.
pub fn detect(image: &[u8]) -> Result<Option<KhoAbi>, DetectError> {
    abi_string(image)?.map(known).transpose()
}

/// The version that has this name.
fn known(name: &[u8]) -> Result<KhoAbi, DetectError> {
    match name {
        b"kho-v1" => Ok(KhoAbi::V1),
        b"kho-v3" => Ok(KhoAbi::V3),
        b"kho-v4" => Ok(KhoAbi::V4),
        other => Err(DetectError::Unknown { found: text(other) }),
    }
}

/// As [`detect`], for a kernel whose version is taken to be `kho-v4` under
/// another name where it is not known: that name is the second value, and
/// `None` where the version is known.
///
/// A name with anything but visible ASCII characters stays unknown.
pub fn detect_like_v4(image: &[u8]) -> Result<Option<(KhoAbi, Option<String>)>, DetectError> {
    let like = |name: &[u8]| match known(name) {
        Err(_) if name.iter().all(u8::is_ascii_graphic) => Ok((KhoAbi::V4, Some(text(name)))),
        abi => abi.map(|abi| (abi, None)),
    };
    abi_string(image)?.map(like).transpose()
}

/// The string between two NULs that names the version.
fn abi_string(image: &[u8]) -> Result<Option<&[u8]>, DetectError> {
    match constants(image).map(abi_string_in) {
        Some(Ok(Some(found))) => Ok(Some(found)),
        // Also for an error: its offset is one in the whole image.
        _ => abi_string_in(image),
    }
}

/// As [`abi_string`], from all bytes of `image`.
fn abi_string_in(image: &[u8]) -> Result<Option<&[u8]>, DetectError> {
    let mut only: Option<&[u8]> = None;
    for at in RareByteFinder::new(ABI_MARKER, HYPHEN).find_in(image) {
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
    Ok(only)
}

/// Whether a decompressed kernel image reads the extension of the blocks, with
/// its routing records.
///
/// This decides only which facts are worth probing: every kernel can read the
/// handover, with or without the extension.
#[must_use]
pub fn supports_pcsc_extension(image: &[u8]) -> bool {
    Finder::new(EXTENSION_MARKER)
        .find_in(constants(image).unwrap_or(image))
        .next()
        .is_some()
}

/// The release of a decompressed kernel image, for example `7.3.4-arm64`, from
/// its banner; `None` where there is no banner.
#[must_use]
pub fn release(image: &[u8]) -> Option<&str> {
    let image = constants(image).unwrap_or(image);
    let finder = Finder::new(BANNER);
    let mut banners = finder.find_in(image);
    banners.find_map(|at| release_at(image, at))
}

/// The release in the banner that starts at `offset`, if one does.
pub(crate) fn release_at(image: &[u8], offset: usize) -> Option<&str> {
    let tail = image.get(offset..)?.strip_prefix(BANNER)?;
    let tail = &tail[..tail.len().min(MAX_RELEASE)];
    let end = memchr::memchr2(b' ', 0, tail)?;
    let text = core::str::from_utf8(&tail[..end]).ok()?;
    let is_release = text.starts_with(|letter: char| letter.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_release.then_some(text)
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

/// What a kernel holds, as a console can print it.
fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// Why no handover can be made for a kernel. It can be started without one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DetectError {
    /// A version, or a part of one, that is not known.
    #[error(
        "the kernel has the handover version '{found}', which is not supported (kho-v1, kho-v3 and kho-v4 are; warmbus.kho=like-v4 takes it for kho-v4)"
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
    version(image).is_some_and(|version| version >= (7, 0))
}

/// Whether a decompressed kernel image allocates gigantic pages from other
/// memory than the scratch areas of a handover. Kernels from 7.3 on do
/// (`kho_extend_scratch`); those without a release in their banner are taken
/// for older ones.
#[must_use]
pub fn extends_scratch(image: &[u8]) -> bool {
    version(image).is_some_and(|version| version >= (7, 3))
}

/// The first two numbers of the release.
fn version(image: &[u8]) -> Option<(u32, u32)> {
    let release = release(image)?;
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    let mut number = || numbers.next()?.parse().ok();
    Some((number()?, number()?))
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
    fn only_kernels_from_7_3_on_are_known_to_extend_their_scratch_memory() {
        for (banner, extends) in [
            (&b"Linux version 7.3.4 (me)"[..], true),
            (b"Linux version 7.10-rc1+ (me)", true),
            (b"Linux version 7.2.13-arm64 (me)", false),
            (b"Linux version 6.18.15-arm64 (me)", false),
            (b"Linux version 8-something (me)", false),
            (b"no banner", false),
        ] {
            assert_eq!(extends_scratch(&image(&[banner])), extends);
        }
    }

    #[test]
    fn an_unknown_version_is_taken_for_the_fourth_on_request_only() {
        let like = |string: &[u8]| detect_like_v4(&image(&[string]));
        for name in ["kho-v5", "kho-v4;radix-v2", "kho-v4+something"] {
            let bytes = alloc::format!("\0{name}\0");
            let expected = (KhoAbi::V4, Some(name.to_string()));
            assert_eq!(like(bytes.as_bytes()), Ok(Some(expected)));
        }
        // What is known is not like kho-v4.
        assert_eq!(like(b"\0kho-v1\0"), Ok(Some((KhoAbi::V1, None))));
        assert_eq!(like(b"\0kho-v4\0"), Ok(Some((KhoAbi::V4, None))));
        assert_eq!(like(b"nothing"), Ok(None));
        for strange in [&b"\0kho-v5 \0"[..], b"\0kho-v5\x1b[2J\0", b"\0kho-v5\xff\0"] {
            let error = like(strange).unwrap_err();
            let sentence = error.to_string();
            assert!(matches!(error, DetectError::Unknown { .. }), "{sentence}");
            assert!(sentence.is_ascii() && !sentence.contains('\x1b'));
        }
        let two = image(&[b"\0kho-v5\0", b"\0kho-v6\0"]);
        assert!(matches!(
            detect_like_v4(&two),
            Err(DetectError::Several { .. })
        ));
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
            "kho-v4+something",
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
