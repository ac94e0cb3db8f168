//! How each byte of each extended capability behaves, as the specifications
//! have it: one letter a byte, as in `classes.rs`.

use warmbus_pci::{ConfigOffset, PortType, Width};
use warmbus_pcie_sim::{ExpressModel, FunctionModel};

use crate::classes::{assert_classes, header, is_bridge};

/// One structure: its ID and version, its dwords after the header.
type Extended = (u16, u8, &'static [u32], &'static str);

const OF_ENDPOINT: &[Extended] = &[
    (0x00, 1, &[], "cccc"),
    (
        0x01,
        2,
        &[],
        "cccc vvvv ssss ssss vvvv ssss vvvv vvvv vvvv vvvv vvvv",
    ),
    (0x03, 1, &[], "cccc cccc cccc"),
    (0x04, 1, &[], "cccc s--- vvvv cccc"),
    // Two links.
    (
        0x05,
        1,
        &[0x0000_0200],
        "cccc cccc cccc cccc cccc cccc cccc cccc cccc cccc cccc cccc",
    ),
    (0x05, 1, &[0x0001_0000], "cccc cccc cccc cccc"),
    (0x06, 1, &[], "cccc cccc ssvv"),
    (0x07, 1, &[], "cccc cccc"),
    (0x07, 2, &[], "cccc cccc cccc"),
    (0x0a, 1, &[], "cccc cccc cccc ssss"),
    (0x0b, 1, &[0x0140_0001], "cccc cccc"),
    (0x0c, 1, &[], "cccc cccc"),
    // Access Control Services: egress vectors of 33, 32 and 256 bits, and none.
    (0x0d, 1, &[0x2120], "cccc ccss ssss ssss"),
    (0x0d, 1, &[0x2020], "cccc ccss ssss"),
    (
        0x0d,
        1,
        &[0x0020],
        "cccc ccss ssss ssss ssss ssss ssss ssss ssss ssss",
    ),
    (0x0d, 1, &[0x215f], "cccc ccss"),
    (0x0e, 1, &[], "cccc ccss"),
    (0x0f, 1, &[], "cccc ccss"),
    (
        0x10,
        1,
        &[],
        "cccc cccc ssvv cccc sscc cccc cccc cccc ssss ssss ssss ssss ssss ssss ssss cccc",
    ),
    // InitialVFs with migration.
    (
        0x10,
        1,
        &[1],
        "cccc cccc ssvv vvcc sscc cccc cccc cccc ssss ssss ssss ssss ssss ssss ssss cccc",
    ),
    (0x11, 1, &[], "cccc"),
    (
        0x12,
        1,
        &[],
        "cccc ccss ssss ssss ssss ssss ssss ssss ssss ssss",
    ),
    (0x13, 1, &[], "cccc ssvv cccc ssss"),
    // Resizable BAR, of PF and VF: one, two, and more than there are.
    (0x15, 1, &[0, 0x20], "cccc cccc ssss"),
    (0x15, 1, &[0, 0x40], "cccc cccc ssss cccc ssss"),
    (
        0x15,
        1,
        &[0, 0xe0],
        "cccc cccc ssss cccc ssss cccc ssss cccc ssss cccc ssss cccc ssss",
    ),
    (0x24, 1, &[0, 0x40], "cccc cccc ssss cccc ssss"),
    // Dynamic Power Allocation: one substate, and six.
    (0x16, 1, &[0], "cccc cccc cccc vvss c---"),
    (0x16, 1, &[5], "cccc cccc cccc vvss cccc cc--"),
    // TPH Requester: tags here, and in the table of MSI-X.
    (0x17, 1, &[0x0002_0200], "cccc cccc ssss ssss ss--"),
    (0x17, 1, &[0x0002_0400], "cccc cccc ssss"),
    (0x17, 1, &[0x0002_0600], "cccc cccc ssss"),
    (0x18, 1, &[], "cccc ssss"),
    // Four lanes.
    (0x19, 1, &[], "cccc vsss vvvv cccc cccc"),
    (0x1a, 1, &[], "cccc cccc ssss vvvv"),
    (0x1b, 1, &[], "cccc ccss"),
    (0x1c, 1, &[], "cccc ccss"),
    (0x1e, 1, &[], "cccc cccc ssss ssss"),
    (0x1e, 2, &[], "cccc cccc ssss ssss vvvv"),
    (0x1f, 1, &[], "cccc cccc ssss"),
    (0x20, 1, &[], "cccc"),
    (0x21, 1, &[], "cccc cccc vvss eeee"),
    // Readiness Time Reporting: valid, and not yet.
    (0x22, 1, &[1 << 31], "cccc cccc cccc"),
    (0x22, 1, &[0x7fff_ffff], "cccc vvvv vvvv"),
    (0x25, 1, &[], "cccc cccs vvvv"),
    (0x26, 1, &[], "cccc cccc cccc vvvv vvvv vvvv vvvv ---- cccc"),
    (0x27, 1, &[], "cccc ccvv ssvv ssvv ssvv ssvv"),
    (0x28, 1, &[], "cccc vvvv vvvv vvvv vvvv vvvv vvvv vvvv vvvv"),
    (0x29, 1, &[], "cccc cccc ssss vvvv"),
    (0x2a, 1, &[], "cccc cccc ssss vvvv vvvv vvvv vvvv vvvv cccc"),
    (0x2b, 1, &[], "cccc cccc ssss vvvv vvvv"),
    (0x2d, 1, &[], "cccc"),
    (0x2e, 1, &[], "cccc cccc pppp vvvv eeee eeee"),
    (0x2f, 1, &[], "cccc cccc ssss vvvv"),
    (0x31, 1, &[], "cccc cccc ssss vvvv"),
    (
        0x32,
        1,
        &[],
        "cccc vvvv vvvv ssvv vvvv vvvv vvvv vvvv vvvv vvvv vvvv vvvv vvvv vvvv vvvv",
    ),
    (0x33, 1, &[], "cccc cccc pppp vvvv"),
    (0x34, 1, &[], "cccc cccc ssss ssss vvvv ssss ssss vvvv vvvv"),
    (0x35, 1, &[], "cccc cccc cccc ssvv"),
    // MMIO Register Locator: 24 bytes, and less than its own registers.
    (0x36, 1, &[0x18], "cccc cccc cccc cccc cccc cccc"),
    (0x36, 1, &[0x1004], "cccc cccc"),
    // Integrity and Data Encryption: two link streams, then one selective
    // stream with two address associations; one selective stream alone.
    (
        0x30,
        1,
        &[0x0000_2003, 0, 0, 0, 0, 0, 2],
        "cccc cccc ssss ssss vvvv ssss vvvv cccc ssss vvvv ssss ssss \
         ssss ssss ssss ssss ssss ssss",
    ),
    (
        0x30,
        1,
        &[0x0000_0002],
        "cccc cccc ssss cccc ssss vvvv ssss ssss",
    ),
    (0x30, 1, &[0x0000_0001], "cccc cccc ssss ssss vvvv"),
    (0x30, 1, &[0], "cccc cccc ssss"),
    // Two selective streams, the first with one address association.
    (
        0x30,
        1,
        &[0x0001_0002, 0, 1],
        "cccc cccc ssss cccc ssss vvvv ssss ssss ssss ssss ssss \
         cccc ssss vvvv ssss ssss",
    ),
    (
        0x30,
        1,
        &[0x0001_0002],
        "cccc cccc ssss cccc ssss vvvv ssss ssss cccc ssss vvvv ssss ssss",
    ),
    // Virtual Channel: one; three; with arbitration tables of 64 phases of
    // four bits behind the port's, and of 128 phases of two bits.
    (0x02, 1, &[0], "cccc cccc cccc ssvv cccc ssss vvvv"),
    (
        0x09,
        1,
        &[2],
        "cccc cccc cccc ssvv cccc ssss vvvv cccc ssss vvvv cccc ssss vvvv",
    ),
    (
        0x02,
        1,
        &[0, 0x0300_0006, 0],
        "cccc cccc cccc ssvv cccc ssss vvvv ---- ---- ---- ---- ---- \
         ssss ssss ssss ssss ssss ssss ssss ssss",
    ),
    (
        0x02,
        1,
        &[0x0000_0400, 0, 0, 0x0200_0011],
        "cccc cccc cccc ssvv cccc ssss vvvv ---- \
         ssss ssss ssss ssss ssss ssss ssss ssss",
    ),
    // Functions are arbitrated with eight bits each: 32 phases.
    (
        0x08,
        1,
        &[0, 0, 0, 0x0200_0002],
        "cccc cccc cccc ssvv cccc ssss vvvv ---- \
         ssss ssss ssss ssss ssss ssss ssss ssss",
    ),
    // No scheme has a table.
    (
        0x02,
        1,
        &[0, 0x0300_0001, 0, 0x0200_0001],
        "cccc cccc cccc ssvv cccc ssss vvvv",
    ),
    // DVSEC of another vendor, and a CXL one that nobody knows.
    (0x23, 1, &[0x0381_1234, 0], "cccc cccc cc--"),
    (0x23, 1, &[0x0381_1e98, 0x000a], "cccc cccc cc--"),
    // CXL Device: range 1 valid and active, range 2 not yet active.
    (
        0x23,
        1,
        &[0x03c1_1e98, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1],
        "cccc cccc cccc ssvv vvvv sscc cccc cccc ssss ssss cccc vvvv ssss ssss cc--",
    ),
    // The same of revision 0, which is shorter.
    (
        0x23,
        1,
        &[0x0380_1e98, 0, 0, 0, 0, 0, 1, 0, 0, 0, 7],
        "cccc cccc cccc ssvv vvvv sscc cccc vvvv ssss ssss cccc cccc ssss ssss",
    ),
    (
        0x23,
        1,
        &[0x02c0_1e98, 2],
        "cccc cccc cc-- cccc cccc cccc cccc cccc cccc cccc cccc",
    ),
    (
        0x23,
        1,
        &[0x0280_1e98, 3],
        "cccc cccc ccvv ssss ssss ssss ssss ssss ssss ssss",
    ),
    (0x23, 1, &[0x0100_1e98, 4], "cccc cccc cc-- ssss"),
    (0x23, 1, &[0x0100_1e98, 5], "cccc cccc cccc cccc"),
    (
        0x23,
        1,
        &[0x0202_1e98, 7],
        "cccc cccc cccc ssvv vvvv cccc ssss vvvv",
    ),
    (
        0x23,
        1,
        &[0x01c0_1e98, 8],
        "cccc cccc cc-- cccc cccc cccc cccc",
    ),
    (0x23, 1, &[0x0100_1e98, 9], "cccc cccc cccc vv--"),
];

