//! Tests that cross two edges.

mod attachments;
mod payloads;
