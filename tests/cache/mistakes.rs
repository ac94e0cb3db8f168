//! The mistakes of published lists of cacheable bytes, each as a piece of
//! software that goes wrong on such a list and must not go wrong here.
//!
//! Each test runs the same software three times: on bare hardware, which says
//! what is right; on a cache that keeps what the published list keeps, which
//! must fail, or the test proves nothing; and on ours.
//!
//! The race between a fill and a write is tested with a piece of hardware that
//! lets somebody else write while a read is under way.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use warmbus_pci::ConfigSpace;
use warmbus_pci::{ConfigAccess, ConfigOffset, PortType, Sbdf, Width};
use warmbus_pcie_sim::{
    ExpressModel, Fabric, FunctionModel, MILLISECOND, SrIovModel, devices, topologies,
};
use warmbus_pcsc::ConfigCache;

use crate::common::captured;

const PORT: Sbdf = Sbdf::new(0, 0, 1, 0);
const ENDPOINT: Sbdf = Sbdf::new(0, 1, 0, 0);

/// Ranges of bytes: first offset and length.
type Bytes = Vec<(u16, u16)>;

/// A cache by the published list: demand fill, and a write drops the bytes
/// that it writes and nothing else.
struct Published {
    fabric: Fabric,
    list: Bytes,
    bytes: BTreeMap<(Sbdf, u16), u8>,
}

impl Published {
    fn covers(&self, function: Sbdf, bytes: Range<u16>) -> bool {
        // It knows endpoints only.
        function == ENDPOINT
            && bytes.into_iter().all(|byte| {
                self.list
                    .iter()
                    .any(|&(start, len)| (start..start + len).contains(&byte))
            })
    }
}

impl ConfigAccess for Published {
    fn read(&mut self, function: Sbdf, offset: ConfigOffset, width: Width) -> u32 {
        let span = offset.get()..offset.get() + width.bytes();
        let kept: Option<Vec<u8>> = span
            .clone()
            .map(|byte| self.bytes.get(&(function, byte)).copied())
            .collect();
        if let Some(kept) = kept {
            return kept
                .iter()
                .rev()
                .fold(0, |value, &byte| value << 8 | u32::from(byte));
        }
        let value = self.fabric.read(function, offset, width);
        if self.covers(function, span.clone()) {
            for (lane, byte) in span.enumerate() {
                self.bytes
                    .insert((function, byte), (value >> (8 * lane)) as u8);
            }
        }
        value
    }

    fn write(&mut self, function: Sbdf, offset: ConfigOffset, width: Width, value: u32) {
        for byte in offset.get()..offset.get() + width.bytes() {
            self.bytes.remove(&(function, byte));
        }
        self.fabric.write(function, offset, width, value);
    }
}

/// Something with hardware behind it.
trait Machine: ConfigAccess {
    fn hardware(&mut self) -> &mut Fabric;

    fn get(&mut self, function: Sbdf, offset: u16, width: Width) -> u32 {
        self.read(function, ConfigOffset::wrapping(offset), width)
    }

    fn set(&mut self, function: Sbdf, offset: u16, width: Width, value: u32) {
        self.write(function, ConfigOffset::wrapping(offset), width, value);
    }

    /// Lets time pass.
    fn wait(&mut self, nanoseconds: u64) {
        self.hardware().clock().advance(nanoseconds);
    }
}

impl Machine for Fabric {
    fn hardware(&mut self) -> &mut Fabric {
        self
    }
}

impl Machine for Published {
    fn hardware(&mut self) -> &mut Fabric {
        &mut self.fabric
    }
}

impl Machine for ConfigCache<Fabric> {
    fn hardware(&mut self) -> &mut Fabric {
        self.access_mut()
    }
}

/// An endpoint below a root port, and what the published list says of it.
struct Case {
    endpoint: FunctionModel,
    list: fn(&Offsets) -> Bytes,
}

/// Where the structures of the endpoint are.
struct Offsets(ConfigCache<Fabric>);

impl Offsets {
    fn standard(&self, id: u8) -> u16 {
        let block = self.0.block(ENDPOINT).expect("it is cached");
        block.capability(id).expect("it has the capability")
    }

    fn extended(&self, id: u16) -> u16 {
        let block = self.0.block(ENDPOINT).expect("it is cached");
        block
            .extended_capability(id)
            .expect("it has the capability")
    }
}

