//! Sockets and routing: one port for the API, the metadata service, the websockets and `/_local/`. This module owns connections
//! and the faults that cut them; other modules own the meaning of requests. Invariants: requests are bounded in size, time and
//! number. A request that a web page could make a browser send is refused. So is a call, a handshake or a request for an object
//! that was not signed with the session's token.

use super::answers::{Reply, header_text, json_answer, loggable, text_answer, typed_answer};
use super::bodies::{Broken, RequestBody};
use super::calls;
use super::demand;
use super::faults::Fault;
use super::owner::Connection;
use super::records::Source;
use super::refusal::refusal;
use super::registry;
use super::shared::Shared;
use super::signature::Refused;
use super::time::now;
use super::{acs, admin, imds, s3, tcs};
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// The largest request body, in bytes.
const MAX_BODY: usize = 2 * 1024 * 1024;
/// The largest body of a call with a part of a layer (20 MiB in base64) or a manifest, in bytes.
const MAX_LARGE_BODY: usize = 30 * 1024 * 1024;
/// The operations with such bodies.
const LARGE_OPERATIONS: [&str; 2] = [".UploadLayerPart", ".PutImage"];
/// The largest websocket message, in bytes: a TCS message may have 1 MiB.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// The time limit for reading headers.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The time limit in milliseconds for a peer to take what was sent.
const WRITE_TIMEOUT_MS: u32 = 60_000;

/// The time that websockets have to close when the server stops.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(300);

/// The websocket that a connection becomes after its upgrade.
#[derive(Debug)]
pub(super) enum Channel {
    Acs(acs::AcceptedHandshake),
    Tcs(tcs::AcceptedHandshake),
}

type Upgrade = Arc<Mutex<Option<(OnUpgrade, Channel)>>>;

/// Accepts connections until the server stops.
pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        let permit = tokio::select! {
            () = shared.stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            permit = Arc::clone(&shared.connections).acquire_owned() => permit,
        };
        let Ok(permit) = permit else { break };
        tokio::select! {
            () = shared.stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(connection(Arc::clone(&shared), stream, peer, permit));
                }
                // Most likely there are no file descriptors left: wait until one is free.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
        }
    }
    // Websockets close properly; idle connections would stay open forever and are aborted after the time limit.
    let all_closed = async { while connections.join_next().await.is_some() {} };
    let _all_gone = tokio::time::timeout(CLOSE_TIMEOUT, all_closed).await;
    connections.shutdown().await;
}

async fn connection(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr, _permit: OwnedSemaphorePermit) {
    let Ok(local) = stream.local_addr() else { return };
    // Without the first, a client that does not read holds a connection forever; without the second, ends of layers are late.
    let _limited = rustix::net::sockopt::set_tcp_user_timeout(&stream, WRITE_TIMEOUT_MS);
    let _undelayed = stream.set_nodelay(true);
    let upgrade = Upgrade::default();
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(Connection { peer, local });
        serve(Arc::clone(&shared), Arc::clone(&upgrade), request)
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(READ_TIMEOUT);
    // An error here means that the peer went away, or that the server cut the connection on purpose.
    let _ended = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
    let taken = upgrade.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((upgraded, channel)) = taken
        && let Ok(upgraded) = upgraded.await
    {
        let limits = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(limits)).await;
        match channel {
            Channel::Acs(handshake) => acs::serve(&shared, socket, handshake).await,
            Channel::Tcs(handshake) => tcs::serve(&shared, socket, handshake).await,
        }
    }
}

