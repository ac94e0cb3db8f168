//! A map by the address of a function.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cell::Cell;
use core::ops::RangeBounds;

use super::Sbdf;

/// Values by the address of a function.
///
/// One access to a function follows the other, and functions are gone through in
/// the order in which they were found, so that the one that was found last or
/// the one after it mostly is the one that is looked for: it is found without a
/// search, which would take longer the more functions there are.
#[derive(Debug)]
pub struct SbdfMap<T> {
    slots: Vec<Slot<T>>,
    /// Index in `slots` of the value of each function.
    indices: BTreeMap<Sbdf, usize>,
    /// Indices in `slots` that hold none.
    free: Vec<usize>,
    /// The index in `slots` that was found last.
    last: Cell<usize>,
}

#[derive(Debug)]
struct Slot<T> {
    /// The number of the function.
    number: u32,
    /// On its own, so that a list that grows moves little.
    value: Option<Box<T>>,
}

impl<T> Slot<T> {
    /// Whether it is that of the function with this number.
    fn is_of(&self, number: u32) -> bool {
        self.number == number && self.value.is_some()
    }
}

impl<T> Default for SbdfMap<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> SbdfMap<T> {
    /// No values.
    pub const fn new() -> Self {
        Self {
            slots: Vec::new(),
            indices: BTreeMap::new(),
            free: Vec::new(),
            last: Cell::new(0),
        }
    }

    fn index(&self, function: Sbdf) -> Option<usize> {
        let (last, number) = (self.last.get(), function.number());
        if self.is_at(last, number) {
            return Some(last);
        }
        let index = if self.is_at(last + 1, number) {
            last + 1
        } else {
            self.indices.get(&function).copied()?
        };
        self.last.set(index);
        Some(index)
    }

    fn is_at(&self, index: usize, number: u32) -> bool {
        let slot = self.slots.get(index);
        slot.is_some_and(|slot| slot.is_of(number))
    }

    /// The value of `function`.
    pub fn get(&self, function: Sbdf) -> Option<&T> {
        self.slots[self.index(function)?].value.as_deref()
    }

    /// The value of `function`, to change.
    pub fn get_mut(&mut self, function: Sbdf) -> Option<&mut T> {
        let index = self.index(function)?;
        self.slots[index].value.as_deref_mut()
    }

    /// Makes `value` that of `function`, instead of one that there may be.
    pub fn insert(&mut self, function: Sbdf, value: T) {
        match self.index(function) {
            Some(index) => self.slots[index].value = Some(Box::new(value)),
            None => self.add(function, value),
        }
    }

    /// The same where there is none.
    fn add(&mut self, function: Sbdf, value: T) {
        let slot = Slot {
            number: function.number(),
            value: Some(Box::new(value)),
        };
        let index = self.free.pop().unwrap_or(self.slots.len());
        match self.slots.get_mut(index) {
            Some(there) => *there = slot,
            None => self.slots.push(slot),
        }
        self.indices.insert(function, index);
        self.last.set(index);
    }

    /// The value of `function`, to change; what `make` makes where there was none.
    pub fn get_or_insert_with(&mut self, function: Sbdf, make: fn() -> T) -> &mut T {
        if self.index(function).is_none() {
            self.add(function, make());
        }
        let value = &mut self.slots[self.last.get()].value;
        value.get_or_insert_with(|| Box::new(make()))
    }

    /// Takes the value of `function` out.
    pub fn remove(&mut self, function: Sbdf) -> Option<T> {
        let index = self.indices.remove(&function)?;
        self.free.push(index);
        self.slots[index].value.take().map(|value| *value)
    }

    /// All values, to change, in no order.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots
            .iter_mut()
            .filter_map(|slot| slot.value.as_deref_mut())
    }

    /// The functions in a range of addresses and their values, in order.
    pub fn range(&self, functions: impl RangeBounds<Sbdf>) -> impl Iterator<Item = (Sbdf, &T)> {
        let indices = self.indices.range(functions);
        indices
            .filter_map(|(&function, &index)| Some((function, self.slots[index].value.as_deref()?)))
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

    proptest! {
        #[test]
        fn it_does_what_a_map_does(steps in prop::collection::vec(step(), 0..60)) {
            let mut values = SbdfMap::new();
            let mut map = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Insert(at, mark) => {
                        values.insert(function(at), mark);
                        map.insert(function(at), mark);
                    }
                    Step::Remove(at) => {
                        let removed = values.remove(function(at));
                        prop_assert_eq!(removed, map.remove(&function(at)));
                    }
                    Step::Change(at, mark) => {
                        if let Some(value) = values.get_mut(function(at)) {
                            *value = mark;
                        }
                        map.entry(function(at)).and_modify(|there| *there = mark);
                    }
                }
                for at in 0..12 {
                    let found = values.get(function(at)).copied();
                    prop_assert_eq!(found, map.get(&function(at)).copied());
                }
                let all = values.range(..).map(|(at, mark)| (at, *mark));
                prop_assert_eq!(
                    all.collect::<Vec<_>>(),
                    map.iter().map(|(at, mark)| (*at, *mark)).collect::<Vec<_>>()
                );
            }
            // Of what was taken out nothing is left.
            let most = map.len() + values.free.len();
            prop_assert_eq!(values.slots.len(), most);
        }
    }
}
