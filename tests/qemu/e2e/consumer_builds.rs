//! The series in other kernels than that of the tests: of other page sizes, and of the
//! version before. They are built only where there is time.

use std::path::{Path, PathBuf};

use warmbus_qemu_tests::boot::Lab;
use warmbus_qemu_tests::consumer;
use warmbus_qemu_tests::linux::{LinuxBoot, payload};
use xtask::linux::{self, Options, PageSize, VERSION};
use xtask::run::CPU_WITH_ALL_PAGE_SIZES;
use xtask::test;

use crate::consumer::{ended_well, everything_was_restored, unit_tests_passed};

/// Pages and version of each. The unit tests are for the newest version.
const BUILDS: [(PageSize, &str); 3] = [
    (PageSize::K16, VERSION),
    (PageSize::K64, VERSION),
    (PageSize::K4, "7.2"),
];

fn kernel((page_size, version): (PageSize, &str)) -> PathBuf {
    let options = Options {
        page_size,
        version: version.into(),
        ..Options::consumer()
    };
    linux::image(&options).expect("Linux builds")
}

/// Boots `kernel` on `topology` to do `steps`, with `words` on its command line.
fn boot(kernel: &Path, topology: &str, steps: &str, words: &str) -> LinuxBoot {
    let lab = Lab::new();
    let mut payload = payload(kernel, steps);
    payload.bootargs.extend([" ", words]);
    // A scratch area of a kernel with 64K pages is 512 MiB.
    let machine = lab.machine(topology).memory("2G");
    let machine = machine.cpu(CPU_WITH_ALL_PAGE_SIZES).payload(payload);
    let linux = lab.boot_linux(machine.trace()).expect("it boots");
    ended_well(&linux);
    linux
}

#[test]
fn other_pages_and_the_version_before_are_served_the_truth() {
    if !test::is_long() {
        return println!("skipped: needs --long");
    }
    for build in BUILDS {
        println!("Linux {}, {:?}:", build.1, build.0);
        let kernel = kernel(build);
        for topology in ["switch", "fan", "sriov"] {
            let linux = boot(&kernel, topology, "summary,compare,cache", "pcsc=on");
            everything_was_restored(&linux);
            consumer::matches_hardware(&linux, 1);
            let used = &consumer::counters(&linux)[0];
            let linux = boot(&kernel, topology, "summary,cache", "pcsc=verify");
            everything_was_restored(&linux);
            let verified = &consumer::counters(&linux)[0];
            assert_eq!(verified["differences"], 0);
            assert!(used["hits"] > 100 && verified["verified"] > 100);
            let linux = boot(&kernel, topology, "cache", "pcsc=off");
            let off = &consumer::counters(&linux)[0];
            let functions = used["restored"];
            println!(
                "{topology}: {functions} functions, {} served, {} verified, slab {} KiB, {} without",
                used["hits"], verified["verified"], used["Slab"], off["Slab"]
            );
        }
        if build.1 == VERSION {
            unit_tests_passed(&boot(&kernel, "small", "log", "kunit.enable=1"));
        }
    }
}
