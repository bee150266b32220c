//! Layers, images and tags of a repository, for the registry and for the API. Whether the caller may is decided before.

use super::digest::Digest;
use super::error::EcrError;
use super::image::{Image, NewImage};
use super::service::Ecr;

/// Maximum size of all manifests, in bytes: they are in memory.
pub(crate) const MAX_MANIFEST_BYTES: usize = 256 * 1024 * 1024;

impl Ecr {
    /// The size in bytes of a layer of the repository; `None`: it has no such layer.
    pub(crate) fn layer(&self, account: &str, repository: &str, digest: &Digest) -> Option<u64> {
        self.find(account, repository)?.layer(digest).map(|layer| layer.size)
    }

    /// Adds a layer whose bytes are stored. Nothing but its time changes if the repository has it.
    ///
    /// # Errors
    /// When there is no such repository, or it has too many layers.
    pub(crate) fn add_layer(
        &mut self,
        account: &str,
        repository: &str,
        digest: Digest,
        size: u64,
        now: f64,
    ) -> Result<(), EcrError> {
        let missing = self.missing(account, repository, false);
        if self.find_mut(account, repository).ok_or(missing)?.add_layer(digest, size, now)? {
            self.gain_layer(digest);
            self.touch();
        }
        Ok(())
    }

    /// Notes that a push relies on a layer which the repository has, so that it stays for a while without an image.
    pub(crate) fn note_layer(&mut self, account: &str, repository: &str, digest: &Digest, now: f64) {
        if let Some(found) = self.find_mut(account, repository) {
            found.note_layer(digest, now);
        }
    }

    /// Stores an image, or gives a further tag to one that is here. Returns its digest.
    ///
    /// # Errors
    /// See [`Repository::check_image`](super::repository::Repository::check_image). [`EcrError::ImageExists`] means that nothing
    /// was to be done.
    pub(crate) fn put_image(
        &mut self,
        account: &str,
        repository: &str,
        new: &NewImage,
        now: f64,
    ) -> Result<Digest, EcrError> {
        let found = self.repository(account, repository)?;
        found.check_image(new)?;
        let more = if found.by_digest(&new.digest).is_some() { 0 } else { new.manifest.len() };
        if self.manifest_bytes + more > MAX_MANIFEST_BYTES {
            let message = format!("The manifests of all images have the maximum size of {MAX_MANIFEST_BYTES} bytes.");
            return Err(EcrError::Limit(message));
        }
        self.repository_mut(account, repository)?.put_image(new, now);
        self.manifest_bytes += more;
        Ok(new.digest)
    }

    /// The image with this tag or digest.
    ///
    /// # Errors
    /// When there is none. A pull may be meant for a pull through cache rule.
    pub(crate) fn image(&self, account: &str, repository: &str, reference: &str) -> Result<&Image, EcrError> {
        match self.find(account, repository) {
            Some(found) => found.image(reference),
            None => Err(self.missing(account, repository, true)),
        }
    }

    /// Notes that an image was pulled.
    pub(crate) fn note_pull(&mut self, account: &str, repository: &str, digest: &Digest, now: f64) {
        if let Some(found) = self.find_mut(account, repository) {
            found.note_pull(digest, now);
        }
    }

    /// Deletes an image with all its tags, and returns it.
    ///
    /// # Errors
    /// When there is none, or an index needs it.
    pub(crate) fn delete_image(
        &mut self,
        account: &str,
        repository: &str,
        digest: &Digest,
        now: f64,
    ) -> Result<Image, EcrError> {
        let missing = self.missing(account, repository, false);
        let (image, gone) = self.find_mut(account, repository).ok_or(missing)?.remove_image(digest, now)?;
        self.manifest_bytes -= image.manifest.len();
        self.lose_layers(&gone);
        self.touch();
        Ok(image)
    }

    /// Deletes a tag; with its last tag, the image leaves, too. Returns the image's digest.
    ///
    /// # Errors
    /// When there is no such tag, or an index needs the image that would leave.
    pub(crate) fn delete_tag(
        &mut self,
        account: &str,
        repository: &str,
        tag: &str,
        now: f64,
    ) -> Result<Digest, EcrError> {
        let image = self.repository(account, repository)?.image(tag)?;
        let digest = image.digest;
        if image.tags.len() <= 1 {
            self.delete_image(account, repository, &digest, now)?;
        } else {
            self.repository_mut(account, repository)?.remove_tag(tag);
        }
        Ok(digest)
    }
}
