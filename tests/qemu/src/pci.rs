//! QEMU's list of devices (`query-pci`), and the firmware's, in one shape.

use std::collections::BTreeMap;

use serde_json::Value;

/// A base address register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Whether it asks for I/O space.
    pub io: bool,
    /// Whether its address has 64 bits.
    pub wide: bool,
    /// Whether it is prefetchable.
    pub prefetchable: bool,
    /// Its address; `None` where it has none (firmware) or is not decoded
    /// (QEMU).
    pub address: Option<u64>,
    /// Its bytes; `None` where the firmware did not find out.
    pub size: Option<u64>,
}

/// Bus numbers and windows of a bridge. A window is an inclusive range, `None`
/// where it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Primary, secondary and subordinate bus.
    pub buses: [u64; 3],
    /// I/O, memory and prefetchable memory window.
    pub windows: [Option<(u64, u64)>; 3],
}

/// One function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Segment; QEMU knows none but 0.
    pub segment: u16,
    /// Bus.
    pub bus: u8,
    /// Device number in bits 7:3, function number in bits 2:0.
    pub devfn: u8,
    /// Vendor ID and device ID.
    pub ids: [u64; 2],
    /// Base class and sub-class.
    pub class: u64,
    /// BARs by index; 6 is the expansion ROM.
    pub regions: BTreeMap<u64, Region>,
    /// What a bridge has more.
    pub bridge: Option<Bridge>,
}

impl Function {
    /// Its address as `lspci -D` prints it.
    #[must_use]
    pub fn name(&self) -> String {
        format!(
            "{:04x}:{:02x}:{:02x}.{}",
            self.segment,
            self.bus,
            self.devfn >> 3,
            self.devfn & 7
        )
    }

    /// Where the register of BAR `index` is in configuration space.
    #[must_use]
    pub fn register(&self, index: u64) -> u16 {
        match (index, &self.bridge) {
            (6, None) => 0x30,
            (6, Some(_)) => 0x38,
            _ => 0x10 + 4 * u16::try_from(index).expect("BAR indices are small"),
        }
    }
}

/// QEMU writes addresses with a sign: a window that is closed may begin below 0.
fn number(value: &Value, what: &str) -> u64 {
    let number = &value[what];
    let signed = || number.as_i64().map(i64::cast_unsigned);
    let number = number.as_u64().or_else(signed);
    number.unwrap_or_else(|| panic!("{what} is a number in {value}"))
}

fn flag(value: &Value, what: &str) -> bool {
    value[what].as_bool().unwrap_or(false)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// All functions of an answer to `query-pci`, those below bridges included,
/// by address.
#[must_use]
pub fn flatten(answer: &Value) -> Vec<Function> {
    let mut functions = Vec::new();
    for bus in list(answer) {
        below(&bus["devices"], &mut functions);
    }
    sorted(functions)
}

fn below(devices: &Value, functions: &mut Vec<Function>) {
    for device in list(devices) {
        let bridge = &device["pci_bridge"];
        let [slot, function] = ["slot", "function"].map(|what| number(device, what));
        functions.push(Function {
            segment: 0,
            bus: number(device, "bus") as u8,
            devfn: (slot << 3 | function) as u8,
            ids: ["vendor", "device"].map(|what| number(&device["id"], what)),
            class: number(&device["class_info"], "class"),
            regions: list(&device["regions"])
                .iter()
                .map(region_of_qemu)
                .collect(),
            bridge: (!bridge.is_null()).then(|| {
                let bus = &bridge["bus"];
                Bridge {
                    buses: ["number", "secondary", "subordinate"].map(|what| number(bus, what)),
                    windows: ["io_range", "memory_range", "prefetchable_range"].map(|what| {
                        let range = &bus[what];
                        let (base, limit) = (number(range, "base"), number(range, "limit"));
                        // A closed window has its limit below its base.
                        (base <= limit).then_some((base, limit))
                    }),
                }
            }),
        });
        below(&bridge["devices"], functions);
    }
}

fn region_of_qemu(region: &Value) -> (u64, Region) {
    let described = Region {
        io: region["type"] == "io",
        wide: flag(region, "mem_type_64"),
        prefetchable: flag(region, "prefetch"),
        // -1 where it is not decoded.
        address: region["address"].as_u64(),
        size: Some(number(region, "size")),
    };
    (number(region, "bar"), described)
}

/// All functions of a report, by address. VF BARs are excluded: QEMU does not
/// list them.
#[must_use]
pub fn of_report(report: &Value) -> Vec<Function> {
    let functions = list(&report["functions"]).iter().map(|function| {
        let name = function["sbdf"]
            .as_str()
            .expect("a function has an address");
        let (segment, bus, devfn) = parse(name).unwrap_or_else(|| panic!("{name} is an address"));
        let bridge = &function["bridge"];
        let bars = list(&function["bars"]).iter();
        Function {
            segment,
            bus,
            devfn,
            ids: ["vendor_id", "device_id"].map(|what| number(function, what)),
            class: number(function, "class_code") >> 8,
            regions: bars
                .filter(|bar| number(bar, "index") <= 6)
                .map(|bar| {
                    let kind = bar["kind"].as_str().unwrap_or_default();
                    let described = Region {
                        io: kind == "io",
                        wide: kind == "mem64",
                        prefetchable: flag(bar, "prefetchable"),
                        address: bar["address"].as_u64(),
                        size: bar["size"].as_u64(),
                    };
                    (number(bar, "index"), described)
                })
                .collect(),
            bridge: (!bridge.is_null()).then(|| Bridge {
                buses: ["primary", "secondary", "subordinate"].map(|what| number(bridge, what)),
                windows: ["io", "memory", "prefetchable"].map(|what| {
                    let window = &bridge[what];
                    Some((window["base"].as_u64()?, window["limit"].as_u64()?))
                }),
            }),
        }
    });
    sorted(functions.collect())
}

/// Segment, bus and devfn of an address.
fn parse(name: &str) -> Option<(u16, u8, u8)> {
    let mut parts = name.split([':', '.']);
    let segment = u16::from_str_radix(parts.next()?, 16).ok()?;
    let mut byte = || u8::from_str_radix(parts.next()?, 16).ok();
    Some((segment, byte()?, byte()? << 3 | byte()?))
}

fn sorted(mut functions: Vec<Function>) -> Vec<Function> {
    functions.sort_by_key(|function| (function.segment, function.bus, function.devfn));
    functions
}
