//! The image has none of the instruction sequences that Cortex-A53 may execute
//! wrongly (Arm EPM-048406). Each build places functions anew, so that a build
//! without the workarounds may be free of one of them by chance.

use std::fs;

use warmbus_qemu_tests::boot::image;

/// One instruction.
#[derive(Clone, Copy)]
struct Instruction(u32);

impl Instruction {
    const fn is(self, mask: u32, value: u32) -> bool {
        self.0 & mask == value
    }

    /// A register number of 5 bits.
    const fn register(self, shift: u32) -> u32 {
        self.0 >> shift & 31
    }

    /// The class "Loads and Stores", with prefetches (Arm ARM C4.1).
    const fn is_load_or_store(self) -> bool {
        self.is(0x0a00_0000, 0x0800_0000)
    }

    /// A load or store with an unsigned immediate offset.
    const fn has_unsigned_offset(self) -> bool {
        self.is(0x3b00_0000, 0x3900_0000)
    }

    const fn is_load_of(self, register: u32) -> bool {
        let is_vector = self.is(1 << 26, 1 << 26);
        self.is_load_or_store()
            && self.is(1 << 22, 1 << 22)
            && !is_vector
            && self.register(0) == register
    }

    const fn is_branch(self) -> bool {
        self.is(0x1c00_0000, 0x1400_0000)
    }

    /// MADD, MSUB, SMADDL, SMSUBL, UMADDL and UMSUBL with 64 bits, unless the sum is
    /// to register 31, which reads as 0.
    const fn is_multiply_accumulate(self) -> bool {
        self.is(0xff00_0000, 0x9b00_0000)
            && matches!(self.0 >> 21 & 7, 0 | 1 | 5)
            && self.register(10) != 31
    }
}

/// Offsets at which sequences of erratum 843419 start: an ADRP in one of the last
/// two words of a page, a load or store that does not overwrite its register, at
/// most one instruction that is no branch, and a load or store from that register.
fn of_843419(code: &[Instruction]) -> Vec<usize> {
    let starts = (0..code.len()).filter(|&at| {
        let Some(&[adrp, access, third, ref rest @ ..]) = code.get(at..) else {
            return false;
        };
        let register = adrp.register(0);
        let uses = |one: &Instruction| one.has_unsigned_offset() && one.register(5) == register;
        at * 4 % 4096 >= 0xff8
            && adrp.is(0x9f00_0000, 0x9000_0000)
            && access.is_load_or_store()
            && !access.is_load_of(register)
            && (uses(&third) || !third.is_branch() && rest.first().is_some_and(uses))
    });
    starts.map(|at| at * 4).collect()
}

/// Offsets at which sequences of erratum 835769 start: a load or store, and right
/// behind it a multiply-accumulate that does not need what is loaded.
fn of_835769(code: &[Instruction]) -> Vec<usize> {
    let pairs = code.windows(2).enumerate().filter(|(_, pair)| {
        let (access, multiply) = (pair[0], pair[1]);
        let needs = [5, 10, 16].map(|shift| access.is_load_of(multiply.register(shift)));
        access.is_load_or_store() && multiply.is_multiply_accumulate() && needs == [false; 3]
    });
    pairs.map(|(at, _)| at * 4).collect()
}

/// The code of an image, as its PE header has it, from its start on.
fn code(image: &[u8]) -> Vec<Instruction> {
    let word = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().expect("4 bytes"));
    let header = word(0x3c) as usize + 24;
    let (size, start) = (word(header + 4) as usize, word(header + 20) as usize);
    let bytes = image[..start + size].chunks_exact(4);
    bytes
        .map(|word| Instruction(u32::from_le_bytes(word.try_into().expect("4 bytes"))))
        .collect()
}

#[test]
fn the_image_has_no_sequence_of_the_errata_of_cortex_a53() {
    let image = fs::read(image()).expect("there is an image");
    let code = code(&image);
    assert!(code.len() > 50_000, "{} instructions", code.len());
    assert_eq!(of_843419(&code), Vec::<usize>::new());
    assert_eq!(of_835769(&code), Vec::<usize>::new());
}

#[test]
fn sequences_of_both_errata_are_found() {
    let nop = Instruction(0xd503_201f);
    let mut page = vec![nop; 1024];
    // adrp x0; ldr x1, [x2]; ldr x3, [x0, #8]
    page.extend([0xf940_0041, 0xf940_0403].map(Instruction));
    page[1023] = Instruction(0x9000_0000);
    assert_eq!(of_843419(&page), [0xffc]);
    page.rotate_left(2);
    assert_eq!(of_843419(&page), Vec::<usize>::new());
    // ldr x10, [x2]; madd x8, x19, x11, x21, and the same of what is loaded
    let [load, multiply] = [0xf940_004a, 0x9b0b_5668].map(Instruction);
    assert_eq!(of_835769(&[nop, load, multiply]), [4]);
    let needs_it = Instruction(0x9b0b_2a68);
    assert_eq!(of_835769(&[load, needs_it]), Vec::<usize>::new());
}
