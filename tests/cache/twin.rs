//! The same machine twice: behind a cache, and bare. What software does is
//! done to both, and what the cache serves must be what the bare one returns.

use std::collections::BTreeSet;

use warmbus_pci::{
    ConfigAccess, ConfigOffset, ConfigSpace, Probe, Sbdf, Topology, VfIdentity, VfRouting, Width,
};
use warmbus_pcie_sim::{Fabric, FunctionModel, MILLISECOND, SrIovModel, devices, topologies};
use warmbus_pcsc::ConfigCache;

use crate::common::{captured, captured_with_gaps};

pub(crate) const POWER_MANAGEMENT: u8 = 0x01;
pub(crate) const MSI_X: u8 = 0x11;
pub(crate) const EXPRESS: u8 = 0x10;
pub(crate) const SR_IOV: u16 = 0x10;
pub(crate) const RESIZABLE_BAR: u16 = 0x15;

/// A register of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Register {
    pub(crate) function: Sbdf,
    pub(crate) offset: u16,
    pub(crate) width: Width,
}

/// A register of `function` by its offset from the start of its space.
pub(crate) const fn at(function: Sbdf, offset: u16, width: Width) -> Register {
    Register {
        function,
        offset,
        width,
    }
}

/// Vendor and Device ID.
pub(crate) const fn ids(function: Sbdf) -> Register {
    at(function, 0, Width::Dword)
}

/// Revision ID and Class Code.
pub(crate) const fn class(function: Sbdf) -> Register {
    at(function, 8, Width::Dword)
}

/// Command.
pub(crate) const fn command(function: Sbdf) -> Register {
    at(function, 4, Width::Word)
}

/// The first base address register.
pub(crate) const fn bar0(function: Sbdf) -> Register {
    at(function, 0x10, Width::Dword)
}

pub(crate) struct Twin {
    pub(crate) cached: ConfigCache<Fabric>,
    pub(crate) bare: Fabric,
    pub(crate) topology: Topology,
}

impl Twin {
    /// Two copies of `fabric`, after one has been captured.
    pub(crate) fn new(mut fabric: Fabric) -> Self {
        // The two make different numbers of accesses, which time must not show.
        fabric.set_access_time(0);
        Self::of(captured(fabric))
    }

    /// The same for a machine in which not everything gets an address.
    pub(crate) fn new_with_gaps(fabric: Fabric) -> Self {
        Self::of(captured_with_gaps(fabric))
    }

    fn of((cached, topology): (ConfigCache<Fabric>, Topology)) -> Self {
        let bare = cached.access().clone();
        Self {
            cached,
            bare,
            topology,
        }
    }

    /// The address of the function of this name.
    pub(crate) fn place(&self, name: &str) -> Sbdf {
        let node = self.bare.find(name).expect("a function has that name");
        let reachable = self.bare.reachable();
        let found = reachable.iter().find(|(_, found)| **found == node);
        *found.expect("the function can be reached").0
    }

    /// A register of the capability `id` of `function`.
    pub(crate) fn standard(&self, function: Sbdf, id: u8, offset: u16, width: Width) -> Register {
        let block = self.cached.block(function).expect("the function is known");
        let start = block.capability(id).expect("it has the capability");
        at(function, start + offset, width)
    }

    /// A register of the extended capability `id` of `function`.
    pub(crate) fn extended(&self, function: Sbdf, id: u16, offset: u16, width: Width) -> Register {
        let block = self.cached.block(function).expect("the function is known");
        let start = block
            .extended_capability(id)
            .expect("it has the capability");
        at(function, start + offset, width)
    }

    /// Reads a register of both, and returns what the two must have in common.
    pub(crate) fn read(&mut self, register: Register) -> u32 {
        let offset = ConfigOffset::wrapping(register.offset);
        let served = self.cached.read(register.function, offset, register.width);
        let real = self.bare.read(register.function, offset, register.width);
        assert_eq!(served, real, "{register:x?}: served and real");
        real
    }

    pub(crate) fn write(&mut self, register: Register, value: u32) {
        let offset = ConfigOffset::wrapping(register.offset);
        let before = self.count_cached();
        let invalidations = self.cached.statistics().invalidations;
        self.cached
            .write(register.function, offset, register.width, value);
        let counted = self.cached.statistics().invalidations - invalidations;
        let after = self.count_cached();
        // First VF Offset and VF Stride can be known at once.
        assert!(
            [before, before + 4].contains(&(after + counted)),
            "{register:x?}: of {before} cached bytes {counted} were dropped, and there are {after}"
        );
        self.bare
            .write(register.function, offset, register.width, value);
    }

    /// Sets bits of a register, as software does.
    pub(crate) fn set(&mut self, register: Register, bits: u32) {
        let value = self.read(register);
        self.write(register, value | bits);
    }

    /// Clears bits of a register, as software does.
    pub(crate) fn clear(&mut self, register: Register, bits: u32) {
        let value = self.read(register);
        self.write(register, value & !bits);
    }

    /// Lets time pass; the two have one clock.
    pub(crate) fn wait(&self, milliseconds: u64) {
        self.bare.clock().advance(milliseconds * MILLISECOND);
    }

