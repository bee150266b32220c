//! Form and version of the stored documents.
//!
//! Adding a field with `#[serde(default)]` needs no new version. Anything else raises [`CURRENT`] and adds a step that turns the
//! older documents into newer ones, here.

use super::StoreError;
use serde::Serialize;

/// Version this build writes.
pub(super) const CURRENT: u32 = 1;

/// Refuses what a newer agent wrote.
pub(super) fn check(found: Option<u32>) -> Result<(), StoreError> {
    match found {
        Some(found) if found > CURRENT => Err(StoreError::Newer { found, known: CURRENT }),
        Some(_) | None => Ok(()),
    }
}

/// Writes one document.
pub(super) fn put(
    table: &mut redb::Table<'_, &'static str, &'static [u8]>,
    name: &str,
    document: &impl Serialize,
) -> Result<(), redb::Error> {
    let bytes = serde_json::to_vec(document).map_err(|cause| redb::Error::Io(std::io::Error::other(cause)))?;
    table.insert(name, bytes.as_slice())?;
    Ok(())
}
