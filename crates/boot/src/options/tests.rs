use super::*;

#[test]
fn words_of_others_are_not_looked_at() {
    let line = "console=ttyAMA0 root=/dev/vda warmbus_x=1 foo.warmbus.preserve nowarmbus.verify warmbus.test=summary";
    assert_eq!(Options::from_bootargs(line), Options::default());
}

#[test]
fn every_word_does_what_it_says() {
    let options = Options::from_bootargs(
        "quiet warmbus.loglevel=trace warmbus.preserve\twarmbus.controllers warmbus.verify warmbus.report warmbus.show=summary,tree warmbus.lspci  warmbus.hotplug_buses=8 warmbus.wait=5000,0001:00:02.0=60001 warmbus.probe_only warmbus.kho=v3 warmbus.vfs=all,keep,0001:02:00.0=16 warmbus.kernel=0x10010000000,4096 warmbus.initrd=8192,0x20",
    );
    assert_eq!(
        options,
        Options {
            log_level: LevelFilter::Trace,
            preserve: true,
            controllers: true,
            verify: true,
            report: true,
            show: Show {
                tree: true,
                summary: true
            },
            lspci: true,
            hotplug_buses: Some(8),
            wait: Some(Duration::from_secs(5)),
            port_waits: alloc::vec![(Sbdf::new(1, 0, 2, 0), Duration::from_millis(60_001))],
            probe_only: true,
            kho: KhoChoice::Abi(KhoAbi::V3),
            vfs: VfPolicy {
                scope: VfScope::All,
                listed: alloc::vec![(Sbdf::new(1, 2, 0, 0), 16)],
                keep: true,
            },
            kernel: Some(MemoryRange::new(PhysAddr(0x100_1000_0000), 4096)),
            initrd: Some(MemoryRange::new(PhysAddr(8192), 0x20)),
            names_kernel: true,
            warnings: Vec::new(),
        }
    );
}

#[test]
fn words_that_are_not_understood_become_warnings_and_change_nothing() {
    for word in [
        "warmbus.",
        "warmbus.loglevel",
        "warmbus.loglevel=",
        "warmbus.loglevel=INFO",
        "warmbus.loglevel=loud",
        "warmbus.preserve=1",
        "warmbus.hotplug_buses",
        "warmbus.hotplug_buses=256",
        "warmbus.hotplug_buses=-1",
        "warmbus.wait",
        "warmbus.wait=",
        "warmbus.wait=-1",
        "warmbus.wait=5000,",
        "warmbus.wait=port=5",
        "warmbus.cores",
        "warmbus.cores=0",
        "warmbus.cores=all",
        "warmbus.probe_only=1",
        "warmbus.kho",
        "warmbus.kho=",
        "warmbus.kho=v2",
        "warmbus.kho=V4",
        "warmbus.vfs",
        "warmbus.vfs=",
        "warmbus.vfs=some",
        "warmbus.vfs=all,",
        "warmbus.vfs=0000:01:00.0",
        "warmbus.vfs=0000:01:00.0=65536",
        "warmbus.vfs=01:00=3",
        "warmbus.kernel",
        "warmbus.kernel=0x1000",
        "warmbus.kernel=0x1000,0",
        "warmbus.kernel=0x1000,4096,1",
        "warmbus.initrd=,",
        "warmbus.kernel=ffff,4096",
        "warmbus.kernel=0xfffffffffffff000,0x1001",
        "warmbus.unknown",
    ] {
        let options = Options::from_bootargs(word);
        assert_eq!(
            options.warnings,
            [format!("the boot argument \"{word}\" is not understood")]
        );
        assert_eq!(options.names_kernel, word.starts_with("warmbus.kernel"));
        let silent = Options {
            names_kernel: false,
            warnings: Vec::new(),
            ..options
        };
        assert_eq!(silent, Options::default(), "{word}");
    }
}

#[test]
fn the_last_of_two_words_counts() {
    let options = Options::from_bootargs("warmbus.loglevel=off warmbus.loglevel=debug");
    assert_eq!(options.log_level, LevelFilter::Debug);
}

#[test]
fn what_linux_would_only_free_is_handed_over_on_request_only() {
    let off = "quiet pcsc=off";
    assert_eq!(KhoChoice::Auto.for_linux(off), KhoChoice::UnusedByLinux);
    let chosen = KhoChoice::Abi(KhoAbi::V4);
    for choice in [KhoChoice::Off, KhoChoice::LikeV4, chosen] {
        assert_eq!(choice.for_linux(off), choice);
    }
    assert_eq!(KhoChoice::Auto.for_linux("pcsc=on"), KhoChoice::Auto);
}

#[test]
fn every_choice_of_a_handover_has_its_word() {
    for (word, choice) in [
        ("auto", KhoChoice::Auto),
        ("off", KhoChoice::Off),
        ("like-v4", KhoChoice::LikeV4),
        ("v1", KhoChoice::Abi(KhoAbi::V1)),
        ("v3", KhoChoice::Abi(KhoAbi::V3)),
        ("v4", KhoChoice::Abi(KhoAbi::V4)),
    ] {
        let options = Options::from_bootargs(&format!("warmbus.kho={word}"));
        assert_eq!((options.kho, options.warnings.len()), (choice, 0));
    }
}

#[test]
fn quoted_words_and_those_for_init_are_not_ours() {
    let line = "dyndbg=\"file a warmbus.preserve +p\" -- warmbus.verify";
    assert_eq!(Options::from_bootargs(line), Options::default());
}
