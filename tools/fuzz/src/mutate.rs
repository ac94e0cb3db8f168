//! Mutations of inputs that are known: what can be done without a fuzzer.

/// An endless series of numbers.
#[derive(Clone, Debug)]
pub struct Series(u64);

impl Series {
    /// The series number `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number (`SplitMix64`).
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 where that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.number() as usize % end.max(1)
    }
}

/// Numbers at which something ends, in both byte orders.
const EDGES: [u32; 8] = [0, 1, 4, 0x40, 0xff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];

/// Changes `bytes` in one to eight places, now and then with a piece of `other`.
pub fn mutate(bytes: &mut Vec<u8>, other: &[u8], series: &mut Series) {
    for _ in 0..=series.below(8) {
        let at = series.below(bytes.len());
        let length = 1 + series.below(32);
        match series.below(8) {
            0 | 1 => flip(bytes, at, 1 << series.below(8)),
            2 | 3 => flip(bytes, at, series.number() as u8),
            4 => {
                let edge = EDGES[series.below(EDGES.len())];
                let edge = if series.below(2) == 0 {
                    edge.to_be_bytes()
                } else {
                    edge.to_le_bytes()
                };
                bytes
                    .iter_mut()
                    .skip(at & !3)
                    .zip(edge)
                    .for_each(|(byte, new)| *byte = new);
            }
            5 => drop(bytes.drain(at..(at + length).min(bytes.len()))),
            6 => {
                let from = series.below(other.len());
                let piece = other[from..].iter().take(length).copied();
                drop(bytes.splice(at..at, piece));
            }
            _ => {
                let from = series.below(other.len());
                let piece = other[from..].iter().take(length);
                bytes
                    .iter_mut()
                    .skip(at)
                    .zip(piece)
                    .for_each(|(byte, new)| *byte = *new);
            }
        }
    }
}

fn flip(bytes: &mut [u8], at: usize, bits: u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= bits;
    }
}
