//! What makes a cache wrong that does not notice it: resets, removal, hot plug,
//! virtual functions, power states. With `pcsc=verify` the kernel compares each
//! value that it would serve; with `pcsc=on` the test init compares what is
//! served with the hardware, past the kernel.

use std::fs::File;
use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use warmbus_qemu_tests::boot::Lab;
use warmbus_qemu_tests::consumer;
use warmbus_qemu_tests::linux::{LinuxBoot, Moment, payload};
use xtask::qemu::{Machine, Running};

use crate::consumer::{ended_well, everything_was_restored};

/// How long Linux may take to cut the power of a slot.
const SLOTS_OFF: Duration = Duration::from_mins(2);

/// The kernel compared at least `least` values, and found none that differs.
fn nothing_differs(linux: &LinuxBoot, least: u64) {
    ended_well(linux);
    everything_was_restored(linux);
    let counters = consumer::counters(linux);
    let sum = counters.last().expect("there are counters");
    let log = consumer::log(linux);
    println!(
        "{} comparisons, {} differ",
        sum["verified"], sum["differences"]
    );
    assert_eq!(sum["differences"], 0, "{log:?}");
    assert!(sum["verified"] >= least, "{sum:?}");
    for line in log {
        assert!(!line.contains(": register 0x"), "{line}");
    }
}

fn boot(
    lab: &Lab,
    machine: Machine,
    mode: &str,
    steps: &str,
    intervene: impl FnMut(Moment, &mut Running, &LinuxBoot) -> anyhow::Result<()>,
) -> LinuxBoot {
    let mut payload = payload(consumer::kernel(), steps);
    payload.bootargs.extend([" pcsc=", mode]);
    let machine = machine.bootargs(consumer::IN_EACH_MODE);
    lab.boot_linux_with(machine.payload(payload), intervene)
        .expect("it boots")
}

/// At least `least` lines in which the test init says that it did `what`.
fn did(linux: &LinuxBoot, what: &str, least: usize) {
    let lines = consumer::said(linux, what);
    assert!(lines.len() >= least, "{what}: {lines:?}");
}

/// All functions came back after each removal.
fn all_came_back(linux: &LinuxBoot, times: usize) {
    let lines = consumer::said(linux, "found again ");
    assert_eq!(lines.len(), times);
    for line in lines {
        let (now, before) = line.split_once(" of ").expect("two numbers");
        assert_eq!(now, before, "functions before and after");
    }
}

/// The topology `small` with a disk, and two more ports, of which one has a
/// controller that was handed over.
fn machine_with_slots(lab: &Lab) -> Machine {
    let disk = lab.file("disk");
    File::create(&disk).unwrap().set_len(8 << 20).unwrap();
    let drive = format!("if=none,id=d,format=raw,file={}", disk.display());
    lab.machine("small").arguments([
        "-drive",
        &drive,
        "-device",
        "nvme-ns,drive=d,bus=nvme-bus.0",
        "-device",
        "pcie-root-port,id=empty,chassis=8,slot=8",
        "-device",
        "pcie-root-port,id=full,chassis=9,slot=9",
        "-device",
        "nvme,id=cold,serial=c,bus=full",
    ])
}

/// Plugs a controller into the empty slot; pulls both; plugs another device
/// into each.
fn plug(moment: Moment, running: &mut Running, _: &LinuxBoot) -> anyhow::Result<()> {
    let qmp = running.qmp()?;
    let mut run = |command, arguments| qmp.execute(command, &arguments).map(drop);
    match moment {
        Moment::Waiting(0) => run(
            "device_add",
            json!({"driver": "nvme", "id": "hot", "serial": "h", "bus": "empty"}),
        ),
        Moment::Waiting(1) => {
            run("device_del", json!({"id": "hot"}))?;
            run("device_del", json!({"id": "cold"}))
        }
        Moment::Waiting(2) => {
            // Linux has let go of them; it still is to cut the power of the slots,
            // which would take what is plugged in now.
            qmp.wait_until(SLOTS_OFF, "done with its slots", |qmp| {
                let devices = qmp.query_pci()?.to_string();
                Ok(!devices.contains("\"hot\"") && !devices.contains("\"cold\""))
            })?;
            let mut add = |arguments| qmp.execute("device_add", &arguments).map(drop);
            add(json!({"driver": "e1000e", "id": "card", "bus": "empty"}))?;
            add(json!({"driver": "nvme", "id": "other", "serial": "o", "bus": "full"}))
        }
        _ => Ok(()),
    }
}

