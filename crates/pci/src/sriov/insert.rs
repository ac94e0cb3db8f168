//! Puts VFs into the topology, each behind its physical function.

use alloc::vec::Vec;

use crate::{Function, Topology};

/// Inserts `vfs`, which are sorted by the index of their physical function,
/// and adapts all indices.
pub(super) fn insert(topology: &mut Topology, vfs: Vec<Function>) {
    let old = core::mem::take(&mut topology.functions);
    let mut functions = Vec::with_capacity(old.len() + vfs.len());
    // Where each function that was there before is now.
    let mut moved = Vec::with_capacity(old.len());
    let mut vfs = vfs.into_iter().peekable();
    for (index, mut function) in old.into_iter().enumerate() {
        let place = functions.len();
        moved.push(place);
        // Parents come first, so that where they are now is known.
        function.parent = function.parent.map(|parent| moved[parent]);
        if let Some(vf) = &mut function.virtual_function {
            vf.physical = moved[vf.physical];
        }
        let parent = function.parent;
        functions.push(function);
        while let Some(mut vf) = vfs.next_if(|vf| {
            vf.virtual_function
                .is_some_and(|info| info.physical == index)
        }) {
            vf.parent = parent;
            if let Some(info) = &mut vf.virtual_function {
                info.physical = place;
            }
            functions.push(vf);
        }
    }
    topology.functions = functions;
}
