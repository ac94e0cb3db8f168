//! The bus numbers of a bridge and the one rule by which they are valid.

use core::fmt;

use thiserror::Error;

/// Primary, Secondary and Subordinate Bus Number of a bridge
/// (PCIe 7.5.1.3.2 to 7.5.1.3.4).
///
/// Prints as the three numbers in hexadecimal, for example `00/01/05`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BusNumbers {
    /// Bus that the bridge is on. PCI Express does not use it
    /// (PCIe 7.5.1.3.2), and there are ports that hardwire it to 0.
    pub primary: u8,
    /// Bus directly below the bridge.
    pub secondary: u8,
    /// Highest bus below the bridge.
    pub subordinate: u8,
}

impl BusNumbers {
    /// The numbers in the dword at offset 0x18 of a bridge; its highest byte is
    /// Secondary Latency Timer.
    #[must_use]
    pub const fn from_dword(dword: u32) -> Self {
        let [primary, secondary, subordinate, _] = dword.to_le_bytes();
        Self {
            primary,
            secondary,
            subordinate,
        }
    }

    /// The dword that assigns these numbers, with a Secondary Latency Timer of
    /// 0.
    #[must_use]
    pub const fn to_dword(self) -> u32 {
        u32::from_le_bytes([self.primary, self.secondary, self.subordinate, 0])
    }

    /// Whether the bridge has no bus below it, as after a reset.
    #[must_use]
    pub const fn is_unassigned(self) -> bool {
        self.secondary == 0 && self.subordinate == 0
    }

    /// Checks whether a bridge on `bus`, below which no bus is beyond `last`,
    /// can have these numbers.
    ///
    /// A Primary Bus Number of 0 is accepted on every bus, as Linux accepts it
    /// ("Primary bus is hard wired to 0"); one that is neither 0 nor `bus` is
    /// not, since Linux assigns other numbers to such a bridge.
    ///
    /// # Errors
    ///
    /// Returns the numbers and the bounds where the numbers are not valid.
    pub const fn validate(self, bus: u8, last: u8) -> Result<(), BusNumbersError> {
        let is_primary = self.primary == bus || self.primary == 0;
        let is_valid = is_primary
            && self.secondary > bus
            && self.secondary <= self.subordinate
            && self.subordinate <= last;
        if is_valid {
            Ok(())
        } else {
            Err(BusNumbersError {
                found: self,
                bus,
                last,
            })
        }
    }
}

impl fmt::Display for BusNumbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:02x}/{:02x}/{:02x}",
            self.primary, self.secondary, self.subordinate
        )
    }
}

/// Bus numbers that a bridge at its place cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "bus numbers primary {:02x}, secondary {:02x}, subordinate {:02x} do not fit between bus {bus:02x} and {last:02x}",
    .found.primary, .found.secondary, .found.subordinate
)]
#[non_exhaustive]
pub struct BusNumbersError {
    /// The numbers.
    pub found: BusNumbers,
    /// The bus that the bridge is on.
    pub bus: u8,
    /// The last bus that can be below the bridge.
    pub last: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(primary: u8, secondary: u8, subordinate: u8) -> BusNumbers {
        BusNumbers {
            primary,
            secondary,
            subordinate,
        }
    }

    #[test]
    fn numbers_are_valid_within_the_bounds_and_with_either_primary_number() {
        for primary in [0, 3] {
            for (secondary, subordinate) in [(4, 4), (4, 9), (9, 9)] {
                let found = numbers(primary, secondary, subordinate);
                assert_eq!(found.validate(3, 9), Ok(()), "{found}");
            }
        }
    }

    #[test]
    fn each_bound_is_checked_on_its_own() {
        let invalid = [
            (2, 4, 9),
            (4, 4, 9),
            (3, 3, 9),
            (3, 2, 9),
            (3, 0, 0),
            (3, 5, 4),
            (3, 4, 10),
            (0, 3, 9),
            (0, 4, 10),
        ];
        for (primary, secondary, subordinate) in invalid {
            let found = numbers(primary, secondary, subordinate);
            let error = BusNumbersError {
                found,
                bus: 3,
                last: 9,
            };
            assert_eq!(found.validate(3, 9), Err(error), "{found}");
        }
    }

    #[test]
    fn the_dword_round_trips_without_the_latency_timer() {
        let found = BusNumbers::from_dword(0xff05_0401);
        assert_eq!(found, numbers(1, 4, 5));
        assert_eq!(found.to_dword(), 0x0005_0401);
    }
}
