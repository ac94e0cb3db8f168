//! Boot trees whose command line names files.

extern crate std;

use std::process::{Command, Stdio};
use std::string::String;
use std::vec::Vec;
use std::{format, io::Write};

use super::*;
use warmbus_fdt::RawTree;
use warmbus_machine::board_overlay::Board;
use warmbus_machine::{Machine, ReservationKind};

/// [`super::complete`], with the payload that the tree names.
fn complete(tree: &[u8]) -> FdtWithBoardOverlay {
    super::complete(tree, Payload::find(tree).ok().as_ref())
}

/// The bytes that dtc makes of a source.
fn compiled(source: &str) -> Vec<u8> {
    dtc(&["-I", "dts", "-O", "dtb"], source.as_bytes())
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
fn modules_that_the_command_line_names_are_modules_of_the_tree() {
    let line = "warmbus.kernel=0x10010000000,0x200000 warmbus.initrd=0x10014000000,4096 quiet";
    let completed = complete(&sbsa(line));
    assert_eq!(completed.warnings, Vec::<String>::new());
    let tree = completed.tree.unwrap();
    let payload = Payload::find(&tree).unwrap();
    let place = |range: warmbus_memory::MemoryRange| (range.start.0, range.size);
    assert_eq!(
        place(payload.kernel.unwrap().range),
        (0x100_1000_0000, 0x20_0000)
    );
    assert_eq!(
        place(payload.ramdisk.unwrap().range),
        (0x100_1400_0000, 4096)
    );
    assert_eq!(payload.bootargs, Some(line.as_bytes()));
    // Nobody takes their memory.
    let machine = Machine::from_device_tree(&tree).unwrap();
    let mut kept: Vec<_> = machine
        .reservations
        .iter()
        .map(|kept| (kept.kind, kept.range.start.0))
        .collect();
    kept.sort_by_key(|kept| kept.1);
    let module = ReservationKind::Module;
    assert_eq!(kept, [(module, 0x100_1000_0000), (module, 0x100_1400_0000)]);
}

#[test]
fn a_module_of_the_tree_goes_before_one_of_the_command_line() {
    let tree = compiled(
        "/dts-v1/; / { #address-cells = <2>; #size-cells = <2>; chosen { bootargs = \"warmbus.kernel=0x1000,0x1000\";
         m { compatible = \"multiboot,kernel\"; reg = <0 0x2000 0 0x1000>; }; }; };",
    );
    assert_eq!(complete(&tree), FdtWithBoardOverlay::default());
}

#[test]
fn options_of_the_command_line_override_those_of_the_board() {
    static BOARD: Board = Board {
        id: "b",
        name: "B",
        compatible: &[],
        options: "warmbus.hotplug_buses=2 warmbus.preserve",
        additions: None,
    };
    let completed = FdtWithBoardOverlay {
        board: Some(&BOARD),
        ..FdtWithBoardOverlay::default()
    };
    let options = options(&completed, "quiet warmbus.hotplug_buses=5");
    assert_eq!((options.preserve, options.hotplug_buses), (true, Some(5)));
}

#[test]
fn a_damaged_tree_is_an_error_and_never_more() {
    let whole = sbsa("warmbus.kernel=0x1000,0x1000");
    for end in 0..whole.len() {
        let _ = complete(&whole[..end]);
    }
    for at in 0..whole.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] = value;
            let completed = complete(&damaged);
            if let Some(tree) = completed.tree {
                assert!(RawTree::new(&tree).is_ok(), "byte {at} is {value}");
            }
        }
    }
}
