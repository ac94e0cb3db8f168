//! Kernels after kernels: each hands the cache over to the next one by kexec.

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
fn each_of_three_kernels_restores_every_function() {
    let lab = Lab::new();
    let steps = "cache,kexec,cache,compare,kexec,cache,compare";
    let machine = lab.machine("switch").payload(with_itself(&lab, steps));
    let linux = lab.boot_linux(machine).expect("it boots");
    ended_well(&linux);
    consumer::told_the_truth(&linux, 2);
    let functions = linux.boot.report()["functions"].as_array().map(Vec::len);
    let chain = consumer::counters(&linux);
    assert_eq!(chain.len(), 3);
    for counters in chain {
        let log = consumer::log(&linux);
        assert_eq!(Some(counters["restored"] as usize), functions, "{log:?}");
        assert_eq!(counters["rejected"], 0, "{log:?}");
        assert!(
            counters["hits"] >= 10 * counters["restored"],
            "{counters:?}"
        );
    }
}
