// A hypervisor that takes configuration space away from what runs above it, for
// tests and for the benchmark.
//
// QEMU starts it at EL2 as it starts a kernel. It maps all physical addresses to
// themselves but for the gibibyte that the ECAM window of QEMU's virt machine is
// in, or WINDOW_GIBS of them from there on, and goes on at EL1 in the image at GUEST,
// with the same device tree. Each access to the window is reported to the test, over
// the semihosting of QEMU, in 32 bytes through the FIFO at REQUESTS:
//
//   u64 address, u64 value, u64 ticks of CNTVCT_EL0, u8 log2 of the bytes,
//   u8 1 for a write, 6 bytes of 0
//
// and ends as the test says in 16 bytes through the FIFO at ANSWERS: u64 value,
// u32 outcome, u32 syndrome. The outcome is 0 for the value, 1 for a synchronous
// external abort, and 2 for the value and an SError, which has the syndrome on a
// processor with FEAT_RAS.
//
// With LATENCY each access is made here instead, and takes so many nanoseconds, where
// a tick of the counter is one and an instruction INSTRUCTION of them. What it takes
// to come here and to go back is part of it.
//
// With SERROR_AT_ENTRY an SError is pending when the image is entered.
//
// With NO_FREQUENCY the counter has no frequency, as behind a loader that never set
// it, until the first SMC: the firmware makes none on one processor, and no Linux
// starts without.
//
// With REFUSES_OFF SYSTEM_OFF of PSCI is answered with NOT_SUPPORTED.
//
// With COUNTER_GOES_BACK the counter of the guest goes back by 0.3 ms at every
// 32nd of the first 512 accesses.
//
// With HOSTILE the image is entered in the worst state that the boot protocol allows,
// and configuration space is not taken away: hostile.S.
//
// Whatever else comes here is reported as a request of log2 0xff, with ESR_EL2,
// FAR_EL2 and ELR_EL2 in its place, and ends the machine.

image_start:
        b       start
        .long   0
        .quad   0                       // text_offset
        .quad   image_end               // image_size
        .quad   0xa                     // little-endian, 4 KiB pages, anywhere
        .quad   0, 0, 0
        .ascii  "ARM\x64"
        .long   0

        .equ    SYS_OPEN, 0x01
        .equ    SYS_WRITE, 0x05
        .equ    SYS_READ, 0x06
        .equ    SYS_EXIT, 0x18
        .equ    READ_AND_WRITE, 3       // fopen's "r+b": waits for no other end
        .equ    AMO, 1 << 5             // HCR_EL2: the guest's SErrors are virtual
        .equ    VSE, 1 << 8             // HCR_EL2: one is pending
        .equ    TSC, 1 << 19            // HCR_EL2: SMC comes here
        .equ    WINDOW_GIB, 0x100       // 0x40_0000_0000
#ifndef WINDOW_GIBS
#define WINDOW_GIBS 1
#endif

start:  mov     x20, x0
#ifdef HOSTILE
        bl      poison
#elif !defined(LATENCY)
        bl      open
#endif
        bl      map

        mov     x0, #1 << 31            // HCR_EL2.RW, AMO, VM, and
        orr     x0, x0, #AMO
        orr     x0, x0, #1
        orr     x0, x0, #3 << 40        // APK, API: pointer authentication
#ifdef SERROR_AT_ENTRY
        orr     x0, x0, #VSE
#endif
#ifdef NO_FREQUENCY
        mrs     x1, cntfrq_el0
        adr     x2, frequency
        str     x1, [x2]
        msr     cntfrq_el0, xzr
        orr     x0, x0, #TSC
#endif
#ifdef REFUSES_OFF
        orr     x0, x0, #TSC
#endif
        msr     hcr_el2, x0
        msr     cntvoff_el2, xzr
        mov     x0, #3                  // counter and timer are the guest's
        msr     cnthctl_el2, x0
        mov     x0, #0x33ff
        msr     cptr_el2, x0
        mrs     x0, midr_el1
        msr     vpidr_el2, x0
        mrs     x0, mpidr_el1
        msr     vmpidr_el2, x0
        mov     x0, #0xf                // the interrupt controller is, too
        msr     s3_4_c12_c9_5, x0       // ICC_SRE_EL2
        isb
#ifdef HOSTILE
        b       enter
#endif
        ldr     x0, =0x30d00800
        msr     sctlr_el1, x0
        adr     x0, vectors
        msr     vbar_el2, x0
        ldr     x0, =GUEST
        msr     elr_el2, x0
        mov     x0, #0x3c5              // EL1h, DAIF
        msr     spsr_el2, x0
        mov     x0, x20
        mov     x1, xzr
        mov     x2, xzr
        mov     x3, xzr
        isb
        eret

