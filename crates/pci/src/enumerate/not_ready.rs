//! Devices that are not ready: retried when everything else is done.

use core::time::Duration;

use super::bridge::Link;
use super::{Bus, Scan};
use crate::time::{Backoff, Clock};
use crate::{AnomalyKind, ConfigSpace, Sbdf};

/// Rounds at most, should the clock stand still.
const MAX_ROUNDS: u32 = 64;

/// A device that was not ready, or one behind a link that was not up.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingDevice {
    host: usize,
    bus: Bus,
    device: u8,
}

impl PendingDevice {
    pub(super) const fn new(host: usize, bus: Bus, device: u8) -> Self {
        Self { host, bus, device }
    }
}

impl<S: ConfigSpace> Scan<'_, S> {
    /// Retries pending devices until all are ready or the timeout, counted
    /// from `start`, has passed.
    pub(super) fn retry_pending<C: Clock>(&mut self, start: Duration, clock: &mut C) {
        let default = self.policy.not_ready_timeout;
        let ports = self.policy.port_timeouts.iter().map(|port| port.1);
        let longest = ports.fold(default, Duration::max);
        // The longest wait is a tenth of a second.
        let rounds = u32::try_from(longest.as_millis() / 50).unwrap_or(u32::MAX);
        let mut backoff = Backoff::new(start, longest, rounds.saturating_add(MAX_ROUNDS));
        while !self.pending.is_empty() && backoff.wait(clock) {
            for device in core::mem::take(&mut self.pending) {
                self.retry(device);
            }
            let passed = clock.now().saturating_sub(start);
            for device in core::mem::take(&mut self.pending) {
                if passed < self.timeout_of(device) {
                    self.pending.push(device);
                } else {
                    self.give_up(device);
                }
            }
        }
        for device in core::mem::take(&mut self.pending) {
            self.give_up(device);
        }
    }

    /// The timeout that the policy has for what is below the port at `port`,
    /// if it names that port.
    pub(super) fn timeout_below(&self, port: Option<usize>) -> Option<Duration> {
        let port = self.topology.functions.get(port?)?.sbdf;
        let mut timeouts = self.policy.port_timeouts.iter();
        timeouts.find(|one| one.0 == port).map(|one| one.1)
    }

    fn timeout_of(&self, pending: PendingDevice) -> Duration {
        let of_port = self.timeout_below(pending.bus.parent);
        of_port.unwrap_or(self.policy.not_ready_timeout)
    }

    fn give_up(&mut self, pending: PendingDevice) {
        let timeout = self.timeout_of(pending).as_millis();
        let milliseconds = u64::try_from(timeout).unwrap_or(u64::MAX);
        self.host = pending.host;
        let function = Sbdf::new(self.segment(), pending.bus.number, pending.device, 0);
        self.exclude(function, AnomalyKind::NotReady { milliseconds });
    }

    fn retry(&mut self, pending: PendingDevice) {
        self.host = pending.host;
        self.preserve = self.topology.hosts[pending.host].0.preserve_config;
        let mut bus = pending.bus;
        if let Some(parent) = bus.parent {
            match self.link(parent) {
                Link::Training => return self.pending.push(pending),
                Link::Down if self.timeout_below(bus.parent).is_some() => {
                    return self.pending.push(pending);
                }
                Link::Down => return,
                Link::Up | Link::Unknown => {}
            }
            if let Some(bridge) = self.topology.functions[parent].bridge {
                bus.last = bridge.subordinate;
            }
        }
        let first = self.topology.functions.len();
        // Numbers come from those that are spare below the parent.
        let next = self.next_bus[self.host];
        if bus.parent.is_some() {
            self.next_bus[self.host] = self.first_free_below(bus);
        }
        self.scan_device(bus, pending.device);
        self.scan_bridges(first, bus.last);
        if bus.parent.is_some() {
            self.next_bus[self.host] = next;
        }
    }

    /// The lowest bus number below the parent of `bus` that is not in use.
    fn first_free_below(&self, bus: Bus) -> u16 {
        let below = bus.number..=bus.last;
        let used = self
            .topology
            .functions
            .iter()
            .filter(|function| function.host == self.host && below.contains(&function.sbdf.bus()))
            .flat_map(|function| {
                let bridge = function.bridge.map_or(0, |bridge| bridge.subordinate);
                let vfs = function.sriov.map_or(0, |sriov| sriov.last_bus);
                [bridge, vfs]
            });
        let highest = used.fold(bus.number, u8::max);
        u16::from(highest) + 1
    }
}
