//! Host bridges that only perform dwords, as Linux has them in its table of
//! MCFG quirks.

use std::collections::BTreeMap;

use warmbus_boot::measured_access::MeasuredAccess;
use warmbus_boot::pipeline::{Pipeline, PipelineFailure};
use warmbus_pci::{
    AccessWidths, CamLayout, ConfigAccess, ConfigOffset, HostBridge, HostBridgeAccess, Mechanism,
    PhysAddr, Registers, Sbdf, Width,
};
use warmbus_pcie_sim::{Fabric, devices};

use super::{ROOT, compare, host, machine};

const BASE: u64 = 0x40_0000_0000;
const ENDPOINT: Sbdf = Sbdf::new(0, 4, 0, 0);

/// What a host bridge that only performs dwords does with a narrower read.
#[derive(Clone, Copy, Debug)]
enum Narrow {
    /// It returns ones.
    Ones,
    /// It ignores the lower address bits.
    LowLanes,
}

/// ECAM of a fabric behind such a host bridge.
struct DwordsOnly {
    fabric: Fabric,
    narrow: Narrow,
    /// Narrower reads and writes that reached it.
    narrow_reads: u32,
    narrow_writes: u32,
}

impl DwordsOnly {
    fn new(fabric: &Fabric, narrow: Narrow) -> Self {
        Self {
            fabric: fabric.clone(),
            narrow,
            narrow_reads: 0,
            narrow_writes: 0,
        }
    }
}

fn target(address: PhysAddr) -> (Sbdf, u16) {
    let inside = address.0 - BASE;
    let [devfn, bus] = ((inside >> 12) as u16).to_le_bytes();
    let function = Sbdf::new(0, bus, devfn >> 3, devfn & 7);
    (function, (inside & 0xfff) as u16)
}

impl Registers for DwordsOnly {
    fn read(&mut self, address: PhysAddr, width: Width) -> Option<u32> {
        let (function, offset) = target(address);
        if width != Width::Dword {
            self.narrow_reads += 1;
        }
        Some(match (width, self.narrow) {
            (Width::Byte | Width::Word, Narrow::Ones) => width.ones(),
            (Width::Byte | Width::Word, Narrow::LowLanes) | (Width::Dword, _) => {
                let dword = ConfigOffset::wrapping(offset & !3);
                self.fabric.read(function, dword, Width::Dword) & width.ones()
            }
        })
    }

    fn write(&mut self, address: PhysAddr, width: Width, value: u32) -> Option<()> {
        let (function, offset) = target(address);
        if width != Width::Dword {
            self.narrow_writes += 1;
        }
        let offset = ConfigOffset::wrapping(offset);
        self.fabric.write(function, offset, width, value);
        Some(())
    }
}

fn ecam(fabric: &Fabric, widths: AccessWidths) -> HostBridge {
    let mechanism = Mechanism::Window(CamLayout::ECAM);
    host(fabric, mechanism, BASE, 256 << 20).with_widths(widths)
}

/// Every cached byte, after a capture with a comparison of all of it with the
/// hardware, and why that failed if it did.
fn capture<A: ConfigAccess>(
    host: &HostBridge,
    access: A,
    fabric: &Fabric,
) -> (BTreeMap<(Sbdf, u16), u8>, Option<PipelineFailure>) {
    let pipeline = Pipeline {
        self_check: true,
        ..Pipeline::default()
    };
    let mut clock = fabric.clock();
    let access = MeasuredAccess::new(access, ());
    let hosts = [host.clone()];
    let captured = pipeline.run(&hosts, access, &mut clock, &mut ());
    let failure = captured.failure();
    let mut cached = BTreeMap::new();
    for (function, block) in captured.config.blocks() {
        for offset in (0..block.size()).map(ConfigOffset::wrapping) {
            if block.is_cached(offset) {
                cached.insert((function, offset.get()), block.data()[offset.index()]);
            }
        }
    }
    (cached, failure)
}

