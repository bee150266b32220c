//! Sends spans to an OpenTelemetry collector by OTLP/HTTP, in the JSON form of the protocol.
//!
//! An edge: it knows spans and the collector, not tasks. JSON is a standard encoding of OTLP, which the HTTP receivers of collectors
//! accept on the port for protobuf too (4318). It needs no library that the agent does not have. Spans are not compressed.
//!
//! Invariant: nothing waits for the collector. Spans wait in a bounded queue ([`Outbox`]). They are dropped when it is full, when
//! the collector refuses them, or when it cannot be reached in a number of attempts; drops are counted and logged at intervals.
//! Headers may be secrets, and are in no log line and no error.
//!
//! Reading order: `span`, `encode`, `outbox`, `export`. Source: the OpenTelemetry Protocol specification 1.x ("OTLP/HTTP").

mod encode;
mod export;
mod outbox;
mod span;

pub use export::{Exporter, Settings};
pub use outbox::Outbox;
pub use span::{Ids, Span, Value};
