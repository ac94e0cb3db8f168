//! `./qemu-run.sh` as a user calls it.

use std::fs;
use std::process::{Command, Output};

use warmbus_cli::trace::Access;
use warmbus_qemu_tests::Lab;
use xtask::{paths, programs};

/// Calls the script in the directory of `lab`.
fn script(lab: &Lab, arguments: &[&str]) -> Output {
    Command::new(paths::root().join("qemu-run.sh"))
        .current_dir(lab.path())
        .args(arguments)
        .output()
        .expect("the script starts")
}

/// What it wrote to standard output and to standard error.
fn said(output: &Output) -> (String, String) {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// It refuses with status 2 and one line that names `what`.
fn refuses(arguments: &[&str], what: &str) {
    let output = script(&Lab::new(), arguments);
    let (out, err) = said(&output);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {err}");
    assert_eq!(out, "");
    assert_eq!(err.lines().count(), 1, "{err}");
    assert!(err.starts_with("error: ") && err.contains(what), "{err}");
}

#[test]
fn an_unknown_option_is_refused_in_one_line() {
    refuses(&["--no-such-option"], "--no-such-option");
}

#[test]
fn a_value_that_is_none_is_refused_in_one_line() {
    refuses(&["--smp", "many"], "many");
    refuses(&["--log-level", "loud"], "loud");
}

#[test]
fn a_topology_file_that_is_not_there_is_refused_in_one_line() {
    refuses(&["--topology", "no/such/file.args"], "no/such/file.args");
}

#[test]
fn a_file_that_cannot_be_written_is_refused_before_anything_starts() {
    refuses(
        &["--report", "no/such/directory/report.json"],
        "no/such/directory/report.json",
    );
}

#[test]
fn the_list_of_topologies_has_a_line_for_each() {
    let output = script(&Lab::new(), &["--topology", "list"]);
    let (out, _) = said(&output);
    assert!(output.status.success());
    for name in warmbus_qemu_tests::boot::TOPOLOGIES {
        assert!(
            out.lines()
                .any(|line| line.starts_with(name) && line.len() > name.len() + 10),
            "{out}"
        );
    }
}

#[test]
fn all_that_is_kept_is_in_the_files_and_not_on_the_terminal() {
    let lab = Lab::new();
    let files = ["--report", "r.json", "--lspci", "l.txt", "--trace", "t.log"];
    let output = script(
        &lab,
        &[&["--probe-only", "--topology", "small"][..], &files].concat(),
    );
    let (out, err) = said(&output);
    assert!(output.status.success(), "{err}");
    assert_eq!(out.lines().last(), Some("warmbus: result: ok"), "{out}");
    assert!(
        !out.contains("WARMBUS REPORT") && !out.contains("warmbus-report/1"),
        "{out}"
    );

    let read = |name| fs::read_to_string(lab.file(name)).unwrap();
    let report: serde_json::Value = serde_json::from_str(&read("r.json")).unwrap();
    let accesses: Vec<_> = read("t.log")
        .lines()
        .map(|line| Access::parse(line).unwrap())
        .collect();
    let counted = ["reads", "writes"].map(|what| report["accesses"][what].as_u64().unwrap());
    assert_eq!(counted.iter().sum::<u64>(), accesses.len() as u64);
    assert!(read("l.txt").contains("00: "));
    for name in ["r.json", "l.txt", "t.log"] {
        assert!(err.contains(name), "where it is: {err}");
    }
}

#[test]
fn a_topology_file_of_the_user_is_taken() {
    let lab = Lab::new();
    fs::write(lab.file("mine.args"), "# mine\n-device nvme,serial=x\n").unwrap();
    let output = script(
        &lab,
        &[
            "--probe-only",
            "--topology",
            "mine.args",
            "--report",
            "r.json",
        ],
    );
    assert!(output.status.success(), "{}", said(&output).1);
    let report: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(lab.file("r.json")).unwrap()).unwrap();
    assert_eq!(
        report["functions"].as_array().map(Vec::len),
        Some(2),
        "the host bridge and the NVMe"
    );
}

#[test]
fn a_qemu_that_does_not_start_is_a_failure_with_its_own_words() {
    let output = script(
        &Lab::new(),
        &["--probe-only", "--", "-device", "no-such-device"],
    );
    let (_, err) = said(&output);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("no-such-device"), "{err}");
}

#[test]
fn what_is_missing_on_the_machine_is_named_and_the_status_is_2() {
    let lab = Lab::new();
    let bin = lab.file("bin");
    fs::create_dir(&bin).unwrap();
    // A machine with a compiler, and without QEMU, pciutils and all else.
    for program in ["cargo", "rustc", "cc", "ld", "sh", "env"] {
        if let Some(path) = programs::find_in_system(program) {
            std::os::unix::fs::symlink(path, bin.join(program)).unwrap();
        }
    }
    let output = Command::new("cargo")
        .current_dir(paths::root())
        .args(["xtask", "setup", "--check"])
        .env("PATH", &bin)
        // What was unpacked for this machine earlier counts as there.
        .env("XDG_CACHE_HOME", lab.file("cache"))
        .output()
        .unwrap();
    let (_, err) = said(&output);
    assert_eq!(output.status.code(), Some(2), "{err}");
    for package in ["qemu-system-arm", "pciutils", "device-tree-compiler"] {
        assert!(err.contains(package), "{package} in {err}");
    }
}
