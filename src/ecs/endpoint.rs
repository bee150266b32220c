//! DiscoverPollEndpoint: the addresses of ACS and TCS (spec `registration.md` §10).
//!
//! Owns the last answer, which all callers share for twelve hours. It opens no websocket. The invariants: if a new call fails,
//! the expired answer is still used; an answer without an address of ACS is an error.

use super::body_edit::BodyEdit;
use super::text_of;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long an answer is used without a new call.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// The addresses of the websockets for this instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollEndpoints {
    /// Base address of ACS.
    pub acs: String,
    /// Base address of TCS; `None` if ECS names none.
    pub telemetry: Option<String>,
    /// Base address for the Service Connect agent; `None` if ECS names none.
    pub service_connect: Option<String>,
}

/// Why the endpoints are not known. Each variant has the error text of ECS, or the reason why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DiscoverError {
    /// ECS does not know the container instance any more.
    #[error("DiscoverPollEndpoint: {0}")]
    InactiveInstance(String),
    /// Any other cause.
    #[error("DiscoverPollEndpoint: {0}")]
    Failed(String),
}

impl DiscoverError {
    /// Like the Go agent, searches the whole text, since the API model of this operation lacks this error (spec `acs.md` §2).
    fn from_text(text: String) -> Self {
        if text.contains("InactiveInstanceException") { Self::InactiveInstance(text) } else { Self::Failed(text) }
    }
}

/// Discovers the endpoints and caches them.
#[derive(Debug)]
pub struct PollEndpointCache {
    client: aws_sdk_ecs::Client,
    cluster: String,
    zone_id: String,
    lifetime: Duration,
    last: Mutex<Option<Known>>,
}

/// The last answer.
#[derive(Debug)]
struct Known {
    container_instance: String,
    since: Instant,
    endpoints: Arc<PollEndpoints>,
}

impl PollEndpointCache {
    /// A cache without an answer. `cluster` is the name or ARN as configured; `zone_id` may be empty.
    pub fn new(client: aws_sdk_ecs::Client, cluster: String, zone_id: String) -> Self {
        Self { client, cluster, zone_id, lifetime: LIFETIME, last: Mutex::new(None) }
    }

    /// The endpoints for this container instance. Concurrent callers share one call.
    ///
    /// # Errors
    /// Fails if the call fails or its answer has no address of ACS, unless there is an earlier answer for this container
    /// instance.
    pub async fn get(&self, container_instance: &str) -> Result<Arc<PollEndpoints>, DiscoverError> {
        let mut last = self.last.lock().await;
        let known = last.as_ref().filter(|known| known.container_instance == container_instance);
        if let Some(known) = known.filter(|known| known.since.elapsed() < self.lifetime) {
            return Ok(Arc::clone(&known.endpoints));
        }
        match self.call(container_instance).await {
            Ok(endpoints) => {
                let endpoints = Arc::new(endpoints);
                let container_instance = container_instance.to_owned();
                *last = Some(Known { container_instance, since: Instant::now(), endpoints: Arc::clone(&endpoints) });
                Ok(endpoints)
            }
            Err(error) => match known {
                Some(known) => {
                    tracing::warn!(%error, "using the endpoints discovered earlier");
                    Ok(Arc::clone(&known.endpoints))
                }
                None => Err(error),
            },
        }
    }

