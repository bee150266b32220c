//! The EC2 instance metadata service, version 2 (spec `registration.md` §7).
//!
//! Owns the session token and the retries. It does not interpret the answers ([`super::document`] does) and caches none. The
//! invariants: a black-holed client opens no connection; on a machine without the service, the agent waits for it once, not at
//! every request.

use crate::backoff::{Backoff, Shape};
use ecs_core::model::address;
use reqwest::StatusCode;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

const DEFAULT_ENDPOINT: &str = "http://169.254.169.254";
const TOKEN_TTL: Duration = Duration::from_secs(21_600);
/// A token is renewed this time before it expires, so that none expires in transit.
const TOKEN_MARGIN: Duration = Duration::from_secs(120);
const ATTEMPTS: u32 = 5;
/// After this time without any answer, a request is attempted only once, until the service answers again.
const PATIENCE: Duration = Duration::from_secs(15);
/// Time limit for one request and its answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum size of an answer in bytes. User data, the largest item of IMDS, has at most 16 KiB.
const MAX_BODY: usize = 64 * 1024;
const RETRY: Shape =
    Shape { initial: Duration::from_millis(100), max: Duration::from_secs(1), factor: 2.0, jitter: 0.2 };

/// The address of IMDS.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `AWS_EC2_METADATA_SERVICE_ENDPOINT`; `None`: the link-local address.
    pub endpoint: Option<String>,
    /// True: there is no IMDS (external instances, `-blackhole-ec2-metadata`), and every request fails at once.
    pub blackholed: bool,
}

impl Settings {
    /// The address without a trailing slash.
    pub fn endpoint(&self) -> &str {
        match &self.endpoint {
            Some(endpoint) if !endpoint.is_empty() => endpoint.trim_end_matches('/'),
            Some(_) | None => DEFAULT_ENDPOINT,
        }
    }
}

