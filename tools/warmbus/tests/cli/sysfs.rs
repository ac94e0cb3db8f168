//! Trees as Linux shows them in sysfs, made of a dump and a report.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;
use warmbus_fdt::{RawTree, Token};
use warmbus_pci::{DumpedConfigSpace, Sbdf};

use crate::{data, fixture};

/// A tree of sysfs.
pub(crate) struct Tree(tempfile::TempDir);

impl Tree {
    /// The machine `small` that QEMU recorded, with configuration spaces of at
    /// most `limit` bytes.
    pub(crate) fn small(limit: usize) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        let dump = fs::read_to_string(data("small.dump")).unwrap();
        let dump = DumpedConfigSpace::parse(&dump).unwrap();
        let report: Value = serde_json::from_slice(&fs::read(data("small.json")).unwrap()).unwrap();
        for function in report["functions"].as_array().unwrap() {
            let name = function["sbdf"].as_str().unwrap();
            let sbdf: Sbdf = name.parse().unwrap();
            let bytes = dump.bytes(sbdf).unwrap();
            tree.add(
                function["parent"].as_str(),
                name,
                &bytes[..bytes.len().min(limit)],
            );
            let class = function["class_code"].as_u64().unwrap();
            tree.attribute(name, "class", &format!("{class:#08x}\n"));
            for id in ["vendor", "device"] {
                let value = function[&format!("{id}_id")].as_u64().unwrap();
                tree.attribute(name, id, &format!("{value:#06x}\n"));
            }
        }
        tree
    }

    pub(crate) fn path(&self) -> String {
        self.0.path().display().to_string()
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// Writes the file `path`, with the folders above it.
    pub(crate) fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// The folder of a function.
    fn folder(&self, name: &str) -> PathBuf {
        fs::canonicalize(self.at("bus/pci/devices").join(name)).unwrap()
    }

    fn add(&self, parent: Option<&str>, name: &str, config: &[u8]) {
        let links = self.at("bus/pci/devices");
        fs::create_dir_all(&links).unwrap();
        let above = match parent {
            None => self.at("devices/platform/40.pcie/pci0000:00"),
            Some(parent) => self.folder(parent),
        };
        let folder = above.join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("config"), config).unwrap();
        let inside = folder.strip_prefix(fs::canonicalize(self.0.path()).unwrap());
        let inside = inside
            .or_else(|_| folder.strip_prefix(self.0.path()))
            .unwrap();
        symlink(Path::new("../../..").join(inside), links.join(name)).unwrap();
    }

    /// Sets an attribute of a function.
    pub(crate) fn attribute(&self, function: &str, name: &str, text: &str) {
        let file = self.folder(function).join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    /// Makes it an arm64 machine.
    pub(crate) fn arm64(self) -> Self {
        let register = "devices/system/cpu/cpu0/regs/identification/midr_el1";
        self.write(register, "0x00000000410fd083\n");
        self
    }

    /// Shows a device tree, with `host` as the node of the host bridge.
    pub(crate) fn device_tree(self, file: &str, host: &str) -> Self {
        let blob = fs::read(fixture(&format!("device-trees/{file}"))).unwrap();
        let base = self.at("firmware/devicetree/base");
        let mut folder = base.clone();
        for token in RawTree::new(&blob).unwrap().tokens() {
            let text = |name: &[u8]| String::from_utf8(name.to_vec()).unwrap();
            match token.unwrap().1 {
                Token::Begin { name: b"" } => fs::create_dir_all(&folder).unwrap(),
                Token::Begin { name } => {
                    folder.push(text(name));
                    fs::create_dir_all(&folder).unwrap();
                    // The kernel adds this one.
                    let before = name.split(|byte| *byte == b'@').next().unwrap();
                    fs::write(folder.join("name"), [before, b"\0"].concat()).unwrap();
                }
                Token::Property { name, value } => {
                    fs::write(folder.join(text(name)), value).unwrap();
                }
                Token::End => {
                    folder.pop();
                }
            }
        }
        symlink(
            base.join(host.trim_start_matches('/')),
            self.at("devices/platform/40.pcie/of_node"),
        )
        .unwrap();
        self
    }

    /// Shows the MCFG of a QEMU machine, after `change`.
    pub(crate) fn mcfg(self, change: impl Fn(&mut [u8])) -> Self {
        let tables = fs::read(fixture("acpi/qemu-virt.tables")).unwrap();
        let mut tables = &tables[..];
        while !tables.is_empty() {
            let size = u64::from_le_bytes(tables[8..16].try_into().unwrap()) as usize;
            let (table, rest) = tables[16..].split_at(size);
            tables = rest;
            if table.starts_with(b"MCFG") {
                let mut table = table.to_vec();
                change(&mut table);
                table[9] = 0;
                let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
                table[9] = sum.wrapping_neg();
                self.write("firmware/acpi/tables/MCFG", table);
            }
        }
        self
    }
}
