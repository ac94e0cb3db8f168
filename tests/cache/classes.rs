//! How each byte of each structure behaves, as the specifications have it:
//! one letter a byte.

use warmbus_pci::{ConfigOffset, ConfigSpace, PortType, Sbdf, Width};
use warmbus_pcie_sim::{BridgeWindows, ExpressModel, Fabric, FunctionModel, SlotModel, topologies};
use warmbus_pcsc::{ByteClass, ConfigCache, FunctionCache};

use PortType::{DownstreamPort, Endpoint, RootPort, UpstreamPort};

/// `len` bytes from `start`: c constant, s software, v volatile, e side
/// effect, p passed through, - nothing names it. A space after each dword.
fn shown(block: &FunctionCache, start: u16, len: u16) -> String {
    let mut text = String::new();
    for byte in 0..len {
        if byte % 4 == 0 && byte > 0 {
            text.push(' ');
        }
        text.push(match block.class(ConfigOffset::wrapping(start + byte)) {
            ByteClass::Static => 'c',
            ByteClass::Software => 's',
            ByteClass::Volatile => 'v',
            ByteClass::SideEffect => 'e',
            ByteClass::PassThrough => 'p',
            ByteClass::Unknown => '-',
        });
    }
    text
}

/// A function at 00:03.0 whose lists were walked.
pub(crate) fn inferred(model: FunctionModel) -> (ConfigCache<Fabric>, Sbdf) {
    let (mut fabric, host) = topologies::empty();
    fabric.add_root(host, 3, 0, model);
    let mut cached = ConfigCache::new(fabric);
    let function = Sbdf::new(0, 0, 3, 0);
    cached.probe(function);
    let anomalies = cached.infer(function).expect("the function is there");
    assert_eq!(anomalies, []);
    (cached, function)
}

/// The classes of a function at 00:03.0 that has the bytes of `expected`, and
/// of nothing beyond them for four dwords.
pub(crate) fn assert_classes(model: FunctionModel, start: u16, expected: &str, what: &str) {
    let (cached, function) = inferred(model);
    let block = cached.block(function).expect("the function is known");
    let len = expected.chars().filter(|c| *c != ' ').count() as u16;
    let end = if start < 0x100 { 0x100 } else { 0x1000 };
    let rest = (end - start - len).min(16);
    let expected = format!("{expected}{}", " ----".repeat(usize::from(rest / 4)));
    assert_eq!(shown(block, start, len + rest), expected, "{what}");
    assert_eq!(cached.access().log().violations(), []);
}

/// A function of this header type with nothing but its header.
pub(crate) fn header(is_bridge: bool) -> FunctionModel {
    if is_bridge {
        FunctionModel::bridge(0x1234, 1, BridgeWindows::default())
    } else {
        FunctionModel::endpoint(0x1234, 1, 0x08_8000)
    }
}

pub(crate) fn is_bridge(port: PortType) -> bool {
    !matches!(
        port,
        Endpoint
            | PortType::LegacyEndpoint
            | PortType::RootComplexIntegratedEndpoint
            | PortType::RootComplexEventCollector
    )
}

/// One structure: its ID, its version, its bytes after the ID.
type Standard = (u8, &'static [u8], &'static str);

const STANDARD: &[Standard] = &[
    (0x00, &[0; 2], "cc--"),
    // Power Management: the power state is the one that it is in.
    (0x01, &[0; 6], "cccc vvcv"),
    (0x02, &[0; 10], "cccc cccc ssss"),
    (0x0e, &[0; 10], "cccc cccc ssss"),
    // Vital Product Data.
    (0x03, &[0; 6], "ccvv vvvv"),
    (0x04, &[0; 2], "cccs"),
    // MSI: 32 and 64 bits, per-vector masking, extended message data.
    (0x05, &[0, 0], "ccss ssss ss--"),
    (0x05, &[0x80, 0], "ccss ssss ssss ss--"),
    (0x05, &[0, 1], "ccss ssss ss-- ssss vvvv"),
    (0x05, &[0x80, 1], "ccss ssss ssss ss-- ssss vvvv"),
    (0x05, &[0, 2], "ccss ssss ssss"),
    (0x05, &[0x80, 2], "ccss ssss ssss ssss"),
    (0x05, &[0, 3], "ccss ssss ssss ssss vvvv"),
    (0x05, &[0x80, 3], "ccss ssss ssss ssss ssss vvvv"),
    (0x06, &[0; 2], "ccv-"),
    // PCI-X: without and with ECC registers.
    (0x07, &[0, 0x0f, 0, 0, 0, 0], "ccss vvvv"),
    (0x07, &[0, 0x10], "ccss vvvv vvvv vvvv vvvv vvvv"),
    (0x07, &[0, 0x20], "ccss vvvv vvvv vvvv vvvv vvvv"),
    // HyperTransport: MSI mapping, movable and fixed, and another.
    (0x08, &[0, 0xa8], "ccss ssss ssss"),
    (0x08, &[2, 0xa8], "ccss"),
    (0x08, &[0, 0xaf], "ccss ssss ssss"),
    (0x08, &[0, 0xb0], "cc--"),
    (0x08, &[0, 0x20], "cc--"),
    // Vendor specific, virtio's numbers but another vendor.
    (0x09, &[0x14, 5], "ccc-"),
    (0x0a, &[0; 2], "cccc"),
    (0x0b, &[0; 2], "cc--"),
    (0x0f, &[0; 2], "cc--"),
    // Standard Hot-Plug Controller.
    (0x0c, &[0; 6], "ccsv eeee"),
    (0x0d, &[0; 6], "cccc cccc"),
    // MSI-X.
    (0x11, &[0; 10], "ccss cccc cccc"),
    // SATA: registers in configuration space and elsewhere.
    (0x12, &[0x10, 0, 0x0f, 0, 0, 0], "cccc cccc ssss eeee"),
    (0x12, &[0x10, 0, 0x04, 0, 0, 0], "cccc cccc"),
    // Advanced Features.
    (0x13, &[6, 3, 0, 0], "cccc pv--"),
    // Flattening Portal Bridge.
    (
        0x15,
        &[0; 2],
        "cc-- cccc ssss ssss ssss ssss ssss ssss eeee",
    ),
    (0x7f, &[0; 2], "cc--"),
];

