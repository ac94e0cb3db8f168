//! Newtypes for the numbers that PCI code mixes up most easily.

use core::fmt;
use core::str::FromStr;

use thiserror::Error;

/// Address of one function: segment, bus, device and function number.
///
/// Prints as `lspci -D` does, for example `0000:01:00.0`. Ordering is by
/// segment, bus, device, function.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sbdf {
    segment: u16,
    bus: u8,
    devfn: u8,
}

impl Sbdf {
    /// The function `device.function` on `bus` of `segment`.
    ///
    /// For numbers that are known to be valid, as in constants;
    /// [`Self::try_new`] is for all others.
    ///
    /// ```
    /// use warmbus_pci::Sbdf;
    ///
    /// const NVME: Sbdf = Sbdf::new(0, 1, 0, 0);
    /// assert_eq!(NVME.to_string(), "0000:01:00.0");
    /// ```
    ///
    /// # Panics
    ///
    /// If `device` is beyond 31 or `function` beyond 7; in a constant that is
    /// an error of the compiler.
    #[must_use]
    pub const fn new(segment: u16, bus: u8, device: u8, function: u8) -> Self {
        assert!(device < 32, "there are 32 devices on a bus");
        assert!(function < 8, "there are 8 functions in a device");
        Self::from_devfn(segment, bus, device << 3 | function)
    }

    /// The function `device.function` on `bus` of `segment`; `None` where
    /// `device` is beyond 31 or `function` beyond 7.
    #[must_use]
    pub const fn try_new(segment: u16, bus: u8, device: u8, function: u8) -> Option<Self> {
        if device < 32 && function < 8 {
            Some(Self::from_devfn(segment, bus, device << 3 | function))
        } else {
            None
        }
    }

    /// The function with the 8-bit device and function number `devfn`, which
    /// below an ARI port is one 8-bit function number (PCIe 2.2.4.2).
    #[must_use]
    pub const fn from_devfn(segment: u16, bus: u8, devfn: u8) -> Self {
        Self {
            segment,
            bus,
            devfn,
        }
    }

    /// The function whose 16-bit routing ID (bus and devfn) is `rid`.
    #[must_use]
    pub const fn from_routing_id(segment: u16, rid: u16) -> Self {
        Self::from_devfn(segment, (rid >> 8) as u8, rid as u8)
    }

    /// Segment group, 0 to 65535; Linux calls it the PCI domain.
    #[must_use]
    pub const fn segment(self) -> u16 {
        self.segment
    }

    /// Bus number, 0 to 255.
    #[must_use]
    pub const fn bus(self) -> u8 {
        self.bus
    }

    /// Device number, 0 to 31.
    #[must_use]
    pub const fn device(self) -> u8 {
        self.devfn >> 3
    }

    /// Function number, 0 to 7.
    #[must_use]
    pub const fn function(self) -> u8 {
        self.devfn & 7
    }

    /// Device and function number in one byte.
    #[must_use]
    pub const fn devfn(self) -> u8 {
        self.devfn
    }

    /// Segment, bus, device and function in one number, which orders as
    /// addresses do.
    #[must_use]
    pub(crate) const fn number(self) -> u32 {
        (self.segment as u32) << 16 | self.routing_id() as u32
    }

    /// Bus, device and function as the 16-bit routing ID of a TLP.
    #[must_use]
    pub const fn routing_id(self) -> u16 {
        (self.bus as u16) << 8 | self.devfn as u16
    }
}

impl fmt::Display for Sbdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:04x}:{:02x}:{:02x}.{:x}",
            self.segment,
            self.bus,
            self.device(),
            self.function()
        )
    }
}

impl fmt::Debug for Sbdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not the address of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not an address of the form 0000:01:00.0")]
#[non_exhaustive]
pub struct ParseSbdfError;

impl FromStr for Sbdf {
    type Err = ParseSbdfError;

    /// Reads `0000:01:00.0`, or `01:00.0` for a function of segment 0.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = |text: &str, digits: usize, last: u16| {
            Some(text)
                .filter(|text| text.len() == digits)
                .filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))
                .and_then(|text| u16::from_str_radix(text, 16).ok())
                .filter(|value| *value <= last)
                .ok_or(ParseSbdfError)
        };
        let (rest, function) = text.rsplit_once('.').ok_or(ParseSbdfError)?;
        let (rest, device) = rest.rsplit_once(':').ok_or(ParseSbdfError)?;
        let (segment, bus) = rest.rsplit_once(':').unwrap_or(("0000", rest));
        Ok(Self::new(
            hex(segment, 4, 0xffff)?,
            hex(bus, 2, 0xff)? as u8,
            hex(device, 2, 31)? as u8,
            hex(function, 1, 7)? as u8,
        ))
    }
}

