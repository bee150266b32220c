//! Inspects local images and resolves references to digests (spec `images.md` §3).
//!
//! Owns the queries for local images, and those to registries through the daemon. Pulling is in [`super::pull`]. Invariant:
//! nothing here changes an image.

use super::progress::{PullJob, attempt_begins, attempt_failed, wait_for_limit, wall};
use super::pull_text::without_ecr_urls;
use super::rate_limit::{LimitWaits, is_limit};
use super::reference::Reference;
use crate::backoff::Shape;
use crate::docker::Docker;
use crate::docker::api::error::{DockerError, timed_out};
use crate::docker::api::version::DISTRIBUTION;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bollard::models::HealthConfig;
use ecs_core::model::waiting::PullPhase;
use ecs_core::model::{Failure, OpError, RegistryCredentials};
use serde_json::{Value, json};
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const MANIFEST_ATTEMPTS: u32 = 9;
const MANIFEST_BACKOFF: Shape =
    Shape { initial: Duration::from_millis(10), max: Duration::from_secs(5), factor: 3.0, jitter: 0.2 };
const MANIFEST_ERROR: &str = "CannotPullImageManifestError";

/// Facts about a local image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageFacts {
    /// The image's id: `sha256:…`.
    pub id: String,
    /// The names of the variables that the image sets.
    pub env_keys: Vec<String>,
    /// The image's digest in the repository of the reference by which it was looked up; `None` = the image did not come from
    /// there. (The Go agent compares the text before the first colon, so for a registry with a port it accepts any repository of
    /// that host.)
    pub repo_digest: Option<String>,
    /// The image came from some registry, possibly from another one or another repository.
    pub has_repo_digests: bool,
    /// The image's own health check: its command and its intervals in nanoseconds. `None` = the image has none.
    pub health_check: Option<HealthConfig>,
}

impl Docker {
    /// Looks up a local image by reference. `None`: there is no such image.
    ///
    /// # Errors
    /// Fails if the reference is invalid, or if the engine gives no answer or another error than "not found".
    pub async fn image_present(&self, image: &str) -> Result<Option<ImageFacts>, OpError> {
        let Some(reference) = Reference::parse(image) else { return Err(invalid_reference("CannotInspectImageError")) };
        match self.reader.get(&["images", image, "json"], &[], self.settings.limits.inspect_image).await {
            Ok(answer) => Ok(Some(facts(&answer, &reference))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.to_read_error("CannotInspectImageError", "inspecting")),
        }
    }

    /// The digest of a local image that need not be pulled. `None`: the image was built on this host and has no digest.
    ///
    /// # Errors
    /// Fails if the image is missing or cannot be inspected, or if its digests belong to other repositories only.
    pub async fn local_digest(&self, image: &str) -> Result<Option<String>, OpError> {
        let failed = |text: String| OpError::Failed(Failure::permanent(MANIFEST_ERROR, text));
        let renamed = |error| match error {
            OpError::Failed(failure) | OpError::Unknown(failure) => {
                OpError::Failed(Failure { name: MANIFEST_ERROR.to_owned(), ..failure })
            }
        };
        match self.image_present(image).await.map_err(renamed)? {
            None => Err(failed(format!("Error response from daemon: No such image: {image}"))),
            Some(facts) if facts.has_repo_digests && facts.repo_digest.is_none() => {
                Err(failed(format!("failed to find a repo digest matching '{image}'")))
            }
            Some(facts) => Ok(facts.repo_digest),
        }
    }

