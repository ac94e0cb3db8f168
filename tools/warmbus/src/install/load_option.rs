//! `EFI_LOAD_OPTION` (UEFI 2.10, 3.1.3) and the two nodes of a device path in it
//! that name a file on a partition (10.3.5.1, 10.3.5.4).

use anyhow::{Context, Result, ensure};

const ACTIVE: u32 = 1;
/// Type and sub-type of device path nodes.
const HARD_DRIVE: [u8; 2] = [4, 1];
const FILE_PATH: [u8; 2] = [4, 4];
const END: [u8; 4] = [0x7f, 0xff, 4, 0];

/// A program on a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    /// The node of the partition, with its header.
    pub(super) partition: Vec<u8>,
    /// The path on it, with backslashes.
    pub(super) path: String,
}

/// The program that the load option `bytes` starts; `None` where it starts
/// something else than a file on a partition.
///
/// # Errors
///
/// If it is cut.
pub(super) fn program(bytes: &[u8]) -> Result<Option<Program>> {
    let cut = || format!("a load option of {} bytes is cut", bytes.len());
    let length = bytes.get(4..6).with_context(cut)?;
    let length = usize::from(u16::from_le_bytes([length[0], length[1]]));
    let text = bytes.get(6..).with_context(cut)?;
    let description = text.chunks_exact(2).position(|unit| unit == [0, 0]);
    let start = 6 + 2 * (description.with_context(cut)? + 1);
    let mut path = bytes.get(start..start + length).with_context(cut)?;
    let (mut partition, mut file) = (None, None);
    while path.len() >= 4 && path[..2] != END[..2] {
        let size = usize::from(u16::from_le_bytes([path[2], path[3]]));
        ensure!(
            size >= 4 && size <= path.len(),
            "a node of a device path has {size} of {} bytes",
            path.len()
        );
        let (node, rest) = path.split_at(size);
        match [node[0], node[1]] {
            HARD_DRIVE => partition = Some(node.to_vec()),
            FILE_PATH => file = Some(utf16(&node[4..])),
            _ => {}
        }
        path = rest;
    }
    Ok(partition
        .zip(file)
        .map(|(partition, path)| Program { partition, path }))
}

fn utf16(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2);
    let units = units.map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    String::from_utf16_lossy(&units)
}

fn utf16_bytes(text: &str) -> Vec<u8> {
    let units = text.encode_utf16().chain([0]);
    units.flat_map(u16::to_le_bytes).collect()
}

/// The load option `description` for `program`, with the words `options`.
pub(super) fn build(description: &str, program: &Program, options: &str) -> Vec<u8> {
    let file = utf16_bytes(&program.path);
    let mut path = program.partition.clone();
    path.extend(FILE_PATH);
    path.extend((4 + file.len() as u16).to_le_bytes());
    path.extend(file);
    path.extend(END);
    let mut bytes = ACTIVE.to_le_bytes().to_vec();
    bytes.extend((path.len() as u16).to_le_bytes());
    bytes.extend(utf16_bytes(description));
    bytes.extend(path);
    if !options.is_empty() {
        bytes.extend(utf16_bytes(options));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `efibootmgr -v` of Debian 12 shows as
    /// `HD(1,GPT,...)/File(\EFI\debian\shimaa64.efi)`.
    fn debian() -> Vec<u8> {
        let mut partition = vec![4, 1, 42, 0, 1, 0, 0, 0];
        partition.extend(0x800_u64.to_le_bytes());
        partition.extend(0x10_0000_u64.to_le_bytes());
        partition.extend([0x11; 16]);
        partition.extend([2, 2]);
        let program = Program {
            partition,
            path: r"\EFI\debian\shimaa64.efi".into(),
        };
        build("debian", &program, "")
    }

    #[test]
    fn a_program_is_read_back_with_its_partition() {
        let bytes = debian();
        let found = program(&bytes).unwrap().unwrap();
        assert_eq!(found.path, r"\EFI\debian\shimaa64.efi");
        assert_eq!(found.partition.len(), 42);
        assert_eq!(build("debian", &found, ""), bytes);
    }

    #[test]
    fn a_cut_option_is_an_error_and_other_paths_are_none() {
        let bytes = debian();
        for size in 0..bytes.len() {
            assert!(program(&bytes[..size]).is_err(), "{size}");
        }
        // A network card: one messaging node.
        let mut other = vec![1, 0, 0, 0, 8 + 4, 0, 0, 0];
        other.extend([3, 11, 8, 0, 0, 0, 0, 0]);
        other.extend(END);
        assert_eq!(program(&other).unwrap(), None);
        let mut bad = debian();
        let at = bad
            .windows(4)
            .position(|node| node == [4, 1, 42, 0])
            .unwrap();
        bad[at + 2] = 3;
        assert!(program(&bad).is_err());
    }
}