async fn serve(shared: Arc<Shared>, upgrade: Upgrade, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let (parts, incoming) = request.into_parts();
    let mut request = Request::from_parts(parts, ());
    if !needs_signature(&request) && !is_trusted_host(&shared, request.headers()) {
        return Ok(json_answer(403, &json!({"message": "The Host header names neither an address nor localhost."})));
    }
    let reply = if shared.options.registry.is_none() && registry::is_registry(request.uri().path()) {
        registry::answer(&shared, request.into_parts().0, Body::new(incoming)).await
    } else {
        let upgraded = hyper::upgrade::on(&mut request);
        let limit = if is_large(&request) { MAX_LARGE_BODY } else { MAX_BODY };
        let read = RequestBody::new(Body::new(incoming)).whole(limit, &shared.large_bodies).await;
        let (body, _turn) = match read {
            Ok(read) => read,
            Err(Broken::TimedOut) => {
                return Ok(json_answer(408, &json!({"message": "The request body took too long."})));
            }
            Err(Broken::Cut | Broken::TooLong) => {
                return Ok(json_answer(413, &json!({"message": "The request body is too large or broken."})));
            }
        };
        let is_script = request.uri().path().starts_with("/_local") && request.method() == Method::POST;
        let before = is_script.then(|| shared.read(|state| state.ecr.revision()));
        let reply = route(&shared, &request.map(|()| body), &upgrade, upgraded).await;
        match before {
            Some(before) => saved(&shared, before, reply).await,
            None => reply,
        }
    };
    match reply {
        Reply::Answer(mut response) => {
            if let Ok(date) = shared.read(|state| state.ec2.http_date(now())).parse() {
                response.headers_mut().insert(header::DATE, date);
            }
            Ok(response)
        }
        Reply::Cut => Err(io::Error::other("cut on purpose")),
    }
}

/// The request is a call whose body may be large.
fn is_large(request: &Request<()>) -> bool {
    let target = header_text(request.headers(), "x-amz-target");
    LARGE_OPERATIONS.iter().any(|operation| target.ends_with(operation))
}

/// The reply to a script, after what it has changed of the registry since the revision `before` is on disk. If it cannot be saved,
/// the reply says so.
async fn saved(shared: &Shared, before: u64, reply: Reply) -> Reply {
    let after = shared.read(|state| state.ecr.revision());
    if after == before {
        return reply;
    }
    match (shared.storage.saves.settled_since(before, after).await, reply) {
        (Err(error), Reply::Answer(_)) => Reply::Answer(text_answer(500, format!("{error}\n"))),
        (_, reply) => reply,
    }
}

async fn route(shared: &Arc<Shared>, request: &Request<Bytes>, upgrade: &Upgrade, upgraded: OnUpgrade) -> Reply {
    let path = request.uri().path();
    match path {
        "/ws" | "/acs/ws" | "/tcs/ws" => websocket(shared, request, upgrade, upgraded).await,
        "/" if request.method() == Method::POST => calls::answer(shared, request).await,
        "/" if s3::is_s3_request(request) => s3::call(shared, request).await,
        "/" => Reply::Answer(text_answer(200, admin::GREETING)),
        _ if path.starts_with("/latest/") => imds(shared, request).await,
        _ if path.starts_with("/_local") => {
            let answer = admin::answer(shared, request);
            if admin::sets_clocks(request) && answer.status().is_success() {
                registry::expire_elsewhere(shared).await;
            }
            Reply::Answer(answer)
        }
        _ if s3::is_s3_request(request) => s3::call(shared, request).await,
        _ => Reply::Answer(json_answer(404, &json!({"message": "Not found."}))),
    }
}

/// One request to the metadata service.
async fn imds(shared: &Shared, request: &Request<Bytes>) -> Reply {
    let fault = shared.change(|state| state.faults.take("imds"));
    if let Some(reply) = refusal(shared, "imds", fault.as_ref()).await {
        return reply;
    }
    if imds::is_guarded(request.uri().path()) && !is_from_the_user(request).await {
        return Reply::Answer(text_answer(403, imds::NOT_SERVED));
    }
    let answer = imds::answer(shared, request);
    if fault == Some(Fault::LoseAnswer) { Reply::Cut } else { Reply::Answer(answer) }
}

async fn is_from_the_user(request: &Request<Bytes>) -> bool {
    match request.extensions().get::<Connection>() {
        Some(connection) => connection.is_from_the_user().await,
        None => false,
    }
}

