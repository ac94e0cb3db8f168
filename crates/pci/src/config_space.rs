//! Configuration space with what enumeration has to remember of it.

use alloc::vec::Vec;

use super::capabilities::{CapabilityLists, read_capability_lists};
use super::registers::{self, extended, sr_iov};
use super::sbdf_map::SbdfMap;
use super::{AccessFault, AnomalyKind, ConfigAccess, ConfigOffset, Sbdf, VfIdentity, Width};

/// What a Vendor ID read returns while a function is not ready and software
/// enabled to see that (PCIe 2.3.1, Configuration RRS Software Visibility).
const VENDOR_NOT_READY: u32 = 0x0001;

/// The result of reading the Vendor ID of a function number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// No completion, or no function.
    Absent,
    /// A function that returned Request Retry Status (PCIe 2.3.1).
    NotReady,
    /// A function.
    Present {
        /// Vendor ID.
        vendor_id: u16,
        /// Device ID.
        device_id: u16,
    },
}

impl Probe {
    /// Decodes a dword read of Vendor and Device ID.
    #[must_use]
    pub const fn from_ids(ids: u32) -> Self {
        match ids & 0xffff {
            VENDOR_NOT_READY => Self::NotReady,
            0x0000 | 0xffff => Self::Absent,
            vendor_id => Self::Present {
                vendor_id: vendor_id as u16,
                device_id: (ids >> 16) as u16,
            },
        }
    }

    /// Decodes a dword read of Vendor and Device ID of a virtual function whose
    /// class code reads all ones: one that is ready has a class code, but no
    /// IDs (PCIe 9.3.4.1), so that only Request Retry Status distinguishes
    /// one that is not ready from an absent one.
    #[must_use]
    pub const fn from_ids_of_vf(ids: u32) -> Self {
        match Self::from_ids(ids) {
            Self::NotReady => Self::NotReady,
            Self::Absent | Self::Present { .. } => Self::Absent,
        }
    }
}

impl Probe {
    /// The dword with Vendor and Device ID of a function that is present.
    #[must_use]
    pub const fn ids(self) -> Option<u32> {
        match self {
            Self::Absent | Self::NotReady => None,
            Self::Present {
                vendor_id,
                device_id,
            } => Some((device_id as u32) << 16 | vendor_id as u32),
        }
    }
}

/// Access to configuration space that also remembers, for each function that
/// answered, where its capabilities are.
///
/// Enumeration, resource assignment and SR-IOV discovery work on this trait.
/// [`PlainConfig`] implements it over any [`ConfigAccess`]; a cache of
/// configuration space implements it from what it has read already.
pub trait ConfigSpace: ConfigAccess {
    /// Reads Vendor and Device ID of `function`.
    fn probe(&mut self, function: Sbdf) -> Probe {
        let offset = ConfigOffset::wrapping(registers::VENDOR_ID);
        Probe::from_ids(self.read(function, offset, Width::Dword))
    }

    /// Walks both capability lists of `function`, which answered to
    /// [`Self::probe`] or [`Self::probe_vf`].
    ///
    /// Returns what is wrong with the lists, or `None` where the
    /// function stopped answering; it is not remembered then.
    fn walk(&mut self, function: Sbdf) -> Option<Vec<AnomalyKind>>;

    /// The capability lists of `function`; `None` where it was not walked or
    /// stopped answering since.
    fn lists(&self, function: Sbdf) -> Option<&CapabilityLists>;

    /// Whether `function` is present. One that is not remembered any more is
    /// probed and walked again.
    fn is_present(&mut self, function: Sbdf) -> bool {
        self.lists(function).is_some()
            || matches!(self.probe(function), Probe::Present { .. })
                && self.walk(function).is_some()
    }

    /// Reads from the hardware, whatever is remembered.
    fn read_hardware(&mut self, function: Sbdf, offset: ConfigOffset, width: Width) -> u32 {
        self.read(function, offset, width)
    }

    /// Discards what is remembered of the dword at `offset`, which does not
    /// behave as a register there should.
    fn invalidate_register(&mut self, _function: Sbdf, _offset: u16) {}

    /// Probes the virtual function at `function`, which is `identity`.
    ///
    /// VFs have no IDs of their own: the result carries the Vendor ID of the
    /// physical function and its VF Device ID (PCIe 9.3.4.1.1, 9.3.3.11). Call
    /// it at the earliest 100 ms after VF Enable was set (PCIe 9.3.3.3.1).
    fn probe_vf(&mut self, function: Sbdf, identity: VfIdentity) -> Probe;

    /// Clears VF Enable of `physical`, whose virtual functions are `vfs`.
    ///
    /// The SR-IOV capability may not be read for one second after that
    /// (PCIe 9.3.3.3.1).
    fn disable_vfs(&mut self, physical: Sbdf, vfs: &mut dyn Iterator<Item = Sbdf>);

    /// Offset of the first capability `id` of `function`.
    fn capability(&self, function: Sbdf, id: u8) -> Option<u16> {
        self.lists(function)?.capability(id)
    }

