//! The errors between the agent and the Docker daemon, and the texts that customers read.
//!
//! Owns [`DockerError`] and its translation to the error catalogue (spec `task-engine.md` §15). It decides nothing about
//! retries. Invariant: a call that may have reached the daemon and got no answer becomes [`OpError::Unknown`], never `Failed`.

use super::endpoint::BadEndpoint;
use super::unreachable::NoConnection;
use ecs_core::model::{Failure, FailureKind, OpError, with_causes};
use std::future::Future;
use std::time::Duration;

/// How a call to the daemon failed. The variants are the cases that callers treat differently.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// Nothing listens, or the agent may not open the socket. The request was not sent.
    #[error("{0}")]
    Unreachable(NoConnection),
    /// The daemon answered with an error status.
    #[error("Error response from daemon: {message}")]
    Daemon {
        /// The HTTP status.
        status: u16,
        /// The daemon's own text, without control characters.
        message: String,
    },
    /// The daemon reported an error after it had begun to answer, as in the progress of a pull. The text has no control
    /// characters.
    #[error("{0}")]
    Stream(String),
    /// There was no answer within the limit. The daemon may still do the work.
    #[error("timed out after waiting {}", go_duration(*.0))]
    Timeout(Duration),
    /// The connection broke, or the answer could not be read, after the request was sent.
    #[error("lost the connection to the Docker daemon: {0}")]
    Cut(String),
    /// Nothing was sent: the endpoint is invalid, or the request cannot be built.
    #[error("{0}")]
    Unusable(String),
    /// The two sides have no API version in common, or the daemon does not report its own.
    #[error("{0}")]
    NoVersion(String),
}

impl DockerError {
    /// The daemon does not know the object of the request.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Daemon { status: 404, .. })
    }

    /// The daemon knows no such container. A 404 with another text (an unknown path, a proxy's page) says nothing about the
    /// container.
    pub(crate) fn is_no_container(&self) -> bool {
        let says_no_container = |message: &str| message.to_ascii_lowercase().contains("no such container");
        matches!(self, Self::Daemon { status: 404, message } if says_no_container(message))
    }

    /// The daemon refused the request because of its API version.
    pub(crate) fn is_version_refusal(&self) -> bool {
        let is_refusal = |text: &str| text.contains("client version") && text.contains("too ");
        matches!(self, Self::Daemon { status: 400, message } if is_refusal(message))
    }

    /// Converts to the failure of the catalogue. `what` is the transition that a timeout names.
    pub(crate) fn failure(&self, name: &str, what: &str) -> Failure {
        match self {
            Self::Timeout(limit) => timed_out(what, *limit),
            Self::Daemon { status, .. } if *status < 500 && *status != 429 => {
                Failure::permanent(name, self.to_string())
            }
            Self::Unusable(_) | Self::NoVersion(_) => Failure::permanent(name, self.to_string()),
            Self::Daemon { .. } | Self::Unreachable(_) | Self::Stream(_) | Self::Cut(_) => {
                Failure::retryable(name, self.to_string())
            }
        }
    }

    /// Converts the error of a call that changes something. Without an answer the change may have happened.
    pub(crate) fn to_change_error(&self, name: &str, what: &str) -> OpError {
        let failure = self.failure(name, what);
        match self {
            Self::Timeout(_) | Self::Cut(_) => OpError::Unknown(failure),
            Self::Unreachable(_) | Self::Daemon { .. } | Self::Stream(_) | Self::Unusable(_) | Self::NoVersion(_) => {
                OpError::Failed(failure)
            }
        }
    }

    /// Converts the error of a change that is tried only once (create, start). A refusal is final whatever its status, since
    /// Docker also answers 500 to requests that can never succeed, such as one with an unknown user.
    pub(crate) fn to_single_try_error(&self, name: &str, what: &str) -> OpError {
        match self {
            Self::Daemon { status, message } => {
                let mut failure = Failure::permanent(name, self.to_string());
                if *status == 404 && message.to_ascii_lowercase().contains("no such image") {
                    failure.kind = FailureKind::ImageMissing;
                }
                OpError::Failed(failure)
            }
            Self::Timeout(_)
            | Self::Cut(_)
            | Self::Unreachable(_)
            | Self::Stream(_)
            | Self::Unusable(_)
            | Self::NoVersion(_) => self.to_change_error(name, what),
        }
    }

    /// Converts the error of a call that only reads. Without an answer nothing has happened.
    pub(crate) fn to_read_error(&self, name: &str, what: &str) -> OpError {
        OpError::Failed(self.failure(name, what))
    }
}

impl From<reqwest::Error> for DockerError {
    fn from(error: reqwest::Error) -> Self {
        // The URL of a request over a Unix socket is made up and would only confuse.
        let error = error.without_url();
        match () {
            () if error.is_builder() => not_sent(&error),
            () if error.is_connect() => Self::Unreachable(NoConnection::from_error(&error)),
            () => Self::Cut(error.to_string()),
        }
    }
}

impl From<BadEndpoint> for DockerError {
    fn from(error: BadEndpoint) -> Self {
        Self::Unusable(error.to_string())
    }
}

