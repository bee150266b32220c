//! Real packets in network namespaces: a host, the subnet of its interfaces on the far side, and pause containers.
//!
//! As root only. The machine's own network stays as it is. A veth plays the device: its other end is a port of the subnet's bridge.
//! VLANs need a kernel that has them: `tests/host` tests them on an emulated machine.

mod faults;
mod many;
mod rig;
mod shapes;
mod standard;
mod watch;
