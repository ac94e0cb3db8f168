//! Serial ports: where a byte is written to, and how a port says that it
//! accepts one. All that is supported are alike in that.

use crate::{Console, ConsoleKind};

/// The two registers that sending a byte takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UartLayout {
    /// Offset of the register that a byte is written to.
    pub transmit: u64,
    /// Offset of the status register.
    pub status: u64,
    /// Bits of the status register that say whether a byte is accepted.
    pub mask: u32,
    /// Their value while one is.
    pub ready: u32,
}

/// The registers of a serial port, by offset. An access has
/// [`Console::access_width`] bytes.
pub trait UartRegisters {
    /// Reads the status register.
    fn status(&mut self) -> u32;

    /// Writes a byte to the register to transmit from.
    fn transmit(&mut self, byte: u8);
}

impl UartLayout {
    /// The registers of `kind`, which are `1 << shift` bytes apart where that
    /// depends on the machine.
    #[must_use]
    pub const fn of(kind: ConsoleKind, shift: u8) -> Self {
        match kind {
            // Flag Register, Transmit FIFO Full (Arm DDI 0183, 3.3.3).
            ConsoleKind::Pl011 => Self::new(0, 0x18, 1 << 5, 0),
            // Line Status Register, Transmitter Holding Register Empty (16550
            // data sheet).
            ConsoleKind::Ns16550 => Self::new(0, 5 << shift, 1 << 5, 1 << 5),
            // UTXD, and TXFULL in UTS, where i.MX21 and all later ones have it.
            ConsoleKind::Imx => Self::new(0x40, 0xb4, 1 << 4, 0),
            // DATA, and Transmit Data Register Empty in STAT, behind the two
            // words that i.MX7ULP and all later ones have in front.
            ConsoleKind::Lpuart => Self::new(0x1c, 0x14, 1 << 23, 1 << 23),
            // Write FIFO, and Transmit FIFO Full in the status.
            ConsoleKind::Meson => Self::new(0, 0x0c, 1 << 21, 0),
        }
    }

    const fn new(transmit: u64, status: u64, mask: u32, ready: u32) -> Self {
        Self {
            transmit,
            status,
            mask,
            ready,
        }
    }

    /// Offset of the last byte that is accessed, with accesses of `width`
    /// bytes.
    #[must_use]
    pub const fn last(&self, width: u8) -> u64 {
        let highest = if self.status > self.transmit {
            self.status
        } else {
            self.transmit
        };
        highest + width as u64 - 1
    }

    /// Sends `byte` as soon as the port accepts it, of which it is asked
    /// `polls` times at most. Returns whether it did.
    pub fn send(&self, byte: u8, polls: u32, registers: &mut impl UartRegisters) -> bool {
        let accepts = (0..polls).any(|_| registers.status() & self.mask == self.ready);
        if accepts {
            registers.transmit(byte);
        }
        accepts
    }
}

impl Console {
    /// Its registers.
    #[must_use]
    pub const fn layout(&self) -> UartLayout {
        UartLayout::of(self.kind, self.register_shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// A port that is busy for a number of polls before each byte, with bits
    /// in its status that mean something else.
    struct Model {
        layout: UartLayout,
        busy: u32,
        left: u32,
        noise: u32,
        sent: Vec<u8>,
    }

    impl UartRegisters for Model {
        fn status(&mut self) -> u32 {
            let is_ready = self.left == 0;
            self.left = self.left.saturating_sub(1);
            let busy = !self.layout.ready & self.layout.mask;
            let state = if is_ready { self.layout.ready } else { busy };
            state | (self.noise & !self.layout.mask)
        }

        fn transmit(&mut self, byte: u8) {
            assert_eq!(self.left, 0, "sent while busy");
            self.sent.push(byte);
            self.left = self.busy;
        }
    }

    const KINDS: [ConsoleKind; 5] = [
        ConsoleKind::Pl011,
        ConsoleKind::Ns16550,
        ConsoleKind::Imx,
        ConsoleKind::Lpuart,
        ConsoleKind::Meson,
    ];

    #[test]
    fn every_port_sends_what_it_is_given_when_it_is_ready_and_not_before() {
        for kind in KINDS {
            for noise in [0, u32::MAX] {
                let layout = UartLayout::of(kind, 2);
                let mut model = Model {
                    layout,
                    busy: 7,
                    left: 3,
                    noise,
                    sent: Vec::new(),
                };
                for byte in *b"Warmbus" {
                    assert!(layout.send(byte, 100, &mut model), "{kind:?}");
                }
                assert_eq!(model.sent, b"Warmbus");
            }
        }
    }

    #[test]
    fn a_port_that_is_stuck_costs_the_polls_and_gets_nothing() {
        for kind in KINDS {
            let layout = UartLayout::of(kind, 0);
            let mut model = Model {
                layout,
                busy: 0,
                left: u32::MAX,
                noise: 0,
                sent: Vec::new(),
            };
            assert!(!layout.send(b'x', 50, &mut model), "{kind:?}");
            assert_eq!((u32::MAX - model.left, model.sent.len()), (50, 0));
        }
    }

    #[test]
    fn registers_are_where_the_drivers_of_linux_have_them() {
        let place = |kind, shift| {
            let layout = UartLayout::of(kind, shift);
            (layout.transmit, layout.status, layout.mask)
        };
        assert_eq!(place(ConsoleKind::Pl011, 0), (0, 0x18, 0x20));
        assert_eq!(place(ConsoleKind::Ns16550, 0), (0, 5, 0x20));
        assert_eq!(place(ConsoleKind::Ns16550, 2), (0, 0x14, 0x20));
        assert_eq!(place(ConsoleKind::Imx, 0), (0x40, 0xb4, 0x10));
        assert_eq!(place(ConsoleKind::Lpuart, 0), (0x1c, 0x14, 0x80_0000));
        assert_eq!(place(ConsoleKind::Meson, 0), (0, 0x0c, 0x20_0000));
    }
}