    /// Offset of the first extended capability `id` of `function`.
    fn extended_capability(&self, function: Sbdf, id: u16) -> Option<u16> {
        self.lists(function)?.extended_capability(id)
    }
}

/// A [`ConfigSpace`] without a cache: every read goes to the hardware, and only
/// the capability lists are remembered.
///
/// ```
/// use warmbus_pci::{ConfigAccess, ConfigOffset, ConfigSpace, PlainConfig, Probe, Sbdf, Width};
///
/// /// A bus with one function, whose configuration space is all constant.
/// struct OneFunction;
///
/// impl ConfigAccess for OneFunction {
///     fn read(&mut self, function: Sbdf, offset: ConfigOffset, width: Width) -> u32 {
///         let dword = match (function == Sbdf::new(0, 0, 0, 0), offset.dword().get()) {
///             (false, _) => u32::MAX,
///             (true, 0) => 0x8086_1234_u32.rotate_left(16),
///             (true, _) => 0,
///         };
///         dword >> (8 * (offset.get() & 3)) & width.ones()
///     }
///     fn write(&mut self, _: Sbdf, _: ConfigOffset, _: Width, _: u32) {}
/// }
///
/// let mut config = PlainConfig::new(OneFunction);
/// assert_eq!(
///     config.probe(Sbdf::new(0, 0, 0, 0)),
///     Probe::Present { vendor_id: 0x8086, device_id: 0x1234 }
/// );
/// assert_eq!(config.probe(Sbdf::new(0, 0, 1, 0)), Probe::Absent);
/// ```
#[derive(Debug)]
pub struct PlainConfig<A> {
    access: A,
    lists: SbdfMap<CapabilityLists>,
}

impl<A: ConfigAccess> PlainConfig<A> {
    /// Configuration space that is reached through `access`.
    pub const fn new(access: A) -> Self {
        Self {
            access,
            lists: SbdfMap::new(),
        }
    }

    /// The access underneath.
    pub const fn access(&self) -> &A {
        &self.access
    }

    /// The access underneath.
    pub const fn access_mut(&mut self) -> &mut A {
        &mut self.access
    }

    fn dword(&mut self, function: Sbdf, offset: u16) -> u32 {
        let offset = ConfigOffset::wrapping(offset);
        self.access.read(function, offset, Width::Dword)
    }
}

impl<A: ConfigAccess> ConfigAccess for PlainConfig<A> {
    fn read(&mut self, function: Sbdf, offset: ConfigOffset, width: Width) -> u32 {
        self.access.read(function, offset, width)
    }

    fn write(&mut self, function: Sbdf, offset: ConfigOffset, width: Width, value: u32) {
        self.access.write(function, offset, width, value);
    }

    fn narrowest_read(&self, function: Sbdf) -> Width {
        self.access.narrowest_read(function)
    }

    fn take_fault(&mut self) -> Option<AccessFault> {
        self.access.take_fault()
    }
}

impl<A: ConfigAccess> ConfigSpace for PlainConfig<A> {
    fn walk(&mut self, function: Sbdf) -> Option<Vec<AnomalyKind>> {
        let found = read_capability_lists(&mut |offset| {
            self.access
                .read(function, ConfigOffset::wrapping(offset), Width::Dword)
        });
        // A virtual function has no IDs, but a class code.
        if self.dword(function, registers::REVISION) == u32::MAX {
            self.lists.remove(function);
            return None;
        }
        self.lists.insert(function, found.lists);
        Some(found.anomalies)
    }

    fn lists(&self, function: Sbdf) -> Option<&CapabilityLists> {
        self.lists.get(function)
    }

    fn probe_vf(&mut self, function: Sbdf, identity: VfIdentity) -> Probe {
        let Some(base) = self.extended_capability(identity.physical, extended::SR_IOV) else {
            return Probe::Absent;
        };
        if self.dword(function, registers::REVISION) == u32::MAX {
            let ids = self.dword(function, registers::VENDOR_ID);
            return Probe::from_ids_of_vf(ids);
        }
        let vendor_id = self.dword(identity.physical, registers::VENDOR_ID) as u16;
        let vf_ids = self.dword(identity.physical, base + sr_iov::VF_DEVICE_ID);
        Probe::Present {
            vendor_id,
            device_id: (vf_ids >> 16) as u16,
        }
    }

    fn disable_vfs(&mut self, physical: Sbdf, vfs: &mut dyn Iterator<Item = Sbdf>) {
        for function in vfs {
            self.lists.remove(function);
        }
        let Some(base) = self.extended_capability(physical, extended::SR_IOV) else {
            return;
        };
        let offset = ConfigOffset::wrapping(base + sr_iov::CONTROL);
        let control = self.access.read(physical, offset, Width::Word);
        let disabled = control & !u32::from(sr_iov::VF_ENABLE);
        self.access.write(physical, offset, Width::Word, disabled);
    }
}
