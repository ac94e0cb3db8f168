//! Kinds of functions: those that cost a kernel about as many accesses.

use std::fmt;

use serde::{Deserialize, Serialize};
use warmbus_pci::registers::extended;
use warmbus_pci::{Function, PortType};

/// A kind of function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The function of a host bridge, class code 0600.
    HostBridge,
    /// A root port.
    RootPort,
    /// The upstream port of a switch.
    UpstreamPort,
    /// A downstream port of a switch.
    DownstreamPort,
    /// Any other bridge.
    Bridge,
    /// A PCI Express endpoint.
    Endpoint,
    /// A PCI Express endpoint that can have virtual functions.
    PhysicalFunction,
    /// A virtual function.
    VirtualFunction,
    /// A function of conventional PCI, or one that is integrated into the root
    /// complex.
    Other,
}

/// Class codes without their interface (PCI Code and ID Assignment 1.15, 1.7).
const HOST_BRIDGE: u32 = 0x0600;

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::HostBridge,
        Self::RootPort,
        Self::UpstreamPort,
        Self::DownstreamPort,
        Self::Bridge,
        Self::Endpoint,
        Self::PhysicalFunction,
        Self::VirtualFunction,
        Self::Other,
    ];

    /// The kind of a function whose capability lists are known.
    #[must_use]
    pub fn of(function: &Function) -> Self {
        let has_vfs = function
            .extended_capabilities
            .iter()
            .any(|capability| capability.id == extended::SR_IOV);
        if function.virtual_function.is_some() {
            return Self::VirtualFunction;
        }
        match function.port_type {
            Some(PortType::RootPort) => Self::RootPort,
            Some(PortType::UpstreamPort) => Self::UpstreamPort,
            Some(PortType::DownstreamPort) => Self::DownstreamPort,
            _ if function.header_type != 0 => Self::Bridge,
            _ if function.class_code >> 8 == HOST_BRIDGE => Self::HostBridge,
            _ if has_vfs => Self::PhysicalFunction,
            Some(PortType::Endpoint | PortType::LegacyEndpoint) => Self::Endpoint,
            _ => Self::Other,
        }
    }

    /// Whether it is a bridge between buses.
    #[must_use]
    pub const fn is_bridge(self) -> bool {
        matches!(
            self,
            Self::RootPort | Self::UpstreamPort | Self::DownstreamPort | Self::Bridge
        )
    }

    /// The name in text and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HostBridge => "host-bridge",
            Self::RootPort => "root-port",
            Self::UpstreamPort => "upstream-port",
            Self::DownstreamPort => "downstream-port",
            Self::Bridge => "bridge",
            Self::Endpoint => "endpoint",
            Self::PhysicalFunction => "physical-function",
            Self::VirtualFunction => "virtual-function",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name().replace('-', " "))
    }
}
