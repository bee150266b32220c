//! A gRPC client over a unix socket, for the few unary calls that the agent makes to daemons of the host.
//!
//! Owns the transport and the encoding of messages; it knows no service. Reading order: [`client`], [`protobuf`], `system_error`
//! (errors of the operating system in Go's words).

pub mod client;
pub mod protobuf;
pub mod system_error;
