//! The commands and options that the pages print work as printed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use warmbus_qemu_tests::Lab;
use xtask::paths;

/// The command that runs this test.
const THIS: &str = "cargo xtask test";

fn text(file: &str) -> String {
    fs::read_to_string(paths::root().join(file)).unwrap()
}

/// The lines of the fenced `sh` blocks of a page.
fn commands(page: &str) -> Vec<&str> {
    let mut inside = false;
    page.lines()
        .filter(|line| {
            let fence = line.starts_with("```");
            inside = if fence { *line == "```sh" } else { inside };
            inside && !fence
        })
        .collect()
}

/// Runs a command of a page as a reader would, in `directory`, in which the
/// script stands beside what it writes.
fn follow(command: &str, directory: &Path) -> Output {
    let mut words = command.split_whitespace();
    let program = words.next().unwrap();
    let (program, directory) = match program {
        "./qemu-run.sh" => (directory.join("qemu-run.sh"), directory.to_owned()),
        "lspci" => (program.into(), directory.to_owned()),
        "cargo" => (program.into(), paths::root()),
        _ => panic!("no test knows how to run {command:?}"),
    };
    let mut process = Command::new(program);
    process.args(words).current_dir(directory);
    process.output().unwrap()
}

#[test]
fn every_command_works_as_it_is_printed() {
    let pages = ["README.md", "docs/options.md", "boards/qemu-virt/README.md"].map(text);
    let commands: Vec<_> = pages.iter().flat_map(|page| commands(page)).collect();
    assert!(commands.contains(&"./qemu-run.sh") && commands.contains(&THIS));

    let lab = Lab::new();
    symlink(paths::root().join("qemu-run.sh"), lab.file("qemu-run.sh")).unwrap();
    for command in commands.into_iter().filter(|command| *command != THIS) {
        let output = follow(command, lab.path());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {error}");
        assert!(!output.stdout.is_empty(), "{command} shows something");
    }
}

#[test]
fn the_table_of_options_has_every_option_and_no_other() {
    let lab = Lab::new();
    symlink(paths::root().join("qemu-run.sh"), lab.file("qemu-run.sh")).unwrap();
    let help = follow("./qemu-run.sh --help", lab.path()).stdout;
    let help = String::from_utf8(help).unwrap();
    let options = help.split("Examples:").next().unwrap();
    let offered: BTreeSet<_> = long_options(options)
        .filter(|option| *option != "--help")
        .collect();

    let page = text("docs/options.md");
    let table = page.split("## Options of").nth(1).unwrap();
    let table = table.split("```").next().unwrap();
    let described: BTreeSet<_> = long_options(table).collect();
    assert_eq!(described, offered);
    assert!(offered.len() > 10);
}

fn long_options(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| {
        !(letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-')
    })
    .filter(|word| word.len() > 2 && word.starts_with("--") && !word.starts_with("---"))
}
