//! Other ways to start than by QEMU's own loader, and another machine.

use std::fs;

use warmbus_qemu_tests::boot::{Lab, image, topology};
use warmbus_qemu_tests::linux::{self, payload};
use warmbus_qemu_tests::pci;
use xtask::disk::{self, File, Options, card, script};
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
fn u_boot(lab: &Lab, files: &[File]) -> Machine {
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

#[test]
fn the_same_files_make_the_same_disk_image() {
    let lab = Lab::new();
    let files = [
        File {
            name: "boot.scr",
            bytes: script::pack("echo a").expect("mkimage is installed"),
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
