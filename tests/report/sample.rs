//! A made-up machine: a root port with a switch below it, a root port with an
//! SR-IOV endpoint, and one function that misbehaves.

use warmbus_boot::report::{
    Accesses, CacheStatistics, CachedBytes, Difference, Machine, Phase, Report, ReportInput,
    SelfCheck,
};
use warmbus_pci::{
    Anomaly, AnomalyKind, Bar, BarKind, BridgeInfo, BusRange, CamLayout, Capability,
    ExtendedCapability, Function, HostBridge, HostWindow, Mechanism, PciRange, PhysAddr, PortType,
    Sbdf, SrIovInfo, Topology, WindowKind,
};

/// A function without anything special.
pub(crate) fn function(
    sbdf: &str,
    ids: (u16, u16),
    class_code: u32,
    parent: Option<usize>,
) -> Function {
    Function {
        sbdf: sbdf.parse().expect(sbdf),
        host: 0,
        parent,
        vendor_id: ids.0,
        device_id: ids.1,
        revision: 0,
        class_code,
        header_type: 0,
        multi_function: false,
        port_type: None,
        capabilities: vec![],
        extended_capabilities: vec![],
        bars: vec![],
        bridge: None,
        sriov: None,
        virtual_function: None,
        anomalies: vec![],
    }
}

/// A bridge of `kind` with buses and a memory window.
pub(crate) fn bridge(
    sbdf: &str,
    kind: PortType,
    (secondary, subordinate): (u8, u8),
    memory: Option<(u64, u64)>,
    parent: Option<usize>,
) -> Function {
    let plain = function(sbdf, (0x1b36, 0x000c), 0x06_0400, parent);
    Function {
        header_type: 1,
        port_type: Some(kind),
        capabilities: vec![Capability {
            id: 0x10,
            offset: 0x54,
        }],
        bridge: Some(BridgeInfo {
            primary: plain.sbdf.bus(),
            secondary,
            subordinate,
            io: None,
            memory: memory.and_then(|(base, limit)| PciRange::new(base, limit)),
            prefetchable: None,
            link_up: None,
            hot_plug: false,
            ari_forwarding: false,
        }),
        ..plain
    }
}

/// A memory or I/O BAR.
pub(crate) fn bar(index: u8, kind: BarKind, address: Option<u64>, size: u64) -> Bar {
    Bar {
        index,
        kind,
        prefetchable: matches!(kind, BarKind::Memory64 | BarKind::VfMemory64),
        fixed: false,
        address,
        size: Some(size),
    }
}

pub(crate) fn host() -> (HostBridge, BusRange) {
    let window = |kind, pci_address, cpu_address, size| HostWindow {
        kind,
        prefetchable: false,
        pci_address,
        cpu_address: PhysAddr(cpu_address),
        size,
    };
    let host = HostBridge {
        name: "/pcie@10000000".into(),
        segment: 0,
        mechanism: Mechanism::Window(CamLayout::ECAM),
        ecam_base: PhysAddr(0x40_1000_0000),
        ecam_size: 0x1000_0000,
        buses: BusRange {
            first: 0,
            last: 0xff,
        },
        windows: vec![
            window(WindowKind::Io, 0, 0x3eff_0000, 0x1_0000),
            window(WindowKind::Memory32, 0x1000_0000, 0x1000_0000, 0x2eff_0000),
            window(
                WindowKind::Memory64,
                0x80_0000_0000,
                0x80_0000_0000,
                0x80_0000_0000,
            ),
        ],
        preserve: false,
        kept: true,
    };
    (host, BusRange { first: 0, last: 6 })
}

fn nvme() -> Function {
    let mut nvme = function("03:00.0", (0x1b36, 0x0010), 0x01_0802, Some(3));
    nvme.port_type = Some(PortType::Endpoint);
    nvme.bars = vec![
        bar(0, BarKind::Memory64, Some(0x1000_0000), 0x4000),
        bar(6, BarKind::Rom, None, 0x4_0000),
    ];
    nvme.capabilities = vec![
        Capability {
            id: 0x01,
            offset: 0x60,
        },
        Capability {
            id: 0x10,
            offset: 0x80,
        },
        Capability {
            id: 0x11,
            offset: 0x40,
        },
    ];
    nvme.extended_capabilities = vec![
        ExtendedCapability {
            id: 1,
            version: 2,
            offset: 0x100,
        },
        ExtendedCapability {
            id: 3,
            version: 1,
            offset: 0x150,
        },
    ];
    nvme
}

