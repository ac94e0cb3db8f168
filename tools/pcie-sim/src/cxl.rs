//! Compute Express Link: the DVSEC of a CXL device (CXL 3.1, 8.1.3).

use warmbus_pci::Width;

use crate::behaviour::Effect;
use crate::model::FunctionModel;
use crate::space::Written;

/// What a lock makes read-only: Control and the base of range 1, each with
/// the bits that are otherwise RW.
const LOCKED: [(u16, u32); 3] = [(0xc, 0x4005), (0x20, u32::MAX), (0x24, 0xf000_0000)];

impl FunctionModel {
    /// Adds the DVSEC of a CXL device with one range of memory, which is valid
    /// and active, and CXL Reset.
    pub fn cxl_device(mut self) -> Self {
        let at = self.reserve_extended(0x23, 1, 0x38);
        let space = &mut self.space;
        space.set(at + 4, Width::Dword, 0x0381_1e98);
        // CXL.cache, CXL.io and CXL.mem; one range; CXL Reset Capable.
        space.set(at + 0xa, Width::Word, 0x0097);
        space.set(at + 0xc, Width::Word, 2);
        space.set(at + 0x18, Width::Dword, 1);
        space.set(at + 0x1c, Width::Dword, 0x0000_0003);
        space.writable(at + 0x14, Width::Word, 1);
        space.live(at + 0x10);
        space.live(at + 0x14);
        self.cxl = Some(at);
        self.reset_cxl();
        self
    }

    pub(crate) fn reset_cxl(&mut self) {
        let Some(at) = self.cxl else { return };
        for (offset, writable) in LOCKED {
            self.space.writable(at + offset, Width::Dword, writable);
        }
    }

    pub(crate) fn written_cxl(
        &mut self,
        offset: u16,
        written: &Written,
        effects: &mut Vec<Effect>,
    ) {
        let Some(at) = self.cxl else { return };
        if offset == at + 0x10 && written.data & 4 != 0 {
            effects.push(Effect::CxlReset);
        } else if offset == at + 0x14 && written.new & 1 != 0 {
            for (offset, _) in LOCKED {
                self.space.writable(at + offset, Width::Dword, 0);
            }
            // Written once.
            self.space.writable(at + 0x14, Width::Word, 0);
        }
    }
}
