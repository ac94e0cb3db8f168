//! Every kind of host bridge, as the trees of boards describe it.

use super::*;

const HOST_BRIDGES: &[u8] =
    include_bytes!("../../../../tests/fixtures/device-trees/host-bridges.dtb");

#[test]
fn every_kind_of_host_bridge_is_known_by_its_name() {
    let machine = machine(HOST_BRIDGES);
    let single_device_on_root_bus = CamLayout {
        single_device_on_root_bus: true,
        ..CamLayout::ECAM
    };
    let cam = CamLayout {
        bus_shift: 16,
        single_device_on_root_bus: false,
    };
    let ecam = Mechanism::Window(CamLayout::ECAM);
    let port = |dbi, atu: u64| Mechanism::DesignWare {
        dbi: PhysAddr(dbi),
        atu: (atu != 0).then_some(PhysAddr(atu)),
    };
    // Path, mechanism, window, preserved, kept by Linux.
    let expected = [
        ("/pcie@40000000", ecam, 0x4000_0000, false, true),
        (
            "/pcie@60000000",
            Mechanism::Window(single_device_on_root_bus),
            0x6000_0000,
            false,
            true,
        ),
        (
            "/pcie@e0008000",
            Mechanism::Window(single_device_on_root_bus),
            0xe000_0000,
            false,
            true,
        ),
        ("/cam", Mechanism::Window(cam), 0x1_0000_0000, false, true),
        ("/pci@848000000000", ecam, 0x8480_0000_0000, true, false),
        (
            "/pcie@fe150000",
            port(0xa_4000_0000, 0xa_4030_0000),
            0xf000_0000,
            true,
            false,
        ),
        (
            "/pcie@33800000",
            port(0x3380_0000, 0x33b0_0000),
            0x1ff0_0000,
            true,
            false,
        ),
        (
            "/pcie@f2600000",
            port(0xf260_0000, 0),
            0xf6f0_0000,
            true,
            false,
        ),
        (
            "/scb/pcie@7d500000",
            Mechanism::BrcmStb,
            0xfd50_0000,
            true,
            false,
        ),
    ];
    let found: Vec<_> = machine
        .hosts
        .iter()
        .map(|host| {
            (
                host.name.as_str(),
                host.mechanism,
                host.ecam_base.0,
                host.preserve_config,
                host.survives_linux_driver,
            )
        })
        .collect();
    assert_eq!(found, expected);
    assert_eq!(
        machine.warnings,
        ["/pcie@fe160000 is excluded: it has no port or no window in its reg-names property"]
    );
    // Marked as 32 bits, and above 4 GiB.
    let kinds = machine.hosts[0].windows.iter().map(|window| window.kind);
    let expected = [WindowKind::Io, WindowKind::Memory32, WindowKind::Memory64];
    assert!(kinds.eq(expected));
    let ports = machine.hosts.iter();
    let ports = ports.filter(|host| host.mechanism.is_controller());
    assert_eq!(ports.count(), 4);
}

#[test]
fn the_first_name_that_is_known_counts() {
    let generic_first = replaced(
        HOST_BRIDGES,
        b"socionext,synquacer-pcie-ecam\0snps,dw-pcie-ecam\0",
        b"pci-host-ecam-generic\0\0\0\0\0\0\0\0\0snps,dw-pcie-ecam\0",
    );
    let machine = machine(&generic_first);
    let host = &machine.hosts[1];
    assert_eq!(host.name, "/pcie@60000000");
    assert_eq!(host.mechanism, Mechanism::Window(CamLayout::ECAM));
}
