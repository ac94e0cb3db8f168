//! The hardware of a replay.
//!
//! While the cache is filled, it is the captured bytes, with BARs that keep
//! their writable bits. While the trace runs, it is the trace: the read at
//! hand returns what was recorded, and a read that the cache makes on its own
//! returns what the trace shows of that byte next, or showed last.

use std::collections::BTreeMap;

use warmbus_pci::{ConfigAccess, ConfigOffset, Sbdf, Width};
use warmbus_pcsc_format::MaskRecord;

use super::Step;
use crate::hierarchy::walkable;
use crate::input::Capture;

/// What the trace shows of one byte at one step.
#[derive(Clone, Copy, Debug)]
struct Event {
    step: usize,
    is_read: bool,
    value: u8,
}

/// Captured bytes and what is known about writes to them.
#[derive(Clone, Debug, Default)]
struct Function {
    bytes: Vec<u8>,
    masks: Vec<MaskRecord>,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Hardware {
    functions: BTreeMap<Sbdf, Function>,
    events: BTreeMap<(Sbdf, u16), Vec<Event>>,
    /// The step that runs, counted from 0; `None` before the trace.
    now: Option<usize>,
    /// The recorded read that runs, and what it returned.
    recorded: Option<(Sbdf, ConfigOffset, Width, u32)>,
    /// Reads that the trace does not have.
    pub(super) own_reads: u64,
}

impl Hardware {
    /// The hardware that answered `steps`, and that `capture` was taken of.
    pub(super) fn new(steps: &[Step], capture: &Capture) -> Self {
        let functions = capture
            .spaces
            .iter()
            .map(|(&sbdf, space)| {
                let extension = space.extension.as_ref();
                let function = Function {
                    bytes: walkable(space),
                    masks: extension.map_or_else(Vec::new, |found| found.masks.clone()),
                };
                (sbdf, function)
            })
            .collect();
        let mut events: BTreeMap<_, Vec<Event>> = BTreeMap::new();
        for (step, access) in steps.iter().enumerate() {
            for lane in 0..access.width.bytes() {
                let key = (access.function, access.offset.get() + lane);
                events.entry(key).or_default().push(Event {
                    step,
                    is_read: access.is_read,
                    value: (access.value >> (8 * lane)) as u8,
                });
            }
        }
        Self {
            functions,
            events,
            now: None,
            recorded: None,
            own_reads: 0,
        }
    }

    /// Goes on to `step`, which is `access`.
    pub(super) fn begin(&mut self, step: usize, access: &Step) {
        self.now = Some(step);
        self.recorded =
            access
                .is_read
                .then_some((access.function, access.offset, access.width, access.value));
    }

    /// Takes back what the filling of the cache changed and counted.
    pub(super) fn end_of_filling(&mut self, capture: &Capture) {
        for (sbdf, function) in &mut self.functions {
            if let Some(space) = capture.spaces.get(sbdf) {
                function.bytes = walkable(space);
            }
        }
        self.own_reads = 0;
    }

    /// The current value of the byte: the one that the trace reads next, unless it
    /// is written before; else what the trace showed last; else what was
    /// captured.
    fn byte(&self, function: Sbdf, offset: u16) -> Option<u8> {
        let captured = || {
            self.functions
                .get(&function)
                .and_then(|known| known.bytes.get(usize::from(offset)).copied())
        };
        let Some(now) = self.now else {
            return captured();
        };
        let Some(events) = self.events.get(&(function, offset)) else {
            return captured();
        };
        let next = events.partition_point(|event| event.step < now);
        match events.get(next) {
            Some(event) if event.is_read => Some(event.value),
            _ => match next.checked_sub(1).and_then(|last| events.get(last)) {
                Some(last) => Some(last.value),
                None => captured(),
            },
        }
    }

    /// Whether the trace or the capture shows a valid ID.
    fn answers(&self, function: Sbdf) -> bool {
        let id = [self.byte(function, 0), self.byte(function, 1)];
        !matches!(
            id,
            [None, _] | [_, None] | [Some(0xff), Some(0xff)] | [Some(0), Some(0)]
        )
    }
}

impl ConfigAccess for Hardware {
    fn read(&mut self, function: Sbdf, offset: ConfigOffset, width: Width) -> u32 {
        if let Some((_, _, _, value)) = self
            .recorded
            .take_if(|(f, o, w, _)| (*f, *o, *w) == (function, offset, width))
        {
            return value;
        }
        self.own_reads += 1;
        // Neither captured nor recorded: absent, or zeros.
        let default = if self.answers(function) { 0 } else { 0xff };
        (0..width.bytes()).fold(0, |value, lane| {
            let byte = self.byte(function, offset.get() + lane).unwrap_or(default);
            value | u32::from(byte) << (8 * lane)
        })
    }

    fn write(&mut self, function: Sbdf, offset: ConfigOffset, width: Width, value: u32) {
        if self.now.is_some() || width != Width::Dword {
            return;
        }
        let Some(known) = self.functions.get_mut(&function) else {
            return;
        };
        let mask = known.masks.iter().find(|mask| mask.offset == offset.get());
        let slot = known.bytes.get_mut(offset.index()..offset.index() + 4);
        if let (Some(mask), Some(slot)) = (mask, slot) {
            let old = slot
                .iter()
                .rev()
                .fold(0, |old, byte| old << 8 | u32::from(*byte));
            let new = value & mask.writable | old & !mask.writable;
            slot.copy_from_slice(&new.to_le_bytes());
        }
    }
}
