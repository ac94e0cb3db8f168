//! PCIe hierarchies to start QEMU with: files of QEMU arguments.
//!
//! Each line of a topology file holds QEMU arguments with white space between
//! them. A line that starts with `#` is a comment; the first comment describes
//! the topology in one line.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{UsageError, paths};

/// A PCIe hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// What its file is called, without directory and ending.
    pub name: String,
    /// One line about it, or nothing.
    pub description: String,
    /// QEMU arguments.
    pub arguments: Vec<String>,
}

impl Topology {
    /// Loads the topology that a user calls `name`: one of those of the board,
    /// or a path of a file.
    pub fn load(name: &str) -> Result<Self> {
        let of_board = directory().join(format!("{name}.args"));
        let file = if !name.contains('/') && of_board.is_file() {
            of_board
        } else {
            PathBuf::from(name)
        };
        let text = fs::read_to_string(&file).map_err(|error| {
            UsageError(format!(
                "topology {name:?} is neither one of {} nor a file that can be read ({error})",
                names().map_or_else(|error| error.to_string(), |names| names.join(", "))
            ))
        })?;
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        Ok(Self::parse(&stem, &text))
    }

    /// The first `devices` devices of it.
    #[must_use]
    pub fn first(mut self, devices: usize) -> Self {
        self.arguments.truncate(2 * devices);
        self
    }

    /// Takes the text of a topology file apart.
    #[must_use]
    pub fn parse(name: &str, text: &str) -> Self {
        let (comments, arguments): (Vec<_>, Vec<_>) = text
            .lines()
            .map(str::trim)
            .partition(|line| line.starts_with('#'));
        Self {
            name: name.to_owned(),
            description: comments.first().map_or_else(String::new, |line| {
                line.trim_start_matches('#').trim().to_owned()
            }),
            arguments: arguments
                .into_iter()
                .flat_map(str::split_whitespace)
                .map(str::to_owned)
                .collect(),
        }
    }
}

/// All topologies of the board by name.
pub fn all() -> Result<Vec<Topology>> {
    names()?.iter().map(|name| Topology::load(name)).collect()
}

/// The names of the topologies of the board.
pub(crate) fn names() -> Result<Vec<String>> {
    let directory = directory();
    let mut names: Vec<_> = fs::read_dir(&directory)
        .with_context(|| format!("cannot read {}", directory.display()))?
        .filter_map(|entry| {
            Some(
                entry
                    .ok()?
                    .file_name()
                    .to_str()?
                    .strip_suffix(".args")?
                    .to_owned(),
            )
        })
        .collect();
    names.sort();
    Ok(names)
}

fn directory() -> PathBuf {
    paths::root().join(Path::new("boards/qemu-virt/topologies"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_blank_lines_are_no_arguments() {
        let text = "# two devices\n-device a,x=1  -device b\n\n  # more\n-device c\n";
        let topology = Topology::parse("t", text);
        assert_eq!(topology.description, "two devices");
        assert_eq!(
            topology.arguments,
            ["-device", "a,x=1", "-device", "b", "-device", "c"]
        );
    }

    #[test]
    fn every_topology_of_the_board_has_a_description_and_devices() {
        let all = all().unwrap();
        assert!(all.len() >= 4);
        for topology in all {
            assert!(!topology.description.is_empty(), "{}", topology.name);
            assert!(topology.arguments.len() >= 2, "{}", topology.name);
        }
    }

    #[test]
    fn a_topology_that_does_not_exist_is_refused_in_one_line_with_those_that_do() {
        let error = Topology::load("no-such").unwrap_err();
        assert!(error.is::<UsageError>());
        let text = error.to_string();
        assert!(
            text.contains("no-such") && text.contains("switch") && !text.contains('\n'),
            "{text}"
        );
    }
}
