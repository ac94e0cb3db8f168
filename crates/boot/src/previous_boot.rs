//! What a kernel that ran before hands over, and which memory is reserved for
//! that.

use log::{info, warn};
use warmbus_kho::{InheritedState, PreviousHandover, PreviousHandoverError, scratch_areas};
use warmbus_memory::{MemoryRange, PhysMemory, RangeSet};
use warmbus_pcsc_format::discard_cache;

use crate::decide::PreviousFacts;

/// Bytes of heap for each entry of the map of preserved memory: a quarter of
/// it is used for them at most.
const HEAP_PER_ENTRY: usize = 256;

/// The handover of a previous kernel, which need not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PreviousBoot {
    /// The root tree and the array of scratch areas.
    location: Option<(MemoryRange, MemoryRange)>,
    /// Memory that must not be written to.
    pub reserved: RangeSet,
    /// What a new handover inherits from; why that cannot be, if there is one
    /// that has to be passed on as it is.
    pub handover: Option<Result<PreviousHandover, PreviousHandoverError>>,
}

impl PreviousBoot {
    /// Reserves all of `memory` but the scratch areas of the handover at
    /// `location`, its root tree and its array of scratch areas: only in
    /// scratch memory is nothing that the next kernel needs.
    pub fn reserve_all_but_scratch(
        location: Option<(MemoryRange, MemoryRange)>,
        memory: &RangeSet,
        contents: &dyn PhysMemory,
    ) -> Self {
        let scratch = location.map(|(_, array)| scratch_areas(contents, array));
        let reserved = match scratch {
            Some(Ok(areas)) => memory.clone().without(areas),
            // Linux cannot read it either, and takes all memory as free.
            Some(Err(_)) | None => RangeSet::new(),
        };
        Self {
            location,
            reserved,
            handover: None,
        }
    }

    /// Reads the handover with a heap of `heap_size` bytes, and reserves no
    /// more than it needs where that is known.
    pub fn parse(&mut self, contents: &dyn PhysMemory, heap_size: usize) {
        let Some((root, array)) = self.location else {
            return;
        };
        let max_entries = heap_size / HEAP_PER_ENTRY;
        let mut read = PreviousHandover::read(contents, root, array, max_entries);
        match &mut read {
            Ok(handover) => {
                discard_cache(handover, contents);
                info!(
                    "the previous kernel preserves {} entries of memory",
                    handover.entries.len()
                );
                self.reserved.clone_from(&handover.reserved);
            }
            Err(error) => {
                warn!("the handover of the previous kernel is passed on as it is: {error}");
            }
        }
        self.handover = Some(read);
    }

    /// The handover, if a new one can inherit from it.
    #[must_use]
    pub const fn parsed(&self) -> Option<&PreviousHandover> {
        match &self.handover {
            Some(Ok(handover)) => Some(handover),
            Some(Err(_)) | None => None,
        }
    }

    /// What the decision about a new handover depends on.
    #[must_use]
    pub const fn facts(&self) -> PreviousFacts {
        match &self.handover {
            None => PreviousFacts::Nothing,
            Some(Err(_)) => PreviousFacts::Unreadable,
            Some(Ok(handover)) => PreviousFacts::Readable {
                page_size: handover.page_size,
            },
        }
    }

    /// What a new handover inherits.
    #[must_use]
    pub fn inherited(&self) -> InheritedState<'_> {
        let parsed = self.parsed();
        parsed.map_or_else(InheritedState::default, PreviousHandover::inherited)
    }
}
