//! A TCS that ends each connection, or sends what is no message.

use super::*;
use crate::websocket::NextStep;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

#[tokio::test(start_paused = true)]
async fn a_tcs_that_ends_each_connection_is_not_hammered() {
    for seconds in [0, 2, 30] {
        let mut rig = in_memory();
        let (mut ended, mut pauses) = (None, Vec::new());
        for _ in 0..10 {
            let (line, at) = timeout(Duration::from_secs(100), rig.accepted.recv()).await.unwrap().unwrap();
            pauses.extend(ended.map(|ended: Instant| (at - ended).as_secs()));
            let mut socket = WebSocketStream::from_raw_socket(line, Role::Server, None).await;
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
            socket.close(Some(frame)).await.unwrap();
            ended = Some(Instant::now());
        }
        let min_s = [1, 2, 4, 8, 16, 32, 60, 60, 60];
        assert!(pauses.iter().zip(min_s).all(|(pause, min)| *pause >= min), "after {seconds} s: {pauses:?}");
        assert_eq!(pauses.len(), min_s.len());
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_is_not_registered_asks_ever_less_often() {
    let (inbox, _incoming) = mpsc::channel(64);
    let (_outgoing, outbox) = mpsc::channel(4);
    let exchange = Exchange::new(tcs(), inbox, outbox, CancellationToken::new(), Contact::default());
    let (ask, mut asked) = mpsc::unbounded_channel();
    let connect = |_first, number: u32| {
        ask.send(number).unwrap();
        std::future::ready(Err::<WebSocketStream<DuplexStream>, _>(NextStep::WaitForRegistration))
    };
    let session = keep_connected(timing(), connect, exchange);
    assert!(timeout(Duration::from_secs(600), session).await.is_err(), "it does not end");
    let mut numbers = Vec::new();
    while let Ok(number) = asked.try_recv() {
        numbers.push(number);
    }
    // The log takes the first ten, and later ones rarely.
    assert_eq!(numbers, (1..=numbers.len() as u32).collect::<Vec<_>>());
    assert!((13..=16).contains(&numbers.len()), "{numbers:?}");
}

/// Bytes in the place of a frame.
fn injuries() -> Vec<(&'static str, Vec<u8>)> {
    let long = |opcode: u8, length: u64| [&[opcode, 127][..], &length.to_be_bytes()].concat();
    vec![
        ("a frame that ends in the middle", b"\x81\x20half".to_vec()),
        ("a head that ends in the middle", vec![0x81, 126, 1]),
        ("a frame of a gibibyte", long(0x82, 1 << 30)),
        ("a frame of 2^63 bytes", long(0x81, 1 << 63)),
        ("an unknown opcode", vec![0x83, 0]),
        ("an unknown control opcode", vec![0x8b, 0]),
        ("reserved bits", vec![0xf1, 0]),
        ("a continuation of nothing", vec![0x80, 2, b'{', b'}']),
        ("a masked frame", vec![0x81, 0x82, 1, 2, 3, 4, 5, 6]),
        ("a long ping", long(0x89, 70_000)),
        ("a ping in fragments", vec![0x09, 0]),
        ("a close frame of one byte", vec![0x88, 1, 3]),
        ("HTTP", b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
    ]
}

#[tokio::test(start_paused = true)]
async fn whatever_tcs_sends_the_session_goes_on() {
    use tokio::io::AsyncWriteExt;
    for (name, bytes) in injuries() {
        let mut rig = in_memory();
        let (mut line, _) = rig.accepted.recv().await.unwrap();
        line.write_all(&bytes).await.unwrap();
        let mut held = Some(line);
        if name.ends_with("in the middle") {
            held = None; // cut there
        }
        let next = timeout(Duration::from_secs(200), rig.accepted.recv()).await;
        let (line, _) = next.unwrap_or_else(|_| panic!("no other connection after {name}")).unwrap();
        drop(held);
        let mut socket = WebSocketStream::from_raw_socket(line, Role::Server, None).await;
        rig.outgoing.send(Outgoing::Idle.into()).await.unwrap();
        assert_eq!(next_text(&mut socket).await["message"]["metadata"]["idle"], true, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn messages_without_end_do_not_end_the_session() {
    let mut rig = in_memory();
    let (line, since) = rig.accepted.recv().await.unwrap();
    let mut socket = WebSocketStream::from_raw_socket(line, Role::Server, None).await;
    // 40 MB, of which nothing counts. The duplex holds 64 KiB, so all of it is read.
    for count in 0..400 {
        let message = match count % 4 {
            0 => Message::text("x".repeat(100_000)),
            1 => Message::binary(vec![0xff; 100_000]),
            2 => Message::text(json!({"ServerException": "x".repeat(100_000)}).to_string()),
            _ => Message::Ping(vec![0; 125].into()),
        };
        timeout(LIMIT, socket.send(message)).await.expect("it is read").unwrap();
    }
    assert_eq!((rig.contact.seen().last_message, rig.contact.seen().last_word), (Some(since), None));
    rig.outgoing.send(Outgoing::Idle.into()).await.unwrap();
    let mut next = async || timeout(LIMIT, socket.next()).await.expect("it is sent").unwrap().unwrap();
    let mut message = next().await;
    while message.is_pong() {
        message = next().await;
    }
    assert!(message.to_text().unwrap().contains(r#""idle":true"#), "{message}");
}
