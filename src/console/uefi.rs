//! The console of UEFI (UEFI 12.4, Simple Text Output Protocol).

use core::fmt::{self, Write};

/// Writes to standard output, while boot services run.
pub(super) fn write(text: fmt::Arguments<'_>) -> fmt::Result {
    uefi::system::with_stdout(|console| console.write_fmt(text))
}
