//! Pulls an image, with progress, watchdogs and attempts (spec `images.md` §5, §8).
//!
//! Owns the pull call and the tagging after a pull by digest; the failure texts for customers are in `pull_text`. The core
//! decides whether to pull. Invariant: every pull ends, at the latest after its overall time limit. An attempt ends after five
//! minutes without any output or after the set time without progress, unless everything is fetched and only to be unpacked.

use super::image::{invalid_reference, registry_auth};
use super::progress::{Layers, PullJob, attempt_begins, attempt_failed, wait_for_limit, wall};
use super::pull_text::{PULL_ERROR, for_customer};
use super::rate_limit::LimitWaits;
use super::reference::Reference;
use crate::backoff::{Shape, seconds};
use crate::docker::Docker;
use crate::docker::api::connection::{Body, Request};
use crate::docker::api::error::{DockerError, timed_out};
use crate::docker::api::lines::{Lines, MAX_LINE_BYTES};
use crate::docker::api::version::VersionsInUse;
use crate::input::truncated::member_of_truncated;
use bollard::models::CreateImageInfo;
use ecs_core::model::text::cleaned;
use ecs_core::model::waiting::PullPhase;
use ecs_core::model::{Failure, OpError, RegistryCredentials};
use reqwest::Method;
use serde::Deserialize;
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout, timeout_at};

const PULL_ATTEMPTS: u32 = 5;
const PULL_BACKOFF: Shape =
    Shape { initial: Duration::from_millis(1100), max: Duration::from_secs(5), factor: 2.0, jitter: 0.2 };
const TAG_ATTEMPTS: u32 = 5;
const TAG_PAUSE: Duration = Duration::from_millis(100);
const TAG_LIMIT: Duration = Duration::from_secs(30);

