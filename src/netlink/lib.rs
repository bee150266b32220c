//! Network interfaces, addresses, routes and redirections, in the network namespace of this process or in another one.
//!
//! Each call is one question to the kernel over a netlink socket, and its answer. The kernel works on a question while it is
//! sent, so no call waits for an answer; but a call may wait for the kernel's lock of the network configuration, so it belongs on
//! a thread that may block. A socket belongs to the namespace in which it was opened: [`Namespace::socket`] opens it on a thread
//! of its own, which ends at once, so no other thread ever changes its namespace.
//!
//! The messages are our own, on `rustix`: 0.04 MB in a small static program. For the same calls, `netlink-packet-route` takes
//! 0.55 MB and `rtnetlink` 0.78 MB, and neither knows nf_tables. Answers are read leniently: an attribute that is not known is
//! skipped, and so a newer kernel cannot break the list of links.
//!
//! This crate decides nothing and knows nothing of tasks; the agent and the embedded control plane use it.

mod address;
mod error;
mod link;
mod message;
mod namespace;
mod nft;
mod route;
mod socket;
#[cfg(test)]
mod tests;
mod watch;

pub use address::{Address, AddressFlags};
pub use error::{Error, Result};
pub use link::{Link, LinkChange, Mac, Veth, Vlan};
pub use namespace::{Namespace, NamespaceId};
pub use nft::{Batch, Hook, Match, Verdict};
pub use route::{Network, Route, RouteKind};
pub use rustix::io::Errno;
pub use socket::{Fault, Moment, Protocol, Socket};
pub use watch::{LinkEvent, LinkEvents};
