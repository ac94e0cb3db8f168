//! QEMU's own count of accesses to configuration space.
//!
//! With the trace events `memory_region_ops_read` and `memory_region_ops_write`
//! QEMU writes a line for every access to a device's memory region. The ECAM
//! window of a `virt` machine is the region `pcie-mmcfg-mmio`; accesses to
//! functions that do not exist are in it as well. A line reads
//!
//! ```text
//! memory_region_ops_read cpu 0 mr 0x5578f7cdc000 addr 0xe value 0x0 size 1 name 'pcie-mmcfg-mmio'
//! ```
//!
//! where `addr` is the offset in the window and `size` is in bytes.

use std::collections::BTreeMap;

/// Whether an access reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A load.
    Read,
    /// A store.
    Write,
}

/// One access to the ECAM window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Read or write.
    pub kind: Kind,
    /// Bus, counted from the first bus of the window.
    pub bus: u8,
    /// Device number in bits 7:3 and function number in bits 2:0.
    pub devfn: u8,
    /// Byte offset in the function's configuration space, 0 to 4095.
    pub offset: u16,
    /// Width in bytes: 1, 2 or 4; 8 for an access that no device expects.
    pub size: u8,
    /// What was read or written.
    pub value: u64,
}

/// The name of the ECAM window among QEMU's memory regions, as it ends a
/// line of the trace.
const REGION: &str = "name 'pcie-mmcfg-mmio'";

/// Whether `line` is a line of the memory region trace, of any region.
#[must_use]
pub fn is_trace(line: &str) -> bool {
    line.contains("memory_region_ops_")
}

/// The byte that a line of the trace says was sent through the first serial
/// port; `None` if the line is of anything else.
#[must_use]
pub fn sent_byte(line: &str) -> Option<u8> {
    let line = line.trim_end().strip_suffix("name 'pl011'")?;
    let (_, fields) = line.split_once("memory_region_ops_write ")?;
    // The data register is the first one.
    let (_, value) = fields.split_once(" addr 0x0 value 0x")?;
    let value = value.split(' ').next()?;
    Some(u64::from_str_radix(value, 16).ok()? as u8)
}

impl Access {
    /// Decodes one line of the trace; `None` if it is of another region or
    /// no line of the trace.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let line = line.trim_end().strip_suffix(REGION)?;
        let event = line.find("memory_region_ops_")?;
        let mut words = line[event..].split_whitespace();
        let kind = match words.next()? {
            "memory_region_ops_read" => Kind::Read,
            "memory_region_ops_write" => Kind::Write,
            _ => return None,
        };
        let fields: BTreeMap<&str, &str> =
            std::iter::from_fn(|| words.next().zip(words.next())).collect();
        let hex = |name| u64::from_str_radix(fields.get(name)?.strip_prefix("0x")?, 16).ok();
        let address = hex("addr")?;
        Some(Self {
            kind,
            bus: u8::try_from(address >> 20).ok()?,
            devfn: (address >> 12) as u8,
            offset: (address & 0xfff) as u16,
            size: fields.get("size")?.parse().ok()?,
            value: hex("value")?,
        })
    }
}

/// How many accesses there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads, those of absent functions included.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
}

impl Counts {
    /// Reads and writes.
    #[must_use]
    pub fn total(self) -> u64 {
        self.reads + self.writes
    }
}

/// Counts `accesses` by kind.
#[must_use]
pub fn counts(accesses: &[Access]) -> Counts {
    let reads = accesses
        .iter()
        .filter(|access| access.kind == Kind::Read)
        .count();
    Counts {
        reads: reads as u64,
        writes: (accesses.len() - reads) as u64,
    }
}

/// The value that was last written to the dword at `offset` of a function,
/// if the last write to any byte of it was a whole one.
#[must_use]
pub fn last_written(accesses: &[Access], bus: u8, devfn: u8, offset: u16) -> Option<u64> {
    accesses
        .iter()
        .rev()
        .find(|access| {
            access.kind == Kind::Write
                && (access.bus, access.devfn) == (bus, devfn)
                && access.offset & !3 == offset
        })
        .filter(|access| access.size == 4)
        .map(|access| access.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines as QEMU 7.2 wrote them while U-Boot enumerated.
    const RECORDED: &str = "\
memory_region_ops_read cpu 0 mr 0x5578f7b093b0 addr 0x0 value 0x890089 size 1 name 'virt.flash0'
memory_region_ops_read cpu 0 mr 0x5578f7cdc000 addr 0xe value 0x0 size 1 name 'pcie-mmcfg-mmio'
memory_region_ops_read cpu 0 mr 0x5578f7cdc000 addr 0x1f9100 value 0xffffffff size 4 name 'pcie-mmcfg-mmio'
memory_region_ops_write cpu 0 mr 0x5578f7cdc000 addr 0x8018 value 0x10100 size 4 name 'pcie-mmcfg-mmio'
qemu-system-aarch64: warning: nic e1000.0 has no peer
";

    fn recorded() -> Vec<Access> {
        RECORDED.lines().filter_map(Access::parse).collect()
    }

    #[test]
    fn an_ecam_address_is_split_into_bus_function_and_offset() {
        assert_eq!(
            recorded(),
            [
                Access {
                    kind: Kind::Read,
                    bus: 0,
                    devfn: 0,
                    offset: 0xe,
                    size: 1,
                    value: 0
                },
                Access {
                    kind: Kind::Read,
                    bus: 1,
                    devfn: 0x1f << 3 | 1,
                    offset: 0x100,
                    size: 4,
                    value: 0xffff_ffff,
                },
                Access {
                    kind: Kind::Write,
                    bus: 0,
                    devfn: 1 << 3,
                    offset: 0x18,
                    size: 4,
                    value: 0x10100,
                },
            ]
        );
    }

    #[test]
    fn only_accesses_to_the_ecam_window_are_counted() {
        assert_eq!(
            counts(&recorded()),
            Counts {
                reads: 2,
                writes: 1
            }
        );
        assert_eq!(counts(&recorded()).total(), 3);
    }

    #[test]
    fn the_last_write_to_a_dword_is_found() {
        assert_eq!(last_written(&recorded(), 0, 8, 0x18), Some(0x10100));
        assert_eq!(last_written(&recorded(), 0, 8, 0x1c), None);
        assert_eq!(
            last_written(&recorded(), 0, 0, 0x0c),
            None,
            "a read is not a write"
        );
    }

    #[test]
    fn what_the_serial_port_sends_is_read_byte_by_byte() {
        let line = |what, address, name| {
            format!(
                "memory_region_ops_{what} cpu 0 mr 0x1 addr {address} value 0x57 size 4 name '{name}'"
            )
        };
        assert_eq!(sent_byte(&line("write", "0x0", "pl011")), Some(b'W'));
        for other in [
            line("read", "0x0", "pl011"),
            line("write", "0x18", "pl011"),
            line("write", "0x0", "pcie-mmcfg-mmio"),
        ] {
            assert_eq!(sent_byte(&other), None);
        }
    }

    #[test]
    fn a_time_stamp_before_the_event_does_no_harm_and_half_a_line_is_dropped() {
        let line = "4242@1700000000.5:memory_region_ops_write cpu 0 mr 0x1 addr 0x4 value 0x6 size 2 name 'pcie-mmcfg-mmio'";
        assert_eq!(Access::parse(line).map(|access| access.value), Some(6));
        for end in 0..line.len() {
            assert_eq!(Access::parse(&line[..end]), None, "{end}");
        }
    }
}
