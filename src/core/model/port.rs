//! Ports of containers: the ports that a task asks for, and the ports that Docker bound.

use serde::{Deserialize, Serialize};

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP, which is also the default of a task definition.
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
    /// Port on the host; 0: any free one.
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
    /// The number of ports in the range; at least one.
    pub fn count(&self) -> u16 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }
}

/// One published port, as Docker bound it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortBinding {
    /// Port inside the container.
    pub container_port: u16,
    /// Port on the host.
    pub host_port: u16,
    /// Host address that the port is bound to, such as `0.0.0.0` or `::`.
    pub bind_ip: String,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// A range of container ports, each bound to the port at the same position in a range of host ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeBinding {
    /// First and last port inside the container.
    pub container_ports: (u16, u16),
    /// First and last port on the host.
    pub host_ports: (u16, u16),
    /// Host address that the ports are bound to.
    pub bind_ip: String,
    /// Transport protocol.
    pub protocol: Protocol,
}
