//! Trees that are damaged, by hand and at random.

use super::*;
use warmbus_fdt::FdtError;

#[test]
fn what_is_no_device_tree_is_refused_with_the_numbers() {
    let error = |tree: &[u8]| Machine::from_device_tree(tree).unwrap_err().to_string();
    let size = QEMU.len();
    assert_eq!(
        error(&[]),
        "there is no device tree: 0 bytes are fewer than the 40 of a header"
    );
    assert_eq!(
        error(&QEMU[..39]),
        "there is no device tree: 39 bytes are fewer than the 40 of a header"
    );
    assert_eq!(
        error(&with_header(QEMU, 0, 0x1234)),
        "there is no device tree: it starts with 0x00001234 instead of 0xd00dfeed"
    );
    assert_eq!(
        error(&QEMU[..size - 1]),
        format!(
            "the device tree is cut off: it announces {size} bytes and {} are there",
            size - 1
        )
    );
    assert_eq!(
        error(&with_header(QEMU, 5, 16)),
        "the device tree is of version 16, compatible with 16; version 17 is understood"
    );
    assert_eq!(
        error(&with_header(QEMU, 2, 0xffff_fffc)),
        format!(
            "the structure block of the device tree ({} bytes at 0xfffffffc) is not inside its {size} bytes",
            u32::from_be_bytes(QEMU[36..40].try_into().unwrap())
        )
    );
    assert!(error(&with_header(QEMU, 8, u32::MAX)).starts_with("the strings block"));
    assert!(error(&with_header(QEMU, 9, 4)).starts_with("the structure block"));
    let no_memory = replaced(QEMU, b"memory\0", b"memori\0");
    assert_eq!(error(&no_memory), "the machine description names no memory");
}

#[test]
fn a_damaged_tree_still_gives_the_console_that_comes_before_the_damage() {
    // An invalid token in place of the end of the root node.
    let at = u32::from_be_bytes(QEMU[8..12].try_into().unwrap()) as usize
        + u32::from_be_bytes(QEMU[36..40].try_into().unwrap()) as usize
        - 8;
    let mut tree = QEMU.to_vec();
    tree[at..at + 4].copy_from_slice(&0xbad_u32.to_be_bytes());
    let error = Machine::from_device_tree(&tree).unwrap_err();
    assert!(
        matches!(error, MachineError::Tree(FdtError::Structure { .. })),
        "{error}"
    );
    assert_eq!(
        EarlyDevices::from_device_tree(&tree),
        EarlyDevices::from_device_tree(QEMU)
    );
}

#[test]
fn nodes_that_are_nested_too_deeply_are_refused() {
    // What QEMU made, with 5000 nested nodes in front of the end of the root.
    let field = |index: usize| {
        u32::from_be_bytes(QEMU[4 * index..4 * index + 4].try_into().unwrap()) as usize
    };
    let end = field(2) + field(9) - 8;
    let mut tree = QEMU[..end].to_vec();
    tree.extend([0, 0, 0, 1, b'n', 0, 0, 0].repeat(5000));
    tree.extend([0, 0, 0, 2].repeat(5000));
    tree.extend_from_slice(&QEMU[end..]);
    let added = 12 * 5000;
    for index in [1, 3, 9] {
        tree = with_header(&tree, index, (field(index) + added) as u32);
    }
    let error = Machine::from_device_tree(&tree).unwrap_err();
    assert!(
        matches!(error, MachineError::Tree(FdtError::TooDeep { .. })),
        "{error}"
    );
}

#[test]
fn a_tree_with_absurdly_many_reservations_is_refused_and_not_worked_through() {
    // The reservation block moves to the end, where it can be long.
    let mut tree = with_header(SOC, 4, SOC.len() as u32);
    for index in 1..2000_u64 {
        tree.extend((index << 16).to_be_bytes());
        tree.extend(1_u64.to_be_bytes());
    }
    tree.extend([0; 16]);
    let tree = with_header(&tree, 1, tree.len() as u32);
    assert_eq!(
        Machine::from_device_tree(&tree).unwrap_err().to_string(),
        "the device tree has more than 1024 memory reservations"
    );
}

#[test]
fn no_mutation_of_a_tree_makes_the_reader_panic_or_break_its_promises() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |limit: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % limit as u64) as usize
    };
    let mut readable = 0;
    for round in 0..24_000 {
        let mut tree = [QEMU, QEMU_LOW, SOC, BAD_BRIDGES][round % 4].to_vec();
        for _ in 0..=random(4) {
            let at = random(tree.len());
            let word = at & !3;
            match random(7) {
                0 => tree[at] ^= 1 << random(8),
                1 => tree[at] = random(256) as u8,
                2 if word + 4 <= tree.len() => {
                    let cell = [0, 1, 2, 3, 4, 9, 0x7fff_ffff, u32::MAX, tree.len() as u32];
                    let cell = cell[random(cell.len())];
                    tree[word..word + 4].copy_from_slice(&cell.to_be_bytes());
                }
                3 => {
                    let (from, length) = (random(tree.len()), random(64));
                    for index in 0..length.min(tree.len() - at).min(tree.len() - from) {
                        tree[at + index] = tree[from + index];
                    }
                }
                4 => tree[at % 40] = random(256) as u8,
                5 => tree.truncate(at.max(1)),
                _ => tree[at] = 0,
            }
        }
        let Ok(machine) = Machine::from_device_tree(&tree) else {
            continue;
        };
        readable += 1;
        assert!(!machine.memory.is_empty());
        for pair in machine.memory.windows(2) {
            assert!(pair[0].last().0 < pair[1].start.0, "{machine:?}");
        }
        for host in &machine.hosts {
            let buses = u64::from(host.buses.last - host.buses.first) + 1;
            assert!(host.ecam_size >= buses << 20, "{host:?}");
            assert!(host.ecam_base.0.checked_add(host.ecam_size - 1).is_some());
            for window in &host.windows {
                assert!(window.pci_address.checked_add(window.size - 1).is_some());
                assert!(window.cpu_address.0.checked_add(window.size - 1).is_some());
            }
        }
    }
    // Most mutations hit something small; if nothing is readable the test
    // says nothing.
    assert!((4_000..24_000).contains(&readable), "{readable}");
}