/// Why a request to IMDS failed.
#[derive(Debug, thiserror::Error)]
pub enum ImdsError {
    /// The client is black-holed; a retry is pointless.
    #[error("blackholed")]
    Blackholed,
    /// IMDS answered with an error status.
    #[error("the instance metadata service answered {0}")]
    Status(StatusCode),
    /// The request cannot be built; a retry is pointless.
    #[error(
        "the instance metadata service was not asked: its address (AWS_EC2_METADATA_SERVICE_ENDPOINT) cannot be used"
    )]
    NotSent(#[source] reqwest::Error),
    /// The HTTP client cannot be built.
    #[error("the HTTP client for the instance metadata service cannot be built")]
    NoClient(#[source] reqwest::Error),
    /// IMDS could not be reached in time.
    #[error("the instance metadata service did not answer")]
    Unreachable(#[source] reqwest::Error),
    /// The answer cannot be from IMDS: another server answers instead.
    #[error("the instance metadata service answered with nonsense")]
    Nonsense,
    /// The answer is longer than any item of IMDS.
    #[error("the instance metadata service answered more than {MAX_BODY} bytes")]
    TooLong,
}

/// A client for IMDS.
#[derive(Debug)]
pub struct Imds {
    settings: Settings,
    http: reqwest::Client,
    token: Mutex<Option<Token>>,
    /// The silence after which IMDS is given up.
    patience: Duration,
    /// The start of the current silence; `None` if the last request was answered.
    silent_since: std::sync::Mutex<Option<Instant>>,
}

struct Token {
    /// The session token; empty: this IMDS has no tokens (version 1 only).
    value: String,
    /// When the token is to be renewed.
    good_until: Instant,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Imds {
    /// A client with short timeouts, without a proxy and without CA certificates (IMDS uses plain http).
    ///
    /// # Errors
    /// Fails if the HTTP client cannot be built.
    pub fn new(settings: Settings) -> Result<Self, ImdsError> {
        Self::with_limits(settings, TIMEOUT, PATIENCE)
    }

    fn with_limits(settings: Settings, timeout: Duration, patience: Duration) -> Result<Self, ImdsError> {
        crate::aws::install_tls();
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(1))
            .timeout(timeout)
            .build()
            .map_err(ImdsError::NoClient)?;
        Ok(Self { settings, http, token: Mutex::new(None), patience, silent_since: std::sync::Mutex::default() })
    }

    /// Whether IMDS has been silent for so long that it probably does not exist.
    pub fn is_given_up(&self) -> bool {
        let since = *self.silent_since.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() >= self.patience)
    }

    /// Notes and logs the start of a silence, so that an operator knows what the start-up waits for. Any answer ends the
    /// silence.
    fn note_silence<T>(&self, answer: &Result<T, ImdsError>) {
        let mut since = self.silent_since.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !matches!(answer, Err(ImdsError::Unreachable(_))) {
            *since = None;
        } else if since.is_none() {
            *since = Some(Instant::now());
            let (endpoint, limit) = (address::redacted(self.settings.endpoint()), self.patience.as_secs());
            tracing::warn!(
                %endpoint,
                "the EC2 instance metadata service does not answer; it is asked again for {limit} s. On a machine outside of EC2 start the agent with -blackhole-ec2-metadata"
            );
        }
    }

    /// The text at `path` under `/latest/`, e.g. `meta-data/instance-id`. `None` if IMDS has no such item (404).
    ///
    /// # Errors
    /// Fails if the client is black-holed, if IMDS cannot be reached, or if it gives another error status or no usable answer.
    pub async fn get(&self, path: &str) -> Result<Option<String>, ImdsError> {
        if self.settings.blackholed {
            return Err(ImdsError::Blackholed);
        }
        let mut backoff = Backoff::new(RETRY);
        let mut attempt = 1;
        loop {
            let answer = self.get_once(path).await;
            self.note_silence(&answer);
            let again = attempt < ATTEMPTS && !self.is_given_up();
            match answer {
                Err(error) if again && may_pass(&error) => tokio::time::sleep(backoff.pause()).await,
                result => return result,
            }
            attempt += 1;
        }
    }

    async fn get_once(&self, path: &str) -> Result<Option<String>, ImdsError> {
        let token = self.token().await?;
        let url = format!("{}/latest/{path}", self.settings.endpoint());
        let mut request = self.http.get(url);
        if !token.is_empty() {
            request = request.header("x-aws-ec2-metadata-token", token);
        }
        let response = request.send().await.map_err(unreachable)?;
        match response.status() {
            StatusCode::OK => text_of(response).await.map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::UNAUTHORIZED => {
                // The token expired early (e.g. during hibernation); the next attempt fetches a new one.
                *self.token.lock().await = None;
                Err(ImdsError::Status(StatusCode::UNAUTHORIZED))
            }
            status => Err(ImdsError::Status(status)),
        }
    }

    async fn token(&self) -> Result<String, ImdsError> {
        let mut token = self.token.lock().await;
        if let Some(token) = token.as_ref().filter(|token| Instant::now() < token.good_until) {
            return Ok(token.value.clone());
        }
        let response = self
            .http
            .put(format!("{}/latest/api/token", self.settings.endpoint()))
            .header("x-aws-ec2-metadata-token-ttl-seconds", TOKEN_TTL.as_secs())
            .send()
            .await
            .map_err(unreachable)?;
        let value = match response.status() {
            StatusCode::OK => {
                let value = text_of(response).await?;
                // The token becomes a header of every further request.
                if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return Err(ImdsError::Nonsense);
                }
                value
            }
            // Compat: like the Go agent's SDK, continues without a token if IMDS has no token API.
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => String::new(),
            status => return Err(ImdsError::Status(status)),
        };
        *token = Some(Token { value: value.clone(), good_until: Instant::now() + TOKEN_TTL - TOKEN_MARGIN });
        Ok(value)
    }
}

