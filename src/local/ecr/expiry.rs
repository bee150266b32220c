//! Carries out lifecycle policies, and removes layers that were pushed but never needed. Invariant: what a preview shows is what
//! expires at the same time with the same rules.

use super::digest::Digest;
use super::error::{EcrError, Place};
use super::lifecycle::{Candidate, LifecyclePolicy, Preview, PreviewEntry, evaluate};
use super::repository::{Image, Repository};
use super::service::Ecr;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The time between two evaluations, in seconds. ECR promises one in 24 hours.
const INTERVAL: f64 = 3600.0;

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
        let mut is_changed = false;
        for repository in repositories {
            unused.extend(repository.remove_unused_layers(now));
            let Some(policy) = &mut repository.lifecycle else { continue };
            policy.evaluated_at = Some(now);
            is_changed = true;
            let rules = Arc::clone(&policy.rules);
            let images = candidates(repository);
            let marked = evaluate(&rules, &images.iter().map(|image| candidate(image)).collect::<Vec<_>>(), now);
            let digests = marked.iter().filter_map(|(at, _)| Some(images.get(*at)?.digest));
            expired.push((repository.place.clone(), digests.collect::<Vec<_>>()));
        }
        is_changed |= !unused.is_empty();
        self.lose_layers(&unused);
        for (place, digests) in &expired {
            self.delete_expired(place, digests);
        }
        if is_changed {
            self.touch();
        }
        is_changed
    }

    /// Deletes expired images, and what was attached to them.
    fn delete_expired(&mut self, Place { account, repository }: &Place, digests: &[Digest]) {
        let expired: BTreeSet<Digest> = digests.iter().copied().collect();
        let attached = self.find(account, repository).into_iter().flat_map(Repository::images).filter(|image| {
            image.tags.is_empty() && image.contents.subject.is_some_and(|subject| expired.contains(&subject))
        });
        let attached: Vec<Digest> = attached.map(|image| image.digest).collect();
        for digest in digests.iter().chain(&attached) {
            // An attached image may have expired itself. One that an index needs stays.
            let _gone: Result<Image, EcrError> = self.delete_image(account, repository, digest);
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
        let images = candidates(self.repository(account, repository)?);
        let marked = evaluate(&policy.rules, &images.iter().map(|image| candidate(image)).collect::<Vec<_>>(), now);
        let entry = |(at, priority): (usize, u64)| {
            let image = images.get(at)?;
            let tags = image.tags.iter().cloned().collect();
            Some(PreviewEntry { digest: image.digest, tags, pushed_at: image.pushed_at, priority })
        };
        Ok(Preview {
            text: Arc::clone(&policy.text),
            made_at: now,
            entries: marked.into_iter().filter_map(entry).collect(),
        })
    }
}

/// The images that rules may expire: those that no index needs.
fn candidates(repository: &Repository) -> Vec<&Image> {
    repository.images().filter(|image| !repository.is_needed(&image.digest)).collect()
}

fn candidate(image: &Image) -> Candidate<'_> {
    Candidate { tags: &image.tags, pushed_at: image.pushed_at }
}
