//! The caching access layer.

use alloc::vec::Vec;

use super::function_cache::{FunctionCache, State};
use super::infer::infer;
use super::{Statistics, is_valid_id, read_ids};
use warmbus_pci::registers;
use warmbus_pci::{
    AccessFault, AnomalyKind, CapabilityLists, ConfigAccess, ConfigOffset, ConfigSpace,
    KnownRegisters, Probe, Sbdf, SbdfMap, VfIdentity, Width,
};

/// A cache in front of a [`ConfigAccess`].
///
/// It is transparent: reads and writes return and do what they would do
/// without it. A function is known from the first successful read of its
/// Vendor ID on; what of it is cached beyond the fixed part of the header is
/// decided by [`ConfigCache::infer`]. A write drops what it changes, or keeps it
/// where the writable bits of the register are known.
///
/// Everything takes `&mut self`, so that no fill can run beside a write.
#[derive(Debug)]
pub struct ConfigCache<A> {
    pub(super) access: A,
    pub(super) blocks: SbdfMap<FunctionCache>,
    pub(super) statistics: Statistics,
}

impl<A: ConfigAccess> ConfigCache<A> {
    /// An empty cache in front of `access`.
    pub fn new(access: A) -> Self {
        Self {
            access,
            blocks: SbdfMap::new(),
            statistics: Statistics::default(),
        }
    }

    /// What is behind the cache.
    pub fn access(&self) -> &A {
        &self.access
    }

    /// What is behind the cache. What is written there is not seen by it.
    pub fn access_mut(&mut self) -> &mut A {
        &mut self.access
    }

    /// What the cache did so far.
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// What is cached of `function`.
    pub fn block(&self, function: Sbdf) -> Option<&FunctionCache> {
        self.blocks.get(function)
    }

    /// All functions of which something is cached, by address.
    pub fn blocks(&self) -> impl Iterator<Item = (Sbdf, &FunctionCache)> {
        self.blocks.range(..)
    }

    /// The functions from `first` on, by address.
    pub fn blocks_from(&self, first: Sbdf) -> impl Iterator<Item = (Sbdf, &FunctionCache)> {
        self.blocks.range(first..)
    }

    /// Walks the capability lists of `function` and decides which of its
    /// bytes may be cached. What the walk reads is kept.
    ///
    /// Returns what is wrong with the lists, or `None` where the function is
    /// not known or stopped answering; it is forgotten then.
    pub fn infer(&mut self, function: Sbdf) -> Option<Vec<AnomalyKind>> {
        // A virtual function is of the vendor of its physical one.
        let known_as = self
            .blocks
            .get(function)?
            .virtual_function()
            .map_or(function, |vf| vf.physical);
        let vendor_id = self.blocks.get(known_as)?.word(registers::VENDOR_ID)?;
        let block = self.blocks.get_mut(function)?;
        let is_virtual = block.virtual_function().is_some();
        let found = infer(
            &mut self.access,
            function,
            vendor_id,
            is_virtual,
            |offset| block.dword(offset),
        );
        if found.vanished {
            self.evict(function);
            return None;
        }
        block.classify(&found.rule_map);
        block.set_lists(found.lists);
        for (offset, value) in found.seen {
            block.fill(ConfigOffset::wrapping(offset), Width::Dword, value);
        }
        Some(found.anomalies)
    }

    /// Reads a register of `function` that shows whether it is ready, unless
    /// it has responded since its last reset.
    pub(super) fn confirm_ready(&mut self, function: Sbdf) {
        let block = self.blocks.get(function);
        if block.is_some_and(|block| block.state == State::Reset) {
            // A virtual function has no IDs.
            let register = if self.is_virtual(function) {
                registers::REVISION
            } else {
                registers::VENDOR_ID
            };
            self.fill(function, ConfigOffset::wrapping(register), Width::Dword);
        }
    }

    /// Evicts `function`, which stopped responding. Functions on the same bus
    /// may be gone as well: each is served again after its own response.
    fn on_no_response(&mut self, function: Sbdf) {
        if self.blocks.get(function).is_some() {
            self.evict(function);
            self.require_response_on_bus(function);
        }
    }

    /// Caches nothing of `function`, of its virtual functions and of what is
    /// behind it until it was probed again: what was read of it is not
    /// reliable.
    pub fn exclude(&mut self, function: Sbdf) {
        self.evict(function);
    }

    /// Keeps what nothing but a reset or an exchange of a function can change,
    /// and drops all that software could write meanwhile, or that depends on
    /// such a register: what is handed over long before it is read stays true
    /// then, also where a driver uses the function in between. Of virtual
    /// functions nothing stays, which are others with another NumVFs.
    pub fn retain_constants(&mut self) {
        let blocks = self.blocks.range(..);
        let virtual_functions: Vec<Sbdf> = blocks
            .filter(|(_, block)| block.virtual_function.is_some())
            .map(|(function, _)| function)
            .collect();
        for function in virtual_functions {
            self.exclude(function);
        }
        for block in self.blocks.values_mut() {
            self.statistics.invalidations += block.drop_where(|rule| !rule.is_constant());
            block.routing = None;
        }
    }

