//! Programs BARs, windows and decode enables with the assigned addresses.

use super::Kind;
use super::probe::{FIRST_VF_INDEX, ProbedResources, ROM_INDEX};
use crate::decode::rom_register;
use crate::registers::{
    BAR0, COMMAND, IO_BASE, MEMORY_BASE, PREFETCHABLE_BASE, PREFETCHABLE_BASE_UPPER,
    PREFETCHABLE_LIMIT_UPPER, command, extended, sr_iov,
};
use crate::{
    AnomalyKind, BarKind, ConfigOffset, ConfigSpace, Function, PciRange, Sbdf, Topology, Width,
};

/// Records the windows of one space in the bridges they belong to.
pub(super) fn set_windows<'a>(
    topology: &mut Topology,
    bridges: &[usize],
    kind: Kind,
    windows: impl Iterator<Item = &'a Option<PciRange>>,
) {
    for (&index, window) in bridges.iter().zip(windows) {
        let Some(bridge) = &mut topology.functions[index].bridge else {
            continue;
        };
        match kind {
            Kind::Io => bridge.io = *window,
            Kind::Memory => bridge.memory = *window,
            Kind::Prefetchable => bridge.prefetchable = *window,
        }
    }
}

/// Programs the addresses of one function, then enables decoding of the spaces
/// in which all its BARs have one.
pub(super) fn write<S: ConfigSpace>(
    function: &mut Function,
    probed: &ProbedResources,
    config: &mut S,
) {
    let mut out = Writer {
        config,
        function: function.sbdf,
    };
    for bar in function.bars.iter().filter(|bar| !bar.fixed) {
        let Some(register) = out.register(function.header_type, bar.index) else {
            continue;
        };
        let address = bar.address.unwrap_or(0);
        // With the type as it was read: there are devices whose type bits
        // can be written.
        let type_bits = probed.type_bits[usize::from(bar.index)];
        out.write(
            register,
            Width::Dword,
            address as u32 | u32::from(type_bits),
        );
        if matches!(bar.kind, BarKind::Memory64 | BarKind::VfMemory64) {
            out.write(register + 4, Width::Dword, (address >> 32) as u32);
        }
    }
    if function.bridge.is_some() {
        out.windows(function, probed);
    }
    let enabled = enabled_spaces(function);
    if enabled != 0 {
        let control = out
            .config
            .read(out.function, ConfigOffset::wrapping(COMMAND), Width::Word);
        out.write(COMMAND, Width::Word, control | u32::from(enabled));
    }
}

/// The spaces that a function may decode: those in which it has something and
/// in which nothing of it is without an address. VF BARs decode by a bit of
/// their own, and a ROM by one in its register.
fn enabled_spaces(function: &Function) -> u16 {
    let mut enabled = 0;
    let mut blocked = 0;
    for bar in &function.bars {
        let space = match bar.kind {
            BarKind::Io => command::IO,
            BarKind::Memory32 | BarKind::Memory64 => command::MEMORY,
            BarKind::Rom | BarKind::VfMemory32 | BarKind::VfMemory64 => continue,
        };
        if bar.address.is_some() {
            enabled |= space;
        } else {
            blocked |= space;
        }
    }
    if let Some(bridge) = &function.bridge {
        if bridge.io.is_some() {
            enabled |= command::IO;
        }
        if bridge.memory.is_some() || bridge.prefetchable.is_some() {
            enabled |= command::MEMORY;
        }
    }
    enabled & !blocked
}

struct Writer<'a, S> {
    config: &'a mut S,
    function: Sbdf,
}

impl<S: ConfigSpace> Writer<'_, S> {
    fn read(&mut self, offset: u16) -> u32 {
        self.config
            .read(self.function, ConfigOffset::wrapping(offset), Width::Dword)
    }

    fn write(&mut self, offset: u16, width: Width, value: u32) {
        self.config
            .write(self.function, ConfigOffset::wrapping(offset), width, value);
    }

    /// Offset of the register of a BAR by its resource index.
    fn register(&self, header_type: u8, index: u8) -> Option<u16> {
        match index {
            0..ROM_INDEX => Some(BAR0 + 4 * u16::from(index)),
            ROM_INDEX => rom_register(header_type),
            _ => {
                let base = self
                    .config
                    .extended_capability(self.function, extended::SR_IOV)?;
                Some(base + sr_iov::VF_BAR0 + 4 * u16::from(index - FIRST_VF_INDEX))
            }
        }
    }

    /// Writes the windows of a bridge and reads back those that may be
    /// hardwired; the read is the one that fills the cache.
    fn windows(&mut self, function: &mut Function, probed: &ProbedResources) {
        let Some(bridge) = function.bridge else {
            return;
        };
        if let Some(io) = bridge.io {
            let value = (io.base() >> 8 & 0xf0) | (io.limit() & 0xf000);
            self.write(IO_BASE, Width::Word, value as u32);
        }
        let memory = window_value(bridge.memory);
        self.write(MEMORY_BASE, Width::Dword, memory);
        let found = self.read(MEMORY_BASE);
        if found & 0xfff0_fff0 != memory {
            function.anomalies.push(AnomalyKind::MemoryWindowHardwired {
                wrote: memory,
                read: found,
            });
        }
        if !(probed.prefetchable_64 || probed.prefetchable_32) {
            return;
        }
        if probed.prefetchable_64 {
            let (base, limit) = match bridge.prefetchable {
                Some(window) => ((window.base() >> 32) as u32, (window.limit() >> 32) as u32),
                None => (0, 0),
            };
            self.write(PREFETCHABLE_BASE_UPPER, Width::Dword, base);
            self.write(PREFETCHABLE_LIMIT_UPPER, Width::Dword, limit);
            let found = (
                self.read(PREFETCHABLE_BASE_UPPER),
                self.read(PREFETCHABLE_LIMIT_UPPER),
            );
            if found != (base, limit) {
                let kind = AnomalyKind::PrefetchableUpperHardwired {
                    wrote: (base, limit),
                    read: found,
                };
                function.anomalies.push(kind);
            }
        }
        if bridge.prefetchable.is_some() {
            let value = window_value(bridge.prefetchable);
            self.write(PREFETCHABLE_BASE, Width::Dword, value);
        }
    }
}

/// Base and limit of a memory window as its register holds them; closed where
/// there is none.
fn window_value(window: Option<PciRange>) -> u32 {
    match window {
        Some(window) => {
            (window.base() >> 16 & 0xfff0) as u32 | (window.limit() & 0xfff0_0000) as u32
        }
        None => 0x0000_fff0,
    }
}
