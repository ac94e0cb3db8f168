//! A whole boot on the host: a simulated fabric goes through the pipeline, a
//! kernel is loaded into memory that is not the machine's, and what Linux finds
//! there is read by an independent reader.

#[expect(dead_code, reason = "not every reader is needed here")]
#[path = "kho/reader/mod.rs"]
mod kho_reader;
#[path = "loader/resident.rs"]
mod resident;

use std::cell::RefCell;
use std::collections::BTreeSet;

use kho_reader::{Kernel, pcsc};
use warmbus_boot::handover::HandoverError;
use warmbus_boot::loader::{LoadError, LoadedLinux, Loader, NoHandover};
use warmbus_boot::memory::{BootMemory, UsableMemory};
use warmbus_boot::options::Options;
use warmbus_boot::phase::{Observer, Phase};
use warmbus_boot::pipeline::{Captured, Pipeline};
use warmbus_boot::previous_boot::PreviousBoot;
use warmbus_fdt::{DeviceTree, FdtWriter};
use warmbus_linux::payload::{Module, Payload};
use warmbus_linux::pci_parameters::PciParameters;
use warmbus_machine::{HostNode, Machine};
use warmbus_memory::{MemoryRange, NotMemory, PhysAddr, PhysMemory, RangeSet, TestMemory, crc32};
use warmbus_pci::{
    BusRange, ConfigAccess, ConfigOffset, HostBridge, PciRange, PortType, Sbdf, Width, WindowKind,
};
use warmbus_pcie_sim::{
    BarModel, BridgeWindows, ExpressModel, Fabric, FunctionModel, SECOND, SlotModel, devices,
    topologies,
};
use warmbus_pcsc::ConfigCache;

const MIB: u64 = 1 << 20;
/// The memory of the machine, and what the firmware uses of it.
const RAM: MemoryRange = MemoryRange::new(PhysAddr(0x4000_0000), 1024 * MIB);
const FIRMWARE: MemoryRange = MemoryRange::new(PhysAddr(0x4020_0000), 2 * MIB);
/// Where a loader has put kernel and initrd.
const KERNEL: MemoryRange = MemoryRange::new(PhysAddr(0x4800_0000), MIB);
const INITRD: MemoryRange = MemoryRange::new(PhysAddr(0x4a00_0000), 0x3000);

/// Memory that stands for that of a machine.
struct FakeMemory {
    map: UsableMemory,
    bytes: Vec<u8>,
    cleaned: RefCell<RangeSet>,
    written: RangeSet,
    /// What was written first is damaged by what is written next.
    damages: bool,
    first: Option<MemoryRange>,
}

impl FakeMemory {
    fn new(ram: MemoryRange) -> Self {
        Self {
            map: UsableMemory::new(RangeSet::from_iter([ram]), vec![FIRMWARE]),
            bytes: vec![0; RAM.size as usize],
            cleaned: RefCell::default(),
            written: RangeSet::new(),
            damages: false,
            first: None,
        }
    }

    fn slot(range: MemoryRange) -> std::ops::Range<usize> {
        let start = (range.start.0 - RAM.start.0) as usize;
        start..start + range.size as usize
    }

    fn load(&mut self, range: MemoryRange, bytes: &[u8]) {
        self.bytes[Self::slot(range)][..bytes.len()].copy_from_slice(bytes);
    }
}

impl PhysMemory for FakeMemory {
    fn bytes(&self, range: MemoryRange) -> Result<&[u8], NotMemory> {
        self.map.check(range)?;
        Ok(&self.bytes[Self::slot(range)])
    }
}

impl BootMemory for FakeMemory {
    fn map(&self) -> &UsableMemory {
        &self.map
    }

    fn bytes_mut(&mut self, range: MemoryRange) -> Result<&mut [u8], NotMemory> {
        self.map.check(range)?;
        if let Some(first) = self.first.filter(|_| self.damages) {
            self.bytes[Self::slot(first).start] ^= 0x10;
        }
        self.first.get_or_insert(range);
        self.written.insert(range);
        Ok(&mut self.bytes[Self::slot(range)])
    }

    fn source_and_target(
        &mut self,
        from: MemoryRange,
        to: MemoryRange,
    ) -> Result<(&[u8], &mut [u8]), NotMemory> {
        self.map.check_copy(from, to)?;
        self.written.insert(to);
        let (source, target) = (Self::slot(from), Self::slot(to));
        if source.start < target.start {
            let (low, high) = self.bytes.split_at_mut(target.start);
            Ok((&low[source], &mut high[..to.size as usize]))
        } else {
            let (low, high) = self.bytes.split_at_mut(source.start);
            Ok((&high[..from.size as usize], &mut low[target]))
        }
    }

    fn clean(&self, range: MemoryRange) {
        self.map
            .check(range)
            .expect("only what was written is cleaned");
        self.cleaned.borrow_mut().insert(range);
    }
}