    /// Evicts `function` and what no request reaches without it: its virtual
    /// functions, and every function behind a bridge.
    pub(super) fn evict(&mut self, function: Sbdf) {
        self.evict_vfs(function);
        if let Some(block) = self.blocks.remove(function) {
            self.statistics.invalidations += u64::from(block.cached_bytes());
            self.evict_below(function, block.buses_below());
        }
    }

    /// Reads from the hardware and keeps what may be kept.
    fn fill(&mut self, function: Sbdf, offset: ConfigOffset, width: Width) -> u32 {
        if width < self.access.narrowest_read(function) {
            // The hardware reads the whole dword anyway: keep all of it.
            let dword = self.fill(function, offset.dword(), Width::Dword);
            let lane = offset.get() & 3 & !(width.bytes() - 1);
            return dword >> (8 * lane) & width.ones();
        }
        let value = self.access.read(function, offset, width);
        let reads_ids = offset.get() == registers::VENDOR_ID && width != Width::Byte;
        if reads_ids && !self.is_virtual(function) {
            self.identify(function, width, value);
        }
        let Some(block) = self.blocks.get_mut(function) else {
            return value;
        };
        let is_virtual = block.virtual_function().is_some();
        if is_virtual && block.state == State::Reset && value != width.ones() {
            block.state = State::Ready;
        }
        if block.state != State::Ready {
            return value;
        }
        // Ones may be a register's value or no answer at all.
        if value == width.ones()
            && !block.is_pending_probe(offset)
            && !super::answers(&mut self.access, function, is_virtual)
        {
            self.on_no_response(function);
            return value;
        }
        block.fill(offset, width, value);
        value
    }

    /// Whether `function` is known as a virtual one, which has no IDs.
    fn is_virtual(&self, function: Sbdf) -> bool {
        let block = self.blocks.get(function);
        block.is_some_and(|block| block.virtual_function().is_some())
    }

    /// Follows what a read of the Vendor ID from hardware says.
    fn identify(&mut self, function: Sbdf, width: Width, value: u32) {
        let ids = match width {
            Width::Dword => value,
            // The Device ID is needed to know a function again.
            _ if is_valid_id(value) => read_ids(&mut self.access, function),
            _ => value,
        };
        if !is_valid_id(ids) {
            if Probe::from_ids(ids) != Probe::NotReady {
                self.on_no_response(function);
            }
            return;
        }
        let known = self
            .blocks
            .get(function)
            .and_then(|block| block.dword(registers::VENDOR_ID));
        if known.is_some_and(|known| known != ids) {
            self.evict(function);
        }
        let block = self.blocks.get_or_insert_with(function, FunctionCache::new);
        block.state = State::Ready;
        block.fill(
            ConfigOffset::wrapping(registers::VENDOR_ID),
            Width::Dword,
            ids,
        );
    }
}

impl<A: ConfigAccess> ConfigAccess for ConfigCache<A> {
    fn read(&mut self, function: Sbdf, offset: ConfigOffset, width: Width) -> u32 {
        let Some(block) = self.blocks.get(function) else {
            self.statistics.uncacheable += 1;
            return self.fill(function, offset, width);
        };
        if block.state == State::Ready {
            if let Some(value) = block.lookup(offset, width) {
                self.statistics.hits += 1;
                return value;
            }
            if block.is_all_cacheable(offset, width) {
                self.statistics.misses += 1;
                return self.fill(function, offset, width);
            }
        }
        self.statistics.uncacheable += 1;
        self.fill(function, offset, width)
    }

    fn write(&mut self, function: Sbdf, offset: ConfigOffset, width: Width, value: u32) {
        self.statistics.writes += 1;
        // Before the write, so that nothing stale can be read while it runs.
        self.apply_write(function, offset, width, value);
        self.access.write(function, offset, width, value);
    }

    fn narrowest_read(&self, function: Sbdf) -> Width {
        self.access.narrowest_read(function)
    }

    fn take_fault(&mut self) -> Option<AccessFault> {
        self.access.take_fault()
    }
}

impl<A: ConfigAccess> ConfigSpace for ConfigCache<A> {
    fn walk(&mut self, function: Sbdf) -> Option<Vec<AnomalyKind>> {
        self.infer(function)
    }

    fn lists(&self, function: Sbdf) -> Option<&CapabilityLists> {
        self.blocks.get(function).map(FunctionCache::lists)
    }

    fn read_hardware(&mut self, function: Sbdf, offset: ConfigOffset, width: Width) -> u32 {
        self.access.read(function, offset, width)
    }

    fn invalidate_register(&mut self, function: Sbdf, offset: u16) {
        if let Some(block) = self.blocks.get_mut(function) {
            block.clear_masks(offset, offset + 4);
            for byte in offset..offset + 4 {
                self.statistics.invalidations += u64::from(block.drop_byte(byte));
            }
        }
    }

    fn probe_vf(&mut self, function: Sbdf, identity: VfIdentity) -> Probe {
        self.add_vf(function, identity)
    }

    fn disable_vfs(&mut self, physical: Sbdf, vfs: &mut dyn Iterator<Item = Sbdf>) {
        self.keep_disabled(physical, vfs);
    }
}

impl<A> KnownRegisters for ConfigCache<A> {
    fn known(&self, function: Sbdf, offset: ConfigOffset, width: Width) -> Option<u32> {
        self.blocks.get(function)?.lookup(offset, width)
    }
}
