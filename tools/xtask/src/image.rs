//! The properties of a kernel, by its Image.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use warmbus_kho::KhoAbi;
use warmbus_linux::decompress::KernelFormat;
use warmbus_linux::detect;
use warmbus_linux::image::ImageHeader;
use warmbus_memory::PageSize;

use crate::UsageError;

/// The largest size of an unpacked kernel, in bytes.
const LIMIT: usize = 512 << 20;

/// The properties of an arm64 kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFacts {
    /// Its version, for example `7.3.4`.
    pub version: String,
    /// The size of its pages, if its header has it.
    pub page_size: Option<PageSize>,
    /// The version of Kexec HandOver that it supports, if any; a sentence if that
    /// version is unknown here.
    pub kho: Result<Option<KhoAbi>, String>,
}

impl KernelFacts {
    /// Whether it needs a processor with pages of 16 KiB, which is optional in
    /// the architecture.
    #[must_use]
    pub fn needs_new_cpu(&self) -> bool {
        self.page_size == Some(PageSize::K16)
    }
}

/// The properties of the kernel in `file`.
///
/// # Errors
///
/// If it is not an arm64 Image, compressed or not.
pub fn facts(file: &Path) -> Result<KernelFacts> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    read(&bytes).map_err(|why| {
        UsageError(format!(
            "{} is not an arm64 Image that can be started: {why}",
            file.display()
        ))
        .into()
    })
}

/// The Image in `bytes`, compressed or not.
///
/// # Errors
///
/// If it is none, or damaged.
pub fn unpack(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let packed = KernelFormat::detect(bytes).map_err(|error| error.to_string())?;
    packed.decompress(LIMIT).map_err(|error| error.to_string())
}

fn read(bytes: &[u8]) -> Result<KernelFacts, String> {
    let image = unpack(bytes)?;
    let header = ImageHeader::parse(&image).map_err(|error| error.to_string())?;
    Ok(KernelFacts {
        version: version(&image).unwrap_or_else(|| "unknown".into()),
        page_size: header.page_size,
        kho: detect::detect(&image).map_err(|error| error.to_string()),
    })
}

/// The word after `Linux version ` in the kernel's banner.
fn version(image: &[u8]) -> Option<String> {
    const MARK: &[u8] = b"Linux version ";
    image
        .windows(MARK.len())
        .enumerate()
        .find_map(|(at, window)| {
            let rest = image.get(at + MARK.len()..)?;
            // The format string of the banner is in the image, too.
            if window != MARK || !rest.first()?.is_ascii_digit() {
                return None;
            }
            let end = rest.iter().position(|byte| *byte == b' ')?;
            String::from_utf8(rest[..end].to_vec()).ok()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Vec<u8> {
        let mut image = vec![0; 4096];
        image[16..24].copy_from_slice(&8192_u64.to_le_bytes());
        image[24] = 0xc;
        image[56..60].copy_from_slice(b"ARM\x64");
        image[0x100..0x120].copy_from_slice(b"Linux version %s (\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        image[0x200..0x219].copy_from_slice(b"Linux version 7.3.4 (me) ");
        image[0x300..0x308].copy_from_slice(b"\0kho-v4\0");
        image
    }

    #[test]
    fn version_page_size_and_handover_are_those_of_the_bytes() {
        let facts = read(&image()).unwrap();
        assert_eq!(facts.version, "7.3.4");
        assert_eq!(facts.page_size, Some(PageSize::K16));
        assert_eq!(facts.kho, Ok(Some(KhoAbi::V4)));
        assert!(facts.needs_new_cpu());
    }

    #[test]
    fn what_is_no_image_is_refused() {
        for bytes in [&b""[..], b"#!/bin/sh\n", &image()[..40]] {
            assert!(read(bytes).is_err());
        }
    }
}
