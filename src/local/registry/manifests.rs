//! Reads manifests without keeping others waiting.

use crate::ecr::{Digest, EcrError, NewImage};
use bytes::Bytes;
use tokio::task::spawn_blocking;

/// A manifest of up to this size in bytes is read at once: that takes less time than to hand it to another thread.
const SMALL: usize = 64 * 1024;

/// Reads a manifest, a large one on another thread. See [`NewImage::read`].
///
/// # Errors
/// When the manifest or the tag is wrong, or the manifest has another digest.
pub(crate) async fn read_image(
    manifest: Bytes,
    media_type: Option<String>,
    tag: Option<String>,
    digest: Option<Digest>,
) -> Result<NewImage, EcrError> {
    let is_small = manifest.len() <= SMALL;
    let read = move || NewImage::read(manifest, media_type.as_deref(), tag, digest);
    if is_small {
        return read();
    }
    let stopped = |_| Err(EcrError::InvalidManifest("the manifest could not be read".to_owned()));
    spawn_blocking(read).await.unwrap_or_else(stopped)
}
