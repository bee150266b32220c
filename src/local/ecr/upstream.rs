//! Images that a repository gets from the registry of another account, by a pull through cache rule. This module owns the choice of
//! the rule, and the copy; who may is decided before. Invariants: the other registry is one of this session, so that no connection is
//! made; an image is stored after all that it needs.

use super::digest::Digest;
use super::error::{EcrError, Place};
use super::image::NewImage;
use super::repository::Repository;
use super::service::{CacheRule, Ecr};
use std::collections::BTreeSet;

/// The age in seconds from which a pull of a tag looks into the other registry again, as in ECR.
const MAX_CACHED: f64 = 24.0 * 3600.0;

/// Where the images of a repository come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Upstream {
    /// The repository of the other account, which need not exist.
    pub(crate) place: Place,
    /// The ARN of the role that reads there.
    pub(crate) role: String,
}

impl Ecr {
    /// The pull through cache rule for a repository, with its prefix. The longest prefix counts, and the rule for all names last.
    pub(super) fn cache_rule(&self, account: &str, repository: &str) -> Option<(&str, &CacheRule)> {
        let rules = &self.registries.get(account)?.cache_rules;
        let matching = rules.iter().filter(|(prefix, _)| below(repository, prefix).is_some());
        let found = matching.max_by_key(|(prefix, _)| prefix.len()).or_else(|| rules.get_key_value("ROOT"));
        found.map(|(prefix, rule)| (prefix.as_str(), rule))
    }

    /// Where the images of a repository come from; `None`: no rule says so, or the other registry is none of this session.
    pub(crate) fn upstream(&self, to: &Place) -> Option<Upstream> {
        let (prefix, rule) = self.cache_rule(&to.account, &to.repository)?;
        let repository = if prefix == "ROOT" { &to.repository } else { below(&to.repository, prefix)? };
        let account = self.account_of_host(&rule.upstream).filter(|account| *account != to.account)?;
        let place = Place { account: account.to_owned(), repository: repository.to_owned() };
        Some(Upstream { place, role: rule.role.clone()? })
    }

    /// The account of this session whose registry AWS would have at this host.
    pub(crate) fn account_of_host(&self, host: &str) -> Option<&str> {
        let (account, rest) = host.split_once(".dkr.ecr.")?;
        let is_here = rest.strip_suffix(".amazonaws.com") == Some(&self.region);
        self.registries.get_key_value(account).filter(|_| is_here).map(|(account, _)| account.as_str())
    }

    /// A pull has to look into the other registry: the image is not here, or has had its tag for a day.
    pub(crate) fn is_outdated(&self, to: &Place, reference: &str, now: f64) -> bool {
        match self.image(&to.account, &to.repository, reference) {
            Ok(image) => reference.parse::<Digest>().is_err() && now - image.pushed_at >= MAX_CACHED,
            Err(_) => true,
        }
    }

    /// Copies an image with all that it needs, and creates the repository if there is none. Bytes are not copied: registries share
    /// layers.
    ///
    /// # Errors
    /// When there is no such image, or a bound is reached.
    pub(crate) fn import(&mut self, from: &Place, to: &Place, reference: &str, now: f64) -> Result<(), EcrError> {
        let source = self.repository(&from.account, &from.repository)?;
        let top = source.image(reference)?.digest;
        let tag = reference.parse::<Digest>().is_err().then(|| reference.to_owned());
        let images = needed(source, top, tag);
        let digests = images.iter().flat_map(|image| image.contents.config.iter().chain(&image.contents.layers));
        let layers: Vec<(Digest, u64)> =
            digests.filter_map(|digest| Some((*digest, source.layer(digest)?.size))).collect();
        if self.repository(&to.account, &to.repository).is_err() {
            self.create_repository(Repository::new(to.clone(), now))?;
        }
        for (digest, size) in layers {
            self.add_layer(&to.account, &to.repository, digest, size, now)?;
        }
        for image in images {
            match self.put_image(&to.account, &to.repository, &image, now) {
                Ok(_) | Err(EcrError::ImageExists { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The rest of a name below a prefix; `None`: it is elsewhere.
fn below<'a>(repository: &'a str, prefix: &str) -> Option<&'a str> {
    repository.strip_prefix(prefix.trim_end_matches('/'))?.strip_prefix('/')
}

/// An image and all images that it needs as an index, itself last. It gets the tag.
fn needed(source: &Repository, top: Digest, tag: Option<String>) -> Vec<NewImage> {
    let (mut open, mut seen, mut images) = (vec![(top, false)], BTreeSet::new(), Vec::new());
    while let Some((digest, is_done)) = open.pop() {
        let Some(image) = source.by_digest(&digest) else { continue };
        if is_done {
            let (manifest, contents) = (image.manifest.clone(), image.contents.clone());
            images.push(NewImage { manifest, contents, digest, tag: tag.clone().filter(|_| digest == top) });
        } else if seen.insert(digest) {
            open.push((digest, true));
            open.extend(image.contents.manifests.iter().map(|needed| (*needed, false)));
        }
    }
    images
}
