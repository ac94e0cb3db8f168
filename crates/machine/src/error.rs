//! Why a device tree cannot be used at all.

use warmbus_fdt::FdtError;

/// Why a device tree cannot be used at all. Smaller faults only cost the part
/// of the machine that they describe; see [`super::Machine::warnings`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    /// The tree cannot be read.
    #[error(transparent)]
    Tree(#[from] FdtError),
    /// The tree has more of something than any machine.
    #[error("the device tree has more than {limit} {what}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many are accepted.
        limit: usize,
    },
    /// The tree names no usable memory.
    #[error("the machine description names no memory")]
    NoMemory,
    /// The description has no host bridge that can be used.
    #[error("{}", no_host_bridge(*unusable))]
    NoHostBridge {
        /// How many it has that cannot be used.
        unusable: usize,
    },
}

fn no_host_bridge(unusable: usize) -> alloc::string::String {
    match unusable {
        0 => "the machine description has no PCI host bridge".into(),
        1 => "the PCI host bridge of the machine description cannot be used".into(),
        unusable => alloc::format!(
            "none of the {unusable} PCI host bridges of the machine description can be used"
        ),
    }
}
