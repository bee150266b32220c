//! Network faults that a task starts in its own network (spec `task-metadata.md` §9).

use super::{Protocol, TaskArn};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What is to be done with a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultOperation {
    /// Starts the fault.
    Start(Fault),
    /// Stops the fault; nothing happens if it is not running.
    Stop(FaultId),
    /// Shows whether the fault is running.
    Status(FaultId),
}

/// A fault with all its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Packets to or from a port are dropped.
    Blackhole {
        /// The port and the direction.
        port: BlackholePort,
        /// Addresses that are not affected.
        spared: Vec<Destination>,
    },
    /// Packets leave late.
    Latency {
        /// The delay in milliseconds.
        delay: u64,
        /// The largest random difference from the delay, in milliseconds.
        jitter: u64,
        /// The packets that are affected.
        traffic: Traffic,
    },
    /// A part of the packets is lost on the way out.
    Loss {
        /// The part, in percent: 1 to 100.
        percent: u8,
        /// The packets that are affected.
        traffic: Traffic,
    },
}

/// What distinguishes a fault from the others in the same network. At most one fault exists for each id; latency and loss also
/// exclude each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FaultId {
    /// A blackhole for a port.
    Blackhole(BlackholePort),
    /// Latency.
    Latency,
    /// Loss of packets.
    Loss,
}

/// The packets that a blackhole drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlackholePort {
    /// The direction, as the task sees it.
    pub direction: Direction,
    /// The protocol.
    pub protocol: Protocol,
    /// The destination port of the packets.
    pub port: u16,
}

/// A direction, as the task sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Direction {
    /// Packets that arrive.
    Ingress,
    /// Packets that leave.
    Egress,
}

/// The packets that latency or loss affect. Only packets that leave are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Destinations that are affected.
    pub to: Vec<Destination>,
    /// Destinations that are not, even if they are in `to`.
    pub spared: Vec<Destination>,
    /// The part of the connections that is affected, in percent: 1 to 100.
    pub flows_percent: u8,
}

/// An IP address or a block of addresses. The text is valid, and holds only digits, letters, dots, colons and a slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    text: String,
    is_ipv6: bool,
}

/// The network in which a fault is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultNetwork {
    /// The task that asks. The fault ends with it.
    pub task: TaskArn,
    /// The file of the network namespace; `None`: the namespace of the agent, which is the host's.
    pub namespace: Option<String>,
    /// The interfaces whose outgoing packets latency and loss affect.
    pub interfaces: Interfaces,
}

/// The network interfaces of the default routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    /// Their names: first that of IPv4, then that of IPv6 if it is another one.
    pub names: Vec<String>,
    /// True: there is one interface, and it has no IPv4 address.
    pub ipv6_only: bool,
}

/// What a fault is like after an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultStatus {
    /// It has been started, or was running already.
    Running,
    /// It has been stopped, or was not running.
    Stopped,
    /// It is not running.
    NotRunning,
}

/// Why an operation was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultError {
    /// Latency is running, so neither latency nor loss can be started.
    LatencyRuns,
    /// Loss is running, so neither latency nor loss can be started.
    LossRuns,
    /// The programs did not end in time.
    TimedOut,
    /// A program failed. The log has the details.
    Failed,
}

impl Fault {
    /// The id of the fault.
    pub fn id(&self) -> FaultId {
        match self {
            Self::Blackhole { port, .. } => FaultId::Blackhole(*port),
            Self::Latency { .. } => FaultId::Latency,
            Self::Loss { .. } => FaultId::Loss,
        }
    }
}

impl Destination {
    /// An address or a block such as `10.0.0.0/8`, which the caller has found valid. `None` if it holds a character that no
    /// address has: the text becomes an argument of programs of the host.
    pub fn new(text: &str, is_ipv6: bool) -> Option<Self> {
        let is_part = |c: char| c.is_ascii_hexdigit() || matches!(c, '.' | ':' | '/');
        let is_address = !text.is_empty() && text.chars().all(is_part);
        is_address.then(|| Self { text: text.to_owned(), is_ipv6 })
    }

    /// The address or block, as the tools take it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// True for IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.is_ipv6
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

impl fmt::Display for FaultId {
    /// The name of the fault's type in paths and log lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blackhole(_) => "network-blackhole-port",
            Self::Latency => "network-latency",
            Self::Loss => "network-packet-loss",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_can_be_one_argument_only() {
        for text in ["10.0.0.0/8", "2001:DB8::1", "::/0"] {
            assert_eq!(Destination::new(text, true).map(|found| found.text), Some(text.to_owned()));
        }
        for text in ["", "10.0.0.1 -j", "10.0.0.1\n", "-x", "$(x)", "eth0", "fe80::1%e"] {
            assert_eq!(Destination::new(text, false), None, "{text}");
        }
    }
}
