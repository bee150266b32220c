//! The question of `-healthcheck`, and whose answer counts.
//!
//! The port is asked first. Before the registration nobody listens there; then, on this machine, the socket is asked on which an agent
//! answers from its start on ([`introspection::HEALTH_SOCKET`]). Any user can take the name of that socket, so nothing is asked of it, and
//! nothing it says is believed, before the kernel has said that the process behind it belongs to root or to the user who asks.

use super::Fatal;
use crate::introspection::{self, HealthAnswer};
use crate::model::with_causes;
use axum::body::Body;
use hyper_util::rt::TokioIo;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

/// How long `-healthcheck` waits in all.
const LIMIT: Duration = Duration::from_secs(25);
/// Before another try while too many connections wait at the socket.
const FULL: Duration = Duration::from_millis(50);
/// The most bytes of an answer that `-healthcheck` reads.
const MAX_ANSWER: usize = 64 * 1024;

/// Where an agent is asked.
#[derive(Clone, Copy, Debug)]
struct Agent<'a> {
    /// Name or address of its host.
    host: &'a str,
    port: u16,
    /// Name of its socket, if it is on this machine.
    socket: &'a str,
    /// Users whose processes are believed.
    trusted: [u32; 2],
    /// How long to wait in all.
    limit: Duration,
}

impl<'a> Agent<'a> {
    /// The agent of a host; root and the user who asks are believed.
    fn on(host: &'a str) -> Self {
        let trusted = [0, rustix::process::geteuid().as_raw()];
        Self { host, port: introspection::PORT, socket: introspection::HEALTH_SOCKET, trusted, limit: LIMIT }
    }

    /// A request to the port. The name under which the host was found need not be one that the agent accepts.
    fn request(&self, method: reqwest::Method, path: &str) -> Result<reqwest::RequestBuilder, Fatal> {
        let url = format!("http://{}:{}{path}", in_url(self.host), self.port);
        Ok(client(self.limit)?.request(method, url).header(reqwest::header::HOST, "localhost"))
    }

    fn no_answer(&self, error: &reqwest::Error) -> Fatal {
        let (port, host, why) = (self.port, self.host, with_causes(error));
        Fatal::restartable(format!("not healthy: no agent answers on port {port} of {host}: {why}"))
    }
}

/// What was answered, by whomever.
#[derive(Debug)]
struct Answer {
    status: u16,
    body: Vec<u8>,
}

/// Why the socket gave no answer that counts.
#[derive(Debug, thiserror::Error)]
enum SocketError {
    #[error("nobody listens there")]
    Nobody,
    #[error(
        "it belongs to user {user}, who is neither root nor the user who asks, so its answer does not count; if the agent runs as that \
         user, run -healthcheck as that user"
    )]
    Foreign { user: u32 },
    #[error("no answer within {0:?}")]
    Silent(Duration),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("the answer is cut off, or longer than {MAX_ANSWER} bytes")]
    Unreadable,
}

/// Asks a running agent how it is. `Ok`: it is healthy, and this is what it is doing.
///
/// # Errors
/// It is not healthy, does not answer, or something else has its port or its socket; the message says which.
pub async fn healthcheck(host: &str) -> Result<String, Fatal> {
    ask(Agent::on(host)).await
}

/// The health check of the Go agent: any answer to `/v1/metadata` will do, and there is none before the registration (spec
/// `introspection.md` §7).
///
/// # Errors
/// Nobody answers.
pub async fn healthcheck_http(host: &str) -> Result<String, Fatal> {
    any_answer(Agent::on(host)).await
}

/// The status of the answer, whatever it is.
async fn any_answer(agent: Agent<'_>) -> Result<String, Fatal> {
    let answer = agent.request(reqwest::Method::HEAD, "/v1/metadata")?.send().await;
    let response = answer.map_err(|error| agent.no_answer(&error))?;
    Ok(format!("port {} answers with status {}", agent.port, response.status().as_u16()))
}

