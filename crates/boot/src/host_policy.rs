//! What Linux is asked to keep of PCI.
//!
//! `linux,pci-probe-only` in `/chosen` has Linux keep all bus numbers and,
//! below the host bridges whose nodes do not say otherwise, all BARs. A 0 in
//! the node of a host bridge has it assign the BARs below that one (Linux
//! `of_pci_preserve_config`). So bus numbers are kept everywhere or nowhere, and
//! BARs host bridge by host bridge.

#[cfg(test)]
mod tests;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use warmbus_linux::chosen::NodeEdit;
use warmbus_machine::HostNode;
use warmbus_pci::{LatePort, Topology};

use crate::unassigned::{Unassigned, UnassignedReason, unassigned_below};

/// What is known of one host bridge that Linux may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// Its name: in a device tree, the path of its node.
    pub name: String,
    /// Why Linux has to assign below it; `None` where it can keep everything.
    pub reassign: Option<ReassignReason>,
}

/// Why Linux has to assign again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReassignReason {
    /// Something has no bus number or no address.
    Unassigned(Unassigned),
    /// Nothing is known of what is below this host bridge.
    Excluded,
    /// The driver of Linux for this host bridge resets it.
    ResetByDriver,
    /// The kernel command line asks for it by this word of `pci=`.
    CommandLine(String),
}

/// What Linux does with bus numbers and BARs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PciPolicy {
    /// It keeps all bus numbers, and all BARs but those below these host
    /// bridges.
    Keep {
        /// Host bridges below which it assigns BARs.
        except: Vec<HostFacts>,
    },
    /// The boot tree has it keep all that it finds, and stays as it is.
    AsFound,
    /// It assigns all bus numbers and BARs again, as it does by default,
    /// because of this host bridge.
    Reassign(HostFacts),
    /// It keeps the bus numbers that it finds, as always with ACPI, and
    /// moves BARs where ACPI does not forbid that (`_DSM` of a host bridge,
    /// function 5). It writes both.
    KeepBusNumbers,
}

impl ReassignReason {
    /// Whether Linux has to assign bus numbers, and not only BARs.
    ///
    /// What is below a host bridge that is not known or is reset gets its bus
    /// numbers in any case: Linux numbers every bridge again whose numbers
    /// cannot be.
    const fn affects_bus_numbers(&self) -> bool {
        match self {
            Self::Unassigned(unassigned) => unassigned.reason.affects_bus_numbers(),
            Self::Excluded | Self::ResetByDriver => false,
            Self::CommandLine(_) => true,
        }
    }
}

impl PciPolicy {
    /// It keeps everything.
    pub const KEEP_ALL: Self = Self::Keep { except: Vec::new() };

    /// The policy for a machine with a device tree, of whose host bridges
    /// this is known.
    pub(crate) fn for_device_tree(hosts: &[HostFacts]) -> Self {
        let is_renumbered = |host: &&HostFacts| {
            let reason = host.reassign.as_ref();
            reason.is_some_and(ReassignReason::affects_bus_numbers)
        };
        if let Some(host) = hosts.iter().find(is_renumbered) {
            return Self::Reassign(host.clone());
        }
        let except = hosts.iter().filter(|host| host.reassign.is_some());
        Self::Keep {
            except: except.cloned().collect(),
        }
    }

    /// The policy where Linux has to obey `word` of `pci=` by itself.
    pub(crate) fn for_command_line(word: &str) -> Self {
        Self::Reassign(HostFacts {
            name: String::from("all host bridges"),
            reassign: Some(ReassignReason::CommandLine(word.into())),
        })
    }

    /// Whether `/chosen` gets `linux,pci-probe-only`.
    #[must_use]
    pub const fn is_probe_only(&self) -> bool {
        matches!(self, Self::Keep { .. })
    }

