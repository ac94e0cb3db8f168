//! The pages of the boards say what they have to, and nothing that is not so.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use warmbus_machine::Machine;
use warmbus_pci::HostBridge;

/// Boards that QEMU is, on which the tests run.
const EMULATED: [&str; 2] = ["qemu-sbsa-ref", "qemu-virt"];

/// The boards that this project has pages for.
const BOARDS: [&str; 10] = [
    "ampere-altra",
    "arm-fvp-base-revc",
    "arm-juno-r1",
    "honeycomb-lx2160a",
    "macchiatobin",
    "qemu-sbsa-ref",
    "qemu-virt",
    "raspberrypi-4b",
    "rk3588",
    "socionext-developerbox",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn page(board: &str) -> PathBuf {
    root().join("boards").join(board).join("README.md")
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_board_has_a_page_and_every_page_is_of_a_board() {
    let folders = fs::read_dir(root().join("boards")).unwrap();
    let folders = folders.map(|entry| entry.unwrap().path());
    let names = folders.filter(|path| path.is_dir());
    let names = names.map(|path| path.file_name().unwrap().to_string_lossy().into_owned());
    let names: BTreeSet<String> = names.collect();
    assert_eq!(names, BOARDS.map(String::from).into());
    for board in BOARDS {
        assert!(text(&page(board)).starts_with("# "), "{board}");
    }
}

#[test]
fn pages_of_boards_that_nobody_had_say_so_and_lead_to_what_they_share() {
    for board in BOARDS.iter().filter(|board| !EMULATED.contains(board)) {
        let text = text(&page(board));
        let (_, run) = text.split_once("\n## What was run\n").expect(board);
        assert!(run.trim().starts_with("Not run on hardware."), "{board}");
        for needed in [
            "(../../docs/boards.md)",
            "\n| console | ",
            "\n| parameters | ",
        ] {
            assert!(text.contains(needed), "{board}: {needed}");
        }
    }
}

/// Addresses in a text: hexadecimal numbers of five digits and more.
fn addresses(text: &str) -> BTreeSet<u64> {
    let numbers = text.split("0x").skip(1);
    let digits = numbers.map(|rest| {
        let end = rest.find(|letter: char| !letter.is_ascii_hexdigit());
        &rest[..end.unwrap_or(rest.len())]
    });
    let long = digits.filter(|digits| digits.len() > 4);
    long.map(|digits| u64::from_str_radix(digits, 16).unwrap())
        .collect()
}

#[test]
fn addresses_on_the_pages_are_those_of_the_trees_that_are_tested() {
    let trees = text(&root().join("tests/fixtures/device-trees/host-bridges.dts"));
    // An address of two cells is written as two.
    let cells: Vec<u64> = trees
        .split(|letter: char| !letter.is_ascii_alphanumeric())
        .filter_map(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok())
        .collect();
    let pairs = cells.windows(2).map(|pair| pair[0] << 32 | pair[1]);
    // Where a bus translates, its children are elsewhere.
    let tree = fs::read(root().join("tests/fixtures/device-trees/host-bridges.dtb")).unwrap();
    let machine = Machine::from_device_tree(&tree).unwrap();
    let regions = machine.hosts.iter().flat_map(HostBridge::regions);
    let regions = regions.map(|range| range.start.0);
    let known: BTreeSet<u64> = pairs.chain(cells.iter().copied()).chain(regions).collect();
    let mut checked = 0;
    for board in BOARDS {
        let text = text(&page(board));
        if !text.contains("host-bridges.dts") {
            continue;
        }
        for address in addresses(&text) {
            assert!(known.contains(&address), "{board}: {address:#x}");
            checked += 1;
        }
        let quoted = text.split('`').skip(1).step_by(2);
        let names = quoted.filter(|word| word.contains("-pcie") && word.contains(','));
        for name in names {
            assert!(trees.contains(&format!("\"{name}\"")), "{board}: {name}");
            checked += 1;
        }
    }
    assert!(checked >= 10, "{checked}");
}
