//! The console: a serial port that the previous boot stage has set up, or
//! that of UEFI.
//!
//! Line settings are not changed. Without a console all output is discarded, and
//! from the first abort of a port on.

mod registers;
mod uefi;

use core::fmt::{self, Write};

use spin::Mutex;
use warmbus_machine::{Console, UartLayout};
use warmbus_paging::PagingError;

use crate::arch::mmu::Mmu;
use registers::Registers;

/// How often the status of a port is polled for one byte before the port
/// counts as stuck: longer than the slowest line takes for a byte, shorter
/// than a person waits.
const TX_POLL_LIMIT: u32 = 1_000_000;

static CONSOLE: Mutex<Backend> = Mutex::new(Backend::None);

/// Where output goes.
enum Backend {
    None,
    Port(Port),
    /// The console of UEFI, while boot services run.
    Uefi,
}

struct Port {
    layout: UartLayout,
    registers: Registers,
    /// The port accepted the last byte.
    responds: bool,
}

impl Port {
    /// # Safety
    ///
    /// The registers of `console` must be mapped as device memory, and
    /// nothing else may use them.
    unsafe fn new(console: &Console) -> Self {
        let layout = console.layout();
        // SAFETY: the registers are those of the console, whose size and
        // alignment the reader of the machine description has checked; the
        // rest is the contract of this function.
        let registers =
            unsafe { Registers::new(console.base.0 as usize, layout, console.access_width) };
        Self {
            layout,
            registers,
            responds: true,
        }
    }

    fn send(&mut self, byte: u8) {
        // A stuck port costs the timeout once, not for every byte.
        let polls = if self.responds { TX_POLL_LIMIT } else { 1 };
        self.responds = self.layout.send(byte, polls, &mut self.registers);
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

/// Opens the serial port `console`.
pub(crate) fn open(console: &Console, mmu: &mut Mmu) -> Result<(), PagingError> {
    mmu.map_device(console.base.0, console.size.min(0x1000))?;
    // SAFETY: just mapped, and only opened here.
    let port = unsafe { Port::new(console) };
    *CONSOLE.lock() = Backend::Port(port);
    Ok(())
}

/// Opens the console of UEFI.
pub(crate) fn open_uefi() {
    *CONSOLE.lock() = Backend::Uefi;
}

/// Writes to the console.
pub(crate) fn print(text: fmt::Arguments<'_>) {
    // A port never fails, and an error of the console has no other console to
    // go to.
    let mut console = CONSOLE.lock();
    let _ = match &mut *console {
        Backend::None => Ok(()),
        Backend::Port(port) => port.write_fmt(text),
        Backend::Uefi => uefi::write(text),
    };
    if let Backend::Port(port) = &mut *console
        && !port.registers.work()
    {
        *console = Backend::None;
    }
}

/// Unlocks the console for a last message, even if it is in use.
///
/// # Safety
///
/// The code that was writing must never be resumed.
pub(crate) unsafe fn force_unlock() {
    // SAFETY: by the contract of this function.
    unsafe { CONSOLE.force_unlock() };
}

/// Writes one line to the console.
macro_rules! println {
    ($($argument:tt)*) => {
        $crate::console::print(format_args!("{}\n", format_args!($($argument)*)))
    };
}
pub(crate) use println;
