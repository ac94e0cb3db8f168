//! Configuration tables of UEFI: where those of ACPI are, and the one that
//! Linux finds a handover by.

use core::ffi::c_void;
use core::ptr;

use uefi::boot;
use uefi::table::cfg::ConfigTableEntry;
use uefi::{Guid, guid};
use uefi_raw::table::boot::MemoryType;
use warmbus_memory::PhysAddr;

use super::{Why, cannot};

/// `EFI_DTB_TABLE_GUID`: a device tree.
static DEVICE_TREE: Guid = guid!("b1b621d5-f19c-41a5-830b-d9152c69aae0");

fn find(guid: &Guid) -> Option<PhysAddr> {
    uefi::system::with_config_table(|entries| {
        let entry = entries.iter().find(|entry| entry.guid == *guid);
        entry.map(|entry| PhysAddr(entry.address.addr() as u64))
    })
}

/// Where the RSDP of ACPI 2.0 or later is.
pub(super) fn rsdp() -> Option<PhysAddr> {
    find(&ConfigTableEntry::ACPI2_GUID)
}

/// Where the device tree is that somebody else has installed.
pub(super) fn other_device_tree() -> Option<PhysAddr> {
    find(&DEVICE_TREE)
}

/// The device tree of Warmbus. The one before it comes back with the end of this
/// value.
pub(super) struct DeviceTreeTable {
    tree: ptr::NonNull<u8>,
    before: Option<PhysAddr>,
}

impl DeviceTreeTable {
    /// Installs a copy of `tree`.
    pub(super) fn install(tree: &[u8]) -> Result<Self, Why> {
        // The type that UEFI recommends for tables that are read once.
        let copy = boot::allocate_pool(MemoryType::ACPI_RECLAIM, tree.len())
            .map_err(cannot("allocate the device tree"))?;
        let table = Self {
            tree: copy,
            before: other_device_tree(),
        };
        // SAFETY: as many bytes were just allocated.
        unsafe { ptr::copy_nonoverlapping(tree.as_ptr(), copy.as_ptr(), tree.len()) };
        // SAFETY: it is a device tree, and stays until the table is removed.
        let installed =
            unsafe { boot::install_configuration_table(&DEVICE_TREE, copy.as_ptr().cast()) };
        installed.map_err(cannot("install the device tree"))?;
        Ok(table)
    }
}

impl Drop for DeviceTreeTable {
    fn drop(&mut self) {
        let own = self.tree.as_ptr().addr() as u64;
        if other_device_tree().is_some_and(|tree| tree.0 == own) {
            let before = self.before.map_or(0, |before| before.0 as usize);
            let before = ptr::with_exposed_provenance::<c_void>(before);
            // SAFETY: it was there before; NULL removes the table. Where that
            // fails the tree has to stay.
            if unsafe { boot::install_configuration_table(&DEVICE_TREE, before) }.is_err() {
                return;
            }
        }
        // SAFETY: nothing names it any more.
        let _ = unsafe { boot::free_pool(self.tree) };
    }
}
