//! Makes one signed connection (spec `acs.md` §1).
//!
//! Owns the SigV4-signed handshake, its timeouts, the choice of a proxy, the limits of a message and the meaning of a refused
//! handshake. The invariant: every attempt is signed anew,
//! ends within its timeout, and yields a socket that accepts no message longer than [`MAX_MESSAGE`].

use super::any_text::AnyText;
use crate::aws::client::proxy::ProxySettings;
use crate::aws::client::signature::Signed;
use crate::aws::client::signing::{self, MayBeRefusal, Refusal, Signing};
use crate::aws::client::transport;
use crate::aws::client::words::{self, Peer};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_credential_types::provider::error::CredentialsError;
use ecs_core::model::text::{cleaned, cleaned_bytes};
use ecs_core::model::with_causes;
use reqwest::StatusCode;
use reqwest::header::{CONNECTION, HeaderValue, UPGRADE};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use url::Url;

/// Time limit for the dial, and for dial and handshake together. (The Go agent's limit for the handshake includes the dial,
/// too.)
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// Maximum length of a message in bytes. The Go agent has no limit. A task definition has at most 64 KiB and a RunTask call
/// starts at most ten tasks, so this is several times the longest message that ECS needs, and it bounds the memory for one
/// message.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// Maximum length in bytes of the error body that is read after a refused handshake.
const MAX_REFUSAL: usize = 16 * 1024;

/// An open connection. All its messages arrive as binary ones, since text need not be UTF-8; the reader decodes their bytes.
pub type Socket = WebSocketStream<AnyText<reqwest::Upgraded>>;

/// How to connect.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The AWS region in the signature.
    pub region: String,
    /// The proxies that the connection may go through.
    pub proxy: ProxySettings,
    /// The time for signatures and the state of the instance's keys; refused handshakes correct them.
    pub signing: Signing,
    /// True: the server's certificate is not verified (`-k`).
    pub accept_insecure_cert: bool,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server answered the handshake with an error.
    #[error("{host} refused the connection ({status}): {text}")]
    Refused {
        /// Host and port of the server.
        host: String,
        /// HTTP status.
        status: StatusCode,
        /// `<Type>: <message>` of the server's error if it has this form, otherwise the body of the answer.
        text: String,
        /// The server's time from the header `Date`; `None` if it sent none.
        date: Option<String>,
    },
    /// The provider yielded no credentials to sign with. The text says why.
    #[error("{0}")]
    Credentials(String),
    /// Nothing was sent: the scheme is wrong, a proxy address is unusable, or the URL or a key is not valid in a request.
    #[error("cannot connect: {0}")]
    Unusable(String),
    /// The connection could not be made, broke during the handshake, or took too long. The text names the host.
    #[error("{0}")]
    NoAnswer(String),
}

impl From<CredentialsError> for ConnectError {
    fn from(error: CredentialsError) -> Self {
        Self::Credentials(words::credentials_error(&error))
    }
}

impl ConnectError {
    /// Whether the service refused the connection because the container instance is no longer registered.
    pub fn is_inactive_instance(&self) -> bool {
        matches!(self, Self::Refused { text, .. } if text.contains("InactiveInstanceException"))
    }
}

impl MayBeRefusal for ConnectError {
    fn refusal(&self) -> Option<Refusal<'_>> {
        let Self::Refused { status, text, date, .. } = self else { return None };
        let (code, message) = text.split_once(": ").unwrap_or(("", text));
        Some(Refusal { status: status.as_u16(), date: date.as_deref(), code, message })
    }
}

/// Connects to `url`, whose scheme may be http, https, ws or wss.
///
/// # Errors
/// Fails if the server refuses the handshake or does not complete it in time, if there are no credentials, or if no request can
/// be sent to `url`. A refused signature leads to a second attempt, if the time can be corrected or newer credentials are
/// available.
pub async fn connect(
    settings: &Settings,
    credentials: &SharedCredentialsProvider,
    url: &Url,
) -> Result<Socket, ConnectError> {
    let url = &as_http(url)?;
    settings.signing.call(credentials, |keys, at| shake_hands(settings, keys, at, url)).await
}

