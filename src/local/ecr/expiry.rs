//! Carries out lifecycle policies, and removes layers that were pushed but never needed. Invariant: what a preview shows is what
//! its rules expire at the same time. Only what was attached to an image that is gone leaves without a rule, a day after its push.

use super::digest::Digest;
use super::error::{EcrError, Place};
use super::image::Image;
use super::lifecycle::{Candidate, LifecyclePolicy, Preview, PreviewEntry, Rule, evaluate};
use super::repository::Repository;
use super::service::Ecr;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The time between two evaluations, in seconds. ECR promises one in 24 hours.
const INTERVAL: f64 = 3600.0;
/// The age in seconds at which an image leaves whose subject is not there: it may have been pushed before its subject.
const MAX_DETACHED: f64 = 24.0 * 3600.0;

impl Ecr {
    /// Carries out all lifecycle policies if an hour has passed since the last time, or the clock went back. Returns whether
    /// anything has changed.
    pub(crate) fn tick(&mut self, now: f64) -> bool {
        (now - self.evaluated_at).abs() >= INTERVAL && self.expire(now)
    }

    /// Carries out all lifecycle policies. Returns whether anything has changed.
    pub(crate) fn expire(&mut self, now: f64) -> bool {
        self.evaluated_at = now;
        let repositories = self.registries.values_mut().flat_map(|registry| registry.repositories.values_mut());
        let (mut unused, mut expired) = (Vec::new(), Vec::new());
        for shared in repositories.filter(|repository| repository.lifecycle.is_some() || repository.has_unused(now)) {
            let repository = Arc::make_mut(shared);
            unused.extend(repository.remove_unused_layers(now));
            let Some(policy) = &mut repository.lifecycle else { continue };
            policy.evaluated_at = Some(now);
            let rules = Arc::clone(&policy.rules);
            let digests = expiring(repository, &rules, now).into_iter().map(|entry| entry.digest);
            expired.push((repository.place.clone(), digests.collect::<Vec<_>>()));
        }
        let is_changed = !unused.is_empty() || !expired.is_empty();
        self.lose_layers(&unused);
        for (place, digests) in &expired {
            self.delete_all(place, digests, now);
            self.delete_detached(place, now);
        }
        if is_changed {
            self.touch();
        }
        is_changed
    }

    /// Deletes images. One that an index needs stays.
    fn delete_all(&mut self, Place { account, repository }: &Place, digests: &[Digest], now: f64) {
        for digest in digests {
            let _gone: Result<Image, EcrError> = self.delete_image(account, repository, digest, now);
        }
    }

    /// Deletes what was attached to images that are gone, and what was attached to that.
    fn delete_detached(&mut self, place: &Place, now: f64) {
        loop {
            let Some(repository) = self.find(&place.account, &place.repository) else { return };
            let is_detached = |image: &&Image| {
                let subject = image.contents.subject;
                let is_alone = subject.is_some_and(|subject| repository.by_digest(&subject).is_none());
                is_alone && is_attachment(repository, image) && now - image.pushed_at > MAX_DETACHED
            };
            let digests: Vec<Digest> = repository.images().filter(is_detached).map(|image| image.digest).collect();
            if digests.is_empty() {
                return;
            }
            self.delete_all(place, &digests, now);
        }
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
        let entries = expiring(self.repository(account, repository)?, &policy.rules, now);
        Ok(Preview { text: Arc::clone(&policy.text), made_at: now, entries })
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
