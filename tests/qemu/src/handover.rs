//! What was handed over, read by `docs/pcsc-format.md`, with the tools of the
//! device tree compiler.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use warmbus_cli::trace::{Access, Kind};
use xtask::process;

/// Bytes of a data block.
pub const BLOCK: u64 = 8192;

/// The `pcsc` subtree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subtree {
    /// Function, by address, and the physical address of its data block.
    pub blocks: Vec<(String, u64)>,
}

impl Subtree {
    /// Reads the tree in `file`.
    pub fn read(file: &Path) -> Result<Self> {
        let get = |options: &[&str], words: &[String]| {
            let mut command = Command::new("fdtget");
            command.args(options).arg(file).args(words);
            process::output(&mut command)
        };
        let compatible = get(&[], &["/".into(), "compatible".into()])?;
        ensure!(compatible.trim() == "pcsc-v1", "compatible is {compatible}");
        let listed = get(&["-l"], &["/".into()])?;
        let nodes: Vec<_> = listed.lines().collect();
        let words: Vec<_> = nodes
            .iter()
            .flat_map(|node| [format!("/{node}"), "da".into()])
            .collect();
        let values = get(&["-t", "bx"], &words)?;
        ensure!(values.lines().count() == nodes.len(), "not one da a node");
        let blocks = nodes.iter().zip(values.lines()).map(|(node, bytes)| {
            let parts: Vec<_> = node.split('_').collect();
            let ["dev", segment, bus, device, function] = parts[..] else {
                anyhow::bail!("the node {node} is no function");
            };
            let bytes = bytes.split_whitespace();
            let bytes: Vec<_> = bytes
                .map(|byte| u8::from_str_radix(byte, 16))
                .collect::<Result<_, _>>()?;
            let address = bytes.try_into().ok().context("da is not 8 bytes")?;
            Ok((
                format!("{segment}:{bus}:{device}.{function}"),
                u64::from_le_bytes(address),
            ))
        });
        Ok(Self {
            blocks: blocks.collect::<Result<_>>()?,
        })
    }
}

/// The data block of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Configuration space.
    data: Vec<u8>,
    cached: Vec<u8>,
}

impl Block {
    /// Takes the bytes of a block apart. Fails if its checksum does not hold.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        ensure!(bytes.len() as u64 == BLOCK, "{} bytes", bytes.len());
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| bytes[at + byte]));
        ensure!(bytes[5120..5124] == *b"WBBX", "no header");
        let end = 5120 + word(5128) as usize;
        ensure!(end <= bytes.len(), "the extension is too long");
        ensure!(
            checksum(&bytes[..end], 5132) == word(5132),
            "the checksum of a block does not hold"
        );
        Ok(Self {
            data: bytes[..4096].to_vec(),
            cached: bytes[4608..5120].to_vec(),
        })
    }

    /// The cached bytes: offset and value.
    pub fn cached(&self) -> impl Iterator<Item = (usize, u8)> + '_ {
        (0..4096)
            .filter(|at| self.has(*at))
            .map(|at| (at, self.data[at]))
    }

    fn has(&self, at: usize) -> bool {
        at < 4096 && self.cached[at / 8] & 1 << (at % 8) != 0
    }

    fn forget(&mut self, at: usize) {
        if let Some(bits) = self.cached.get_mut(at / 8) {
            *bits &= !(1 << (at % 8));
        }
    }
}

/// What a consumer would have made of the accesses of Linux: it serves reads
/// from the cache, and forgets the bytes that are written.
#[derive(Debug)]
pub struct Replay {
    /// The blocks as they are at the end.
    pub blocks: BTreeMap<String, Block>,
    /// Reads of functions that are there.
    pub reads: u64,
    /// Of these, those that would have been served.
    pub served: u64,
    /// Served bytes that hardware answered otherwise.
    pub differences: Vec<String>,
}

impl Replay {
    /// Lets the cache in `blocks` see `accesses`.
    #[must_use]
    pub fn new(blocks: &BTreeMap<String, Block>, accesses: &[Access]) -> Self {
        let mut replay = Self {
            blocks: blocks.clone(),
            reads: 0,
            served: 0,
            differences: Vec::new(),
        };
        for access in accesses {
            replay.see(access);
        }
        replay
    }

    fn see(&mut self, access: &Access) {
        let (device, function) = (access.devfn >> 3, access.devfn & 7);
        let name = format!("0000:{:02x}:{device:02x}.{function}", access.bus);
        let Some(block) = self.blocks.get_mut(&name) else {
            return;
        };
        let at = usize::from(access.offset);
        let bytes = at..at + usize::from(access.size);
        match access.kind {
            Kind::Write => bytes.for_each(|at| block.forget(at)),
            Kind::Read => {
                self.reads += 1;
                if !bytes.clone().all(|at| block.has(at)) {
                    return;
                }
                self.served += 1;
                let read = access.value.to_le_bytes();
                let cached = &block.data[bytes];
                if *cached != read[..cached.len()] {
                    let read = &read[..cached.len()];
                    self.differences.push(format!(
                        "{name} {at:#x}: cached {cached:x?}, read {read:x?}"
                    ));
                }
            }
        }
    }
}

/// CRC-32 (IEEE 802.3), bit by bit, with the four bytes at `zeros` as zeros.
fn checksum(bytes: &[u8], zeros: usize) -> u32 {
    let mut crc = u32::MAX;
    for (at, byte) in bytes.iter().enumerate() {
        if !(zeros..zeros + 4).contains(&at) {
            crc ^= u32::from(*byte);
        }
        for _ in 0..8 {
            crc = crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}
