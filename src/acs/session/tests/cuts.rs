//! Tests that cut the connection after every single byte that the server sends: in the handshake, in a frame, between messages.

use super::*;
use crate::backoff::Shape;
use futures_util::StreamExt;
use std::collections::BTreeSet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// One frame of a server. `text` has at most 125 bytes, so that its length takes one byte.
fn frame(first: u8, text: &str) -> Vec<u8> {
    assert!(text.len() < 126);
    [&[first, text.len() as u8], text.as_bytes()].concat()
}

/// The frames that the server sends after its handshake.
fn frames() -> Vec<u8> {
    let manifest = r#"{"type":"TaskManifestMessage","message":{"messageId":"m","timeline":1}}"#;
    [
        frame(0x81, r#"{"type":"HeartbeatMessage","message":{"messageId":"h"}}"#),
        frame(0x01, &manifest[..30]),
        frame(0x89, "ping"),
        frame(0x80, &manifest[30..]),
        frame(0x82, r#"{"type":"HeartbeatMessage","message":{"messageId":"b"}}"#),
    ]
    .concat()
}

/// Accepts one connection and reads its request. Returns the connection and the handshake to send.
async fn accept(listener: &TcpListener) -> (TcpStream, Vec<u8>) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
    let accept = derive_accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    (stream, answer.into_bytes())
}

/// Counts the connections and manifests that the session delivers until it ends.
async fn count(mut incoming: mpsc::Receiver<Incoming>) -> (usize, usize) {
    let (mut connections, mut manifests) = (0, 0);
    while let Some(message) = incoming.recv().await {
        match message {
            Incoming::Connected => connections += 1,
            Incoming::Manifest { .. } => manifests += 1,
            Incoming::Heartbeat => {}
            other => panic!("{other:?}"),
        }
    }
    (connections, manifests)
}

#[tokio::test]
async fn a_connection_cut_after_any_byte_loses_no_whole_message() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = settings();
    let moment = Duration::from_millis(1);
    settings.connection.timing.backoff = Shape { initial: moment, max: moment, factor: 1.0, jitter: 0.0 };
    let Running { incoming, outgoing, cancel, mut task } = start(settings, listener.local_addr().unwrap().port());
    let mut counting = JoinSet::new();
    counting.spawn(count(incoming));

    let (mut cut, mut handshake, mut length) = (0, 0, 1);
    while cut <= length {
        let (mut stream, answer) = accept(&listener).await;
        handshake = answer.len();
        let all = [answer, frames()].concat();
        length = all.len();
        stream.write_all(&all[..cut]).await.unwrap();
        if cut % 2 == 0 || cut >= handshake {
            // With a FIN; the session closes its side too.
            stream.shutdown().await.unwrap();
            let mut bytes = Vec::new();
            let _reset = stream.read_to_end(&mut bytes).await;
        } else {
            stream.set_zero_linger().unwrap(); // with a RST
        }
        cut += 1;
    }

    // A connection after all of these works as usual.
    let (mut stream, answer) = accept(&listener).await;
    stream.write_all(&answer).await.unwrap();
    stream.write_all(&frames()).await.unwrap();
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    let mut received = BTreeSet::new();
    while received.len() < 2 {
        if let Message::Text(text) = socket.next().await.unwrap().unwrap() {
            assert!(text.contains("HeartbeatAckRequest"), "{text}");
            received.insert(text.to_string());
        }
    }
    cancel.cancel();
    task.join_next().await.unwrap().unwrap();
    drop(outgoing);
    let (connections, manifests) = counting.join_next().await.unwrap().unwrap();
    let last_frame = frame(0x82, r#"{"type":"HeartbeatMessage","message":{"messageId":"b"}}"#).len();
    assert_eq!(connections, length - handshake + 1 + 1, "each complete handshake is a connection");
    assert_eq!(manifests, last_frame + 1 + 1, "each complete message is delivered, and no incomplete one");
}