impl Docker {
    /// Pulls an image, by digest if one is known, and tags it with its reference.
    ///
    /// Only a few pulls run at the same time; the overall time limit begins when it is this pull's turn. `credentials` is called
    /// for every attempt, and its failure ends the pull. (`Fn() -> Future` instead of `AsyncFn`: the compiler cannot prove that
    /// the latter's future is `Send`, and pulls run on tasks of their own.)
    ///
    /// # Errors
    /// Fails if the reference or the digest is invalid, `credentials` fails, all attempts fail, the time is over, or the image
    /// cannot be tagged. All failures are `Failed`: the daemon cancels a pull that was given up, and a pull that succeeds
    /// nevertheless does no harm.
    pub async fn pull<C, F>(&self, job: &PullJob<'_>, credentials: C) -> Result<(), OpError>
    where
        C: Fn() -> F,
        F: Future<Output = Result<RegistryCredentials, Failure>>,
    {
        let Some(wanted) = Reference::parse(job.image) else { return Err(invalid_reference(PULL_ERROR)) };
        let canonical = job.digest.map(|digest| format!("{}@{digest}", wanted.name));
        let reference = match canonical.as_deref().map(|text| (text, Reference::parse(text))) {
            None => wanted.to_pull(),
            Some((text, Some(_))) => text.to_owned(),
            Some((_, None)) => {
                let (image, digest) = (job.image, job.digest.unwrap_or_default());
                let text = format!(
                    "failed to prepare a canonical reference with image '{image}' and digest '{digest}': invalid digest format"
                );
                return Err(OpError::Failed(Failure::permanent(PULL_ERROR, text)));
            }
        };
        let turn = self.pulls.acquire().await; // never closed, so this cannot fail
        let limit = Duration::from(self.settings.pull_timeout);
        let pulled = match timeout(limit, self.attempts(&reference, job, turn.ok(), credentials)).await {
            Ok(pulled) => pulled,
            Err(_) => Err(timed_out("pulled", limit)),
        };
        pulled.map_err(OpError::Failed)?;
        if canonical.is_some() && wanted.digest.is_none() {
            job.progress.send_modify(|shown| shown.phase = PullPhase::Naming);
            self.tag(&reference, &wanted, job.image).await.map_err(OpError::Failed)?;
        }
        Ok(())
    }

    /// After a failed pull: returns whether the image exists on this host nevertheless. If so, it is tagged with the task's
    /// reference.
    ///
    /// # Errors
    /// Fails if the reference is invalid, or if the image cannot be inspected or tagged.
    pub async fn has_without_pull(&self, image: &str, digest: Option<&str>) -> Result<bool, OpError> {
        let Some(wanted) = Reference::parse(image) else { return Err(invalid_reference(PULL_ERROR)) };
        let Some(digest) = digest.filter(|_| wanted.digest.is_none()) else {
            return Ok(self.image_present(image).await?.is_some());
        };
        let canonical = format!("{}@{digest}", wanted.name);
        if self.image_present(&canonical).await?.is_none() {
            return Ok(false);
        }
        self.tag(&canonical, &wanted, image).await.map_err(OpError::Failed)?;
        Ok(true)
    }

    async fn attempts<'t, C, F>(
        &'t self,
        reference: &str,
        job: &PullJob<'_>,
        mut turn: Option<tokio::sync::SemaphorePermit<'t>>,
        credentials: C,
    ) -> Result<(), Failure>
    where
        C: Fn() -> F,
        F: Future<Output = Result<RegistryCredentials, Failure>>,
    {
        let ceiling = Instant::now() + Duration::from(self.settings.pull_timeout);
        let mut limit_waits = LimitWaits::new(job.waits_for_limits.then_some(ceiling));
        let mut failures = 0;
        loop {
            attempt_begins(job, PULL_ATTEMPTS);
            let with = credentials().await.map_err(|failure| for_customer(failure, job.image))?;
            let failure = match self.attempt(reference, with, job).await {
                Ok(()) => return Ok(()),
                Err(failure) => for_customer(failure, job.image),
            };
            if let Some(wait) = limit_waits.wait(&failure.message, Instant::now(), wall()) {
                drop(turn.take()); // pulls from other registries need not wait
                wait_for_limit(job, &failure, wait).await;
                turn = self.pulls.acquire().await.ok();
                continue;
            }
            failures += 1;
            if failures == PULL_ATTEMPTS {
                return Err(failure);
            }
            let pause = PULL_BACKOFF.delay(failures - 1);
            let retry_in_s = seconds(pause);
            tracing::warn!(image = job.image, error = %failure, attempt = failures, retry_in_s, "a pull failed; trying again");
            attempt_failed(job, PullPhase::Pausing, &failure.to_string(), pause);
            sleep(pause).await;
        }
    }

    async fn attempt(
        &self,
        reference: &str,
        credentials: RegistryCredentials,
        job: &PullJob<'_>,
    ) -> Result<(), Failure> {
        let failed = |error: DockerError| error.failure(PULL_ERROR, "pulled");
        let (auth, query) = (registry_auth(&credentials), [("fromImage", reference)]);
        let request = Request {
            method: &Method::POST,
            path: &["images", "create"],
            query: &query,
            registry_auth: Some(&auth),
            body: Body::Empty,
        };
        let pull_begin = self.settings.limits.pull_begin;
        let first_output = Instant::now() + pull_begin;
        let opened = timeout_at(first_output, self.wire.open(VersionsInUse::changes, request)).await;
        let opened = opened.map_err(|_| timed_out("pullBegin", pull_begin))?;
        let mut lines = Lines::new(opened.map_err(failed)?);
        let inactivity = Duration::from(self.settings.pull_inactivity);
        let (mut begun, mut moved) = (false, Instant::now());
        let mut layers = Layers::new(job, std::time::Instant::now());
        let has_containerd_store = self.info.get().is_some_and(|info| info.has_containerd_store);
        loop {
            let limit = if begun { moved + inactivity * layers.patience(has_containerd_store) } else { first_output };
            match timeout_at(limit, lines.next()).await {
                Ok(Ok(None)) => return Ok(()),
                Ok(Ok(Some(line))) => {
                    let line = progress_of(&line).map_err(failed)?;
                    begun = true;
                    if let Some(progress) = layers.note(&line, std::time::Instant::now()) {
                        tracing::info!(image = reference, progress, "Pulling image");
                    }
                    if layers.has_moved() {
                        moved = Instant::now();
                        self.last_progress.send_replace(moved);
                    }
                }
                Ok(Err(error)) => return Err(failed(error)),
                Err(_) if begun && layers.all_fetched() => moved = Instant::now(),
                // The daemon fetches a few layers at a time, so a pull may stand still while other pulls make progress.
                Err(_) if begun && layers.all_wait() && self.last_progress.borrow().elapsed() < inactivity => {
                    moved = Instant::now();
                }
                Err(_) if begun => {
                    return Err(Failure::retryable(PULL_ERROR, "inactivity time exceeded timeout while pulling image"));
                }
                Err(_) => return Err(timed_out("pullBegin", pull_begin)),
            }
        }
    }