/// Runs `software` on the three machines.
fn prove<T: PartialEq + std::fmt::Debug>(
    case: &Case,
    software: impl Fn(&mut dyn Machine, &Offsets) -> T,
) {
    let build = || {
        let (mut fabric, host) = topologies::empty();
        // The three make different numbers of accesses.
        fabric.set_access_time(0);
        let port = fabric.add_root(host, 1, 0, devices::root_port(1).link_up());
        fabric.add_below(port, 0, 0, case.endpoint.clone());
        captured(fabric).0
    };
    // Each machine gets hardware and a clock of its own.
    let offsets = Offsets(build());
    let mut bare = build().access().clone();
    let truth = software(&mut bare, &offsets);
    let mut published = Published {
        fabric: build().access().clone(),
        list: (case.list)(&offsets),
        bytes: BTreeMap::new(),
    };
    let wrong = software(&mut published, &offsets);
    assert_ne!(wrong, truth, "the published list gets it right");
    assert_eq!(software(&mut build(), &offsets), truth);
}

fn endpoint() -> FunctionModel {
    devices::nvme()
}

/// How often software asks before it gives up.
const PATIENCE: u32 = 100;

#[test]
fn the_vpd_flag_is_seen_when_hardware_turns_it() {
    let vpd = |offsets: &Offsets| offsets.standard(0x03);
    let case = Case {
        endpoint: endpoint().vpd(vec![0x12, 0x34, 0x56, 0x78], 3 * MILLISECOND),
        list: |offsets| {
            let at = offsets.standard(0x03);
            vec![(at, 4)]
        },
    };
    prove(&case, |machine, offsets| {
        let at = vpd(offsets);
        machine.set(ENDPOINT, at + 2, Width::Word, 0);
        for _ in 0..PATIENCE {
            if machine.get(ENDPOINT, at + 2, Width::Word) & 0x8000 != 0 {
                return Some(machine.get(ENDPOINT, at + 4, Width::Dword));
            }
            machine.wait(MILLISECOND);
        }
        None
    });
}

#[test]
fn the_end_of_a_self_test_is_seen() {
    const BIST: u16 = 0x0f;
    let case = Case {
        endpoint: endpoint().bist(5 * MILLISECOND, 3),
        list: |_| vec![(BIST, 1)],
    };
    prove(&case, |machine, _| {
        machine.set(ENDPOINT, BIST, Width::Byte, 0x40);
        for _ in 0..PATIENCE {
            let bist = machine.get(ENDPOINT, BIST, Width::Byte);
            if bist & 0x40 == 0 {
                return Some(bist & 0xf);
            }
            machine.wait(MILLISECOND);
        }
        None
    });
}

#[test]
fn vf_offset_and_stride_follow_the_number_of_vfs() {
    let model = SrIovModel {
        total_vfs: 16,
        layout: |count, _| if count < 8 { (1, 1) } else { (0x100, 2) },
        ..SrIovModel::default()
    };
    let case = Case {
        endpoint: endpoint().sriov(model, FunctionModel::virtual_function(0x01_0802)),
        list: |offsets| {
            let at = offsets.extended(0x10);
            vec![(at + 0x0c, 6), (at + 0x14, 4)]
        },
    };
    prove(&case, |machine, offsets| {
        let at = offsets.extended(0x10);
        let mut routing = |count| {
            machine.set(ENDPOINT, at + 0x10, Width::Word, count);
            machine.get(ENDPOINT, at + 0x14, Width::Dword)
        };
        [routing(16), routing(4), routing(16)]
    });
}

#[test]
fn exit_latencies_follow_the_common_clock() {
    let express = ExpressModel::new(PortType::Endpoint).exit_latencies((6, 5), (2, 1));
    let case = Case {
        endpoint: FunctionModel::endpoint(0x1234, 1, 0x02_0000).express(express),
        list: |offsets| {
            let at = offsets.standard(0x10);
            vec![(at + 0x0c, 6)]
        },
    };
    prove(&case, |machine, offsets| {
        let at = offsets.standard(0x10);
        let separate = machine.get(ENDPOINT, at + 0x0c, Width::Dword);
        machine.set(ENDPOINT, at + 0x10, Width::Word, 0x40);
        (separate, machine.get(ENDPOINT, at + 0x0c, Width::Dword))
    });
}

