//! Devices and their functions.

use super::not_ready::PendingDevice;
use super::{Bus, Scan};
use crate::registers::{
    CACHE_LINE_SIZE, REVISION, capability, express, extended, header_type, sr_iov,
};
use crate::{
    AnomalyKind, ConfigOffset, ConfigSpace, Function, Probe, Sbdf, SrIovInfo, Step, VfRouting,
    Width,
};

impl<S: ConfigSpace> Scan<'_, S> {
    /// The dword at `offset` of `function`, through the cache.
    pub(super) fn dword(&mut self, function: Sbdf, offset: u16) -> u32 {
        self.config
            .read(function, ConfigOffset::wrapping(offset), Width::Dword)
    }

    pub(super) fn write_word(&mut self, function: Sbdf, offset: u16, value: u16) {
        self.config.write(
            function,
            ConfigOffset::wrapping(offset),
            Width::Word,
            u32::from(value),
        );
    }

    /// Finds the functions of one device. One that is not ready yet is retried
    /// at the end.
    pub(super) fn scan_device(&mut self, bus: Bus, device: u8) {
        let function = Sbdf::new(self.segment(), bus.number, device, 0);
        match self.probe(function) {
            Probe::Absent if !bus.is_link || self.timeout_below(bus.parent).is_none() => {
                self.record_faults();
            }
            Probe::Absent | Probe::NotReady => self
                .pending
                .push(PendingDevice::new(self.host, bus, device)),
            found @ Probe::Present { .. } => {
                let first = self.topology.functions.len();
                if self.add_function(function, bus.parent, found) {
                    self.scan_functions(bus, device, first);
                }
                for index in first..self.topology.functions.len() {
                    self.read_sr_iov(index, first);
                }
            }
        }
    }

    /// Finds the other functions of the device whose function 0 is `first`.
    fn scan_functions(&mut self, bus: Bus, device: u8, first: usize) {
        let ari = self
            .config
            .extended_capability(self.topology.functions[first].sbdf, extended::ARI);
        if let (Some(ari), true) = (ari, bus.is_link)
            && self.enable_ari_forwarding(bus.parent)
        {
            self.follow_ari(bus, ari);
        } else if self.topology.functions[first].multi_function {
            for number in 1..8 {
                let function = Sbdf::new(self.segment(), bus.number, device, number);
                self.probe_function(bus, function);
            }
        }
    }

    /// Follows the Next Function Number of each function (PCIe 7.8.8.2).
    fn follow_ari(&mut self, bus: Bus, ari_of_function_0: u16) {
        let mut function = Sbdf::from_devfn(self.segment(), bus.number, 0);
        let mut ari = Some(ari_of_function_0);
        while let Some(offset) = ari {
            let next = (self.dword(function, offset + 4) >> 8) as u8;
            if next == 0 {
                return;
            }
            if next <= function.devfn() {
                return self.record_anomaly(function, AnomalyKind::NextFunctionNumber { next });
            }
            function = Sbdf::from_devfn(self.segment(), bus.number, next);
            if !self.probe_function(bus, function) {
                return self.record_anomaly(function, AnomalyKind::AnnouncedButAbsent);
            }
            ari = self.config.extended_capability(function, extended::ARI);
        }
    }

    /// Probes `function`, and once more where the machine refused the access: a
    /// function that the OS would find must not count as absent.
    fn probe(&mut self, function: Sbdf) -> Probe {
        let found = self.config.probe(function);
        let is_refused = found == Probe::Absent && self.record_faults() > 0;
        if !is_refused {
            return found;
        }
        let found = self.config.probe(function);
        if found == Probe::Absent {
            // The same again, which is recorded already.
            while self.config.take_fault().is_some() {}
        }
        found
    }

    /// Adds `function` if it is there. Returns whether it is.
    fn probe_function(&mut self, bus: Bus, function: Sbdf) -> bool {
        match self.probe(function) {
            found @ Probe::Present { .. } => self.add_function(function, bus.parent, found),
            Probe::NotReady => {
                // Function 0 is ready, and the functions of a device get
                // ready together unless something is wrong.
                self.exclude(function, AnomalyKind::NotReadyBesideFunction0);
                false
            }
            Probe::Absent => {
                self.record_faults();
                false
            }
        }
    }

    /// Adds a function that answered to the topology. Returns `false` where it
    /// stopped answering meanwhile.
    fn add_function(&mut self, sbdf: Sbdf, parent: Option<usize>, found: Probe) -> bool {
        let Some(anomalies) = self.config.walk(sbdf) else {
            let during = Step::Capabilities;
            self.exclude(sbdf, AnomalyKind::StoppedAnswering { during });
            return false;
        };
        let class = self.dword(sbdf, REVISION);
        let header = self.dword(sbdf, CACHE_LINE_SIZE);
        let Some(lists) = self.config.lists(sbdf) else {
            let during = Step::Header;
            self.exclude(sbdf, AnomalyKind::StoppedAnswering { during });
            return false;
        };
        let mut function = Function {
            host: self.host,
            parent,
            anomalies,
            ..Function::from_header(sbdf, found.ids().unwrap_or(u32::MAX), class, header, lists)
        };
        if function.header_type > header_type::CARDBUS {
            function.anomalies.push(AnomalyKind::UnknownHeaderType {
                header_type: function.header_type,
            });
        }
        self.topology.functions.push(function);
        self.record_faults();
        true
    }

    /// Enables ARI forwarding in the port above a device with ARI. Returns
    /// whether it is enabled.
    fn enable_ari_forwarding(&mut self, parent: Option<usize>) -> bool {
        let Some(index) = parent else {
            return false;
        };
        let port = self.topology.functions[index].sbdf;
        let Some(base) = self.config.capability(port, capability::EXPRESS) else {
            return false;
        };
        let capabilities = self.dword(port, base + express::DEVICE_CAPABILITIES_2);
        if capabilities & express::ARI_FORWARDING_SUPPORTED == 0 || capabilities == u32::MAX {
            return false;
        }
        let register = base + express::DEVICE_CONTROL_2;
        let control = self.dword(port, register) as u16;
        let mut is_enabled = control & express::ARI_FORWARDING_ENABLE != 0;
        if !is_enabled && !self.preserve {
            self.write_word(port, register, control | express::ARI_FORWARDING_ENABLE);
            is_enabled = true;
        }
        if let Some(bridge) = &mut self.topology.functions[index].bridge {
            bridge.ari_forwarding = is_enabled;
        }
        is_enabled
    }

    /// Reads how many VFs a physical function can have and which routing IDs
    /// they would take (PCIe 9.3.3). `first` is function 0 of its device.
    fn read_sr_iov(&mut self, index: usize, first: usize) {
        let sbdf = self.topology.functions[index].sbdf;
        let Some(base) = self.config.extended_capability(sbdf, extended::SR_IOV) else {
            return;
        };
        let vfs = self.dword(sbdf, base + sr_iov::INITIAL_VFS);
        let total_vfs = (vfs >> 16) as u16;
        // 65535 VFs of 65535 are all ones, too: what counts is whether the
        // function was evicted because of it.
        if vfs == u32::MAX && self.config.lists(sbdf).is_none() {
            return;
        }
        let (num_vfs, mut vfs_enabled) = if total_vfs > 0 {
            self.read_enabled_vfs(sbdf, base)
        } else {
            (0, false)
        };
        let mut num_vfs_register = vfs_enabled.then_some(num_vfs);
        if !self.preserve && total_vfs > 0 {
            let is_lowest = self.topology.functions[first..index]
                .iter()
                .all(|other| other.sriov.is_none());
            let is_ari = is_lowest
                && self.topology.functions[index].parent.is_some_and(|parent| {
                    self.topology.functions[parent]
                        .bridge
                        .is_some_and(|bridge| bridge.ari_forwarding)
                });
            let control = if is_ari {
                sr_iov::ARI_CAPABLE_HIERARCHY
            } else {
                0
            };
            // VF Enable stays off; offset and stride hold for these NumVFs.
            self.write_word(sbdf, base + sr_iov::CONTROL, control);
            self.write_word(sbdf, base + sr_iov::NUM_VFS, total_vfs);
            vfs_enabled = false;
            num_vfs_register = Some(total_vfs);
        }
        let routing = self.dword(sbdf, base + sr_iov::VF_OFFSET);
        let vf_device = self.dword(sbdf, base + sr_iov::VF_DEVICE_ID);
        let routing = VfRouting::from_dword(total_vfs, routing);
        let last_usable = self.topology.hosts[self.host].0.buses.last;
        let last_bus = routing.last_bus(sbdf);
        let function = &mut self.topology.functions[index];
        let is_within = last_bus <= u32::from(last_usable);
        if routing.overlaps() {
            function.anomalies.push(AnomalyKind::VfsOverlap {
                offset: routing.offset,
                stride: routing.stride,
                total_vfs,
            });
        } else if !is_within {
            function.anomalies.push(AnomalyKind::VfsBeyondLastBus {
                total_vfs,
                bus: last_bus,
                last: last_usable,
            });
        }
        let fits = is_within && !routing.overlaps();
        function.sriov = Some(SrIovInfo {
            total_vfs,
            first_vf_offset: routing.offset,
            vf_stride: routing.stride,
            vf_device_id: (vf_device >> 16) as u16,
            last_bus: if fits { last_bus as u8 } else { sbdf.bus() },
            num_vfs,
            vfs_enabled,
            num_vfs_register,
        });
        self.record_faults();
    }

    /// NumVFs of VFs that are enabled, and whether any are.
    fn read_enabled_vfs(&mut self, physical: Sbdf, base: u16) -> (u16, bool) {
        let mut dword = |at| {
            let offset = ConfigOffset::wrapping(base + at);
            self.config.read(physical, offset, Width::Dword)
        };
        // SR-IOV Status above it has nothing that a read changes.
        let control = dword(sr_iov::CONTROL) as u16;
        if control & sr_iov::VF_ENABLE == 0 || control == u16::MAX {
            return (0, false);
        }
        // Whole, since the Function Dependency Link above it is cached, too.
        (dword(sr_iov::NUM_VFS) as u16, true)
    }
}