    /// What the nodes of host bridges get: a segment number those that are
    /// handed over and have none, and `linux,pci-probe-only` those that Linux
    /// would treat otherwise than it should.
    pub(crate) fn node_edits(&self, nodes: &[HostNode], topology: &Topology) -> Vec<NodeEdit> {
        let edits = nodes.iter().map(|node| {
            let mut hosts = topology.hosts().iter().map(|(host, _)| host);
            let host = hosts.find(|host| host.name == node.path);
            let host = host.filter(|host| host.survives_linux_driver);
            NodeEdit {
                domain: host
                    .filter(|_| !node.has_domain)
                    .map(|host| host.segment.into()),
                probe_only: self.own_probe_only(node),
                path: node.path.clone(),
            }
        });
        let is_edit = |edit: &NodeEdit| edit.domain.is_some() || edit.probe_only.is_some();
        edits.filter(is_edit).collect()
    }

    /// What a node has to say where it says something else.
    fn own_probe_only(&self, node: &HostNode) -> Option<bool> {
        let Self::Keep { except } = self else {
            return None;
        };
        let is_kept = except.iter().all(|host| host.name != node.path);
        // Without its own word it has that of `/chosen`.
        (node.probe_only.unwrap_or(true) != is_kept).then_some(is_kept)
    }
}

/// All that [`PciPolicy::node_edits`] can ask for in the end.
pub(crate) fn largest_edits(nodes: &[HostNode]) -> Vec<NodeEdit> {
    let edits = nodes.iter().map(|node| NodeEdit {
        path: node.path.clone(),
        domain: (!node.has_domain).then_some(0),
        probe_only: Some(false),
    });
    edits.collect()
}

/// What is known of the host bridges of `topology`, and of those of `nodes`
/// that are not in it. `late` are the ports that may have a device now.
pub(crate) fn host_facts(
    nodes: &[HostNode],
    topology: &Topology,
    late: &[LatePort],
) -> Vec<HostFacts> {
    let known = (0..).zip(topology.hosts()).map(|(index, (host, _))| {
        let reset = || (!host.survives_linux_driver).then_some(ReassignReason::ResetByDriver);
        let mut late = late.iter().filter(|late| {
            let port = topology.function(late.port);
            port.is_some_and(|port| port.host == index)
        });
        let late = late.next().map(|late| Unassigned {
            function: late.port,
            reason: UnassignedReason::Late(late.state),
        });
        let unassigned = late.or_else(|| unassigned_below(topology, index));
        let unassigned = unassigned.map(ReassignReason::Unassigned);
        HostFacts {
            name: host.name.clone(),
            reassign: reset().or(unassigned),
        }
    });
    let is_known = |node: &&HostNode| {
        let mut hosts = topology.hosts().iter();
        hosts.any(|(host, _)| host.name == node.path)
    };
    let excluded = nodes.iter().filter(|node| !is_known(node));
    let excluded = excluded.map(|node| HostFacts {
        name: node.path.clone(),
        reassign: Some(ReassignReason::Excluded),
    });
    known.chain(excluded).collect()
}

impl fmt::Display for HostFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.reassign {
            None => Ok(()),
            Some(reason) => write!(f, " ({reason})"),
        }
    }
}

impl fmt::Display for ReassignReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unassigned(unassigned) => unassigned.fmt(f),
            Self::Excluded => f.write_str("excluded"),
            Self::ResetByDriver => f.write_str("reset by its Linux driver"),
            Self::CommandLine(word) => write!(f, "the kernel command line has pci={word}"),
        }
    }
}

impl fmt::Display for PciPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep { except } => {
                f.write_str("Linux keeps all bus numbers and BARs")?;
                for (number, host) in except.iter().enumerate() {
                    let before = if number == 0 {
                        "; it assigns BARs below"
                    } else {
                        ","
                    };
                    write!(f, "{before} {host}")?;
                }
                Ok(())
            }
            Self::AsFound => f.write_str("Linux keeps what it finds, as /chosen says"),
            Self::Reassign(host) => write!(f, "Linux assigns again because of {host}"),
            Self::KeepBusNumbers => {
                f.write_str("Linux keeps all bus numbers, and may move BARs (ACPI)")
            }
        }
    }
}
