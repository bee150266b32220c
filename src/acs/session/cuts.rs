//! The connection is cut after every single byte of what the server says: in the handshake, in a frame, between two messages.

use super::tests::{Running, settings, start};
use super::*;
use crate::aws::backoff::Shape;
use futures_util::StreamExt;
use std::collections::BTreeSet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// One frame of a server: at most 125 bytes, so its length is one byte.
fn frame(first: u8, text: &str) -> Vec<u8> {
    assert!(text.len() < 126);
    [&[first, text.len() as u8], text.as_bytes()].concat()
}

/// What the server says after its handshake.
fn script() -> Vec<u8> {
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

/// Takes one request and answers it with the handshake.
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

/// Counts what the session delivers until it ends.
async fn count(mut incoming: mpsc::Receiver<Incoming>) -> (usize, usize) {
    let (mut connections, mut manifests) = (0, 0);
    while let Some(message) = incoming.recv().await {
        match message {
            Incoming::Connected => connections += 1,
            Incoming::Manifest { .. } => manifests += 1,
            other => panic!("{other:?}"),
        }
    }
    (connections, manifests)
}

#[tokio::test]
async fn a_connection_may_be_cut_after_any_byte() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = settings();
    let moment = Duration::from_millis(1);
    settings.timing.backoff = Shape { initial: moment, max: moment, factor: 1.0, jitter: 0.0 };
    let Running { incoming, outgoing, cancel, mut task } = start(settings, listener.local_addr().unwrap().port());
    let mut counting = JoinSet::new();
    counting.spawn(count(incoming));

    let (mut cut, mut handshake, mut length) = (0, 0, 1);
    while cut <= length {
        let (mut stream, answer) = accept(&listener).await;
        handshake = answer.len();
        let all = [answer, script()].concat();
        length = all.len();
        stream.write_all(&all[..cut]).await.unwrap();
        if cut % 2 == 0 || cut >= handshake {
            // Politely, with a FIN; the session ends its side too.
            stream.shutdown().await.unwrap();
            let mut bytes = Vec::new();
            let _reset = stream.read_to_end(&mut bytes).await;
        } else {
            stream.set_zero_linger().unwrap(); // with a RST
        }
        cut += 1;
    }

    // After all of that a whole connection is as good as ever.
    let (mut stream, answer) = accept(&listener).await;
    stream.write_all(&answer).await.unwrap();
    stream.write_all(&script()).await.unwrap();
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
    assert_eq!(connections, length - handshake + 1 + 1, "each whole handshake is a connection");
    assert_eq!(manifests, last_frame + 1 + 1, "each whole message is heard, none that is not whole");
}