    /// Asks the registry for the digest of the job's image. `None`: the daemon is too old for this call, or the registry has
    /// only a v1 manifest, by whose digest an image cannot be pulled. [`PullJob::digest`] is ignored. `credentials` is called
    /// once, and again after each wait for the registry's rate limit.
    ///
    /// # Errors
    /// Fails if the reference is invalid, `credentials` fails, or no attempt gets an answer from the registry in time.
    pub async fn resolve_manifest<C, F>(&self, job: &PullJob<'_>, credentials: C) -> Result<Option<String>, OpError>
    where
        C: Fn() -> F,
        F: Future<Output = Result<RegistryCredentials, Failure>>,
    {
        let Some(reference) = Reference::parse(job.image) else { return Err(invalid_reference(MANIFEST_ERROR)) };
        if let Some(digest) = reference.digest {
            return Ok(Some(digest.to_owned()));
        }
        if self.versions.current().reads < DISTRIBUTION {
            return Ok(None);
        }
        let ceiling = Instant::now() + Duration::from(self.settings.pull_timeout);
        let mut limit_waits = LimitWaits::new(job.waits_for_limits.then_some(ceiling));
        loop {
            let auth = registry_auth(&credentials().await?);
            let failure = match self.query_in_time(&reference, &auth, job).await {
                Ok(answer) => return Ok(digest_of(&answer)),
                Err(failure) => failure,
            };
            match limit_waits.wait(&failure.message, Instant::now(), wall()) {
                Some(wait) => wait_for_limit(job, &failure, wait).await,
                None => return Err(OpError::Failed(failure)),
            }
        }
    }

    /// All attempts, within the time limit of the look-up. A rate limit that the job waits for ends them early.
    async fn query_in_time(&self, reference: &Reference<'_>, auth: &str, job: &PullJob<'_>) -> Result<Value, Failure> {
        let _turn = self.lookups.acquire().await; // never closed, so this cannot fail
        let limit = Duration::from(self.settings.manifest_timeout);
        let started = Instant::now();
        match tokio::time::timeout(limit, self.query_registry(reference, auth, job)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let failure = error.failure(MANIFEST_ERROR, "MANIFEST_PULLED");
                let message = without_ecr_urls(&failure.message, job.image);
                Err(failure.with_message(message))
            }
            Err(_) => Err(timed_out("MANIFEST_PULLED", started.elapsed())),
        }
    }

    async fn query_registry(
        &self,
        reference: &Reference<'_>,
        auth: &str,
        job: &PullJob<'_>,
    ) -> Result<Value, DockerError> {
        let (name, limit) = (reference.to_pull(), Duration::from(self.settings.manifest_timeout));
        let mut attempt = 0;
        loop {
            attempt_begins(job, MANIFEST_ATTEMPTS);
            let error = match self.reader.get_with(&["distribution", &name, "json"], &[], Some(auth), limit).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let text = error.to_string();
            if attempt + 1 == MANIFEST_ATTEMPTS || (job.waits_for_limits && is_limit(&text)) {
                return Err(error);
            }
            let pause = MANIFEST_BACKOFF.delay(attempt);
            tracing::debug!(image = name, %error, attempt, "the registry returned no manifest; trying again");
            attempt_failed(job, PullPhase::Pausing, &without_ecr_urls(&text, job.image), pause);
            sleep(pause).await;
            attempt += 1;
        }
    }
}

pub(crate) fn invalid_reference(name: &str) -> OpError {
    OpError::Failed(Failure::permanent(name, "invalid reference format"))
}

/// The value of the header `X-Registry-Auth`, which is always sent; `{}` for anonymous access.
pub(crate) fn registry_auth(credentials: &RegistryCredentials) -> String {
    let members = [
        ("username", credentials.username.as_str()),
        ("password", credentials.password.expose()),
        ("email", &credentials.email),
        ("serveraddress", &credentials.server_address),
        ("identitytoken", credentials.identity_token.expose()),
        ("registrytoken", credentials.registry_token.expose()),
    ];
    let given = members.into_iter().filter(|(_, value)| !value.is_empty() && !credentials.is_anonymous());
    let document = Value::Object(given.map(|(name, value)| (name.to_owned(), json!(value))).collect());
    URL_SAFE.encode(document.to_string())
}

