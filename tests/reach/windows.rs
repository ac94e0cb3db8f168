//! One window for all buses: where each register is, and where none can be.

use warmbus_memory::MemoryRange;
use warmbus_pci::{
    BusRange, CamLayout, ConfigAccess, ConfigOffset, HostBridge, HostBridgeAccess, Mechanism,
    PhysAddr, Registers, Sbdf, Width,
};
use warmbus_pcie_sim::Fabric;

/// Answers every read with the address that was asked for.
struct Echo {
    written: Vec<(u64, Width, u32)>,
    refused: Option<u64>,
}

impl Registers for Echo {
    fn read(&mut self, address: PhysAddr, _: Width) -> Option<u32> {
        (self.refused != Some(address.0)).then_some(address.0 as u32)
    }

    fn write(&mut self, address: PhysAddr, width: Width, value: u32) -> Option<()> {
        self.written.push((address.0, width, value));
        (self.refused != Some(address.0)).then_some(())
    }
}

fn host(shape: CamLayout, first: u8) -> HostBridge {
    let mut host = Fabric::host_bridge(3, BusRange { first, last: 0x7e });
    host.mechanism = Mechanism::Window(shape);
    host.ecam_base = PhysAddr(0x4000_0000);
    host
}

fn reach(shape: CamLayout, first: u8) -> HostBridgeAccess<Echo> {
    let mut reach = HostBridgeAccess::new(Echo {
        written: Vec::new(),
        refused: None,
    });
    reach.add(&mut host(shape, first)).unwrap();
    reach
}

fn read(reach: &mut HostBridgeAccess<Echo>, bus: u8, device: u8, function: u8, offset: u16) -> u32 {
    let function = Sbdf::new(3, bus, device, function);
    reach.read(function, ConfigOffset::wrapping(offset), Width::Dword)
}

const NOTHING: u32 = u32::MAX;

#[test]
fn ecam_has_4_kib_a_function_from_the_first_bus_on() {
    let mut reach = reach(CamLayout::ECAM, 0x10);
    assert_eq!(read(&mut reach, 0x10, 0, 0, 0), 0x4000_0000);
    assert_eq!(read(&mut reach, 0x12, 3, 5, 0xabc), 0x4021_dabc);
    assert_eq!(read(&mut reach, 0x0f, 0, 0, 0), NOTHING);
    assert_eq!(read(&mut reach, 0x7f, 0, 0, 0), NOTHING);
    let elsewhere = Sbdf::new(2, 0x10, 0, 0);
    let read = reach.read(elsewhere, ConfigOffset::wrapping(0), Width::Dword);
    assert_eq!(read, NOTHING);
}

#[test]
fn cam_has_256_bytes_a_function_and_nothing_after_them() {
    let cam = CamLayout {
        bus_shift: 16,
        single_device_on_root_bus: false,
    };
    let mut reach = reach(cam, 0);
    assert_eq!(read(&mut reach, 0, 31, 7, 0xfc), 0x4000_fffc);
    assert_eq!(read(&mut reach, 2, 3, 5, 0x40), 0x4002_1d40);
    // The next address would be that of the next function.
    assert_eq!(read(&mut reach, 2, 3, 5, 0x100), NOTHING);
    assert_eq!(
        host(cam, 0).regions(),
        [MemoryRange::new(PhysAddr(0x4000_0000), 0x7f_0000)]
    );
}

#[test]
fn where_one_device_would_answer_for_all_only_the_first_is_asked() {
    let shape = CamLayout {
        single_device_on_root_bus: true,
        ..CamLayout::ECAM
    };
    let mut reach = reach(shape, 4);
    assert_eq!(read(&mut reach, 4, 0, 7, 0), 0x4000_7000);
    assert_eq!(read(&mut reach, 4, 1, 0, 0), NOTHING);
    assert_eq!(read(&mut reach, 5, 1, 0, 0), 0x4010_8000);
    // Nor is anything written where nothing is read.
    let mut echo = Echo {
        written: Vec::new(),
        refused: None,
    };
    let mut reach = HostBridgeAccess::new(&mut echo);
    reach.add(&mut host(shape, 4)).unwrap();
    let offset = ConfigOffset::wrapping(4);
    reach.write(Sbdf::new(3, 4, 1, 0), offset, Width::Word, 7);
    reach.write(Sbdf::new(3, 5, 1, 0), offset, Width::Word, 7);
    drop(reach);
    assert_eq!(echo.written, [(0x4010_8004, Width::Word, 7)]);
}

#[test]
fn a_refused_access_reads_as_ones_and_is_reported_once() {
    let mut reach = HostBridgeAccess::new(Echo {
        written: Vec::new(),
        refused: Some(0x4010_0008),
    });
    reach.add(&mut host(CamLayout::ECAM, 0)).unwrap();
    assert_eq!(read(&mut reach, 1, 0, 0, 8), NOTHING);
    let fault = reach.take_fault().unwrap();
    assert_eq!((fault.function.bus(), fault.offset.get()), (1, 8));
    assert_eq!(reach.take_fault(), None);
}

#[test]
fn two_bridges_never_share_a_bus() {
    let mut reach = reach(CamLayout::ECAM, 0);
    let error = reach.add(&mut host(CamLayout::ECAM, 0x7e)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "its buses are 7e-7e, and buses 00-7e of segment 0003 belong to another host bridge"
    );
}
