//! What a kernel that ran before hands over to the one that comes next.

use log::{info, warn};
use warmbus_kho::{InheritedState, PreviousHandover, PreviousHandoverError, scratch_areas};
use warmbus_machine::Machine;
use warmbus_memory::{MemoryRange, RangeSet};

use crate::mem::heap;
use crate::mem::physical::PhysicalMemory;

/// Bytes of heap for each entry of the map of preserved memory: a quarter of
/// it is used for them at most.
const HEAP_OF_ENTRY: usize = 256;

/// The handover of an earlier kernel, which may not be there.
#[derive(Default)]
pub(crate) struct PreviousBoot {
    place: Option<(MemoryRange, MemoryRange)>,
    /// Memory that nobody may write to.
    pub(crate) held: RangeSet,
    /// What a new handover is built upon; why that cannot be, if there is one
    /// and it has to be passed on as it is.
    pub(crate) incoming: Option<Result<PreviousHandover, PreviousHandoverError>>,
}

impl PreviousBoot {
    /// Holds all memory but the scratch areas of the handover at `place`, root
    /// tree and array: nobody has put anything there that is to stay.
    pub(crate) fn close(
        place: Option<(MemoryRange, MemoryRange)>,
        machine: &Machine,
        memory: &PhysicalMemory,
    ) -> Self {
        let scratch = place.map(|(_, array)| scratch_areas(memory, array));
        let held = match &scratch {
            Some(Ok(areas)) => machine.memory.clone().without(areas.iter().copied()),
            // Linux will not be able to follow it either.
            Some(Err(_)) | None => RangeSet::new(),
        };
        Self {
            place,
            held,
            incoming: None,
        }
    }

    /// Reads it, and holds no more than needs to be where that is known.
    pub(crate) fn follow(&mut self, memory: &PhysicalMemory) {
        let Some((root, array)) = self.place else {
            return;
        };
        let most = heap::usage().size / HEAP_OF_ENTRY;
        let read = PreviousHandover::read(memory, root, array, most);
        match &read {
            Ok(incoming) => {
                info!(
                    "an earlier kernel keeps {} entries of memory",
                    incoming.entries.len()
                );
                self.held.clone_from(&incoming.held);
            }
            Err(error) => warn!("what an earlier kernel hands over is passed on: {error}"),
        }
        self.incoming = Some(read);
    }

    /// The handover, if it can be built upon.
    pub(crate) const fn followed(&self) -> Option<&PreviousHandover> {
        match &self.incoming {
            Some(Ok(incoming)) => Some(incoming),
            Some(Err(_)) | None => None,
        }
    }

    /// What goes on in a new handover.
    pub(crate) fn inherited(&self) -> InheritedState<'_> {
        self.followed()
            .map_or_else(InheritedState::default, |incoming| InheritedState {
                subtrees: &incoming.subtrees,
                entries: &incoming.entries,
            })
    }
}
