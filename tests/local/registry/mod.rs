//! The embedded registry over real sockets: the cases of OCI's distribution specification, bad input, full disks, processes that are
//! killed, and the real clients `docker` and `skopeo`.

mod access;
mod bad_input;
mod client;
mod clients;
mod directory;
mod discovery;
mod kill;
mod management;
mod memory;
mod pull;
mod push;
