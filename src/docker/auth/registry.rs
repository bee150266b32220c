//! The keys of the operator's document: each names a registry, or a part of one.
//!
//! Owns the part of a key that is compared and the part that may be shown. Invariant: neither contains an account that a key may
//! hold.

use ecs_core::model::text::cut;

/// The longest part of a registry's name that is shown, in bytes.
const MAX_SHOWN: usize = 256;

/// The registry that a key names, without the scheme and without an account (`https://user:password@host`).
pub(super) fn normalised(key: &str) -> &str {
    let address = key.strip_prefix("http://").or_else(|| key.strip_prefix("https://")).unwrap_or(key);
    address.rsplit_once('@').map_or(address, |(_, host)| host)
}

/// A key in a form that may be logged.
pub(super) fn shown(key: &str) -> String {
    cut(normalised(key), MAX_SHOWN)
}
