//! The nodes of a device tree that are PCI host bridges, supported or not, and
//! the segments that they name.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::bindings::binding;
use warmbus_fdt::{FdtError, FdtNode};
use warmbus_memory::bytes::be_u32;

/// A node that Linux may drive as a PCI host bridge, because no `status` on its
/// path forbids it. Whether it is supported is another question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostNode {
    /// Its path from the root.
    pub path: String,
    /// It has a segment number, `linux,pci-domain`.
    pub has_domain: bool,
    /// What its own `linux,pci-probe-only` says, which hides that of `/chosen`.
    pub probe_only: Option<bool>,
}

/// Whether a node is a PCI bridge of any kind: by its type, or because it is of
/// a binding that is supported, whose type some trees omit.
fn is_pci(node: &FdtNode<'_, '_>) -> Result<bool, FdtError> {
    if node.text("device_type")? == Some("pci") {
        return Ok(true);
    }
    let names = node.property("compatible")?.unwrap_or_default();
    Ok(binding(names).is_some())
}

/// What a PCI node is to Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A host bridge that may be used.
    Host,
    /// A host bridge that is disabled, or a bridge below another one. Linux
    /// gives its segment number to no other host bridge all the same.
    Other,
}

/// What `node` is; `None` where it has nothing to do with PCI.
pub(super) fn role(node: &FdtNode<'_, '_>) -> Result<Option<Role>, FdtError> {
    if !is_pci(node)? {
        return Ok(None);
    }
    let is_below_pci = node.parent().map_or(Ok(false), is_pci)?;
    let is_host = !is_below_pci && is_enabled(node)?;
    Ok(Some(if is_host { Role::Host } else { Role::Other }))
}

/// Whether neither the node nor one above it is disabled.
fn is_enabled(node: &FdtNode<'_, '_>) -> Result<bool, FdtError> {
    let mut at = Some(node);
    while let Some(here) = at {
        if !here.is_okay()? {
            return Ok(false);
        }
        at = here.parent();
    }
    Ok(true)
}

/// The segment that a node names: as in Linux the low half of the first cell.
pub(super) fn domain(node: &FdtNode<'_, '_>) -> Result<Option<u16>, FdtError> {
    let value = node.property("linux,pci-domain")?;
    Ok(value
        .and_then(|value| be_u32(value, 0))
        .map(|domain| domain as u16))
}

/// The names in `compatible`, as text; at most four of them.
pub(super) fn binding_names(node: &FdtNode<'_, '_>) -> Result<String, FdtError> {
    let names = node.property("compatible")?.unwrap_or_default();
    let names = names.split(|&byte| byte == 0);
    let names = names.filter(|name| !name.is_empty()).take(4);
    let names: Vec<String> = names
        .map(|name| format!("{}", name.escape_ascii()))
        .collect();
    Ok(if names.is_empty() {
        "a host bridge without a compatible property".into()
    } else {
        names.join(", ")
    })
}

/// The path of what Linux has to start before it drives `node`: a node above
/// with clocks, resets or a power domain, or one that has a driver of its own.
/// `None` where a bus that needs no driver leads to the node.
///
/// Linux makes devices of the nodes below such a bus at once, and of those below
/// any other node when the driver of that node has started it.
pub(super) fn depends_on(node: &FdtNode<'_, '_>) -> Result<Option<String>, FdtError> {
    // Linux turns the power domain of any device on before it is probed. Clocks
    // and resets are for its driver, and the one for ECAM uses none.
    if node.property("power-domains")?.is_some() {
        return Ok(Some(format!("the power domain of {}", node.path())));
    }
    let mut above = node.parent();
    while let Some(bus) = above {
        if bus.parent().is_none() {
            break;
        }
        if !is_simple_bus(bus)? {
            return Ok(Some(bus.path()));
        }
        above = bus.parent();
    }
    Ok(None)
}

/// Whether what is below `bus` can be accessed without a driver for `bus`.
fn is_simple_bus(bus: &FdtNode<'_, '_>) -> Result<bool, FdtError> {
    for needed in ["clocks", "power-domains", "resets"] {
        if bus.property(needed)?.is_some() {
            return Ok(false);
        }
    }
    for simple in ["simple-bus", "simple-mfd", "simple-pm-bus"] {
        if bus.is_compatible(simple)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Segment numbers that no node names, ascending.
#[derive(Debug)]
pub(super) struct FreeSegments {
    used: BTreeSet<u16>,
    next: u32,
}

impl FreeSegments {
    pub(super) const fn new(used: BTreeSet<u16>) -> Self {
        Self { used, next: 0 }
    }
}

impl Iterator for FreeSegments {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        loop {
            let segment = u16::try_from(self.next).ok()?;
            self.next += 1;
            if !self.used.contains(&segment) {
                return Some(segment);
            }
        }
    }
}
