//! Wrong calls, broken files, help.

use std::fs;

use crate::{Folder, data, warmbus};

#[test]
fn a_wrong_call_ends_with_status_2() {
    for arguments in [
        &["inspect"][..],
        &["inspekt", "x"],
        &["replay", "trace"],
        &["inspect", "x", "--base", "0xzz"],
        &["inspect", "x", "--function", "1.2.3"],
        &["inspect", "/no/such/file"],
    ] {
        let ran = warmbus(arguments).ended(2);
        assert!(
            ran.out.is_empty() && ran.err.starts_with("error: "),
            "{ran:?}"
        );
    }
    let ran = warmbus(&["inspect", &data("small.dump"), "--function", "44:00.0"]).ended(2);
    assert!(
        ran.err
            .contains("there is no 0000:44:00.0 among the 9 functions"),
        "{ran:?}"
    );
    let ran = warmbus(&["lspci", &data("small.json")]).ended(2);
    assert!(ran.err.contains("has no configuration space"), "{ran:?}");
}

#[test]
fn every_help_has_examples() {
    for task in [
        &["--help"][..],
        &["inspect", "--help"],
        &["lspci", "--help"],
        &["diff", "--help"],
        &["replay", "--help"],
    ] {
        let ran = warmbus(task).ended(0);
        assert!(ran.out.contains("Examples:\n  warmbus "), "{ran:?}");
    }
}

#[test]
fn a_broken_file_is_refused_with_the_line_that_breaks_it() {
    let folder = Folder::new();
    let dump = fs::read_to_string(data("small.dump")).unwrap();
    let report = fs::read_to_string(data("small.json")).unwrap();
    let before = "[ 0.0] one\n-----BEGIN WARMBUS REPORT-----\n";
    let cases = [
        (dump.replacen("10: 00", "10: 0", 1), "line 3: not a byte"),
        (
            dump.replacen("\n20:", "\n30:", 1),
            "line 4: bytes at offset 0x30",
        ),
        (
            report.replacen("\"result\":\"ok\"", "\"result\":7", 1),
            "line 2, column 10: invalid type",
        ),
        (
            report.replacen("report/1", "report/9", 1),
            "line 1: the schema",
        ),
        (
            format!("{before}{{\n\"schema\" 1"),
            "line 4: the report was cut off after 2 lines",
        ),
        (
            format!("{before}{{\n\"schema\" 1\n-----END WARMBUS REPORT-----\n"),
            "line 4, column 10: expected",
        ),
        ("hello\nworld\n".into(), "2 lines without a byte"),
    ];
    for (text, wanted) in cases {
        let ran = warmbus(&["inspect", &folder.file("broken", text)]).ended(2);
        assert!(ran.err.contains(wanted), "{wanted}: {ran:?}");
    }
}

#[test]
fn a_broken_trace_is_refused_with_its_line() {
    let folder = Folder::new();
    let good = fs::read_to_string(data("small.trace")).unwrap();
    let cases = [
        (
            good.replacen("addr 0xc", "addr c", 1),
            "line 2: not a complete access",
        ),
        (
            good.replacen("size 4", "size 8", 1),
            "line 1: an access of 8 bytes",
        ),
        (
            good.replacen("addr 0xc", "addr 0xd", 1),
            "line 2: an access of 4 bytes at 0xd",
        ),
        (
            "nothing\n".into(),
            "no access to the region pcie-mmcfg-mmio in 1 lines",
        ),
    ];
    for (text, wanted) in cases {
        let trace = folder.file("trace", text);
        let ran = warmbus(&["replay", &trace, "--cache", &data("small.dump")]).ended(2);
        assert!(ran.err.contains(wanted), "{wanted}: {ran:?}");
    }
}