const SMALL: &str = "cache,io,resets,compare,bus_resets,compare,io,wait,functions:13,compare,\
                     wait,functions:11,wait,functions:13,compare,rescan,compare,io,rescan:ports,\
                     compare,io,cache";

fn small(mode: &str) -> LinuxBoot {
    let lab = Lab::new();
    let linux = boot(&lab, machine_with_slots(&lab), mode, SMALL, plug);
    ended_well(&linux);
    assert_eq!(
        consumer::said(&linux, "functions "),
        ["13", "11", "13"],
        "hot plug"
    );
    did(&linux, "reset flr ", 2);
    did(&linux, "reset pm ", 1);
    did(&linux, "reset bus ", 3);
    did(&linux, "reset subordinate ", 4);
    did(&linux, "io /dev/nvme", 4);
    all_came_back(&linux, 2);
    consumer::matches_hardware(&linux, 6);
    linux
}

#[test]
fn small_verifies() {
    nothing_differs(&small("verify"), 500);
}

#[test]
fn small_serves_what_the_hardware_returns() {
    let linux = small("on");
    everything_was_restored(&linux);
}

#[test]
fn switch_verifies() {
    let lab = Lab::new();
    let steps = "cache,compare,rescan,compare,rescan:ports,compare,cache";
    let linux = boot(&lab, lab.machine("switch"), "verify", steps, |_, _, _| {
        Ok(())
    });
    all_came_back(&linux, 2);
    consumer::matches_hardware(&linux, 3);
    nothing_differs(&linux, 500);
}

#[test]
fn fan_verifies() {
    let lab = Lab::new();
    let steps = "cache,resets,rescan,cache";
    let linux = boot(&lab, lab.machine("fan"), "verify", steps, |_, _, _| Ok(()));
    did(&linux, "reset flr ", 32);
    all_came_back(&linux, 1);
    nothing_differs(&linux, 2500);
}

#[test]
fn sriov_verifies() {
    let lab = Lab::new();
    let steps = "cache,vfs:3,resets:virtual,compare,vfs:0,vfs:2,compare,vfs:0,resets,rescan,\
                 compare,cache";
    let linux = boot(
        &lab,
        lab.machine("sriov"),
        "verify",
        steps,
        |_, _, _| Ok(()),
    );
    did(&linux, "nvme drives ", 4 * (3 + 2));
    did(&linux, "reset flr ", 4 * (3 + 1));
    all_came_back(&linux, 1);
    consumer::matches_hardware(&linux, 3);
    nothing_differs(&linux, 400);
}

/// A root port reports a fatal error, for which Linux resets its link. The drivers
/// save and restore the functions behind it.
#[test]
fn a_link_that_linux_resets_for_a_fatal_error() {
    for mode in ["off", "on", "verify"] {
        let lab = Lab::new();
        // QEMU reports no error of a port without SERR# Enable, in Command.
        let steps = "cache,compare,write:0000:00:02.0@5@5,wait,recovery,compare,resets,compare,\
                     cache";
        let inject = json!({"command-line": "pcie_aer_inject_error rp2 DLP"});
        let linux = boot(
            &lab,
            lab.machine("small"),
            mode,
            steps,
            |moment, running, _| {
                if let Moment::Waiting(_) = moment {
                    let said = running.qmp()?.execute("human-monitor-command", &inject)?;
                    ensure!(said.to_string().contains("OK"), "QEMU says {said}");
                }
                Ok(())
            },
        );
        ended_well(&linux);
        let ends = consumer::said(&linux, "device recovery ");
        assert_eq!(ends, ["successful"], "{mode}");
        consumer::matches_hardware(&linux, 3);
        if mode == "verify" {
            nothing_differs(&linux, 200);
        }
    }
}
