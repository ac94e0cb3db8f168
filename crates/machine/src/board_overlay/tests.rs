//! Trees with an overlay, as the reader of machines and the device tree
//! compiler read them.

extern crate std;

use std::process::{Command, Stdio};
use std::string::String;
use std::vec::Vec;
use std::{format, io::Write};

use super::*;
use crate::{ConsoleKind, Machine};
use warmbus_fdt::RawTree;
use warmbus_memory::PhysAddr;

/// The bytes that dtc makes of a source.
fn compiled(source: &str) -> Vec<u8> {
    dtc(&["-I", "dts", "-O", "dtb"], source.as_bytes())
}

/// The source that dtc makes of a tree, without white space.
fn decompiled(tree: &[u8]) -> String {
    let text = dtc(&["-I", "dtb", "-O", "dts"], tree);
    let text = String::from_utf8(text).unwrap();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn dtc(options: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("dtc")
        .arg("-q")
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the device tree compiler is installed");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// The tree that QEMU 7.2 makes for `sbsa-ref`, with a command line.
fn sbsa(bootargs: &str) -> Vec<u8> {
    compiled(&format!(
        "/dts-v1/; / {{ #size-cells = <2>; #address-cells = <2>; compatible = \"linux,sbsa-ref\";
         chosen {{ bootargs = \"{bootargs}\"; }};
         memory@10000000000 {{ reg = <0x100 0 0 0x40000000>; device_type = \"memory\"; }};
         cpus {{ #size-cells = <0>; #address-cells = <2>; cpu@0 {{ reg = <0 0>; }}; }}; }};"
    ))
}

#[test]
fn a_tree_without_host_bridge_and_console_gets_those_of_its_board() {
    let tree = sbsa("");
    assert_eq!(Machine::from_device_tree(&tree).unwrap().hosts, []);
    let completed = FdtWithBoardOverlay::new(&tree);
    assert_eq!(completed.board.map(|board| board.id), Some("qemu-sbsa-ref"));
    assert_eq!(completed.warnings, Vec::<String>::new());
    let machine = Machine::from_device_tree(&completed.tree.unwrap()).unwrap();
    assert_eq!(machine.warnings, Vec::<String>::new());
    assert_eq!(machine.cpus, 1);
    let [host] = &machine.hosts[..] else {
        panic!("{:?}", machine.hosts);
    };
    assert_eq!(host.ecam_base, PhysAddr(0xf000_0000));
    let windows: Vec<_> = host
        .windows
        .iter()
        .map(|window| window.cpu_address.0)
        .collect();
    assert_eq!(windows, [0x7fff_0000, 0x8000_0000, 0x1_0000_0000]);
    let console = machine.early_devices.console.unwrap();
    assert_eq!(
        (console.kind, console.base),
        (ConsoleKind::Pl011, PhysAddr(0x6000_0000))
    );
}

#[test]
fn adding_an_overlay_twice_changes_nothing() {
    let once = FdtWithBoardOverlay::new(&sbsa("")).tree.unwrap();
    let twice = FdtWithBoardOverlay::new(&once);
    assert_eq!(twice.warnings, Vec::<String>::new());
    assert_eq!(decompiled(&twice.tree.unwrap()), decompiled(&once));
}

#[test]
fn a_tree_that_says_everything_and_one_of_no_board_stay_as_they_are() {
    let virt = include_bytes!("../../../../tests/fixtures/device-trees/qemu-virt.dtb");
    let completed = FdtWithBoardOverlay::new(virt);
    assert_eq!(completed.board.map(|board| board.id), Some("qemu-virt"));
    assert_eq!((completed.tree, completed.warnings.len()), (None, 0));

    let unknown = compiled("/dts-v1/; / { compatible = \"nobody,knows\", \"linux\"; };");
    for tree in [&unknown[..], b"", b"no tree"] {
        assert_eq!(
            FdtWithBoardOverlay::new(tree),
            FdtWithBoardOverlay::default()
        );
    }
}

#[test]
fn what_the_tree_has_stays_and_what_it_lacks_is_added() {
    let tree = compiled(
        "/dts-v1/; /memreserve/ 0x1000 0x2000; / { a = <1>; soc { x = \"theirs\"; u@1 { reg = <1>; }; }; other { }; };",
    );
    let additions = compiled(
        "/dts-v1/; / { a = <2>; b = [01 02 03]; soc { x = \"ours\"; y = \"ours\"; u@1 { reg = <9>; z; }; u@2 { in { w = <7>; }; }; }; n { }; };",
    );
    assert_eq!(
        decompiled(&apply_overlay(&tree, &additions).unwrap()),
        "/dts-v1/; /memreserve/ 0x0000000000001000 0x0000000000002000; / { a = <0x01>; b = [01 02 03]; \
         soc { x = \"theirs\"; y = \"ours\"; u@1 { reg = <0x01>; z; }; u@2 { in { w = <0x07>; }; }; }; \
         other { }; n { }; };"
    );
}

#[test]
fn a_label_means_the_node_of_the_tree_where_that_has_a_phandle() {
    let additions = compiled(
        "/dts-v1/; / { p { gic = <0xfff00000 5 0xfff00001>; }; gic { phandle = <0xfff00000>; }; clk { phandle = <0xfff00001>; }; };",
    );
    let tree = compiled("/dts-v1/; / { gic { phandle = <3>; }; };");
    let text = decompiled(&apply_overlay(&tree, &additions).unwrap());
    assert!(text.contains("gic = <0x03 0x05 0xfff00001>;"), "{text}");
    assert!(text.contains("gic { phandle = <0x03>; };"), "{text}");
    assert!(text.contains("clk { phandle = <0xfff00001>; };"), "{text}");

    let taken = compiled("/dts-v1/; / { other { phandle = <0xfff00001>; }; };");
    assert_eq!(
        apply_overlay(&taken, &additions),
        Err(OverlayError::Phandle {
            phandle: 0xfff0_0001
        })
    );
}

#[test]
fn a_damaged_tree_is_an_error_and_never_more() {
    let whole = sbsa("quiet");
    for end in 0..whole.len() {
        let _ = FdtWithBoardOverlay::new(&whole[..end]);
    }
    for at in 0..whole.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] = value;
            let completed = FdtWithBoardOverlay::new(&damaged);
            if let Some(tree) = completed.tree {
                assert!(RawTree::new(&tree).is_ok(), "byte {at} is {value}");
            }
        }
    }
}