fn nic() -> Function {
    let mut nic = function("05:00.0", (0x8086, 0x10c9), 0x02_0000, Some(6));
    nic.port_type = Some(PortType::Endpoint);
    nic.multi_function = true;
    nic.bars = vec![
        bar(0, BarKind::Memory32, Some(0x1040_0000), 0x2_0000),
        bar(2, BarKind::Io, Some(0x2000), 0x20),
        bar(7, BarKind::VfMemory64, Some(0x80_0010_0000), 0x4000),
    ];
    nic.sriov = Some(SrIovInfo {
        total_vfs: 8,
        first_vf_offset: 0x80,
        vf_stride: 2,
        vf_device_id: 0x10ca,
        last_bus: 6,
        num_vfs: 0,
        vfs_enabled: false,
        num_vfs_register: Some(0),
    });
    nic
}

pub(crate) fn topology() -> Topology {
    let mut root_port = bridge(
        "00:01.0",
        PortType::RootPort,
        (1, 4),
        Some((0x1000_0000, 0x101f_ffff)),
        None,
    );
    if let Some(bridge) = &mut root_port.bridge {
        bridge.io = PciRange::new(0x1000, 0x1fff);
        bridge.prefetchable = PciRange::new(0x80_0000_0000, 0x80_000f_ffff);
        bridge.link_up = Some(true);
    }
    let mut empty_port = bridge("02:01.0", PortType::DownstreamPort, (4, 4), None, Some(2));
    if let Some(bridge) = &mut empty_port.bridge {
        bridge.link_up = Some(false);
        bridge.hot_plug = true;
    }
    let mut odd = function("05:00.1", (0x1234, 0x5678), 0xff_0000, Some(6));
    odd.anomalies = vec![AnomalyKind::CapabilityLoop {
        from: 0x41,
        to: 0x40,
    }];
    let functions = vec![
        function("00:00.0", (0x1b36, 0x0008), 0x06_0000, None),
        root_port,
        bridge(
            "01:00.0",
            PortType::UpstreamPort,
            (2, 4),
            Some((0x1000_0000, 0x101f_ffff)),
            Some(1),
        ),
        bridge(
            "02:00.0",
            PortType::DownstreamPort,
            (3, 3),
            Some((0x1000_0000, 0x101f_ffff)),
            Some(2),
        ),
        nvme(),
        empty_port,
        bridge(
            "00:02.0",
            PortType::RootPort,
            (5, 6),
            Some((0x1040_0000, 0x104f_ffff)),
            None,
        ),
        nic(),
        odd,
    ];
    Topology::new(vec![host()], functions).with_anomalies([Anomaly::new(
        Sbdf::new(0, 0, 3, 0),
        AnomalyKind::NotReady { milliseconds: 1000 },
    )])
}

pub(crate) fn facts(topology: &Topology) -> ReportInput<'_> {
    let phase = |name: &'static str, ticks, config_ticks| Phase {
        name: name.into(),
        ticks,
        nanoseconds: ticks * 16,
        config_ticks,
    };
    ReportInput {
        topology,
        machine: Machine {
            model: Some("linux,dummy-virt".into()),
            exception_level: 1,
            cores: 4,
            memory_bytes: 1 << 31,
            timer_hz: 62_500_000,
            image_bytes: 190_000,
            heap_peak_bytes: 100_000,
            bytes_per_function: 0,
        },
        accesses: Accesses {
            reads: 900,
            writes: 120,
            absent_probes: 33,
            most_reads_of_one_dword: 1,
            read_backs: 20,
            cacheable_dwords: 640,
        },
        cache: CacheStatistics {
            hits: 400,
            misses: 700,
            uncacheable: 50,
            writes: 120,
            invalidations: 480,
        },
        phases: vec![
            phase("enumerate", 100_000, 80_000),
            phase("assign", 50_000, 20_000),
            phase("capture", 40_000, 39_000),
        ],
        self_check: Some(SelfCheck {
            bytes: 1234,
            reads: 400,
            differences: vec![Difference {
                sbdf: Sbdf::new(0, 3, 0, 0),
                offset: 0x44,
                cached: 1,
                hardware: 0x1f,
            }],
        }),
        anomalies: vec![],
        result: Ok(()),
    }
}

/// A configuration space with the storage function's subsystem IDs.
pub(crate) static SPACE: [u8; 4096] = {
    let mut space = [0; 4096];
    space[0x2c] = 0xf4;
    space[0x2d] = 0x1a;
    space[0x2f] = 0x11;
    space
};

/// The report of [`topology`], with the storage function alone cached.
pub(crate) fn report() -> Report {
    Report::new(facts(&topology()), &|sbdf| {
        (sbdf == Sbdf::new(0, 3, 0, 0)).then_some(CachedBytes {
            size: SPACE.len() as u16,
            data: &SPACE,
            cacheable: 700,
            cached: 690,
        })
    })
}
