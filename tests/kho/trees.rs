//! The trees of a handover, decoded by the device tree compiler.

use warmbus_kho::KhoAbi;
use warmbus_memory::PageSize;

use crate::common::{functions, hand_over};
use crate::reader::{node, tree_bytes};

#[test]
fn numbers_are_little_endian_in_the_handover_and_big_endian_in_the_boot_tree() {
    use warmbus_linux::chosen::{Chosen, ChosenHandover, edit};
    let functions = functions(1);
    let (memory, handover) = hand_over(&functions, KhoAbi::V4, PageSize::K4, 0x1_2000_0000);
    let window = memory.get(handover.kho.root.start, 4096).unwrap();
    let (properties, _) = node(tree_bytes(window).unwrap(), &["pcsc"]).unwrap();
    let subtree = handover.subtree().start.0;
    assert_eq!(properties["preserved-data"], subtree.to_le_bytes());

    let boot = dtc("/dts-v1/; / { #address-cells = <2>; #size-cells = <1>; };");
    let chosen = Chosen {
        handover: Some(ChosenHandover {
            root: handover.kho.root,
            scratch: handover.kho.scratch,
        }),
        ..Chosen::default()
    };
    let boot = edit(&boot, &chosen).unwrap();
    let (properties, _) = node(&boot, &["chosen"]).unwrap();
    let mut cells = handover.kho.root.start.0.to_be_bytes().to_vec();
    cells.extend(0x1000_u32.to_be_bytes());
    assert_eq!(properties["linux,kho-fdt"], cells);
}

fn dtc(source: &str) -> Vec<u8> {
    warmbus_tests::dtc(&["-I", "dts", "-O", "dtb"], source.as_bytes())
}

fn decompile(tree: &[u8]) -> String {
    // dtc 1.7 prints the strings of a list apart, older ones as one with zeros.
    let text = String::from_utf8(warmbus_tests::dtc(&["-I", "dtb", "-O", "dts"], tree)).unwrap();
    text.replace("\\0", "\", \"")
}

#[test]
fn dtc_decodes_both_trees_to_what_the_format_says() {
    let functions = functions(2);
    let (memory, handover) = hand_over(&functions, KhoAbi::V3, PageSize::K4, 0x4000_0000);
    let root = memory.get(handover.kho.root.start, 4096).unwrap();
    // dtc takes the bytes for big-endian cells: 0x40004000 reads as 0x400040.
    let cells = |number: u64| {
        let swapped = number.swap_bytes();
        format!("<{:#04x} {:#04x}>", swapped >> 32, swapped & 0xffff_ffff)
    };
    let text = decompile(tree_bytes(root).unwrap());
    let expect = [
        "compatible = \"kho-v3\", \"kho-v4\";".to_string(),
        "pcsc {".to_string(),
        format!("preserved-data = {};", cells(handover.subtree().start.0)),
        format!("blob-size = {};", cells(handover.subtree().size)),
        "kexec-metadata {".to_string(),
        format!("blob-size = {};", cells(73)),
    ];
    for line in expect {
        assert!(text.contains(&line), "no '{line}' in\n{text}");
    }

    let tree = memory
        .get(handover.subtree().start, handover.subtree().size as usize)
        .unwrap();
    let text = decompile(tree);
    let expect = [
        "compatible = \"pcsc-v1\";".to_string(),
        "pv = <0x1000000>;".to_string(),
        "warmbus,version = <0x1000000>;".to_string(),
        format!("warmbus,index = {};", cells(handover.index.start.0)),
        "dev_0000_00_00_0 {".to_string(),
        "dev_0000_00_00_7 {".to_string(),
    ];
    for line in expect {
        assert!(text.contains(&line), "no '{line}' in\n{text}");
    }
}
