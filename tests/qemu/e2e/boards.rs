//! Other ways to start than by QEMU's own loader, and another machine.

use std::fs;

use warmbus_cli::u_boot;
use warmbus_qemu_tests::boot::{Lab, image, topology};
use warmbus_qemu_tests::linux::{self, payload};
use warmbus_qemu_tests::pci;
use warmbus_qemu_tests::tree::Tree;
use xtask::disk::{self, File, Options, card};
use xtask::paths;
use xtask::qemu::Machine;
use xtask::topology::Topology;

use crate::linux::{SECTIONS, cache_is_true, log_is_clean, nothing_moved, subtree_arrived};

/// What the image of `cargo xtask image` is made of for QEMU's U-Boot.
fn files() -> Vec<File> {
    let options = Options {
        board: "qemu-virt".into(),
        kernel: Some(linux::kernel().into()),
        append: vec![format!("warmbus.report warmbus.test={SECTIONS}")],
        ..Options::default()
    };
    let boards = disk::boards().expect("the boards can be read");
    options
        .contents(&boards["qemu-virt"], image())
        .expect("there is a Linux to put on the disk")
}

/// QEMU's U-Boot with a topology of the board, and a disk with `files`.
pub(crate) fn u_boot(lab: &Lab, files: &[File]) -> Machine {
    let disk = lab.file("card.img");
    card::write(&disk, files).expect("the disk can be written");
    disk::machine(&disk)
        .expect("U-Boot is installed")
        .topology(&topology("small"))
        .trace()
}

#[test]
fn u_boot_starts_warmbus_and_linux_from_the_disk_image_by_itself() {
    let lab = Lab::new();
    let linux = lab.boot_linux(u_boot(&lab, &files())).expect("it boots");
    subtree_arrived(&linux);
    cache_is_true(&linux);
    nothing_moved(&linux);
    log_is_clean(&linux);
}

/// The commands that `docs/boards.md` prints for the prompt of U-Boot, with what
/// differs from board to board filled in.
fn printed(parameters: &str) -> String {
    let page = fs::read_to_string(paths::root().join("docs/boards.md")).unwrap();
    let (_, section) = page.split_once("## With U-Boot").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let lines = section.lines().filter_map(|line| line.strip_prefix("    "));
    // Boards have a place for the tree; QEMU's U-Boot takes that of QEMU.
    let mut script = String::from("setenv fdt_addr_r 43000000\n");
    for line in lines {
        let line = line.replace("mmc 0:1", "virtio 0:1");
        let line = line
            .replace("CONSOLE", "ttyAMA0")
            .replace("PARAMETERS", parameters);
        script.extend([&line.replace("TREE", "board.dtb"), "\n"]);
    }
    script
}

#[test]
fn the_commands_of_the_page_start_it_from_a_prompt_with_one_file_for_kernel_and_initrd() {
    let lab = Lab::new();
    let file = |name, bytes| File { name, bytes };
    let read = |path: &std::path::Path| fs::read(path).expect("the file can be read");
    let kernel = ("warmbus/kernel".into(), read(linux::kernel()));
    let mut bundle = xtask::linux::further(&[kernel]).expect("an archive can be made");
    bundle.extend(read(linux::initramfs()));
    let script = printed(&format!("quiet warmbus.report warmbus.test={SECTIONS}"));
    assert!(
        script.contains("booti") && !script.contains("0:1/"),
        "{script}"
    );

    let described = u_boot(&lab, &[]).machine_option("dtb-randomness=off");
    let tree = Tree::of(&described, &lab);
    let files = [
        file("boot.scr", u_boot::pack(&script)),
        file("warmbus.img", read(image())),
        file("board.dtb", tree.bytes()),
        file("payload", bundle),
    ];
    let linux = lab.boot_linux(u_boot(&lab, &files)).expect("it boots");
    subtree_arrived(&linux);
    cache_is_true(&linux);
    nothing_moved(&linux);
    log_is_clean(&linux);
}

#[test]
fn the_same_files_make_the_same_disk_image() {
    let lab = Lab::new();
    let files = [
        File {
            name: "boot.scr",
            bytes: u_boot::pack("echo a"),
        },
        File {
            name: "Image",
            bytes: vec![7; 3 << 20],
        },
    ];
    let images = ["a", "b"].map(|name| {
        card::write(&lab.file(name), &files).expect("the disk can be written");
        fs::read(lab.file(name)).expect("it can be read")
    });
    assert!(images[0] == images[1]);
}

#[test]
fn sbsa_ref_gets_what_its_tree_lacks_and_starts_linux_with_the_cache() {
    let lab = Lab::new();
    let bridges = include_str!("../../../boards/qemu-sbsa-ref/topologies/bridges.args");
    let machine = Machine::sbsa_ref(image())
        .topology(&Topology::parse("bridges", bridges))
        .payload(payload(linux::kernel(), SECTIONS))
        .trace();
    let linux = lab.boot_linux(machine).expect("it boots");
    subtree_arrived(&linux);
    cache_is_true(&linux);
    nothing_moved(&linux);
    log_is_clean(&linux);
    let report = pci::of_report(&linux.boot.report());
    assert!(report.iter().any(|function| function.bus == 2));
}
