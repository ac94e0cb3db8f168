//! Whether each host bridge would be handed over: by the rules of the firmware,
//! on the device tree or the ACPI tables that the running kernel shows.

use std::fs;
use std::path::Path;

use warmbus_fdt::FdtWriter;
use warmbus_machine::{Machine, MemoryMap, UefiRootBridge};
use warmbus_memory::{MappedRange, PhysAddr};
use warmbus_pci::{BusRange, HostBridge};

use super::sysfs;

/// What becomes of one host bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    /// Its name: the path of its node, or `acpi` with segment and bus.
    pub(super) name: String,
    /// Segment and number of its root bus in the running kernel.
    pub(super) root: Option<(u16, u8)>,
    /// Why it is not handed over; `None` where it is.
    pub(super) refusal: Option<String>,
}

/// What is known of the host bridges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hosts {
    /// What becomes of each.
    Known(Vec<Host>),
    /// Nothing, for this reason.
    Unknown(String),
}

/// The deepest node that is read.
const MAX_DEPTH: usize = 32;

impl Hosts {
    /// Reads the description of `machine` in the tree of sysfs at `sysfs`.
    #[must_use]
    pub(super) fn read(sysfs: &Path, machine: &sysfs::Machine) -> Self {
        if !machine.is_arm64 {
            return Self::Unknown("Warmbus is for arm64, and this machine is another one".into());
        }
        let tables = sysfs.join("firmware/acpi/tables");
        if tables.is_dir() {
            return of_acpi(&tables, machine);
        }
        of_device_tree(&sysfs.join("firmware/devicetree/base"), machine)
    }

    /// Whether the functions below `root` are handed over, as far as is known:
    /// where nothing is, they count as if they were.
    #[must_use]
    pub(super) fn hands_over(&self, root: (u16, u8)) -> bool {
        match self {
            Self::Unknown(_) => true,
            Self::Known(hosts) => {
                let mut below = hosts.iter().filter(|host| host.root == Some(root));
                below.any(|host| host.refusal.is_none())
            }
        }
    }
}

fn of_device_tree(base: &Path, machine: &sysfs::Machine) -> Hosts {
    if base.join("chosen/linux,uefi-system-table").exists() {
        return Hosts::Unknown(
            "UEFI describes this machine with a device tree, which Warmbus does not handle".into(),
        );
    }
    let mut writer = FdtWriter::new();
    if let Err(error) = copy(base, "", MAX_DEPTH, &mut writer) {
        return Hosts::Unknown(format!("cannot read {}: {error}", base.display()));
    }
    let read = writer
        .finish()
        .map_err(|error| error.to_string())
        .and_then(|tree| Machine::from_device_tree(&tree).map_err(|error| error.to_string()));
    let found = match read {
        Ok(found) => found,
        Err(error) => return Hosts::Unknown(format!("the device tree cannot be used: {error}")),
    };
    let root_of = |path: &str| {
        let mut roots = machine.roots.iter();
        roots
            .find(|(_, root)| root.node.as_deref() == Some(path))
            .map(|(&root, _)| root)
    };
    let hosts = found.host_nodes.iter().map(|node| {
        let host = found.hosts.iter().find(|host| host.name == node.path);
        Host {
            name: node.path.clone(),
            root: root_of(&node.path),
            refusal: match host {
                Some(host) => refusal(host),
                None => Some(excluded(&node.path, &found.warnings)),
            },
        }
    });
    Hosts::Known(hosts.collect())
}

/// Why `host`, which the firmware can use, is not handed over.
fn refusal(host: &HostBridge) -> Option<String> {
    if let Some(what) = &host.depends_on {
        return Some(format!("Linux starts {what} first"));
    }
    (!host.survives_linux_driver).then(|| {
        if host.mechanism.is_controller() {
            "its driver in Linux resets it".into()
        } else {
            "its driver in Linux changes what reads return".into()
        }
    })
}

/// The reason among `warnings` why the host bridge `name` is excluded.
fn excluded(name: &str, warnings: &[String]) -> String {
    let start = format!("{name} is excluded: ");
    let reason = warnings.iter().find_map(|line| line.strip_prefix(&start));
    reason.unwrap_or("it cannot be used").to_owned()
}