    /// Something that happens to the hardware of both.
    pub(crate) fn hardware(&mut self, change: impl Fn(&mut Fabric)) {
        change(self.cached.access_mut());
        change(&mut self.bare);
    }

    /// What a register of the hardware holds, without an access to it.
    fn real(&self, register: Register) -> u32 {
        let offset = ConfigOffset::wrapping(register.offset);
        let mut copy = self.bare.clone();
        copy.read(register.function, offset, register.width)
    }

    /// Whether all bytes of a register are cached.
    pub(crate) fn is_cached(&self, register: Register) -> bool {
        let block = self.cached.block(register.function);
        let mut bytes = register.offset..register.offset + register.width.bytes();
        block.is_some_and(|block| bytes.all(|byte| block.is_cached(ConfigOffset::wrapping(byte))))
    }

    /// Reads a register, which must not need the hardware.
    pub(crate) fn assert_served(&mut self, register: Register) {
        let hits = self.cached.statistics().hits;
        self.read(register);
        let served = self.cached.statistics().hits - hits;
        assert_eq!(served, 1, "{register:x?} is not served");
    }

    /// Runs `event`, which must change each of the registers `changed` in
    /// hardware, and must leave each of `kept` in the cache.
    pub(crate) fn event(
        &mut self,
        changed: &[Register],
        kept: &[Register],
        event: impl FnOnce(&mut Self),
    ) {
        let mut before = Vec::new();
        for &register in changed.iter().chain(kept) {
            before.push(self.read(register));
            // Or nothing could be stale.
            self.assert_served(register);
        }
        event(self);
        for &register in kept {
            self.assert_served(register);
        }
        for (&register, before) in changed.iter().zip(before) {
            let after = self.real(register);
            assert_ne!(after, before, "{register:x?} does not change");
            self.read(register);
        }
        self.assert_transparent();
    }

    fn count_cached(&self) -> u64 {
        let blocks = self.cached.blocks();
        blocks
            .map(|(_, block)| u64::from(block.cached_bytes()))
            .sum()
    }

    /// All bytes that are cached, by function.
    pub(crate) fn cached_bytes(&self) -> BTreeSet<(Sbdf, u16)> {
        let mut all = BTreeSet::new();
        for (function, block) in self.cached.blocks() {
            let bytes = 0..block.size();
            let cached = bytes.filter(|&byte| block.is_cached(ConfigOffset::wrapping(byte)));
            all.extend(cached.map(|byte| (function, byte)));
        }
        all
    }

    /// Compares everything that the cache would serve with the bare machine.
    pub(crate) fn assert_transparent(&mut self) {
        for (function, byte) in self.cached_bytes() {
            self.read(at(function, byte, Width::Byte));
        }
    }

    /// Enables `count` VFs of `physical` and adds them to the cache, as
    /// firmware does. Returns where they are.
    pub(crate) fn enable_vfs(&mut self, physical: Sbdf, count: u16) -> Vec<Sbdf> {
        let control = self.extended(physical, SR_IOV, 8, Width::Word);
        let num_vfs = self.extended(physical, SR_IOV, 0x10, Width::Word);
        let routing = self.extended(physical, SR_IOV, 0x14, Width::Dword);
        self.write(num_vfs, count.into());
        let value = self.read(routing);
        self.set(control, 1);
        self.wait(100);
        let routing = VfRouting {
            num_vfs: count,
            offset: value as u16,
            stride: (value >> 16) as u16,
        };
        (1..=count)
            .map(|number| {
                let function = routing.address(physical, number);
                let identity = VfIdentity {
                    physical,
                    number,
                    routing,
                };
                let probe = self.cached.probe_vf(function, identity);
                assert!(matches!(probe, Probe::Present { .. }), "{probe:?}");
                let anomalies = self.cached.infer(function).expect("the VF is there");
                assert_eq!(anomalies, []);
                self.cached.capture(function);
                function
            })
            .collect()
    }
}

/// `port` with `endpoint` below, called so, beside another port with an `NVMe`
/// controller, called "other".
pub(crate) fn machine(port: FunctionModel, endpoint: FunctionModel) -> Twin {
    let (mut fabric, host) = topologies::empty();
    let port = fabric.add_root(host, 1, 0, port.named("port").link_up());
    fabric.add_below(port, 0, 0, endpoint.named("endpoint"));
    let other = fabric.add_root(host, 2, 0, devices::root_port(2).link_up());
    fabric.add_below(other, 0, 0, devices::nvme().named("other"));
    Twin::new(fabric)
}

/// [`machine`] with the usual port.
pub(crate) fn below_port(endpoint: FunctionModel) -> Twin {
    machine(devices::root_port(1), endpoint)
}

/// VFs whose places depend on ARI as well as on their number.
pub(crate) fn sixteen_vfs() -> SrIovModel {
    SrIovModel {
        total_vfs: 16,
        layout: |num_vfs, ari| match (ari, num_vfs) {
            (true, _) => (num_vfs, 1),
            (false, 0..5) => (1, 1),
            (false, _) => (0x100, 2),
        },
        ..SrIovModel::default()
    }
}

/// A VF with memory decoding and an interrupt of its own.
pub(crate) fn virtual_function() -> FunctionModel {
    FunctionModel::virtual_function(0x01_0802)
}