#[test]
fn a_host_of_dword_reads_gets_no_other_and_the_cache_is_right() {
    let fabric = machine();
    let (truth, failure) = capture(&ecam(&fabric, AccessWidths::All), fabric.clone(), &fabric);
    assert_eq!(failure, None);
    for widths in [AccessWidths::DwordReads, AccessWidths::Dwords] {
        for narrow in [Narrow::Ones, Narrow::LowLanes] {
            let mut registers = DwordsOnly::new(&fabric, narrow);
            let mut access = HostBridgeAccess::new(&mut registers);
            let mut host = ecam(&fabric, widths);
            access.add(&mut host).unwrap();
            let (cached, failure) = capture(&host, &mut access, &fabric);
            assert_eq!(failure, None, "{widths:?} {narrow:?}");
            for (at, byte) in &cached {
                assert_eq!(truth.get(at), Some(byte), "{at:x?}");
            }
            // What cannot be read apart from a byte that must not be read.
            let missing = truth.len() - cached.len();
            assert!(missing <= truth.len() / 50, "{missing} of {}", truth.len());
            compare(&mut access, &fabric);
            drop(access);
            assert_eq!(registers.narrow_reads, 0, "{widths:?} {narrow:?}");
            assert_eq!(registers.fabric.log().violations(), []);
        }
    }
}

/// Power Budgeting has a byte that is cached and three that no register has.
#[test]
fn a_dword_with_a_byte_that_must_not_be_read_is_not_read_by_dwords() {
    let (mut fabric, bridge) = Fabric::with_buses(0, 255);
    let model = devices::nvme().extended(0x04, 1, &[0; 3]);
    let node = fabric.add_root(bridge, 0, 0, model);
    fabric.log_mut().record();
    let start = (0x100..0x1000)
        .step_by(4)
        .find(|&at| fabric.peek(node, at, Width::Word) == 0x04)
        .unwrap();
    for (widths, reads) in [(AccessWidths::All, 1), (AccessWidths::DwordReads, 0)] {
        let mut registers = DwordsOnly::new(&fabric, Narrow::LowLanes);
        let mut access = HostBridgeAccess::new(&mut registers);
        let mut host = ecam(&fabric, widths);
        access.add(&mut host).unwrap();
        let hosts = [host];
        let access = MeasuredAccess::new(access, ());
        let captured = Pipeline::default().run(&hosts, access, &mut fabric.clock(), &mut ());
        let block = captured.config.block(ROOT).unwrap();
        assert!(block.is_cached(ConfigOffset::wrapping(start + 8 + 4)));
        let is_cached = block.is_cached(ConfigOffset::wrapping(start + 4));
        assert_eq!(is_cached, reads == 1, "{widths:?}");
        drop(captured);
        let log = registers.fabric.log();
        assert_eq!(log.reads_of(node, start + 4), reads, "{widths:?}");
    }
}

#[test]
fn the_check_notices_a_host_of_dword_reads_that_nobody_knows() {
    let fabric = machine();
    for narrow in [Narrow::Ones, Narrow::LowLanes] {
        let mut access = HostBridgeAccess::new(DwordsOnly::new(&fabric, narrow));
        let mut host = ecam(&fabric, AccessWidths::All);
        access.add(&mut host).unwrap();
        let (_, failure) = capture(&host, access, &fabric);
        let found =
            matches!(failure, Some(PipelineFailure::CacheDiffers { count, .. }) if count > 20);
        assert!(found, "{narrow:?}: {failure:?}");
    }
}

#[test]
fn a_narrow_write_is_never_made_of_a_wider_one() {
    let fabric = machine();
    let command = ConfigOffset::wrapping(4);
    let write = |widths, width| {
        let mut registers = DwordsOnly::new(&fabric, Narrow::Ones);
        let mut access = HostBridgeAccess::new(&mut registers);
        access.add(&mut ecam(&fabric, widths)).unwrap();
        access.write(ENDPOINT, command, width, 6);
        let fault = access.take_fault().map(|fault| fault.offset);
        drop(access);
        let writes = registers.fabric.log().writes();
        (writes, registers.narrow_writes, fault)
    };
    assert_eq!(write(AccessWidths::All, Width::Word), (1, 1, None));
    assert_eq!(write(AccessWidths::DwordReads, Width::Word), (1, 1, None));
    for width in [Width::Byte, Width::Word] {
        assert_eq!(write(AccessWidths::Dwords, width), (0, 0, Some(command)));
    }
    assert_eq!(write(AccessWidths::Dwords, Width::Dword), (1, 0, None));
}
