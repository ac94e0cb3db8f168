//! The console: a serial port that somebody before us has set up.
//!
//! Line settings are left alone. Without a port everything written is lost,
//! which is all that can be done.

use core::fmt::{self, Write};
use core::ptr::{self, NonNull};

use arm_pl011_uart::{PL011Registers, Uart};
use safe_mmio::UniqueMmioPointer;
use safe_mmio::fields::{ReadOnly, WriteOnly};
use spin::Mutex;
use warmbus_machine::{Console, ConsoleKind};
use warmbus_paging::PagingError;

use crate::mmu::Mmu;

/// How often a port is asked whether it takes a byte before it is given up:
/// longer than the slowest line needs, shorter than a person waits.
const PATIENCE: u32 = 1_000_000;
/// Line Status Register, "transmitter holding register empty" (16550 data
/// sheet).
const LSR_THRE: u8 = 1 << 5;
const LSR: usize = 5;

static VOICE: Mutex<Voice> = Mutex::new(Voice::None);

/// Who speaks.
enum Voice {
    None,
    Port(Port),
    /// The console of UEFI, while boot services run.
    Uefi,
}

/// A register of a 16550 for writing and one for reading, `T` wide.
struct Ns16550<T: 'static> {
    transmit: UniqueMmioPointer<'static, WriteOnly<T>>,
    status: UniqueMmioPointer<'static, ReadOnly<T>>,
}

enum Registers {
    Pl011(Uart<'static>),
    Bytes(Ns16550<u8>),
    Halfwords(Ns16550<u16>),
    Words(Ns16550<u32>),
}

struct Port {
    registers: Registers,
    /// The port took a byte the last time it was asked.
    alive: bool,
}

// SAFETY: the registers belong to no CPU in particular.
unsafe impl Send for Port {}

impl Port {
    /// # Safety
    ///
    /// The registers of `console` must be mapped as device memory, and be used
    /// by nobody else.
    unsafe fn new(console: &Console) -> Option<Self> {
        let base = NonNull::new(ptr::with_exposed_provenance_mut::<u8>(
            console.base.0 as usize,
        ))?;
        // SAFETY: the register is within those of the console, which the
        // device tree reader has checked along with the alignment; the rest is
        // the contract of this function.
        let registers = unsafe {
            match (console.kind, console.access_width) {
                (ConsoleKind::Pl011, _) => Registers::Pl011(Uart::new(UniqueMmioPointer::new(
                    base.cast::<PL011Registers>(),
                ))),
                (ConsoleKind::Ns16550, 1) => {
                    Registers::Bytes(ns16550(base, console.register_shift))
                }
                (ConsoleKind::Ns16550, 2) => {
                    Registers::Halfwords(ns16550(base, console.register_shift))
                }
                (ConsoleKind::Ns16550, _) => {
                    Registers::Words(ns16550(base, console.register_shift))
                }
            }
        };
        Some(Self {
            registers,
            alive: true,
        })
    }

    fn is_ready(&mut self) -> bool {
        let status = match &mut self.registers {
            Registers::Pl011(uart) => return !uart.is_tx_fifo_full(),
            Registers::Bytes(port) => port.status.read(),
            Registers::Halfwords(port) => port.status.read() as u8,
            Registers::Words(port) => port.status.read() as u8,
        };
        status & LSR_THRE != 0
    }

    fn send(&mut self, byte: u8) {
        // A port that is stuck is waited for once, not for every byte.
        let patience = if self.alive { PATIENCE } else { 1 };
        self.alive = (0..patience).any(|_| self.is_ready());
        if !self.alive {
            return;
        }
        match &mut self.registers {
            Registers::Pl011(uart) => uart.write_word(byte),
            Registers::Bytes(port) => port.transmit.write(byte),
            Registers::Halfwords(port) => port.transmit.write(byte.into()),
            Registers::Words(port) => port.transmit.write(byte.into()),
        }
    }
}

/// # Safety
///
/// As [`Port::new`], for registers that are `T` wide and `1 << shift` apart.
unsafe fn ns16550<T>(base: NonNull<u8>, shift: u8) -> Ns16550<T> {
    // SAFETY: by the contract of this function; both registers are different.
    unsafe {
        Ns16550 {
            transmit: UniqueMmioPointer::new(base.cast()),
            status: UniqueMmioPointer::new(base.add(LSR << shift).cast()),
        }
    }
}

impl Write for Port {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.send(b'\r');
            }
            self.send(byte);
        }
        Ok(())
    }
}

/// Opens the console.
pub(crate) fn open(console: &Console, mmu: &mut Mmu) -> Result<(), PagingError> {
    mmu.map_device(console.base.0, console.size.min(0x1000))?;
    // SAFETY: just mapped, and only opened here.
    let port = unsafe { Port::new(console) };
    *VOICE.lock() = port.map_or(Voice::None, Voice::Port);
    Ok(())
}

/// Opens the console of UEFI.
pub(crate) fn open_uefi() {
    *VOICE.lock() = Voice::Uefi;
}

/// Is silent from now on.
pub(crate) fn close() {
    *VOICE.lock() = Voice::None;
}

/// Writes to the console.
pub(crate) fn print(text: fmt::Arguments<'_>) {
    // A port never fails, and who else should be told that UEFI did?
    let _ = match &mut *VOICE.lock() {
        Voice::None => Ok(()),
        Voice::Port(port) => port.write_fmt(text),
        Voice::Uefi => uefi::system::with_stdout(|console| console.write_fmt(text)),
    };
}

/// Takes the console from whoever is writing to it, for a last message.
///
/// # Safety
///
/// Whoever was writing must never go on.
pub(crate) unsafe fn seize() {
    // SAFETY: by the contract of this function.
    unsafe { VOICE.force_unlock() };
}

/// Writes one line to the console.
macro_rules! println {
    ($($argument:tt)*) => {
        $crate::console::print(format_args!("{}\n", format_args!($($argument)*)))
    };
}
pub(crate) use println;
