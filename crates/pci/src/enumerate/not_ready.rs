//! Devices that are not ready: retried when everything else is done.

use alloc::vec::Vec;
use core::time::Duration;

use super::bridge::Link;
use super::{Bus, Scan};
use crate::time::{Backoff, Clock};
use crate::{AnomalyKind, ConfigSpace, Sbdf, Topology};

/// Rounds at most, should the clock stand still.
const MAX_ROUNDS: u32 = 64;

/// How long a function was waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// How often it, or the bridge above it that was waited for, was looked for
    /// again; 0 where it was found at once.
    pub retries: u32,
    /// Time from the start of the enumeration to the retry that found it; `None`
    /// where it was found at once.
    pub after: Option<Duration>,
}

/// A device that was not ready, or one behind a link that was not up.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingDevice {
    host: usize,
    bus: Bus,
    device: u8,
    retries: u32,
}

impl PendingDevice {
    pub(super) const fn new(host: usize, bus: Bus, device: u8) -> Self {
        Self {
            host,
            bus,
            device,
            retries: 0,
        }
    }
}

/// What was waited for in every scan of one enumeration: a later scan finds it
/// ready, on another bus.
#[derive(Debug, Default)]
pub(super) struct Waits(Vec<(Position, Readiness)>);

/// Where a function is, whatever its bus number: its host bridge, and the device
/// and function numbers from it up to the root bus.
type Position = (usize, Vec<u8>);

impl Waits {
    /// Adds what was waited for in the scan that made `topology`, and has
    /// `topology` say what was waited for in earlier ones.
    pub(super) fn merge(&mut self, topology: &mut Topology) {
        for index in 0..topology.functions.len() {
            let found = topology.functions[index].readiness;
            if found.retries > 0 {
                self.0.push((position(topology, index), found));
            } else if !self.0.is_empty() {
                let at = position(topology, index);
                let earlier = self.0.iter().find(|one| one.0 == at).map(|one| one.1);
                // What had no number before was waited for with the bridge above.
                let parent = topology.functions[index].parent;
                let above = parent.map(|parent| topology.functions[parent].readiness);
                topology.functions[index].readiness = earlier.or(above).unwrap_or_default();
            }
        }
    }
}

fn position(topology: &Topology, index: usize) -> Position {
    let functions = &topology.functions;
    let upwards = core::iter::successors(Some(index), |&at| functions[at].parent);
    let path = upwards.map(|at| functions[at].sbdf.devfn()).collect();
    (functions[index].host, path)
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
                let after = clock.now().saturating_sub(start);
                self.retry(device, after);
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

    /// Looks again for what is pending, `after` so much time.
    fn retry(&mut self, mut pending: PendingDevice, after: Duration) {
        pending.retries += 1;
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
        let first_pending = self.pending.len();
        // Numbers come from those that are spare below the parent.
        let next = self.next_bus[self.host];
        if bus.parent.is_some() {
            self.next_bus[self.host] = self.first_free_below(bus);
        }
        self.scan_device(bus, pending.device);
        if let Some(again) = self.pending.get_mut(first_pending) {
            again.retries = pending.retries;
        }
        self.scan_bridges(first, bus.last);
        if bus.parent.is_some() {
            self.next_bus[self.host] = next;
        }
        for function in &mut self.topology.functions[first..] {
            function.readiness = Readiness {
                retries: pending.retries,
                after: Some(after),
            };
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
