//! `-healthcheck`: asks a running agent for its health, and decides which answers count.
//!
//! The port is tried first. Before the registration it is closed, and later another program may have it; then the agent's socket
//! is tried, if the agent is on this machine. An agent answers there from its start on ([`introspection::HEALTH_SOCKET`]). Any user can take the name of that
//! socket. So nothing is sent to it, and no answer from it counts, until the kernel has confirmed that its process belongs to
//! root or to the user who runs `-healthcheck`.

use super::print;
use super::process::{Process, block_on};
use crate::config::{Action, Args, kind};
use crate::http::introspection::{self, HealthAnswer};
use crate::runtime::logging::Stream;
use crate::runtime::{self, Fatal};
use axum::body::Body;
use ecs_core::model::text::{cleaned, without_numbers};
use ecs_core::model::with_causes;
use hyper_util::rt::TokioIo;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::process::ExitCode;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

/// Time limit of the whole check.
const LIMIT: Duration = Duration::from_secs(25);
/// The part of that time which the port of this machine gets, so that time is left for the socket.
const PORT_PART: u32 = 3;
/// Pause between attempts to connect while too many connections wait at the socket.
const BACKLOG_PAUSE: Duration = Duration::from_millis(50);
/// Upper limit of an answer, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// The addresses of an agent, and the rules for its answer.
#[derive(Clone, Copy, Debug)]
struct Agent<'a> {
    /// Name or address of the agent's host.
    host: &'a str,
    port: u16,
    /// Name of the agent's abstract socket. It is used only if the host is this machine.
    socket: &'a str,
    /// Ids of the users whose processes are trusted on the socket.
    trusted: [u32; 2],
    /// Time limit of the whole check.
    limit: Duration,
}

impl<'a> Agent<'a> {
    /// The agent on a host. Root and the user of this process are trusted.
    fn on(host: &'a str) -> Self {
        let trusted = [0, rustix::process::geteuid().as_raw()];
        Self { host, port: introspection::PORT, socket: introspection::HEALTH_SOCKET, trusted, limit: LIMIT }
    }

    /// The port, for a person. The name of another host comes from a setting, which may be wrong.
    fn place(&self) -> String {
        let setting = if is_this_machine(self.host) { "" } else { " (ECS_AGENT_HEALTHCHECK_HOST)" };
        format!("port {} of {}{setting}", self.port, self.host)
    }

    /// A request to the port. Its `Host` header is a name that the agent accepts, which `self.host` need not be.
    fn request(&self, method: reqwest::Method, path: &str) -> Result<reqwest::RequestBuilder, Fatal> {
        if !kind::is_host(self.host) {
            let expected = kind::HOST; // the value is not shown: it could hold a password
            return Err(Fatal::restartable(format!("not healthy: ECS_AGENT_HEALTHCHECK_HOST: expected {expected}")));
        }
        let url = format!("http://{}:{}{path}", in_url(self.host), self.port);
        Ok(client(self.limit)?.request(method, url).header(reqwest::header::HOST, "localhost"))
    }

    fn no_answer(&self, error: &reqwest::Error) -> Fatal {
        Fatal::restartable(format!("not healthy: no agent answers on {}: {}", self.place(), innermost(error)))
    }

    /// Nothing listens on the port nor on the socket of this machine.
    fn not_running(&self) -> Fatal {
        Fatal::restartable(format!(
            "not healthy: no agent answers here (port {} is closed, and none is starting); `systemctl status ecs`, or `docker \
             ps` for a container, says why",
            self.port
        ))
    }
}

/// An answer from the port or the socket, not necessarily from this agent.
#[derive(Debug)]
struct Answer {
    status: u16,
    body: Vec<u8>,
}

/// The socket gave no valid answer.
#[derive(Debug, thiserror::Error)]
enum SocketError {
    #[error("no process listens on it")]
    NoListener,
    #[error(
        "it belongs to user {user}, who is neither root nor the user of this process, so its answer does not count; if the agent \
         runs as that user, run -healthcheck as that user"
    )]
    Foreign { user: u32 },
    #[error("no answer within {} s", .0.as_secs_f64())]
    Silent(Duration),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("the answer is cut off, or longer than {MAX_ANSWER} bytes")]
    Unreadable,
}

