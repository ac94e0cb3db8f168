//! Programs of UEFI: what is in a PE image that was loaded (Microsoft PE
//! Format, revision 11).

use warmbus_memory::bytes::{le_u16, le_u32};

/// Offset of the offset of the PE header.
const PE_OFFSET: usize = 0x3c;
/// Bytes of the signature and the file header.
const FILE_HEADER: usize = 24;
/// Bytes of an entry of the section table.
const SECTION: usize = 40;
/// The section of a unified kernel image that has the kernel (UAPI Group
/// Specification 5).
const LINUX: [u8; 8] = *b".linux\0\0";

/// The kernel in the unified kernel image that was loaded to `image`: sections
/// are at their addresses in memory. `None` where it is no such image.
#[must_use]
pub fn kernel_of_unified_image(image: &[u8]) -> Option<&[u8]> {
    if !image.starts_with(b"MZ") {
        return None;
    }
    let header = usize::try_from(le_u32(image, PE_OFFSET)?).ok()?;
    let signature = image.get(header..header.checked_add(4)?)?;
    if signature != b"PE\0\0" {
        return None;
    }
    let count = usize::from(le_u16(image, header + 6)?);
    let optional = usize::from(le_u16(image, header + 20)?);
    let table = image.get(header + FILE_HEADER + optional..)?;
    let section = table
        .chunks_exact(SECTION)
        .take(count)
        .find(|section| section[..8] == LINUX)?;
    let size = usize::try_from(le_u32(section, 8)?).ok()?;
    let start = usize::try_from(le_u32(section, 12)?).ok()?;
    image.get(start..start.checked_add(size)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    /// An image with sections of these names, addresses and sizes.
    fn image(sections: &[(&[u8; 8], u32, u32)]) -> Vec<u8> {
        let mut image = vec![0; 0x400];
        image[..2].copy_from_slice(b"MZ");
        image[PE_OFFSET] = 0x80;
        image[0x80..0x84].copy_from_slice(b"PE\0\0");
        image[0x86] = sections.len() as u8;
        image[0x94] = 0x10;
        for (number, (name, start, size)) in sections.iter().enumerate() {
            let at = 0x80 + FILE_HEADER + 0x10 + number * SECTION;
            image[at..at + 8].copy_from_slice(*name);
            image[at + 8..at + 12].copy_from_slice(&size.to_le_bytes());
            image[at + 12..at + 16].copy_from_slice(&start.to_le_bytes());
        }
        image[0x300] = 7;
        image
    }

    #[test]
    fn the_kernel_of_a_unified_image_is_its_section_of_that_name() {
        let unified = image(&[(b".text\0\0\0", 0x200, 8), (&LINUX, 0x300, 0x10)]);
        let kernel = kernel_of_unified_image(&unified).expect("it has one");
        assert_eq!((kernel.len(), kernel[0]), (0x10, 7));
        assert_eq!(
            kernel_of_unified_image(&image(&[(b".text\0\0\0", 0x200, 8)])),
            None
        );
    }

    #[test]
    fn damaged_images_have_none() {
        let whole = image(&[(&LINUX, 0x300, 0x100)]);
        assert!(kernel_of_unified_image(&whole).is_some());
        for size in 0..whole.len() {
            assert_eq!(kernel_of_unified_image(&whole[..size]), None, "{size}");
        }
        for (at, value) in [
            (0, 0),
            (PE_OFFSET + 3, 0xff),
            (0x80, 0),
            (0x86, 0),
            (0xb7, 0xff),
        ] {
            let mut damaged = whole.clone();
            damaged[at] = value;
            assert_eq!(kernel_of_unified_image(&damaged), None, "{at:#x}");
        }
    }
}
