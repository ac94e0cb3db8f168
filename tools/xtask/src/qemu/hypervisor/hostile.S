// The worst machine state that the boot protocol allows, for hypervisor.S.
//
// JUNK is in all memory but the hypervisor, the device tree, the file of the image
// and the payload, and in all registers that the protocol says nothing about. RAM
// is from RAM_START to RAM_END; KEPT lists what is kept in it, ascending, but for the
// tree, which QEMU places between the hypervisor and the rest.
//
// With AT_EL2, and with VHE beside it, the image is entered at EL2, and at EL1
// otherwise. With UNMASKED interrupts and SErrors are not masked at entry.
//
// Configuration space is that of QEMU. A floating-point instruction of the image,
// and whatever else comes here, ends the machine with ESR_EL2, FAR_EL2 and ELR_EL2
// on the console. The first one of Linux gives it the registers.

        .equ    UART, 0x9000000
        .equ    TICKS_TO_WRAP, 3000000  // 48 ms

// Fills memory. The tree is at x20.
poison: mov     x10, x30
        ldr     x0, =RAM_START
        ldr     x6, =JUNK
        adr     x5, image_start
        adr     x4, image_start + IMAGE_SIZE
        bl      fill_to
        mov     x5, x20
        ldr     w4, [x20, #4]           // totalsize, big endian
        rev     w4, w4
        add     x4, x4, x20
        bl      fill_to
        adr     x7, kept
1:      ldp     x5, x4, [x7], #16
        cbz     x5, 2f
        bl      fill_to
        b       1b
2:      ldr     x5, =RAM_END
        mov     x4, x5
        bl      fill_to
        dsb     sy
        ret     x10

// Fills from x0 to x5, and goes on at x4.
fill_to:
        bic     x5, x5, #15
        cmp     x0, x5
        b.hs    2f
1:      stp     x6, x6, [x0], #16
        cmp     x0, x5
        b.lo    1b
2:      add     x0, x4, #15
        bic     x0, x0, #15
        ret

// Enters the image with junk in the registers.
enter:  ldr     x6, =JUNK
        mrs     x0, cntpct_el0
        ldr     x1, =TICKS_TO_WRAP
        add     x0, x0, x1
        msr     cntvoff_el2, x0
        mov     x0, #1                  // enabled, and expired long ago
        msr     cntp_cval_el0, xzr
        msr     cntp_ctl_el0, x0
        msr     cntv_cval_el0, xzr
        msr     cntv_ctl_el0, x0
        msr     cnthp_cval_el2, xzr
        msr     cnthp_ctl_el2, x0
        msr     cntkctl_el1, x6

        // What EL1 has, or would have.
        ldr     x0, =(0x30d00800 | 1 << 1 | 1 << 3 | 1 << 19)  // A, SA, WXN
        msr     sctlr_el1, x0
        msr     cpacr_el1, xzr          // floating point is trapped
        msr     mair_el1, x6
        msr     amair_el1, x6
        msr     tcr_el1, x6
        msr     ttbr0_el1, x6
        msr     ttbr1_el1, x6
        msr     vbar_el1, x6
        msr     elr_el1, x6
        msr     spsr_el1, x6
        msr     esr_el1, x6
        msr     far_el1, x6
        msr     afsr0_el1, x6
        msr     afsr1_el1, x6
        msr     par_el1, x6
        msr     contextidr_el1, x6
        msr     tpidr_el0, x6
        msr     tpidrro_el0, x6
        msr     tpidr_el1, x6
        msr     sp_el0, x6
        msr     sp_el1, x6
        bl      give_extensions
        // TCR2_EL1.PIE with PIRE0_EL1 and PIR_EL1, and SCTLR2_EL1.EASE.
        mrs     x1, s3_0_c0_c7_3        // ID_AA64MMFR3_EL1
        tst     x1, #0xf                // TCRX
        b.eq    1f
        tst     x1, #0xf << 8           // S1PIE
        b.eq    1f
        mov     x0, #2
        msr     s3_0_c2_c0_3, x0
        msr     s3_0_c10_c2_2, xzr
        msr     s3_0_c10_c2_3, xzr
1:      tst     x1, #0xf << 4           // SCTLRX
        b.eq    2f
        mov     x0, #1 << 5
        msr     s3_0_c1_c0_3, x0
2:
#ifdef AT_EL2
        bl      prepare_el2
        ldr     x0, =(0x30c50830 | 1 << 1 | 1 << 3 | 1 << 19)
        msr     sctlr_el2, x0
        mov     x0, #0x9                // EL2h
#else
        ldr     x0, =(0x33ff | 1 << 10) // TFP
        msr     cptr_el2, x0
        adr     x0, vectors
        msr     vbar_el2, x0
        mov     x0, #0x5                // EL1h
#endif
#ifndef UNMASKED
        orr     x0, x0, #0x3c0
#endif
        msr     spsr_el2, x0
        ldr     x0, =GUEST
        msr     elr_el2, x0
        mov     x0, x20
        .irp    n, 1,2,3,4,5,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30
        mov     x\n, x6
        .endr
        isb
        eret

// Lets EL1 have what traps or is undefined there unless EL2 enables it, as the Linux
// boot protocol asks: HCRX_EL2.{MSCEn, TCR2En, SCTLR2En, D128En, GCSEn, EnFPM} and the
// fine-grained traps whose bit is 0.
give_extensions:
        mrs     x0, id_aa64mmfr1_el1
        tst     x0, #0xf << 40          // HCX
        b.eq    1f
        ldr     x0, =0xc2c800
        msr     s3_4_c1_c2_2, x0        // HCRX_EL2
1:      mrs     x0, id_aa64mmfr0_el1
        tst     x0, #0xf << 56          // FGT
        b.eq    2f
        ldr     x0, =0xfff4000000000000
        msr     s3_4_c1_c1_4, x0        // HFGRTR_EL2
        msr     s3_4_c1_c1_5, x0        // HFGWTR_EL2
2:      ret

#ifdef AT_EL2
prepare_el2:
        msr     vttbr_el2, x6
        msr     vtcr_el2, xzr
        mov     x0, #0xffff
        msr     hstr_el2, x0
        msr     cnthctl_el2, xzr
        msr     mair_el2, x6
        msr     amair_el2, x6
        msr     ttbr0_el2, x6
        msr     vbar_el2, x6
        msr     esr_el2, x6
        msr     far_el2, x6
        msr     tpidr_el2, x6
        tst     x1, #0xf                // of ID_AA64MMFR3_EL1, as above
        b.eq    1f
        tst     x1, #0xf << 8
        b.eq    1f
        mov     x0, #2
        msr     s3_4_c2_c0_3, x0
        msr     s3_4_c10_c2_2, xzr
        msr     s3_4_c10_c2_3, xzr
1:      tst     x1, #0xf << 4
        b.eq    2f
        mov     x0, #1 << 5
        msr     s3_4_c1_c0_3, x0
2:      ldr     x0, =0x88002038         // RW, TGE, TWI, AMO, IMO, FMO
#ifdef VHE
        orr     x0, x0, #1 << 34        // E2H
        msr     hcr_el2, x0
        isb
        msr     cptr_el2, xzr           // in the layout of CPACR_EL1: all is trapped
        msr     s3_4_c2_c0_1, x6        // TTBR1_EL2
        msr     s3_4_c13_c0_1, x6       // CONTEXTIDR_EL2
#else
        msr     hcr_el2, x0
        ldr     x0, =(0x33ff | 1 << 10 | 1 << 20 | 1 << 31)    // TFP, TTA, TCPAC
        msr     cptr_el2, x0
#endif
        msr     tcr_el2, x6
        msr     sp_el0, x6
        mov     sp, x6
        isb
        ret
#endif

// A trapped instruction with floating-point, SVE or SME registers.
floating_point:
        mrs     x0, elr_el2
        ldr     x1, =GUEST
        sub     x0, x0, x1
        lsr     x0, x0, #21             // the image is in 2 MiB
        cbz     x0, unexpected
        mov     x0, #0x22ff             // without TZ and TSM
        msr     cptr_el2, x0
        isb
        b       resume

// Prints x1 to x3 on the console.
report: mov     x10, x30
        ldr     x9, =UART
        adr     x4, unexpected_text
1:      ldrb    w5, [x4], #1
        cbz     w5, 2f
        str     w5, [x9]
        b       1b
2:      mov     x6, x1
        bl      number
        mov     x6, x2
        bl      number
        mov     x6, x3
        bl      number
        mov     w5, #'\n'
        str     w5, [x9]
        ret     x10
number: mov     w5, #' '
        str     w5, [x9]
        mov     x7, #60
1:      lsr     x5, x6, x7
        and     x5, x5, #0xf
        adr     x8, hexadecimal
        ldrb    w5, [x8, x5]
        str     w5, [x9]
        subs    x7, x7, #4
        b.pl    1b
        ret

        .ltorg
unexpected_text:
        .asciz  "hypervisor: unexpected, with ESR_EL2, FAR_EL2 and ELR_EL2"
hexadecimal:
        .ascii  "0123456789abcdef"
        .balign 8
kept:   .quad   KEPT, 0, 0
