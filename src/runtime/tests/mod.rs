//! Tests that cross two edges.

mod payloads;
