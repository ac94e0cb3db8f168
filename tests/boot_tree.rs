//! Editing boot trees, with dtc as the judge, and finding the payload in them.
//!
//! With `WARMBUS_TREES` naming a folder, every `*.dtb` in it is tried as well.

use proptest::prelude::*;
use warmbus_linux::chosen::{Chosen, ChosenError, ChosenHandover, NodeEdit, edit};
use warmbus_linux::payload::{Module, Payload, PayloadError};
use warmbus_memory::MemoryRange;
use warmbus_memory::PhysAddr;
use warmbus_pcie_sim::proptest_config;

/// A tree with what makes real ones awkward: names that start with an
/// underscore or are too long, labels, a reservation block, odd value lengths,
/// empty values, nodes after and below `/chosen`.
const AWKWARD: &str = r#"
/dts-v1/;
/memreserve/ 0x0000000040000000 0x0000000000010000;
/memreserve/ 0x0000000140000000 0x0000000000001000;
/ {
    #address-cells = <2>;
    #size-cells = <2>;
    compatible = "linux,dummy-virt";
    model = "awkward \"tree\"";
    interrupt-parent = <&gic>;
    memory@40000000 { device_type = "memory"; reg = <0 0x40000000 0 0x80000000>; };
    before { chosen { bootargs = "not this one"; }; };
    chosen {
        stdout-path = "/pl011@9000000";
        bootargs = "old command line";
        linux,initrd-start = <0x48000000>;
        kaslr-seed = <0x12345678 0x9abcdef0>;
        linux,pci-probe-only = <0>;
        empty;
        module@44000000 {
            compatible = "multiboot,module", "multiboot,kernel";
            reg = <0 0x44000000 0 0x234567>;
            bootargs = "console=ttyAMA0 kho=on";
            linux,initrd-start = <1>;
        };
        module@48000000 {
            compatible = "multiboot,ramdisk", "multiboot,module";
            reg = <0 0x48000000 0 0x654321>;
        };
    };
    gic: interrupt-controller@8000000 {
        nvidia,pad-autocal-pull-up-offset-3v3-timeout = <7>;
        #interrupt-cells = <3>;
        interrupt-controller;
        a-node-with-a-name-that-is-much-longer-than-31-characters { odd = [01 02 03]; };
    };
    __symbols__ { gic = "/interrupt-controller@8000000"; };
};
"#;

fn compile(source: &str) -> Vec<u8> {
    warmbus_tests::dtc(&["-I", "dts", "-O", "dtb"], source.as_bytes())
}

/// The sorted source of a tree, line by line.
fn lines(tree: &[u8]) -> Vec<String> {
    let text = warmbus_tests::dtc(&["-s", "-I", "dtb", "-O", "dts"], tree);
    let text = String::from_utf8(text).unwrap();
    text.lines().map(|line| line.trim().to_string()).collect()
}

/// Lines that are only in `before`, and lines that are only in `after`, with
/// the order of the common ones checked.
fn difference(before: &[u8], after: &[u8]) -> (Vec<String>, Vec<String>) {
    let (before, after) = (lines(before), lines(after));
    // Longest common subsequence, the plain way: these trees are small.
    let width = after.len() + 1;
    let mut length = vec![0_u32; (before.len() + 1) * width];
    for b in (0..before.len()).rev() {
        for a in (0..after.len()).rev() {
            length[b * width + a] = if before[b] == after[a] {
                length[(b + 1) * width + a + 1] + 1
            } else {
                length[(b + 1) * width + a].max(length[b * width + a + 1])
            };
        }
    }
    let (mut gone, mut new, mut b, mut a) = (Vec::new(), Vec::new(), 0, 0);
    while b < before.len() || a < after.len() {
        if b < before.len() && a < after.len() && before[b] == after[a] {
            (b, a) = (b + 1, a + 1);
        } else if a == after.len()
            || (b < before.len() && length[(b + 1) * width + a] >= length[b * width + a + 1])
        {
            gone.push(before[b].clone());
            b += 1;
        } else {
            new.push(after[a].clone());
            a += 1;
        }
    }
    gone.retain(|line| !line.is_empty());
    new.retain(|line| !line.is_empty());
    (gone, new)
}