async fn shake_hands(
    settings: &Settings,
    keys: Credentials,
    at: SystemTime,
    url: &Url,
) -> Result<Socket, ConnectError> {
    let key = generate_key();
    let signed = Signed { at, region: &settings.region, service: "ecs", method: "GET", url, headers: &[], body: &[] };
    let mut headers = signed.headers(keys).map_err(|error| ConnectError::Unusable(error.to_string()))?;
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert("sec-websocket-version", HeaderValue::from_static("13"));
    headers.insert("sec-websocket-key", header_value(&key)?);
    let client = http_client(settings, url)?;
    let peer = Peer::new(&settings.proxy, url);
    let network = |error| network(&peer, error);
    let handshake = async {
        let request = client.get(url.clone()).headers(headers);
        let response = request.send().await.map_err(network)?;
        check_handshake(url, &key, &peer, response).await?.upgrade().await.map_err(network)
    };
    let late = |_| ConnectError::NoAnswer(peer.late(CONNECT_LIMIT));
    let stream = tokio::time::timeout(CONNECT_LIMIT, handshake).await.map_err(late)??;
    Ok(over(stream).await)
}

/// The client's end of a websocket, over a stream whose handshake is complete.
pub(crate) async fn over<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> WebSocketStream<AnyText<S>> {
    WebSocketStream::from_raw_socket(AnyText::new(stream), Role::Client, Some(limits())).await
}

/// Limits for the memory of one connection. The buffers are small: the default read buffer alone takes 128 KiB for each
/// connection.
fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(8192)
        .write_buffer_size(0)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

/// Replaces ws and wss by http and https, which the HTTP client accepts. The signature does not cover the scheme.
fn as_http(url: &Url) -> Result<Url, ConnectError> {
    let scheme = match url.scheme() {
        "http" | "ws" => "http",
        "https" | "wss" => "https",
        other => return Err(ConnectError::Unusable(format!("the scheme {other} is no websocket"))),
    };
    let text = format!("{scheme}{}", &url.as_str()[url.scheme().len()..]);
    Url::parse(&text).map_err(|error| ConnectError::Unusable(error.to_string()))
}

fn header_value(text: &str) -> Result<HeaderValue, ConnectError> {
    HeaderValue::from_str(text).map_err(|_| ConnectError::Unusable("a header value is not printable".to_owned()))
}

/// A client for one connection: the upgrade takes the connection out of the client, so a pool would have nothing to share.
fn http_client(settings: &Settings, url: &Url) -> Result<reqwest::Client, ConnectError> {
    let builder =
        transport::reqwest_builder(&settings.proxy, url).map_err(|error| ConnectError::Unusable(error.to_string()))?;
    let is_tls = url.scheme() == "https";
    let builder = builder.tls_danger_accept_invalid_certs(is_tls && settings.accept_insecure_cert);
    let client = builder.http1_only().connect_timeout(CONNECT_LIMIT).build();
    client.map_err(|error| ConnectError::Unusable(with_causes(&error)))
}

/// The response if it accepts the handshake, otherwise the refusal.
async fn check_handshake(
    url: &Url,
    key: &str,
    peer: &Peer,
    mut response: reqwest::Response,
) -> Result<reqwest::Response, ConnectError> {
    let host = url[url::Position::BeforeHost..url::Position::AfterPort].to_owned();
    let (status, date) = (response.status(), signing::date_of(response.headers()));
    if status == StatusCode::SWITCHING_PROTOCOLS {
        let accept = response.headers().get("sec-websocket-accept").map(HeaderValue::as_bytes);
        if accept == Some(derive_accept_key(key.as_bytes()).as_bytes()) {
            return Ok(response);
        }
        return Err(ConnectError::Refused { host, status, text: "wrong Sec-WebSocket-Accept".to_owned(), date });
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| network(peer, error))? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_REFUSAL {
            body.truncate(MAX_REFUSAL);
            break;
        }
    }
    let typed = typed_error(&String::from_utf8_lossy(&body)).map(|text| cleaned(&text));
    Err(ConnectError::Refused { host, status, text: typed.unwrap_or_else(|| cleaned_bytes(&body)), date })
}