/// An Image with pages of 4 KiB that has `texts` in it, each between two NULs.
fn kernel(texts: &[&str]) -> Vec<u8> {
    let mut image = vec![0; 0x4000];
    image[16..24].copy_from_slice(&(4 * MIB).to_le_bytes());
    image[24] = 0b1010;
    image[56..60].copy_from_slice(b"ARM\x64");
    for (text, slot) in texts.iter().zip(image[0x1001..].chunks_mut(0x100)) {
        slot[..text.len()].copy_from_slice(text.as_bytes());
    }
    image
}

/// A gzip file (RFC 1952) with `content` in one block that is not compressed.
fn gzip(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("one block has room for it");
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1];
    file.extend(length.to_le_bytes());
    file.extend((!length).to_le_bytes());
    file.extend(content);
    file.extend(crc32::checksum(content).to_le_bytes());
    file.extend(u32::from(length).to_le_bytes());
    file
}

const READS_ROUTING: &str = "warmbus,version";

/// The tree of the machine, without what is on PCI.
fn tree(ram: MemoryRange) -> Vec<u8> {
    let mut tree = FdtWriter::new();
    tree.begin_node("");
    tree.property_u32("#address-cells", 2);
    tree.property_u32("#size-cells", 2);
    tree.begin_node("chosen");
    tree.property_string("bootargs", "console=ttyAMA0");
    tree.end_node();
    tree.begin_node("memory@40000000");
    tree.property_string("device_type", "memory");
    let reg = [ram.start.0, ram.size].map(u64::to_be_bytes);
    tree.property("reg", reg.as_flattened());
    tree.end_node();
    for host in [HOST, UNKNOWN] {
        tree.begin_node(&host[1..]);
        tree.end_node();
    }
    tree.end_node();
    tree.finish().expect("it is small")
}

/// The paths of the host bridge of the simulated machines, and of one that is
/// not supported.
const HOST: &str = "/pcie0-00";
const UNKNOWN: &str = "/unknown";

fn host_node(path: &str) -> HostNode {
    HostNode {
        path: path.into(),
        has_domain: false,
        probe_only: None,
    }
}

/// Records which phases were run.
#[derive(Default)]
struct Phases(Vec<Phase>);

impl Observer<Fabric> for Phases {
    fn phase_begins(&mut self, phase: Phase, _: Option<&ConfigCache<Fabric>>) {
        self.0.push(phase);
    }
}

/// A boot: what is different from case to case.
struct Boot {
    fabric: Fabric,
    texts: Vec<&'static str>,
    options: Options,
    /// The host bridges of the tree: the pipeline sees the first one only.
    host_nodes: Vec<HostNode>,
    change_host: fn(&mut HostBridge),
    /// The memory that the tree names.
    ram: MemoryRange,
    /// Where the kernel was loaded, and its command line.
    kernel: MemoryRange,
    /// It is in a gzip file.
    is_packed: bool,
    bootargs: Option<&'static [u8]>,
    memory: FakeMemory,
    previous: PreviousBoot,
    /// The pipeline does not run.
    is_second_start: bool,
    /// Nanoseconds from the scan until the kernel is unpacked.
    unpack_time: u64,
}

/// What a boot ended in.
struct Booted {
    linux: LoadedLinux,
    captured: Option<Captured<Fabric>>,
    memory: FakeMemory,
    phases: Vec<Phase>,
}

impl Boot {
    fn new(fabric: Fabric, texts: &[&'static str]) -> Self {
        Self {
            fabric,
            texts: texts.to_vec(),
            options: Options::default(),
            host_nodes: vec![host_node(HOST)],
            change_host: |_| {},
            ram: RAM,
            kernel: KERNEL,
            is_packed: false,
            bootargs: None,
            memory: FakeMemory::new(RAM),
            previous: PreviousBoot::default(),
            is_second_start: false,
            unpack_time: 0,
        }
    }

    fn try_run(mut self) -> Result<Booted, LoadError> {
        let tree = tree(self.ram);
        let mut machine = Machine::from_device_tree(&tree).expect("it is a machine");
        machine.hosts = self.fabric.host_bridges();
        machine.hosts.iter_mut().for_each(self.change_host);
        machine.host_nodes = self.host_nodes;
        let mut file = kernel(&self.texts);
        if self.is_packed {
            file = gzip(&file);
            self.kernel.size = file.len() as u64;
        }
        self.memory.load(self.kernel, &file);
        self.memory.load(INITRD, b"070701 and so on");
        let module = |range| Module {
            range,
            bootargs: None,
        };
        let module_of_kernel = Module {
            bootargs: self.bootargs,
            ..module(self.kernel)
        };
        let payload = Payload {
            kernel: Some(module_of_kernel),
            ramdisk: Some(module(INITRD)),
            ..Payload::default()
        };
        let mut clock = self.fabric.clock();
        let mut phases = Phases::default();
        let mut captured = (!self.is_second_start).then(|| {
            let parameters = payload.command_line(payload.kernel);
            let parameters = PciParameters::from_command_line(parameters.unwrap_or_default());
            let pipeline = Pipeline::from_options(&self.options)
                .with_pci_parameters(&parameters, &self.options);
            pipeline.run(&machine.hosts, self.fabric, &mut clock, &mut phases)
        });
        clock.advance(self.unpack_time);
        let mut loader = Loader {
            machine: &machine,
            options: &self.options,
            tree: &tree,
            payload: &payload,
            kernel: module_of_kernel,
            memory: self.memory,
            previous: &self.previous,
            generation: 0x1234,
        };
        let linux = loader.load(captured.as_mut(), &mut clock, &mut phases)?;
        Ok(Booted {
            linux,
            captured,
            memory: loader.memory,
            phases: phases.0,
        })
    }

    fn run(self) -> Booted {
        self.try_run().expect("Linux is loaded")
    }
}

impl Booted {
    /// The tree that Linux gets.
    fn tree(&self) -> &[u8] {
        self.memory.bytes(self.linux.tree).expect("it is memory")
    }

