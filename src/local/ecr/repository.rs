//! One repository: its settings, images, tags and layers. This module owns their consistency; who may change them is decided
//! before. Invariants: every tag belongs to one image; every layer that an image needs is in the repository; every collection is
//! bounded.

use super::digest::Digest;
use super::error::{EcrError, Place};
use super::image::{Image, NewImage};
use super::lifecycle::{LifecyclePolicy, Preview};
use super::manifest::Contents;
use super::mutability::Mutability;
use super::names::shortened;
use super::policy::Policy;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

/// Maximum number of images in a repository.
pub(crate) const MAX_IMAGES: usize = 10_000;
/// Maximum number of tags in a repository.
pub(crate) const MAX_TAGS: usize = 20_000;
/// Maximum number of tags of an image, as in ECR.
pub(crate) const MAX_TAGS_OF_IMAGE: usize = 1000;
/// Maximum number of layers in a repository.
pub(crate) const MAX_LAYERS: usize = 50_000;
/// The longest reference in an error, in bytes.
const MAX_SHOWN: usize = 300;
/// The time in seconds after which a layer that no image has needed yet is removed.
const MAX_UNUSED: f64 = 24.0 * 3600.0;
/// The time in seconds that a layer stays after a push has relied on it, if no image needs it any more.
const GRACE: f64 = 3600.0;

/// A layer or a configuration. Its bytes are elsewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layer {
    /// Its size in bytes.
    pub(crate) size: u64,
    /// When it was pushed, or a push last relied on it, in seconds since the epoch.
    pub(crate) added_at: f64,
    /// The number of images that need it.
    pub(crate) uses: usize,
    /// Some image has needed it.
    pub(crate) was_used: bool,
}

impl Layer {
    /// No image needs it, and no push that has relied on it can still be under way.
    fn is_over(&self, now: f64) -> bool {
        let limit = if self.was_used { GRACE } else { MAX_UNUSED };
        self.uses == 0 && now - self.added_at > limit
    }
}

/// How a repository is encrypted. Nothing here is encrypted; the setting is kept and shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Encryption {
    /// `AES256`, `KMS` or `KMS_DSSE`.
    pub(crate) kind: &'static str,
    /// The key of KMS; `None`: the account's own.
    pub(crate) key: Option<String>,
}

/// A repository.
#[derive(Clone, Debug)]
pub(crate) struct Repository {
    /// The account and the name.
    pub(crate) place: Place,
    /// When it was created, in seconds since the epoch.
    pub(crate) created_at: f64,
    /// Which tags may be moved to another image.
    pub(crate) mutability: Mutability,
    /// `scanOnPush`: kept and shown. Nothing is scanned.
    pub(crate) scan_on_push: bool,
    pub(crate) encryption: Encryption,
    /// The policy that says who may do what; `None`: there is none.
    pub(crate) policy: Option<Policy>,
    /// The rules that expire images; `None`: there are none.
    pub(crate) lifecycle: Option<LifecyclePolicy>,
    /// The last preview of rules; `None`: none was started.
    pub(crate) preview: Option<Arc<Preview>>,
    /// The tags of the repository as an AWS resource.
    pub(crate) resource_tags: BTreeMap<String, String>,
    images: BTreeMap<Digest, Image>,
    /// The image of each tag.
    tags: BTreeMap<String, Digest>,
    layers: BTreeMap<Digest, Layer>,
    /// The indexes that need an image, by the image's digest.
    indexes: BTreeMap<Digest, BTreeSet<Digest>>,
}

impl Repository {
    /// A new repository without images.
    pub(crate) fn new(place: Place, now: f64) -> Self {
        Self {
            place,
            created_at: now,
            mutability: Mutability::default(),
            scan_on_push: false,
            encryption: Encryption { kind: "AES256", key: None },
            policy: None,
            lifecycle: None,
            preview: None,
            resource_tags: BTreeMap::new(),
            images: BTreeMap::new(),
            tags: BTreeMap::new(),
            layers: BTreeMap::new(),
            indexes: BTreeMap::new(),
        }
    }

    /// All images, by digest.
    pub(crate) fn images(&self) -> impl ExactSizeIterator<Item = &Image> {
        self.images.values()
    }

    /// All images whose digest follows this one; `None`: from the first on. Those before are not looked at.
    pub(crate) fn images_after(&self, digest: Option<Digest>) -> impl Iterator<Item = &Image> {
        self.images.range((digest.map_or(Unbounded, Excluded), Unbounded)).map(|(_, image)| image)
    }

    /// The image with this digest, if there is one, and all that follow it; `None`: from the first on. Those before are not looked at.
    pub(crate) fn images_from(&self, digest: Option<Digest>) -> impl Iterator<Item = &Image> {
        self.images.range((digest.map_or(Unbounded, Included), Unbounded)).map(|(_, image)| image)
    }

    /// All layers, by digest.
    pub(crate) fn layers(&self) -> impl ExactSizeIterator<Item = (&Digest, &Layer)> {
        self.layers.iter()
    }