/// `T: M` from an error body of the form `{"type": T, "message": {"message": M}}` or `{T: M}`; `None`: the body has another
/// form.
fn typed_error(body: &str) -> Option<String> {
    let serde_json::Value::Object(members) = serde_json::from_str(body).ok()? else { return None };
    if let Some(kind) = members.get("type").and_then(|kind| kind.as_str()) {
        let text = members.get("message").and_then(|message| message.get("message").or(Some(message)))?;
        return Some(format!("{kind}: {}", text.as_str().unwrap_or_default()));
    }
    let mut each = members.iter();
    match (each.next(), each.next()) {
        (Some((kind, text)), None) if kind.ends_with("Exception") => {
            Some(format!("{kind}: {}", text.as_str().unwrap_or_default()))
        }
        _ => None,
    }
}

fn network(peer: &Peer, error: reqwest::Error) -> ConnectError {
    // The URL is left out: its query names the instance.
    let error = error.without_url();
    if error.is_builder() {
        ConnectError::Unusable(with_causes(&error))
    } else {
        ConnectError::NoAnswer(peer.failed(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::client::clock::tests::{http_date, is_skewed};
    use crate::aws::tests::fake::{Answer, Fake};
    use crate::websocket::tests::fake::{Refusal, Server, keys};
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;

    fn settings() -> Settings {
        Settings {
            region: "us-west-2".to_owned(),
            proxy: ProxySettings::default(),
            signing: Signing::default(),
            accept_insecure_cert: false,
        }
    }

    #[tokio::test]
    async fn a_signed_connection_carries_messages_both_ways() {
        let mut server = Server::start().await;
        for scheme in ["http", "ws"] {
            let url = Url::parse(&format!("{scheme}://127.0.0.1:{}/acs/ws?a=b+c", server.port)).unwrap();
            let mut socket = connect(&settings(), &keys(), &url).await.unwrap();
            let mut peer = server.next().await;
            let authorization = peer.header("authorization").to_owned();
            assert!(authorization.contains("/us-west-2/ecs/aws4_request"));
            assert!(authorization.contains("SignedHeaders=host;x-amz-date;x-amz-security-token"), "{authorization}");
            assert_eq!(peer.uri, "/acs/ws?a=b+c");
            socket.send(Message::text("up")).await.unwrap();
            assert_eq!(peer.socket.next().await.unwrap().unwrap(), Message::text("up"));
            peer.socket.send(Message::text("down")).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary("down"));
        }
    }

    #[tokio::test]
    async fn an_untrusted_certificate_is_accepted_only_with_the_flag() {
        let mut server = Server::start().await;
        let front = ecs_testing::self_signed_front::TlsFront::before(server.port).await;
        let url = Url::parse(&front.url).unwrap();
        assert!(matches!(connect(&settings(), &keys(), &url).await, Err(ConnectError::NoAnswer(_))));
        let insecure = Settings { accept_insecure_cert: true, ..settings() };
        let mut socket = connect(&insecure, &keys(), &url).await.unwrap();
        let mut peer = server.next().await;
        peer.socket.send(Message::text("down")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary("down"));
    }

    #[tokio::test]
    async fn a_message_above_the_limit_is_an_error() {
        let mut server = Server::start().await;
        let url = Url::parse(&format!("ws://127.0.0.1:{}/", server.port)).unwrap();
        let mut socket = connect(&settings(), &keys(), &url).await.unwrap();
        let mut peer = server.next().await;
        let send = async {
            let _cut_off = peer.socket.send(Message::text("x".repeat(MAX_MESSAGE + 1))).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = send => panic!("pending never ends"),
            received = socket.next() => assert!(received.unwrap().is_err()),
        }
    }

    #[tokio::test]
    async fn the_error_of_a_refused_handshake_names_its_type() {
        let table = [
            (r#"{"InactiveInstanceException":"gone"}"#, "InactiveInstanceException: gone", true),
            (
                r#"{"type":"InactiveInstanceException","message":{"message":"gone"}}"#,
                "InactiveInstanceException: gone",
                true,
            ),
            (r#"{"AccessDeniedException":"no"}"#, "AccessDeniedException: no", false),
            (r#"{"AccessDeniedException":"no\nforged\u001b[2J"}"#, "AccessDeniedException: no forged [2J", false),
            ("<html>InactiveInstanceException</html>", "<html>InactiveInstanceException</html>", true),
            (r#"{"a":"b","c":"d"}"#, r#"{"a":"b","c":"d"}"#, false),
        ];
        for (body, text, inactive) in table {
            let server = Server::refusing(Refusal { status: 400, body: body.to_owned() }).await;
            let url = Url::parse(&format!("ws://127.0.0.1:{}/", server.port)).unwrap();
            let error = connect(&settings(), &keys(), &url).await.unwrap_err();
            assert_eq!(error.is_inactive_instance(), inactive);
            let ConnectError::Refused { text: got, .. } = error else { panic!("{error:?}") };
            assert_eq!(got, text);
        }
    }

    #[tokio::test]
    async fn a_handshake_signed_at_the_wrong_time_is_repeated() {
        for (body, ahead) in [
            (r#"{"InvalidSignatureException":"Signature expired"}"#, 3 * 3600),
            ("Forbidden", -3 * 3600),
            ("not asked for", 0),
        ] {
            let fake = Fake::start(move |request| match is_skewed(request, ahead) {
                true => Answer::text(403, body).dated(http_date(ahead)),
                false => Answer::text(400, r#"{"AccessDeniedException":"seen"}"#).dated(http_date(ahead)),
            })
            .await;
            let (settings, url) = (settings(), Url::parse(&fake.url()).unwrap());
            let error = connect(&settings, &keys(), &url).await.unwrap_err();
            assert!(error.to_string().contains("AccessDeniedException: seen"), "{error}");
            assert_eq!(fake.requests().len(), if ahead == 0 { 1 } else { 2 }, "{body}");
            let before = fake.requests().len();
            connect(&settings, &keys(), &url).await.unwrap_err();
            assert_eq!(fake.requests().len(), before + 1, "the time is known by now");
        }
    }

    #[tokio::test]
    async fn an_unsendable_request_is_not_a_network_error() {
        let long = Url::parse(&format!("ws://127.0.0.1:1/{}", "x".repeat(70_000))).unwrap();
        let error = connect(&settings(), &keys(), &long).await.unwrap_err();
        assert!(matches!(error, ConnectError::Unusable(_)), "{error:?}");
        let broken = Credentials::new("AKID", "s", Some("tok\nen".to_owned()), None, "test");
        let url = Url::parse("ws://127.0.0.1:1/").unwrap();
        let error = connect(&settings(), &SharedCredentialsProvider::new(broken), &url).await.unwrap_err();
        assert!(matches!(error, ConnectError::Unusable(_)) && !error.to_string().contains("tok\n"), "{error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_not_end_its_answer_is_given_up() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let endless = "HTTP/1.1 400 Bad Request\r\nContent-Length: 999999\r\n\r\n";
        for (answer, rest) in [("", ""), ("HTTP/1.1 101 Switching Proto", ""), (endless, "x")] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = Url::parse(&format!("ws://{}/", listener.local_addr().unwrap())).unwrap();
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _request = stream.read(&mut [0; 4096]).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
                loop {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    stream.write_all(rest.as_bytes()).await.unwrap();
                }
            };
            let (settings, keys, began) = (settings(), keys(), tokio::time::Instant::now());
            let failed = tokio::select! {
                connected = connect(&settings, &keys, &url) => connected.unwrap_err(),
                () = serve => unreachable!("it goes on and on"),
            };
            // Either of two time limits may end the attempt, since time is paused while the dial makes progress.
            assert!(matches!(failed, ConnectError::NoAnswer(_)), "{answer}: {failed:?}");
            assert_eq!(began.elapsed().as_secs(), CONNECT_LIMIT.as_secs(), "{answer}");
        }
    }

    #[tokio::test]
    async fn each_failed_connection_has_its_kind_of_error() {
        let url = Url::parse("ws://127.0.0.1:1/").unwrap();
        assert!(matches!(connect(&settings(), &keys(), &url).await, Err(ConnectError::NoAnswer(_))));
        let url = Url::parse("ftp://127.0.0.1/").unwrap();
        assert!(matches!(connect(&settings(), &keys(), &url).await, Err(ConnectError::Unusable(_))));
        let server = Server::refusing(Refusal { status: 200, body: "hello".to_owned() }).await;
        let url = Url::parse(&format!("http://127.0.0.1:{}/", server.port)).unwrap();
        assert!(matches!(connect(&settings(), &keys(), &url).await, Err(ConnectError::Refused { .. })));
    }
}
