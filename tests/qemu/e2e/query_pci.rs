//! How QEMU's list of devices is read.

use serde_json::{Value, json};
use warmbus_qemu_tests::pci::{Function, flatten};

#[test]
fn devices_below_bridges_are_listed_too() {
    let device = |bus: u64, bridge: Value| {
        let mut device = json!({
            "bus": bus, "slot": 1, "function": 2,
            "id": { "vendor": 1, "device": 2 }, "class_info": { "class": 0x604 },
            "regions": [
                { "bar": 0, "type": "io", "address": -1, "size": 16 },
                { "bar": 6, "type": "memory", "address": 4096, "size": 2048 },
            ],
        });
        if !bridge.is_null() {
            device["pci_bridge"] = bridge;
        }
        device
    };
    let closed = json!({ "base": 0xfff0_0000_u64, "limit": 0xf_ffff });
    let bridge = |below: Value| {
        json!({
            "bus": {
                "number": 0, "secondary": 1, "subordinate": 3,
                "io_range": closed, "prefetchable_range": closed,
                "memory_range": { "base": 0x10_0000, "limit": 0x1f_ffff },
            },
            "devices": [below],
        })
    };
    let inner = device(1, bridge(device(2, Value::Null)));
    let functions = flatten(&json!([{ "bus": 0, "devices": [device(0, bridge(inner))] }]));
    let names: Vec<_> = functions.iter().map(Function::name).collect();
    assert_eq!(names, ["0000:00:01.2", "0000:01:01.2", "0000:02:01.2"]);
    assert_eq!(functions[0].regions[&0].address, None);
    assert_eq!(functions[0].regions[&6].address, Some(4096));
    assert_eq!(
        functions[1].bridge.unwrap().windows,
        [None, Some((0x10_0000, 0x1f_ffff)), None]
    );
    assert_eq!(
        (functions[1].register(6), functions[2].register(6)),
        (0x38, 0x30)
    );
}
