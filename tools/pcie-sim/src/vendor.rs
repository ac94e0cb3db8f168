//! Registers that belong to a vendor: a write to one can change registers that
//! no specification lets software change, or what a bridge forwards.

use warmbus_pci::Width;

use crate::model::FunctionModel;
use crate::space::Written;

/// What a write of a non-zero value to a vendor register does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VendorAction {
    /// Changes what another register holds, read-only or not.
    Set {
        /// Offset of the other register.
        offset: u16,
        /// Its width.
        width: Width,
        /// Its new value.
        value: u32,
    },
    /// A bridge stops forwarding requests.
    StopForwarding,
}

impl FunctionModel {
    /// Adds a vendor register at the dword `at`: any value can be written to
    /// it, and one that is not 0 performs `action`.
    pub fn vendor_register(mut self, at: u16, action: VendorAction) -> Self {
        self.space.writable(at, Width::Dword, u32::MAX);
        self.space.live(at);
        self.vendor.push((at & !3, action));
        self
    }

    pub(crate) fn written_vendor(&mut self, offset: u16, written: &Written) {
        if written.data == 0 {
            return;
        }
        for index in 0..self.vendor.len() {
            match self.vendor[index] {
                (
                    at,
                    VendorAction::Set {
                        offset: to,
                        width,
                        value,
                    },
                ) if at == offset => {
                    self.space.poke(to, width, value);
                }
                (at, VendorAction::StopForwarding) if at == offset => self.stopped = true,
                _ => {}
            }
        }
    }
}