fn digest_of(answer: &Value) -> Option<String> {
    let member = |name: &str| answer.get("Descriptor").and_then(|d| d.get(name)).and_then(Value::as_str);
    // Docker writes the descriptor's members in lower camel case; older builds of other engines did not.
    let media_type = member("mediaType").or_else(|| member("MediaType")).unwrap_or_default();
    let v1 = [
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    ];
    member("digest").or_else(|| member("Digest")).filter(|_| !v1.contains(&media_type)).map(str::to_owned)
}

fn facts(answer: &Value, reference: &Reference<'_>) -> ImageFacts {
    let texts = |pointer: &str| {
        let list = answer.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).collect::<Vec<_>>()
    };
    let digests = texts("/RepoDigests");
    let wanted = reference.repository();
    let matching = digests.iter().find_map(|text| {
        let parsed = Reference::parse(text)?;
        parsed.digest.filter(|_| parsed.repository() == wanted)
    });
    ImageFacts {
        id: answer.get("Id").and_then(Value::as_str).unwrap_or_default().to_owned(),
        env_keys: texts("/Config/Env").iter().filter_map(|line| line.split('=').next()).map(str::to_owned).collect(),
        repo_digest: matching.map(str::to_owned),
        has_repo_digests: !digests.is_empty(),
        health_check: answer.pointer("/Config/Healthcheck").filter(|check| check.is_object()).map(|check| {
            // Each member is read by itself, so that an unreadable one does not hide the others.
            let time = |name: &str| check.get(name).and_then(Value::as_i64);
            HealthConfig {
                test: Some(texts("/Config/Healthcheck/Test").into_iter().map(str::to_owned).collect()),
                interval: time("Interval"),
                start_interval: time("StartInterval"),
                ..HealthConfig::default()
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_take_the_digest_of_the_same_repository() {
        let digest = |digit: &str| format!("sha256:{}", digit.repeat(64));
        let names = ["other/app@", "docker.io/library/app@", "r.io/app@"];
        let digests: Vec<String> =
            names.iter().zip(["a", "b", "c"]).map(|(name, digit)| format!("{name}{}", digest(digit))).collect();
        let answer = json!({
            "Id": "sha256:1", "Config": {"Env": ["PATH=/bin", "AWS_REGION=", "ODD"], "Healthcheck": {"Test": ["CMD", "x"], "Interval": 5, "StartInterval": 6}},
            "RepoDigests": digests,
        });
        for (image, wanted) in [("app:1", Some(digest("b"))), ("r.io/app", Some(digest("c"))), ("r.io/x", None)] {
            let facts = facts(&answer, &Reference::parse(image).unwrap());
            assert_eq!(facts.repo_digest, wanted, "{image}");
            assert_eq!(facts.env_keys, ["PATH", "AWS_REGION", "ODD"]);
            let check = facts.health_check.unwrap();
            assert_eq!(check.test.unwrap(), ["CMD", "x"]);
            assert_eq!((check.interval, check.start_interval), (Some(5), Some(6)));
            assert!(facts.has_repo_digests);
        }
        let nothing = facts(&json!({}), &Reference::parse("a").unwrap());
        assert!(!nothing.has_repo_digests && nothing.health_check.is_none());
    }

    #[test]
    fn a_v1_manifest_has_no_usable_digest() {
        let answer = |media: &str| json!({"Descriptor": {"mediaType": media, "digest": "sha256:1"}});
        assert_eq!(digest_of(&answer("application/vnd.oci.image.manifest.v1+json")).as_deref(), Some("sha256:1"));
        assert_eq!(digest_of(&answer("application/vnd.docker.distribution.manifest.v1+prettyjws")), None);
        assert_eq!(digest_of(&json!({})), None);
    }

    #[test]
    fn anonymous_access_is_an_empty_object() {
        assert_eq!(URL_SAFE.decode(registry_auth(&RegistryCredentials::default())).unwrap(), b"{}");
        let some = RegistryCredentials { username: "u".into(), password: "~?>".into(), ..Default::default() };
        let sent: Value = serde_json::from_slice(&URL_SAFE.decode(registry_auth(&some)).unwrap()).unwrap();
        assert_eq!(sent, json!({"username": "u", "password": "~?>"}));
    }
}
