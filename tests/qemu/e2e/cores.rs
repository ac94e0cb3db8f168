//! The firmware runs on one core: Linux has the others as the loader left them, and
//! no core can be lost on the way.

use std::collections::BTreeSet;
use std::fs;

use warmbus_qemu_tests::boot::image;

/// Functions of PSCI (Arm DEN 0022): all of 32 bits have numbers from `0x8400_0000` on,
/// those of 64 bits from `0xc400_0000` on.
const SYSTEM_OFF: u32 = 0x8400_0008;
const SYSTEM_RESET: u32 = 0x8400_0009;
const CPU_ON: u32 = 0xc400_0003;

/// The numbers of functions of PSCI in an image: as a word, or as the two halves that
/// MOVZ or MOVK moves into a register, a few instructions from each other.
fn functions(image: &[u8]) -> BTreeSet<u32> {
    const NEAR: usize = 6;
    let words: Vec<u32> = image
        .chunks_exact(4)
        .map(|word| u32::from_le_bytes(word.try_into().expect("4 bytes")))
        .collect();
    let is_function = |number: &u32| number & 0xbfff_ffe0 == 0x8400_0000;
    // The register and the immediate of a move of this half, to 32 bits or 64.
    let moved = |word: u32, half: u32| {
        let is_move = matches!(word & 0x7fe0_0000 ^ half << 21, 0x5280_0000 | 0x7280_0000);
        is_move.then_some((word & 31, word >> 5 & 0xffff))
    };
    let mut found: BTreeSet<u32> = words.iter().copied().filter(is_function).collect();
    for (at, word) in words.iter().enumerate() {
        let Some((register, high @ (0x8400 | 0xc400))) = moved(*word, 1) else {
            continue;
        };
        let near = &words[at.saturating_sub(NEAR)..words.len().min(at + NEAR + 1)];
        let lows = near.iter().filter_map(|word| moved(*word, 0));
        let lows = lows.filter(|(other, _)| *other == register);
        let numbers = lows.map(|(_, low)| high << 16 | low);
        found.extend(numbers.filter(is_function));
    }
    found
}

#[test]
fn the_image_powers_off_or_resets_and_starts_no_other_core() {
    let image = fs::read(image()).expect("there is an image");
    assert_eq!(functions(&image), [SYSTEM_OFF, SYSTEM_RESET].into());
}

#[test]
fn a_function_of_psci_is_found_as_a_word_and_as_two_halves() {
    let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let as_word: Vec<u8> = bytes(&[0xd503_201f, SYSTEM_RESET]);
    assert_eq!(functions(&as_word), [SYSTEM_RESET].into());
    // mov w0, #3; nop; movk w0, #0xc400, lsl #16
    let as_halves: Vec<u8> = bytes(&[0x5280_0060, 0xd503_201f, 0x72b8_8000]);
    assert_eq!(functions(&as_halves), [CPU_ON].into());
    // The same with another register between.
    let of_others: Vec<u8> = bytes(&[0x5280_0061, 0xd503_201f, 0x72b8_8000]);
    assert_eq!(functions(&of_others), [].into());
}
