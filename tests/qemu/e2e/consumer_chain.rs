//! Kernels after kernels: only the first one gets the cache.

use std::fs;
use std::io::Write;

use warmbus_qemu_tests::boot::Lab;
use warmbus_qemu_tests::consumer;
use warmbus_qemu_tests::linux::payload;
use xtask::qemu::Payload;

use crate::consumer::ended_well;

/// The payload of the kernel that reads the cache, which finds itself in its
/// initrd as well, so that it can start itself anew.
pub(crate) fn with_itself(lab: &Lab, steps: &str) -> Payload {
    let payload = payload(consumer::kernel(), steps);
    let initrd = lab.file("initrd");
    let kernel = fs::read(consumer::kernel()).unwrap();
    let further = xtask::linux::further(&[("kexec/Image".into(), kernel)]).unwrap();
    fs::copy(payload.initrd.as_ref().unwrap(), &initrd).unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(&initrd).unwrap();
    file.write_all(&further).unwrap();
    Payload {
        initrd: Some(initrd),
        bootargs: format!("{} retain_initrd", payload.bootargs),
        ..payload
    }
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
