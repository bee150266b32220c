//! Reads what people, programs and services wrote for the agent: JSON as Go understands it, files with a byte-order mark,
//! documents that were cut, addresses.
//!
//! Pure: it knows no names of members and opens nothing. The edges that receive such texts use it; the core never sees them.
//! Reading order: [`json`] (a whole document), [`members`] (one object, its values undecoded), [`truncated`] (one member of a
//! part), [`byte_order_mark`], [`endpoint`]. [`ecs_core::model::text`] bounds and cleans texts that are kept or shown.

pub mod byte_order_mark;
pub mod endpoint;
pub mod json;
pub mod members;
pub mod truncated;
