//! Which serial port is the console.

use warmbus_fdt::FdtWriter;

use super::*;

/// A serial port: name, `compatible`, further cells, and whether it is enabled.
type Port<'a> = (&'a str, &'a [&'a str], &'a [(&'a str, u32)], bool);

/// A tree with `ports` below a bus, each at its own address, and what
/// `/chosen` says.
fn tree(chosen: &[(&str, &str)], ports: &[Port<'_>]) -> Vec<u8> {
    let mut tree = FdtWriter::new();
    tree.begin_node("");
    tree.property_u32("#address-cells", 1);
    tree.property_u32("#size-cells", 1);
    tree.begin_node("chosen");
    for (name, value) in chosen {
        tree.property_string(name, value);
    }
    tree.end_node();
    tree.begin_node("memory@80000000");
    tree.property_string("device_type", "memory");
    let reg = [0x8000_0000_u32, 0x1000_0000].map(u32::to_be_bytes);
    tree.property("reg", reg.as_flattened());
    tree.end_node();
    for (number, (name, compatible, cells, is_enabled)) in (1..).zip(ports) {
        tree.begin_node(name);
        tree.property_strings("compatible", compatible);
        let reg = [number << 16, 0x1000_u32].map(u32::to_be_bytes);
        tree.property("reg", reg.as_flattened());
        for (name, value) in *cells {
            tree.property_u32(name, *value);
        }
        if !is_enabled {
            tree.property_string("status", "disabled");
        }
        tree.end_node();
    }
    tree.end_node();
    tree.finish().unwrap()
}

fn console(tree: &[u8]) -> Option<Console> {
    EarlyDevices::from_device_tree(tree).console
}

#[test]
fn ports_of_many_boards_are_known_with_their_registers() {
    use ConsoleKind::{Imx, Lpuart, Meson, Ns16550, Pl011};
    for (compatible, cells, kind, shift, width) in [
        (&["arm,pl011", "arm,primecell"][..], &[][..], Pl011, 2, 4),
        (&["fsl,imx8mm-uart", "fsl,imx6q-uart"], &[], Imx, 2, 4),
        (
            &["fsl,imx8qxp-lpuart", "fsl,imx7ulp-lpuart"],
            &[],
            Lpuart,
            2,
            4,
        ),
        (
            &[
                "fsl,imx93-lpuart",
                "fsl,imx8ulp-lpuart",
                "fsl,imx7ulp-lpuart",
            ],
            &[],
            Lpuart,
            2,
            4,
        ),
        (
            &["amlogic,meson-gx-uart", "amlogic,meson-ao-uart"],
            &[],
            Meson,
            2,
            4,
        ),
        (
            &["mediatek,mt8195-uart", "mediatek,mt6577-uart"],
            &[],
            Ns16550,
            2,
            4,
        ),
        (&["ti,j721e-uart", "ti,am654-uart"], &[], Ns16550, 2, 4),
        (
            &["nvidia,tegra210-uart", "nvidia,tegra20-uart"],
            &[("reg-shift", 2)],
            Ns16550,
            2,
            4,
        ),
        (&["brcm,bcm2835-aux-uart"], &[], Ns16550, 2, 4),
        // These say how far apart their registers are.
        (&["ns16550a"], &[], Ns16550, 0, 1),
        (
            &["snps,dw-apb-uart"],
            &[("reg-shift", 2), ("reg-io-width", 4)],
            Ns16550,
            2,
            4,
        ),
    ] {
        let tree = tree(
            &[("stdout-path", "/serial")],
            &[("serial@10000", compatible, cells, true)],
        );
        let console = console(&tree).unwrap_or_else(|| panic!("{compatible:?}"));
        assert_eq!(
            (console.kind, console.base.0),
            (kind, 0x1_0000),
            "{compatible:?}"
        );
        assert_eq!(
            (console.register_shift, console.access_width),
            (shift, width)
        );
    }
    // What has other registers is not taken for one of them.
    for compatible in [
        "fsl,imx1-uart",
        "fsl,ls1021a-lpuart",
        "fsl,vf610-lpuart",
        "qcom,geni-debug-uart",
    ] {
        let tree = tree(
            &[("stdout-path", "/serial")],
            &[("serial@10000", &[compatible], &[], true)],
        );
        assert_eq!(console(&tree), None, "{compatible}");
    }
}

#[test]
fn without_a_path_the_only_port_is_the_console() {
    const PL011: &[&str] = &["arm,pl011"];
    let base = |tree: &[u8]| console(tree).map(|console| console.base.0);
    let one = ("uart@10000", PL011, &[][..], true);
    let other = ("serial@20000", &["ns16550a"][..], &[][..], true);
    let off = ("uart@20000", PL011, &[][..], false);
    assert_eq!(base(&tree(&[], &[one])), Some(0x1_0000));
    assert_eq!(base(&tree(&[], &[one, off])), Some(0x1_0000));
    // Nothing says which one of two.
    assert_eq!(base(&tree(&[], &[one, other])), None);
    assert_eq!(base(&tree(&[], &[])), None);
    // A path counts, also one that leads nowhere.
    assert_eq!(
        base(&tree(&[("stdout-path", "/serial:115200")], &[one, other])),
        Some(0x2_0000)
    );
    assert_eq!(base(&tree(&[("stdout-path", "/nowhere")], &[one])), None);
}

#[test]
fn a_port_that_is_disabled_is_not_touched() {
    let port = ("uart@10000", &["arm,pl011"][..], &[][..], false);
    assert_eq!(console(&tree(&[("stdout-path", "/uart")], &[port])), None);
}

#[test]
fn earlycon_on_the_command_line_names_the_console_where_the_tree_does_not() {
    use ConsoleKind::{Ns16550, Pl011};
    let found = |line| {
        let two = [
            ("uart@10000", &["arm,pl011"][..], &[][..], true),
            ("uart@20000", &["arm,pl011"][..], &[][..], true),
        ];
        let console = console(&tree(&[("bootargs", line)], &two))?;
        let registers = (console.register_shift, console.access_width);
        Some((console.kind, console.base.0, registers))
    };
    for (line, expected) in [
        (
            "quiet earlycon=pl011,0x9000000",
            Some((Pl011, 0x900_0000, (2, 4))),
        ),
        (
            "earlycon=pl011,mmio32,0x9000000,115200n8",
            Some((Pl011, 0x900_0000, (2, 4))),
        ),
        (
            "earlycon=uart8250,mmio,0x3f8",
            Some((Ns16550, 0x3f8, (0, 1))),
        ),
        (
            "earlycon=uart8250,mmio32,0x1c28000,115200",
            Some((Ns16550, 0x1c2_8000, (2, 4))),
        ),
        (
            "console=uart8250,mmio,0x40000000",
            Some((Ns16550, 0x4000_0000, (0, 1))),
        ),
        // Not for this reader, in memory, not aligned, or malformed.
        ("earlycon", None),
        ("earlycon=efifb", None),
        ("earlycon=uart8250,io,0x3f8", None),
        ("earlycon=pl011,0x80001000", None),
        ("earlycon=pl011,0x9000001", None),
        ("earlycon=pl011,0xfffffffffffffff0", None),
        ("earlycon=pl011,", None),
        ("-- earlycon=pl011,0x9000000", None),
    ] {
        assert_eq!(found(line), expected, "{line}");
    }
}