const EVERYTHING: Chosen<'_> = Chosen {
    bootargs: Some(b"console=ttyAMA0 kho=on"),
    initrd: Some(MemoryRange::new(PhysAddr(0x1_4800_0000), 0x65_4321)),
    handover: Some(ChosenHandover {
        root: MemoryRange::new(PhysAddr(0xb000_4000), 0x1000),
        scratch: MemoryRange::new(PhysAddr(0xb000_6000), 0x20),
    }),
    probe_only: true,
    nodes: &[],
    released: None,
};

/// What [`EVERYTHING`] reads as in the source of a tree with 2 and 2 cells.
const EVERYTHING_ADDED: [&str; 6] = [
    "bootargs = \"console=ttyAMA0 kho=on\";",
    "linux,initrd-end = <0x01 0x48654321>;",
    "linux,initrd-start = <0x01 0x48000000>;",
    "linux,kho-fdt = <0x00 0xb0004000 0x00 0x1000>;",
    "linux,kho-scratch = <0x00 0xb0006000 0x00 0x20>;",
    "linux,pci-probe-only = <0x01>;",
];

#[test]
fn dtc_shows_the_additions_to_chosen_and_no_other_difference() {
    let tree = compile(AWKWARD);
    let edited = edit(&tree, &EVERYTHING).unwrap();
    let (gone, new) = difference(&tree, &edited);
    assert_eq!(new, EVERYTHING_ADDED);
    assert_eq!(
        gone,
        [
            "bootargs = \"old command line\";",
            "linux,initrd-start = <0x48000000>;",
            "linux,pci-probe-only = <0x00>;",
        ]
    );
    let reserved = |tree: &[u8]| {
        let mut lines = lines(tree);
        lines.retain(|line| line.starts_with("/memreserve/"));
        lines
    };
    assert_eq!(reserved(&edited).len(), 2);
    assert_eq!(reserved(&edited), reserved(&tree));
}

#[test]
fn without_anything_to_say_the_tree_stays_the_same() {
    for source in [AWKWARD, "/dts-v1/; / { };"] {
        let tree = compile(source);
        let edited = edit(&tree, &Chosen::default()).unwrap();
        assert_eq!(difference(&tree, &edited), (vec![], vec![]));
    }
}

#[test]
fn a_tree_without_chosen_gets_one() {
    let source = "/dts-v1/; / { #address-cells = <2>; #size-cells = <2>; a { b; }; };";
    let tree = compile(source);
    let edited = edit(&tree, &EVERYTHING).unwrap();
    let (gone, new) = difference(&tree, &edited);
    assert!(gone.is_empty());
    let mut expected = vec!["chosen {".to_string()];
    expected.extend(EVERYTHING_ADDED.map(String::from));
    expected.push("};".to_string());
    assert_eq!(new, expected);
}

#[test]
fn editing_twice_is_editing_once() {
    let tree = compile(AWKWARD);
    let once = edit(&tree, &EVERYTHING).unwrap();
    let twice = edit(&once, &EVERYTHING).unwrap();
    assert_eq!(lines(&once), lines(&twice));
}

#[test]
fn the_size_of_the_result_does_not_depend_on_addresses() {
    let tree = compile(AWKWARD);
    let nothing = MemoryRange::new(PhysAddr(0), 0);
    let early = Chosen {
        initrd: Some(nothing),
        handover: Some(ChosenHandover {
            root: nothing,
            scratch: nothing,
        }),
        ..EVERYTHING
    };
    let early = edit(&tree, &early).unwrap();
    assert_eq!(early.len(), edit(&tree, &EVERYTHING).unwrap().len());
}