async fn ask(agent: Agent<'_>) -> Result<String, Fatal> {
    let Agent { host, port, socket, limit, .. } = agent;
    let until = Instant::now() + limit;
    let error = match ask_port(agent.request(reqwest::Method::GET, "/health")?).await {
        Ok(answer) => return verdict(&answer, &format!("port {port} of {host}")),
        Err(error) => error,
    };
    // Without a connection there is no server. One that was made and lost is an agent, or another server, in trouble.
    let is_closed = error.is_connect() && !error.is_timeout();
    if !is_closed || !is_this_machine(host) {
        return Err(agent.no_answer(&error));
    }
    match timeout_at(until, ask_socket(agent)).await.unwrap_or(Err(SocketError::Silent(limit))) {
        Ok(answer) => verdict(&answer, &format!("socket @{socket}")),
        Err(SocketError::Nobody) => Err(agent.no_answer(&error)),
        Err(why) => {
            let text = format!(
                "not healthy: no agent answers on port {port} of {host}, nor on socket @{socket} (for agents before the registration): {}",
                with_causes(&why)
            );
            Err(Fatal::restartable(text))
        }
    }
}

fn verdict(answer: &Answer, place: &str) -> Result<String, Fatal> {
    match HealthAnswer::parse(&answer.body) {
        Some(HealthAnswer { healthy: true, text }) => Ok(text),
        Some(HealthAnswer { healthy: false, text }) => Err(Fatal::restartable(format!("not healthy: {text}"))),
        None => Err(Fatal::restartable(format!(
            "not healthy: {place} is answered by something else than this agent (status {})",
            answer.status
        ))),
    }
}

async fn ask_port(request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
    let mut response = request.send().await?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER {
            break; // no agent says that much
        }
    }
    Ok(Answer { status: response.status().as_u16(), body })
}

/// Nothing is sent before the owner of the socket is known to be one who is believed.
async fn ask_socket(agent: Agent<'_>) -> Result<Answer, SocketError> {
    let stream = connect(agent.socket).await?;
    let owner = stream.peer_cred()?.uid();
    if !agent.trusted.contains(&owner) {
        return Err(SocketError::Foreign { user: owner });
    }
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut question = hyper::Request::new(Body::empty());
    *question.uri_mut() = hyper::Uri::from_static("/health");
    question.headers_mut().insert(hyper::header::HOST, hyper::header::HeaderValue::from_static("localhost"));
    let exchange = async {
        let response = sender.send_request(question).await?;
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(Body::new(response.into_body()), MAX_ANSWER).await;
        let body = body.map_err(|_cut| SocketError::Unreadable)?.to_vec();
        Ok(Answer { status, body })
    };
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // What has arrived by then is still to be read.
        _ended = connection => exchange.await,
    }
}

/// The kernel connects without the process behind the socket, as long as not too many connections wait to be accepted.
async fn connect(socket: &str) -> Result<UnixStream, SocketError> {
    let name = format!("\0{socket}"); // a name, not a path
    loop {
        match UnixStream::connect(&name).await {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Err(SocketError::Nobody),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(FULL).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether this name or address of a host surely means this machine, so that its socket is the same agent's.
fn is_this_machine(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback() || address.is_unspecified(),
        Err(_) => bare.trim_end_matches('.').eq_ignore_ascii_case("localhost"),
    }
}

fn client(limit: Duration) -> Result<reqwest::Client, Fatal> {
    crate::aws::install_tls(); // reqwest wants a provider, also for plain http
    let builder = reqwest::Client::builder().no_proxy().timeout(limit);
    let client = builder.redirect(reqwest::redirect::Policy::none()).build();
    client.map_err(|error| Fatal::restartable(with_causes(&error)))
}

/// An IPv6 address stands in brackets.
fn in_url(host: &str) -> String {
    if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests;
