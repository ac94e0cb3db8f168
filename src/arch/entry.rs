//! The first instructions: from the loader to Rust.
//!
//! There are two entries. By the arm64 Linux boot protocol, on entry: the MMU
//! is off, `x0` is the physical address of the device tree, the image lies at
//! any 4 KiB boundary, and the exception level is 1 or 2. On exit, to
//! [`start`](crate::start::start): the image is relocated, BSS is clear, exceptions
//! have vectors and a stack of their own, `SP_EL0` is the stack in use. The
//! MMU is still off: no atomics before it is on.
//!
//! A second start (see `recovery.rs`) uses the same entry, with all data
//! as it was on the first; `start` gets that as an argument, and the system
//! counter as it was at the entry.
//!
//! From UEFI, for which the image is an application in PE form (the header of
//! an arm64 Image has room for that), on entry: MMU and caches are on, `x0` is
//! the image handle and `x1` the system table. On exit, to
//! [`start_in_uefi`](crate::uefi::start_in_uefi): the image is relocated, and
//! all else is as UEFI wants it.

use core::arch::global_asm;

global_asm!(
    r#"
.section .head, "ax"
.global _start
_start:
    // Changes a flag only. Its bytes start with "MZ", the sign of a PE file.
    ccmp    x18, #0, #0xd, pl
    b       2f
    .quad   0               // text_offset: the start of a 2 MiB block
    .quad   __image_size    // including BSS and stacks
    .quad   0xa             // little-endian, 4 KiB pages, placed anywhere
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   pe_header - _start

// The PE header (Microsoft PE Format). Offsets in the file and in memory are
// the same. Read-only data is in the writable section: it is relocated by the
// code itself.
pe_header:
    .ascii  "PE\0\0"
    .short  0xaa64          // machine: ARM64
    .short  3               // sections
    .long   0, 0, 0
    .short  sections - optional_header
    .short  0x206           // executable, without line numbers and symbols
optional_header:
    .short  0x20b           // PE32+
    .byte   0, 0
    .long   __pe_code_size
    .long   __pe_data_file_size
    .long   0
    .long   __pe_entry
    .long   __pe_code
    .quad   0               // image base
    .long   0x1000          // alignment of sections in memory
    .long   0x200           // and in the file
    .short  0, 0            // version of the operating system
    .short  {major}, {minor}
    .short  0, 0            // version of the subsystem
    .long   0
    .long   __pe_image_size
    .long   __pe_code       // bytes of headers
    .long   0
    .short  10              // subsystem: EFI application
    .short  0x100           // nothing is both writable and executable
    .quad   0, 0, 0, 0
    .long   0
    .long   6               // data directories, all empty
    .quad   0, 0, 0, 0, 0, 0
sections:
    .ascii  ".text\0\0\0"
    .long   __pe_code_size, __pe_code, __pe_code_size, __pe_code
    .long   0, 0, 0
    .long   0x60000020      // code: execute, read
    .ascii  ".sbat\0\0\0"
    .long   __pe_sbat_size, __pe_sbat, __pe_sbat_file_size, __pe_sbat
    .long   0, 0, 0
    .long   0x40000040      // data: read
    .ascii  ".data\0\0\0"
    .long   __pe_data_size, __pe_data, __pe_data_file_size, __pe_data
    .long   0, 0, 0
    .long   0xc0000040      // data: read, write

.balign 4096
code:
park:
    wfi
    b       park

2:  msr     daifset, #0xf

    // No second CPU is expected here. If one enters it waits.
    adrp    x9, boot_state
    add     x9, x9, :lo12:boot_state
    ldr     w20, [x9]
    cmp     w20, #1
    b.eq    park
    mov     w10, #1
    str     w10, [x9]
    dsb     sy

    mrs     x10, CurrentEL
    cmp     x10, #(3 << 2)
    b.eq    park

    mov     x19, x0
    // Time begins here.
    mrs     x22, cntvct_el0
    // Whatever the loader left in the caches goes to memory, where all
    // accesses with the MMU off go, and cannot come back over it.
    bl      clean_image
    mov     x7, x20
    bl      prepare
    adrp    x21, {start}
    add     x21, x21, :lo12:{start}
    b       run_alone

.global pe_entry
pe_entry:
    stp     x29, x30, [sp, #-48]!
    mov     x29, sp
    stp     x0, x1, [sp, #16]
    mov     x7, xzr
    bl      prepare
    ldp     x0, x1, [sp, #16]
    bl      {start_in_uefi}
    ldp     x29, x30, [sp], #48
    ret

// Writes the image to memory and drops it from the caches, eight lines a round:
// it has whole pages. Uses x0 to x4.
clean_image:
    mrs     x3, ctr_el0
    ubfx    x3, x3, #16, #4
    mov     x4, #4
    lsl     x4, x4, x3
    adrp    x0, __image_start
    adrp    x1, __image_end
3:  .rept   8
    dc      civac, x0
    add     x0, x0, x4
    .endr
    cmp     x0, x1
    b.lo    3b
    dsb     sy
    ret

// Relocates the image and clears BSS; x7 is not 0 on a second start.
// Uses x0 to x8.
prepare:
    // On a second start the pointers are relocated, and .data is put back.
    adrp    x0, __data_start
    add     x0, x0, :lo12:__data_start
    adrp    x1, __file_end
    add     x1, x1, :lo12:__file_end
    adrp    x2, __data_copy
    add     x2, x2, :lo12:__data_copy
    cbz     x7, 16f
15: cmp     x0, x1
    b.hs    8f
    ldp     x3, x4, [x2], #16
    stp     x3, x4, [x0], #16
    b       15b
16: mov     x8, x0

    // Packed relative relocations (ELF gABI, SHT_RELR): an even word is the
    // address of a pointer; an odd word has one bit for each of the 63
    // pointers that follow. The image is linked at 0, so each pointer grows
    // by the address of the image.
    adrp    x6, __image_start
    adrp    x0, __relocations_start
    add     x0, x0, :lo12:__relocations_start
    adrp    x1, __relocations_end
    add     x1, x1, :lo12:__relocations_end
4:  cmp     x0, x1
    b.hs    17f
    ldr     x2, [x0], #8
    tbnz    x2, #0, 5f
    add     x3, x2, x6
    ldr     x4, [x3]
    add     x4, x4, x6
    str     x4, [x3], #8
    b       4b
5:  mov     x5, x3
6:  lsr     x2, x2, #1
    cbz     x2, 7f
    tbz     x2, #0, 9f
    ldr     x4, [x5]
    add     x4, x4, x6
    str     x4, [x5]
9:  add     x5, x5, #8
    b       6b
7:  add     x3, x3, #(63 * 8)
    b       4b

    // .data is saved as it is now, for a second start.
17: adrp    x1, __file_end
    add     x1, x1, :lo12:__file_end
    adrp    x2, __data_copy
    add     x2, x2, :lo12:__data_copy
18: cmp     x8, x1
    b.hs    8f
    ldp     x3, x4, [x8], #16
    stp     x3, x4, [x2], #16
    b       18b

8:  adrp    x0, __bss_start
    add     x0, x0, :lo12:__bss_start
    adrp    x1, __bss_end
    add     x1, x1, :lo12:__bss_end
10: sub     x2, x1, x0
    cmp     x2, #64
    b.lo    11f
    stp     xzr, xzr, [x0], #64
    stp     xzr, xzr, [x0, #-48]
    stp     xzr, xzr, [x0, #-32]
    stp     xzr, xzr, [x0, #-16]
    b       10b
11: cbz     x2, 19f
    stp     xzr, xzr, [x0], #16
    sub     x2, x2, #16
    b       11b
19: ret

// With the MMU off: goes on at x21 with x19, x20 and x22 as the arguments. Exceptions
// run on SP_ELx, everything else on SP_EL0.
run_alone:
    msr     spsel, #1
    adrp    x0, __exception_stack_top
    mov     sp, x0
    msr     spsel, #0
    adrp    x0, __stack_top
    mov     sp, x0

    // Vectors, and no trap of the floating-point registers, which a hard-float
    // build uses. With HCR_EL2.E2H the register for that has the EL1 layout.
    adrp    x0, vectors
    add     x0, x0, :lo12:vectors
    mrs     x10, CurrentEL
    cmp     x10, #(2 << 2)
    b.eq    12f
    msr     vbar_el1, x0
    mrs     x1, cpacr_el1
    orr     x1, x1, #(3 << 20)
    msr     cpacr_el1, x1
    b       14f
12: msr     vbar_el2, x0
    mrs     x1, cptr_el2
    mrs     x2, hcr_el2
    tbnz    x2, #34, 13f
    and     x1, x1, #~(1 << 10)
    msr     cptr_el2, x1
    b       14f
13: orr     x1, x1, #(3 << 20)
    msr     cptr_el2, x1
14: isb

    mov     x29, xzr
    mov     x30, xzr
    mov     x0, x19
    mov     x1, x20
    mov     x2, x22
    blr     x21

.section .data.boot_state, "aw"
.balign 8
.global boot_state
boot_state:
    .long   0

.section .retained, "aw", %nobits
.balign 8
.global retained
retained:
    .skip   256
"#,
    major = const number(env!("CARGO_PKG_VERSION_MAJOR")),
    minor = const number(env!("CARGO_PKG_VERSION_MINOR")),
    start = sym crate::start::start,
    start_in_uefi = sym crate::uefi::start_in_uefi,
);

/// The number that `text` is.
const fn number(text: &str) -> u16 {
    match u16::from_str_radix(text, 10) {
        Ok(number) => number,
        Err(_) => panic!("a version has numbers"),
    }
}

/// What shim revokes versions by (its SBAT.md): a line for the format and one for
/// this program, each with component, generation, vendor, name, version and page.
const REVOCATION: &str = concat!(
    "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\n",
    "warmbus,1,Warmbus,warmbus,",
    env!("CARGO_PKG_VERSION"),
    ",docs/uefi.md\n"
);

#[used]
#[unsafe(link_section = ".sbat")]
static SBAT: [u8; REVOCATION.len()] = {
    let mut bytes = [0; REVOCATION.len()];
    bytes.copy_from_slice(REVOCATION.as_bytes());
    bytes
};
