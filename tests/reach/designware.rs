//! A `DesignWare` port: registers, translation unit, and a fabric behind it.

use warmbus_pci::{
    ConfigAccess, ConfigOffset, HostBridgeAccess, HostBridgeError, Mechanism, PhysAddr, Registers,
    Sbdf, Width,
};
use warmbus_pcie_sim::Fabric;

use crate::{ROOT, bare, compare, host, machine, walk};

const DBI: u64 = 0x0a_4000_0000;
const ATU: u64 = DBI + 0x30_0000;
const WINDOW: u64 = 0xf000_0000;
const WINDOW_SIZE: u64 = 0x10_0000;

/// The nine registers of a region: controls, base, limit, target, and the
/// upper half of the limit at 0x20.
type Region = [u32; 9];
const ENABLE: u32 = 1 << 31;

#[derive(Clone)]
struct Model {
    fabric: Fabric,
    unrolled: bool,
    regions: [Region; 4],
    viewport: u32,
    link: u32,
    /// Reads of the enable bit before it shows.
    delay: u32,
    hidden: u32,
    /// What must not happen.
    wrong: Vec<String>,
    writes: usize,
}

impl Model {
    /// As U-Boot leaves it: region 0 is memory, region 1 is I/O.
    fn new(unrolled: bool) -> Self {
        let memory = [0, ENABLE, 0x4000_0000, 0, 0x4fff_ffff, 0x4000_0000, 0, 0, 0];
        let io = [2, ENABLE, 0xf010_0000, 0, 0xf01f_ffff, 0, 0, 0, 0];
        Self {
            fabric: machine(),
            unrolled,
            regions: [memory, io, [0; 9], [0; 9]],
            viewport: 0,
            link: 1 << 4,
            delay: 0,
            hidden: 0,
            wrong: Vec::new(),
            writes: 0,
        }
    }

    fn wrong(&mut self, what: String) -> u32 {
        self.wrong.push(what);
        u32::MAX
    }

    /// The function that a read of the window reaches.
    fn target(&mut self, address: u64) -> Option<(Sbdf, u16)> {
        if self.link != 1 << 4 {
            self.wrong(format!("a request at {address:#x} without a link"));
            return None;
        }
        let region = self.regions.into_iter().find(|region| {
            let base = u64::from(region[3]) << 32 | u64::from(region[2]);
            let high = if self.unrolled { region[8] } else { region[3] };
            let limit = u64::from(high) << 32 | u64::from(region[4]);
            region[1] & ENABLE != 0 && (base..=limit).contains(&address)
        });
        let Some(region) = region else {
            self.wrong(format!("no region has {address:#x}"));
            return None;
        };
        let function = Sbdf::from_routing_id(0, (region[5] >> 16) as u16);
        let secondary = self.fabric.peek(self.root(), 0x19, Width::Byte);
        let expected = if u32::from(function.bus()) == secondary {
            4
        } else {
            5
        };
        if region[0] & 0x1f != expected || region[6] != 0 || self.hidden != 0 {
            self.wrong(format!("{function} is asked through {region:x?}"));
        }
        Some((function, (address & 0xfff) as u16))
    }

    fn root(&self) -> warmbus_pcie_sim::NodeId {
        self.fabric.nodes().next().unwrap()
    }

    fn region(&mut self, address: u64) -> Option<&mut u32> {
        let (index, register) = match (self.unrolled, address.checked_sub(DBI)?) {
            (true, 0x30_0000..0x30_0800) => {
                let inside = address - ATU;
                (inside / 0x200, inside % 0x200)
            }
            (false, 0x904..0x920) => (u64::from(self.viewport), address - DBI - 0x904),
            _ => return None,
        };
        self.regions
            .get_mut(index as usize)?
            .get_mut(register as usize / 4)
    }
}

impl Registers for Model {
    fn read(&mut self, address: PhysAddr, width: Width) -> Option<u32> {
        if width != Width::Dword {
            return Some(self.wrong(format!("a narrow read at {address}")));
        }
        let unrolled = self.unrolled;
        if let Some(&mut value) = self.region(address.0) {
            let is_control = value & ENABLE != 0 && address.0 & 0xf == if unrolled { 4 } else { 8 };
            if is_control && self.hidden > 0 {
                self.hidden -= 1;
                return Some(value & !ENABLE);
            }
            return Some(value);
        }
        Some(match address.0.wrapping_sub(DBI) {
            offset @ 0..0x700 => {
                self.fabric
                    .read(ROOT, ConfigOffset::wrapping(offset as u16), width)
            }
            0x72c => self.link,
            0x900 if self.unrolled => u32::MAX,
            0x900 => self.viewport,
            _ if (WINDOW..WINDOW + WINDOW_SIZE).contains(&address.0) => {
                match self.target(address.0) {
                    Some((function, offset)) => {
                        self.fabric
                            .read(function, ConfigOffset::wrapping(offset), width)
                    }
                    None => u32::MAX,
                }
            }
            _ => self.wrong(format!("a read at {address}")),
        })
    }

