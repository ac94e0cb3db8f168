//! `warmbus generate`: man pages, which `man` formats, and completions, which
//! the shells read.

use std::process::Command;

use crate::{Folder, warmbus};

/// The commands that `--help` lists.
fn commands() -> Vec<String> {
    let help = warmbus(&["--help"]).ended(0).out;
    let (_, rest) = help.split_once("Commands:\n").unwrap();
    let (list, _) = rest.split_once("\n\n").unwrap();
    let names = list
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let names: Vec<String> = names.map(str::to_owned).collect();
    assert!(names.len() > 10, "{names:?}");
    names
}

#[test]
fn every_command_has_a_man_page_with_its_examples() {
    let folder = Folder::new();
    let path = folder.0.path().display().to_string();
    warmbus(&["generate", "man", "-o", &path]).ended(0);
    let page = |name: &str| {
        let file = folder.0.path().join(name);
        std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let main = page("warmbus.1");
    for name in commands() {
        assert!(main.contains(&name.replace('-', "\\-")), "{name}");
        if name != "help" {
            let page = page(&format!("warmbus-{name}.1"));
            assert!(page.contains("Examples:"), "{name}");
        }
    }
    // The formatter of man complains about what it does not understand.
    let file = folder.0.path().join("warmbus-survey.1");
    if let Ok(output) = Command::new("man")
        .args(["--warnings", "-l"])
        .arg(file)
        .output()
    {
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.is_empty() || text.contains("survey"), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn completions_are_read_by_their_shells_and_have_every_command() {
    for shell in ["bash", "elvish", "fish", "zsh"] {
        let text = warmbus(&["generate", shell]).ended(0).out;
        for name in commands() {
            assert!(text.contains(&name), "{shell}: {name}");
        }
        let folder = Folder::new();
        let file = folder.file("completions", &text);
        let check = Command::new(shell).args(["-n", &file]).output();
        if let Ok(output) = check.map_err(|error| error.kind()) {
            let is_fine = output.status.success() || shell == "elvish";
            assert!(is_fine, "{shell}: {output:?}");
        }
    }
}
