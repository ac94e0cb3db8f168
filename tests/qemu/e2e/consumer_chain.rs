//! Kernels after kernels: only the first one gets the cache.

use std::fs;
use std::path::Path;

use warmbus_qemu_tests::boot::Lab;
use warmbus_qemu_tests::consumer;
use warmbus_qemu_tests::linux::{self, payload};
use xtask::qemu::Payload;

use crate::consumer::ended_well;

/// The payload of `first` with `further` kernels in its initrd, by name below /kexec,
/// so that each can start another one.
fn with_kernels(lab: &Lab, first: &Path, steps: &str, further: &[(&str, &Path)]) -> Payload {
    let payload = payload(first, steps);
    let files: Vec<_> = further
        .iter()
        .map(|(name, kernel)| (format!("kexec/{name}"), fs::read(kernel).unwrap()))
        .collect();
    let initrd = lab.file("initrd");
    let bytes = xtask::linux::with_files(linux::initramfs(), &files).unwrap();
    fs::write(&initrd, bytes).unwrap();
    Payload {
        initrd: Some(initrd),
        bootargs: format!("{} retain_initrd", payload.bootargs),
        ..payload
    }
}

/// The payload of the kernel that reads the cache, which finds itself in its
/// initrd as well, so that it can start itself anew.
pub(crate) fn with_itself(lab: &Lab, steps: &str) -> Payload {
    let kernel = consumer::kernel();
    with_kernels(lab, kernel, steps, &[("Image", kernel)])
}

#[test]
fn a_kernel_that_is_started_by_another_reads_the_hardware() {
    let lab = Lab::new();
    let steps = "cache,kexec,cache,compare,kexec,cache,compare";
    let machine = lab.machine("switch").payload(with_itself(&lab, steps));
    let linux = lab.boot_linux(machine).expect("it boots");
    ended_well(&linux);
    consumer::matches_hardware(&linux, 2);
    let functions = linux.boot.report()["functions"].as_array().map(Vec::len);
    let chain = consumer::counters(&linux);
    assert_eq!(chain.len(), 3);
    assert_eq!(Some(chain[0]["restored"] as usize), functions);
    for counters in &chain[1..] {
        assert_eq!([counters["restored"], counters["hits"]], [0; 2]);
    }
}

/// The kernel skips what a first kernel that crashed was handed.
#[test]
fn a_crash_kernel_uses_nothing() {
    let lab = Lab::new();
    let mut payload = payload(consumer::kernel(), "cache,compare");
    payload.bootargs += " elfcorehdr=0x48000000";
    let machine = lab.machine("small").payload(payload);
    let linux = lab.boot_linux(machine).expect("it boots");
    ended_well(&linux);
    consumer::matches_hardware(&linux, 1);
    assert_eq!(consumer::counters(&linux)[0]["restored"], 0);
}

/// A kernel without the series takes over nothing, and passes nothing on.
#[test]
fn a_kernel_behind_one_without_the_series_reads_the_hardware() {
    let (ours, stock) = (consumer::kernel(), linux::kernel());
    let kernels = [("Image", ours), ("stock", stock)];
    for (first, steps, uses) in [
        (
            ours,
            "cache,then:/kexec/stock,compare,kexec,cache,compare",
            &[true, false][..],
        ),
        (stock, "compare,kexec,cache,compare", &[false][..]),
    ] {
        let lab = Lab::new();
        let payload = with_kernels(&lab, first, steps, &kernels);
        let linux = lab
            .boot_linux(lab.machine("small").payload(payload))
            .expect("it boots");
        ended_well(&linux);
        consumer::matches_hardware(&linux, 2);
        let chain = consumer::counters(&linux);
        let used: Vec<_> = chain.iter().map(|kernel| kernel["hits"] > 0).collect();
        assert_eq!(used, uses, "{chain:?}");
    }
}

/// Linux panics while it uses what was handed over, and the kernel for a crash finds
/// the devices as they were left.
#[test]
fn a_kernel_that_starts_after_a_panic_uses_nothing() {
    let lab = Lab::new();
    let mut payload = with_itself(
        &lab,
        "cache,crash,cache,compare,resets,compare,rescan,compare",
    );
    payload.bootargs += " crashkernel=192M";
    let machine = lab.machine("small").memory("2G").payload(payload);
    let linux = lab.boot_linux(machine).expect("it boots");
    ended_well(&linux);
    consumer::matches_hardware(&linux, 3);
    let chain = consumer::counters(&linux);
    assert_eq!(chain.len(), 2, "{chain:?}");
    assert!(
        chain[0]["hits"] > 0 && chain[1]["MemTotal"] < 192 << 10,
        "{chain:?}"
    );
    assert_eq!([chain[1]["restored"], chain[1]["hits"]], [0; 2]);
}
