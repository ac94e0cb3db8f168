//! Virtual functions (PCIe 9.2 and 9.3): which bytes of them nobody has to
//! read, and where they are.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::byte_class::InvalidatedBy;
use super::function_cache::FunctionCache;
use warmbus_pci::registers::{EXTENDED_CAPABILITIES, extended, sr_iov};
use warmbus_pci::{ConfigOffset, VfIdentity, VfRouting};

/// The bytes that the specification fixes in every virtual function, first
/// offset and values (PCIe 9.3.4.1): Vendor and Device ID, Cache Line Size to
/// BIST, BARs and `CardBus` CIS Pointer, Expansion ROM BAR.
///
/// Interrupt Line to `Max_Lat` are to be 0 as well, but Interrupt Pin is not in
/// the VFs of QEMU's `NVMe` controller, so that they are read.
pub(super) const FIXED: &[(u16, &[u8])] = &[
    (0x00, &[0xff; 4]),
    (0x0c, &[0; 4]),
    (0x10, &[0; 0x1c]),
    (0x30, &[0; 4]),
];

/// What a block has more if its function is a virtual one.
#[derive(Clone, Debug)]
pub(super) struct VirtualFunction {
    pub(super) identity: VfIdentity,
    /// One bit for each byte of the header that was not read.
    fixed: u64,
}

impl VirtualFunction {
    pub(super) fn new(identity: VfIdentity) -> Self {
        let fixed = FIXED.iter().fold(0, |bits, (start, values)| {
            bits | ((1 << values.len()) - 1) << start
        });
        Self { identity, fixed }
    }

    /// What is cached of `byte` from now on comes from the hardware.
    pub(super) fn dropped(&mut self, byte: u16) {
        self.fixed &= !1u64.checked_shl(byte.into()).unwrap_or(0);
    }

    pub(super) fn synthesised(&self) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for byte in (0..64).filter(|byte| self.fixed >> byte & 1 != 0) {
            match ranges.last_mut() {
                Some((start, length)) if *start + *length == byte => *length += 1,
                _ => ranges.push((byte, 1)),
            }
        }
        ranges
    }
}

/// What is known of First VF Offset and VF Stride of a physical function.
///
/// Both may depend on NumVFs and on ARI Capable Hierarchy, and Linux asks for
/// each NumVFs in turn. What was read for one holds until ARI changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Routing {
    /// What NumVFs was last written or read, if it is sure to be that.
    num_vfs: Option<u16>,
    /// VF Enable was last written as 0, which leaves no VF enabled.
    is_off: bool,
    /// By NumVFs.
    known: BTreeMap<u16, VfRouting>,
}

impl Routing {
    pub(super) fn known(&self) -> impl Iterator<Item = VfRouting> {
        self.known.values().copied()
    }
}

impl FunctionCache {
    /// Where the register `at` of the SR-IOV capability is, if there is one.
    pub(super) fn sr_iov_register(&self, at: u16) -> Option<u16> {
        Some(self.extended_capability(extended::SR_IOV)? + at)
    }

    /// Takes note of `value`, read at `offset`, if it says where VFs are.
    pub(super) fn learn_routing(&mut self, offset: u16, value: u32) {
        // Most registers are not even where SR-IOV can be.
        if offset < EXTENDED_CAPABILITIES || self.sr_iov_register(sr_iov::VF_OFFSET) != Some(offset)
        {
            return;
        }
        let cached = self
            .sr_iov_register(sr_iov::NUM_VFS)
            .and_then(|register| self.word(register));
        let routing = self.routing.get_or_insert_default();
        let Some(num_vfs) = routing.num_vfs.or(cached) else {
            return;
        };
        let found = VfRouting::from_dword(num_vfs, value);
        routing.known.insert(num_vfs, found);
    }

    /// VF Enable is about to be written.
    pub(super) fn write_vf_enable(&mut self, is_set: bool) {
        self.routing.get_or_insert_default().is_off = !is_set;
    }

    /// NumVFs is about to be written: `num_vfs` where the write reaches all of
    /// it. What is known for that number is kept, everything else dropped.
    /// Returns how many cached bytes were dropped.
    pub(super) fn write_num_vfs(&mut self, num_vfs: Option<u16>) -> u64 {
        let dropped = self.drop_where(|cell| cell.tag == InvalidatedBy::VfRouting);
        let control = self
            .sr_iov_register(sr_iov::CONTROL)
            .and_then(|register| self.word(register));
        // While VFs are enabled the register need not take the value.
        let reads_off = control.is_some_and(|control| control & sr_iov::VF_ENABLE == 0);
        let routing = self.routing.get_or_insert_default();
        let num_vfs = num_vfs.filter(|_| routing.is_off || reads_off);
        routing.num_vfs = num_vfs;
        let known = num_vfs.and_then(|num_vfs| routing.known.get(&num_vfs).copied());
        if let (Some(known), Some(register)) = (known, self.sr_iov_register(sr_iov::VF_OFFSET)) {
            let [o0, o1] = known.offset.to_le_bytes();
            let [s0, s1] = known.stride.to_le_bytes();
            for (byte, value) in (register..).zip([o0, o1, s0, s1]) {
                if self.is_cacheable(ConfigOffset::wrapping(byte)) {
                    self.set_byte(byte, value);
                }
            }
        }
        dropped
    }

    /// ARI Capable Hierarchy may have changed, or the function was reset:
    /// what is known of the places of VFs does not hold any more.
    pub(super) fn clear_routing(&mut self) {
        self.routing = None;
    }
}
