//! Errors of calls to AWS in the words of an operator: which host, what happened, what to check.
//!
//! Owns these words. The kinds of errors, which decide about retries, stay as they are. Invariant: a text holds no address with
//! a password, and no answer of a server beyond the code and the message of an error of AWS.

use super::proxy::ProxySettings;
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::{ConnectorError, SdkError};
use ecs_core::model::text::cleaned;
use ecs_core::model::with_causes;
use std::error::Error;
use std::io::{self, ErrorKind};
use std::time::Duration;
use url::Url;

/// There was no answer. The text names the host.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NoAnswer(String);

/// In errors of calls through a proxy.
pub(crate) const THROUGH_PROXY: &str = " through the proxy";

/// The other end of a connection, as errors name it.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    host: String,
    /// Empty, or names what is in between, such as a proxy.
    through: &'static str,
}

impl Peer {
    /// The host of this URL, to which the proxies of `settings` may lead.
    pub(crate) fn new(settings: &ProxySettings, url: &Url) -> Self {
        let through = if settings.for_url(url).is_some() { THROUGH_PROXY } else { "" };
        Self::through(url.as_str(), through)
    }

    /// The host of this URL. `through` is empty, or names what is in between, such as a proxy.
    pub(crate) fn through(uri: &str, through: &'static str) -> Self {
        Self { host: host(uri), through }
    }

    /// The text of an error of the connection.
    pub(crate) fn failed(&self, error: &(dyn Error + 'static)) -> String {
        let (happened, check) = happened(error);
        self.text(&happened, check)
    }

    /// The text of a request that was not answered within this time.
    pub(crate) fn late(&self, limit: Duration) -> String {
        self.text(&format!("no answer within {} s", crate::backoff::seconds(limit)), NO_ANSWER.1)
    }

    fn text(&self, happened: &str, check: &str) -> String {
        let Self { host, through } = self;
        let check = match check {
            // Whatever failed, it was probably the proxy.
            _ if !through.is_empty() => "HTTP_PROXY, HTTPS_PROXY and NO_PROXY",
            // The time may have passed while its name was resolved.
            check if check == NO_ANSWER.1 && is_name(host) => NO_ANSWER_OF_NAME,
            check => check,
        };
        let check = if check.is_empty() { String::new() } else { format!("; check {check}") };
        format!("{host}{through}: {happened}{check}")
    }
}

/// There are no credentials. The text says which sources have none, and why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NoCredentials(pub(crate) String);

/// The error of a connection, with the host of the request and the words for it.
pub(crate) fn with_host(error: ConnectorError, peer: &Peer) -> ConnectorError {
    let (happened, check) = if error.is_timeout() { NO_ANSWER.into() } else { happened(&error) };
    let words = NoAnswer(peer.text(&happened, check));
    match error.as_other() {
        _ if error.is_timeout() => ConnectorError::timeout(words.into()),
        _ if error.is_io() => ConnectorError::io(words.into()),
        _ if error.is_user() => ConnectorError::user(words.into()),
        kind => ConnectorError::other(words.into(), kind),
    }
}

/// The error of a request that was not answered within this time.
pub(crate) fn late(peer: &Peer, limit: Duration) -> ConnectorError {
    ConnectorError::timeout(NoAnswer(peer.late(limit)).into())
}

/// Whether this host, with or without a port, is a name and not an address.
fn is_name(host: &str) -> bool {
    Url::parse(&format!("http://{host}")).is_ok_and(|url| url.domain().is_some())
}

/// The host of a URL, with the port if there is one.
fn host(uri: &str) -> String {
    let url = Url::parse(uri).ok();
    let named = url.as_ref().and_then(|url| {
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        Some(format!("{}{port}", url.host_str()?))
    });
    named.unwrap_or_else(|| "the endpoint".to_owned())
}

/// What happened, and what to check; empty: nothing in particular.
#[derive(Clone, Copy)]
struct Known(&'static str, &'static str);

impl From<Known> for (String, &'static str) {
    fn from(Known(happened, check): Known) -> Self {
        (happened.to_owned(), check)
    }
}

const NO_ANSWER: Known = Known("no answer in time", "the route, the security group and the network ACL");
const DNS_SILENT: Known =
    Known("its name cannot be resolved now: DNS gives no answer", "the DNS server, and the route to it");
const NO_ANSWER_OF_NAME: &str = "DNS, the route, the security group and the network ACL";

/// What happened to a connection, from the error and its causes, and what to check.
fn happened(error: &(dyn Error + 'static)) -> (String, &'static str) {
    let causes = std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (**error).source());
    let (mut innermost, mut known) = (String::new(), None);
    for cause in causes {
        innermost = cause.to_string();
        known = known.or_else(|| known_kind(cause)).or_else(|| known_text(&innermost));
    }
    // The errors around it say only that there is no address.
    if is_silence_of_dns(&innermost) {
        known = Some(DNS_SILENT);
    }
    known.map_or_else(|| (cleaned(&innermost), ""), Into::into)
}

fn known_kind(error: &(dyn Error + 'static)) -> Option<Known> {
    match error.downcast_ref::<io::Error>()?.kind() {
        ErrorKind::ConnectionRefused => Some(Known("connection refused", "the address and the port")),
        ErrorKind::TimedOut => Some(NO_ANSWER),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            Some(Known("there is no route to it", "the network interface and the routes of this host"))
        }
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
            Some(Known("the connection broke", ""))
        }
        _ => None,
    }
}

/// The resolver got no answer. The texts are those of glibc and of musl for EAI_AGAIN.
fn is_silence_of_dns(text: &str) -> bool {
    let texts = ["Temporary failure in name resolution", "Try again"];
    text.contains("failed to lookup address") && texts.iter().any(|again| text.contains(again))
}