/// Host bridges: one without properties, one whose properties come after one of
/// the same name in a node below, and one with other properties of these names.
const HOSTS: &str = r#"
/dts-v1/;
/ {
    soc {
        linux,pci-domain = <7>;
        pcie@1 { };
        pcie@2 {
            compatible = "x";
            linux,pci-probe-only = <1>;
            linux,pci-domain;
            pcie@0 { linux,pci-domain = <8>; linux,pci-probe-only = <8>; };
        };
        pcie@3 { linux,pci-domain = <9>; linux,pci-probe-only = <9>; };
    };
    pcie@1 { linux,pci-domain = <10>; };
};
"#;

#[test]
fn dtc_shows_the_changes_to_the_nodes_of_host_bridges_and_no_other_difference() {
    let tree = compile(HOSTS);
    let edited = |nodes: &[NodeEdit]| {
        let chosen = Chosen {
            nodes,
            ..Chosen::default()
        };
        difference(&tree, &edit(&tree, &chosen).unwrap())
    };
    let node = |path: &str, domain, probe_only| NodeEdit {
        path: path.into(),
        domain,
        probe_only,
    };
    assert_eq!(
        edited(&[node("/soc/pcie@1", Some(5), None)]),
        (vec![], vec!["linux,pci-domain = <0x05>;".into()])
    );
    let (gone, new) = edited(&[
        node("/soc/pcie@2", Some(0x1_0006), Some(false)),
        node("/soc/pcie@3", None, Some(true)),
        node("/soc/pcie@4", Some(1), Some(true)),
        node("/pcie@2", Some(1), Some(true)),
    ]);
    assert_eq!(
        gone,
        [
            "linux,pci-domain;",
            "linux,pci-probe-only = <0x01>;",
            "linux,pci-probe-only = <0x09>;",
        ]
    );
    assert_eq!(
        new,
        [
            "linux,pci-domain = <0x10006>;",
            "linux,pci-probe-only = <0x00>;",
            "linux,pci-probe-only = <0x01>;",
        ]
    );
}

#[test]
fn older_trees_and_trees_with_slack_are_taken() {
    for arguments in [
        &["-I", "dts", "-O", "dtb", "-V", "16"][..],
        &["-I", "dts", "-O", "dtb", "-S", "65536"],
        &["-I", "dts", "-O", "dtb", "-R", "8", "-b", "3"],
    ] {
        let tree = warmbus_tests::dtc(arguments, AWKWARD.as_bytes());
        let edited = edit(&tree, &EVERYTHING).unwrap();
        let (gone, new) = difference(&tree, &edited);
        assert_eq!((gone.len(), new.len()), (3, 6));
        // boot_cpuid_phys
        assert_eq!(edited[28..32], tree[28..32]);
    }
}

#[test]
fn a_reservation_that_is_released_is_the_only_thing_that_goes() {
    let tree = compile(AWKWARD);
    let released = |size| Chosen {
        released: Some(MemoryRange::new(PhysAddr(0x1_4000_0000), size)),
        ..Chosen::default()
    };
    let edited = edit(&tree, &released(0x1000)).unwrap();
    let (gone, new) = difference(&tree, &edited);
    assert_eq!(gone.len(), 1, "{gone:?}");
    assert!(gone[0].starts_with("/memreserve/") && gone[0].contains("140000000"));
    assert_eq!(new, [""; 0]);
    // Another range is another reservation.
    let edited = edit(&tree, &released(0x2000)).unwrap();
    assert_eq!(difference(&tree, &edited), (vec![], vec![]));
}

