//! Descriptions that can be used and descriptions that cannot.

use std::fs;
use std::path::Path;
use std::process::Command;

use warmbus_board::{Board, Image, LABELS, all};

const HEAD: &str = "name = \"a board\"\ncompatible = [\"maker,board\"]\n";

fn parse(rest: &str) -> Result<Board, String> {
    Board::parse("b.toml", &format!("{HEAD}{rest}")).map_err(|error| error.to_string())
}

/// The device tree of a description as the device tree compiler reads it.
fn decompiled(board: &Board) -> String {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.dtb");
    fs::write(&file, board.additions.as_deref().unwrap()).unwrap();
    let output = Command::new("dtc")
        .args(["-q", "-I", "dtb", "-O", "dts"])
        .arg(file)
        .output();
    let output = output.expect("the device tree compiler is installed");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_key_has_its_meaning() {
    let board = parse(
        "options = \"warmbus.preserve\"\n[image]\nloader = \"u-boot\"\nbootargs = \"console=ttyS0\"\nload-address = 0x200000",
    );
    assert_eq!(
        board,
        Ok(Board {
            name: "a board".into(),
            compatible: vec!["maker,board".into()],
            options: "warmbus.preserve".into(),
            image: Some(Image {
                bootargs: "console=ttyS0".into(),
                load_address: Some(0x20_0000),
            }),
            additions: None,
        })
    );
}

#[test]
fn tables_become_nodes_that_the_device_tree_compiler_reads() {
    let board = parse(
        "[tree.soc.\"pcie@f0000000\"]\nreg = [0, 0xf0000000]\n\"#address-cells\" = 3\ndma-coherent = true\n\
         compatible = [\"a,b\", \"c\"]\nstatus = \"okay\"\ninterrupts-extended = [\"&gic\", 1, 4]\n\
         interrupt-parent = \"&gic\"\n[tree.gic]\nlabel = \"gic\"",
    );
    // dtc 1.7 prints the strings of a list apart, older ones as one with zeros.
    let text = decompiled(&board.unwrap()).replace("\\0", "\", \"");
    for expected in [
        "gic { phandle = <0xfff00000>; };",
        "soc { pcie@f0000000 {",
        "reg = <0x00 0xf0000000>;",
        "#address-cells = <0x03>;",
        "dma-coherent;",
        "compatible = \"a,b\", \"c\";",
        "status = \"okay\";",
        "interrupts-extended = <0xfff00000 0x01 0x04>;",
        "interrupt-parent = <0xfff00000>;",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
}

#[test]
fn an_error_names_file_line_and_key() {
    for (rest, error) in [
        ("image = 1", "b.toml:3: image: is not a table"),
        ("\nloader = 1", "b.toml:4: loader: there is no such key"),
        (
            "options = \"quiet\"",
            "b.toml:3: options: is not valid: the parameter \"quiet\" is not for Warmbus",
        ),
        (
            "[image]\nloader = \"grub\"",
            "b.toml:4: image.loader: is not \"u-boot\", the only one that there is",
        ),
        (
            "[image]\nbootargs = \"x\"",
            "b.toml:1: image.loader: is not \"u-boot\", the only one that there is",
        ),
        (
            "[image]\nloader = \"u-boot\"\nbootargs = \"it's\"",
            "b.toml:5: image.bootargs: contains '\\''",
        ),
        (
            "[image]\nloader = \"u-boot\"\nload-address = 0x1000",
            "b.toml:5: image.load-address: is not a multiple of 2 MiB",
        ),
        (
            "[image]\nloader = \"u-boot\"\nload-address = -1",
            "b.toml:5: image.load-address: is not a number from 0 on",
        ),
        (
            "[image]\nloader = \"u-boot\"\nspeed = 1",
            "b.toml:5: image.speed: there is no such key",
        ),
        (
            "[tree]\n\"a b\" = 1",
            "b.toml:4: tree.a b: is not the name of a property",
        ),
        (
            "[tree.\"1node\"]",
            "b.toml:3: tree.1node: is not the name of a node",
        ),
        (
            "[tree.n]\nx = [1, \"a\"]",
            "b.toml:4: tree.n.x: is neither true, a text, a cell of 32 bits, a label that there is nor a list of texts or of cells",
        ),
        (
            "[tree.a]\nlabel = \"x\"\n[tree.b]\nlabel = \"x\"",
            "b.toml:6: tree.b.label: another node has the label \"x\"",
        ),
    ] {
        let found = parse(rest).unwrap_err();
        assert_eq!(found, error);
    }
    let no_value = parse("options = ").unwrap_err();
    assert!(no_value.starts_with("b.toml:3: "), "{no_value}");
    let nameless = Board::parse("b.toml", "compatible = []").unwrap_err();
    assert_eq!(nameless.to_string(), "b.toml:1: name: is missing");
}

#[test]
fn what_is_no_value_of_a_property_is_refused() {
    for value in [
        "false",
        "1.5",
        "-1",
        "0x100000000",
        "\"&nobody\"",
        "[\"&nobody\"]",
        "[true]",
        "\"a\\u0000b\"",
        // It would be taken for the label.
        &LABELS.to_string(),
    ] {
        let text = format!("[tree.n]\nlabel = \"n\"\nx = {value}");
        assert!(parse(&text).is_err(), "{value}");
    }
}

#[test]
fn all_boards_of_the_project_can_be_read() {
    let boards = all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../boards")).unwrap();
    assert!(boards.contains_key("qemu-virt") && boards.contains_key("qemu-sbsa-ref"));
    for (id, board) in &boards {
        if board.additions.is_some() {
            assert!(!decompiled(board).is_empty(), "{id}");
        }
    }
}

#[test]
fn two_boards_cannot_have_the_same_compatible() {
    let directory = tempfile::tempdir().unwrap();
    for board in ["a", "b"] {
        fs::create_dir(directory.path().join(board)).unwrap();
        fs::write(directory.path().join(board).join("board.toml"), HEAD).unwrap();
    }
    let error = all(directory.path()).unwrap_err().to_string();
    assert!(
        error.contains("b/board.toml: compatible: \"maker,board\" is already the board a"),
        "{error}"
    );
}
