//! Memory of a machine with UEFI, for a program that a running Linux starts.

use alloc::vec::Vec;

use warmbus_kho::scratch_areas;
use warmbus_machine::{
    MachineError, MachineMemory, MemoryMap, UefiError, UefiInChosen, UefiTables,
};
use warmbus_memory::{MemoryRange, PhysAddr, PhysMemory, RangeSet};

/// What the running Linux has put into memory for its end.
#[derive(Clone, Copy, Debug)]
pub struct LeftByLinux<'a> {
    /// The files that it has loaded, and this program.
    pub loaded: &'a [MemoryRange],
    /// The array of the scratch areas of its handover.
    pub scratch: Option<MemoryRange>,
}

/// Why the memory of a machine with UEFI is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// What UEFI has left cannot be read.
    #[error(transparent)]
    Uefi(#[from] UefiError),
    /// The tree cannot be read, or there is no memory, or too much of it.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

/// The memory of `map`, which `uefi` has named in `tree`, and where the RSDP is.
///
/// Only what was free when UEFI ended is free: tables may be in all other memory, whatever
/// its type says, and Linux finds and reserves them one by one. Where it has put files or
/// will put nothing but scratch memory, there are none.
pub fn memory(
    tree: &[u8],
    uefi: &UefiInChosen,
    map: &MemoryMap<'_>,
    contents: &dyn PhysMemory,
    left: LeftByLinux<'_>,
) -> Result<(MachineMemory, Option<PhysAddr>), MemoryError> {
    let tables = UefiTables::read(contents, uefi.system_table, map)?;
    let areas = left.scratch.map(|array| scratch_areas(contents, array));
    let areas = areas.and_then(Result::ok).unwrap_or_default();
    let allocated = map.allocated().collect::<RangeSet>();
    let allocated = allocated.without(left.loaded.iter().copied().chain(areas));
    let mut firmware: Vec<_> = allocated.into_iter().collect();
    firmware.extend(tables.reserved);
    firmware.push(uefi.map);
    let memory = MachineMemory::from_uefi(tree, map, firmware)?;
    Ok((memory, tables.rsdp))
}

#[cfg(test)]
mod tests;