    /// Tags an image that was pulled by digest with the name that the task uses.
    pub(crate) async fn tag(&self, source: &str, target: &Reference<'_>, image: &str) -> Result<(), Failure> {
        let (path, tag) = (["images", source, "tag"], target.tag.unwrap_or("latest"));
        let query = [("repo", target.name), ("tag", tag)];
        let attempts = async {
            let mut attempt = 1;
            loop {
                match self.changer.post(&path, &query, TAG_LIMIT).await {
                    Ok(_) => return Ok(()),
                    Err(error) if attempt == TAG_ATTEMPTS => return Err(error),
                    Err(_) => attempt += 1,
                }
                sleep(TAG_PAUSE).await;
            }
        };
        match timeout(TAG_LIMIT, attempts).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                Err(Failure::retryable(PULL_ERROR, format!("failed to tag image '{source}' as '{image}': {error}")))
            }
            Err(_) => Err(timed_out("pulled", TAG_LIMIT)),
        }
    }
}

/// Parses a progress line. An error in the line is a failure, although the status of the answer was a success.
pub(crate) fn progress_of(line: &[u8]) -> Result<CreateImageInfo, DockerError> {
    #[derive(Deserialize)]
    struct Line {
        error: Option<String>,
        #[serde(flatten)]
        progress: CreateImageInfo,
    }
    let stream = |text: &str| Err(DockerError::Stream(cleaned(text)));
    let parsed = serde_json::from_slice::<Line>(line);
    // A long error text may have caused the line to be cut.
    if parsed.is_err() && line.len() == MAX_LINE_BYTES {
        let text = ["message", "error"].into_iter().find_map(|name| member_of_truncated(line, name));
        return stream(&text.unwrap_or_else(|| "the daemon sent a line that is too long".to_owned()));
    }
    let Line { error, progress } =
        parsed.map_err(|error| DockerError::Cut(format!("unreadable progress of a pull: {error}")))?;
    match progress.error_detail.as_ref().and_then(|detail| detail.message.as_ref()).or(error.as_ref()) {
        Some(text) => stream(text),
        None => Ok(progress),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_in_the_progress_is_found_however_long_it_is() {
        let long = format!("denied:\n\u{1b}[2J{}", "x".repeat(3 << 20));
        let table = [
            (r#"{"errorDetail":{"message":"no"},"error":"no"}"#.to_owned(), "no"),
            (r#"{"error":"alone"}"#.to_owned(), "alone"),
            (
                serde_json::json!({"errorDetail": {"code": 403, "message": long}, "error": long}).to_string(),
                "denied: [2Jxxx",
            ),
            (serde_json::json!({"error": long}).to_string(), "denied: [2Jxxx"),
            (serde_json::json!({"status": "a".repeat(1 << 20)}).to_string(), "the daemon sent a line that is too long"),
        ];
        for (line, wanted) in table {
            let kept = &line.as_bytes()[..line.len().min(MAX_LINE_BYTES)];
            let DockerError::Stream(text) = progress_of(kept).unwrap_err() else { panic!("{wanted}") };
            assert!(text.starts_with(wanted) && text.len() <= ecs_core::model::text::MAX_TEXT, "{wanted}");
        }
        assert!(matches!(progress_of(b"half a li"), Err(DockerError::Cut(_))));
        assert_eq!(progress_of(br#"{"status":"Waiting","id":"a"}"#).unwrap().id.as_deref(), Some("a"));
    }
}
