//! A Broadcom STB port: index and data, and a fabric behind them.

use warmbus_pci::{
    ConfigAccess, ConfigOffset, HostBridgeAccess, Mechanism, PhysAddr, Registers, Sbdf, Width,
};
use warmbus_pcie_sim::Fabric;

use crate::{ROOT, bare, compare, host, machine, walk};

const BASE: u64 = 0xfd50_0000;
const SIZE: u64 = 0x9310;

#[derive(Clone)]
struct Model {
    fabric: Fabric,
    index: u32,
    status: u32,
    reset: u32,
    wrong: Vec<String>,
    /// Offsets that were read.
    read: Vec<u64>,
    writes: usize,
}

impl Model {
    fn new() -> Self {
        Self {
            fabric: machine(),
            index: 0x0030_0000,
            status: 0xb0,
            reset: 0,
            wrong: Vec::new(),
            read: Vec::new(),
            writes: 0,
        }
    }
}

impl Registers for Model {
    fn read(&mut self, address: PhysAddr, width: Width) -> Option<u32> {
        let offset = address.0 - BASE;
        self.read.push(offset);
        if self.reset != 0 && offset != 0x9210 {
            self.wrong.push(format!("{offset:#x} is read in reset"));
        }
        Some(match offset {
            0..0x1000 => self
                .fabric
                .read(ROOT, ConfigOffset::wrapping(offset as u16), width),
            0x4068 => self.status,
            0x8000..0x9000 => {
                if self.status & 0x30 != 0x30 {
                    self.wrong.push("a request without a link".into());
                }
                let function = Sbdf::from_routing_id(0, (self.index >> 12) as u16);
                // Type 0 requests go to the device on the link.
                let function = if function.bus() == 1 {
                    Sbdf::new(0, 1, 0, function.function())
                } else {
                    function
                };
                let register = ConfigOffset::wrapping((offset & 0xfff) as u16);
                self.fabric.read(function, register, width)
            }
            0x9000 => self.index,
            0x9210 => self.reset,
            _ => {
                self.wrong.push(format!("{offset:#x} is read"));
                0
            }
        })
    }

    fn write(&mut self, address: PhysAddr, width: Width, value: u32) -> Option<()> {
        self.writes += 1;
        match (address.0 - BASE, width) {
            (0x9000, Width::Dword) => self.index = value,
            (offset, _) => self.wrong.push(format!("{offset:#x} is written")),
        }
        Some(())
    }
}

#[test]
fn everything_is_found_as_it_is_and_the_index_is_put_back() {
    let mut model = Model::new();
    let before = model.clone();
    let mut host = host(&model.fabric, Mechanism::BrcmStb, BASE, SIZE);
    {
        let mut reach = HostBridgeAccess::new(&mut model);
        reach.add(&mut host).unwrap();
        compare(&mut reach, &before.fabric);
        // The device on the link does not answer for others.
        let ghost = Sbdf::new(0, 1, 1, 0);
        let read = reach.read(ghost, ConfigOffset::wrapping(0), Width::Dword);
        assert_eq!(read, u32::MAX);
        let found = walk(&[host], reach, &before.fabric);
        assert_eq!(found.functions(), bare(&before.fabric));
    }
    assert_eq!(model.wrong, [""; 0]);
    assert_eq!(model.index, before.index);
    assert_eq!(model.fabric.log().writes(), 0);
    assert!(model.writes > 0);
}

#[test]
fn without_a_link_only_the_port_itself_is_found() {
    for status in [0x80, 0x90, 0xa0] {
        let mut model = Model::new();
        model.status = status;
        let fabric = model.fabric.clone();
        let mut host = host(&fabric, Mechanism::BrcmStb, BASE, SIZE);
        let mut reach = HostBridgeAccess::new(&mut model);
        reach.add(&mut host).unwrap();
        let found = walk(&[host], reach, &fabric);
        let found: Vec<_> = found.functions().iter().map(|f| f.sbdf).collect();
        assert_eq!(found, [ROOT]);
        assert_eq!((model.wrong.len(), model.writes), (0, 0));
    }
}

#[test]
fn a_bridge_in_reset_is_not_touched() {
    for reset in 1..=3 {
        let mut model = Model::new();
        model.reset = reset;
        let mut host = host(&model.fabric, Mechanism::BrcmStb, BASE, SIZE);
        let error = HostBridgeAccess::new(&mut model)
            .add(&mut host)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("its controller is in reset: the register at 0xfd509210 is {reset:#010x}")
        );
        assert_eq!(model.read, [0x9210]);
        assert_eq!((model.wrong.len(), model.writes), (0, 0));
    }
}
