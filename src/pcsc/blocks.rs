//! The blocks of all functions, by address.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::RangeBounds;

use super::block::Block;
use crate::pci::Sbdf;

/// Blocks by the address of their function.
///
/// One access to a function follows the other, so that the function that was
/// found last mostly is the one that is looked for: it is found without a
/// search, which would take longer the more functions there are.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    slots: Vec<Slot>,
    /// Where in `slots` the block of each function is.
    places: BTreeMap<Sbdf, usize>,
    /// Places in `slots` that hold no block.
    free: Vec<usize>,
    /// The place in `slots` that was found last.
    last: usize,
}

#[derive(Debug)]
struct Slot {
    function: Sbdf,
    /// On its own, so that a list that grows moves little.
    block: Option<Box<Block>>,
}

impl Slot {
    /// Whether it is the block of `function`.
    fn is_of(&self, function: Sbdf) -> bool {
        self.function.number() == function.number() && self.block.is_some()
    }
}

impl Blocks {
    fn place(&self, function: Sbdf) -> Option<usize> {
        let last = self.slots.get(self.last);
        if last.is_some_and(|slot| slot.is_of(function)) {
            return Some(self.last);
        }
        self.places.get(&function).copied()
    }

    /// The block of `function`.
    pub(super) fn get(&self, function: Sbdf) -> Option<&Block> {
        self.slots[self.place(function)?].block.as_deref()
    }

    /// The block of `function`, to change.
    pub(super) fn get_mut(&mut self, function: Sbdf) -> Option<&mut Block> {
        self.last = self.place(function)?;
        self.slots[self.last].block.as_deref_mut()
    }

    /// Makes `block` that of `function`, instead of one that there may be.
    pub(super) fn insert(&mut self, function: Sbdf, block: Block) {
        let slot = Slot {
            function,
            block: Some(Box::new(block)),
        };
        let place = self.place(function).or_else(|| self.free.pop());
        let place = place.unwrap_or(self.slots.len());
        match self.slots.get_mut(place) {
            Some(there) => *there = slot,
            None => self.slots.push(slot),
        }
        self.places.insert(function, place);
        self.last = place;
    }

    /// Takes the block of `function` out.
    pub(super) fn remove(&mut self, function: Sbdf) -> Option<Block> {
        let place = self.places.remove(&function)?;
        self.free.push(place);
        self.slots[place].block.take().map(|block| *block)
    }

    /// The functions in a range of addresses and their blocks, in order.
    pub(super) fn range(
        &self,
        functions: impl RangeBounds<Sbdf>,
    ) -> impl Iterator<Item = (Sbdf, &Block)> {
        let places = self.places.range(functions);
        places
            .filter_map(|(&function, &place)| Some((function, self.slots[place].block.as_deref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is done to a map.
    #[derive(Clone, Debug)]
    enum Step {
        Insert(u8, u8),
        Remove(u8),
        Change(u8, u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_u8..12, any::<u8>()).prop_map(|(at, mark)| Step::Insert(at, mark)),
            (0_u8..12).prop_map(Step::Remove),
            (0_u8..12, any::<u8>()).prop_map(|(at, mark)| Step::Change(at, mark)),
        ]
    }

    fn function(at: u8) -> Sbdf {
        Sbdf::from_devfn(u16::from(at % 2), at / 3, at)
    }

    /// A block that can be told from others.
    fn marked(mark: u8) -> Block {
        let mut block = Block::new();
        block.power_state = mark;
        block
    }

    proptest! {
        #[test]
        fn it_does_what_a_map_does(steps in prop::collection::vec(step(), 0..60)) {
            let mut blocks = Blocks::default();
            let mut map = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Insert(at, mark) => {
                        blocks.insert(function(at), marked(mark));
                        map.insert(function(at), mark);
                    }
                    Step::Remove(at) => {
                        let removed = blocks.remove(function(at)).map(|block| block.power_state);
                        prop_assert_eq!(removed, map.remove(&function(at)));
                    }
                    Step::Change(at, mark) => {
                        if let Some(block) = blocks.get_mut(function(at)) {
                            block.power_state = mark;
                        }
                        map.entry(function(at)).and_modify(|there| *there = mark);
                    }
                }
                for at in 0..12 {
                    let found = blocks.get(function(at)).map(|block| block.power_state);
                    prop_assert_eq!(found, map.get(&function(at)).copied());
                }
                let all = blocks.range(..).map(|(at, block)| (at, block.power_state));
                prop_assert_eq!(
                    all.collect::<Vec<_>>(),
                    map.iter().map(|(at, mark)| (*at, *mark)).collect::<Vec<_>>()
                );
            }
            // Of what was taken out nothing is left.
            let most = map.len() + blocks.free.len();
            prop_assert_eq!(blocks.slots.len(), most);
        }
    }
}
