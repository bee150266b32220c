//! Tests for the timers: when a connection is given up or replaced, and when the next one is made.

use super::peer::*;
use super::*;
use crate::websocket::{NextStep, Seen};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

#[tokio::test(start_paused = true)]
async fn only_recognised_messages_keep_a_connection() {
    let mut rig = Rig::start();
    let mut socket = rig.next().await.socket().await;
    // Recognised messages keep the connection for half an hour, even if they have no effect or are invalid.
    let recognised = [
        r#"{"type":"CloseMessage","message":{}}"#,
        r#"{"InactiveInstanceException":"in-band errors are only noted"}"#,
        r#"{"type":"PayloadMessage","message":{}}"#,
        r#"{"type":"AckRequest"}"#,
    ];
    for round in 0..28 {
        tokio::time::sleep(secs(59)).await;
        socket.send(Message::text(recognised[round % recognised.len()])).await.unwrap();
    }
    socket.send(heartbeat("still there")).await.unwrap();
    expect_heartbeat(&mut socket, "still there").await;
    let last = Instant::now();
    assert_eq!(rig.contact.seen().last_message, Some(last), "a recognised message");
    // None of these keeps the connection: it ends one to two minutes after the last recognised message.
    let unrecognised =
        ["", "{", "[]", r#"{"type":"Nobody"}"#, r#"{"type":"HeartbeatMessage","message":{"messageId":5}}"#];
    let mut unrecognised = unrecognised.into_iter().cycle();
    loop {
        tokio::time::sleep(secs(5)).await;
        let text = Message::text(unrecognised.next().unwrap());
        let sent = [socket.send(Message::Ping(Vec::new().into())).await, socket.send(text).await];
        if sent.iter().any(Result::is_err) {
            break;
        }
    }
    let again = rig.next().await;
    assert_eq!(rig.contact.seen().last_message, Some(again.at), "only the new connection counts as contact");
    let lasted = again.at - last;
    assert!(lasted >= secs(60) && lasted <= secs(121), "{lasted:?}");
    assert!(!again.first);
}

#[tokio::test(start_paused = true)]
async fn a_half_open_connection_is_replaced_after_the_backoff() {
    let mut rig = Rig::start();
    let mut last = rig.next().await;
    let mut held = Vec::new();
    for _ in 0..20 {
        let next = rig.next().await;
        // 60 to 120 s of silence, then the back-off, which is short: a connection of that age mostly resets it.
        let lasted = next.at - last.at;
        assert!(lasted >= Duration::from_millis(60_250) && lasted <= secs(125), "{lasted:?}");
        held.push(std::mem::replace(&mut last, next).line); // neither read, nor written, nor closed
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_is_renewed_whether_or_not_the_peer_echoes() {
    let mut rig = Rig::start();
    for echoes in [true, false] {
        let accepted = rig.next().await;
        let began = accepted.at;
        let mut socket = accepted.socket().await;
        let frame = loop {
            tokio::select! {
                () = tokio::time::sleep(secs(50)) => socket.send(heartbeat("h")).await.unwrap(),
                received = socket.next() => if let Message::Close(frame) = received.unwrap().unwrap() {
                    break frame.unwrap();
                }
            }
        };
        assert_eq!(frame.code, CloseCode::Normal);
        assert_eq!(frame.reason.as_str(), "ConnectionExpired: Reconnect to continue");
        let age = began.elapsed();
        assert!(age >= secs(30 * 60) && age <= secs(35 * 60 + 1), "{age:?}");
        let asked = Instant::now();
        if echoes {
            while socket.next().await.is_some() {} // the library echoes
            drop(socket);
            assert_eq!(rig.next().await.at, asked, "at once");
        } else {
            // ACS sends no close frame in answer, so the session gives up after the time of inactivity.
            let again = rig.next().await;
            assert!(again.at - asked >= secs(60) && again.at - asked <= secs(121), "{:?}", again.at - asked);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_connection_determines_the_next_attempt() {
    // How the connection ends, and whether the next attempt is made at once, after the back-off, or in an hour.
    const AT_ONCE: (u64, u64) = (0, 0);
    const LATER: (u64, u64) = (250, 300);
    const HOUR: (u64, u64) = (3_600_000, 3_600_001);
    let close = |code: u16, reason: &str| {
        let mut bytes = vec![0x88, 2 + reason.len() as u8];
        bytes.extend(code.to_be_bytes());
        bytes.extend(reason.as_bytes());
        bytes
    };
    let table = [
        ("1000", close(1000, ""), AT_ONCE),
        ("1001", close(1001, "ConnectionExpired"), AT_ONCE),
        ("1011", close(1011, ""), AT_ONCE),
        ("end of stream", Vec::new(), AT_ONCE),
        ("end within a frame", vec![0x81, 20, b'{'], AT_ONCE),
        ("1002", close(1002, ""), LATER),
        ("1008", close(1008, "policy"), LATER),
        ("4000", close(4000, ""), LATER),
        ("no code", vec![0x88, 0], LATER),
        ("half a code", vec![0x88, 1, 3], LATER),
        ("deregistered", close(1008, "InactiveInstanceException: gone"), HOUR),
        ("deregistered, politely", close(1000, "InactiveInstanceException: gone"), HOUR),
        ("compressed", vec![0xc1, 2, b'{', b'}'], LATER),
        ("reserved opcode", vec![0x83, 0], LATER),
        ("masked by the server", vec![0x81, 0x82, 1, 2, 3, 4, 5, 6], LATER),
        ("a continuation of nothing", vec![0x80, 0], LATER),
        ("a fragmented ping", vec![0x09, 0], LATER),
        ("a ping that is too long", [&[0x89, 126, 0, 200], [0; 200].as_slice()].concat(), LATER),
    ];
    for (what, bytes, (min, max)) in table {
        let mut rig = Rig::start();
        let mut accepted = rig.next().await;
        tokio::time::sleep(secs(2)).await;
        accepted.line.write_all(&bytes).await.unwrap();
        let ended = Instant::now();
        let mut rest = Vec::new();
        if max == 0 {
            drop(accepted.line);
        } else {
            // The agent may still send frames, but then it closes its side.
            accepted.line.read_to_end(&mut rest).await.unwrap();
        }
        let again = rig.next().await;
        let waited = (again.at - ended).as_millis() as u64;
        assert!((min..=max).contains(&waited), "{what}: {waited} ms");
        assert!(!again.first, "{what}");
        if min >= 3_600_000 {
            assert_eq!(rig.message().await, Incoming::Deregistered, "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_back_off_until_a_connection_lasts() {
    let mut rig = Rig::start();
    let began = rig.next().await.at;
    rig.refusals.lock().unwrap().extend([NextStep::ReconnectLater; 20]);
    let after = rig.next().await;
    // The first connection was too short to be replaced at once. 250 ms, then times 1.5 up to 120 s: 21 pauses.
    let pauses = (0..21).map(|attempt| f64::min(0.25 * 1.5f64.powi(attempt), 120.0)).sum::<f64>();
    let waited = (after.at - began).as_secs_f64();
    assert!(waited >= pauses * 0.99 && waited <= pauses * 1.21, "{waited} s for {pauses} s");
    // After a connection that lasted two minutes, the back-off starts again at 250 ms.
    let mut socket = after.socket().await;
    for _ in 0..3 {
        tokio::time::sleep(secs(45)).await;
        socket.send(heartbeat("h")).await.unwrap();
    }
    tokio::time::sleep(secs(1)).await;
    socket.close(Some(CloseFrame { code: CloseCode::Policy, reason: "".into() })).await.unwrap();
    let ended = Instant::now();
    let waited = rig.next().await.at - ended;
    assert!(waited >= Duration::from_millis(250) && waited <= Duration::from_millis(301), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_deregistered_instance_connects_every_hour_and_reports_it() {
    let mut rig = Rig::start();
    rig.refusals.lock().unwrap().extend([NextStep::WaitForRegistration; 2]);
    let began = Instant::now();
    for _ in 0..2 {
        assert_eq!(rig.message().await, Incoming::Deregistered);
    }
    assert_eq!(rig.contact.seen(), Seen { deregistered: Some(began), ..Seen::default() });
    let accepted = rig.next().await;
    assert!(accepted.first, "the first connection, so credentials are requested");
    assert_eq!(accepted.at - began, secs(2 * 3600));
    let mut socket = accepted.socket().await;
    socket.send(heartbeat("registered again")).await.unwrap();
    expect_heartbeat(&mut socket, "registered again").await;
    assert_eq!(rig.contact.seen().deregistered, None);
}
