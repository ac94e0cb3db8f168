//! Configuration space, through the protocols of UEFI's root bridges
//! (UEFI 2.10, 14.2): the code of the platform knows what its hardware needs.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ffi::c_void;
use core::ptr;

use uefi::boot;
use uefi::proto::unsafe_protocol;
use uefi_raw::protocol::pci::root_bridge::{PciRootBridgeIoProtocol, PciRootBridgeIoProtocolWidth};
use warmbus_machine::UefiRootBridge;
use warmbus_pci::{AccessFault, ConfigAccess, ConfigOffset, Sbdf, Width};

use super::shared_protocol;

#[repr(transparent)]
#[unsafe_protocol(PciRootBridgeIoProtocol::GUID)]
struct RootBridgeIo(PciRootBridgeIoProtocol);

/// More root bridges than any machine has.
const MAX_BRIDGES: usize = 1024;

/// One root bridge.
struct RootBridge {
    protocol: *mut PciRootBridgeIoProtocol,
    description: UefiRootBridge,
}

/// All root bridges. Nothing is ever written to configuration space.
pub(super) struct RootBridges {
    bridges: Vec<RootBridge>,
    faults: VecDeque<AccessFault>,
}

impl RootBridges {
    /// Those that there are now.
    pub(super) fn find() -> Self {
        let handles = boot::find_handles::<RootBridgeIo>().unwrap_or_default();
        let bridges = handles.into_iter().take(MAX_BRIDGES).filter_map(|handle| {
            // SAFETY: root bridges stay until boot services end.
            let mut opened = unsafe { shared_protocol::<RootBridgeIo>(handle) }?;
            let protocol = &raw mut opened.0;
            // SAFETY: the protocol is there.
            let description = unsafe { describe(protocol) };
            Some(RootBridge {
                protocol,
                description,
            })
        });
        Self {
            bridges: bridges.collect(),
            faults: VecDeque::new(),
        }
    }

    /// What the machine description needs of them.
    pub(super) fn descriptions(&self) -> Vec<UefiRootBridge> {
        self.bridges
            .iter()
            .map(|bridge| bridge.description)
            .collect()
    }

    fn of(&self, function: Sbdf) -> Option<&RootBridge> {
        self.bridges.iter().find(|bridge| {
            let buses = bridge.description.buses;
            bridge.description.segment == u32::from(function.segment())
                && buses.is_some_and(|buses| (buses.first..=buses.last).contains(&function.bus()))
        })
    }

    fn read_from_hardware(
        &self,
        function: Sbdf,
        offset: ConfigOffset,
        width: Width,
    ) -> Option<u32> {
        let protocol = self.of(function)?.protocol;
        let kind = match width {
            Width::Byte => PciRootBridgeIoProtocolWidth::UINT8,
            Width::Word => PciRootBridgeIoProtocolWidth::UINT16,
            Width::Dword => PciRootBridgeIoProtocolWidth::UINT32,
        };
        let mut value = [0_u8; 4];
        // SAFETY: the protocol is there, and the buffer has room for one access
        // of any width.
        let status = unsafe {
            ((*protocol).pci.read)(
                protocol,
                kind,
                address(function, offset),
                1,
                value.as_mut_ptr().cast::<c_void>(),
            )
        };
        status.is_success().then(|| u32::from_le_bytes(value))
    }
}

/// Segment and buses of a root bridge.
///
/// # Safety
///
/// `protocol` must be valid.
unsafe fn describe(protocol: *mut PciRootBridgeIoProtocol) -> UefiRootBridge {
    let mut resources = ptr::null();
    // SAFETY: the contract of this function.
    let (status, segment) = unsafe {
        let status = ((*protocol).configuration)(protocol, &raw mut resources);
        (status, (*protocol).segment_number)
    };
    let first = resources.cast::<u8>();
    if !status.is_success() || first.is_null() {
        return UefiRootBridge {
            segment,
            buses: None,
        };
    }
    // SAFETY: the descriptors end with an End Tag, which is looked for one after
    // the other.
    let size = UefiRootBridge::descriptors_size(|at| unsafe { first.add(at).read() });
    // SAFETY: so many bytes were read.
    let descriptors = unsafe { core::slice::from_raw_parts(first, size.unwrap_or(0)) };
    UefiRootBridge::new(segment, descriptors)
}

/// The address of a register (`EFI_PCI_ADDRESS`): beyond the first 256 bytes it
/// is in the upper half.
fn address(function: Sbdf, offset: ConfigOffset) -> u64 {
    let register = u64::from(offset.get());
    let register = if register < 0x100 {
        register
    } else {
        register << 32
    };
    let devfn = u64::from(function.devfn());
    u64::from(function.bus()) << 24 | (devfn >> 3) << 16 | (devfn & 7) << 8 | register
}

impl ConfigAccess for RootBridges {
    fn read(&mut self, function: Sbdf, offset: ConfigOffset, width: Width) -> u32 {
        self.read_from_hardware(function, offset, width)
            .unwrap_or_else(|| {
                self.faults.push_back(AccessFault { function, offset });
                width.ones()
            })
    }

    /// Writes nothing: what UEFI has set up is what its drivers use.
    fn write(&mut self, function: Sbdf, offset: ConfigOffset, _: Width, _: u32) {
        self.faults.push_back(AccessFault { function, offset });
    }

    fn take_fault(&mut self) -> Option<AccessFault> {
        self.faults.pop_front()
    }
}
