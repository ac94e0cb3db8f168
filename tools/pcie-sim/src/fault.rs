//! Hardware that does not do what it should.

/// A lasting departure of a function from the routing rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quirk {
    /// The function answers on every device number, wherever it is.
    EveryDevice,
    /// The function answers on every function number of its device, as PCI
    /// allows single-function devices to (PCI 3.0, 3.2.2.3.4).
    EveryFunction,
    /// A downstream port that hands on every device number although ARI
    /// forwarding is off.
    ForwardsEveryDevice,
    /// A bridge that passes on extended register numbers by dropping their
    /// upper bits, so that 256 bytes repeat up to 4096.
    RepeatsLowSpace,
}

impl Quirk {
    pub(crate) const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// When and where reads of a function go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The function answers `accesses` accesses and then never again.
    Vanishes {
        /// Accesses that still complete.
        accesses: u32,
    },
    /// The function is gone from this moment on.
    VanishesAt {
        /// Nanoseconds since power-on.
        time: u64,
    },
    /// Reads that start in this range never complete: all ones.
    Hole {
        /// First offset.
        from: u16,
        /// Offset after the last.
        to: u16,
    },
    /// Accesses that start in this range end in a fault of the machine.
    Aborts {
        /// First offset.
        from: u16,
        /// Offset after the last.
        to: u16,
    },
    /// Every read in this range returns something else.
    Noise {
        /// First offset.
        from: u16,
        /// Offset after the last.
        to: u16,
        /// Where the sequence starts.
        seed: u64,
    },
}

/// What a fault makes of one access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Gone,
    Abort,
    Value(u32),
}

/// One step of the `SplitMix64` sequence: a well-mixed number for every `state`.
pub(crate) fn mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Fault {
    /// What becomes of the access number `count` (from 1), at `offset`.
    pub(crate) fn strikes(&mut self, count: u32, now: u64, offset: u16) -> Option<Failure> {
        match self {
            Self::Vanishes { accesses } => (count > *accesses).then_some(Failure::Gone),
            Self::VanishesAt { time } => (now >= *time).then_some(Failure::Gone),
            Self::Hole { from, to } => (*from..*to).contains(&offset).then_some(Failure::Gone),
            Self::Aborts { from, to } => (*from..*to).contains(&offset).then_some(Failure::Abort),
            Self::Noise { from, to, seed } => (*from..*to)
                .contains(&offset)
                .then(|| Failure::Value(mix(seed) as u32)),
        }
    }
}
