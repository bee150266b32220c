//! Finds what lifecycle policies expire and which layers nobody needs, and removes it. Finding takes time, so it is done on a copy
//! and without a lock; removing looks again whether the repository is still as it was. Invariants: what a preview shows is what its
//! rules expire at the same time; rules expire nothing of a repository that has changed since they were evaluated. Only what was
//! attached to an image that is gone leaves without a rule, a day after its push.

use super::digest::Digest;
use super::error::{EcrError, Place};
use super::image::Image;
use super::lifecycle::{Candidate, LifecyclePolicy, Preview, PreviewEntry, Rule, evaluate};
use super::repository::Repository;
use super::service::Ecr;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The time between two evaluations, in seconds. ECR promises one in 24 hours.
const INTERVAL: f64 = 3600.0;
/// The age in seconds at which an image leaves whose subject is not there: it may have been pushed before its subject.
const MAX_DETACHED: f64 = 24.0 * 3600.0;

/// What is to be removed at a time.
#[derive(Debug)]
pub(crate) struct Evaluation {
    /// The time, in seconds since the epoch.
    now: f64,
    found: Vec<Found>,
}

/// What is to be removed from a repository: layers that no image needs, and images by its rules.
#[derive(Debug)]
struct Found {
    /// The repository as it was looked at.
    repository: Arc<Repository>,
    /// The images, in an order in which they can be deleted.
    images: Vec<Digest>,
}

impl Ecr {
    /// An hour has passed since the last evaluation, or the clock went back, or something was left over. If so, this counts as the
    /// begin of an evaluation.
    pub(crate) fn begin_evaluation(&mut self, now: f64) -> bool {
        let is_due = (now - self.evaluated_at).abs() >= INTERVAL;
        if is_due {
            self.evaluated_at = now;
        }
        is_due
    }

    /// Finds what is to be removed. This takes long if there are many images and rules, so a copy is asked, without a lock.
    pub(crate) fn evaluate(&self, now: f64) -> Evaluation {
        let repositories = self.registries.values().flat_map(|registry| registry.repositories.values());
        let concerned = repositories.filter(|found| found.lifecycle.is_some() || found.has_unused(now));
        let found = concerned.map(|repository| {
            let images = repository.lifecycle.as_ref().map(|policy| leaving(repository, &policy.rules, now));
            Found { repository: Arc::clone(repository), images: images.unwrap_or_default() }
        });
        Evaluation { now, found: found.collect() }
    }

    /// Removes what was found. Returns whether all of it was done: a repository that has changed since is left as it is, and must be
    /// looked at again.
    pub(crate) fn carry_out(&mut self, Evaluation { now, found }: &Evaluation) -> bool {
        let (now, mut is_changed, mut is_complete) = (*now, false, true);
        for Found { repository: seen, images } in found {
            let Place { account, repository } = &seen.place;
            let current = self.registries.get_mut(account).and_then(|found| found.repositories.get_mut(repository));
            let Some(current) = current else { continue };
            if !Arc::ptr_eq(current, seen) && !current.is_alike(seen) {
                is_complete = false;
                continue;
            }
            let current = Arc::make_mut(current);
            let unused = current.remove_unused_layers(now);
            if let Some(policy) = &mut current.lifecycle {
                policy.evaluated_at = Some(now);
                is_changed = true;
            }
            is_changed |= !unused.is_empty();
            self.lose_layers(&unused);
            for digest in images {
                // One that an index needs stays.
                let _gone: Result<Image, EcrError> = self.delete_image(account, repository, digest, now);
            }
        }
        // What is left over is due at once.
        self.evaluated_at = if is_complete { now } else { f64::MIN };
        if is_changed {
            self.touch();
        }
        is_complete
    }

    /// Finds and removes in one step. Returns whether anything has changed.
    #[cfg(test)]
    pub(crate) fn expire(&mut self, now: f64) -> bool {
        let before = self.revision();
        let found = self.evaluate(now);
        assert!(self.carry_out(&found));
        self.revision() != before
    }

    /// [`Self::expire`], if it is time.
    #[cfg(test)]
    pub(crate) fn tick(&mut self, now: f64) -> bool {
        self.begin_evaluation(now) && self.expire(now)
    }