#[test]
fn numbers_that_do_not_fit_the_cells_of_the_root_are_refused() {
    let tree = compile("/dts-v1/; / { #address-cells = <1>; #size-cells = <1>; };");
    let high = ChosenHandover {
        root: MemoryRange::new(PhysAddr(0x1_0000_0000), 0x1000),
        scratch: MemoryRange::new(PhysAddr(0x4000_0000), 0x10),
    };
    let chosen = Chosen {
        handover: Some(high),
        ..Chosen::default()
    };
    let error = edit(&tree, &chosen).unwrap_err();
    assert_eq!(
        error,
        ChosenError::TooWide {
            value: 0x1_0000_0000
        }
    );
    let edited = edit(
        &tree,
        &Chosen {
            handover: Some(ChosenHandover {
                root: high.scratch,
                ..high
            }),
            ..Chosen::default()
        },
    )
    .unwrap();
    let (_, new) = difference(&tree, &edited);
    assert!(new.contains(&"linux,kho-scratch = <0x40000000 0x10>;".to_string()));
    for cells in [
        "",
        "#address-cells = <2>;",
        "#address-cells = <3>; #size-cells = <2>;",
    ] {
        let tree = compile(&format!("/dts-v1/; / {{ {cells} }};"));
        assert_eq!(edit(&tree, &chosen), Err(ChosenError::Cells));
    }
    let chosen = Chosen {
        bootargs: Some(b"a\0b"),
        ..Chosen::default()
    };
    assert_eq!(edit(&tree, &chosen), Err(ChosenError::CommandLine));
}

#[test]
fn modules_are_found_below_chosen_only() {
    let tree = compile(AWKWARD);
    let payload = Payload::find(&tree).unwrap();
    let kernel = payload.kernel.unwrap();
    let range = |start, size| MemoryRange::new(PhysAddr(start), size);
    assert_eq!(kernel.range, range(0x4400_0000, 0x23_4567));
    assert_eq!(kernel.bootargs, Some(&b"console=ttyAMA0 kho=on"[..]));
    assert_eq!(
        payload.ramdisk.unwrap().range,
        range(0x4800_0000, 0x65_4321)
    );
    assert_eq!(payload.bootargs, Some(&b"old command line"[..]));
    let none = compile("/dts-v1/; / { m { compatible = \"multiboot,kernel\"; }; };");
    assert_eq!(Payload::find(&none), Ok(Payload::default()));
}

#[test]
fn the_cells_of_a_module_are_those_of_chosen_or_follow_from_its_length() {
    let find = |cells: &str, reg: &str| {
        let tree = compile(&format!(
            "/dts-v1/; / {{ chosen {{ {cells} m {{ compatible = \"multiboot,kernel\"; reg = <{reg}>; }}; }}; }};"
        ));
        Payload::find(&tree).map(|payload| {
            let range = payload.kernel.unwrap().range;
            (range.start.0, range.size)
        })
    };
    let one_two = "#address-cells = <1>; #size-cells = <2>;";
    let two_one = "#address-cells = <2>; #size-cells = <1>;";
    assert_eq!(find(one_two, "0x44000000 0 5"), Ok((0x4400_0000, 5)));
    assert_eq!(find(two_one, "1 0x44000000 5"), Ok((0x1_4400_0000, 5)));
    assert_eq!(find("", "1 2 0 5"), Ok((0x1_0000_0002, 5)));
    assert_eq!(find("", "2 5"), Ok((2, 5)));
    for wrong in ["", "1", "0 0 0 0", "0xffffffff 0xffffffff 0 2", "1 2 3 4 5"] {
        let error = PayloadError::Reg { node: "m".into() };
        assert_eq!(find("", wrong), Err(error), "{wrong}");
    }
}

#[test]
fn the_initrd_of_chosen_counts_if_there_is_no_module() {
    let find = |properties: &str| {
        let tree = compile(&format!("/dts-v1/; / {{ chosen {{ {properties} }}; }};"));
        Payload::find(&tree).map(|payload| payload.ramdisk.map(|module| module.range.to_string()))
    };
    let both = "linux,initrd-start = <0x48000000>; linux,initrd-end = <0 0x48001000>;";
    assert_eq!(find(both), Ok(Some("0x48000000-0x48000fff".to_string())));
    assert_eq!(find("linux,initrd-start = <1>;"), Ok(None));
    let backwards = "linux,initrd-start = <2>; linux,initrd-end = <1>;";
    let error = PayloadError::Initrd { start: 2, end: 1 };
    assert_eq!(find(backwards), Err(error));
    let twice = r#"a { compatible = "multiboot,kernel"; reg = <1 1>; };
        b { compatible = "multiboot,kernel"; reg = <2 1>; };"#;
    assert_eq!(find(twice), Err(PayloadError::Twice { node: "b".into() }));
}