    /// All tags that follow this one, in order; `None`: from the first on. Those before are not looked at.
    pub(crate) fn tags_after(&self, tag: Option<&str>) -> impl Iterator<Item = &str> {
        self.tags.range::<str, _>((tag.map_or(Unbounded, Excluded), Unbounded)).map(|(tag, _)| tag.as_str())
    }

    /// The image with this digest.
    pub(crate) fn by_digest(&self, digest: &Digest) -> Option<&Image> {
        self.images.get(digest)
    }

    /// The image with this tag.
    pub(crate) fn by_tag(&self, tag: &str) -> Option<&Image> {
        self.images.get(self.tags.get(tag)?)
    }

    /// The image with this tag or digest.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn image(&self, reference: &str) -> Result<&Image, EcrError> {
        let found = match reference.parse() {
            Ok(digest) => self.by_digest(&digest),
            Err(_) => self.by_tag(reference),
        };
        found.ok_or_else(|| self.no_image(reference))
    }

    /// The error for a tag or digest that is not here.
    fn no_image(&self, reference: &str) -> EcrError {
        let shown = shortened(reference, MAX_SHOWN);
        let image = match reference.contains(':') {
            true => format!("{{imageDigest:'{shown}', imageTag:'null'}}"),
            false => format!("{{imageDigest:'null', imageTag:'{shown}'}}"),
        };
        EcrError::NoImage { place: self.place.clone(), image }
    }

    /// The layer with this digest.
    pub(crate) fn layer(&self, digest: &Digest) -> Option<&Layer> {
        self.layers.get(digest)
    }

    /// Notes that the image was pulled.
    pub(crate) fn note_pull(&mut self, digest: &Digest, now: f64) {
        if let Some(image) = self.images.get_mut(digest) {
            image.pulled_at = Some(now);
        }
    }

    /// Notes that a push relies on a layer which is there.
    pub(crate) fn note_layer(&mut self, digest: &Digest, now: f64) {
        if let Some(layer) = self.layers.get_mut(digest) {
            layer.added_at = layer.added_at.max(now);
        }
    }

    /// Adds a layer, or finds that it is there already. Returns whether it is new.
    ///
    /// # Errors
    /// When there are too many layers.
    pub(crate) fn add_layer(&mut self, digest: Digest, size: u64, now: f64) -> Result<bool, EcrError> {
        if let Some(known) = self.layers.get_mut(&digest) {
            known.added_at = now;
            return Ok(false);
        }
        if self.layers.len() >= MAX_LAYERS {
            return Err(self.limit("layers", MAX_LAYERS));
        }
        self.layers.insert(digest, Layer { size, added_at: now, uses: 0, was_used: false });
        Ok(true)
    }

    /// The image can be stored.
    ///
    /// # Errors
    /// When something that it needs is missing, a tag may not be moved, or a bound is reached.
    pub(crate) fn check_image(&self, new: &NewImage) -> Result<(), EcrError> {
        self.check_tag(new.tag.as_deref(), new.digest)?;
        if self.images.contains_key(&new.digest) {
            return Ok(());
        }
        self.check_needs(&new.contents)?;
        if self.images.len() >= MAX_IMAGES {
            return Err(self.limit("images", MAX_IMAGES));
        }
        Ok(())
    }

    /// Stores an image that was checked, or gives a further tag to one that is here.
    pub(crate) fn put_image(&mut self, new: &NewImage, now: f64) {
        let digest = new.digest;
        if !self.images.contains_key(&digest) {
            let (size, tags) = (self.size(&new.contents), BTreeSet::new());
            let (manifest, contents) = (new.manifest.clone(), Arc::clone(&new.contents));
            self.insert(Image { digest, manifest, contents, size, pushed_at: now, pulled_at: None, tags });
        }
        if let Some(tag) = &new.tag {
            self.move_tag(tag, digest);
        }
    }

    /// Puts an image and its tags back that a stored form holds. The caller checks what it needs.
    pub(crate) fn insert(&mut self, image: Image) {
        for layer in image.contents.needed_layers() {
            if let Some(layer) = self.layers.get_mut(&layer) {
                layer.uses += 1;
                layer.was_used = true;
            }
        }
        for tag in &image.tags {
            self.tags.insert(tag.clone(), image.digest);
        }
        for needed in &image.contents.manifests {
            self.indexes.entry(*needed).or_default().insert(image.digest);
        }
        self.images.insert(image.digest, image);
    }

    /// The image may get this tag.
    fn check_tag(&self, tag: Option<&str>, digest: Digest) -> Result<(), EcrError> {
        let known = self.images.get(&digest);
        let exists = |tag: Option<&str>| {
            Err(EcrError::ImageExists { place: self.place.clone(), digest, tag: tag.map(str::to_owned) })
        };
        let Some(tag) = tag else { return if known.is_some() { exists(None) } else { Ok(()) } };
        if let Some(current) = self.tags.get(tag) {
            // As in ECR, even the same image is refused when tags are immutable.
            if !self.mutability.may_move(tag) {
                let (tag, repository) = (tag.to_owned(), self.place.repository.clone());
                return Err(EcrError::TagExists { tag, repository, by_filter: self.mutability.is_by_filter() });
            }
            if *current == digest {
                return exists(Some(tag));
            }
        } else if self.tags.len() >= MAX_TAGS {
            return Err(self.limit("image tags", MAX_TAGS));
        }
        if known.is_some_and(|image| image.tags.len() >= MAX_TAGS_OF_IMAGE) {
            return Err(EcrError::Limit(format!("The image '{digest}' has {MAX_TAGS_OF_IMAGE} tags already.")));
        }
        Ok(())
    }

    /// All that the manifest needs is here.
    fn check_needs(&self, contents: &Contents) -> Result<(), EcrError> {
        let place = || self.place.clone();
        let needed = contents.needed_layers().into_iter();
        let digests: Vec<Digest> = needed.filter(|digest| !self.layers.contains_key(digest)).collect();
        if !digests.is_empty() {
            return Err(EcrError::NoLayers { place: place(), digests });
        }
        let needed = contents.manifests.iter().copied();
        let digests: Vec<Digest> = needed.filter(|digest| !self.images.contains_key(digest)).collect();
        match digests.is_empty() {
            true => Ok(()),
            false => Err(EcrError::NoManifests { place: place(), digests }),
        }
    }

    fn size(&self, contents: &Contents) -> u64 {
        let layers: u64 = contents.needed_layers().iter().filter_map(|layer| Some(self.layers.get(layer)?.size)).sum();
        let images = contents.manifests.iter().filter_map(|digest| Some(self.images.get(digest)?.size));
        layers.max(images.max().unwrap_or(0))
    }

    fn move_tag(&mut self, tag: &str, digest: Digest) {
        let old = self.tags.insert(tag.to_owned(), digest);
        if let Some(image) = old.and_then(|old| self.images.get_mut(&old)) {
            image.tags.remove(tag);
        }
        if let Some(image) = self.images.get_mut(&digest) {
            image.tags.insert(tag.to_owned());
        }
    }

    /// An index needs this image.
    pub(crate) fn is_needed(&self, digest: &Digest) -> bool {
        self.indexes.contains_key(digest)
    }

    /// Removes an image with all its tags. Returns it, and the layers that left with it: those that no image of the repository
    /// needs any more, and on which no push relies.
    ///
    /// # Errors
    /// When there is no such image, or an index needs it.
    pub(crate) fn remove_image(&mut self, digest: &Digest, now: f64) -> Result<(Image, Vec<Digest>), EcrError> {
        self.image(&digest.to_string())?;
        if let Some(indexes) = self.indexes.get(digest) {
            return Err(EcrError::Referenced { digest: *digest, by: indexes.iter().copied().collect() });
        }
        let Some(image) = self.images.remove(digest) else { return Err(self.no_image(&digest.to_string())) };
        for needed in &image.contents.manifests {
            if let Some(indexes) = self.indexes.get_mut(needed) {
                indexes.remove(digest);
                if indexes.is_empty() {
                    self.indexes.remove(needed);
                }
            }
        }
        for tag in &image.tags {
            self.tags.remove(tag);
        }
        let mut unused = Vec::new();
        for digest in image.contents.needed_layers() {
            let Some(layer) = self.layers.get_mut(&digest) else { continue };
            layer.uses = layer.uses.saturating_sub(1);
            if layer.is_over(now) {
                self.layers.remove(&digest);
                unused.push(digest);
            }
        }
        Ok((image, unused))
    }

    /// Removes a tag from its image, which stays.
    pub(crate) fn remove_tag(&mut self, tag: &str) {
        if let Some(image) = self.tags.remove(tag).and_then(|digest| self.images.get_mut(&digest)) {
            image.tags.remove(tag);
        }
    }

    /// Nothing has changed that lifecycle rules look at: images, their tags and the times of their pushes, and the rules.
    pub(crate) fn is_alike(&self, other: &Self) -> bool {
        let rules = |repository: &Self| repository.lifecycle.as_ref().map(|policy| Arc::clone(&policy.rules));
        let key = |image: &Image| (image.digest, image.pushed_at.to_bits());
        let mut pairs = self.images.values().zip(other.images.values());
        self.images.len() == other.images.len()
            && pairs.all(|(image, other)| key(image) == key(other) && image.tags == other.tags)
            && rules(self) == rules(other)
    }

    /// There are layers that [`Self::remove_unused_layers`] would remove.
    pub(crate) fn has_unused(&self, now: f64) -> bool {
        self.layers.values().any(|layer| layer.is_over(now))
    }

    /// Removes layers that no image needs and on which no push relies. Returns their digests.
    pub(crate) fn remove_unused_layers(&mut self, now: f64) -> Vec<Digest> {
        let unused: Vec<Digest> =
            self.layers.iter().filter(|(_, layer)| layer.is_over(now)).map(|(digest, _)| *digest).collect();
        for digest in &unused {
            self.layers.remove(digest);
        }
        unused
    }

    fn limit(&self, what: &str, max: usize) -> EcrError {
        let Place { account, repository } = &self.place;
        EcrError::Limit(format!(
            "The repository with name '{repository}' in the registry with id '{account}' already has the maximum allowed number of {what}, \
             which is '{max}'"
        ))
    }
}
