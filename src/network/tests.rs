//! Real packets in network namespaces: a host, the subnet of its interfaces on the far side, and pause containers.
//!
//! As root only. The machine's own network stays as it is. A veth plays the device: its other end is a port of the subnet's bridge.
//! VLANs need a kernel that has them, and real cards a machine that has some to spare: `./tests/host/run --network` runs these tests on an
//! emulated machine.

mod branch;
mod cards;
mod faults;
mod many;
mod proxy;
mod rig;
mod shapes;
mod standard;
mod watch;
