//! UEFI with kernels of every kind: packed in every way, with other pages, of other
//! versions, and one that takes no handover. Most are built only where there is time.

use std::path::{Path, PathBuf};

use warmbus_qemu_tests::boot::{Lab, image};
use warmbus_qemu_tests::consumer;
use warmbus_qemu_tests::linux::{self, LinuxBoot, payload};
use xtask::linux::{Options, PageSize, Zboot};
use xtask::qemu::{Machine, UefiLoader, UefiStart, strict_nx_flash};
use xtask::run::CPU_WITH_ALL_PAGE_SIZES;
use xtask::test;

use super::uefi::{AS_DRIVER, finds_the_same, machine, steps, the_cache_is_used};

fn built(options: &Options) -> PathBuf {
    xtask::linux::image(options).expect("Linux builds")
}

#[test]
fn a_kernel_that_unpacks_itself_finds_the_cache() {
    if !test::is_long() {
        return println!("skipped: needs --long");
    }
    for format in [Zboot::Gzip, Zboot::Zstd] {
        let kernel = built(&Options {
            zboot: Some(format),
            ..Options::consumer()
        });
        for start in [
            AS_DRIVER,
            UefiStart::Application,
            UefiStart::Loader(UefiLoader::Grub),
            UefiStart::Loader(UefiLoader::SystemdBoot),
        ] {
            println!("{format:?}, {start:?}");
            let lab = Lab::new();
            let machine = machine(&lab, &kernel, &steps()).uefi_start(start);
            let linux = lab.boot_linux(machine).expect("it boots");
            the_cache_is_used(&linux);
        }
    }
}

#[test]
fn with_strict_protection_of_memory_linux_starts_with_the_cache() {
    let code = strict_nx_flash().expect("Debian has it");
    let driver = UefiStart::Loader(UefiLoader::SystemdBoot);
    for start in [UefiStart::Application, driver] {
        let lab = Lab::new();
        let machine = machine(&lab, consumer::kernel(), &steps());
        let machine = machine.uefi_code(&code).uefi_start(start);
        let linux = lab.boot_linux(machine).expect("it boots");
        the_cache_is_used(&linux);
    }
}

/// Boots `kernel` with UEFI, started by the shell after `lines`, with `word` for the
/// handover on its command line.
fn boot(kernel: &Path, word: &str, lines: UefiStart) -> LinuxBoot {
    let lab = Lab::new();
    let mut payload = payload(kernel, "summary,cache,firmware,sections");
    payload.bootargs = payload.bootargs.replace("kho=on", word);
    let machine = Machine::uefi(image(), &lab.file("uefi"))
        .payload(payload)
        .memory("2G")
        .arguments(["-device", "ramfb"])
        .cpu(CPU_WITH_ALL_PAGE_SIZES)
        .uefi_start(lines);
    let linux = if lines == AS_DRIVER {
        lab.boot_linux(machine)
    } else {
        lab.follow_alone(machine)
    };
    let linux = linux.expect("it boots");
    assert!(linux.ran_to_the_end(), "{}", linux.boot.console.join("\n"));
    linux
}

/// KiB of memory that Linux has.
fn memory(linux: &LinuxBoot) -> u64 {
    consumer::counters(linux)[0]["MemTotal"]
}

/// The resources of `/proc/iomem`. Scratch memory of a handover is System RAM, but a
/// resource of its own.
fn resources(linux: &LinuxBoot) -> Vec<String> {
    let mut resources: Vec<String> = Vec::new();
    let mut memory_to = None;
    for line in consumer::said(linux, "iomem ") {
        let Some((start, end)) = line
            .strip_suffix(" : System RAM")
            .and_then(|range| range.split_once('-'))
        else {
            resources.push(line.to_owned());
            continue;
        };
        let [start, end] =
            [start, end].map(|digits| u64::from_str_radix(digits, 16).expect("an address"));
        if memory_to != Some(start) {
            resources.push(format!("System RAM from {start:x}"));
        }
        memory_to = Some(end + 1);
    }
    resources.extend(memory_to.map(|end| format!("System RAM to {end:x}")));
    resources
}

/// What a kernel does with the handover. The word `kho=` is only about what it will hand
/// over itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    /// It reads what is handed over, and frees it.
    Uses,
    /// It keeps it.
    Keeps,
    /// It gets none.
    Nothing,
}

#[test]
fn kernels_that_can_take_the_cache_have_it_and_the_others_lose_no_memory() {
    let debian = || built(&Options::debian());
    let mut kernels: Vec<(&str, PathBuf, &str, Takes)> = vec![
        ("Debian's", debian(), "kho=on", Takes::Nothing),
        (
            "series",
            consumer::kernel().into(),
            "kho=on pcsc=off",
            Takes::Nothing,
        ),
    ];
    if test::is_long() {
        let pages = |page_size| Options {
            page_size,
            ..Options::default()
        };
        let of = |page_size| Options {
            consumer: true,
            ..pages(page_size)
        };
        let before = Options {
            version: "7.2".into(),
            ..Options::consumer()
        };
        kernels.extend([
            ("series", consumer::kernel().into(), "kho=off", Takes::Uses),
            ("stock", linux::kernel().into(), "kho=off", Takes::Keeps),
            ("stock", linux::kernel().into(), "kho=on", Takes::Keeps),
            ("16K", built(&pages(PageSize::K16)), "kho=on", Takes::Keeps),
            ("64K", built(&pages(PageSize::K64)), "kho=on", Takes::Keeps),
            (
                "series, 16K",
                built(&of(PageSize::K16)),
                "kho=on",
                Takes::Uses,
            ),
            (
                "series, 64K",
                built(&of(PageSize::K64)),
                "kho=on",
                Takes::Uses,
            ),
            ("series, 7.2", built(&before), "kho=on", Takes::Uses),
        ]);
    }
    for (name, kernel, word, takes) in kernels {
        boots_as_alone(name, &kernel, word, takes);
    }
}

/// Boots `kernel` with and without Warmbus: it `takes` what it can, and finds the same
/// machine.
fn boots_as_alone(name: &str, kernel: &Path, word: &str, takes: Takes) {
    let [with, without] = [AS_DRIVER, UefiStart::Shell(&[])].map(|start| boot(kernel, word, start));
    let [own, direct] = [&with, &without].map(memory);
    println!("{name}, {word}: MemTotal {own} KiB, {direct} without Warmbus");
    finds_the_same(&with, &without);
    assert!(resources(&with).len() > 20, "{:?}", resources(&with));
    assert_eq!(resources(&with), resources(&without), "{name}");
    let framebuffer = with.kernel_log().contains("efifb: framebuffer at ");
    // Only Debian's kernel has a driver for it.
    assert_eq!(framebuffer, name == "Debian's", "{}", with.kernel_log());
    let found = with.kernel_log().contains("KHO: found kexec handover data");
    assert_eq!(
        found,
        takes != Takes::Nothing,
        "{name}: {}",
        with.kernel_log()
    );
    // What is kept takes two pages for a function, and Kexec HandOver some itself.
    let functions = with.functions().expect("Linux lists them").len() as u64;
    let page = with.summary("Page size")[0]
        .trim_end_matches('K')
        .parse::<u64>();
    let pages = match takes {
        Takes::Nothing => 0,
        Takes::Uses => 8,
        Takes::Keeps => 8 + 2 * functions,
    };
    assert!(
        direct - own <= pages * page.expect("KiB"),
        "{name}: {own}, {direct}"
    );
    if takes == Takes::Uses {
        let counters = &consumer::counters(&with)[0];
        assert_eq!(counters["restored"], functions, "{name}: {counters:?}");
    }
}
