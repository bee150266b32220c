//! The exporter: takes spans from the queue, and sends them in batches.
//!
//! Owns batches, attempts, pauses and the log lines about them. As the specification says, a batch is sent again after 429, 502,
//! 503 and 504, and after a connection that failed; any other refusal is final. `Retry-After` is respected, within a limit. A span
//! that arrives twice has the same id.

use super::encode;
use super::outbox::Outbox;
use super::span::Span;
use crate::aws::client::proxy::ProxySettings;
use crate::aws::client::transport;
use crate::aws::client::words::Peer;
use crate::backoff::{Backoff, Shape};
use ecs_core::model::text::cleaned;
use ecs_core::model::{Secret, with_causes};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use url::Url;

/// Maximum number of spans in one request, which then has about 80 kB.
const MAX_BATCH: usize = 128;
/// Length in characters from which on a part of a header counts as a secret.
const MIN_SECRET: usize = 6;
/// How long the first span of a batch waits for others.
const LINGER: Duration = Duration::from_secs(2);
/// Number of attempts to send a batch.
const ATTEMPTS: u32 = 5;
/// Pauses between attempts.
const PAUSES: Shape = Shape { initial: Duration::from_secs(1), max: Duration::from_secs(30), factor: 2.0, jitter: 0.5 };
/// Maximum pause that a collector can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(120);
/// Number of bytes that are read of an answer.
const MAX_ANSWER: usize = 16 << 10;
/// The least time between two log lines about lost spans.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// Why spans are lost if the collector did not refuse them.
const FULL: &str = "too many spans wait";
/// The time limit for the last spans when the agent stops.
const LAST_LIMIT: Duration = Duration::from_secs(2);
/// A connection that is idle for this long is closed.
const IDLE: Duration = Duration::from_secs(30);

/// Where spans are sent, and how.
#[derive(Clone)]
pub struct Settings {
    /// The URL of requests, such as `http://collector:4318/v1/traces`. It may hold a password.
    pub url: Url,
    /// Headers of each request; the values may be secrets.
    pub headers: Vec<(String, Secret)>,
    /// The time limit of one attempt.
    pub limit: Duration,
    /// The attributes of the sender.
    pub resource: Vec<(String, String)>,
    /// The version of the agent.
    pub version: String,
    /// The operator's proxies.
    pub proxy: ProxySettings,
}

// The URL may hold a password.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("host", &self.url.host_str()).finish_non_exhaustive()
    }
}

/// Sends spans until it is stopped.
#[derive(Debug)]
pub struct Exporter {
    settings: Settings,
    outbox: Outbox,
    peer: Peer,
    http: reqwest::Client,
    headers: HeaderMap,
}

/// How an attempt ended.
enum Attempt {
    /// The collector took the spans; all but some, if there is a reason.
    Accepted(Option<String>),
    /// The collector does not want these spans.
    Refused(String),
    /// It may take them later, but not before this time.
    Later(String, Option<Duration>),
}

/// When lost spans were last logged.
struct Losses {
    logged_at: Option<Instant>,
    logged: u64,
    is_failing: bool,
}

