//! Ports of containers: what a task asks for, and what the engine bound.

use serde::{Deserialize, Serialize};

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP, also when the task definition says nothing.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// `tcp` or `udp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A port to publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// Port inside the container.
    pub container_port: u16,
    /// Port on the host; 0 = any free one.
    pub host_port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// A range of ports to publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// First port inside the container.
    pub first: u16,
    /// Last port inside the container.
    pub last: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

impl PortRange {
    /// How many ports; at least one.
    pub fn count(&self) -> u16 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }
}

/// One published port, as the engine bound it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortBinding {
    /// Port inside the container.
    pub container_port: u16,
    /// Port on the host.
    pub host_port: u16,
    /// Host address it is bound to, e.g. `0.0.0.0` or `::`.
    pub bind_ip: String,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// A range of ports, each bound to the port of the same place in a range of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeBinding {
    /// First and last port inside the container.
    pub container_ports: (u16, u16),
    /// First and last port on the host.
    pub host_ports: (u16, u16),
    /// Host address they are bound to.
    pub bind_ip: String,
    /// Transport protocol.
    pub protocol: Protocol,
}
