//! Devices that were not ready: visited again when everything else is done.

use alloc::vec::Vec;

use super::bridge::Link;
use super::{Bus, Scan};
use crate::time::Clock;
use crate::{AnomalyKind, ConfigSpace, Sbdf};

/// A device that was not ready, or one behind a link that was not up.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingDevice {
    host: usize,
    bus: Bus,
    device: u8,
}

impl PendingDevice {
    pub(super) fn function(host: usize, bus: Bus, device: u8) -> Self {
        Self { host, bus, device }
    }
}

/// Nanoseconds before the second visit; doubled each round.
const FIRST_WAIT: u64 = 1_000_000;
/// Nanoseconds between visits at most.
const LONGEST_WAIT: u64 = 100_000_000;
/// Visits at most, should the clock stand still.
const ROUNDS: u32 = 64;

impl<S: ConfigSpace> Scan<'_, S> {
    /// Visits slow devices until all are ready or the deadline, counted from
    /// `start`, has passed.
    pub(super) fn retry_pending<C: Clock>(&mut self, start: u64, clock: &mut C) {
        let mut wait = FIRST_WAIT;
        for _ in 0..ROUNDS {
            let waiting = core::mem::take(&mut self.slow);
            if waiting.is_empty() {
                return;
            }
            let elapsed = clock.now().saturating_sub(start);
            let left = self.policy.deadline.saturating_sub(elapsed);
            if left == 0 {
                self.slow = waiting;
                break;
            }
            clock.wait(wait.min(left));
            wait = (wait * 2).min(LONGEST_WAIT);
            for slow in waiting {
                self.visit(slow);
            }
        }
        for slow in core::mem::take(&mut self.slow) {
            self.host = slow.host;
            let function = Sbdf::new(self.segment(), slow.bus.number, slow.device, 0);
            let milliseconds = self.policy.deadline / 1_000_000;
            self.exclude(function, AnomalyKind::NotReady { milliseconds });
        }
    }

    fn visit(&mut self, slow: PendingDevice) {
        self.host = slow.host;
        self.preserve = self.topology.hosts[slow.host].0.preserve;
        let mut bus = slow.bus;
        if let Some(parent) = bus.parent {
            match self.link(parent) {
                Link::Training => return self.slow.push(slow),
                Link::Down => return,
                Link::Up | Link::Unknown => {}
            }
            if let Some(bridge) = self.topology.functions[parent].bridge {
                bus.last = bridge.subordinate;
            }
        }
        let first = self.topology.functions.len();
        // Numbers come from those that were set aside below the parent.
        let next = self.next_bus[self.host];
        if bus.parent.is_some() {
            self.next_bus[self.host] = self.first_free_below(bus);
        }
        self.scan_device(bus, slow.device);
        self.scan_bridges(first, bus.last);
        if bus.parent.is_some() {
            self.next_bus[self.host] = next;
        }
    }

    /// The lowest bus number below the parent of `bus` that is not in use.
    fn first_free_below(&self, bus: Bus) -> u16 {
        let below = bus.number..=bus.last;
        let used: Vec<u8> = self
            .topology
            .functions
            .iter()
            .filter(|function| function.host == self.host && below.contains(&function.sbdf.bus()))
            .flat_map(|function| {
                let bridge = function.bridge.map_or(0, |bridge| bridge.subordinate);
                let vfs = function.sriov.map_or(0, |sriov| sriov.last_bus);
                [bridge, vfs]
            })
            .collect();
        let highest = used.into_iter().fold(bus.number, u8::max);
        u16::from(highest) + 1
    }
}