/// Prints the agent's health in one line, whatever the log level.
pub fn run(args: &Args) -> ExitCode {
    let (process, log) = Process::start(args, Stream::Error);
    block_on(log, Box::pin(report(args.action, process.healthcheck_host())))
}

async fn report(action: Action, host: String) -> Result<(), Fatal> {
    let _caught = runtime::catch_harmless_signals(|| {});
    let found = match action {
        Action::HealthcheckHttp => healthcheck_http(&host).await,
        _ => healthcheck(&host).await,
    };
    match found {
        Ok(text) => {
            print(&format!("healthy: {text}\n"));
            Ok(())
        }
        Err(Fatal { code, message }) => {
            print(&format!("{message}\n"));
            Err(Fatal { code, message: String::new() })
        }
    }
}

/// Asks a running agent for its health. `Ok` means that it is healthy, and says what it is doing.
///
/// # Errors
/// The agent is not healthy or does not answer, or another program uses its port or its socket. The message says which.
async fn healthcheck(host: &str) -> Result<String, Fatal> {
    check(Agent::on(host)).await
}

/// The health check of the Go agent: any answer to `/v1/metadata` counts, and there is none before the registration (spec
/// `introspection.md` §7).
///
/// # Errors
/// There is no answer.
async fn healthcheck_http(host: &str) -> Result<String, Fatal> {
    any_answer(Agent::on(host)).await
}

/// Accepts an answer with any status.
async fn any_answer(agent: Agent<'_>) -> Result<String, Fatal> {
    let answer = agent.request(reqwest::Method::HEAD, "/v1/metadata")?.send().await;
    let response = answer.map_err(|error| agent.no_answer(&error))?;
    Ok(format!("port {} answers with status {}", agent.port, response.status().as_u16()))
}

/// What the port gave in place of an answer of this agent.
#[derive(Debug)]
enum NoAgent {
    /// Nothing listens.
    Closed(reqwest::Error),
    /// Another program answered, with this status.
    Foreign(u16),
    /// The connection broke, or the whole time limit passed.
    Lost(reqwest::Error),
    /// There was no answer for this long.
    Silent(Duration),
}

impl NoAgent {
    /// The problem, if the socket does not help.
    fn refusal(&self, agent: Agent<'_>) -> Fatal {
        match self {
            Self::Closed(error) | Self::Lost(error) => agent.no_answer(error),
            Self::Foreign(status) => foreign(&agent.place(), *status),
            Self::Silent(limit) => Fatal::restartable(format!(
                "not healthy: no agent answers on {}: no answer within {} s",
                agent.place(),
                limit.as_secs_f64()
            )),
        }
    }

    /// What is said about the port after an answer from the socket. A closed port is usual before the registration.
    fn note(&self, port: u16) -> String {
        match self {
            Self::Closed(_) => String::new(),
            Self::Foreign(_) => format!("; port {port} is taken by another program"),
            Self::Lost(_) | Self::Silent(_) => format!("; port {port} gives no answer: another program may have it"),
        }
    }
}

/// Asks on the port. If no agent answers there, asks on the socket of this machine, which the agent has from its start to its end.
async fn check(agent: Agent<'_>) -> Result<String, Fatal> {
    let Agent { host, port, socket, limit, .. } = agent;
    let until = Instant::now() + limit;
    let no_agent = match ask_port(agent).await? {
        Ok(health) => return verdict(health, ""),
        Err(no_agent) => no_agent,
    };
    if !is_this_machine(host) {
        return Err(no_agent.refusal(agent));
    }
    match timeout_at(until, ask_socket(agent)).await.unwrap_or(Err(SocketError::Silent(limit))) {
        Ok(Answer { status, body }) => match HealthAnswer::parse(&body) {
            Some(health) => verdict(health, &no_agent.note(port)),
            None => Err(foreign(&format!("socket @{socket}"), status)),
        },
        Err(SocketError::NoListener) if matches!(no_agent, NoAgent::Closed(_)) => Err(agent.not_running()),
        Err(SocketError::NoListener) => Err(no_agent.refusal(agent)),
        Err(why) => {
            let text = format!(
                "not healthy: no agent answers on port {port} of {host}, nor on socket @{socket} (for agents without the port): {}",
                with_causes(&why)
            );
            Err(Fatal::restartable(text))
        }
    }
}