// Opens both FIFOs.
open:   adr     x1, block
        adr     x2, requests
        mov     x3, #READ_AND_WRITE
        stp     x2, x3, [x1]
        mov     x2, #(requests_end - requests - 1)
        str     x2, [x1, #16]
        mov     x0, #SYS_OPEN
        hlt     #0xf000
        adr     x9, handles
        str     x0, [x9]
        adr     x2, answers
        stp     x2, x3, [x1]
        mov     x2, #(answers_end - answers - 1)
        str     x2, [x1, #16]
        mov     x0, #SYS_OPEN
        hlt     #0xf000
        str     x0, [x9, #8]
        ret

// Stage 2: 40 bits of address, two tables of level 1 side by side, blocks of
// 1 GiB that are Normal, shareable and may be read and written.
map:    adr     x0, tables
        mov     x1, xzr
        mov     x2, #0x7fd
1:      orr     x3, x2, x1, lsl #30
#ifndef HOSTILE
        sub     x4, x1, #WINDOW_GIB
        cmp     x4, #WINDOW_GIBS
        csel    x3, xzr, x3, lo
#endif
        str     x3, [x0, x1, lsl #3]
        add     x1, x1, #1
        cmp     x1, #1024
        b.ne    1b
        msr     vttbr_el2, x0
        ldr     x0, =0x80023558         // T0SZ 24, SL0 1, PS 40 bits
        msr     vtcr_el2, x0
        dsb     sy
        tlbi    vmalls12e1
        dsb     sy
        isb
        ret

        .balign 2048
vectors:
        .rept   8
        b       unexpected
        .balign 128
        .endr
        b       synchronous             // from a lower level, AArch64
        .balign 128
        .rept   7
        b       unexpected
        .balign 128
        .endr

synchronous:
        msr     tpidr_el2, x0
        adr     x0, saved
        stp     x2, x3, [x0, #16]
        stp     x4, x5, [x0, #32]
        stp     x6, x7, [x0, #48]
        stp     x8, x9, [x0, #64]
        stp     x10, x11, [x0, #80]
        stp     x12, x13, [x0, #96]
        stp     x14, x15, [x0, #112]
        stp     x16, x17, [x0, #128]
        stp     x18, x19, [x0, #144]
        stp     x20, x21, [x0, #160]
        stp     x22, x23, [x0, #176]
        stp     x24, x25, [x0, #192]
        stp     x26, x27, [x0, #208]
        stp     x28, x29, [x0, #224]
        str     x30, [x0, #240]
        mrs     x2, tpidr_el2
        stp     x2, x1, [x0]

        mov     x19, x0
        mrs     x20, esr_el2
        lsr     x1, x20, #26
        cmp     x1, #0x17               // an SMC, which is made again
        b.eq    smc
#ifdef HOSTILE
        cmp     x1, #0x07               // a floating-point instruction
        b.eq    floating_point
        cmp     x1, #0x19               // of SVE
        b.eq    floating_point
        cmp     x1, #0x1d               // of SME
        b.eq    floating_point
#endif
        cmp     x1, #0x24               // a data abort of a lower level
        b.ne    unexpected
        tbz     x20, #24, unexpected    // one register, and reported which
        ubfx    x21, x20, #16, #5       // SRT
        ubfx    x22, x20, #22, #2       // SAS
        ubfx    x23, x20, #6, #1        // WnR
        mrs     x1, hpfar_el2
        ubfx    x1, x1, #4, #36
        lsl     x1, x1, #12
        mrs     x2, far_el2
        bfxil   x1, x2, #0, #12
        ldr     x2, [x19, x21, lsl #3]  // register 31 is saved as 0
        mrs     x3, cntvct_el0
sampled:
#ifdef LATENCY
        b       carry_out
#else
        orr     x4, x22, x23, lsl #8
        bl      report

        adr     x1, block
        adr     x2, handles
        ldr     x3, [x2, #8]
        adr     x4, message
        stp     x3, x4, [x1]
        mov     x4, #16
        str     x4, [x1, #16]
        mov     x0, #SYS_READ
        hlt     #0xf000
        cbnz    x0, unexpected
        adr     x1, message
        ldp     x2, x3, [x1]
        lsr     x4, x3, #32
        and     x3, x3, #0xffffffff
        cmp     x3, #1
        b.eq    abort
        cmp     x3, #2
        b.eq    serror
#endif
answered:
#ifdef COUNTER_GOES_BACK
        adr     x4, count
        ldr     x5, [x4]
        add     x5, x5, #1
        str     x5, [x4]
        tst     x5, #31
        b.ne    6f
        cmp     x5, #512
        b.hi    6f
        mrs     x4, cntvoff_el2
        mov     x5, #20000
        add     x4, x4, x5
        msr     cntvoff_el2, x4
        isb
6:
#endif
        cbnz    x23, 2f
        cmp     x21, #31
        b.eq    2f
        str     x2, [x19, x21, lsl #3]
2:      mrs     x0, elr_el2
        add     x0, x0, #4
        msr     elr_el2, x0

resume: mov     x0, x19
        ldp     x2, x3, [x0, #16]
        ldp     x4, x5, [x0, #32]
        ldp     x6, x7, [x0, #48]
        ldp     x8, x9, [x0, #64]
        ldp     x10, x11, [x0, #80]
        ldp     x12, x13, [x0, #96]
        ldp     x14, x15, [x0, #112]
        ldp     x16, x17, [x0, #128]
        ldp     x18, x19, [x0, #144]
        ldp     x20, x21, [x0, #160]
        ldp     x22, x23, [x0, #176]
        ldp     x24, x25, [x0, #192]
        ldp     x26, x27, [x0, #208]
        ldp     x28, x29, [x0, #224]
        ldr     x30, [x0, #240]
        ldp     x0, x1, [x0]
        eret
left:

#ifdef LATENCY
// Makes the access of 1 << x22 bytes at x1, a write of x2 if x23 is 1, and waits until
// x3 is LATENCY ago.
carry_out:
        cbnz    x23, 3f
        cmp     x22, #1
        b.eq    1f
        b.hi    2f
        ldrb    w2, [x1]
        b       6f
1:      ldrh    w2, [x1]
        b       6f
2:      ldr     w2, [x1]
        b       6f
3:      cmp     x22, #1
        b.eq    4f
        b.hi    5f
        strb    w2, [x1]
        b       6f
4:      strh    w2, [x1]
        b       6f
5:      str     w2, [x1]
6:      dsb     sy
        ldr     x4, wait
        add     x3, x3, x4
7:      mrs     x0, cntvct_el0
        cmp     x0, x3
        b.lo    7b
        b       answered

// What is executed before the first look at the counter and behind the last one: two
// instructions of the loop, the branches to here and back, half a turn of the loop.
        .equ    OUTSIDE, (sampled - synchronous + left - answered) / 4 + 5
wait:   .quad   LATENCY - INSTRUCTION * OUTSIDE
#endif

// The guest has an SError of syndrome x4 from here on, until it takes it.
serror: mrs     x1, hcr_el2
        orr     x1, x1, #VSE
        msr     hcr_el2, x1
        mrs     x1, id_aa64pfr0_el1
        tst     x1, #0xf << 28          // RAS
        b.eq    answered
        msr     s3_4_c5_c2_3, x4        // VSESR_EL2
        b       answered

smc:
#ifdef NO_FREQUENCY
        adr     x1, frequency
        ldr     x1, [x1]
        msr     cntfrq_el0, x1
#endif
#ifdef REFUSES_OFF
        ldr     x1, [x19]
        ldr     x2, =0x84000008         // SYSTEM_OFF
        cmp     w1, w2
        b.ne    7f
        mov     x1, #-1
        str     x1, [x19]
        mrs     x1, elr_el2             // that of the SMC itself
        add     x1, x1, #4
        msr     elr_el2, x1
        b       resume
7:
#endif
        mrs     x1, hcr_el2
        bic     x1, x1, #TSC
        msr     hcr_el2, x1
        b       resume

// A synchronous external abort of the guest, as the interconnect would make it.
abort:  mrs     x1, spsr_el2
        and     x2, x1, #0xf
        mov     x3, #0x94000000         // EC 0x25: of the same level
        mov     x4, #0x200
        cmp     x2, #5                  // EL1h
        b.eq    3f
        mov     x4, #0
        cmp     x2, #4                  // EL1t
        b.eq    3f
        mov     x3, #0x90000000         // EC 0x24: of EL0
        mov     x4, #0x400
3:      orr     x3, x3, #0x2000000      // IL
        orr     x3, x3, x23, lsl #6
        orr     x3, x3, #0x10
        msr     esr_el1, x3
        mrs     x2, far_el2
        msr     far_el1, x2
        mrs     x2, elr_el2
        msr     elr_el1, x2
        msr     spsr_el1, x1
        mrs     x2, vbar_el1
        add     x2, x2, x4
        msr     elr_el2, x2
        mov     x2, #0x3c5
        msr     spsr_el2, x2
        b       resume

#ifdef HOSTILE
#include "hostile.S"
#else
// Sends x1 to x4.
report: adr     x5, message
        stp     x1, x2, [x5]
        stp     x3, x4, [x5, #16]
        adr     x1, block
        adr     x2, handles
        ldr     x3, [x2]
        stp     x3, x5, [x1]
        mov     x4, #32
        str     x4, [x1, #16]
        mov     x0, #SYS_WRITE
        hlt     #0xf000
        cbnz    x0, exit
        ret
#endif

unexpected:
        mrs     x1, esr_el2
        mrs     x2, far_el2
        mrs     x3, elr_el2
        mov     x4, #0xff
        bl      report
exit:   adr     x1, block
        ldr     x2, =0x20026            // ADP_Stopped_ApplicationExit
        stp     x2, xzr, [x1]
        mov     x0, #SYS_EXIT
        hlt     #0xf000
4:      wfi
        b       4b

        .ltorg
#ifndef REQUESTS
#define REQUESTS ""
#define ANSWERS ""
#endif
requests:
        .asciz  REQUESTS
requests_end:
answers:
        .asciz  ANSWERS
answers_end:

        .balign 16
saved:  .fill   32, 8, 0
block:  .fill   4, 8, 0
handles:
        .fill   2, 8, 0
message:
        .fill   4, 8, 0
frequency:
        .quad   0
count:  .quad   0
        .balign 8192
tables: .fill   1024, 8, 0
        .equ    IMAGE_SIZE, 0x10000
        .set    image_end, IMAGE_SIZE