/// A websocket handshake. The path and the query show whether it is for ACS or TCS.
async fn websocket(shared: &Shared, request: &Request<Bytes>, upgrade: &Upgrade, upgraded: OnUpgrade) -> Reply {
    let query: Vec<(String, String)> =
        url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned().collect();
    let find = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let is_tcs = request.uri().path() == "/tcs/ws" || find("containerInstance").is_some();
    let name = if is_tcs { "tcs" } else { "acs" };
    let key = header_text(request.headers(), "sec-websocket-key");
    let refuse = |status: u16, kind: &str, text: &str| {
        shared.change(|state| state.record(Source::ApiError, name, json!({"__type": kind, "message": text})));
        Reply::Answer(json_answer(status, &json!({kind: text})))
    };
    let caller = match calls::caller(shared, request) {
        Err(Refused::Unsigned) => return refuse(403, "AccessDeniedException", "The handshake is not signed"),
        Err(refused) => {
            let error = refused.error();
            return refuse(error.status, &error.code, &error.message);
        }
        Ok(caller) => caller,
    };
    if key.is_empty() || !header_text(request.headers(), "upgrade").eq_ignore_ascii_case("websocket") {
        return refuse(400, "BadRequestException", "This is not a websocket handshake");
    }
    match shared.change(|state| state.faults.take(name)) {
        Some(Fault::Slow(wait)) => tokio::time::sleep(wait).await,
        Some(fault) => return handshake_fault(fault, &refuse),
        None => {}
    }
    let allowed = shared.change(|state| {
        let cluster = find("clusterArn").or(find("cluster")).unwrap_or_default();
        let instance = find("containerInstanceArn").or(find("containerInstance")).unwrap_or_default();
        let demands = demand::websocket_demand(state, name, cluster, instance);
        state.permit_call(&caller, &demands)
    });
    if let Err(error) = allowed {
        return refuse(403, &error.code, &error.message);
    }
    let channel = if is_tcs {
        match shared.change(|state| tcs::accept_handshake(state, &query, request)) {
            Ok(handshake) => Channel::Tcs(handshake),
            Err((kind, text)) => return refuse(400, kind, text),
        }
    } else {
        match shared.change(|state| acs::accept_handshake(state, &query, loggable(request.headers()))) {
            Ok(handshake) => Channel::Acs(handshake),
            Err((kind, text)) => return refuse(400, kind, text),
        }
    };
    *upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some((upgraded, channel));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accept = derive_accept_key(key.as_bytes());
    for (name, value) in
        [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", accept.as_str())]
    {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    Reply::Answer(response)
}

/// Carries out the fault of a handshake.
fn handshake_fault(fault: Fault, refuse: &impl Fn(u16, &str, &str) -> Reply) -> Reply {
    match fault {
        Fault::Drop | Fault::LoseAnswer | Fault::Truncated => Reply::Cut,
        Fault::Error(status, code, message) => refuse(status, &code, &message),
        Fault::AccessDenied => refuse(403, "AccessDeniedException", "Forbidden"),
        Fault::Malformed | Fault::Empty => Reply::Answer(text_answer(200, "no websocket here")),
        Fault::Page(status) => {
            Reply::Answer(typed_answer(status, "text/html", "<html><body>Sign in</body></html>".to_owned()))
        }
        Fault::Throttle => refuse(400, "ThrottlingException", "Rate exceeded"),
        Fault::ServerError | Fault::Slow(_) => refuse(500, "ServerException", "Try again later"),
    }
}

/// The request is an AWS call or a websocket handshake. Both need a signature, which a web page cannot make, so their Host header
/// does not matter.
fn needs_signature(request: &Request<()>) -> bool {
    match request.uri().path() {
        "/ws" | "/acs/ws" | "/tcs/ws" => true,
        "/" => request.method() == Method::POST,
        _ => false,
    }
}

/// The Host header is an address or `localhost`. A web page may point a name of its own at 127.0.0.1, but it cannot send the
/// server's address as Host. A server that does not listen on loopback is in a network that its user chose, where names are
/// normal.
fn is_trusted_host(shared: &Shared, headers: &HeaderMap) -> bool {
    let host = header_text(headers, "host");
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let literal = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
    literal || name == "localhost" || !shared.options.listen.ip().is_loopback()
}
