//! Reports full of anything, written and read back.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::Value;
use warmbus_boot::report::{
    self, Accesses, Anomaly, Bar, Bridge, Buses, CacheStatistics, Capability, Difference,
    ExtendedCapability, Function, HostBridge, HostWindow, Machine, Phase, Report, SelfCheck, SrIov,
    Subsystem, VirtualFunction, Window,
};
use warmbus_pci::Sbdf;

use super::{json_text, summary, tree};

prop_compose! {
    fn machines()(
        model in any::<Option<String>>(),
        exception_level in any::<u8>(),
        cores in any::<u32>(),
        numbers in any::<[u64; 5]>(),
    ) -> Machine {
        let [memory_bytes, timer_hz, image_bytes, heap_peak_bytes, bytes_per_function] = numbers;
        Machine {
            model, exception_level, cores, memory_bytes, timer_hz, image_bytes,
            heap_peak_bytes, bytes_per_function,
        }
    }
}

prop_compose! {
    fn host_bridges()(
        name in any::<String>(),
        segment in any::<u16>(),
        [ecam_base, ecam_size] in any::<[u64; 2]>(),
        [first, last, used, preserve] in any::<[u8; 4]>(),
        windows in proptest::collection::vec(any::<(bool, [u64; 3])>(), 0..3),
    ) -> HostBridge {
        HostBridge {
            name, segment, ecam_base, ecam_size,
            buses: Buses { first, last },
            buses_in_use: Buses { first, last: used },
            preserve: preserve > 127,
            windows: windows
                .into_iter()
                .map(|(prefetchable, [pci_address, cpu_address, size])| HostWindow {
                    kind: "mem64".into(), prefetchable, pci_address, cpu_address, size,
                })
                .collect(),
        }
    }
}

/// Few addresses, so that functions come to lie below each other, below
/// themselves and below what is not there.
fn sbdfs() -> impl Strategy<Value = Sbdf> {
    prop_oneof![
        (0..2_u8, 0..8_u8).prop_map(|(bus, devfn)| Sbdf::from_devfn(0, bus, devfn)),
        any::<(u16, u16)>().prop_map(|(segment, rid)| Sbdf::from_routing_id(segment, rid)),
    ]
}

prop_compose! {
    fn bars()(
        index in any::<u8>(),
        kind in prop_oneof![Just("io"), Just("rom"), Just("vf-mem64"), Just("?")],
        (prefetchable, fixed) in any::<(bool, bool)>(),
        (address, size) in any::<(Option<u64>, Option<u64>)>(),
    ) -> Bar {
        Bar { index, kind: kind.into(), prefetchable, fixed, address, size }
    }
}

prop_compose! {
    fn bridges()(
        [primary, secondary, subordinate] in any::<[u8; 3]>(),
        windows in any::<[Option<(u64, u64)>; 3]>(),
        link_up in any::<Option<bool>>(),
        (hot_plug, ari_forwarding) in any::<(bool, bool)>(),
    ) -> Bridge {
        let [io, memory, prefetchable] =
            windows.map(|window| window.map(|(base, limit)| Window { base, limit }));
        Bridge {
            primary, secondary, subordinate, io, memory, prefetchable, link_up, hot_plug,
            ari_forwarding,
        }
    }
}

prop_compose! {
    fn functions()(
        (sbdf, parent) in (sbdfs(), proptest::option::of(sbdfs())),
        host_bridge in 0..3_u32,
        numbers in any::<[u16; 10]>(),
        class_code in any::<u32>(),
        multi_function in any::<bool>(),
        subsystem in any::<Option<(u16, u16)>>(),
        port_type in proptest::option::of("[a-z-]{0,12}"),
        bars in proptest::collection::vec(bars(), 0..4),
        bridge in proptest::option::of(bridges()),
        sriov in any::<Option<[u16; 5]>>(),
        capabilities in proptest::collection::vec(any::<(u8, u8)>(), 0..4),
        anomalies in proptest::collection::vec(any::<String>(), 0..3),
    ) -> Function {
        Function {
            sbdf, parent, host_bridge,
            vendor_id: numbers[0],
            device_id: numbers[1],
            revision: numbers[2] as u8,
            class_code,
            header_type: numbers[3] as u8,
            multi_function,
            subsystem: subsystem.map(|(vendor_id, device_id)| Subsystem { vendor_id, device_id }),
            port_type: port_type.map(Into::into),
            bars, bridge,
            sriov: sriov.map(|[total_vfs, first_vf_offset, vf_stride, vf_device_id, last]| SrIov {
                total_vfs, first_vf_offset, vf_stride, vf_device_id, last_bus: last as u8,
                num_vfs: first_vf_offset, vfs_enabled: vf_stride > 9,
            }),
            virtual_function: parent.filter(|_| multi_function).map(|physical| VirtualFunction {
                physical, number: numbers[0],
            }),
            retries: class_code,
            ready_nanoseconds: multi_function.then_some(class_code.into()),
            capabilities: capabilities
                .iter()
                .map(|&(id, offset)| Capability { id, offset })
                .collect(),
            extended_capabilities: capabilities
                .iter()
                .map(|&(id, offset)| ExtendedCapability {
                    id: u16::from(id) << 4,
                    offset: u16::from(offset) << 4,
                    version: id,
                })
                .collect(),
            config_bytes: numbers[4],
            cacheable_bytes: numbers[5],
            cached_bytes: numbers[6],
            anomalies,
        }
    }
}

