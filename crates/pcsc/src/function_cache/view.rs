//! What is known of a function, for those that only look at it.

use alloc::vec::Vec;

use super::{ConfigOffset, FunctionCache, State};
use crate::byte_class::ByteClass;
use crate::constant_bits::ConstantBits;
use crate::masks::WriteMask;
use crate::virtual_function::VirtualFunction;
use warmbus_pci::registers::{self, capability, express};
use warmbus_pci::{
    Capability, CapabilityLists, ExtendedCapability, PortType, VfIdentity, VfRouting,
};

impl FunctionCache {
    /// Where the capabilities are.
    pub fn lists(&self) -> &CapabilityLists {
        &self.lists
    }

    /// Bytes of configuration space that the block covers: 256, or 4096 for a
    /// function whose extended space can be reached.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// The bytes of configuration space up to the last that may be cached, a
    /// multiple of 8; those that are not cached are 0.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Whether the byte at `offset` may be cached.
    pub fn is_cacheable(&self, offset: ConfigOffset) -> bool {
        self.cacheable.get(offset.get())
    }

    /// Whether the byte at `offset` is cached now.
    pub fn is_cached(&self, offset: ConfigOffset) -> bool {
        self.cached.get(offset.get())
    }

    /// How the byte at `offset` behaves.
    pub fn class(&self, offset: ConfigOffset) -> ByteClass {
        self.cell(offset).class
    }

    /// Number of bytes that may be cached.
    pub fn cacheable_bytes(&self) -> u16 {
        self.cacheable.count()
    }

    /// Number of bytes that are cached now.
    pub fn cached_bytes(&self) -> u16 {
        self.cached.count()
    }

    /// The dwords with a byte that may be cached, in order.
    pub fn cacheable_dwords(&self) -> impl Iterator<Item = ConfigOffset> {
        self.cacheable.dwords().map(ConfigOffset::wrapping)
    }

    /// One bit for each byte of [`Self::data`], set where it may be cached: bit
    /// n is bit n % 8 of byte n / 8.
    pub fn cacheable_bitmap(&self) -> &[u8] {
        self.cacheable.as_bytes()
    }

    /// One bit for each byte that is cached now, ordered as
    /// [`Self::cacheable_bitmap`].
    pub fn cached_bitmap(&self) -> &[u8] {
        self.cached.as_bytes()
    }

    /// Whether the capability lists were walked, so that it is known what a
    /// write does.
    pub(crate) fn is_inferred(&self) -> bool {
        self.lists.header_type != registers::header_type::LAYOUT
    }

    /// Header layout: 0 endpoint, 1 bridge, 2 `CardBus`, 0x7f not known yet.
    pub fn header_type(&self) -> u8 {
        self.lists.header_type
    }

    /// The capabilities in the order of the list.
    pub fn capabilities(&self) -> &[Capability] {
        &self.lists.capabilities
    }

    /// The extended capabilities in the order of the list.
    pub fn extended_capabilities(&self) -> &[ExtendedCapability] {
        &self.lists.extended_capabilities
    }

    /// Which virtual function it is, if it is one.
    pub fn virtual_function(&self) -> Option<VfIdentity> {
        self.virtual_function.as_ref().map(|vf| vf.identity)
    }

    /// Whether it is a virtual function that does not exist now: the block
    /// holds what it holds right after VF Enable was set.
    pub fn is_disabled(&self) -> bool {
        self.state == State::Disabled
    }

    /// The ranges of bytes that follow from the specification and were not
    /// read: first offset and number of bytes, ascending.
    pub fn synthesised(&self) -> Vec<(u16, u16)> {
        self.virtual_function
            .as_ref()
            .map_or_else(Vec::new, VirtualFunction::synthesised)
    }

    /// What was read of First VF Offset and VF Stride of a physical function,
    /// ascending by NumVFs.
    pub fn vf_routing(&self) -> impl Iterator<Item = VfRouting> {
        self.routing.iter().flat_map(|routing| routing.known())
    }

    /// Offset of the first capability `id`.
    pub fn capability(&self, id: u8) -> Option<u16> {
        self.lists.capability(id)
    }

    /// What the PCI Express capability says that the function is, where it has
    /// one and its flags are cached.
    pub fn port_type(&self) -> Option<PortType> {
        let flags = self.word(self.capability(capability::EXPRESS)? + express::FLAGS)?;
        Some(PortType::from_flags(flags))
    }

    /// Offset of the first extended capability `id`.
    pub fn extended_capability(&self, id: u16) -> Option<u16> {
        self.lists.extended_capability(id)
    }

    /// The dwords of which the writable bits are known, in no order.
    pub fn write_masks(&self) -> &[WriteMask] {
        &self.masks
    }

    /// Bits that are constant in dwords that are not cached as a whole, in no
    /// order.
    pub fn constant_bits(&self) -> &[ConstantBits] {
        &self.fixed
    }

    /// Bits of the Command register that are known to be writable.
    pub fn writable_command_bits(&self) -> u16 {
        self.writable_by_specification(registers::COMMAND) as u16
    }
}
