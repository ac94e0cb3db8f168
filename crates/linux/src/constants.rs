//! Where an arm64 kernel image holds its string literals, so that a search for
//! one need not read all of the kernel.
//!
//! The linker script of arm64 Linux (`arch/arm64/kernel/vmlinux.lds.S`) puts
//! the constants between the code and the code of initialisation. They begin
//! at a multiple of 64 KiB, and the banner is the first of them that is text.
//! The second instruction of the image branches to `primary_entry`, which is in
//! the code of initialisation. That holds for the released kernels from 6.16 to
//! 7.3, with pages of any size; where it does not, there is no answer.

use warmbus_memory::bytes::le_u32;
use warmbus_memory::search::Finder;

use crate::detect::{BANNER, release_at};

/// The alignment of each part of a kernel, `SEGMENT_ALIGN`.
const SEGMENT_ALIGN: usize = 64 << 10;

/// Bytes at the start of the constants among which the banner begins.
const BANNER_WITHIN: usize = 512;

/// The constants of a decompressed image, or `None` where they are not found.
#[must_use]
pub fn constants(image: &[u8]) -> Option<&[u8]> {
    let before_entry = image.get(..entry(image)?)?;
    let finder = Finder::new(BANNER);
    let start = (0..before_entry.len())
        .step_by(SEGMENT_ALIGN)
        .find(|&start| {
            let end = before_entry.len().min(start + BANNER_WITHIN);
            let mut banners = finder.find_in(&before_entry[start..end]);
            banners.any(|at| release_at(before_entry, start + at).is_some())
        })?;
    before_entry.get(start..)
}

/// The offset that the second instruction branches to, which has to be a
/// forward `b` (Arm ARM, C6.2: 0b000101 and the distance in instructions).
fn entry(image: &[u8]) -> Option<usize> {
    let instruction = le_u32(image, 4)?;
    let distance = instruction & 0x01ff_ffff;
    (instruction >> 25 == 0b000_1010).then(|| 4 + 4 * distance as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    const TEXT: &[u8] = b"Linux version 7.3.4 (me)";
    const START: usize = 3 * SEGMENT_ALIGN;
    const ENTRY: usize = 5 * SEGMENT_ALIGN + 0xf0;

    /// A kernel whose banner is at `banner` and whose second instruction is
    /// `instruction`.
    fn image(banner: usize, instruction: u32) -> Vec<u8> {
        let mut image = vec![0x55; 8 * SEGMENT_ALIGN];
        image[4..8].copy_from_slice(&instruction.to_le_bytes());
        image[banner..banner + TEXT.len()].copy_from_slice(TEXT);
        image
    }

    fn branch(to: usize) -> u32 {
        0x1400_0000 | ((to - 4) / 4) as u32
    }

    #[test]
    fn constants_are_between_the_banner_and_the_entry() {
        let kernel = image(START + 0x88, branch(ENTRY));
        assert_eq!(constants(&kernel), Some(&kernel[START..ENTRY]));
    }

    #[test]
    fn an_image_with_another_layout_has_no_answer() {
        for (what, kernel) in [
            (
                "a banner in the middle",
                image(START + 0x4000, branch(ENTRY)),
            ),
            ("a banner behind the entry", image(START, branch(START))),
            (
                "an entry behind the end",
                image(START, branch(9 * SEGMENT_ALIGN)),
            ),
            ("a branch backwards", image(START, 0x17ff_ffff)),
            ("a branch with link", image(START, branch(ENTRY) | 1 << 31)),
            ("no branch", image(START, 0xd503_201f)),
        ] {
            assert_eq!(constants(&kernel), None, "{what}");
        }
        assert_eq!(constants(b""), None);
    }
}