#[test]
fn the_capabilities_of_an_endpoint_behave_as_specified() {
    for (id, body, expected) in STANDARD {
        let model = header(false).capability(*id, body);
        assert_classes(
            model,
            0x40,
            expected,
            &format!("capability {id:02x} {body:02x?}"),
        );
    }
}

#[test]
fn pci_x_of_a_bridge_has_status_where_a_device_has_commands() {
    for (body, expected) in [
        ([0, 0x0f], "ccvv vvvv ssss ssss"),
        ([0, 0x10], "ccvv vvvv ssss ssss vvvv vvvv"),
    ] {
        assert_classes(
            header(true).capability(0x07, &body),
            0x40,
            expected,
            "PCI-X",
        );
    }
}

#[test]
fn virtio_structures_are_constants_but_for_the_window() {
    for (kind, length, expected) in [
        (1, 0x10, "cccc cccc cccc cccc"),
        (3, 0x10, "cccc cccc cccc cccc"),
        (4, 0x10, "cccc cccc cccc cccc"),
        (1, 0x0f, "ccc-"),
        (2, 0x14, "cccc cccc cccc cccc cccc"),
        (2, 0x13, "ccc-"),
        (8, 0x18, "cccc cccc cccc cccc cccc cccc"),
        (8, 0x17, "ccc-"),
        (5, 0x14, "cccc ssss ssss ssss eeee"),
        (5, 0x13, "ccc-"),
        (9, 0x20, "ccc-"),
        (0, 0x20, "ccc-"),
    ] {
        let model = FunctionModel::endpoint(0x1af4, 1, 0x08_8000).capability(9, &[length, kind]);
        assert_classes(
            model,
            0x40,
            expected,
            &format!("type {kind} of {length:#x} bytes"),
        );
    }
}

/// 32-bit base and offset, constant; 64-bit ones, writable; then an offset
/// of 64 bits alone.
const ENTRIES: [u32; 11] = [
    0x80ff_0002,
    0,
    0,
    0xc0ff_0004,
    2,
    2,
    0,
    0,
    0x80ff_0001,
    0,
    0,
];

fn enhanced_allocation(is_bridge: bool, entries: u8) -> FunctionModel {
    let mut body = vec![entries, 0];
    if is_bridge {
        body.extend([0; 4]);
    }
    body.extend(ENTRIES.iter().flat_map(|dword| dword.to_le_bytes()));
    header(is_bridge).capability(0x14, &body)
}

#[test]
fn enhanced_allocation_is_constant_unless_an_entry_is_writable() {
    let entries = "cccs cccc cccc cccs ssss ssss ssss ssss cccs cccc";
    let model = enhanced_allocation(false, 3);
    assert_classes(model, 0x40, &format!("cccc {entries}"), "EA");
    let model = enhanced_allocation(true, 3);
    assert_classes(
        model,
        0x40,
        &format!("cccc cccc {entries}"),
        "EA of a bridge",
    );
    let model = enhanced_allocation(false, 1);
    assert_classes(model, 0x40, "cccc cccs cccc cccc", "one entry");
    // More entries than there is space.
    let model = header(false)
        .place_at(0xf4)
        .capability(0x14, &[0x3f, 0, 2, 0, 0xff, 0x80]);
    assert_classes(model, 0xf4, "cccc cccs cccc", "63 entries");
}

const SLOT: SlotModel = SlotModel::HOT_PLUG;

