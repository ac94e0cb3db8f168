//! An Enhanced Allocation entry that software can switch off (PCIe 7.8.5.3).

use warmbus_pci::Width;

use crate::bar::BarModel;
use crate::capability::EaEntry;
use crate::model::FunctionModel;
use crate::space::Written;

/// An entry with a writable Enable bit, and the BAR that it stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SwitchableAllocation {
    entry: u16,
    index: u8,
    bar: BarModel,
}

impl FunctionModel {
    /// Adds Enhanced Allocation with a single entry, enabled, which stands for
    /// the 32-bit memory BAR `index`. While it is enabled that BAR reads 0 and
    /// ignores writes; switched off it leaves the BAR to software.
    pub fn switchable_allocation(mut self, index: u8, base: u64, size: u64) -> Self {
        let entry = self.cursor.next + 4;
        let entries = [EaEntry {
            bei: index,
            properties: 0,
            base,
            size,
        }];
        self = self.enhanced_allocation(&entries, (0, 0));
        self.space.writable(entry, Width::Dword, 1 << 31);
        self.space.live(entry);
        self.switchable = Some(SwitchableAllocation {
            entry,
            index,
            bar: BarModel::memory32(size),
        });
        self
    }

    /// Gives the BAR of a switchable entry the shape that follows from Enable.
    pub(crate) fn shape_allocation(&mut self) {
        let Some(allocation) = self.switchable else {
            return;
        };
        let at = 0x10 + 4 * u16::from(allocation.index);
        if self.space.peek(allocation.entry, Width::Dword) >> 31 != 0 {
            self.space.writable(at, Width::Dword, 0);
            self.space.poke(at, Width::Dword, 0);
        } else {
            let size = allocation.bar.decoded_size();
            self.space.shape_bar(at, allocation.bar, size);
        }
    }

    pub(crate) fn written_allocation(&mut self, offset: u16, written: &Written) {
        let is_entry = |allocation: SwitchableAllocation| allocation.entry == offset;
        if self.switchable.is_some_and(is_entry) && (written.old ^ written.new) >> 31 != 0 {
            self.shape_allocation();
        }
    }
}
