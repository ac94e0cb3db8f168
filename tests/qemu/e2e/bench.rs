//! The benchmark counts the same every time, and what it wrote down is still so.

use std::process::Command;

use warmbus_cli::trace;
use warmbus_qemu_tests::boot::{Lab, booted, image, topology};
use xtask::bench::contender::Contender;
use xtask::bench::instructions::Instructions;
use xtask::bench::measure::Measure;
use xtask::bench::results::Results;
use xtask::bench::time::{Case, Peer, Times};
use xtask::{paths, test};

#[test]
fn a_quick_run_counts_what_is_written_down() {
    let lab = Lab::new();
    let output = Command::new("cargo")
        .args(["xtask", "bench", "--quick", "--output"])
        .arg(lab.path())
        .current_dir(paths::root())
        .output()
        .expect("cargo starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");

    let now = Results::load(&lab.file("bench.json")).expect("it wrote results");
    let [small] = &now.topologies[..] else {
        panic!("{} topologies", now.topologies.len());
    };
    // Another boot, counted by itself.
    let boot = booted("small");
    let counts = trace::counts(&boot.accesses());
    let warmbus = small.measure(Contender::Warmbus).expect("it was measured");
    assert_eq!(
        (warmbus.reads, warmbus.writes),
        (counts.reads, counts.writes)
    );
    assert_eq!(small.functions, Some(boot.pci().len() as u64));

    let table = String::from_utf8_lossy(&output.stdout);
    for contender in [
        Contender::Warmbus,
        Contender::LinuxStock,
        Contender::LinuxAfterWarmbus,
    ] {
        let row = table
            .lines()
            .find(|line| line.starts_with(contender.title()));
        assert!(row.is_some(), "no row of {} in\n{table}", contender.title());
    }
    let of = |contender| small.measure(contender).expect("it was measured").reads;
    assert!(of(Contender::LinuxAfterWarmbus) < of(Contender::LinuxStock));

    let kept = paths::root().join("bench/results/bench.json");
    let kept = Results::load(&kept).expect("results are written down");
    let (compared, differences) = now.compare(&kept);
    assert_eq!(
        differences,
        Vec::<String>::new(),
        "`cargo xtask bench` is due"
    );
    println!(
        "{compared} counts of {} are the same",
        small.contenders.len()
    );
}

#[test]
fn what_is_written_down_is_whole() {
    let kept = paths::root().join("bench/results/bench.json");
    let kept = Results::load(&kept).expect("results are written down");
    let names: Vec<&str> = kept.topologies.iter().map(|case| &*case.name).collect();
    let all = xtask::topology::all().expect("the board has topologies");
    assert_eq!(names.len(), all.len(), "{names:?}");
    for case in &kept.topologies {
        let contenders: Vec<_> = case.contenders.iter().map(|row| row.contender).collect();
        assert_eq!(contenders, Contender::ALL, "{}", case.name);
    }
    let sizes: Vec<_> = kept.sizes.iter().map(|case| case.functions).collect();
    assert_eq!(sizes, [8, 64, 512, 2048].map(Some));
    assert!(!kept.virtual_machines.is_empty());
    assert!(!kept.versions.warmbus.ends_with('+'), "of a commit");
}

#[test]
fn no_phase_of_the_firmware_takes_more_instructions_than_are_written_down() {
    let kept = Instructions::published().expect("they are written down");
    let now = Instructions::measure(image()).expect("it boots");
    assert_eq!(now.rises(&kept), Vec::<String>::new());
    for (topology, phases) in &kept.topologies {
        let phases = phases.keys().collect::<Vec<_>>();
        let of_now = now.topologies[topology].keys().collect::<Vec<_>>();
        assert_eq!(phases, of_now, "`cargo xtask bench --instructions` is due");
    }
}

#[test]
fn the_firmware_takes_no_more_instructions_to_linux_than_are_written_down() {
    let kept = Times::published().expect("they are written down");
    let topologies = ["small", "fan"].map(topology);
    let peers = [Peer::WarmbusLinuxStock, Peer::WarmbusLinux];
    let cases = topologies.each_ref().map(|topology| Case {
        peers: &peers,
        ..Case::boot(topology)
    });
    let now = Times::measure(image(), &cases, |_, _| ()).expect("all boot");
    assert_eq!(now.rises(&kept), Vec::<String>::new());
    let phases = Instructions::published().expect("they are written down");
    for (topology, boots) in &now.topologies {
        // The phases are all of it, but for the jump and what is printed before.
        let all = boots[&Peer::WarmbusLinuxStock].firmware;
        let all = all.expect("it is Warmbus").work.instructions;
        let phases: u64 = phases.topologies[topology].values().sum();
        let share = 98..=100;
        assert!(share.contains(&(phases * 100 / all)), "{phases} of {all}");
        for (&peer, timed) in boots {
            let firmware = timed.firmware.expect("it is Warmbus");
            let of_kept = kept.get(topology, peer).expect("it is written down");
            let accesses = of_kept.firmware.expect("it is Warmbus").work.accesses;
            assert_eq!(firmware.work.accesses, accesses, "{topology}: {peer:?}");
            assert!(firmware.console_bytes <= 1000, "{topology}: {firmware:?}");
        }
    }
}

#[test]
fn a_boot_takes_the_same_instructions_in_every_run() {
    let measure = || {
        let small = topology("small");
        let peers = [
            Peer::UBootLinuxStock,
            Peer::WarmbusLinux,
            Peer::Edk2WarmbusLinux,
        ];
        let case = Case {
            peers: &peers[..if test::is_long() { 3 } else { 2 }],
            ..Case::boot(&small)
        };
        Times::measure(image(), &[case], |_, _| ()).expect("all boot")
    };
    let (first, second) = (measure(), measure());
    assert_eq!(first, second);
    // What both benchmarks count of the firmware is the same.
    let kept = paths::root().join("bench/results/bench.json");
    let kept = Results::load(&kept).expect("results are written down");
    let small = kept.topologies.iter().find(|case| case.name == "small");
    for (peer, contender) in [
        (Peer::UBootLinuxStock, Contender::UBoot),
        (Peer::WarmbusLinux, Contender::Warmbus),
    ] {
        let counted = small.and_then(|case| case.measure(contender));
        let timed = first.get("small", peer).expect("it booted");
        let accesses = timed.firmware.map(|firmware| firmware.work.accesses);
        assert_eq!(accesses, counted.map(Measure::total), "{peer:?}");
    }
}