/// Reads a dword before and after hardware changes it on its own.
fn watch(machine: &mut dyn Machine, offset: u16) -> (u32, u32) {
    let before = machine.get(ENDPOINT, offset, Width::Dword);
    let hardware = machine.hardware();
    let node = hardware
        .find("watched")
        .expect("the endpoint has that name");
    hardware.poke(node, offset, Width::Dword, before ^ 0x10);
    (before, machine.get(ENDPOINT, offset, Width::Dword))
}

#[test]
fn a_version_1_capability_does_not_reach_into_error_status() {
    const UNCORRECTABLE_STATUS: u16 = 0x104;
    let case = Case {
        endpoint: devices::old_network().named("watched"),
        // Device Capabilities 2 to Slot Status 2, taken as if they existed.
        list: |offsets| {
            let at = offsets.standard(0x10);
            vec![(at + 0x24, 0x18)]
        },
    };
    prove(&case, |machine, _| watch(machine, UNCORRECTABLE_STATUS));
}

#[test]
fn the_root_command_of_an_endpoint_is_somebody_elses_register() {
    // An endpoint's AER ends where a root port has the root registers.
    const ROOT_COMMAND: u16 = 0x2c;
    let case = Case {
        endpoint: FunctionModel::endpoint(0x1234, 1, 0x02_0000)
            .named("watched")
            .express(ExpressModel::new(PortType::Endpoint))
            .advanced_errors()
            .unknown_extended(0x7777, 8),
        list: |offsets| {
            let at = offsets.extended(0x01);
            vec![(at + ROOT_COMMAND, 8)]
        },
    };
    prove(&case, |machine, offsets| {
        // The body of what follows, not its header.
        watch(machine, offsets.extended(0x01) + ROOT_COMMAND + 4)
    });
}

/// Initiates a function level reset and waits as long as the specification
/// asks for.
fn reset(machine: &mut dyn Machine, offsets: &Offsets) {
    let control = offsets.standard(0x10) + 8;
    let value = machine.get(ENDPOINT, control, Width::Word);
    machine.set(ENDPOINT, control, Width::Word, value | 0x8000);
    machine.wait(100 * MILLISECOND);
}

#[test]
fn a_restore_that_writes_only_what_differs_brings_bars_back() {
    const BAR0: u16 = 0x10;
    let case = Case {
        endpoint: endpoint(),
        list: |_| vec![(BAR0, 0x18)],
    };
    prove(&case, |machine, offsets| {
        let saved = machine.get(ENDPOINT, BAR0, Width::Dword);
        reset(machine, offsets);
        machine.get(ENDPOINT, 0, Width::Dword);
        if machine.get(ENDPOINT, BAR0, Width::Dword) != saved {
            machine.set(ENDPOINT, BAR0, Width::Dword, saved);
        }
        machine
            .hardware()
            .read(ENDPOINT, ConfigOffset::wrapping(BAR0), Width::Dword)
    });
}

#[test]
fn a_wait_for_readiness_does_not_end_before_the_function_is_ready() {
    const STATUS: u16 = 0x06;
    let case = Case {
        endpoint: endpoint().reset_time(400 * MILLISECOND),
        list: |_| vec![(0, 4)],
    };
    prove(&case, |machine, offsets| {
        // Found before, as every function that somebody resets.
        machine.get(ENDPOINT, 0, Width::Dword);
        reset(machine, offsets);
        for _ in 0..PATIENCE {
            let ids = machine.get(ENDPOINT, 0, Width::Dword);
            if !matches!(ids & 0xffff, 0xffff | 1) {
                // What a driver would touch next, and finds nobody.
                return machine.get(ENDPOINT, STATUS, Width::Word) != 0xffff;
            }
            machine.wait(10 * MILLISECOND);
        }
        false
    });
}

/// The PCI Express capability of the port.
fn port_express(machine: &mut dyn Machine) -> u16 {
    let mut at = machine.get(PORT, 0x34, Width::Byte) as u16;
    while machine.get(PORT, at, Width::Byte) != 0x10 {
        at = machine.get(PORT, at + 1, Width::Byte) as u16;
    }
    at
}

#[test]
fn a_read_that_nobody_answered_is_not_kept() {
    const REVISION: u16 = 0x08;
    const LINK_DISABLE: u32 = 0x10;
    let case = Case {
        endpoint: endpoint(),
        list: |_| vec![(REVISION, 4)],
    };
    prove(&case, |machine, _| {
        let control = port_express(machine) + 0x10;
        machine.set(PORT, control, Width::Word, LINK_DISABLE);
        machine.wait(MILLISECOND);
        let gone = machine.get(ENDPOINT, REVISION, Width::Dword);
        machine.set(PORT, control, Width::Word, 0);
        machine.wait(200 * MILLISECOND);
        (gone, machine.get(ENDPOINT, REVISION, Width::Dword))
    });
}

