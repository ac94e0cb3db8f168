//! Accesses to configuration space, as QEMU traces them.
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
//! where `addr` is the offset in the window and `size` is in bytes. With time
//! stamps enabled in QEMU, `<process>@<seconds>.<microseconds>:` precedes it.
//!
//! The PL011 UART of the machine is in the same trace. The console output
//! separates the accesses of the firmware from those of Linux.

use std::collections::BTreeMap;
use std::time::Duration;

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
    /// Bus, relative to the first bus of the window.
    pub bus: u8,
    /// Device number in bits 7:3 and function number in bits 2:0.
    pub devfn: u8,
    /// Byte offset in the function's configuration space, 0 to 4095.
    pub offset: u16,
    /// Width in bytes: 1, 2 or 4; 8 for an access that is not valid in
    /// configuration space.
    pub size: u8,
    /// The value that was read or written.
    pub value: u64,
}

/// The name of the ECAM window, as it ends a line of the trace.
const REGION: &str = "name 'pcie-mmcfg-mmio'";
/// The name of the console UART, as it ends a line of the trace.
const CONSOLE: &str = "name 'pl011'";

/// Whether `line` is a line of the memory region trace, of any region.
#[must_use]
pub fn is_trace(line: &str) -> bool {
    line.contains("memory_region_ops_")
}

impl Access {
    /// Whether this is a read of the Vendor ID of an absent function.
    #[must_use]
    pub fn is_absent_probe(&self) -> bool {
        self.reads_vendor_id() && self.value & 0xffff == 0xffff
    }

    /// Whether this is a read of the Vendor ID of a function that is present.
    #[must_use]
    pub fn finds_function(&self) -> bool {
        self.reads_vendor_id() && self.value & 0xffff != 0xffff
    }

    fn reads_vendor_id(&self) -> bool {
        self.kind == Kind::Read && self.offset == 0 && self.size >= 2
    }

    /// Decodes one line of the trace; `None` for any other line and for any
    /// other region.
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

/// The byte that `line` writes to the data register of the console UART;
/// `None` for any other line.
#[must_use]
pub fn console_byte(line: &str) -> Option<u8> {
    let line = line.trim_end().strip_suffix(CONSOLE)?;
    let (_, line) = line.split_once("memory_region_ops_write ")?;
    let mut words = line.split(' ');
    let mut after = |name| {
        words.by_ref().find(|word| *word == name)?;
        u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()
    };
    // The address is that of the bus, and the registers take 4 KiB.
    let (register, value) = (after("addr")? & 0xfff, after("value")?);
    (register == 0).then_some(value as u8)
}

/// The time stamp of `line`, as time since 1970; `None` without one.
#[must_use]
pub fn time(line: &str) -> Option<Duration> {
    let (_, rest) = line.split_once('@')?;
    let (time, _) = rest.split_once(":memory_region_ops_")?;
    let (seconds, microseconds) = time.split_once('.')?;
    let microseconds: u64 = microseconds.parse().ok()?;
    Some(Duration::from_secs(seconds.parse().ok()?) + Duration::from_micros(microseconds))
}

/// A number of accesses.
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
    fn the_vendor_id_read_shows_whether_a_function_is_present() {
        let read = |value, offset, size| Access {
            kind: Kind::Read,
            bus: 1,
            devfn: 0,
            offset,
            size,
            value,
        };
        for (access, found, absent) in [
            (read(0xffff_ffff, 0, 4), false, true),
            (read(0xffff, 0, 2), false, true),
            (read(0x8_1b36, 0, 4), true, false),
            (read(0xffff, 4, 2), false, false),
            (read(0xff, 0, 1), false, false),
        ] {
            assert_eq!(
                (access.finds_function(), access.is_absent_probe()),
                (found, absent),
                "{access:?}"
            );
        }
    }

    #[test]
    fn console_output_is_read_from_the_trace() {
        let line = "7@1795631581.000085:memory_region_ops_write cpu 0 mr 0x1 addr 0x9000000 value 0x42 size 1 name 'pl011'";
        assert_eq!(console_byte(line), Some(b'B'));
        assert_eq!(time(line), Some(Duration::new(1_795_631_581, 85_000)));
        for other in [
            line.replace("9000000", "9000030"),
            line.replace("_write", "_read"),
            line.replace("pl011", "pl031"),
        ] {
            assert_eq!(console_byte(&other), None, "{other}");
        }
        assert_eq!(time(RECORDED.lines().next().unwrap()), None);
    }

    #[test]
    fn a_time_stamp_is_accepted_and_an_incomplete_line_is_ignored() {
        let line = "4242@1700000000.5:memory_region_ops_write cpu 0 mr 0x1 addr 0x4 value 0x6 size 2 name 'pcie-mmcfg-mmio'";
        assert_eq!(Access::parse(line).map(|access| access.value), Some(6));
        for end in 0..line.len() {
            assert_eq!(Access::parse(&line[..end]), None, "{end}");
        }
    }
}
