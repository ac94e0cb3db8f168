//! Configuration tables: those that are read, and those that the EFI stub of
//! Linux would have left for Linux.

use core::ptr::{self, NonNull};

use uefi::boot;
use uefi::proto::rng::Rng;
use uefi::table::cfg::ConfigTableEntry;
use uefi::{Guid, guid};
use uefi_raw::table::boot::MemoryType;
use warmbus_memory::PhysAddr;

use super::Why;

/// `LINUX_EFI_MEMRESERVE_TABLE_GUID`: a list of memory that stays reserved
/// from one kernel to the next.
static MEMORY_RESERVATIONS: Guid = guid!("888eb0c6-8ede-4ff5-a8f0-9aee5cb977c2");
/// `LINUX_EFI_RANDOM_SEED_TABLE_GUID`: a number of bytes, and random bytes.
static RANDOM_SEED: Guid = guid!("1ce1e5bc-7ceb-42f2-81e5-8aadf180f57b");
const SEED_SIZE: usize = 32;

/// Where the RSDP of ACPI 2.0 or later is.
pub(super) fn rsdp() -> Option<PhysAddr> {
    uefi::system::with_config_table(|entries| {
        let entry = entries
            .iter()
            .find(|entry| entry.guid == ConfigTableEntry::ACPI2_GUID);
        entry.map(|entry| PhysAddr(entry.address.addr() as u64))
    })
}

/// Installs the table for memory reservations, with nothing in it: a size and
/// a count of entries (32 bits each) and the address of the next table.
/// Without it a kernel cannot pass on to the next one which memory the interrupt
/// controller goes on writing to.
pub(super) fn install_memory_reservations() -> Result<(), Why> {
    install(&MEMORY_RESERVATIONS, &[0; 16])
}

/// Installs a seed for Linux' random numbers, where UEFI has some.
pub(super) fn install_random_seed() {
    let Some(seed) = random::<SEED_SIZE>() else {
        return;
    };
    let mut table = [0; 4 + SEED_SIZE];
    table[..4].copy_from_slice(&(SEED_SIZE as u32).to_le_bytes());
    table[4..].copy_from_slice(&seed);
    // Without it Linux starts with less.
    let _ = install(&RANDOM_SEED, &table);
}

/// Random bytes, where UEFI has some.
pub(super) fn random<const N: usize>() -> Option<[u8; N]> {
    let handle = boot::get_handle_for_protocol::<Rng>().ok()?;
    let mut source = boot::open_protocol_exclusive::<Rng>(handle).ok()?;
    let mut bytes = [0; N];
    source.get_rng(None, &mut bytes).ok()?;
    Some(bytes)
}

/// Copies `table` to memory that stays and names it in the list of tables.
fn install(guid: &'static Guid, table: &[u8]) -> Result<(), Why> {
    // Linux keeps this type of memory as it is.
    let place: NonNull<u8> = boot::allocate_pool(MemoryType::ACPI_RECLAIM, table.len())?;
    // SAFETY: as many bytes were just allocated.
    unsafe { ptr::copy_nonoverlapping(table.as_ptr(), place.as_ptr(), table.len()) };
    // SAFETY: the memory is never given back, and holds what the GUID says.
    unsafe { boot::install_configuration_table(guid, place.as_ptr().cast()) }?;
    Ok(())
}