/// Whether a retry may succeed. A refusal is final (403: the service is turned off for this instance, or for this hop).
pub(crate) fn may_pass(error: &ImdsError) -> bool {
    match error {
        ImdsError::Unreachable(_) | ImdsError::Nonsense => true,
        ImdsError::Status(status) => {
            status.is_server_error() || matches!(*status, StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS)
        }
        ImdsError::Blackholed | ImdsError::TooLong | ImdsError::NotSent(_) | ImdsError::NoClient(_) => false,
    }
}

fn unreachable(error: reqwest::Error) -> ImdsError {
    let error = error.without_url();
    if error.is_builder() { ImdsError::NotSent(error) } else { ImdsError::Unreachable(error) }
}

async fn text_of(mut response: reqwest::Response) -> Result<String, ImdsError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BODY {
            return Err(ImdsError::TooLong);
        }
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::tests::fake::{Answer, Fake};

    fn settings(fake: &Fake) -> Settings {
        Settings { endpoint: Some(format!("{}/", fake.url())), blackholed: false }
    }

    #[tokio::test]
    async fn one_token_serves_many_requests_and_a_404_is_none() {
        let fake = Fake::start(|request| match (request.method.as_str(), request.path.as_str()) {
            ("PUT", "/latest/api/token") => Answer::text(200, "tok"),
            ("GET", "/latest/meta-data/instance-id") => Answer::text(200, "i-1"),
            _ => Answer::text(404, "no"),
        })
        .await;
        let imds = Imds::new(settings(&fake)).unwrap();
        assert_eq!(imds.get("meta-data/instance-id").await.unwrap().as_deref(), Some("i-1"));
        assert_eq!(imds.get("meta-data/outpost-arn").await.unwrap(), None);
        let seen = fake.requests();
        assert_eq!(
            seen.iter().map(|r| r.path.as_str()).collect::<Vec<_>>(),
            ["/latest/api/token", "/latest/meta-data/instance-id", "/latest/meta-data/outpost-arn"]
        );
        assert_eq!(seen[0].header("x-aws-ec2-metadata-token-ttl-seconds"), Some("21600"));
        assert_eq!(seen[1].header("x-aws-ec2-metadata-token"), Some("tok"));
    }

    #[tokio::test]
    async fn a_refused_token_is_fetched_again() {
        let fake = Fake::start(|request| match request.method.as_str() {
            "PUT" => Answer::text(200, if request.number == 0 { "old" } else { "new" }),
            _ if request.header("x-aws-ec2-metadata-token") == Some("new") => Answer::text(200, "mac"),
            _ => Answer::text(401, ""),
        })
        .await;
        let imds = Imds::new(settings(&fake)).unwrap();
        assert_eq!(imds.get("meta-data/mac").await.unwrap().as_deref(), Some("mac"));
    }

    #[tokio::test]
    async fn attempts_are_limited_and_a_client_error_is_not_retried() {
        for (status, gets) in [(500, 5), (400, 1)] {
            let fake = Fake::start(move |request| match request.method.as_str() {
                "PUT" => Answer::text(200, "tok"),
                _ => Answer::text(status, ""),
            })
            .await;
            let imds = Imds::new(settings(&fake)).unwrap();
            assert!(matches!(imds.get("user-data").await, Err(ImdsError::Status(_))));
            assert_eq!(fake.requests().iter().filter(|r| r.method == "GET").count(), gets, "{status}");
        }
    }

    #[tokio::test]
    async fn a_silent_imds_is_an_error_and_a_bad_token_is_not_kept() {
        // Accepts connections and never answers.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
        let settings_of = |endpoint| Settings { endpoint, blackholed: false };
        let imds = Imds::with_limits(settings_of(endpoint), Duration::from_millis(20), PATIENCE).unwrap();
        assert!(matches!(imds.get("user-data").await, Err(ImdsError::Unreachable(_))));

        for nonsense in ["", "<html>\n", "töken"] {
            let fake = Fake::start(move |request| match (request.method.as_str(), request.number) {
                ("PUT", 0) => Answer::text(200, nonsense),
                ("PUT", _) => Answer::text(200, "tok"),
                _ => Answer::text(200, "x"),
            })
            .await;
            let imds = Imds::new(settings(&fake)).unwrap();
            assert_eq!(imds.get("user-data").await.unwrap().as_deref(), Some("x"));
            assert_eq!(fake.requests()[2].header("x-aws-ec2-metadata-token"), Some("tok"), "{nonsense}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_unusable_address_is_not_retried() {
        for endpoint in
            ["ftp://127.0.0.1".to_owned(), "no address".to_owned(), format!("http://a/{}", "x".repeat(70_000))]
        {
            let imds = Imds::new(Settings { endpoint: Some(endpoint), blackholed: false }).unwrap();
            let began = Instant::now();
            let error = imds.get("user-data").await.unwrap_err();
            assert!(matches!(error, ImdsError::NotSent(_)), "{error:?}");
            assert!(error.to_string().contains("AWS_EC2_METADATA_SERVICE_ENDPOINT"), "{error}");
            let document = crate::aws::identity::document::document(&imds).await.unwrap_err();
            assert!(matches!(document, ImdsError::NotSent(_)), "{document:?}");
            assert_eq!(began.elapsed(), Duration::ZERO);
        }
    }

    #[tokio::test]
    async fn without_a_token_api_requests_have_no_token() {
        let fake = Fake::start(|request| match request.method.as_str() {
            "PUT" => Answer::text(403, ""),
            _ => Answer::text(200, "x"),
        })
        .await;
        let imds = Imds::new(settings(&fake)).unwrap();
        assert_eq!(imds.get("user-data").await.unwrap().as_deref(), Some("x"));
        assert_eq!(fake.requests()[1].header("x-aws-ec2-metadata-token"), None);
    }

    #[tokio::test]
    async fn an_endless_answer_is_an_error() {
        let fake = Fake::start(|_| Answer::text(200, &"x".repeat(MAX_BODY + 1))).await;
        let imds = Imds::new(settings(&fake)).unwrap();
        assert!(matches!(imds.get("user-data").await, Err(ImdsError::TooLong)));
    }

    /// Time stands still but for the limits, which a loaded machine would miss.
    #[tokio::test(start_paused = true)]
    async fn a_machine_without_imds_waits_for_it_once() {
        // Accepts connections and does not answer.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let endpoint = Some(format!("http://me:hunter2@{address}"));
        let (timeout, patience) = (Duration::from_millis(50), Duration::from_millis(300));
        let imds = Imds::with_limits(Settings { endpoint, blackholed: false }, timeout, patience).unwrap();
        let time_of = |path: &'static str| {
            let imds = &imds;
            async move {
                let began = Instant::now();
                imds.get(path).await.unwrap_err();
                began.elapsed()
            }
        };
        let first = time_of("user-data").await;
        assert!(first >= patience && first < Duration::from_secs(3), "{first:?}");
        assert!(imds.is_given_up());
        for path in ["meta-data/instance-id", "meta-data/placement/availability-zone-id"] {
            let next = time_of(path).await;
            assert!(next < patience, "{path}: one attempt, {next:?}");
        }
        drop(listener);
        let document = crate::aws::identity::document::document(&imds);
        tokio::time::timeout(Duration::from_secs(3), document)
            .await
            .expect("the document is requested once")
            .unwrap_err();
        // From here on, there are answers to wait for.
        tokio::time::resume();
        let fake = Fake::start(|_| Answer::text(200, "x")).await;
        let imds = Imds { settings: settings(&fake), http: Imds::new(settings(&fake)).unwrap().http, ..imds };
        assert_eq!(imds.get("user-data").await.unwrap().as_deref(), Some("x"));
        assert!(!imds.is_given_up(), "it has answered");
    }

    #[tokio::test]
    async fn a_black_holed_client_opens_no_connection() {
        let fake = Fake::start(|_| Answer::text(200, "x")).await;
        let imds = Imds::new(Settings { blackholed: true, ..settings(&fake) }).unwrap();
        assert!(matches!(imds.get("user-data").await, Err(ImdsError::Blackholed)));
        assert!(fake.requests().is_empty());
    }
}
