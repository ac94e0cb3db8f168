//! The versions of the handover ABI.

use core::fmt;

/// A released version of the handover ABI.
///
/// A kernel accepts its own version only. The compatible string is in its
/// image; `kho-v2` was never in a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KhoAbi {
    /// `kho-v1`: Linux 6.16 to 7.0, a list of bitmaps.
    V1,
    /// `kho-v3`: Linux 7.1, a radix tree.
    V3,
    /// `kho-v4`: Linux 7.2 and 7.3, the same radix tree.
    V4,
}

impl KhoAbi {
    /// The released versions, ascending.
    pub const ALL: [Self; 3] = [Self::V1, Self::V3, Self::V4];

    /// The strings that the root tree claims compatibility with. Linux looks
    /// for its own anywhere in the list.
    #[must_use]
    pub const fn compatible(self) -> &'static [&'static str] {
        match self {
            Self::V1 => &["kho-v1"],
            Self::V3 => &["kho-v3", "kho-v4"],
            Self::V4 => &["kho-v4", "kho-v3"],
        }
    }

    /// Whether the preserved-memory map is a radix tree; if not, it is a list
    /// of bitmaps.
    #[must_use]
    pub const fn has_radix_tree(self) -> bool {
        !matches!(self, Self::V1)
    }
}

impl fmt::Display for KhoAbi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.compatible()[0])
    }
}
