//! What was handed over, read by `docs/pcsc-format.md`, with the tools of the
//! device tree compiler.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
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
        let marked = |at: &usize| self.cached[at / 8] & 1 << (at % 8) != 0;
        (0..4096).filter(marked).map(|at| (at, self.data[at]))
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
