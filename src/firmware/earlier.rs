//! What a kernel that ran before hands over to the one that comes next.

use alloc::vec::Vec;

use log::{info, warn};
use warmbus::kho::{Incoming, IncomingError};
use warmbus::linux::memory::MemoryRange;
use warmbus::machine::{Machine, Region, Reservation, ReservationKind, subtract};

use crate::physical::Physical;

/// The handover of an earlier kernel.
pub(crate) enum Earlier {
    /// There is none.
    None,
    /// It is understood: what it holds is reserved, and a new one can be built
    /// upon it.
    Followed(Incoming),
    /// It is not understood: all memory but its scratch areas is reserved, and
    /// it has to be passed on as it is.
    Opaque,
}

impl Earlier {
    /// Reads what `machine` was started with, and reserves what it holds.
    pub(crate) fn protect(machine: &mut Machine, memory: &Physical) -> Self {
        let Some((root, array)) = machine.handover else {
            return Self::None;
        };
        let read = Incoming::read(memory, range(root), range(array)).and_then(|incoming| {
            let held = incoming.held(memory)?;
            Ok((incoming, held))
        });
        match read {
            Ok((incoming, held)) => {
                let bytes: u64 = held.iter().map(|range| range.size).sum();
                info!(
                    "an earlier kernel holds {} KiB in {} ranges",
                    bytes >> 10,
                    held.len()
                );
                reserve(machine, held.into_iter().map(region));
                Self::Followed(incoming)
            }
            Err(error) => {
                Self::close(machine, memory, range(array), error);
                Self::Opaque
            }
        }
    }

    /// Leaves nothing but the scratch areas to be used: nobody has put anything
    /// there that is to stay.
    fn close(machine: &mut Machine, memory: &Physical, array: MemoryRange, error: IncomingError) {
        warn!("the handover of an earlier kernel is passed on as it is: {error}");
        match Incoming::scratch(memory, array) {
            Ok(scratch) => {
                let closed = subtract(&machine.memory, scratch.into_iter().map(region));
                reserve(machine, closed.into_iter().chain([region(array)]));
            }
            // Linux will not be able to follow it either.
            Err(error) => warn!("nor are its scratch areas known: {error}"),
        }
    }

    /// The handover, if it can be built upon.
    pub(crate) const fn followed(&self) -> Option<&Incoming> {
        match self {
            Self::Followed(incoming) => Some(incoming),
            Self::None | Self::Opaque => None,
        }
    }
}

fn reserve(machine: &mut Machine, regions: impl Iterator<Item = Region>) {
    let kind = ReservationKind::Handover;
    let reservations: Vec<_> = regions.map(|region| Reservation { region, kind }).collect();
    machine.reservations.extend(reservations);
}

const fn range(region: Region) -> MemoryRange {
    MemoryRange::new(region.base, region.size)
}

const fn region(range: MemoryRange) -> Region {
    Region {
        base: range.start,
        size: range.size,
    }
}
