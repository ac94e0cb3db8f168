//! Device trees that QEMU made and a test changed, with the tools of the
//! device tree compiler.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use xtask::process;
use xtask::qemu::Machine;

use crate::Lab;

/// The node of the host bridge of QEMU's `virt` machine.
pub const HOST_BRIDGE: &str = "/pcie@10000000";

/// A device tree in a file.
pub struct Tree {
    file: PathBuf,
}

impl Tree {
    /// The tree that QEMU makes for `machine`.
    #[must_use]
    pub fn of(machine: &Machine, lab: &Lab) -> Self {
        let file = lab.file("tree.dtb");
        machine
            .dump_device_tree(&file)
            .expect("QEMU writes its device tree");
        Self { file }
    }

    /// Its file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        fs::read(&self.file).expect("the tree can be read")
    }

    fn put<S: AsRef<OsStr>>(&self, options: &[&str], words: impl IntoIterator<Item = S>) -> &Self {
        let mut command = Command::new("fdtput");
        command.args(options).arg(&self.file).args(words);
        process::output(&mut command).expect("fdtput changes the tree");
        self
    }

    /// The cells of a property.
    #[must_use]
    pub fn cells(&self, node: &str, property: &str) -> Vec<u32> {
        let mut command = Command::new("fdtget");
        command
            .args(["-t", "x"])
            .arg(&self.file)
            .args([node, property]);
        let text = process::output(&mut command).expect("fdtget finds the property");
        let cells = text.split_whitespace();
        cells
            .map(|cell| u32::from_str_radix(cell, 16).expect("cells are hexadecimal"))
            .collect()
    }

    /// The number of nodes.
    #[must_use]
    pub fn nodes(&self) -> usize {
        let mut command = Command::new("dtc");
        command
            .args(["-q", "-I", "dtb", "-O", "dts"])
            .arg(&self.file);
        let text = process::output(&mut command).expect("dtc reads the tree");
        text.lines().filter(|line| line.ends_with('{')).count()
    }

    /// Sets a property to cells.
    pub fn set_cells(&self, node: &str, property: &str, cells: &[u32]) -> &Self {
        let cells = cells.iter().map(|cell| format!("{cell:#x}"));
        let words = [node, property].map(str::to_owned).into_iter().chain(cells);
        self.put(&["-t", "x"], words)
    }

    /// Sets a property to a string.
    pub fn set_string(&self, node: &str, property: &str, text: &str) -> &Self {
        self.put(&["-t", "s"], [node, property, text])
    }

    /// Adds an empty node.
    pub fn add_node(&self, node: &str) -> &Self {
        self.put(&["-c"], [node])
    }

    /// Removes a node with all in it.
    pub fn remove_node(&self, node: &str) -> &Self {
        self.put(&["-r"], [node])
    }

    /// Removes a property.
    pub fn remove_property(&self, node: &str, property: &str) -> &Self {
        self.put(&["-d"], [node, property])
    }
}