    /// What the rules of a policy would expire.
    ///
    /// # Errors
    /// When there is no such repository.
    pub(crate) fn preview(
        &self,
        account: &str,
        repository: &str,
        policy: &LifecyclePolicy,
        now: f64,
    ) -> Result<Preview, EcrError> {
        Ok(self.repository(account, repository)?.preview_of(policy, now))
    }

    /// Keeps the last preview of a repository. It is not stored, so this is no change that must be saved.
    ///
    /// # Errors
    /// When there is no such repository.
    pub(crate) fn note_preview(&mut self, account: &str, repository: &str, preview: Preview) -> Result<(), EcrError> {
        let missing = self.missing(account, repository, false);
        self.find_mut(account, repository).ok_or(missing)?.preview = Some(Arc::new(preview));
        Ok(())
    }
}

impl Repository {
    /// What the rules of a policy would expire. This takes long if there are many images and rules.
    pub(crate) fn preview_of(&self, policy: &LifecyclePolicy, now: f64) -> Preview {
        let entries = expiring(self, &policy.rules, now);
        Preview { text: Arc::clone(&policy.text), made_at: now, entries }
    }
}

/// The images that leave by rules, and then those that were attached to images that are gone, and what was attached to these.
fn leaving(repository: &Repository, rules: &[Rule], now: f64) -> Vec<Digest> {
    let mut leaving: Vec<Digest> = expiring(repository, rules, now).into_iter().map(|entry| entry.digest).collect();
    let mut gone: BTreeSet<Digest> = leaving.iter().copied().collect();
    let old = repository.images().filter(|image| now - image.pushed_at > MAX_DETACHED);
    let mut attached: Vec<&Image> = old.filter(|image| is_attachment(repository, image)).collect();
    attached.retain(|image| !gone.contains(&image.digest));
    loop {
        let is_there = |digest: &Digest| repository.by_digest(digest).is_some() && !gone.contains(digest);
        let has_subject = |image: &&Image| image.contents.subject.is_some_and(|subject| is_there(&subject));
        let (rest, detached): (Vec<&Image>, Vec<&Image>) = attached.into_iter().partition(has_subject);
        if detached.is_empty() {
            return leaving;
        }
        leaving.extend(detached.iter().map(|image| image.digest));
        gone.extend(detached.iter().map(|image| image.digest));
        attached = rest;
    }
}

/// What rules expire, oldest first, and after it what is attached to that, with the same rule.
fn expiring(repository: &Repository, rules: &[Rule], now: f64) -> Vec<PreviewEntry> {
    let images: Vec<&Image> = repository.images().filter(|image| !repository.is_needed(&image.digest)).collect();
    let marked = evaluate(rules, &images.iter().map(|image| candidate(image)).collect::<Vec<_>>(), now);
    let entry = |image: &Image, priority: u64| {
        let tags = image.tags.iter().cloned().collect();
        PreviewEntry { digest: image.digest, tags, pushed_at: image.pushed_at, priority }
    };
    let marked = marked.into_iter().filter_map(|(at, priority)| Some(entry(images.get(at)?, priority)));
    let mut entries: Vec<PreviewEntry> = marked.collect();
    let mut priorities: BTreeMap<Digest, u64> = entries.iter().map(|entry| (entry.digest, entry.priority)).collect();
    loop {
        let is_new = |image: &&&Image| !priorities.contains_key(&image.digest) && is_attachment(repository, image);
        let attached = images.iter().filter(is_new).filter_map(|image| {
            let subject = image.contents.subject?;
            Some(entry(image, *priorities.get(&subject)?))
        });
        let attached: Vec<PreviewEntry> = attached.collect();
        if attached.is_empty() {
            return entries;
        }
        priorities.extend(attached.iter().map(|entry| (entry.digest, entry.priority)));
        entries.extend(attached);
    }
}

fn candidate(image: &Image) -> Candidate<'_> {
    Candidate { tags: &image.tags, pushed_at: image.pushed_at }
}

/// The image is there for another one only, such as a signature.
fn is_attachment(repository: &Repository, image: &Image) -> bool {
    image.contents.subject.is_some() && image.tags.is_empty() && !repository.is_needed(&image.digest)
}
