//! Images: those that are stored, and those that are to be stored. Invariant: an image has the digest of its manifest.

use super::digest::Digest;
use super::error::EcrError;
use super::manifest::Contents;
use super::names::check_tag;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;

/// An image or an index, as it was pushed.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) digest: Digest,
    /// The bytes of the manifest, unchanged.
    pub(crate) manifest: Bytes,
    /// What the manifest says.
    pub(crate) contents: Arc<Contents>,
    /// The size of its layers and configuration in bytes; of an index, that of its largest image.
    pub(crate) size: u64,
    /// When it was pushed, in seconds since the epoch.
    pub(crate) pushed_at: f64,
    /// When it was last pulled, in seconds since the epoch; `None`: never.
    pub(crate) pulled_at: Option<f64>,
    /// Its tags; none: the image is untagged.
    pub(crate) tags: BTreeSet<String>,
}

/// An image that is to be stored: its manifest was read, and has the digest that the client expects.
#[derive(Clone, Debug)]
pub(crate) struct NewImage {
    /// The bytes of the manifest.
    pub(crate) manifest: Bytes,
    /// What the manifest says.
    pub(crate) contents: Arc<Contents>,
    /// The digest of the manifest.
    pub(crate) digest: Digest,
    /// The tag that the image gets; `None`: no further one.
    pub(crate) tag: Option<String>,
}

impl NewImage {
    /// Reads a manifest. This takes some time for a large one, so it is done without a lock. `media_type` is that of the
    /// request (`None`: the manifest's own), `digest` the one that the client expects (`None`: any).
    ///
    /// # Errors
    /// When the manifest or the tag is wrong, or the manifest has another digest.
    pub(crate) fn read(
        manifest: Bytes,
        media_type: Option<&str>,
        tag: Option<String>,
        digest: Option<Digest>,
    ) -> Result<Self, EcrError> {
        tag.as_deref().map_or(Ok(()), check_tag)?;
        let contents = Contents::read(&manifest, media_type).map_err(EcrError::InvalidManifest)?;
        let computed = Digest::compute(&manifest);
        if let Some(given) = digest.filter(|given| *given != computed) {
            return Err(EcrError::WrongDigest { given, computed });
        }
        Ok(Self { manifest, contents: Arc::new(contents), digest: computed, tag })
    }
}
