//! The kernels that the tests were given. Their module is the first one, so that
//! the tests of others run beside the many boots of its only test.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use warmbus_memory::PageSize;
use warmbus_qemu_tests::boot::Lab;
use warmbus_qemu_tests::linux::payload;
use xtask::image::{self, KernelFacts};
use xtask::qemu::Machine;
use xtask::run::CPU_WITH_ALL_PAGE_SIZES;
use xtask::test;

use crate::linux::{ALL, plain, proven};

/// The Images of the folder that the tests were given, by what they say about
/// themselves.
fn folder() -> BTreeMap<PathBuf, KernelFacts> {
    let folder = std::env::var_os(test::KERNELS).expect("a directory of kernels is given");
    let files = fs::read_dir(folder).expect("the directory can be read");
    let files = files.map(|file| file.unwrap().path());
    files
        .filter_map(|file| Some((file.clone(), image::facts(&file).ok()?)))
        .collect()
}

/// Those with pages of 4 KiB that have a handover.
pub(crate) fn of_this_page_size() -> Vec<(PathBuf, KernelFacts)> {
    let all = folder().into_iter();
    let kernels = all.filter(|(_, facts)| {
        facts.page_size == Some(PageSize::K4) && !matches!(facts.kho, Ok(None))
    });
    kernels.collect()
}

/// Those, one of each version of the handover unless there is time for all, and the
/// one that Debian ships, each with its version.
pub(crate) fn with_that_of_debian() -> Vec<(PathBuf, String)> {
    let debian = xtask::linux::image(&xtask::linux::Options::debian());
    let debian = debian.expect("Debian has a kernel");
    let mut kernels = of_this_page_size();
    if !test::is_long() {
        kernels.dedup_by(|(_, one), (_, before)| one.kho == before.kho);
    }
    let kernels = kernels.into_iter();
    kernels
        .map(|(file, facts)| (file, facts.version))
        .chain([(debian, "of Debian".to_owned())])
        .collect()
}

/// Unpacks the kernel in `file` to `lab`, since the processors of QEMU would take
/// longer than for the rest of the boot. That the firmware unpacks each of them is
/// a test of `tests/linux_images.rs`.
pub(crate) fn unpack(file: &Path, lab: &Lab) -> PathBuf {
    let packed = fs::read(file).expect("the kernel can be read");
    let image = image::unpack(&packed).expect("it is a kernel");
    let unpacked = lab.file("Image");
    fs::write(&unpacked, image).expect("there is space for it");
    unpacked
}

#[test]
#[ignore = "needs `--kernels DIR`"]
fn every_kernel_of_the_folder_finds_what_was_handed_over() {
    let mut kernels: Vec<_> = folder().into_iter().collect();
    assert!(!kernels.is_empty(), "there are kernels in the directory");
    if !test::is_long() {
        kernels.dedup_by(|(_, one), (_, before)| {
            (&one.kho, one.page_size) == (&before.kho, before.page_size)
        });
    }
    for (file, facts) in kernels {
        let pages = facts.page_size.expect("an Image says its page size");
        println!("Linux {}, {pages} pages, {:?}:", facts.version, facts.kho);
        // A scratch area of a kernel with 64K pages is 512 MiB. It takes its time
        // to use all memory.
        let memory = if pages == PageSize::K64 { "2G" } else { "512M" };
        let machine = |machine: Machine| machine.memory(memory).cpu(CPU_WITH_ALL_PAGE_SIZES);
        let unpacked = Lab::new();
        let file = unpack(&file, &unpacked);
        if facts.kho == Ok(None) {
            let lab = Lab::new();
            let with = machine(lab.machine("switch")).payload(payload(&file, "summary"));
            plain(&lab.boot_linux(with).expect("it boots"));
            continue;
        }
        let linux = proven(&file, "switch", ALL, machine);
        assert_eq!(linux.summary("Page size")[0], pages.to_string());
    }
}
