//! Reads what people, programs and services wrote for the agent: JSON as Go understands it, files with a byte-order mark,
//! documents that were cut, addresses.
//!
//! Pure: it opens nothing, and callers supply the names of members. The edges and the configuration use it; the core never
//! sees such texts. Reading order: [`json`] (a whole document), [`members`] (one object, its values undecoded), [`truncated`]
//! (one member of a document that was cut), [`form`] (the type of a value), [`byte_order_mark`] (files from Windows),
//! [`endpoint`] and [`prefix`] (addresses), [`envelope`] (messages of ACS and TCS).
//! [`ecs_core::model::text`] bounds and cleans texts that are kept or shown.

pub mod byte_order_mark;
pub mod endpoint;
pub mod envelope;
pub mod form;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod json;
pub mod members;
pub mod prefix;
pub mod truncated;
