//! BARs whose size software may change (PCIe 7.8.6).

use crate::registers::extended;
use crate::{ConfigOffset, ConfigSpace, Sbdf, Width};

/// A BAR that may be made larger than it is.
///
/// No stage changes its size: a driver knows whether its device works with
/// another one, and how much memory it can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResizableBar {
    /// Which one, 0 to 5.
    pub index: u8,
    /// The next size that the device supports, in bytes.
    pub next_size: u64,
}

/// Resizable BAR Capability and Control registers of one BAR.
#[derive(Clone, Copy, Debug)]
struct Entry {
    capability: u32,
    control: u32,
}

impl Entry {
    /// How many BARs are resizable: in the first entry.
    const fn count(self) -> u8 {
        (self.control >> 5 & 7) as u8
    }

    /// The BAR, if it may be larger than it is.
    fn larger(self) -> Option<ResizableBar> {
        // Bit n stands for 1 MiB times 2^n.
        let sizes = u64::from(self.capability >> 4) | u64::from(self.control >> 16) << 28;
        let current = self.control >> 8 & 0x3f;
        let next = (current + 1..44).find(|&bit| sizes >> bit & 1 != 0)?;
        let index = (self.control & 7) as u8;
        (index < 6).then_some(ResizableBar {
            index,
            next_size: 1 << (20 + next),
        })
    }
}

/// The first BAR of `function` that may be made larger.
pub(super) fn first_resizable<S: ConfigSpace>(
    function: Sbdf,
    config: &mut S,
) -> Option<ResizableBar> {
    let base = config.extended_capability(function, extended::RESIZABLE_BAR)?;
    let mut entry = |number: u8| {
        let at = base + 8 * u16::from(number);
        let mut dword = |at| config.read(function, ConfigOffset::wrapping(at), Width::Dword);
        let entry = Entry {
            capability: dword(at + 4),
            control: dword(at + 8),
        };
        (entry.control != u32::MAX).then_some(entry)
    };
    let first = entry(0)?;
    let others = (1..first.count()).filter_map(entry);
    let mut entries = core::iter::once(first).chain(others);
    entries.find_map(Entry::larger)
}