/// Those that are others, or there at all, in ports.
const OF_PORTS: &[(PortType, Extended)] = &[
    (
        PortType::RootPort,
        (
            0x01,
            2,
            &[],
            "cccc vvvv ssss ssss vvvv ssss vvvv vvvv vvvv vvvv vvvv ssss vvvv vvvv",
        ),
    ),
    (
        PortType::RootComplexEventCollector,
        (
            0x01,
            2,
            &[],
            "cccc vvvv ssss ssss vvvv ssss vvvv vvvv vvvv vvvv vvvv ssss vvvv vvvv",
        ),
    ),
    (
        PortType::UpstreamPort,
        (
            0x12,
            1,
            &[],
            "cccc ccss ssss ssss ssss ssss ssss ssss ssss ssss ssss ssss",
        ),
    ),
    // Downstream Port Containment, with and without the registers of RP PIO.
    (
        PortType::DownstreamPort,
        (0x1d, 1, &[0x0080], "cccc ccss vvvv"),
    ),
    (
        PortType::RootPort,
        (
            0x1d,
            1,
            &[0x05a0],
            "cccc ccss vvvv vvvv ssss ssss ssss ssss",
        ),
    ),
    // System Firmware Intermediary.
    (
        PortType::DownstreamPort,
        (0x2c, 1, &[], "cccc ccss vvvv ssss eeee"),
    ),
    // No link, no lanes.
    (
        PortType::RootComplexIntegratedEndpoint,
        (0x19, 1, &[], "cccc vsss vvvv"),
    ),
];

