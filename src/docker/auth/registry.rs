//! The keys of the operator's document: each names a registry, or a part of one.
//!
//! Owns what of a key counts, and what of it may be shown. Invariant: an account that somebody put into a key is in neither.

use crate::model::text::cut;

/// Bytes of a registry's name that are shown.
const MAX_SHOWN: usize = 256;

/// The registry that a key names: without its scheme, and without an account that somebody put into it (`https://user:password@host`).
pub(super) fn normalised(key: &str) -> &str {
    let address = key.strip_prefix("http://").or_else(|| key.strip_prefix("https://")).unwrap_or(key);
    address.rsplit_once('@').map_or(address, |(_, host)| host)
}

/// A key as it may be logged.
pub(super) fn shown(key: &str) -> String {
    cut(normalised(key), MAX_SHOWN)
}