    async fn call(&self, container_instance: &str) -> Result<PollEndpoints, DiscoverError> {
        let output = self
            .client
            .discover_poll_endpoint()
            .cluster(&self.cluster)
            .container_instance(container_instance)
            .customize()
            .interceptor(BodyEdit {
                value: self.zone_id.clone(),
                edit: |body, zone_id| {
                    body.insert("zoneId".to_owned(), zone_id.into());
                },
            })
            .send()
            .await
            .map_err(|error| DiscoverError::from_text(text_of(&error)))?;
        let named = |endpoint: Option<String>| endpoint.filter(|endpoint| !endpoint.is_empty());
        let acs =
            named(output.endpoint).ok_or_else(|| DiscoverError::Failed("the answer names no endpoint".to_owned()))?;
        Ok(PollEndpoints {
            acs,
            telemetry: named(output.telemetry_endpoint),
            service_connect: named(output.service_connect_endpoint),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::tests::fake::{Answer, Fake};
    use crate::ecs::report::tests::{client, golden};
    use serde_json::json;

    const ARN: &str = "arn:aws:ecs:us-west-2:123456789012:container-instance/judge/0123456789abcdef0123456789abcdef";

    fn found() -> Answer {
        Answer::json(200, &json!({"endpoint": "https://acs.example.com/", "telemetryEndpoint": ""}))
    }

    #[tokio::test]
    async fn the_recorded_request_is_sent_once_per_instance() {
        let fake = Fake::start(|_| found()).await;
        let cache = PollEndpointCache::new(client(&fake.url()), "judge".to_owned(), String::new());
        for _ in 0..2 {
            let endpoints = cache.get(ARN).await.unwrap();
            assert_eq!(endpoints.acs, "https://acs.example.com/");
            assert_eq!(endpoints.telemetry, None);
        }
        let seen = fake.requests();
        assert_eq!(seen.len(), 1);
        let golden = golden("discover_poll_endpoint");
        assert_eq!(seen[0].json(), golden["body"]);
        for name in ["X-Amz-Target", "User-Agent", "Content-Type", "Content-Length"] {
            assert_eq!(seen[0].header(name), golden["headers"][name].as_str(), "{name}");
        }
        cache.get("another").await.unwrap();
        assert_eq!(fake.requests().len(), 2);
    }

    #[tokio::test]
    async fn an_answer_without_an_endpoint_is_not_kept() {
        let fake = Fake::start(|request| match request.number {
            0 => Answer::text(200, ""),
            1 => Answer::json(200, &json!({"telemetryEndpoint": "https://tcs.example.com/"})),
            _ => found(),
        })
        .await;
        let cache = PollEndpointCache::new(client(&fake.url()), "judge".to_owned(), String::new());
        for _ in 0..2 {
            assert!(cache.get(ARN).await.unwrap_err().to_string().contains("names no endpoint"));
        }
        assert_eq!(cache.get(ARN).await.unwrap().acs, "https://acs.example.com/");
    }

    #[tokio::test]
    async fn an_inactive_instance_is_an_error_of_its_own() {
        let fake = Fake::start(|request| match request.number {
            0 => Answer::error(400, "InactiveInstanceException", "gone"),
            1 => Answer::error(400, "ClientException", "InactiveInstanceException: gone"),
            _ => Answer::error(400, "ClientException", "gone"),
        })
        .await;
        let cache = PollEndpointCache::new(client(&fake.url()), "judge".to_owned(), String::new());
        for is_inactive in [true, true, false] {
            let error = cache.get(ARN).await.unwrap_err();
            assert_eq!(matches!(error, DiscoverError::InactiveInstance(_)), is_inactive, "{error}");
            assert!(error.to_string().starts_with("DiscoverPollEndpoint: "), "{error}");
        }
    }

    #[tokio::test]
    async fn concurrent_callers_share_one_call() {
        let fake = Fake::start(|_| found()).await;
        let cache = PollEndpointCache::new(client(&fake.url()), "judge".to_owned(), String::new());
        let all = futures_util::future::join_all((0..20).map(|_| cache.get(ARN))).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(fake.requests().len(), 1);
    }

    #[tokio::test]
    async fn an_expired_answer_is_the_fallback_for_an_error() {
        let fake = Fake::start(|request| match request.number {
            0 => found(),
            _ => Answer::error(400, "AccessDeniedException", "no"),
        })
        .await;
        let mut cache = PollEndpointCache::new(client(&fake.url()), "judge".to_owned(), "usw2-az2".to_owned());
        cache.lifetime = Duration::ZERO;
        let first = cache.get(ARN).await.unwrap();
        assert_eq!(cache.get(ARN).await.unwrap(), first);
        let error = cache.get("another").await.unwrap_err();
        assert!(error.to_string().contains("AccessDenied"), "{error}");
        assert_eq!(fake.requests()[1].json()["zoneId"], "usw2-az2");
    }
}
