//! More of what happens to a device while Linux runs: its firmware is updated, root
//! resets it or switches its services, and a host bridge whose driver may write
//! configuration space in ways of its own.

use warmbus_pci::Width;
use warmbus_pcie_sim::{BarModel, FunctionModel, SrIovModel, VendorAction};
use warmbus_qemu_tests::consumer;
use warmbus_qemu_tests::simulated::Simulated;
use warmbus_qemu_tests::tree::HOST_BRIDGE;

use crate::consumer_torture::{
    FIRST, Functions, ORDINARY, PORT, RESET, SECOND, boot, endpoint, endpoint_of, fabric_of, poke,
    same_end,
};

/// Vital Product Data with this text as the name of the product.
fn product_data(name: [u8; 5]) -> Vec<u8> {
    // A large resource of five bytes, and the end tag.
    [&[0x82, 5, 0][..], &name, &[0x78]].concat()
}

fn informed() -> FunctionModel {
    endpoint().serial_number(1).vpd(product_data(*b"first"), 0)
}

#[test]
fn firmware_of_a_device_that_changes_ids_serial_number_and_product_data() {
    let functions = Functions {
        first: informed,
        second: informed,
        ..ORDINARY
    };
    let steps = format!(
        "vpd:{FIRST},vpd:{SECOND},compare,wait,resets,vpd:{FIRST},vpd:{SECOND},compare,rescan,\
         vpd:{FIRST},vpd:{SECOND},compare"
    );
    let on = same_end(functions, &steps, 3, |fabric, _| {
        let [first, second] = ["first", "second"].map(|name| fabric.find(name).expect("its name"));
        // Another Device ID, and with the same one another serial number.
        let renamed = endpoint_of(8)
            .serial_number(1)
            .vpd(product_data(*b"other"), 0)
            .multi_function();
        let numbered = endpoint()
            .serial_number(2)
            .vpd(product_data(*b"third"), 0)
            .multi_function();
        fabric.replace(first, renamed);
        fabric.replace(second, numbered);
    });
    let data = consumer::said(&on, "vpd ");
    assert!(data[0].contains(": 9 bytes, "), "{data:?}");
    for (before, after) in [(0, 2), (1, 3), (2, 4), (3, 5)] {
        // Sums of the first and the second function, before and after the update.
        let is_updated = before < 2;
        assert_eq!(data[before] != data[after], is_updated, "{data:?}");
    }
}

#[test]
fn a_cxl_device_that_root_resets() {
    fn cxl() -> FunctionModel {
        endpoint().cxl_device()
    }
    let functions = Functions {
        first: cxl,
        second: cxl,
        ..ORDINARY
    };
    // Initiate CXL Reset, in Control 2 of the DVSEC at 108h.
    let steps = format!(
        "compare,write:{FIRST}@280@4,compare,resets,compare,bus_resets,compare,rescan,compare"
    );
    same_end(functions, &steps, 5, |_, _| ());
}

/// Where the capabilities of [`with_services`] are, after that of ACS.
const SERVICES: u16 = 0x108;

fn services() -> FunctionModel {
    endpoint()
        // ATS, PRI, PASID, PTM and IDE: capability and control registers.
        .extended(0x0f, 1, &[0x0000_0060])
        .extended(0x13, 1, &[0x0100_0000, 0x10, 0])
        .extended(0x1b, 1, &[0x0000_1406])
        .extended(0x1f, 1, &[0x0000_0005, 0])
        .extended(0x30, 1, &[0x0000_0001, 0])
        .latency_tolerance()
}

/// The control registers of those services.
const CONTROLS: [u16; 5] = [
    SERVICES + 6,
    SERVICES + 8 + 4,
    SERVICES + 0x18 + 6,
    SERVICES + 0x20 + 8,
    SERVICES + 0x2c + 8,
];

fn obeys() -> FunctionModel {
    let mut model = services();
    for control in CONTROLS {
        model = model.writable(control, Width::Word, 0x0001);
    }
    model
}

#[test]
fn services_that_root_switches_on_a_device_that_obeys_and_on_one_that_does_not() {
    let functions = Functions {
        first: obeys,
        second: services,
        ..ORDINARY
    };
    let mut steps = vec!["compare".to_owned()];
    for value in [1, 0, 1] {
        for function in [FIRST, SECOND] {
            for control in CONTROLS {
                steps.push(format!("write:{function}@{control}@{value}"));
            }
        }
        steps.push("compare".to_owned());
    }
    steps.push("resets,compare,rescan,compare".to_owned());
    same_end(functions, &steps.join(","), 6, |_, _| ());
}

/// An SR-IOV capability at 108h, and VF Resizable BAR behind it.
const VF_BAR: u16 = 0x108 + 0x24;
const VF_RESIZABLE: u16 = 0x148;

fn physical() -> FunctionModel {
    let model = SrIovModel {
        vf_bars: [
            Some(BarModel::memory64(0x10_0000)),
            None,
            None,
            None,
            None,
            None,
        ],
        ..SrIovModel::default()
    };
    endpoint()
        .sriov(model, FunctionModel::virtual_function(0xff_0000))
        // 1 to 8 MiB; BAR 0, one BAR, 1 MiB.
        .extended(0x24, 1, &[0xf0, 0x20])
        .writable(VF_RESIZABLE + 8, Width::Dword, 0x3f00)
}

#[test]
fn bars_of_virtual_functions_that_root_resizes() {
    // Of one device the BAR follows, of the other one it does not.
    fn follows() -> FunctionModel {
        let resized = VendorAction::Set {
            offset: VF_BAR,
            width: Width::Dword,
            value: 0x0080_0004,
        };
        physical().vendor_register(VF_RESIZABLE + 8, resized)
    }
    let functions = Functions {
        first: follows,
        second: physical,
        ..ORDINARY
    };
    let size = VF_RESIZABLE + 9;
    let steps = format!(
        "compare,write:{FIRST}@{size}@3,write:{SECOND}@{size}@3,compare,resets,compare,rescan,\
         compare"
    );
    same_end(functions, &steps, 4, |_, _| ());
}

#[test]
fn nothing_is_served_where_a_host_bridge_did_not_opt_in() {
    // DesignWare controllers have registers by which their drivers reset a root port.
    // A generic one of this kind has a single device on its root bus.
    let mut simulated = Simulated::new(fabric_of(ORDINARY, 0));
    simulated.change_tree = |tree| {
        tree.set_string(HOST_BRIDGE, "compatible", "snps,dw-pcie-ecam");
    };
    let steps = "cache,compare,wait,resets,compare,sections,cache";
    let linux = boot(simulated, "on", steps, |fabric, _| {
        poke(fabric, "first", &RESET);
    });
    consumer::matches_hardware(&linux, 2);
    let functions = linux.functions().expect("Linux lists them");
    let port = PORT.replace("01.0", "00.0");
    assert!(functions.contains_key(&port) && functions.contains_key(FIRST));
    let counters = consumer::counters(&linux);
    let last = counters.last().expect("counters");
    assert_eq!([last["restored"], last["hits"]], [3, 0], "{last:?}");
}