    fn write(&mut self, address: PhysAddr, _: Width, value: u32) -> Option<()> {
        self.writes += 1;
        let delay = self.delay;
        if let Some(register) = self.region(address.0) {
            *register = value;
            if value == ENABLE {
                self.hidden = delay;
            }
        } else if address.0 == DBI + 0x900 && !self.unrolled {
            self.viewport = value;
        } else {
            self.wrong(format!("a write at {address}"));
        }
        Some(())
    }
}

fn mechanism(unrolled: bool) -> Mechanism {
    Mechanism::DesignWare {
        dbi: PhysAddr(DBI),
        atu: unrolled.then_some(PhysAddr(ATU)),
    }
}

/// Walks and reads everything through the model; returns it as it is left.
fn through(mut model: Model) -> Model {
    let before = model.clone();
    let mut host = host(
        &model.fabric,
        mechanism(model.unrolled),
        WINDOW,
        WINDOW_SIZE,
    );
    let expected = bare(&model.fabric);
    {
        let mut reach = HostBridgeAccess::new(&mut model);
        reach.add(&mut host).unwrap();
        compare(&mut reach, &before.fabric);
        let found = walk(&[host], reach, &before.fabric);
        assert_eq!(found.functions(), expected);
    }
    assert_eq!(model.wrong, [""; 0]);
    assert_eq!(model.regions, before.regions);
    assert_eq!(model.viewport, before.viewport);
    assert_eq!(model.fabric.log().writes(), 0);
    assert!(model.writes > 0);
    model
}

#[test]
fn everything_is_found_as_it_is_and_the_regions_are_put_back() {
    for unrolled in [true, false] {
        through(Model::new(unrolled));
    }
}

#[test]
fn a_region_that_already_has_the_window_is_the_one_that_is_aimed() {
    for unrolled in [true, false] {
        let mut model = Model::new(unrolled);
        // Linux has its requests in region 0.
        model.regions[0] = [5, ENABLE, 0xf000_0000, 0, 0xf00f_ffff, 0x0100_0000, 0, 0, 0];
        model.viewport = if unrolled { 0 } else { 2 };
        through(model);
    }
}

#[test]
fn a_region_is_given_the_time_that_it_takes() {
    let mut model = Model::new(true);
    model.delay = 3;
    through(model);
}

#[test]
fn without_a_link_nothing_behind_the_port_is_touched() {
    for link in [0, 1 << 4 | 1 << 29] {
        for unrolled in [true, false] {
            let mut model = Model::new(unrolled);
            model.link = link;
            let fabric = model.fabric.clone();
            let mut host = host(&fabric, mechanism(unrolled), WINDOW, WINDOW_SIZE);
            let mut reach = HostBridgeAccess::new(&mut model);
            reach.add(&mut host).unwrap();
            let found = walk(&[host], reach, &fabric);
            let found: Vec<_> = found.functions().iter().map(|f| f.sbdf).collect();
            assert_eq!(found, [ROOT]);
            assert_eq!(model.wrong, [""; 0]);
            assert_eq!(model.writes, 0);
        }
    }
}

#[test]
fn bus_numbers_are_those_that_the_loader_gave_not_those_of_the_tree() {
    let mut model = Model::new(true);
    let mut host = host(&model.fabric, mechanism(true), WINDOW, WINDOW_SIZE);
    host.buses.first = 0x30;
    host.buses.last = 0x3f;
    HostBridgeAccess::new(&mut model).add(&mut host).unwrap();
    assert_eq!((host.buses.first, host.buses.last), (0, 7));

    // Not numbered at all: the port alone.
    let root = model.root();
    model.fabric.poke(root, 0x18, Width::Dword, 0);
    HostBridgeAccess::new(&mut model).add(&mut host).unwrap();
    assert_eq!((host.buses.first, host.buses.last), (0, 0));
}

#[test]
fn what_was_not_set_up_as_a_root_port_is_refused() {
    struct Endpoint;
    impl Registers for Endpoint {
        fn read(&mut self, _: PhysAddr, _: Width) -> Option<u32> {
            Some(0)
        }
        fn write(&mut self, address: PhysAddr, _: Width, _: u32) -> Option<()> {
            panic!("a write at {address}")
        }
    }
    let mut host = host(&machine(), mechanism(true), WINDOW, WINDOW_SIZE);
    let error = HostBridgeAccess::new(Endpoint).add(&mut host).unwrap_err();
    assert_eq!(
        error,
        HostBridgeError::NotRootPort {
            address: PhysAddr(DBI + 0x0c),
            value: 0
        }
    );
}
