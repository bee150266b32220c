//! A fake credentials fetcher that makes directories instead of tickets: gRPC over a Unix socket, in this process.
//!
//! It has its own encoding of messages, so that the agent's code is not tested against itself. It ends when dropped.

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

/// One call: the method, and the texts of the message with the numbers of their fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub method: String,
    pub fields: Vec<(u8, String)>,
}

/// A fault in place of an answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A status in the trailers, after an empty answer.
    Status(u32, &'static str),
    /// A status in the headers, without an answer.
    AtOnce(u32, &'static str),
    /// The call is cut off.
    Reset,
    /// The call is never answered.
    Silence,
    /// An HTTP status without a gRPC answer.
    Http(u16),
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<Call>,
    faults: VecDeque<Fault>,
    leases: u32,
}

/// The fake credentials fetcher.
#[derive(Debug)]
pub struct Fetcher {
    directory: PathBuf,
    state: Arc<Mutex<State>>,
    _server: JoinSet<()>,
}

impl Fetcher {
    /// Listens in this directory, and makes the tickets there.
    pub fn start(directory: &Path) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let listener = UnixListener::bind(directory.join("fetcher.sock")).unwrap();
        let mut server = JoinSet::new();
        server.spawn(serve(listener, directory.to_owned(), state.clone()));
        Self { directory: directory.to_owned(), state, _server: server }
    }

    /// The path of the socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("fetcher.sock")
    }

    /// Sets the faults of the next calls, one for each.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().unwrap().faults.extend(faults);
    }

    /// Every call so far.
    pub fn calls(&self) -> Vec<Call> {
        self.state.lock().unwrap().calls.clone()
    }

    /// Every call of this method so far.
    pub fn calls_of(&self, method: &str) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.method == method).collect()
    }

    /// The leases whose tickets exist.
    pub fn leases(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.directory.join("krbdir")) else { return Vec::new() };
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

async fn serve(listener: UnixListener, directory: PathBuf, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve_connection(stream, directory.clone(), state.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve_connection(stream: UnixStream, directory: PathBuf, state: Arc<Mutex<State>>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let mut calls = JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (directory, state) = (directory.clone(), state.clone());
        calls.spawn(async move {
            // The peer may have left; that is not an error here.
            let _ = answer(request, respond, &directory, &state).await;
        });
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    directory: &Path,
    state: &Mutex<State>,
) -> Result<(), h2::Error> {
    let (head, mut body) = request.into_parts();
    assert_eq!(
        (head.headers["content-type"].as_bytes(), head.headers["te"].as_bytes()),
        (&b"application/grpc"[..], &b"trailers"[..])
    );
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    let method = head.uri.path().strip_prefix("/credentialsfetcher.CredentialsFetcherService/").unwrap().to_owned();
    let call = Call { method, fields: fields(&bytes) };
    let (fault, number) = {
        let mut state = state.lock().unwrap();
        state.calls.push(call.clone());
        state.leases += 1;
        (state.faults.pop_front(), state.leases)
    };
    let start = Response::builder().header("content-type", "application/grpc");
    let (status, message) = match fault {
        Some(Fault::Silence) => return std::future::pending().await,
        Some(Fault::Reset) => {
            respond.send_reset(Reason::INTERNAL_ERROR);
            return Ok(());
        }
        Some(Fault::Http(status)) => {
            respond.send_response(Response::builder().status(status).body(()).unwrap(), true)?;
            return Ok(());
        }
        Some(Fault::AtOnce(code, text)) => {
            let start = start.header("grpc-status", code).header("grpc-message", text);
            respond.send_response(start.body(()).unwrap(), true)?;
            return Ok(());
        }
        Some(Fault::Status(code, text)) => ((code, text), None),
        None => ((0, ""), Some(carry_out(&call, directory, number))),
    };
    let mut stream = respond.send_response(start.body(()).unwrap(), false)?;
    if let Some(message) = message {
        let mut frame = vec![0];
        frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
        frame.extend_from_slice(&message);
        stream.send_data(Bytes::from(frame), false)?;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.0.into());
    trailers.insert("grpc-message", status.1.parse().unwrap());
    stream.send_trailers(trailers)
}

/// Carries out a call and returns the answer.
fn carry_out(call: &Call, directory: &Path, number: u32) -> Vec<u8> {
    let texts = |field: u8| call.fields.iter().filter(move |(number, _)| *number == field).map(|(_, text)| text);
    let lease = match call.method.as_str() {
        "DeleteKerberosLease" => texts(1).next().unwrap().clone(),
        "RenewNonDomainJoinedKerberosLease" => return Vec::new(),
        _ => format!("lease{number}"),
    };
    let krbdir = directory.join("krbdir").join(&lease);
    if call.method == "DeleteKerberosLease" {
        let _ = std::fs::remove_dir_all(krbdir); // a missing directory is success
        return field(1, &lease);
    }
    let mut message = field(1, &lease);
    for document in texts(1) {
        let document: serde_json::Value = serde_json::from_str(document).unwrap();
        let ticket = krbdir.join(document["DomainJoinConfig"]["MachineAccountName"].as_str().unwrap());
        std::fs::create_dir_all(&ticket).unwrap();
        std::fs::write(ticket.join("krb5cc"), "a ticket").unwrap();
        message.extend(field(2, ticket.to_str().unwrap()));
    }
    message
}

fn field(number: u8, text: &str) -> Vec<u8> {
    assert!(text.len() < 1 << 14, "two bytes of length");
    let mut bytes = vec![number << 3 | 2, (text.len() & 0x7f) as u8 | 0x80, (text.len() >> 7) as u8];
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// The texts of one message in its frame, each with its field number.
fn fields(frame: &[u8]) -> Vec<(u8, String)> {
    let [0, a, b, c, d, message @ ..] = frame else { panic!("no frame: {frame:?}") };
    assert_eq!(u32::from_be_bytes([*a, *b, *c, *d]) as usize, message.len());
    let (mut rest, mut fields) = (message, Vec::new());
    while let [tag, after @ ..] = rest {
        assert_eq!(tag & 7, 2, "only texts");
        let digits = after.iter().position(|byte| *byte < 0x80).unwrap() + 1;
        let length = after[..digits].iter().rev().fold(0, |sum, byte| sum << 7 | usize::from(byte & 0x7f));
        let (text, after) = after[digits..].split_at(length);
        fields.push((tag >> 3, String::from_utf8(text.to_vec()).unwrap()));
        rest = after;
    }
    fields
}