/// Adds the node in `folder` and what is below it.
fn copy(folder: &Path, name: &str, depth: usize, writer: &mut FdtWriter) -> std::io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    writer.begin_node(name);
    let (nodes, properties): (Vec<_>, Vec<_>) =
        entries.iter().partition(|entry| entry.path().is_dir());
    for property in properties {
        let name = property.file_name().to_string_lossy().into_owned();
        // The kernel makes up this one: the name is that of the folder.
        if name != "name" {
            writer.property(&name, &fs::read(property.path())?);
        }
    }
    for node in nodes.iter().filter(|_| depth > 0) {
        let name = node.file_name().to_string_lossy().into_owned();
        copy(&node.path(), &name, depth - 1, writer)?;
    }
    writer.end_node();
    Ok(())
}

fn of_acpi(tables: &Path, machine: &sysfs::Machine) -> Hosts {
    let file = tables.join("MCFG");
    let mcfg = match fs::read(&file) {
        Ok(bytes) => bytes,
        Err(error) => {
            let why = match error.kind() {
                std::io::ErrorKind::PermissionDenied => "only root may read it".to_owned(),
                _ => error.to_string(),
            };
            return Hosts::Unknown(format!("cannot read {}: {why}", file.display()));
        }
    };
    // The root bridges of UEFI are the root buses of Linux.
    let roots: Vec<UefiRootBridge> = machine
        .roots
        .iter()
        .map(|(&(segment, first), root)| UefiRootBridge {
            segment: segment.into(),
            buses: Some(BusRange {
                first,
                last: root.last_bus,
            }),
        })
        .collect();
    let mut memory = tables_in_memory(&mcfg);
    let memory = MappedRange::new(RSDP, &mut memory);
    let found = match Machine::from_uefi(&memory, RSDP, &MemoryMap::new(&[], 0), &roots) {
        Ok(found) => found,
        Err(error) => return Hosts::Unknown(format!("the ACPI tables cannot be used: {error}")),
    };
    let hosts = machine.roots.keys().map(|&(segment, first)| {
        let name = format!("acpi {segment:04x}:{first:02x}");
        let host = found.hosts.iter().find(|host| host.name == name);
        Host {
            root: Some((segment, first)),
            refusal: match host {
                Some(host) => refusal(host),
                None => Some(excluded(&name, &found.warnings)),
            },
            name,
        }
    });
    Hosts::Known(hosts.collect())
}

/// Where the tables are put for the reader of the firmware, which follows
/// physical addresses.
const RSDP: PhysAddr = PhysAddr(0x1000);
const RSDP_SIZE: usize = 36;
const XSDT_SIZE: usize = 36 + 8;

/// An RSDP at [`RSDP`], an XSDT with one entry, and `mcfg` (ACPI 6.5, 5.2.5.3,
/// 5.2.8).
fn tables_in_memory(mcfg: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; RSDP_SIZE];
    bytes[..8].copy_from_slice(b"RSD PTR ");
    bytes[15] = 2;
    bytes[20..24].copy_from_slice(&(RSDP_SIZE as u32).to_le_bytes());
    let xsdt = RSDP.0 + RSDP_SIZE as u64;
    bytes[24..32].copy_from_slice(&xsdt.to_le_bytes());
    set_sum(&mut bytes[..20], 8);
    set_sum(&mut bytes, 32);
    let mut table = vec![0; XSDT_SIZE];
    table[..4].copy_from_slice(b"XSDT");
    table[4..8].copy_from_slice(&(XSDT_SIZE as u32).to_le_bytes());
    table[36..].copy_from_slice(&(xsdt + XSDT_SIZE as u64).to_le_bytes());
    set_sum(&mut table, 9);
    bytes.extend(table);
    bytes.extend(mcfg);
    bytes
}

/// Sets the byte at `at` so that all add up to 0.
fn set_sum(bytes: &mut [u8], at: usize) {
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    bytes[at] = bytes[at].wrapping_sub(sum);
}
