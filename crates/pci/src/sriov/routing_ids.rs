//! Where virtual functions are: their routing IDs.

use crate::Sbdf;

/// Which virtual function a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VfIdentity {
    /// Its physical function.
    pub physical: Sbdf,
    /// Its number, from 1 to NumVFs.
    pub number: u16,
    /// Under which its physical function had put it where it is.
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
    /// The routing ID of VF `number`, from 1, of the physical function at
    /// `physical`; beyond 16 bits where the VF has no place.
    #[must_use]
    pub fn routing_id(&self, physical: Sbdf, number: u16) -> u32 {
        u32::from(physical.routing_id())
            + u32::from(self.offset)
            + u32::from(number.saturating_sub(1)) * u32::from(self.stride)
    }
}
