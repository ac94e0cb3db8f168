//! What random software reads and writes: functions and registers that exist,
//! above all those that decide about others.

use warmbus_pci::{ConfigOffset, Sbdf, Width};
use warmbus_pcie_sim::Fabric;
use warmbus_pcsc::{ConfigCache, FunctionCache};

/// Which registers an access is drawn from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Choice {
    /// Those with a byte that may be cached.
    Cacheable,
    /// Those that decide about other registers or functions.
    Decisive,
    /// Any, most of which no rule names.
    Any,
}

/// What is worth reading and writing of one function.
pub(crate) struct Registers {
    pub(crate) function: Sbdf,
    /// The dwords of known registers.
    pub(crate) all: Vec<u16>,
    /// Those of them that decide about other registers or functions.
    decisive: Vec<u16>,
}

/// Capabilities with registers that decide, and which those are.
const STANDARD: &[(u8, &[u16])] = &[
    // Power state; MSI and MSI-X enable; function level reset.
    (0x01, &[4]),
    (0x05, &[0]),
    (0x11, &[0]),
    (0x13, &[4]),
    // Device, link, slot and root control, Device Control 2.
    (0x10, &[0x08, 0x10, 0x18, 0x1c, 0x28]),
    // The vector of a flattening portal.
    (0x15, &[0x08, 0x0c, 0x1c, 0x20]),
];

const EXTENDED: &[(u16, &[u16])] = &[
    // SR-IOV Control, NumVFs, System Page Size, VF BARs.
    (0x10, &[0x08, 0x10, 0x20, 0x24]),
    // Resizable BAR Control, of PF and VF.
    (0x15, &[0x08]),
    (0x24, &[0x08]),
    // Downstream Port Containment: control and status.
    (0x1d, &[0x04, 0x08]),
    // CXL Control 2 and lock.
    (0x23, &[0x10, 0x14]),
];

impl Registers {
    pub(crate) fn of(function: Sbdf, block: &FunctionCache) -> Self {
        let mut decisive = vec![0x04, 0x0c, 0x10];
        if block.header_type() == 1 {
            decisive.extend([0x18, 0x3c]);
        }
        for (id, registers) in STANDARD {
            let start = block.capability(*id);
            decisive.extend(
                start
                    .iter()
                    .flat_map(|at| registers.iter().map(move |r| at + r)),
            );
        }
        for (id, registers) in EXTENDED {
            let start = block.extended_capability(*id);
            decisive.extend(
                start
                    .iter()
                    .flat_map(|at| registers.iter().map(move |r| at + r)),
            );
        }
        decisive.retain(|offset| *offset < block.size());
        Self {
            function,
            all: block.cacheable_dwords().map(ConfigOffset::get).collect(),
            decisive,
        }
    }

    /// Those of all functions that `cached` knows.
    pub(crate) fn of_all(cached: &ConfigCache<Fabric>) -> Vec<Self> {
        let blocks = cached.blocks();
        blocks
            .map(|(function, block)| Self::of(function, block))
            .collect()
    }

    /// The register that `index` and `lane` choose for an access of `width`.
    pub(crate) fn choose(
        &self,
        choice: Choice,
        index: proptest::sample::Index,
        lane: u16,
        width: Width,
    ) -> ConfigOffset {
        let dword = match choice {
            Choice::Cacheable => *index.get(&self.all),
            Choice::Decisive => *index.get(&self.decisive),
            Choice::Any => index.index(0x400) as u16 * 4,
        };
        ConfigOffset::wrapping(dword + (lane & !(width.bytes() - 1)))
    }
}