/// A function of `port` whose last extended capability is at 0x100.
fn with(port: PortType, (id, version, body, _): Extended) -> FunctionModel {
    let model = header(is_bridge(port)).express(ExpressModel::new(port));
    model.extended(id, version, body)
}

#[test]
fn the_extended_capabilities_behave_as_specified() {
    let of_endpoint = OF_ENDPOINT.iter().map(|&case| (PortType::Endpoint, case));
    for (port, case) in of_endpoint.chain(OF_PORTS.iter().copied()) {
        let (id, version, body, expected) = case;
        let what = format!("{port:?}: {id:04x} version {version} {body:08x?}");
        assert_classes(with(port, case), 0x100, expected, &what);
    }
}

#[test]
fn a_structure_ends_with_its_space() {
    // Counts that lead out of it.
    for (id, body) in [
        (0x05, [0x0000_ff00_u32, 0]),
        (0x17, [0x07ff_0200, 0]),
        (0x30, [0x00ff_e003, 0]),
        (0x02, [0x0000_0c07, 0xff00_000e]),
        (0x36, [0xfff, 0]),
    ] {
        let model = header(false)
            .express(ExpressModel::new(PortType::Endpoint))
            .place_at(0xff4)
            .extended(id, 1, &body)
            .set(0x100, Width::Dword, 0xff41_0003);
        let (cached, function) = crate::classes::inferred(model);
        let block = cached.block(function).unwrap();
        assert_eq!(block.extended_capabilities().len(), 2);
        assert_eq!(block.size(), 0x1000);
        let class = |at| block.class(ConfigOffset::wrapping(at));
        assert_eq!(class(0xff4), warmbus_pcsc::ByteClass::Static);
        assert_eq!(class(0x40), warmbus_pcsc::ByteClass::Static);
    }
}
