//! Variables in a flash of EDK2, as it keeps them (`VariableFormat.h`).

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Bytes of the header of the store, of a variable, and the mark that one starts with.
const STORE_HEADER: usize = 28;
const HEADER: usize = 60;
const START: [u8; 2] = [0xaa, 0x55];
/// The variable was added and is valid.
const ADDED: u8 = 0x3f;

/// A variable that only UEFI itself sees, and remembers.
pub(super) struct Variable<'a> {
    /// The GUID of who has defined it, as its bytes are in memory.
    pub(super) vendor: [u8; 16],
    pub(super) name: &'a str,
    pub(super) data: &'a [u8],
}

/// Adds `variable` behind those in `flash`, which has none of this name.
pub(super) fn add(flash: &Path, variable: &Variable<'_>) -> Result<()> {
    const NON_VOLATILE_AND_BOOT_SERVICES: u32 = 3;
    let mut bytes = fs::read(flash).with_context(|| format!("cannot read {}", flash.display()))?;
    let name: Vec<u8> = variable
        .name
        .encode_utf16()
        .chain([0])
        .flat_map(u16::to_le_bytes)
        .collect();
    let mut record = Vec::from(START);
    record.extend([ADDED, 0]);
    record.extend(NON_VOLATILE_AND_BOOT_SERVICES.to_le_bytes());
    // Counter, time and number of the key are those of variables that are signed.
    record.extend([0; 8 + 16 + 4]);
    for size in [name.len(), variable.data.len()] {
        record.extend(u32::try_from(size)?.to_le_bytes());
    }
    record.extend(variable.vendor);
    record.extend(name);
    record.extend(variable.data);
    let place = end(&bytes)?;
    let target = bytes.get_mut(place..place + record.len());
    let target = target.context("the flash is full")?;
    ensure!(target.iter().all(|byte| *byte == 0xff), "the flash is full");
    target.copy_from_slice(&record);
    fs::write(flash, bytes).with_context(|| format!("cannot write {}", flash.display()))
}

/// Where the last variable of `flash` ends.
fn end(flash: &[u8]) -> Result<usize> {
    let number = |at: usize, size: usize| {
        let mut number = [0; 8];
        let bytes = flash.get(at..at + size).context("the flash ends early")?;
        number[..size].copy_from_slice(bytes);
        Ok::<_, anyhow::Error>(usize::try_from(u64::from_le_bytes(number))?)
    };
    ensure!(
        flash.get(0x28..0x2c) == Some(b"_FVH"),
        "it is no flash with variables of EDK2"
    );
    let mut at = number(0x30, 2)? + STORE_HEADER;
    while flash.get(at..at + 2) == Some(&START) {
        let sizes = number(at + 36, 4)? + number(at + 40, 4)?;
        at = (at + HEADER + sizes).next_multiple_of(4);
    }
    Ok(at)
}
