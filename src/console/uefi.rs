//! The console of UEFI (UEFI 12.4, Simple Text Output Protocol).

use core::fmt::{self, Write};

/// Writes to standard output, while boot services run. A driver may be started
/// before there is one.
pub(super) fn write(text: fmt::Arguments<'_>) -> fmt::Result {
    let table = uefi::table::system_table_raw();
    // SAFETY: the table is there while boot services run.
    let has_console = table.is_some_and(|table| !unsafe { table.as_ref() }.stdout.is_null());
    if !has_console {
        return Ok(());
    }
    uefi::system::with_stdout(|console| console.write_fmt(text))
}
