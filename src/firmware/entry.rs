//! The first instructions: from the loader to Rust.
//!
//! On entry, as the arm64 Linux boot protocol has it: the MMU is off, `x0` is
//! the physical address of the device tree, the image lies at any 4 KiB
//! boundary, and the exception level is 1 or 2. On exit, to
//! [`start`](super::start): the image is relocated, BSS is clear, exceptions
//! have vectors and a stack of their own, `SP_EL0` is the stack in use. The
//! MMU is still off: no atomics before it is on.
//!
//! A second start (see `restart.rs`) comes along the same way, with all data
//! as it was on the first, and is told to `start`.

use core::arch::global_asm;

global_asm!(
    r#"
.section .head, "ax"
.global _start
_start:
    b       2f
    .long   0
    .quad   0               // text_offset: the start of a 2 MiB block
    .quad   __image_size    // including BSS and stacks
    .quad   0xa             // little-endian, 4 KiB pages, placed anywhere
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   0

park:
    wfi
    b       park

2:  msr     daifset, #0xf

    // A second CPU is not asked for. If one comes along anyway it waits.
    adrp    x9, started
    add     x9, x9, :lo12:started
    ldr     w21, [x9]
    cmp     w21, #1
    b.eq    park
    mov     w10, #1
    str     w10, [x9]
    dsb     sy

    mrs     x10, CurrentEL
    cmp     x10, #(3 << 2)
    b.eq    park

    mov     x19, x0
    adrp    x20, __image_start

    // Whatever the loader left in the caches goes to memory, where all
    // accesses with the MMU off go, and cannot come back over it.
    mrs     x3, ctr_el0
    ubfx    x3, x3, #16, #4
    mov     x4, #4
    lsl     x4, x4, x3
    mov     x0, x20
    adrp    x1, __image_end
3:  dc      civac, x0
    add     x0, x0, x4
    cmp     x0, x1
    b.lo    3b
    dsb     sy

    // On a second start the pointers are relocated, and .data is put back.
    adrp    x0, __data_start
    add     x0, x0, :lo12:__data_start
    adrp    x1, __file_end
    add     x1, x1, :lo12:__file_end
    adrp    x2, __data_copy
    add     x2, x2, :lo12:__data_copy
    cbz     w21, 16f
15: cmp     x0, x1
    b.hs    8f
    ldp     x3, x4, [x2], #16
    stp     x3, x4, [x0], #16
    b       15b
16: mov     x22, x0

    // Packed relative relocations (ELF gABI, SHT_RELR): an even word is the
    // address of a pointer; an odd word has one bit for each of the 63
    // pointers that follow. The image is linked at 0, so each pointer grows
    // by the address of the image.
    adrp    x0, __relocations_start
    add     x0, x0, :lo12:__relocations_start
    adrp    x1, __relocations_end
    add     x1, x1, :lo12:__relocations_end
4:  cmp     x0, x1
    b.hs    17f
    ldr     x2, [x0], #8
    tbnz    x2, #0, 5f
    add     x3, x2, x20
    ldr     x4, [x3]
    add     x4, x4, x20
    str     x4, [x3], #8
    b       4b
5:  mov     x5, x3
6:  lsr     x2, x2, #1
    cbz     x2, 7f
    tbz     x2, #0, 9f
    ldr     x4, [x5]
    add     x4, x4, x20
    str     x4, [x5]
9:  add     x5, x5, #8
    b       6b
7:  add     x3, x3, #(63 * 8)
    b       4b

    // .data is kept as it is now, for a second start.
17: adrp    x1, __file_end
    add     x1, x1, :lo12:__file_end
    adrp    x2, __data_copy
    add     x2, x2, :lo12:__data_copy
18: cmp     x22, x1
    b.hs    8f
    ldp     x3, x4, [x22], #16
    stp     x3, x4, [x2], #16
    b       18b

8:  adrp    x0, __bss_start
    add     x0, x0, :lo12:__bss_start
    adrp    x1, __bss_end
    add     x1, x1, :lo12:__bss_end
10: cmp     x0, x1
    b.hs    11f
    stp     xzr, xzr, [x0], #16
    b       10b

    // Exceptions run on SP_ELx, everything else on SP_EL0.
11: msr     spsel, #1
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
    mov     x1, x21
    bl      {start}

.section .data.started, "aw"
.balign 8
.global started
started:
    .long   0

.section .kept, "aw", %nobits
.balign 8
.global kept
kept:
    .skip   256
"#,
    start = sym super::start,
);
