//! A made-up machine: a root port with a switch below it, a root port with an
//! SR-IOV endpoint, and one function that misbehaves.

use warmbus_boot::report::{
    Accesses, CacheStatistics, CachedBytes, Difference, Machine, Phase, Report, ReportInput,
    SelfCheck,
};
use warmbus_pci::{
    Anomaly, AnomalyKind, Bar, BarKind, BridgeInfo, BusRange, Capability, CapabilityLists,
    ExtendedCapability, Function, HostBridge, HostWindow, PciRange, PhysAddr, PortType, Sbdf,
    SrIovInfo, Topology, WindowKind,
};

/// A function without anything special.
pub(crate) fn function(
    sbdf: &str,
    ids: (u16, u16),
    class_code: u32,
    parent: Option<usize>,
) -> Function {
    let ids = u32::from(ids.1) << 16 | u32::from(ids.0);
    let sbdf = sbdf.parse().expect(sbdf);
    let lists = CapabilityLists::default();
    let mut function = Function::from_header(sbdf, ids, class_code << 8, 0, &lists);
    function.parent = parent;
    function
}

/// A bridge of `kind` with buses and a memory window.
pub(crate) fn bridge(
    sbdf: &str,
    kind: PortType,
    (secondary, subordinate): (u8, u8),
    memory: Option<(u64, u64)>,
    parent: Option<usize>,
) -> Function {
    let mut bridge = BridgeInfo::default();
    bridge.memory = memory.and_then(|(base, limit)| PciRange::new(base, limit));
    let mut port = function(sbdf, (0x1b36, 0x000c), 0x06_0400, parent);
    bridge.primary = port.sbdf.bus();
    (bridge.secondary, bridge.subordinate) = (secondary, subordinate);
    port.header_type = 1;
    port.port_type = Some(kind);
    port.capabilities = vec![Capability {
        id: 0x10,
        offset: 0x54,
    }];
    port.bridge = Some(bridge);
    port
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
    let buses = BusRange {
        first: 0,
        last: 0xff,
    };
    let window = |kind, pci_address, cpu_address, size| {
        HostWindow::new(kind, pci_address, PhysAddr(cpu_address), size)
    };
    let host = HostBridge::ecam(0, PhysAddr(0x40_1000_0000), buses)
        .with_name("/pcie@10000000")
        .with_window(window(WindowKind::Io, 0, 0x3eff_0000, 0x1_0000))
        .with_window(window(
            WindowKind::Memory32,
            0x1000_0000,
            0x1000_0000,
            0x2eff_0000,
        ))
        .with_window(window(
            WindowKind::Memory64,
            0x80_0000_0000,
            0x80_0000_0000,
            0x80_0000_0000,
        ));
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
    let mut sriov = SrIovInfo::default();
    sriov.total_vfs = 8;
    (sriov.first_vf_offset, sriov.vf_stride) = (0x80, 2);
    sriov.vf_device_id = 0x10ca;
    sriov.last_bus = 6;
    nic.sriov = Some(sriov);
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