/// The client could not build the request. The daemon has not seen it, and another attempt would fail as well.
fn not_sent(error: &dyn std::error::Error) -> DockerError {
    DockerError::Unusable(format!("the request was not sent to the Docker daemon: {}", with_causes(error)))
}

/// `DockerClientConfigError`: the container cannot be created from these settings.
pub(crate) fn config_error(text: String) -> Failure {
    Failure::permanent("DockerClientConfigError", text)
}

/// `DockerTimeoutError` for a transition.
pub(crate) fn timed_out(what: &str, limit: Duration) -> Failure {
    let text = format!("Could not transition to {what}; timed out after waiting {}", go_duration(limit));
    Failure::retryable("DockerTimeoutError", text)
}

/// Runs a call with a time limit for the whole answer, head and body.
pub(crate) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, DockerError>>,
) -> Result<T, DockerError> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer,
        Err(_) => Err(DockerError::Timeout(limit)),
    }
}

/// A duration as Go prints it: `30s`, `4m0s`, `2h0m0s`, `1.5s`, `250ms`.
pub fn go_duration(duration: Duration) -> String {
    let fraction = |whole: u64, nanos: u32, digits: usize| {
        let text = format!("{nanos:0digits$}");
        let text = text.trim_end_matches('0');
        if text.is_empty() { whole.to_string() } else { format!("{whole}.{text}") }
    };
    let (secs, nanos) = (duration.as_secs(), duration.subsec_nanos());
    match secs {
        0 if nanos == 0 => "0s".to_owned(),
        0 if nanos < 1_000 => format!("{nanos}ns"),
        0 if nanos < 1_000_000 => format!("{}µs", fraction(u64::from(nanos / 1_000), nanos % 1_000, 3)),
        0 => format!("{}ms", fraction(u64::from(nanos / 1_000_000), nanos % 1_000_000, 6)),
        _ => {
            let rest = format!("{}s", fraction(secs % 60, nanos, 9));
            match (secs / 3600, secs / 60 % 60) {
                (0, 0) => rest,
                (0, minutes) => format!("{minutes}m{rest}"),
                (hours, minutes) => format!("{hours}h{minutes}m{rest}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_like_go() {
        let table = [
            (0, "0s"),
            (250, "250ms"),
            (1_500, "1.5s"),
            (30_000, "30s"),
            (150_000, "2m30s"),
            (240_000, "4m0s"),
            (60_250, "1m0.25s"),
            (7_200_000, "2h0m0s"),
            (3_661_000, "1h1m1s"),
        ];
        for (millis, text) in table {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
        assert_eq!(go_duration(Duration::from_nanos(1_500)), "1.5µs");
        assert_eq!(go_duration(Duration::from_nanos(12)), "12ns");
    }

    #[test]
    fn no_answer_to_a_change_is_unknown_and_to_a_read_is_failed() {
        let error = DockerError::Timeout(Duration::from_secs(240));
        let text = "DockerTimeoutError: Could not transition to created; timed out after waiting 4m0s";
        let OpError::Unknown(failure) = error.to_change_error("CannotCreateContainerError", "created") else {
            panic!()
        };
        assert_eq!(failure.to_string(), text);
        assert!(matches!(error.to_read_error("X", "inspecting"), OpError::Failed(_)));
        assert!(matches!(DockerError::Cut("x".into()).to_change_error("X", "created"), OpError::Unknown(_)));
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let refused = DockerError::Unreachable(NoConnection::from_error(&refused));
        assert!(matches!(refused.to_change_error("X", "created"), OpError::Failed(_)));
    }

    #[tokio::test]
    async fn a_request_that_cannot_be_built_was_not_sent() {
        // reqwest needs a provider, also for plain HTTP. Another test may have installed it.
        let _already = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let long = format!("http://127.0.0.1:1/{}", "x".repeat(70_000));
        let errors = [
            DockerError::from(http.get(long).send().await.unwrap_err()),
            DockerError::from(http.get("http://127.0.0.1:1/").header("x", "a\nb").send().await.unwrap_err()),
        ];
        for error in errors {
            let OpError::Failed(failure) = error.to_change_error("CannotStopContainerError", "stopped") else {
                panic!("nothing can have happened: {error:?}")
            };
            assert_eq!(failure.kind, FailureKind::Permanent, "{failure}");
            assert!(failure.message.starts_with("the request was not sent to the Docker daemon: "), "{failure}");
            assert!(failure.message.len() < 300, "{failure}");
        }
        let nobody = DockerError::from(http.get("http://127.0.0.1:1/").send().await.unwrap_err());
        assert!(matches!(nobody, DockerError::Unreachable(_)), "{nobody:?}");
    }

    #[test]
    fn daemon_errors_carry_the_prefix_of_the_go_client() {
        let table = [(404, FailureKind::Permanent), (429, FailureKind::Retryable), (500, FailureKind::Retryable)];
        for (status, kind) in table {
            let error = DockerError::Daemon { status, message: "no".into() };
            let failure = error.failure("CannotStartContainerError", "started");
            assert_eq!(failure.to_string(), "CannotStartContainerError: Error response from daemon: no");
            assert_eq!(failure.kind, kind);
            let OpError::Failed(failure) = error.to_single_try_error("X", "started") else { panic!("it was refused") };
            assert_eq!(failure.kind, FailureKind::Permanent);
        }
    }
}
