//! The PCI functions of a running Linux, as sysfs shows them.
//!
//! Nothing is written. Attributes such as `class` are what the kernel has kept,
//! so that reading them reaches no hardware.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use warmbus_pci::Sbdf;

use super::kind::Kind;

/// The first byte of the class code of bridges (PCI Code and ID Assignment 1.7).
const BRIDGE: u32 = 0x06;
/// Sub-classes of bridges between buses: PCI, CardBus, semi-transparent.
const BUS_BRIDGES: [u32; 3] = [0x04, 0x07, 0x09];
const HOST_BRIDGE: u32 = 0x0600;

/// One function.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Its address.
    pub(super) sbdf: Sbdf,
    /// Segment and number of the root bus that it is below.
    pub(super) root: (u16, u8),
    /// The bridges above it, the nearest one last.
    pub(super) above: Vec<Sbdf>,
    /// Vendor and Device ID.
    pub(super) ids: (u16, u16),
    /// Class code, 24 bits.
    pub(super) class_code: u32,
    /// `TotalVFs`, 0 without SR-IOV.
    pub(super) total_vfs: u64,
    /// VFs that are enabled.
    pub(super) enabled_vfs: u64,
    /// It is a virtual function.
    pub(super) is_virtual: bool,
    /// A driver is bound to it.
    pub(super) driver: bool,
    /// Why its configuration space is not read: the read would have the kernel
    /// turn something on.
    pub(super) asleep: Option<String>,
    /// The file with its configuration space.
    pub(super) config: PathBuf,
}

/// A root bus.
#[derive(Clone, Debug)]
pub(super) struct Root {
    /// The highest bus below it on which there is a function.
    pub(super) last_bus: u8,
    /// The path of its node in the device tree, where it has one.
    pub(super) node: Option<String>,
}

/// What sysfs shows.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    /// The functions, by address.
    pub(super) functions: Vec<Found>,
    /// The root buses, by segment and number.
    pub(super) roots: BTreeMap<(u16, u8), Root>,
    /// Functions that are not in `functions`, since their segment has more than
    /// 16 bits: Linux makes up such segments, for Intel VMD.
    pub(super) skipped: Vec<String>,
    /// It is an arm64 machine.
    pub is_arm64: bool,
}

/// The bytes of an attribute, without the end of its line.
fn attribute(folder: &Path, name: &str) -> Option<String> {
    let text = fs::read_to_string(folder.join(name)).ok()?;
    Some(text.trim().to_owned())
}