/// Hardware that takes its time: while a read of the cache line size is under
/// way, somebody else comes along, once.
struct Slow {
    fabric: Fabric,
    meanwhile: Rc<dyn Fn()>,
    came: Rc<Cell<bool>>,
}

const CACHE_LINE: ConfigOffset = ConfigOffset::wrapping(0x0c);
const WRITTEN: u32 = 0x10;

impl ConfigAccess for Slow {
    fn read(&mut self, function: Sbdf, offset: ConfigOffset, width: Width) -> u32 {
        let value = self.fabric.read(function, offset, width);
        if (function, offset) == (ENDPOINT, CACHE_LINE) && !self.came.replace(true) {
            (self.meanwhile)();
        }
        value
    }

    fn write(&mut self, function: Sbdf, offset: ConfigOffset, width: Width, value: u32) {
        self.fabric.write(function, offset, width, value);
    }
}

/// What two processors do with a cache that both can reach: one reads, and in
/// the middle of it the other writes. Returns what is read after both.
///
/// `access` is one access of a processor: a read without a value, or a write.
fn race(
    access: &dyn Fn(Option<u32>) -> Option<u32>,
    came: &Cell<bool>,
    refused: &Cell<bool>,
) -> u32 {
    access(None);
    assert!(came.get(), "the read went to the hardware");
    if refused.get() {
        // The other was kept out, and comes after it.
        access(Some(WRITTEN));
    }
    access(None).expect("nobody is in the way")
}

#[test]
fn a_write_in_the_middle_of_a_fill_is_not_lost() {
    let fabric = || {
        let (mut fabric, host) = topologies::empty();
        let port = fabric.add_root(host, 1, 0, devices::root_port(1).link_up());
        fabric.add_below(port, 0, 0, endpoint());
        captured(fabric).0.access().clone()
    };

    // The published rule: the hardware is asked with the table unlocked, and
    // what it said is put there after it.
    let table: Rc<RefCell<Option<u32>>> = Rc::default();
    let shared = Rc::new(RefCell::new(fabric()));
    let came = Cell::new(false);
    let write = |value| {
        table.replace(None);
        shared
            .borrow_mut()
            .write(ENDPOINT, CACHE_LINE, Width::Byte, value);
    };
    let published = |value: Option<u32>| {
        if let Some(value) = value {
            write(value);
            return None;
        }
        let kept = *table.borrow();
        if kept.is_some() {
            return kept;
        }
        let found = shared.borrow_mut().read(ENDPOINT, CACHE_LINE, Width::Byte);
        if !came.replace(true) {
            write(WRITTEN);
        }
        table.replace(Some(found));
        Some(found)
    };
    assert_ne!(race(&published, &came, &Cell::new(false)), WRITTEN);

    // Ours: an access takes the cache for itself until it is through.
    let came = Rc::new(Cell::new(false));
    let refused = Rc::new(Cell::new(false));
    let cache: Rc<RefCell<Option<ConfigCache<Slow>>>> = Rc::default();
    let other = (cache.clone(), refused.clone());
    let meanwhile = Rc::new(move || {
        let (cache, refused) = &other;
        match cache.try_borrow_mut() {
            Ok(mut cache) => {
                let cache = cache.as_mut().expect("it is there");
                cache.write(ENDPOINT, CACHE_LINE, Width::Byte, WRITTEN);
            }
            Err(_) => refused.set(true),
        }
    });
    let slow = Slow {
        fabric: fabric(),
        meanwhile,
        came: came.clone(),
    };
    cache.replace(Some(ConfigCache::new(slow)));
    let ours = |value: Option<u32>| {
        let mut cache = cache.borrow_mut();
        let cache = cache.as_mut().expect("it is there");
        match value {
            Some(value) => {
                cache.write(ENDPOINT, CACHE_LINE, Width::Byte, value);
                None
            }
            None => {
                cache.probe(ENDPOINT);
                Some(cache.read(ENDPOINT, CACHE_LINE, Width::Byte))
            }
        }
    };
    assert_eq!(race(&ours, &came, &refused), WRITTEN);
}
