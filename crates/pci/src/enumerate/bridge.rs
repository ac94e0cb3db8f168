//! Bridges: bus numbers, links and what is below them.

use super::not_ready::PendingDevice;
use super::{Bus, Scan};
use crate::registers::{BUS_NUMBERS, SUBORDINATE_BUS, capability, express};
use crate::{
    AnomalyKind, BusNumbers, BusNumbersError, ConfigOffset, ConfigSpace, PortType, Sbdf, Width,
};

/// State of the link below a downstream port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// There is none, or its state is not known: probe what is below.
    Unknown,
    /// Up.
    Up,
    /// Down, and no device will bring it up.
    Down,
    /// Not up yet.
    Training,
}

impl<S: ConfigSpace> Scan<'_, S> {
    /// Numbers the buses below the bridge at `index` and scans them.
    /// `bridges_left_on_bus` bridges on the same bus still need a number each.
    pub(super) fn scan_bridge(&mut self, index: usize, last_bus: u8, bridges_left_on_bus: usize) {
        self.read_slot(index);
        let link = self.link(index);
        let secondary = if self.preserve {
            self.accept_bus_numbers(index, last_bus)
        } else {
            self.enable_rrs_visibility(index);
            self.assign_bus_numbers(index, last_bus)
        };
        let Some((secondary, last_bus)) = secondary else {
            self.record_faults();
            return;
        };
        let bus = Bus {
            number: secondary,
            last: last_bus,
            parent: Some(index),
            is_link: self.has_link_below(index),
        };
        let pending_before = self.pending.len();
        match link {
            Link::Down if self.timeout_below(Some(index)).is_none() => {}
            Link::Down | Link::Training => self.pending.push(PendingDevice::new(self.host, bus, 0)),
            Link::Up | Link::Unknown => self.scan_bus(bus),
        }
        if !self.preserve {
            let has_pending = self.pending.len() > pending_before;
            self.finalize_subordinate(index, last_bus, has_pending, bridges_left_on_bus);
        }
        self.record_faults();
    }

    pub(super) fn express(&self, port: Sbdf) -> Option<u16> {
        self.config.capability(port, capability::EXPRESS)
    }

    /// Whether what is below the bridge is a PCI Express link, on which
    /// device 0 is the only one (PCIe 7.3.1).
    fn has_link_below(&self, index: usize) -> bool {
        matches!(
            self.topology.functions[index].port_type,
            Some(PortType::RootPort | PortType::DownstreamPort | PortType::PciToPcieBridge)
        )
    }

    /// Reads the state of the link below a port and records it.
    pub(super) fn link(&mut self, index: usize) -> Link {
        let link = self.read_link(index);
        if let Some(bridge) = &mut self.topology.functions[index].bridge {
            bridge.link_up = match link {
                Link::Unknown => None,
                Link::Up => Some(true),
                Link::Down | Link::Training => Some(false),
            };
        }
        link
    }

    pub(super) fn read_link(&mut self, index: usize) -> Link {
        let function = &self.topology.functions[index];
        let port = function.sbdf;
        if !matches!(
            function.port_type,
            Some(PortType::RootPort | PortType::DownstreamPort)
        ) {
            return Link::Unknown;
        }
        let Some(base) = self.express(port) else {
            return Link::Unknown;
        };
        let capabilities = self.dword(port, base + express::LINK_CAPABILITIES);
        // The dword is read for Link Control beside it, too.
        let status = (self.dword(port, base + express::LINK_CONTROL) >> 16) as u16;
        if status == u16::MAX {
            return Link::Down;
        }
        let reports_active = capabilities & express::LINK_ACTIVE_REPORTING != 0;
        if reports_active && status & express::LINK_ACTIVE != 0 {
            return Link::Up;
        }
        if status & express::LINK_TRAINING != 0 {
            return Link::Training;
        }
        let slot = self.slot_capabilities(port);
        let hot_plug = slot.is_some_and(|bits| bits & express::HOT_PLUG_CAPABLE != 0);
        if reports_active {
            // A card that is there may be about to start its link.
            return if slot.is_some() && self.is_occupied(port, base) {
                Link::Training
            } else {
                Link::Down
            };
        }
        // Boards leave presence detect of a fixed slot unwired: only where
        // cards come and go is it meaningful.
        if hot_plug && !self.is_occupied(port, base) {
            Link::Down
        } else {
            Link::Unknown
        }
    }

    /// Lets a root port show functions that are not ready, instead of
    /// retrying in hardware (PCIe 2.3.1).
    fn enable_rrs_visibility(&mut self, index: usize) {
        let function = &self.topology.functions[index];
        let port = function.sbdf;
        if function.port_type != Some(PortType::RootPort) {
            return;
        }
        let Some(base) = self.express(port) else {
            return;
        };
        let root = self.dword(port, base + express::ROOT_CONTROL);
        let (control, capabilities) = (root as u16, (root >> 16) as u16);
        if root != u32::MAX
            && capabilities & express::RRS_VISIBILITY != 0
            && control & express::RRS_VISIBILITY_ENABLE == 0
        {
            self.write_word(
                port,
                base + express::ROOT_CONTROL,
                control | express::RRS_VISIBILITY_ENABLE,
            );
        }
    }

    /// Keeps the numbers of a bridge as they are. Returns the secondary bus
    /// and the last one below, if the numbers are valid.
    fn accept_bus_numbers(&mut self, index: usize, last_bus: u8) -> Option<(u8, u8)> {
        let port = self.topology.functions[index].sbdf;
        let found = BusNumbers::from_dword(self.dword(port, BUS_NUMBERS));
        self.record_bus_numbers(index, found);
        if found.is_unassigned() {
            return None;
        }
        // Siblings may have their buses in any order, but none twice.
        let is_taken = self.topology.functions.iter().any(|other| {
            other.host == self.host
                && (found.secondary..=found.subordinate).contains(&other.sbdf.bus())
        });
        let valid = match found.validate(port.bus(), last_bus) {
            Ok(()) if is_taken => Err(BusNumbersError {
                found,
                bus: port.bus(),
                last: last_bus,
            }),
            checked => checked,
        };
        if let Err(error) = valid {
            let kind = AnomalyKind::InvalidBusNumbers(error);
            self.topology.functions[index].anomalies.push(kind);
            return None;
        }
        self.report_zero_primary(index, found);
        let next = &mut self.next_bus[self.host];
        *next = (*next).max(u16::from(found.subordinate) + 1);
        Some((found.secondary, found.subordinate))
    }

    /// Records that a bridge, whose numbers are valid, is not on bus 0 although
    /// its Primary Bus Number is 0.
    fn report_zero_primary(&mut self, index: usize, numbers: BusNumbers) {
        let function = &mut self.topology.functions[index];
        let bus = function.sbdf.bus();
        if numbers.primary != bus {
            function.anomalies.push(AnomalyKind::ZeroPrimaryBus { bus });
        }
    }

    fn record_bus_numbers(&mut self, index: usize, numbers: BusNumbers) {
        if let Some(bridge) = &mut self.topology.functions[index].bridge {
            bridge.primary = numbers.primary;
            bridge.secondary = numbers.secondary;
            bridge.subordinate = numbers.subordinate;
        }
    }

    /// Enhanced Allocation may fix the numbers below a bridge (PCIe 7.8.5.2).
    fn fixed_numbers(&mut self, port: Sbdf) -> Option<(u8, u8)> {
        let base = self
            .config
            .capability(port, capability::ENHANCED_ALLOCATION)?;
        let [secondary, subordinate, ..] = self.dword(port, base + 4).to_le_bytes();
        (secondary != 0).then_some((secondary, subordinate))
    }

    /// Clears the bus numbers that the previous boot stage has assigned to a
    /// bridge: a bridge beside it is about to be assigned other numbers, which
    /// may be the same, and two bridges must not forward to one bus.
    pub(super) fn clear_bus_numbers(&mut self, index: usize) {
        let port = self.topology.functions[index].sbdf;
        let found = self.dword(port, BUS_NUMBERS);
        let numbers = BusNumbers::from_dword(found);
        if found != u32::MAX && (numbers.secondary, numbers.subordinate) != (0, 0) {
            let offset = ConfigOffset::wrapping(BUS_NUMBERS);
            self.config.write(port, offset, Width::Dword, 0);
        }
    }

    /// Assigns a bridge its primary and secondary number, and all numbers up to
    /// `last_bus` until those below it are known. Returns the secondary bus and
    /// the last one that may be assigned below.
    fn assign_bus_numbers(&mut self, index: usize, last_bus: u8) -> Option<(u8, u8)> {
        let port = self.topology.functions[index].sbdf;
        let next = self.next_bus[self.host];
        let fixed = self.fixed_numbers(port);
        let (secondary, last) = fixed.unwrap_or((next.min(0xff) as u8, last_bus));
        if u16::from(secondary) < next || secondary > last || last > last_bus {
            let kind = if fixed.is_some() {
                AnomalyKind::FixedBusNumbersTaken {
                    secondary,
                    subordinate: last,
                }
            } else {
                AnomalyKind::NoBusNumberLeft { last: last_bus }
            };
            self.topology.functions[index].anomalies.push(kind);
            // Stale numbers must not forward anything.
            self.config.write(
                port,
                ConfigOffset::wrapping(BUS_NUMBERS),
                Width::Dword,
                u32::from(port.bus()),
            );
            return None;
        }
        let wanted = BusNumbers {
            primary: port.bus(),
            secondary,
            subordinate: last,
        };
        self.config.write(
            port,
            ConfigOffset::wrapping(BUS_NUMBERS),
            Width::Dword,
            wanted.to_dword(),
        );
        let found = BusNumbers::from_dword(self.dword(port, BUS_NUMBERS));
        self.next_bus[self.host] = u16::from(secondary) + 1;
        let sticks = (found.secondary, found.subordinate) == (secondary, last)
            && found.validate(port.bus(), last_bus).is_ok();
        self.record_bus_numbers(index, found);
        if !sticks {
            let kind = AnomalyKind::BusNumbersNotWritable {
                wrote: wanted,
                read: found,
            };
            self.topology.functions[index].anomalies.push(kind);
            self.detect_loop(index);
            return None;
        }
        self.report_zero_primary(index, found);
        Some((secondary, last))
    }

    /// Checks whether a bridge above the one at `index`, whose numbers did not
    /// stick, has lost its own: then it is the same bridge, reached again
    /// through itself.
    fn detect_loop(&mut self, index: usize) {
        let mut next = self.topology.functions[index].parent;
        while let Some(above) = next {
            let function = &self.topology.functions[above];
            next = function.parent;
            let (port, bridge) = (function.sbdf, function.bridge);
            let offset = ConfigOffset::wrapping(BUS_NUMBERS);
            // From the hardware: a cache returns what was written.
            let found = self.config.read_hardware(port, offset, Width::Dword);
            let [primary, secondary, subordinate, _] = found.to_le_bytes();
            let is_same = bridge.is_some_and(|bridge| {
                (bridge.primary, bridge.secondary, bridge.subordinate)
                    == (primary, secondary, subordinate)
            });
            if !is_same {
                self.config.invalidate_register(port, BUS_NUMBERS);
                self.exclude(port, AnomalyKind::BridgeLoop);
            }
        }
    }

    /// Writes the final subordinate number: the highest one in use below,
    /// and spare ones where devices may come later.
    fn finalize_subordinate(
        &mut self,
        index: usize,
        last_bus: u8,
        has_pending: bool,
        bridges_left_on_bus: usize,
    ) {
        let port = self.topology.functions[index].sbdf;
        let Some(bridge) = self.topology.functions[index].bridge else {
            return;
        };
        let next = self.next_bus[self.host];
        let subordinate = if self.fixed_numbers(port).is_some() {
            last_bus
        } else {
            let used = next - 1;
            let spare = self.spare[self.host];
            let wanted = u16::from(if has_pending {
                spare.not_ready
            } else if spare.hot_plug > 0 {
                let hot_plug = if bridge.hot_plug { spare.hot_plug } else { 0 };
                let below = used.saturating_sub(u16::from(bridge.secondary)) as u8;
                let reserve = bridge.reserve.buses.unwrap_or(0);
                hot_plug.max(reserve.saturating_sub(below))
            } else {
                0
            });
            // The bridges beside this one come first.
            let free = u16::from(last_bus) - used.min(u16::from(last_bus));
            let spare = wanted.min(free.saturating_sub(bridges_left_on_bus as u16));
            self.may_free_numbers[self.host] |= spare > 0 || has_pending;
            (used + spare).min(u16::from(last_bus)) as u8
        };
        self.next_bus[self.host] = u16::from(subordinate) + 1;
        if subordinate != bridge.subordinate {
            self.config.write(
                port,
                ConfigOffset::wrapping(SUBORDINATE_BUS),
                Width::Byte,
                u32::from(subordinate),
            );
        }
        self.record_bus_numbers(
            index,
            BusNumbers {
                primary: bridge.primary,
                secondary: bridge.secondary,
                subordinate,
            },
        );
    }
}