#[test]
fn pci_express_has_the_registers_of_its_version_and_type() {
    // To Device Status; link; slot; root.
    let device = "cccc cccc ssvv";
    let link = "cccc ssvv";
    let slot = "cccc ssvv";
    let root = "sscc vvvv";
    let second = "cccc sscc";
    let link_2 = "cccc ssvv";
    let none = "---- ----";
    let cases = [
        (Endpoint, 1, false, [device, link].join(" ")),
        (PortType::LegacyEndpoint, 1, false, [device, link].join(" ")),
        (
            PortType::RootComplexIntegratedEndpoint,
            1,
            false,
            device.into(),
        ),
        (
            PortType::RootComplexEventCollector,
            1,
            false,
            [device, none, none, root].join(" "),
        ),
        (RootPort, 1, false, [device, link, none, root].join(" ")),
        (RootPort, 1, true, [device, link, slot, root].join(" ")),
        (DownstreamPort, 1, true, [device, link, slot].join(" ")),
        (UpstreamPort, 1, false, [device, link].join(" ")),
        (
            Endpoint,
            2,
            false,
            [device, link, none, none, second, link_2].join(" "),
        ),
        (
            PortType::RootComplexIntegratedEndpoint,
            2,
            false,
            [device, link, none, none, second].join(" "),
        ),
        (
            PortType::RootComplexEventCollector,
            2,
            false,
            [device, link, none, root, second].join(" "),
        ),
        (
            RootPort,
            2,
            false,
            [device, link, none, root, second, link_2].join(" "),
        ),
        (
            RootPort,
            2,
            true,
            [device, link, slot, root, second, link_2, slot].join(" "),
        ),
        (
            DownstreamPort,
            2,
            true,
            [device, link, slot, none, second, link_2, slot].join(" "),
        ),
        (
            UpstreamPort,
            2,
            false,
            [device, link, none, none, second, link_2].join(" "),
        ),
        (
            PortType::PcieToPciBridge,
            2,
            false,
            [device, link, none, none, second, link_2].join(" "),
        ),
    ];
    for (port, version, has_slot, expected) in cases {
        let mut express = ExpressModel::new(port).version(version);
        if has_slot {
            express = express.slot(SLOT);
        }
        let model = header(is_bridge(port)).express(express);
        let what = format!("{port:?} version {version} slot {has_slot}");
        assert_classes(model, 0x40, &expected, &what);
    }
    // Slot Implemented means nothing in an endpoint.
    let model = header(false)
        .express(ExpressModel::new(Endpoint))
        .set(0x42, Width::Word, 0x102);
    assert_classes(
        model,
        0x40,
        &[device, link, none, none, second, link_2].join(" "),
        "a slot",
    );
}

/// The header of a function and its first dwords after 0x40.
fn header_of(model: FunctionModel) -> String {
    let (cached, function) = inferred(model);
    shown(cached.block(function).expect("it is known"), 0, 0x48)
}

#[test]
fn a_header_behaves_by_its_layout() {
    let pci_bridge = "cccc sscv cccc sscc ssss ssss ssss sscv ssss ssss ssss ssss ssss cccc \
                      ssss scsv ---- ----";
    let endpoint = "cccc sscv cccc sscc ssss ssss ssss ssss ssss ssss cccc cccc ssss cccc cccc \
                    sccc ---- ----";
    assert_eq!(header_of(header(false)), endpoint);
    assert_eq!(header_of(header(true)), pci_bridge);
    // A self test, and an interrupt pin.
    let model = header(false).bist(1, 0).interrupt_pin(1);
    let expected = endpoint
        .replacen("sscv", "ssvv", 1)
        .replacen("sscc", "sscv", 1);
    assert_eq!(header_of(model), expected);
    let card_bus = header(false).set(0x0e, Width::Byte, 2);
    let nothing = "---- ".repeat(10);
    let expected = format!("cccc ssvv cccc sscc ---- c--- {nothing}cccc ----");
    assert_eq!(header_of(card_bus), expected);
    for layout in [3, 0x7e] {
        let model = header(false).set(0x0e, Width::Byte, layout);
        let nothing = " ----".repeat(14);
        assert_eq!(header_of(model), format!("cccc ssvv cccc sscc{nothing}"));
    }
}

#[test]
fn the_discard_timer_is_one_of_conventional_buses() {
    for (port, class) in [
        (RootPort, 's'),
        (UpstreamPort, 's'),
        (DownstreamPort, 's'),
        (PortType::PciToPcieBridge, 's'),
        (PortType::PcieToPciBridge, 'v'),
    ] {
        let model = header(true).express(ExpressModel::new(port));
        let text = header_of(model);
        let bridge_control = text.split(' ').nth(15).unwrap();
        assert_eq!(bridge_control.chars().last(), Some(class), "{port:?}");
    }
}
