//! The console, and the firmware interface that powers the machine off: all
//! that it takes to report an error and to stop.

use alloc::string::String;
use core::ops::ControlFlow;

use super::cells;
use warmbus_fdt::{DeviceTree, FdtError, FdtNode, text, tolerate_damage_after};
use warmbus_memory::PhysAddr;

/// Register layout of a serial port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleKind {
    /// Arm `PrimeCell` PL011, or the part of it that SBSA asks for.
    Pl011,
    /// 16550 and its relatives, such as the Synopsys `DesignWare` UART.
    Ns16550,
}

/// The serial port that `/chosen/stdout-path` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Console {
    /// Path of its node.
    pub path: String,
    /// Its registers.
    pub kind: ConsoleKind,
    /// Physical address of its first register.
    pub base: PhysAddr,
    /// Bytes of its registers.
    pub size: u64,
    /// Registers are `1 << register_shift` bytes apart (`reg-shift`), 0 to 3.
    pub register_shift: u8,
    /// Bytes of one access (`reg-io-width`): 1, 2 or 4.
    pub access_width: u8,
}

/// How PSCI is called (Arm DEN 0022).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PsciConduit {
    /// By `HVC`.
    Hvc,
    /// By `SMC`.
    Smc,
}

/// The console and the interface to power off. Where the tree is damaged, those
/// that come before the damage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EarlyDevices {
    /// The console, if the tree names one that is supported.
    pub console: Option<Console>,
    /// How PSCI 0.2 or later is called; `None` where there is none.
    pub psci: Option<PsciConduit>,
}

impl EarlyDevices {
    /// Reads as much as can be read from a device tree, which may be damaged.
    #[must_use]
    pub fn from_device_tree(bytes: &[u8]) -> Self {
        let Ok(tree) = DeviceTree::new(bytes) else {
            return Self::default();
        };
        Self {
            console: console(&tree).unwrap_or_default(),
            psci: psci(&tree),
        }
    }
}

fn psci(tree: &DeviceTree<'_>) -> Option<PsciConduit> {
    let mut conduit = None;
    let walked = tree.walk(&mut |node| {
        // PSCI 0.1 has neither fixed function numbers nor SYSTEM_OFF.
        let known = node.is_compatible("arm,psci-0.2")? || node.is_compatible("arm,psci-1.0")?;
        if conduit.is_none() && known && node.is_okay()? {
            conduit = match node.text("method")? {
                Some("hvc") => Some(PsciConduit::Hvc),
                Some("smc") => Some(PsciConduit::Smc),
                _ => None,
            };
        }
        Ok(ControlFlow::Continue(()))
    });
    tolerate_damage_after(conduit, walked).ok().flatten()
}

fn console(tree: &DeviceTree<'_>) -> Result<Option<Console>, FdtError> {
    let stdout = match tree.root_child_property("chosen", "stdout-path") {
        Ok(None) => tree.root_child_property("chosen", "linux,stdout-path"),
        other => other,
    };
    let Some(stdout) = stdout?.and_then(text) else {
        return Ok(None);
    };
    // After a colon is the line setting, which is not changed.
    let name = stdout.split(':').next().unwrap_or_default();
    let path = if name.starts_with('/') {
        name
    } else {
        match tree.root_child_property("aliases", name)?.and_then(text) {
            Some(path) => path,
            None => return Ok(None),
        }
    };
    let mut console = None;
    let walked = tree.walk(&mut |node| {
        let Some(rest) = below(node, path)? else {
            return Ok(ControlFlow::Break(()));
        };
        if rest.is_empty() && console.is_none() {
            console = port(node)?;
        }
        Ok(ControlFlow::Continue(()))
    });
    tolerate_damage_after(console, walked)
}

/// The rest of `path` below `node`; `None` where it goes through another node.
fn below<'t>(node: &FdtNode<'_, '_>, path: &'t str) -> Result<Option<&'t str>, FdtError> {
    let Some(parent) = node.parent() else {
        return Ok(Some(path.trim_matches('/')));
    };
    let Some(rest) = below(parent, path)? else {
        return Ok(None);
    };
    let (component, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let name = node.name()?;
    // The unit address is optional (DT 2.2.3).
    let base = name.split('@').next().unwrap_or_default();
    let matches = !component.is_empty() && (component == name || component == base);
    Ok(matches.then_some(rest))
}

fn port(node: &FdtNode<'_, '_>) -> Result<Option<Console>, FdtError> {
    const PORTS: [(&str, ConsoleKind); 6] = [
        ("arm,pl011", ConsoleKind::Pl011),
        ("arm,sbsa-uart", ConsoleKind::Pl011),
        ("snps,dw-apb-uart", ConsoleKind::Ns16550),
        ("ns16550a", ConsoleKind::Ns16550),
        ("ns16550", ConsoleKind::Ns16550),
        ("ns16450", ConsoleKind::Ns16550),
    ];
    let mut kind = None;
    for (model, its_kind) in PORTS {
        if kind.is_none() && node.is_compatible(model)? {
            kind = Some(its_kind);
        }
    }
    let (Some(kind), Ok(regions)) = (kind, cells::regions(node, "reg")) else {
        return Ok(None);
    };
    let Some(region) = regions.first() else {
        return Ok(None);
    };
    let offset = node.cell("reg-offset")?.unwrap_or(0);
    let shift = node.cell("reg-shift")?.unwrap_or(0);
    let width = node.cell("reg-io-width")?.unwrap_or(1);
    let base = region.start.0.checked_add(u64::from(offset));
    let (Some(base), 0..=3, 1 | 2 | 4) = (base, shift, width) else {
        return Ok(None);
    };
    let (register_shift, access_width) = match kind {
        // The PL011 has words, four bytes apart.
        ConsoleKind::Pl011 => (2, 4),
        ConsoleKind::Ns16550 => (shift as u8, width as u8),
    };
    let aligned = base.is_multiple_of(u64::from(access_width))
        && (1 << register_shift) % u32::from(access_width) == 0;
    // The highest register that is used: the flags of the PL011 at 0x18, the
    // line status of the 16550 at 5.
    let last = match kind {
        ConsoleKind::Pl011 => 0x18 + 3,
        ConsoleKind::Ns16550 => (5 << register_shift) + u64::from(access_width) - 1,
    };
    let size = region.size.saturating_sub(u64::from(offset));
    Ok(
        (aligned && size > last && base.checked_add(last).is_some()).then(|| Console {
            path: node.path(),
            kind,
            base: PhysAddr(base),
            size,
            register_shift,
            access_width,
        }),
    )
}
