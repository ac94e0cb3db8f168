//! What asks for addresses, and what of it is placed in one attempt.

use alloc::vec;
use alloc::vec::Vec;

use super::apertures::Places;

/// A request for addresses: of a BAR, or of a VF BAR for all VFs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// The window right above, an index into [`AddressSpace`](super::allocate::AddressSpace); `None`
    /// on a root bus.
    pub(super) window: Option<usize>,
    /// Bytes, not 0.
    pub(super) size: u64,
    /// Alignment in bytes, a power of two.
    pub(super) align: u64,
    /// The apertures that it may be in.
    pub(super) places: Places,
    /// Which request is dropped first when not all fit: the lowest.
    pub(super) priority: Priority,
}

/// How much is lost when a request is not placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Priority {
    /// VF BARs: the physical function works without.
    VirtualFunctions,
    /// Expansion ROM.
    Rom,
    /// A BAR.
    Bar,
}

/// A window of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// The window above, with a lower index; `None` on a root bus.
    pub(super) parent: Option<usize>,
    /// Whether the bridge and all above it have it.
    pub(super) exists: bool,
    /// The apertures that the bridge can forward.
    pub(super) places: Places,
    /// Granularity in bytes, a power of two.
    pub(super) granule: u64,
}

/// Addresses of a window that nothing asks for yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    /// Index of the window.
    pub(super) window: usize,
    /// Bytes that the window has at least.
    pub(super) size: u64,
    /// Their alignment, a power of two.
    pub(super) align: u64,
}

/// What is placed in one attempt.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) requests: Vec<Request>,
    /// Which requests are placed.
    pub(super) keep: Vec<bool>,
    /// Bytes and alignment that each window has at least.
    pub(super) least: Vec<(u64, u64)>,
}

impl Attempt {
    /// Nothing is lost.
    pub(super) const NO_LOSSES: [(usize, u64); 3] = [(0, 0); 3];

    /// All of `requests`, in windows as small as they can be.
    pub(super) fn new(requests: Vec<Request>, windows: usize) -> Self {
        Self {
            keep: vec![true; requests.len()],
            requests,
            least: vec![(0, 1); windows],
        }
    }

    /// What is lost: of each priority, the highest first, the number of requests
    /// and their bytes.
    pub(super) fn losses(&self) -> [(usize, u64); 3] {
        [Priority::Bar, Priority::Rom, Priority::VirtualFunctions].map(|priority| {
            let requests = self.requests.iter().zip(&self.keep);
            let lost = requests.filter(|(request, kept)| !**kept && request.priority == priority);
            lost.fold((0, 0), |(count, bytes), (request, _)| {
                (count + 1, request.size.saturating_add(bytes))
            })
        })
    }

    /// The attempt with these wishes granted.
    pub(super) fn with(&self, wishes: &[Wish]) -> Self {
        let mut attempt = self.clone();
        for wish in wishes {
            let (size, align) = &mut attempt.least[wish.window];
            *size = wish.size.max(*size);
            *align = wish.align.max(*align);
        }
        attempt
    }
}
