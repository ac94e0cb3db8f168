//! Converts the linker's ELF file to the image that boot loaders read.

use anyhow::{Context, Result, bail, ensure};
use object::LittleEndian as Le;
use object::elf::{EM_AARCH64, FileHeader64, PT_LOAD};
use object::pe::{IMAGE_SUBSYSTEM_EFI_APPLICATION, IMAGE_SUBSYSTEM_EFI_BOOT_SERVICE_DRIVER};
use object::read::elf::{FileHeader, ProgramHeader};

/// The largest image, in bytes.
pub const LIMIT: usize = 1024 * 1024;

/// Offset and value of the magic number of an arm64 Linux Image header.
const MAGIC: (usize, &[u8; 4]) = (56, b"ARM\x64");

/// A flat image: the content of memory from its first byte on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flat {
    /// The bytes to load.
    pub bytes: Vec<u8>,
    /// Bytes of memory that the image occupies, with those that it zeroes at
    /// start.
    pub memory: u64,
}

/// Lays out the loadable segments of the ELF file `elf` by physical address.
///
/// Fails if it is not a 64-bit ARM file, if a segment is out of bounds, if the
/// result is larger than [`LIMIT`] or does not start with an arm64 Linux Image
/// header, or if the header states less memory than the segments occupy.
pub fn convert(elf: &[u8]) -> Result<Flat> {
    let header = FileHeader64::<Le>::parse(elf).context("not a 64-bit ELF file")?;
    let endian = header.endian().context("not a little-endian ELF file")?;
    ensure!(
        header.e_machine(endian) == EM_AARCH64,
        "not an ELF file for aarch64"
    );

    let segments: Vec<_> = header
        .program_headers(endian, elf)?
        .iter()
        .filter(|segment| segment.p_type(endian) == PT_LOAD && segment.p_memsz(endian) > 0)
        .collect();
    let base = segments
        .iter()
        .map(|segment| segment.p_paddr(endian))
        .min()
        .context("the ELF file has nothing to load")?;

    let (mut bytes, mut memory) = (Vec::new(), 0);
    for segment in segments {
        let address = segment.p_paddr(endian);
        let Ok(data) = segment.data(endian, elf) else {
            bail!("the segment at {address:#x} is not in the ELF file");
        };
        let start = usize::try_from(address - base)?;
        let end = start.checked_add(data.len()).filter(|end| *end <= LIMIT).with_context(|| {
            format!(
                "the image is larger than {} KiB: the segment at {address:#x} has {} bytes, {start} bytes behind the start",
                LIMIT / 1024,
                data.len()
            )
        })?;
        bytes.resize(bytes.len().max(end), 0);
        bytes[start..end].copy_from_slice(data);
        memory = memory.max((address - base).saturating_add(segment.p_memsz(endian)));
    }
    ensure!(
        bytes.get(MAGIC.0..MAGIC.0 + 4) == Some(MAGIC.1),
        "the image does not start with an arm64 Linux Image header"
    );
    let promised = bytes[16..24]
        .iter()
        .rev()
        .fold(0, |size, byte| size << 8 | u64::from(*byte));
    ensure!(
        promised >= memory,
        "the Image header states {promised} bytes of memory, but the segments occupy {memory}"
    );
    Ok(Flat {
        bytes,
        memory: promised,
    })
}

/// The UEFI application in `image`, a PE file, as a driver: one that UEFI keeps.
pub fn uefi_driver(image: &[u8]) -> Result<Vec<u8>> {
    const APPLICATION: [u8; 2] = IMAGE_SUBSYSTEM_EFI_APPLICATION.to_le_bytes();
    const DRIVER: [u8; 2] = IMAGE_SUBSYSTEM_EFI_BOOT_SERVICE_DRIVER.to_le_bytes();
    // Of the field in the optional header, which follows signature and file
    // header (Microsoft PE Format).
    const SUBSYSTEM: usize = 4 + 20 + 68;

    let header = image
        .get(0x3c..0x40)
        .context("the image has no PE header")?;
    let header = u32::from_le_bytes(header.try_into()?) as usize;
    let mut driver = image.to_vec();
    let at = header + SUBSYSTEM..header + SUBSYSTEM + 2;
    let subsystem = driver.get_mut(at).context("the PE header is cut off")?;
    ensure!(subsystem == APPLICATION, "the image is no UEFI application");
    subsystem.copy_from_slice(&DRIVER);
    Ok(driver)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file with one loadable segment for each `(paddr, data, memsz)`.
    fn elf(segments: &[(u64, &[u8], u64)]) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        file.extend([2, 0, EM_AARCH64 as u8, 0, 1, 0, 0, 0]);
        for word in [0_u64, 64, 0] {
            file.extend(word.to_le_bytes());
        }
        for half in [0_u16, 0, 64, 56, segments.len() as u16, 64, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        let mut at = 64 + 56 * segments.len() as u64;
        for (paddr, data, memsz) in segments {
            file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
            for word in [at, *paddr, *paddr, data.len() as u64, *memsz, 8] {
                file.extend(word.to_le_bytes());
            }
            at += data.len() as u64;
        }
        file.extend(segments.iter().flat_map(|segment| segment.1));
        file
    }

    fn image_header(image_size: u64) -> Vec<u8> {
        let mut header = vec![0; 64];
        header[16..24].copy_from_slice(&image_size.to_le_bytes());
        header[56..60].copy_from_slice(b"ARM\x64");
        header
    }

    #[test]
    fn segments_land_at_their_distance_from_the_lowest_with_zeros_between() {
        let header = image_header(0x2000);
        let file = elf(&[(0x1080, &[7, 8], 0x20), (0x1000, &header, 64)]);
        let flat = convert(&file).unwrap();
        assert_eq!(flat.bytes.len(), 0x82);
        assert_eq!(&flat.bytes[56..60], b"ARM\x64");
        assert_eq!(&flat.bytes[0x7e..], [0, 0, 7, 8]);
        assert_eq!(flat.memory, 0x2000);
    }

    #[test]
    fn an_image_over_the_limit_is_refused() {
        let mut data = image_header(LIMIT as u64);
        data.resize(LIMIT, 1);
        assert_eq!(
            convert(&elf(&[(0, &data, LIMIT as u64)]))
                .unwrap()
                .bytes
                .len(),
            LIMIT
        );
        data.push(1);
        let error = convert(&elf(&[(0, &data, LIMIT as u64 + 1)])).unwrap_err();
        assert!(
            error.to_string().contains("larger than 1024 KiB"),
            "{error}"
        );
    }

    #[test]
    fn an_image_header_that_asks_for_too_little_memory_is_refused() {
        let header = image_header(0x1000);
        let file = |memsz| elf(&[(0, &header, memsz)]);
        assert!(convert(&file(0x1000)).is_ok());
        assert!(convert(&file(0x1001)).is_err());
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let plain = [0; 64];
        assert!(
            convert(&elf(&[(0, &plain, 64)])).is_err(),
            "no Image header"
        );
        assert!(convert(&elf(&[])).is_err(), "no segment");
        let whole = elf(&[(0, &image_header(64), 64)]);
        assert!(convert(&whole).is_ok());
        for end in 0..whole.len() {
            assert!(convert(&whole[..end]).is_err(), "cut off at {end}");
        }
    }
}