impl Exporter {
    /// An exporter for the spans of `outbox`.
    ///
    /// # Errors
    /// Says which setting no request can be made with. No value of a header is shown.
    pub fn new(settings: Settings, outbox: Outbox) -> Result<Self, String> {
        let builder = transport::reqwest_builder(&settings.proxy, &settings.url).map_err(|error| error.to_string())?;
        let builder = builder.pool_idle_timeout(IDLE).pool_max_idle_per_host(1);
        let http = builder.build().map_err(|error| with_causes(&error.without_url()))?;
        let mut headers = HeaderMap::new();
        for (name, value) in &settings.headers {
            let unusable = || format!("OTEL_EXPORTER_OTLP_HEADERS: the header `{name}` cannot be sent");
            let name: HeaderName = name.parse().map_err(|_| unusable())?;
            let mut value = HeaderValue::from_str(value.expose()).map_err(|_| unusable())?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static("OTel-OTLP-Exporter-ecs-agent"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let peer = Peer::new(&settings.proxy, &settings.url);
        Ok(Self { settings, outbox, peer, http, headers })
    }

    /// Sends spans until `stop` is cancelled, and then what waits, once.
    pub async fn run(&self, stop: CancellationToken) {
        let mut losses = Losses { logged_at: None, logged: self.outbox.dropped(), is_failing: false };
        let _stopped = stop.run_until_cancelled(self.keep_sending(&mut losses)).await;
        let all = async {
            loop {
                let last = self.outbox.take(MAX_BATCH);
                if last.is_empty() || !matches!(self.attempt(&self.body(&last)).await, Attempt::Accepted(_)) {
                    return;
                }
            }
        };
        let _may_be_lost = timeout(LAST_LIMIT, all).await;
    }

    async fn keep_sending(&self, losses: &mut Losses) {
        loop {
            if self.outbox.len() == 0 {
                let filled = self.outbox.filled();
                if losses.logged == self.outbox.dropped() {
                    filled.await;
                } else {
                    let _a_line_is_due = timeout(LOG_EVERY, filled).await;
                }
                sleep(LINGER).await;
            }
            let batch = self.outbox.take(MAX_BATCH);
            if !batch.is_empty() {
                self.send(&batch, losses).await;
            }
            losses.log(&self.outbox, FULL);
        }
    }

    /// Sends a batch, or drops it.
    async fn send(&self, batch: &[Span], losses: &mut Losses) {
        let (body, spans) = (self.body(batch), batch.len() as u64);
        let mut pauses = Backoff::new(PAUSES);
        loop {
            let (error, retry_after) = match self.attempt(&body).await {
                Attempt::Accepted(refused_part) => {
                    if std::mem::take(&mut losses.is_failing) {
                        tracing::info!(collector = self.host(), "the collector takes traces again");
                    }
                    return losses.log(&self.outbox, refused_part.as_deref().unwrap_or(FULL));
                }
                Attempt::Refused(error) => {
                    self.outbox.count_dropped(spans);
                    return losses.log(&self.outbox, &error);
                }
                Attempt::Later(error, retry_after) => (error, retry_after),
            };
            let pause = pauses.pause().max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER));
            if pauses.attempt() >= ATTEMPTS {
                self.outbox.count_dropped(spans);
                losses.is_failing = true;
                return losses.log(&self.outbox, &error);
            }
            tracing::debug!(error, attempt = pauses.attempt(), "traces could not be sent; trying again");
            sleep(pause).await;
        }
    }

    fn body(&self, batch: &[Span]) -> String {
        encode::request(&self.settings.resource, &self.settings.version, batch)
    }

    /// The text of an error of the collector, unless it repeats a header.
    fn shown(&self, answer: &[u8]) -> String {
        let text = String::from_utf8_lossy(answer);
        // Also a part, such as the token without the word before it.
        let repeats = |(_, secret): &(String, Secret)| {
            let mut parts = secret.expose().split_whitespace().filter(|part| part.len() >= MIN_SECRET);
            !secret.is_empty() && (text.contains(secret.expose()) || parts.any(|part| text.contains(part)))
        };
        if self.settings.headers.iter().any(repeats) { "[not shown]".to_owned() } else { cleaned(&text) }
    }

    fn host(&self) -> &str {
        self.settings.url.host_str().unwrap_or_default()
    }

    async fn attempt(&self, body: &str) -> Attempt {
        let limit = self.settings.limit;
        let answered = timeout(limit, self.post(body.to_owned())).await;
        answered.unwrap_or_else(|_| Attempt::Later(self.peer.late(limit), None))
    }

    async fn post(&self, body: String) -> Attempt {
        // Without the address: it may hold a password.
        let lost = |error: reqwest::Error| Attempt::Later(self.peer.failed(&error.without_url()), None);
        let request = self.http.post(self.settings.url.clone()).headers(self.headers.clone()).body(body);
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_builder() => return Attempt::Refused(with_causes(&error.without_url())),
            Err(error) => return lost(error),
        };
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let mut answer = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if answer.len() < MAX_ANSWER => answer.extend_from_slice(&chunk),
                Ok(_) => break,
                Err(error) if status.is_success() => return lost(error),
                Err(_) => break,
            }
        }
        answer.truncate(MAX_ANSWER);
        if status.is_success() {
            let refused = encode::refused(&answer).map(|(spans, reason)| {
                self.outbox.count_dropped(spans);
                format!("{}: {}", self.host(), self.shown(reason.as_bytes()))
            });
            return Attempt::Accepted(refused);
        }
        let error = format!("{}: HTTP {}: {}", self.host(), status.as_u16(), self.shown(&answer));
        match status.as_u16() {
            429 | 502..=504 => Attempt::Later(error, retry_after.map(Duration::from_secs)),
            _ => Attempt::Refused(error),
        }
    }
}

impl Losses {
    /// Logs how many spans were lost since the last line, unless that line is recent.
    fn log(&mut self, outbox: &Outbox, error: &str) {
        let total = outbox.dropped();
        let is_recent = self.logged_at.is_some_and(|at| at.elapsed() < LOG_EVERY);
        if total == self.logged || is_recent {
            return;
        }
        let dropped = total - self.logged;
        tracing::warn!(dropped, total, error, "traces are lost (OTEL_EXPORTER_OTLP_ENDPOINT); tasks run without them");
        (self.logged_at, self.logged) = (Some(Instant::now()), total);
    }
}

#[cfg(test)]
mod tests;
