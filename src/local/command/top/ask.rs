//! Which servers `top` asks, and what they answer. Invariants: a token goes only to the server that it belongs to; every answer has a
//! time limit and a maximum size.

use super::super::session;
use super::super::token::Token;
use super::options::Request;
use crate::top::Top;
use axum::body::{Body, to_bytes};
use ecs_core::model::Secret;
use ecs_core::model::text::cut;
use futures_util::future::join_all;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Url;

/// The time limit for one answer.
const LIMIT: Duration = Duration::from_secs(5);
/// The largest answer that is read, in bytes: 5,000 tasks fit.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// The largest part of a refusal that is shown, in bytes.
const MAX_REFUSAL: usize = 200;

/// A server.
#[derive(Debug)]
pub(super) struct Target {
    url: String,
    token: Secret,
}

/// The answers of all servers together.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) top: Top,
    /// Why a server did not answer.
    pub(super) problems: Vec<String>,
}

/// The servers to ask; empty: none runs here.
///
/// # Errors
/// The token for the given address is missing, or cannot be read.
pub(super) fn targets(request: &Request) -> Result<Vec<Target>, String> {
    let found = session::addresses().into_iter().map(|(url, token)| Target { url, token });
    let Some(url) = &request.url else { return Ok(found.collect()) };
    let url = url.trim_end_matches('/').to_owned();
    let token = match &request.token {
        Token::Random => {
            let known = found.into_iter().find(|target| target.url == url).map(|target| target.token);
            known.ok_or_else(|| {
                format!("no session of yours on this machine is {url}: give its token with --token-file")
            })?
        }
        // A token that is made up here opens nothing.
        Token::File(path) if !path.exists() => {
            return Err(format!("--token-file {}: there is no such file", path.display()));
        }
        given => given.value()?.ok_or("--token: the token is missing")?,
    };
    Ok(vec![Target { url, token }])
}

/// Asks all servers at once.
pub(super) async fn all(targets: &[Target]) -> Asked {
    let mut asked = Asked::default();
    let answers = join_all(targets.iter().map(|target| async move {
        let answer = timeout(LIMIT, answer(target)).await;
        answer.unwrap_or_else(|_| Err(format!("no answer within {} s", LIMIT.as_secs())))
    }));
    for (target, answer) in targets.iter().zip(answers.await) {
        match answer {
            Ok(answer) => {
                asked.top.at = asked.top.at.max(answer.at);
                asked.top.instances.extend(answer.instances);
                asked.top.containers.extend(answer.containers);
            }
            Err(problem) => asked.problems.push(format!("{}: {problem}", target.url)),
        }
    }
    asked
}

async fn answer(target: &Target) -> Result<Top, String> {
    let url =
        Url::parse(&target.url).ok().filter(|url| url.scheme() == "http").ok_or("the URL is not http://HOST:PORT")?;
    let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(80));
    let address = (host.trim_start_matches('[').trim_end_matches(']'), port);
    let stream = TcpStream::connect(address).await.map_err(|error| format!("cannot be reached: {error}"))?;
    let broken = |_| "the connection broke: is this ecs-local?".to_owned();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let request =
        http::Request::get("/_local/top").header("host", format!("{host}:{port}")).header("connection", "close");
    let request = request.header("authorization", format!("Bearer {}", target.token.expose())).body(Body::empty());
    let request = request.map_err(|_| "the token is not text for a header".to_owned())?;
    let reading = async move {
        let answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status();
        let body = to_bytes(Body::new(answer.into_body()), MAX_ANSWER).await;
        Ok::<_, String>((status.as_u16(), body.map_err(|_| "the answer is too long, or broke off".to_owned())?))
    };
    let (read, _ended) = tokio::join!(reading, connection);
    match read? {
        (200, body) => {
            serde_json::from_slice(&body).map_err(|_| "the answer is not that of this version of ecs-local".to_owned())
        }
        (401, _) => Err("the token is not that of this server".to_owned()),
        (status, body) => Err(format!("it answered {status}: {}", cut(&String::from_utf8_lossy(&body), MAX_REFUSAL))),
    }
}
