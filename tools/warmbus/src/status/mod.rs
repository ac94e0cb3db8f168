//! `warmbus status`: what the running kernel does with what was handed over.
//!
//! The kernel shows the handover and its counters in debugfs, which is for root.
//! What it excluded and why is in its log.

mod log;
mod show;

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use warmbus_pci::Sbdf;
use warmbus_pcsc_format::Subtree;

use crate::Verdict;
use crate::survey::sysfs::is_large_segment;

/// Where the kernel is asked.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// The tree of sysfs, with debugfs in `kernel/debug`.
    pub sysfs: &'a Path,
    /// The tree of procfs.
    pub proc: &'a Path,
    /// A file with the log of the kernel; `None` for that of the running one.
    pub log: Option<&'a Path>,
    /// Whether the result is JSON.
    pub json: bool,
}

/// What can be said, or why it cannot.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Known<T> {
    Yes(T),
    /// The kernel does not have it.
    Absent,
    /// It is for root.
    NeedsRoot,
    /// It is there, but not as it should be.
    Damaged(String),
}

impl<T> Known<T> {
    /// The content of the file `path`, as `decode` reads it.
    fn read(path: &Path, decode: impl FnOnce(&[u8]) -> Result<T>) -> Self {
        match fs::read(path) {
            Ok(bytes) => match decode(&bytes) {
                Ok(value) => Self::Yes(value),
                Err(error) => Self::Damaged(format!("{}: {error:#}", path.display())),
            },
            Err(error) => match error.kind() {
                ErrorKind::PermissionDenied => Self::NeedsRoot,
                ErrorKind::NotFound => Self::Absent,
                _ => Self::Damaged(format!("{}: {error}", path.display())),
            },
        }
    }

    fn value(&self) -> Option<&T> {
        match self {
            Self::Yes(value) => Some(value),
            Self::Absent | Self::NeedsRoot | Self::Damaged(_) => None,
        }
    }
}

/// What becomes of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// It was handed over, and the kernel has not said that it is not used.
    Used,
    /// A virtual function: its physical function decides about it.
    Virtual,
    /// It was handed over, and is not used for this reason.
    Dropped(String),
    /// It was not handed over.
    NotHandedOver,
    /// The kernel shows the handover to root only.
    Unknown,
}

/// The status.
#[derive(Debug)]
struct Status {
    release: String,
    /// The words of the command line that matter here.
    words: Vec<String>,
    /// `linux,pci-probe-only` of `/chosen`.
    probe_only: bool,
    /// The boot tree names a handover.
    in_boot_tree: bool,
    subtree: Known<Subtree>,
    /// Mode and counters of the series, in their order.
    counters: Known<Vec<(String, String)>>,
    /// The log could be read.
    has_log: bool,
    /// Lines of the log about no single function.
    remarks: Vec<String>,
    functions: BTreeMap<Sbdf, Fate>,
}

/// Shows the status. The verdict is bad where the kernel uses nothing.
///
/// # Errors
///
/// If the kernel shows no PCI functions.
pub fn run(options: &Options<'_>) -> Result<(String, Verdict)> {
    let status = Status::read(options)?;
    let is_used = status.mode().is_some_and(|mode| mode != "off")
        && status.functions.values().any(|fate| *fate == Fate::Used);
    let verdict = if is_used { Verdict::Good } else { Verdict::Bad };
    let text = if options.json {
        format!("{:#}\n", show::json(&status))
    } else {
        show::text(&status)
    };
    Ok((text, verdict))
}

impl Status {
    fn read(options: &Options<'_>) -> Result<Self> {
        let debug = options.sysfs.join("kernel/debug");
        let counters = debug_file(&debug, "pcsc", |bytes| {
            let text = str::from_utf8(bytes)?;
            let lines = text.lines().filter_map(|line| line.split_once(' '));
            Ok(lines
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect())
        });
        let subtree = debug_file(&debug, "kho/in/sub_fdts/pcsc", |bytes| {
            Subtree::decode(bytes).map_err(|error| anyhow::anyhow!("{error}"))
        });
        let chosen = options.sysfs.join("firmware/devicetree/base/chosen");
        let log = log::read(options.log);
        let (has_log, lines) = (log.is_some(), log.unwrap_or_default());
        let mut dropped = BTreeMap::new();
        let mut remarks = Vec::new();
        for line in &lines {
            match log::dropped(line) {
                Some((function, reason)) => {
                    dropped.insert(function, reason);
                }
                None => remarks.extend(log::remark(line)),
            }
        }
        let mut functions = BTreeMap::new();
        for (sbdf, folder) in functions_in(options.sysfs)? {
            let is_virtual = fs::symlink_metadata(folder.join("physfn")).is_ok();
            let in_tree = |subtree: &Subtree| subtree.nodes().iter().any(|(node, _)| *node == sbdf);
            let fate = match (dropped.get(&sbdf), &subtree) {
                (Some(reason), _) => Fate::Dropped(reason.clone()),
                (None, Known::Yes(subtree)) if in_tree(subtree) && is_virtual => Fate::Virtual,
                (None, Known::Yes(subtree)) if in_tree(subtree) => Fate::Used,
                (None, Known::Yes(_) | Known::Absent) => Fate::NotHandedOver,
                (None, Known::NeedsRoot | Known::Damaged(_)) => Fate::Unknown,
            };
            functions.insert(sbdf, fate);
        }
        let words = fs::read_to_string(options.proc.join("cmdline")).unwrap_or_default();
        let is_ours = |word: &&str| {
            ["kho=", "pcsc=", "pci=", "kho_scratch="]
                .iter()
                .any(|start| word.starts_with(start))
        };
        let words = words.split_whitespace().filter(is_ours);
        let release = fs::read_to_string(options.proc.join("sys/kernel/osrelease"));
        Ok(Self {
            release: release.unwrap_or_default().trim().to_owned(),
            words: words.map(str::to_owned).collect(),
            probe_only: fs::read(chosen.join("linux,pci-probe-only"))
                .is_ok_and(|value| value.ends_with(&[1])),
            in_boot_tree: chosen.join("linux,kho-fdt").exists(),
            subtree,
            counters,
            has_log,
            remarks,
            functions,
        })
    }

    fn counter(&self, name: &str) -> Option<&str> {
        let mut counters = self.counters.value()?.iter();
        counters
            .find(|(counter, _)| counter == name)
            .map(|(_, value)| value.as_str())
    }

    fn mode(&self) -> Option<&str> {
        self.counter("mode")
    }
}

/// A file of debugfs. Where its folder may not be entered, whether the file
/// exists is not known either.
fn debug_file<T>(debug: &Path, name: &str, decode: impl FnOnce(&[u8]) -> Result<T>) -> Known<T> {
    match fs::read_dir(debug) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Known::NeedsRoot,
        Err(_) | Ok(_) => Known::read(&debug.join(name), decode),
    }
}

/// The functions of the machine, with their folders.
fn functions_in(sysfs: &Path) -> Result<Vec<(Sbdf, PathBuf)>> {
    let folder = sysfs.join("bus/pci/devices");
    let entries =
        fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut functions = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Nothing of these is handed over.
        if is_large_segment(&name) {
            continue;
        }
        let sbdf = name.parse();
        let sbdf = sbdf.with_context(|| format!("{name:?} is no address of a function"))?;
        functions.push((sbdf, path));
    }
    Ok(functions)
}