/// Errors that libraries show only as text.
fn known_text(text: &str) -> Option<Known> {
    if text == "operation timed out" {
        Some(NO_ANSWER)
    } else if text.contains("failed to lookup address") || text.contains("dns error") {
        Some(Known("its name cannot be resolved", "DNS on this host, and the region"))
    } else if text.contains("InvalidContentType") {
        Some(Known("it does not speak TLS", "the port, and whether the endpoint is http"))
    } else if text.contains("UnknownIssuer") {
        Some(Known(
            "its TLS certificate is from an unknown authority",
            "SSL_CERT_FILE, which names a file with further authorities",
        ))
    } else {
        None
    }
}

/// The error of a call without a code of the service. `service` is its name.
pub(crate) fn without_code<E>(error: &SdkError<E, HttpResponse>, service: &str) -> String
where
    E: Error + 'static,
{
    match error {
        SdkError::DispatchFailure(failure) => failure.as_connector_error().map_or_else(
            || with_causes(error),
            |error| match no_credentials(error) {
                Some(text) => text,
                None => error.source().map_or_else(|| with_causes(error), with_causes),
            },
        ),
        // The connection has a limit of its own, whose error names the host. What else takes time is before it.
        SdkError::TimeoutError(_) => {
            format!("the call to {service} took too long; check what gives the credentials, and DNS")
        }
        SdkError::ResponseError(_) | SdkError::ServiceError(_) => {
            let response = error.raw_response();
            let status = response.map_or(0, |response| response.status().as_u16());
            let peer = response.and_then(|response| response.extension::<Peer>());
            let from = peer.map(|peer| format!("{}{}: ", peer.host, peer.through)).unwrap_or_default();
            format!("{from}the answer with status {status} is not one of {service}; is there a proxy in between?")
        }
        other => with_causes(other),
    }
}

/// Why there are no credentials.
pub(crate) fn credentials_error(error: &CredentialsError) -> String {
    no_credentials(error).unwrap_or_else(|| with_causes(error))
}

/// The text of a cause that this crate has worded; `None`: there is none. Such a text quotes no file and no answer.
pub(crate) fn worded(error: &(dyn Error + 'static)) -> Option<String> {
    let mut causes = std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (**error).source());
    causes.find_map(|cause| {
        let no_credentials = cause.downcast_ref::<NoCredentials>().map(|found| cleaned(&found.0));
        no_credentials.or_else(|| cause.downcast_ref::<NoAnswer>().map(|found| cleaned(&found.0)))
    })
}

/// The text of [`NoCredentials`] among the causes of this error; `None`: there is none.
fn no_credentials(error: &(dyn Error + 'static)) -> Option<String> {
    let mut causes = std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (**error).source());
    causes.find_map(|cause| cause.downcast_ref::<NoCredentials>()).map(|found| cleaned(&found.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io(kind: ErrorKind) -> ConnectorError {
        ConnectorError::io(io::Error::from(kind).into())
    }

    /// As the HTTP clients show a failed look-up.
    #[derive(Debug, thiserror::Error)]
    #[error("dns error")]
    struct NoAddress(#[source] io::Error);

    #[test]
    fn a_failed_connection_names_the_host_and_what_to_check() {
        for (error, words) in [
            (io(ErrorKind::ConnectionRefused), "ecs.example:8443: connection refused; check the address and the port"),
            (
                io(ErrorKind::NetworkUnreachable),
                "ecs.example:8443: there is no route to it; check the network interface and the routes of this host",
            ),
            (
                ConnectorError::io("dns error: failed to lookup address information".into()),
                "ecs.example:8443: its name cannot be resolved; check DNS on this host, and the region",
            ),
            (
                ConnectorError::io(
                    NoAddress(io::Error::other("failed to lookup address information: Try again")).into(),
                ),
                "ecs.example:8443: its name cannot be resolved now: DNS gives no answer; check the DNS server, and the route to it",
            ),
            (
                ConnectorError::timeout("4 s".into()),
                "ecs.example:8443: no answer in time; check DNS, the route, the security group and the network ACL",
            ),
            (
                // reqwest's own timeout for a connection
                ConnectorError::io("operation timed out".into()),
                "ecs.example:8443: no answer in time; check DNS, the route, the security group and the network ACL",
            ),
            (ConnectorError::other("odd\nthing".into(), None), "ecs.example:8443: odd thing"),
        ] {
            let is = |error: &ConnectorError| (error.is_io(), error.is_timeout(), error.is_user(), error.is_other());
            let kind = is(&error);
            let peer = Peer::through("https://user:hunter2@ecs.example:8443/path?x=hunter2", "");
            let named = with_host(error, &peer);
            assert_eq!(named.source().unwrap().to_string(), words);
            assert_eq!(is(&named), kind, "the kind decides about retries: {words}");
        }
        let named = with_host(io(ErrorKind::ConnectionRefused), &Peer::through("http://[::1]/", THROUGH_PROXY));
        let words = "[::1] through the proxy: connection refused; check HTTP_PROXY, HTTPS_PROXY and NO_PROXY";
        assert_eq!(named.source().unwrap().to_string(), words);
        let url = Url::parse("https://user:hunter2@ssm.example/?x=hunter2").unwrap();
        let late = Peer::new(&ProxySettings::default(), &url).late(Duration::from_millis(1500));
        let check = "the route, the security group and the network ACL";
        assert_eq!(late, format!("ssm.example: no answer within 1.5 s; check DNS, {check}"));
        let late = Peer::through("http://[fd00:ec2::254]:80/", "").late(Duration::from_secs(1));
        assert_eq!(late, format!("[fd00:ec2::254]: no answer within 1 s; check {check}"), "an address is not resolved");
    }
}
