//! Trees that are completed, as the `fdt` reader of [`crate::machine`] and the
//! device tree compiler see them.

extern crate std;

use std::process::{Command, Stdio};
use std::string::String;
use std::vec::Vec;
use std::{format, io::Write};

use super::*;
use warmbus_machine::{ConsoleKind, Machine, ReservationKind};
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
    let completed = Completed::new(&tree);
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
fn completing_a_completed_tree_changes_nothing() {
    let once = Completed::new(&sbsa("")).tree.unwrap();
    let twice = Completed::new(&once);
    assert_eq!(twice.warnings, Vec::<String>::new());
    assert_eq!(decompiled(&twice.tree.unwrap()), decompiled(&once));
}

#[test]
fn a_tree_that_says_everything_and_one_of_no_board_stay_as_they_are() {
    let virt = include_bytes!("../../../../tests/fixtures/device-trees/qemu-virt.dtb");
    let completed = Completed::new(virt);
    assert_eq!(completed.board.map(|board| board.id), Some("qemu-virt"));
    assert_eq!((completed.tree, completed.warnings.len()), (None, 0));

    let unknown = compiled("/dts-v1/; / { compatible = \"nobody,knows\", \"linux\"; };");
    for tree in [&unknown[..], b"", b"no tree"] {
        assert_eq!(Completed::new(tree), Completed::default());
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
        decompiled(&complete(&tree, &additions).unwrap()),
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
    let text = decompiled(&complete(&tree, &additions).unwrap());
    assert!(text.contains("gic = <0x03 0x05 0xfff00001>;"), "{text}");
    assert!(text.contains("gic { phandle = <0x03>; };"), "{text}");
    assert!(text.contains("clk { phandle = <0xfff00001>; };"), "{text}");

    let taken = compiled("/dts-v1/; / { other { phandle = <0xfff00001>; }; };");
    assert_eq!(
        complete(&taken, &additions),
        Err(OverlayError::Phandle {
            phandle: 0xfff0_0001
        })
    );
}

#[test]
fn modules_that_the_command_line_names_are_modules_of_the_tree() {
    let line = "warmbus.kernel=0x10010000000,0x200000 warmbus.initrd=0x10014000000,4096 quiet";
    let completed = Completed::new(&sbsa(line));
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
    assert_eq!(Completed::new(&tree), Completed::default());
}

#[test]
fn words_of_the_board_give_way_to_those_of_the_command_line() {
    static BOARD: Board = Board {
        id: "b",
        name: "B",
        compatible: &[],
        options: "warmbus.hotplug_buses=2 warmbus.preserve",
        additions: None,
    };
    let completed = Completed {
        board: Some(&BOARD),
        ..Completed::default()
    };
    let options = completed.options("quiet warmbus.hotplug_buses=5");
    assert_eq!((options.preserve, options.hotplug_buses), (true, Some(5)));
}

#[test]
fn a_damaged_tree_is_an_error_and_never_more() {
    let whole = sbsa("warmbus.kernel=0x1000,0x1000");
    for end in 0..whole.len() {
        let _ = Completed::new(&whole[..end]);
    }
    for at in 0..whole.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] = value;
            let completed = Completed::new(&damaged);
            if let Some(tree) = completed.tree {
                assert!(RawTree::new(&tree).is_ok(), "byte {at} is {value}");
            }
        }
    }
}