fn hexadecimal(folder: &Path, name: &str) -> Option<u32> {
    let text = attribute(folder, name)?;
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

fn decimal(folder: &Path, name: &str) -> u64 {
    attribute(folder, name).map_or(0, |text| text.parse().unwrap_or(0))
}

impl Machine {
    /// Reads the tree of sysfs at `sysfs`, usually `/sys`.
    ///
    /// # Errors
    ///
    /// If it has no folder of PCI devices, or an entry there that is none.
    pub(super) fn read(sysfs: &Path) -> Result<Self> {
        let folder = sysfs.join("bus/pci/devices");
        let entries =
            fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        let (mut functions, mut skipped) = (Vec::new(), Vec::new());
        for entry in entries {
            let link = entry?.path();
            let name = link.file_name().unwrap_or_default().to_string_lossy();
            if is_large_segment(&name) {
                skipped.push(name.into_owned());
                continue;
            }
            functions.push(function(&link).with_context(|| link.display().to_string())?);
        }
        functions.sort_by_key(|function| function.sbdf);
        skipped.sort();
        let mut roots = BTreeMap::new();
        for function in &functions {
            let root = roots.entry(function.root).or_insert_with(|| Root {
                last_bus: function.sbdf.bus(),
                node: node_of(sysfs, &folder, function),
            });
            root.last_bus = root.last_bus.max(function.sbdf.bus());
        }
        Ok(Self {
            functions,
            roots,
            skipped,
            // Only arm64 has this register to show.
            is_arm64: sysfs
                .join("devices/system/cpu/cpu0/regs/identification/midr_el1")
                .exists(),
        })
    }

    /// The kind of each function by its class code and its place, since
    /// capabilities may not be readable.
    #[must_use]
    pub(super) fn kinds_by_place(&self) -> BTreeMap<Sbdf, Kind> {
        let bridges: BTreeSet<Sbdf> = self
            .functions
            .iter()
            .filter(|function| function.is_bridge())
            .map(|function| function.sbdf)
            .collect();
        let mut below: BTreeMap<Sbdf, Vec<Sbdf>> = BTreeMap::new();
        for function in &self.functions {
            if let Some(&parent) = function.above.last() {
                below.entry(parent).or_default().push(function.sbdf);
            }
        }
        let mut kinds = BTreeMap::new();
        // A bridge has a lower bus number than what is below it.
        for function in &self.functions {
            let above = function.above.last().and_then(|above| kinds.get(above));
            let children = below.get(&function.sbdf);
            // Below an upstream port there are downstream ports only.
            let is_switch = children
                .is_some_and(|all| !all.is_empty() && all.iter().all(|one| bridges.contains(one)));
            let kind = match above {
                _ if function.is_virtual => Kind::VirtualFunction,
                None if function.is_bridge() => Kind::RootPort,
                Some(Kind::RootPort | Kind::DownstreamPort)
                    if function.is_bridge() && is_switch =>
                {
                    Kind::UpstreamPort
                }
                Some(Kind::UpstreamPort) if function.is_bridge() => Kind::DownstreamPort,
                _ if function.is_bridge() => Kind::Bridge,
                _ if function.class_code >> 8 == HOST_BRIDGE => Kind::HostBridge,
                _ if function.total_vfs != 0 => Kind::PhysicalFunction,
                Some(Kind::RootPort | Kind::DownstreamPort) => Kind::Endpoint,
                _ => Kind::Other,
            };
            kinds.insert(function.sbdf, kind);
        }
        kinds
    }
}

impl Found {
    fn is_bridge(&self) -> bool {
        let (base, sub) = (self.class_code >> 16, self.class_code >> 8 & 0xff);
        base == BRIDGE && BUS_BRIDGES.contains(&sub)
    }
}

/// Whether `name` is a function in a segment of more than 16 bits, as
/// `10000:e1:00.0`.
pub(crate) fn is_large_segment(name: &str) -> bool {
    let Some((segment, rest)) = name.split_once(':') else {
        return false;
    };
    let is_large = u32::from_str_radix(segment, 16).is_ok_and(|segment| segment > 0xffff);
    is_large && rest.parse::<Sbdf>().is_ok()
}

/// The function that `link` in the folder of devices leads to.
fn function(link: &Path) -> Result<Found> {
    let name = link.file_name().unwrap_or_default().to_string_lossy();
    let sbdf: Sbdf = name
        .parse()
        .with_context(|| format!("{name:?} is no address of a function"))?;
    // The folder of a device is in that of the bridge above it.
    let target = fs::read_link(link).unwrap_or_else(|_| link.to_path_buf());
    let parts: Vec<String> = target
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    let root = parts.iter().rposition(|part| root_of(part).is_some());
    let (root, above) = match root {
        Some(at) => {
            let above = parts[at + 1..].iter().filter_map(|part| part.parse().ok());
            let above: Vec<Sbdf> = above.filter(|above| *above != sbdf).collect();
            (root_of(&parts[at]).unwrap_or_default(), above)
        }
        None => ((sbdf.segment(), 0), Vec::new()),
    };
    let class_code = hexadecimal(link, "class");
    ensure!(
        class_code.is_some(),
        "the attribute class has no class code"
    );
    let id = |name| hexadecimal(link, name).unwrap_or(0xffff) as u16;
    Ok(Found {
        sbdf,
        root,
        above,
        ids: (id("vendor"), id("device")),
        class_code: class_code.unwrap_or(0) & 0xff_ffff,
        total_vfs: decimal(link, "sriov_totalvfs"),
        enabled_vfs: decimal(link, "sriov_numvfs"),
        is_virtual: fs::symlink_metadata(link.join("physfn")).is_ok(),
        driver: fs::symlink_metadata(link.join("driver")).is_ok(),
        asleep: asleep(link),
        config: link.join("config"),
    })
}

/// Segment and bus of `pci0000:00`, the folder of a root bus.
fn root_of(part: &str) -> Option<(u16, u8)> {
    let (segment, bus) = part.strip_prefix("pci")?.split_once(':')?;
    let segment = u16::from_str_radix(segment, 16).ok()?;
    Some((segment, u8::from_str_radix(bus, 16).ok()?))
}

/// Why a read of the configuration space of `device` would wake something: the
/// kernel turns a suspended bridge on for it, and a function in D3cold.
fn asleep(device: &Path) -> Option<String> {
    if attribute(device, "power_state").as_deref() == Some("D3cold") {
        return Some("it is in D3cold".into());
    }
    let above = device.join("..");
    // The folder of a device ends in a link, which leads to the one above it.
    let above = fs::canonicalize(device).map_or(above, |path| path.join(".."));
    let state = attribute(&above, "power/runtime_status");
    (state.as_deref() == Some("suspended")).then(|| "the bridge above it is suspended".into())
}

/// The path in the device tree of the host bridge above `function`.
fn node_of(sysfs: &Path, folder: &Path, function: &Found) -> Option<String> {
    let device = fs::canonicalize(folder.join(function.sbdf.to_string())).ok()?;
    let (segment, bus) = function.root;
    let name = format!("pci{segment:04x}:{bus:02x}");
    let root = device.ancestors().find(|path| path.ends_with(&name))?;
    // Linux gives the node to the platform device that made the host bridge, and to
    // the host bridge itself in some drivers only.
    let mut devices = root.ancestors().take(2);
    let node = devices.find_map(|device| fs::canonicalize(device.join("of_node")).ok())?;
    let base = fs::canonicalize(sysfs.join("firmware/devicetree/base")).ok()?;
    let path = node.strip_prefix(base).ok()?.display().to_string();
    Some(format!("/{path}"))
}