/// Offset of a byte in the 4096-byte configuration space of a function.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigOffset(u16);

impl ConfigOffset {
    /// Bytes of configuration space that every function has (PCIe 7.2.1).
    pub const CONVENTIONAL_END: u16 = 0x100;
    /// Bytes of configuration space that a function can have at most.
    pub const END: u16 = 0x1000;

    /// The offset `offset`; `None` beyond the 4096 bytes of configuration
    /// space.
    #[must_use]
    pub const fn new(offset: u16) -> Option<Self> {
        if offset < Self::END {
            Some(Self(offset))
        } else {
            None
        }
    }

    /// The offset `offset` modulo the 4096 bytes of configuration space, as
    /// ECAM decodes it: an offset that follows from what a device reports never
    /// leads outside.
    #[must_use]
    pub const fn wrapping(offset: u16) -> Self {
        Self(offset % Self::END)
    }

    /// The offset as a number, 0 to 4095.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The offset as an index, 0 to 4095.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The offset of the aligned dword that holds this byte.
    #[must_use]
    pub const fn dword(self) -> Self {
        Self(self.0 & !3)
    }

    /// The offset `bytes` further on, modulo the 4096 bytes of configuration
    /// space.
    #[must_use]
    pub const fn wrapping_add(self, bytes: u16) -> Self {
        Self::wrapping(self.0.wrapping_add(bytes))
    }
}

impl fmt::Display for ConfigOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03x}", self.0)
    }
}

impl fmt::Debug for ConfigOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Sbdf {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Sbdf {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = alloc::string::String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn an_address_prints_as_lspci_prints_it() {
        assert_eq!(format!("{}", Sbdf::new(0, 1, 0, 0)), "0000:01:00.0");
        assert_eq!(
            format!("{}", Sbdf::new(0xabcd, 0xff, 31, 7)),
            "abcd:ff:1f.7"
        );
    }

    #[test]
    fn an_address_is_read_back_from_what_it_prints() {
        for sbdf in [Sbdf::new(0, 0, 0, 0), Sbdf::new(0xabcd, 0xff, 31, 7)] {
            assert_eq!(format!("{sbdf}").parse(), Ok(sbdf));
        }
        assert_eq!("1f:02.3".parse(), Ok(Sbdf::new(0, 0x1f, 2, 3)));
        for text in [
            "",
            "0000:00:20.0",
            "0000:00:00.8",
            "0:00:00.0",
            "10000:00:00.0",
            "00:+1.0",
            "00:00.00",
        ] {
            assert_eq!(text.parse::<Sbdf>(), Err(ParseSbdfError), "{text}");
        }
    }

    #[test]
    fn only_valid_device_and_function_numbers_make_an_address() {
        assert_eq!(Sbdf::try_new(0, 1, 31, 7), Some(Sbdf::new(0, 1, 31, 7)));
        assert_eq!(Sbdf::try_new(0, 1, 32, 0), None);
        assert_eq!(Sbdf::try_new(0, 1, 0, 8), None);
    }

    #[test]
    fn a_routing_id_round_trips_and_orders_by_bus_first() {
        let vf = Sbdf::from_routing_id(2, 0x1_07f_u32 as u16);
        assert_eq!(vf, Sbdf::from_devfn(2, 0x10, 0x7f));
        assert_eq!(vf.routing_id(), 0x107f);
        assert!(Sbdf::new(0, 1, 0, 0) > Sbdf::new(0, 0, 31, 7));
    }

    #[test]
    fn an_offset_never_leaves_configuration_space() {
        assert_eq!(ConfigOffset::wrapping(0x1004).get(), 4);
        assert_eq!(ConfigOffset::wrapping(0xfff).wrapping_add(1).get(), 0);
        assert_eq!(ConfigOffset::new(0x1000), None);
        assert_eq!(ConfigOffset::new(0xfff), Some(ConfigOffset(0xfff)));
        assert_eq!(ConfigOffset::wrapping(0x3f).dword().get(), 0x3c);
    }
}
