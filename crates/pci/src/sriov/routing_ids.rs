//! Routing IDs of virtual functions: where they are, and which are taken.

use alloc::collections::BTreeSet;

use crate::{AnomalyKind, Sbdf, SrIovInfo, Topology};

/// Which virtual function a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VfIdentity {
    /// Its physical function.
    pub physical: Sbdf,
    /// Its number, from 1 to NumVFs.
    pub number: u16,
    /// What its routing ID follows from.
    pub routing: VfRouting,
}

/// Where the virtual functions of a physical function are for one value of
/// NumVFs (PCIe 9.3.3.9 and 9.3.3.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VfRouting {
    /// NumVFs.
    pub num_vfs: u16,
    /// First VF Offset: from the routing ID of the physical function to that
    /// of VF 1.
    pub offset: u16,
    /// VF Stride: from one VF to the next.
    pub stride: u16,
}

impl VfRouting {
    /// The routing IDs are in the dword at First VF Offset: `value` as it was
    /// read while NumVFs is `num_vfs`.
    #[must_use]
    pub const fn from_dword(num_vfs: u16, value: u32) -> Self {
        Self {
            num_vfs,
            offset: value as u16,
            stride: (value >> 16) as u16,
        }
    }

    /// The address of VF `number`, from 1, of the function at `physical`. Its
    /// routing ID is computed modulo 2^16 (PCIe 9.2.1.2).
    #[must_use]
    pub const fn address(&self, physical: Sbdf, number: u16) -> Sbdf {
        let routing_id = self.unwrapped(physical, number);
        Sbdf::from_routing_id(physical.segment(), routing_id as u16)
    }

    /// The addresses of all VFs of the function at `physical`, by number.
    pub fn addresses(self, physical: Sbdf) -> impl Iterator<Item = Sbdf> {
        (1..=self.num_vfs).map(move |number| self.address(physical, number))
    }

    /// The bus of the last VF of the function at `physical`, before it is
    /// reduced modulo 2^16: one beyond 255 does not exist. The bus of the
    /// function itself where there is no VF.
    #[must_use]
    pub const fn last_bus(&self, physical: Sbdf) -> u32 {
        match self.num_vfs {
            0 => physical.bus() as u32,
            last => self.unwrapped(physical, last) >> 8,
        }
    }

    /// Whether two VFs share a routing ID, or one has that of the physical
    /// function.
    #[must_use]
    pub const fn overlaps(&self) -> bool {
        self.num_vfs > 0 && self.offset == 0 || self.num_vfs > 1 && self.stride == 0
    }

    const fn unwrapped(self, physical: Sbdf, number: u16) -> u32 {
        physical.routing_id() as u32
            + self.offset as u32
            + number.saturating_sub(1) as u32 * self.stride as u32
    }
}

impl SrIovInfo {
    /// Where all VFs that there can be are, for NumVFs = TotalVFs.
    #[must_use]
    pub const fn routing(&self) -> VfRouting {
        VfRouting {
            num_vfs: self.total_vfs,
            offset: self.first_vf_offset,
            stride: self.vf_stride,
        }
    }
}

/// The routing IDs that functions have, and VFs that are enabled.
pub(super) struct AllocatedRoutingIds {
    allocated: BTreeSet<Sbdf>,
}

impl AllocatedRoutingIds {
    /// The routing IDs of all functions of `topology`.
    pub(super) fn new(topology: &Topology) -> Self {
        let functions = topology.functions.iter().map(|function| function.sbdf);
        let excluded = topology.excluded.iter().copied();
        Self {
            allocated: functions.chain(excluded).collect(),
        }
    }

    /// Checks that each VF of the function at `index` has a routing ID that is
    /// free and on a bus reserved for it.
    pub(super) fn check(
        &self,
        topology: &Topology,
        index: usize,
        routing: VfRouting,
    ) -> Result<(), AnomalyKind> {
        let function = &topology.functions[index];
        let sbdf = function.sbdf;
        let num_vfs = routing.num_vfs;
        if routing.overlaps() {
            return Err(AnomalyKind::VfsExcludedOverlap {
                offset: routing.offset,
                stride: routing.stride,
                num_vfs,
            });
        }
        let reserved = match function.sriov {
            // The previous boot stage, which enabled them, reserved the buses.
            Some(sriov) if sriov.vfs_enabled => topology.hosts[function.host].0.buses.last,
            Some(sriov) => sriov.last_bus,
            None => sbdf.bus(),
        };
        let bus = routing.last_bus(sbdf);
        if bus > u32::from(reserved) {
            return Err(AnomalyKind::VfsExcludedBeyondBus {
                num_vfs,
                bus,
                reserved,
            });
        }
        for (number, at) in (1..).zip(routing.addresses(sbdf)) {
            if self.allocated.contains(&at) {
                return Err(AnomalyKind::VfsExcludedTaken {
                    number,
                    num_vfs,
                    at,
                });
            }
        }
        Ok(())
    }

    /// Allocates the routing IDs of the VFs of `physical`.
    pub(super) fn allocate(&mut self, physical: Sbdf, routing: VfRouting) {
        self.allocated.extend(routing.addresses(physical));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn routing(num_vfs: u16, offset: u16, stride: u16) -> VfRouting {
        VfRouting {
            num_vfs,
            offset,
            stride,
        }
    }

    #[test]
    fn a_vf_is_offset_and_strides_behind_its_physical_function() {
        let physical = Sbdf::from_devfn(3, 0x10, 0x01);
        let found: Vec<Sbdf> = routing(3, 0x7f, 0x81).addresses(physical).collect();
        let expected = [(0x10, 0x80), (0x11, 0x01), (0x11, 0x82)];
        assert_eq!(
            found,
            expected.map(|(bus, devfn)| Sbdf::from_devfn(3, bus, devfn))
        );
    }

    #[test]
    fn a_routing_id_is_reduced_modulo_2_to_the_16_and_its_bus_is_not() {
        let physical = Sbdf::from_devfn(0, 0xff, 0x00);
        let found = routing(2, 0xff, 2);
        assert_eq!(found.address(physical, 1), Sbdf::from_devfn(0, 0xff, 0xff));
        assert_eq!(found.address(physical, 2), Sbdf::from_devfn(0, 0x00, 0x01));
        assert_eq!(found.last_bus(physical), 0x100);
        assert_eq!(routing(1, 0xff, 2).last_bus(physical), 0xff);
        // The largest that registers can hold.
        let largest = routing(0xffff, 0xffff, 0xffff);
        assert_eq!(largest.last_bus(physical), (0xff00 + 0xffff * 0xffff) >> 8);
    }

    #[test]
    fn no_vfs_are_on_the_bus_of_the_physical_function() {
        let physical = Sbdf::from_devfn(0, 5, 0xff);
        assert_eq!(routing(0, 1, 1).last_bus(physical), 5);
    }

    #[test]
    fn vfs_overlap_without_an_offset_or_a_stride() {
        let overlapping = [(1, 0, 1), (2, 0, 1), (2, 1, 0)];
        let distinct = [(0, 0, 0), (1, 1, 0), (2, 1, 1)];
        for (num_vfs, offset, stride) in overlapping {
            assert!(routing(num_vfs, offset, stride).overlaps());
        }
        for (num_vfs, offset, stride) in distinct {
            assert!(!routing(num_vfs, offset, stride).overlaps());
        }
    }
}