    fn chosen(&self, property: &str) -> Option<&[u8]> {
        let tree = DeviceTree::new(self.tree()).expect("Linux can read it");
        let found = tree.root_child_property("chosen", property);
        found.expect("Linux can read it")
    }

    fn is_probe_only(&self) -> bool {
        self.chosen("linux,pci-probe-only").is_some()
    }

    /// A property of the node of a host bridge, as a cell.
    fn cell_of(&self, host: &str, property: &str) -> Option<u32> {
        let tree = DeviceTree::new(self.tree()).expect("Linux can read it");
        let found = tree.root_child_property(&host[1..], property);
        let value = found.expect("Linux can read it")?;
        Some(u32::from_be_bytes(value.try_into().expect("one cell")))
    }

    /// What every boot must keep to: Linux is where it says, what was written
    /// is clean, and nothing else was touched.
    fn assert_loaded(&self) {
        let start = MemoryRange::new(PhysAddr(self.linux.entry), 64);
        let header = self.memory.bytes(start).expect("it is memory");
        assert_eq!(header[56..60], *b"ARM\x64");
        let payload = Payload::find(self.tree()).expect("Linux can read it");
        let initrd = payload.ramdisk.expect("Linux gets its initrd").range;
        assert_eq!(initrd.size, INITRD.size);
        let initrd = self.memory.bytes(initrd).expect("it is memory");
        assert!(initrd.starts_with(b"070701"));
        let cleaned = self.memory.cleaned.borrow();
        for range in &self.memory.written {
            assert!(cleaned.contains_range(*range), "{range} is not clean");
            for loaded in [KERNEL, INITRD, FIRMWARE] {
                assert!(!range.overlaps(loaded), "{range} overlaps {loaded}");
            }
        }
    }

    /// Fails unless Linux starts as without Warmbus, for `reason`.
    #[track_caller]
    fn assert_without_cache(&self, reason: &str) {
        self.assert_loaded();
        let found = self.linux.without_cache.as_ref();
        let found = found.expect("nothing is handed over").to_string();
        assert!(found.contains(reason), "{found}");
        for property in ["linux,kho-fdt", "linux,kho-scratch", "linux,pci-probe-only"] {
            assert_eq!(self.chosen(property), None, "{property}");
        }
    }

    /// The functions that a kernel which reads version `string` finds in the
    /// handover, each with the bytes that it would read from memory.
    #[track_caller]
    fn assert_handed_over(&self, string: &'static str) -> BTreeSet<pcsc::Address> {
        self.assert_handed_over_with(string, None)
    }