#[test]
fn a_running_kernel_says_what_it_hands_over_and_modules_of_before_it_are_gone() {
    let modules = r#"a { compatible = "multiboot,kernel"; reg = <1 1>; };
        b { compatible = "multiboot,ramdisk"; reg = <2 1>; };"#;
    let find = |properties: &str| {
        let tree = compile(&format!(
            "/dts-v1/; / {{ chosen {{ {properties} {modules} }}; }};"
        ));
        let found = Payload::find(&tree).unwrap();
        let range = |module: Module<'_>| module.range.to_string();
        let ranges = (found.kernel.map(range), found.ramdisk.map(range));
        let handover = found
            .handover
            .map(|(root, array)| (root.to_string(), array.to_string()));
        (found.from_kexec, ranges, handover)
    };
    let text = |text: &str| Some(text.to_string());
    let initrd = "linux,initrd-start = <0x48000000>; linux,initrd-end = <0 0x48001000>;";
    let modules = (text("0x1-0x1"), text("0x2-0x2"));
    assert_eq!(find(initrd), (false, modules.clone(), None));
    let kexec = format!("{initrd} linux,booted-from-kexec;");
    let loaded = (None, text("0x48000000-0x48000fff"));
    assert_eq!(find(&kexec), (true, loaded, None));
    let kexec = "linux,booted-from-kexec; linux,kho-fdt = <1 0x1000 0 0x1000>;";
    assert_eq!(find(kexec), (true, (None, None), None));
    let scratch = "linux,kho-scratch = <0 0x5000 0 0x20>;";
    let both = Some(("0x100001000-0x100001fff".into(), "0x5000-0x501f".into()));
    let found = find(&format!("{kexec} {scratch}"));
    assert_eq!(found, (true, (None, None), both));
    let wraps = "linux,kho-fdt = <0xffffffff 0xfffff000 0 0x2000>;";
    assert_eq!(find(&format!("{wraps} {scratch}")), (false, modules, None));
}

#[test]
fn trees_in_the_folder_are_edited_without_other_differences() {
    let Some(folder) = std::env::var_os("WARMBUS_TREES") else {
        println!("WARMBUS_TREES is not set: no real trees tried");
        return;
    };
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "dtb") {
            continue;
        }
        let tree = std::fs::read(&path).unwrap();
        let edited = edit(&tree, &EVERYTHING).unwrap();
        let (gone, new) = difference(&tree, &edited);
        let payload = Payload::find(&tree);
        println!(
            "{}: gone {gone:?}, new {new:?}, {payload:?}",
            path.display()
        );
        assert!(gone.iter().all(|line| line.starts_with("bootargs")
            || line.starts_with("linux,initrd")
            || line.starts_with("linux,pci-probe-only")));
        assert!(
            EVERYTHING_ADDED
                .iter()
                .all(|line| new.contains(&(*line).to_string()))
        );
    }
}

proptest! {
    #![proptest_config(proptest_config::properties(20_000))]

    #[test]
    fn mutated_trees_never_panic_and_what_comes_out_can_be_edited_again(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        use std::sync::LazyLock;
        static TREE: LazyLock<Vec<u8>> = LazyLock::new(|| compile(AWKWARD));
        let mut tree = TREE.clone();
        for (at, value) in changes {
            // Half of the changes hit the header and the reservations.
            let end = if value % 2 == 0 { 120 } else { tree.len() };
            let at = at.index(end);
            tree[at] = value;
        }
        if let Some(cut) = cut {
            tree.truncate(cut.index(tree.len()));
        }
        let _ = Payload::find(&tree);
        if let Ok(edited) = edit(&tree, &EVERYTHING) {
            prop_assert!(edited.len() < tree.len() + 1024);
            prop_assert_eq!(edit(&edited, &EVERYTHING).map(|_| ()), Ok(()));
        }
    }
}