prop_compose! {
    fn reports()(
        result in any::<String>(),
        machine in machines(),
        host_bridges in proptest::collection::vec(host_bridges(), 0..3),
        functions in proptest::collection::vec(functions(), 0..12),
        accesses in any::<[u64; 6]>(),
        cache in any::<[u64; 5]>(),
        phases in proptest::collection::vec(any::<(String, [u64; 3])>(), 0..3),
        self_check in any::<Option<([u64; 2], u16, [u8; 2])>>(),
        anomalies in proptest::collection::vec((proptest::option::of(sbdfs()), any::<String>()), 0..3),
    ) -> Report {
        let [reads, writes, absent_probes, most_reads_of_one_dword, read_backs, cacheable_dwords] =
            accesses;
        let [hits, misses, uncacheable, cache_writes, invalidations] = cache;
        Report {
            schema: report::SCHEMA.into(),
            result, machine, host_bridges, functions,
            accesses: Accesses {
                reads, writes, absent_probes, most_reads_of_one_dword, read_backs,
                cacheable_dwords,
            },
            cache: CacheStatistics {
                hits, misses, uncacheable, writes: cache_writes, invalidations,
            },
            phases: phases
                .into_iter()
                .map(|(name, [ticks, nanoseconds, config_ticks])| Phase {
                    name: name.into(), ticks, nanoseconds, config_ticks,
                })
                .collect(),
            self_check: self_check.map(|([bytes, reads], offset, [cached, hardware])| SelfCheck {
                bytes, reads,
                differences: vec![Difference {
                    sbdf: Sbdf::from_routing_id(0, offset), offset, cached, hardware,
                }],
            }),
            anomalies: anomalies
                .into_iter()
                .map(|(sbdf, text)| Anomaly { sbdf, text })
                .collect(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_report_is_read_back_as_it_was_written(report in reports()) {
        let text = json_text(&report);
        let parsed: Report = serde_json::from_str(&text).expect("the text is JSON");
        prop_assert_eq!(&parsed, &report);
        let whole = serde_json::to_value(&report).expect("a report is JSON");
        let lines: Value = serde_json::from_str(&text).expect("the text is JSON");
        prop_assert_eq!(lines, whole);
    }

    #[test]
    fn any_report_has_each_function_on_a_line_of_its_own(report in reports()) {
        let text = json_text(&report);
        let functions = text.lines().filter(|line| line.contains("\"vendor_id\":"));
        prop_assert_eq!(functions.count(), report.functions.len());
        prop_assert!(text.lines().all(|line| !line.is_empty()));
    }

    #[test]
    fn any_report_prints_each_function_once_however_odd_its_parents(report in reports()) {
        let printed = tree(&report);
        let known = report
            .functions
            .iter()
            .filter(|function| (function.host_bridge as usize) < report.host_bridges.len())
            // Thousands of VFs have no lines unless there is something to report.
            .filter(|function| {
                function.virtual_function.is_none() || !function.anomalies.is_empty()
            });
        let ids: BTreeSet<String> = report
            .functions
            .iter()
            .map(|function| format!("{}  {:04x}:", function.sbdf, function.vendor_id))
            .collect();
        let lines = printed
            .lines()
            .filter(|line| ids.iter().any(|id| line.starts_with(id)));
        prop_assert_eq!(lines.count(), known.count());
        prop_assert!(summary(&report).contains("\nresult       "));
    }
}