    /// The same where a previous kernel has preserved memory in `preserved`.
    #[track_caller]
    fn assert_handed_over_with(
        &self,
        string: &'static str,
        preserved: Option<MemoryRange>,
    ) -> BTreeSet<pcsc::Address> {
        self.assert_loaded();
        assert!(self.linux.without_cache.is_none());
        let captured = self.captured.as_ref().expect("it was captured");
        let payload = Payload::find(self.tree()).expect("Linux can read it");
        let (root, scratch) = payload.handover.expect("/chosen names the handover");
        // What is new is in the arena, which was written in one piece; what
        // goes on is near it.
        let arena = self.memory.first.expect("it was written");
        let start = arena
            .start
            .0
            .min(preserved.map_or(u64::MAX, |range| range.start.0));
        let end = arena.end().max(preserved.map_or(0, MemoryRange::end));
        let range = MemoryRange::from_bounds(start, end);
        let mut window = TestMemory::new(range.start, range.size as usize);
        let bytes = self.memory.bytes(range).expect("it is memory");
        warmbus_memory::PhysMemoryWrite::write(&mut window, range.start, bytes);
        let pair = |range: MemoryRange| (range.start.0, range.size);
        let received = Kernel::readers(string, 12)[0]
            .receive(&window, pair(root), pair(scratch))
            .expect("Linux takes it");
        assert!(!received.scratch.is_empty());
        for &(start, size) in &received.scratch {
            let range = MemoryRange::new(PhysAddr(start), size);
            assert!(RAM.contains(range) && !range.overlaps(arena), "{range}");
        }
        let later = received.under_pressure(pair(scratch));
        let (at, size) = received.subtree("pcsc").expect("it is there");
        let tree = later.get(PhysAddr(at), size as usize).expect("it is kept");
        let restored = pcsc::consume(&later, tree).expect("it can be read");
        for (function, block) in captured.config.blocks() {
            let address = (
                function.segment(),
                function.bus(),
                function.device(),
                function.function(),
            );
            let Some((_, found)) = restored.get(&address) else {
                assert!(block.virtual_function().is_some(), "{function} is missing");
                continue;
            };
            assert_eq!(found.data[..block.data().len()], *block.data());
        }
        restored.into_keys().collect()
    }
}

#[test]
fn a_cache_is_handed_over_and_linux_keeps_what_was_assigned() {
    for (version, fabric) in [
        ("kho-v1", topologies::small()),
        ("kho-v3", topologies::switch()),
        ("kho-v4", topologies::small()),
    ] {
        let functions = fabric.nodes().count();
        let booted = Boot::new(fabric, &[version]).run();
        assert_eq!(booted.assert_handed_over(version).len(), functions);
        assert!(booted.is_probe_only());
        assert!(
            booted
                .linux
                .description
                .contains("keeps all bus numbers and BARs")
        );
        assert_eq!(
            booted.phases,
            [
                Phase::Enumerate,
                Phase::Assign,
                Phase::Capture,
                Phase::Verify,
                Phase::Plan,
                Phase::Unpack,
                Phase::Detect,
                Phase::Build,
                Phase::Tree,
                Phase::Clean,
                Phase::HandoverCheck,
            ]
        );
    }
}

#[test]
fn sixty_four_segments_are_handed_over() {
    let mut fabric = Fabric::new();
    for segment in 0..64 {
        let buses = BusRange {
            first: 0,
            last: 255,
        };
        let host = fabric.add_host(Fabric::host_bridge(segment, buses));
        let port = fabric.add_root(host, 1, 0, devices::root_port(1).link_up());
        fabric.add_below(port, 0, 0, devices::nvme());
    }
    let booted = Boot::new(fabric, &["kho-v4"]).run();
    let functions = booted.assert_handed_over("kho-v4");
    assert_eq!(functions.len(), 128);
    let segments: BTreeSet<u16> = functions.iter().map(|function| function.0).collect();
    assert!(segments.into_iter().eq(0..64));
    assert!(booted.is_probe_only());
}

#[test]
fn linux_assigns_bars_below_a_host_bridge_that_is_not_known_and_below_no_other() {
    for version in ["kho-v1", "kho-v3", "kho-v4"] {
        let mut boot = Boot::new(topologies::small(), &[version]);
        boot.host_nodes.push(host_node(UNKNOWN));
        let booted = boot.run();
        booted.assert_handed_over(version);
        assert!(booted.is_probe_only());
        assert_eq!(booted.cell_of(UNKNOWN, "linux,pci-probe-only"), Some(0));
        assert_eq!(booted.cell_of(HOST, "linux,pci-probe-only"), None);
        let text = "it assigns BARs below /unknown (excluded)";
        assert!(booted.linux.description.contains(text));
    }
}

#[test]
fn a_host_bridge_that_is_handed_over_has_its_segment_number_in_the_tree() {
    let booted = Boot::new(topologies::small(), &["kho-v4"]).run();
    assert_eq!(booted.cell_of(HOST, "linux,pci-domain"), Some(0));
    assert_eq!(booted.cell_of(UNKNOWN, "linux,pci-domain"), None);
    // One that has a number keeps it.
    let mut boot = Boot::new(topologies::small(), &["kho-v4"]);
    boot.host_nodes[0].has_domain = true;
    assert_eq!(boot.run().cell_of(HOST, "linux,pci-domain"), None);
    // Where nothing is handed over, the tree stays as it is.
    let booted = Boot::new(topologies::small(), &[]).run();
    assert_eq!(booted.cell_of(HOST, "linux,pci-domain"), None);
}

#[test]
fn what_linux_resets_is_not_handed_over() {
    let mut boot = Boot::new(topologies::small(), &["kho-v1"]);
    boot.change_host = |host| host.survives_linux_driver = false;
    boot.run()
        .assert_without_cache("Linux resets every function");
}

#[test]
fn a_kernel_without_a_handover_or_with_an_unknown_one_starts_without_the_cache() {
    let booted = Boot::new(topologies::small(), &[]).run();
    booted.assert_without_cache("no Kexec HandOver");
    let booted = Boot::new(topologies::small(), &["kho-v9"]).run();
    booted.assert_without_cache("kho-v9");
    let mut boot = Boot::new(topologies::small(), &["kho-v4"]);
    boot.options = Options::from_bootargs("warmbus.kho=off");
    boot.run().assert_without_cache("warmbus.kho=off");
    let mut boot = Boot::new(topologies::small(), &["kho-v4"]);
    boot.is_second_start = true;
    boot.run().assert_without_cache("no function was captured");
}

#[test]
fn a_machine_without_space_for_a_handover_starts_linux_without_it() {
    let mut boot = Boot::new(topologies::small(), &["kho-v4"]);
    boot.ram = MemoryRange::new(RAM.start, 192 * MIB);
    let small = boot.ram;
    boot.memory = FakeMemory::new(small);
    let booted = boot.run();
    booted.assert_without_cache("of scratch memory");
    assert!(small.contains(booted.linux.tree));
}

#[test]
fn memory_that_is_not_mapped_costs_the_handover_only() {
    let mut boot = Boot::new(topologies::small(), &["kho-v4"]);
    // The arena is at the end of memory, and the tree not in one piece with it.
    let booted = Boot::new(topologies::small(), &["kho-v4"]).run();
    let arena = booted.memory.first.expect("it was written");
    assert!(!arena.overlaps(booted.linux.tree));
    let mapped = RangeSet::from_iter([RAM]).without([arena]);
    boot.memory.map = UsableMemory::new(mapped, vec![FIRMWARE]);
    boot.run().assert_without_cache("is not all memory");
}

#[test]
fn routing_is_probed_for_a_kernel_that_reads_it() {
    let boot = |texts, bootargs| {
        let mut boot = Boot::new(topologies::sriov(1, 8), texts);
        boot.options = Options::from_bootargs(bootargs);
        let booted = boot.run();
        booted.assert_handed_over("kho-v4");
        booted.phases.contains(&Phase::VfRouting)
    };
    assert!(boot(&["kho-v4", READS_ROUTING], ""));
    assert!(!boot(&["kho-v4"], ""));
    assert!(!boot(&["kho-v4", READS_ROUTING], "warmbus.vfs=off"));
    // A version that the command line names is the word of the user.
    assert!(boot(&["kho-v1", READS_ROUTING], "warmbus.kho=v4"));
}

/// Two hot-plug ports, one of them empty, and a port that is none.
fn hot_plug_ports() -> Fabric {
    let (mut fabric, host) = topologies::empty();
    let express = ExpressModel::new(PortType::RootPort)
        .slot(SlotModel::HOT_PLUG)
        .active_reporting();
    let port = || FunctionModel::bridge(0x1234, 4, BridgeWindows::default()).express(express);
    let full = fabric.add_root(host, 1, 0, port().link_up());
    fabric.add_below(full, 0, 0, devices::nvme());
    fabric.add_root(host, 2, 0, port());
    let plain = fabric.add_root(host, 3, 0, devices::root_port(3).link_up());
    fabric.add_below(plain, 0, 0, devices::nvme());
    fabric
}

#[test]
fn hot_plug_ports_get_the_space_that_the_kernel_command_line_asks_for() {
    let boot = |line| {
        let mut boot = Boot::new(hot_plug_ports(), &["kho-v4"]);
        boot.bootargs = Some(line);
        boot.run()
    };
    let size = |window: Option<PciRange>| window.map(|window| window.limit() - window.base() + 1);
    let booted = boot(b"quiet pci=hpbussize=8,hpmmiosize=32M,hpmmioprefsize=4G");
    booted.assert_handed_over("kho-v4");
    assert!(booted.is_probe_only());
    let captured = booted.captured.as_ref().unwrap();
    for device in [1, 2] {
        let port = captured
            .topology
            .function(Sbdf::new(0, 0, device, 0))
            .unwrap();
        let bridge = port.bridge.unwrap();
        assert!(bridge.subordinate - bridge.secondary >= 7, "{bridge:?}");
        assert!(size(bridge.memory) >= Some(32 * MIB), "{bridge:?}");
        assert!(size(bridge.prefetchable) >= Some(4096 * MIB), "{bridge:?}");
    }
    // What does not fit is for Linux to do.
    boot(b"pci=hpmmiosize=4G").assert_without_cache("pci=hpmmiosize");
    boot(b"pci=hpbussize=200").assert_without_cache("pci=hpbussize");
}

#[test]
fn words_that_only_linux_can_obey_have_it_assign_again() {
    for word in [
        "realloc",
        "resource_alignment=20@0000:01:00.0",
        "assign-busses",
        "nocrs",
    ] {
        let line: &'static str = Box::leak(format!("quiet pci=noaer,{word}").into_boxed_str());
        let boot = |version| {
            let mut boot = Boot::new(topologies::small(), &[version]);
            boot.bootargs = Some(line.as_bytes());
            boot.run()
        };
        boot("kho-v4").assert_without_cache(&format!("the kernel command line has pci={word}"));
        let booted = boot("kho-v1");
        booted.assert_handed_over("kho-v1");
        assert!(!booted.is_probe_only(), "{word}");
    }
    let mut boot = Boot::new(topologies::small(), &["kho-v4"]);
    boot.bootargs = Some(b"pci=noaer,pcie_bus_safe,realloc=off");
    let booted = boot.run();
    booted.assert_handed_over("kho-v4");
    assert!(booted.is_probe_only());
}

#[test]
fn a_device_that_comes_after_the_scan_has_linux_assign_again() {
    const LATE: u64 = 5 * SECOND;
    let boot = |device: FunctionModel, port: FunctionModel, unpack_time, version| {
        let (mut fabric, host) = topologies::empty();
        let port = fabric.add_root(host, 1, 0, port);
        fabric.add_below(port, 0, 0, device);
        let mut boot = Boot::new(fabric, &[version]);
        boot.unpack_time = unpack_time;
        boot.run()
    };
    let express = || ExpressModel::new(PortType::RootPort).active_reporting();
    let port =
        |express| FunctionModel::bridge(0x1234, 4, BridgeWindows::default()).express(express);
    // A link that comes up late, seen by no register before.
    let late = || port(express()).link_starts_late(LATE);
    let booted = boot(devices::nvme(), late(), LATE, "kho-v4");
    assert!(booted.phases.contains(&Phase::LatePorts));
    booted.assert_without_cache("0000:00:01.0: a device appeared below the port");
    let booted = boot(devices::nvme(), late(), LATE, "kho-v1");
    booted.assert_handed_over("kho-v1");
    assert!(!booted.is_probe_only());
    // It is not ready when it is looked at.
    let not_ready = devices::nvme().ready_at(LATE + SECOND);
    boot(not_ready, late(), LATE, "kho-v4").assert_without_cache("is not ready");
    // The link trains.
    let trains = port(express()).link_up_at(3 * SECOND);
    boot(devices::nvme(), trains, 0, "kho-v4").assert_without_cache("0000:01:00.0");
    // Nothing came.
    for empty in [port(express()), port(express().slot(SlotModel::HOT_PLUG))] {
        let booted = boot(devices::nvme(), empty, LATE, "kho-v4");
        booted.assert_handed_over("kho-v4");
        assert!(booted.is_probe_only());
    }
}

#[test]
fn linux_assigns_io_addresses_beyond_64_kib() {
    let boot = |change_host: fn(&mut HostBridge)| {
        let (mut fabric, host) = topologies::empty();
        let port = fabric.add_root(host, 1, 0, devices::root_port(1).link_up());
        let device = FunctionModel::endpoint(0x1234, 7, 0x02_0000).bar(0, BarModel::io(0x20));
        fabric.add_below(port, 0, 0, device);
        let mut boot = Boot::new(fabric, &["kho-v4"]);
        boot.change_host = change_host;
        let booted = boot.run();
        assert_eq!(booted.assert_handed_over("kho-v4").len(), 3);
        assert!(booted.is_probe_only());
        booted.cell_of(HOST, "linux,pci-probe-only")
    };
    assert_eq!(boot(|_| {}), None);
    // Bridges of 16 bits do not decode these, and Linux may place the BAR.
    let high: fn(&mut HostBridge) = |host| {
        let mut windows = host.windows.iter_mut();
        let io = windows.find(|window| window.kind == WindowKind::Io);
        io.expect("there is one").pci_address = 0x1_0000;
    };
    assert_eq!(boot(high), Some(0));
    // Nobody can place it without a window.
    assert_eq!(
        boot(|host| host.windows.retain(|window| window.kind != WindowKind::Io)),
        None
    );
}

#[test]
fn linux_assigns_bars_where_one_may_be_resized() {
    let boot = |sizes: &[(u8, u32, u8)]| {
        let (mut fabric, host) = topologies::empty();
        let port = fabric.add_root(host, 1, 0, devices::root_port(1).link_up());
        let gpu = FunctionModel::endpoint(0x1234, 7, 0x03_0000)
            .express(ExpressModel::new(PortType::Endpoint))
            .bar(0, BarModel::memory64(256 * MIB).prefetchable())
            .resizable(sizes);
        fabric.add_below(port, 0, 0, gpu);
        Boot::new(fabric, &["kho-v4"]).run()
    };
    // 256 MiB now, and 16 GiB.
    let booted = boot(&[(0, 1 << 8 | 1 << 14, 8)]);
    assert_eq!(booted.assert_handed_over("kho-v4").len(), 3);
    assert!(booted.is_probe_only());
    assert_eq!(booted.cell_of(HOST, "linux,pci-probe-only"), Some(0));
    let line = "0000:01:00.0: BAR 0 may be made larger";
    let said = &booted.linux.description;
    assert!(said.contains(line), "{said}");
    // It has its largest size, or no window of the host bridge has a larger one.
    for sizes in [(0, 1 << 8, 8), (0, 1 << 8 | 1 << 20, 8)] {
        let booted = boot(&[sizes]);
        booted.assert_handed_over("kho-v4");
        assert_eq!(booted.cell_of(HOST, "linux,pci-probe-only"), None);
    }
}

#[test]
fn a_port_that_is_named_is_waited_for() {
    let boot = |words: &str| {
        let (mut fabric, host) = topologies::empty();
        let express = ExpressModel::new(PortType::RootPort).active_reporting();
        let port = FunctionModel::bridge(0x1234, 4, BridgeWindows::default()).express(express);
        let port = fabric.add_root(host, 1, 0, port.link_starts_late(5 * SECOND));
        fabric.add_below(port, 0, 0, devices::nvme());
        let slow = fabric.add_root(host, 2, 0, devices::root_port(2).link_up());
        fabric.add_below(slow, 0, 0, devices::nvme().ready_at(3 * SECOND));
        let clock = fabric.clock();
        let mut boot = Boot::new(fabric, &["kho-v4"]);
        boot.options = Options::from_bootargs(words);
        assert_eq!(boot.options.warnings, Vec::<String>::new());
        let booted = boot.run();
        let captured = booted.captured.as_ref().expect("it was captured");
        let functions = captured.topology.functions().len();
        (
            functions,
            captured.topology.excluded().to_vec(),
            clock.time() / SECOND,
        )
    };
    // The host bridge and two ports, and what was waited for.
    assert_eq!(boot(""), (3, vec![Sbdf::new(0, 2, 0, 0)], 1));
    assert_eq!(boot("warmbus.wait=4000"), (4, vec![], 3));
    assert_eq!(boot("warmbus.wait=4000,0000:00:01.0=8000"), (5, vec![], 5));
    let port = boot("warmbus.wait=0000:00:01.0=8000");
    assert_eq!((port.0, port.1.len(), port.2), (4, 1, 5));
    // It never comes, and so is nothing that can be kept.
    let never = boot("warmbus.wait=4000,0000:00:01.0=2000");
    assert_eq!((never.0, never.1.len(), never.2), (4, 1, 3));
}

#[test]
fn a_version_that_is_not_known_is_handed_over_under_its_own_name_on_request() {
    let boot = |text, bootargs| {
        let mut boot = Boot::new(topologies::small(), &[text]);
        boot.options = Options::from_bootargs(bootargs);
        boot.run()
    };
    for name in ["kho-v5", "kho-v4;radix-v2", "kho-v4+something"] {
        boot(name, "").assert_without_cache(name);
        let booted = boot(name, "warmbus.kho=like-v4");
        let functions = topologies::small().nodes().count();
        assert_eq!(booted.assert_handed_over(name).len(), functions);
        let line = format!("{name}, laid out as kho-v4");
        assert!(booted.linux.description.contains(&line));
    }
    // A version that is known is not another one.
    boot("kho-v1", "warmbus.kho=like-v4").assert_handed_over("kho-v1");
    boot("kho-v4", "warmbus.kho=like-v4").assert_handed_over("kho-v3");
    boot("nothing", "warmbus.kho=like-v4").assert_without_cache("no Kexec HandOver");
}

#[test]
fn gigantic_pages_come_out_of_scratch_memory_before_7_3_only() {
    let areas = |banner, bootargs| {
        let mut boot = Boot::new(topologies::small(), &["kho-v4", banner]);
        boot.bootargs = Some(bootargs);
        let booted = boot.run();
        booted.assert_handed_over("kho-v4");
        let (_, array) = Payload::find(booted.tree()).unwrap().handover.unwrap();
        array.size / 16
    };
    let (old, new) = ("Linux version 7.2.13 (me)", "Linux version 7.3.4 (me)");
    let plain = areas(old, b"quiet");
    // With pages of 4 KiB, 32 MiB are too many for the page allocator.
    let pages = b"hugepagesz=32M hugepages=2";
    assert_eq!(areas(old, pages), plain + 2);
    assert_eq!(areas(new, pages), plain);
}

#[test]
fn a_kernel_stays_where_it_was_loaded() {
    let booted = Boot::new(topologies::small(), &["kho-v4"]).run();
    booted.assert_handed_over("kho-v4");
    assert_eq!(booted.linux.entry, KERNEL.start.0);
    // The loader may have left it in the data cache.
    let image = MemoryRange::new(KERNEL.start, 4 * MIB);
    assert!(booted.memory.cleaned.borrow().contains_range(image));
}

#[test]
fn a_kernel_that_cannot_stay_is_moved_and_a_packed_one_is_unpacked_elsewhere() {
    let boot = || Boot::new(topologies::small(), &["kho-v4"]);
    // Not at a multiple of 2 MiB, and with the initrd in what Linux clears.
    let (aligned, offset) = (INITRD.start.0 - 2 * MIB, KERNEL.start.0 + 0x1000);
    for (start, packed) in [(offset, false), (aligned, false), (KERNEL.start.0, true)] {
        let mut boot = boot();
        boot.kernel.start = PhysAddr(start);
        boot.is_packed = packed;
        let file = boot.kernel;
        let booted = boot.run();
        booted.assert_handed_over("kho-v4");
        assert_ne!(booted.linux.entry, start);
        let image = MemoryRange::new(PhysAddr(booted.linux.entry), 0x4000);
        let image = booted.memory.bytes(image).expect("it is memory");
        assert_eq!(image, kernel(&["kho-v4"]));
        for range in &booted.memory.written {
            assert!(!range.overlaps(file), "{range} overlaps {file}");
        }
    }
}

#[test]
fn an_assignment_that_cannot_be_is_not_handed_over_and_is_reported() {
    // The first boot assigns; the second finds two bridges with one window.
    let first = Boot::new(topologies::small(), &["kho-v4"]).run();
    let captured = first.captured.expect("it was captured");
    let mut fabric = captured.config.access().clone();
    let memory_window = ConfigOffset::wrapping(0x20);
    let [bridge, other] = [2, 3].map(|device| Sbdf::new(0, 0, device, 0));
    let window = fabric.read(other, memory_window, Width::Dword);
    fabric.write(bridge, memory_window, Width::Dword, window);
    let mut second = Boot::new(fabric, &["kho-v4"]);
    second.change_host = |host| host.preserve_config = true;
    let second = second.run();
    second.assert_without_cache("overlaps");
    let captured = second.captured.as_ref().expect("it was captured");
    let first = captured.inconsistencies.first().expect("there is one");
    let topology = &captured.topology;
    let reported = topology.function(first.function).expect("it is there");
    assert!(reported.anomalies.contains(&first.kind), "{reported:?}");
}

#[test]
fn a_handover_that_is_damaged_is_taken_back() {
    let mut boot = Boot::new(topologies::small(), &["kho-v4"]);
    boot.memory.damages = true;
    let booted = boot.run();
    assert!(booted.phases.contains(&Phase::HandoverCheck));
    let reason = booted.linux.without_cache.as_ref();
    assert!(
        matches!(reason, Some(NoHandover::Failed(HandoverError::Verify(_)))),
        "{reason:?}"
    );
    booted.assert_without_cache("");
}

#[test]
fn a_kernel_in_memory_that_is_in_use_is_an_error() {
    let mut boot = Boot::new(topologies::small(), &[]);
    boot.memory.map.reserve(KERNEL);
    let Err(LoadError::Memory(error)) = boot.try_run() else {
        panic!("a kernel in memory that is in use is loaded");
    };
    assert_eq!(error, NotMemory { range: KERNEL });
}

#[test]
fn a_handover_passes_on_what_the_previous_one_preserved() {
    let first = Boot::new(topologies::small(), &["kho-v4"]).run();
    first.assert_handed_over("kho-v4");
    let payload = Payload::find(first.tree()).expect("Linux can read it");
    let arena = first.memory.first.expect("it was written");
    let before = first.memory.bytes(arena).expect("it is memory").to_vec();

    let mut second = Boot::new(topologies::small(), &["kho-v4"]);
    second.memory.bytes.clone_from(&first.memory.bytes);
    let ram = RangeSet::from_iter([RAM]);
    let mut previous =
        PreviousBoot::reserve_all_but_scratch(payload.handover, &ram, &second.memory);
    let (_, scratch) = payload.handover.expect("/chosen names the handover");
    assert!(previous.reserved.contains_range(arena));
    assert!(previous.reserved.contains_range(scratch));
    assert!(previous.reserved.total() < RAM.size);
    let all_but_scratch = previous.reserved.total();
    previous.parse(&second.memory, 1 << 20);
    let parsed = previous.parsed().expect("it can be read").clone();
    assert!(previous.reserved.total() < all_but_scratch);
    second.previous = previous;
    // Without a previous handover this kernel would get larger areas.
    second.bootargs = Some(b"cma=128M");
    let second = second.run();
    second.assert_handed_over_with("kho-v4", Some(arena));
    assert!(second.linux.description.contains("inherited"));
    // What says which firmware was first is passed on, and not said again.
    let payload = Payload::find(second.tree()).expect("Linux can read it");
    let (root, _) = payload.handover.expect("/chosen names the handover");
    let root = second.memory.bytes(root).expect("it is memory");
    let name = b"kexec-metadata\0";
    let names = root.windows(name.len()).filter(|bytes| bytes == name);
    assert_eq!(names.count(), 1);
    // Nothing that Linux may still read was written to.
    for range in &second.memory.written {
        for reserved in &parsed.reserved {
            assert!(!range.overlaps(*reserved), "{range} overlaps {reserved}");
        }
    }
    let root_page = MemoryRange::new(arena.start, 0x1000);
    assert_eq!(
        second.memory.bytes(root_page).expect("it is memory"),
        &before[..0x1000]
    );
    // Scratch memory stays where it was.
    let payload = Payload::find(second.tree()).expect("Linux can read it");
    let (_, array) = payload.handover.expect("/chosen names the handover");
    let areas = warmbus_kho::scratch_areas(&second.memory, array).expect("it can be read");
    assert_eq!(areas, parsed.scratch);
}

#[test]
fn a_previous_handover_with_too_little_heap_to_read_it_is_passed_on() {
    let first = Boot::new(topologies::small(), &["kho-v4"]).run();
    let payload = Payload::find(first.tree()).expect("Linux can read it");
    let mut second = Boot::new(topologies::small(), &["kho-v4"]);
    second.memory.bytes.clone_from(&first.memory.bytes);
    let ram = RangeSet::from_iter([RAM]);
    let mut previous =
        PreviousBoot::reserve_all_but_scratch(payload.handover, &ram, &second.memory);
    let reserved = previous.reserved.clone();
    previous.parse(&second.memory, 0);
    assert!(previous.parsed().is_none() && previous.handover.is_some());
    assert_eq!(
        previous.reserved, reserved,
        "all but scratch stays reserved"
    );
    second.previous = previous;
    second.run().assert_without_cache("is passed on instead");
}