/// The answer of an agent. `note` is added to its text.
fn verdict(health: HealthAnswer, note: &str) -> Result<String, Fatal> {
    match health {
        HealthAnswer { healthy: true, text } => Ok(format!("{text}{note}")),
        HealthAnswer { healthy: false, text } => Err(Fatal::restartable(format!("not healthy: {text}{note}"))),
    }
}

fn foreign(place: &str, status: u16) -> Fatal {
    Fatal::restartable(format!("not healthy: {place} is answered by something other than this agent (status {status})"))
}

/// Asks on the port. On this machine, time is left for the socket.
async fn ask_port(agent: Agent<'_>) -> Result<Result<HealthAnswer, NoAgent>, Fatal> {
    let request = agent.request(reqwest::Method::GET, "/health")?;
    let limit = if is_this_machine(agent.host) { agent.limit / PORT_PART } else { agent.limit };
    let Ok(answer) = tokio::time::timeout(limit, read(request)).await else { return Ok(Err(NoAgent::Silent(limit))) };
    Ok(match answer {
        Ok(Answer { status, body }) => HealthAnswer::parse(&body).ok_or(NoAgent::Foreign(status)),
        // Without a connection, the port is closed. A connection that was made and lost belongs to a server with a problem.
        Err(error) if error.is_connect() && !error.is_timeout() => Err(NoAgent::Closed(error)),
        Err(error) => Err(NoAgent::Lost(error)),
    })
}

async fn read(request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
    let mut response = request.send().await?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER {
            break; // longer than any agent's answer
        }
    }
    Ok(Answer { status: response.status().as_u16(), body })
}

/// Asks on the socket. Sends nothing before the socket's owner is known to be trusted.
async fn ask_socket(agent: Agent<'_>) -> Result<Answer, SocketError> {
    let stream = connect(agent.socket).await?;
    let owner = stream.peer_cred()?.uid();
    if !agent.trusted.contains(&owner) {
        return Err(SocketError::Foreign { user: owner });
    }
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut request = hyper::Request::new(Body::empty());
    *request.uri_mut() = hyper::Uri::from_static("/health");
    request.headers_mut().insert(hyper::header::HOST, hyper::header::HeaderValue::from_static("localhost"));
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(Body::new(response.into_body()), MAX_ANSWER).await;
        let body = body.map_err(|_cut| SocketError::Unreadable)?.to_vec();
        Ok(Answer { status, body })
    };
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // The connection has ended, but the answer that arrived before has not been read yet.
        _ended = connection => exchange.await,
    }
}

/// Connects to the socket. The kernel does that without the listening process, unless too many connections wait to be accepted.
async fn connect(socket: &str) -> Result<UnixStream, SocketError> {
    let name = format!("\0{socket}"); // a name, not a path
    loop {
        match UnixStream::connect(&name).await {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Err(SocketError::NoListener),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(BACKLOG_PAUSE).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// The innermost cause of a failed request: the layers around it say only that there was a request.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cleaned(&without_numbers(&cause.to_string()))
}

/// Whether this name or address certainly means this machine, so that the socket belongs to the same agent.
fn is_this_machine(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback() || address.is_unspecified(),
        Err(_) => bare.trim_end_matches('.').eq_ignore_ascii_case("localhost"),
    }
}

fn client(limit: Duration) -> Result<reqwest::Client, Fatal> {
    crate::aws::install_tls(); // reqwest needs a TLS provider even for plain HTTP
    let builder = reqwest::Client::builder().no_proxy().timeout(limit);
    let client = builder.redirect(reqwest::redirect::Policy::none()).build();
    client.map_err(|error| Fatal::restartable(with_causes(&error)))
}

/// The host as it is written in a URL: an IPv6 address in brackets.
fn in_url(host: &str) -> String {
    if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests;
