//! Tests for the flow of messages: a peer that does not read, sends without end or sends in pieces; an agent that takes nothing.

use super::peer::*;
use super::*;
use crate::websocket::{MAX_MESSAGE, MAX_WAITING_BYTES, NextStep};
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_nothing_is_given_up() {
    let mut rig = Rig::start();
    let accepted = rig.next().await;
    let (began, mut line) = (accepted.at, accepted.line);
    // An answer that exceeds the capacity of the connection, so that writing it waits.
    let candidates = vec!["arn:aws:ecs:us-west-2:123456789012:task/judge/0".into(); 2000];
    let question = Outgoing::StopVerification { message_id: "m".to_owned(), cluster: "c".to_owned(), candidates };
    rig.outgoing.send(question).await.unwrap();
    tokio::time::sleep(secs(1)).await;
    for round in 1..=3_u64 {
        tokio::time::sleep(secs(45)).await;
        let text = json!({"type": "TaskManifestMessage", "message": {"messageId": "m", "timeline": round}}).to_string();
        let mut frame = vec![0x81, text.len() as u8];
        assert!(text.len() < 126);
        frame.extend(text.as_bytes());
        line.write_all(&frame).await.unwrap();
        let Incoming::Manifest { timeline, .. } = rig.message().await else { panic!("no manifest") };
        assert_eq!(timeline, round as i64, "messages are delivered while nothing can be written");
    }
    // Of the answers meanwhile, some are queued and the rest is dropped; none blocks the agent.
    for _ in 0..1000 {
        let ack = Outgoing::Ack(ecs_core::model::Ack {
            message_id: "a".to_owned(),
            cluster: String::new(),
            container_instance: String::new(),
            credentials: Vec::new(),
        });
        let _full = rig.outgoing.try_send(ack);
    }
    let again = rig.next().await;
    let lasted = again.at - began;
    assert!(lasted >= secs(180) && lasted <= secs(181), "{lasted:?}");
    // The queued answers belong to the old connection and are not sent.
    let mut socket = again.socket().await;
    socket.send(heartbeat("first")).await.unwrap();
    expect_heartbeat(&mut socket, "first").await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_takes_nothing_slows_acs_down_and_loses_nothing() {
    const FLOOD: usize = 10_000;
    let mut rig = Rig::start();
    let mut socket = rig.next().await.socket().await;
    assert_eq!(rig.incoming.recv().await, Some(Incoming::Connected));
    // As long as the queue has room, heartbeats are answered.
    for timeline in 0..MAX_WAITING / 2 {
        socket.send(manifest(timeline)).await.unwrap();
    }
    socket.send(heartbeat("while there is room")).await.unwrap();
    expect_heartbeat(&mut socket, "while there is room").await;
    let (mut sink, mut stream) = socket.split();
    let flood = async {
        for timeline in MAX_WAITING / 2..FLOOD {
            sink.send(manifest(timeline)).await.unwrap();
        }
        sink.send(heartbeat("after the flood")).await.unwrap();
    };
    tokio::pin!(flood);
    // Then reading stops, so the connection fills up, not the memory. Ten minutes of that do not end the connection.
    let sent = tokio::time::timeout(secs(600), &mut flood);
    assert!(sent.await.is_err(), "ten thousand messages were read");
    let mut taken = 0;
    let take = async {
        while taken < FLOOD {
            let Some(Incoming::Manifest { timeline, .. }) = rig.incoming.recv().await else { panic!("after {taken}") };
            assert_eq!(timeline, taken as i64, "in order, each once");
            taken += 1;
        }
    };
    tokio::join!(take, flood);
    let ack = stream.next().await.unwrap().unwrap();
    assert!(ack.to_text().unwrap().contains("after the flood"), "on the same connection");
}

#[tokio::test(start_paused = true)]
async fn few_large_messages_fill_the_queue() {
    let mut rig = Rig::start();
    let mut socket = rig.next().await.socket().await;
    assert_eq!(rig.incoming.recv().await, Some(Incoming::Connected));
    let large = json!({"messageId": "m", "timeline": 1, "filler": "x".repeat(MAX_MESSAGE / 2)});
    let large = Message::text(json!({"type": "TaskManifestMessage", "message": large}).to_string());
    let mut sent = 0;
    // One is in the channel to the agent, two fill the queue, and one more may be in the connection.
    while tokio::time::timeout(secs(30), socket.send(large.clone())).await.is_ok() {
        sent += 1;
        assert!(sent <= MAX_WAITING_BYTES / (MAX_MESSAGE / 2) + 2, "the memory is not limited");
    }
    assert!(sent >= 2, "{sent}");
}

#[tokio::test(start_paused = true)]
async fn an_endless_flow_of_heartbeats_is_answered() {
    let mut rig = Rig::start();
    let (mut sink, mut stream) = rig.next().await.socket().await.split();
    let flood = async {
        for count in 0..10_000 {
            sink.send(heartbeat(&count.to_string())).await.unwrap();
        }
    };
    let answers = async {
        let mut count = 0;
        while let Ok(Some(Ok(message))) = tokio::time::timeout(secs(5), stream.next()).await {
            count += usize::from(message.is_text());
        }
        count
    };
    let ((), answered) = tokio::join!(flood, answers);
    // An answer is dropped if the queue is full, which is rare with a peer that reads.
    assert!(answered > 9_000, "{answered}");
}

#[tokio::test(start_paused = true)]
async fn a_message_without_end_is_refused_with_the_right_code() {
    let mut rig = Rig::start();
    let mut socket = rig.next().await.socket().await;
    let send = async {
        let _cut_off = socket.send(Message::text("x".repeat(5 * MAX_MESSAGE))).await;
        closed(&mut socket).await
    };
    let frame = send.await;
    assert!(frame.is_none_or(|frame| frame.code == CloseCode::Size));
    let again = rig.next().await;
    let mut socket = again.socket().await;
    // The longest message that is accepted.
    let envelope = json!({"type": "HeartbeatMessage", "message": {"messageId": "h", "filler": ""}}).to_string();
    let filler = "x".repeat(MAX_MESSAGE - envelope.len());
    let filled = envelope.replace(r#""filler":"""#, &format!(r#""filler":"{filler}""#));
    assert_eq!(filled.len(), MAX_MESSAGE);
    socket.send(Message::text(filled)).await.unwrap();
    expect_heartbeat(&mut socket, "h").await;
}

#[tokio::test(start_paused = true)]
async fn a_message_may_come_in_fragments_or_as_binary() {
    let mut rig = Rig::start();
    let mut line = rig.next().await.line;
    let text = json!({"type": "HeartbeatMessage", "message": {"messageId": "h"}}).to_string();
    // The text in one-byte fragments with pings between them, then as a binary message.
    let mut bytes = Vec::new();
    for (at, byte) in text.bytes().enumerate() {
        let (opcode, end) = (u8::from(at == 0), u8::from(at + 1 == text.len()) << 7);
        bytes.extend([opcode | end, 1, byte, 0x89, 1, b'p']);
    }
    bytes.extend([0x8a, 0]); // an unsolicited pong
    bytes.extend([0x82, text.len() as u8]);
    bytes.extend(text.bytes());
    for byte in bytes {
        line.write_all(&[byte]).await.unwrap();
    }
    let mut socket = WebSocketStream::from_raw_socket(line, Role::Server, None).await;
    let mut pongs = 0;
    for _ in 0..2 {
        let answer = loop {
            match socket.next().await.unwrap().unwrap() {
                Message::Pong(_) => pongs += 1,
                Message::Text(text) => break text,
                other => panic!("{other:?}"),
            }
        };
        assert!(answer.as_str().contains(r#""messageId":"h""#));
    }
    assert!(pongs >= 1, "pings are answered");
}

#[tokio::test(start_paused = true)]
async fn text_that_is_not_utf_8_ends_no_connection() {
    let mut rig = Rig::start();
    let mut line = rig.next().await.line;
    let mut text = br#"{"type":"HeartbeatMessage","message":{"messageId":"a"#.to_vec();
    text.extend(b"\xff\"}}");
    // In one frame, and in two frames that split a character.
    let whole = "{\"type\":\"HeartbeatMessage\",\"message\":{\"messageId\":\"\u{1f433}\"}}".as_bytes();
    let half = whole.len() - 5;
    let mut bytes = vec![0x81, text.len() as u8];
    bytes.extend(&text);
    bytes.extend([0x01, half as u8]);
    bytes.extend(&whole[..half]);
    bytes.extend([0x80, (whole.len() - half) as u8]);
    bytes.extend(&whole[half..]);
    line.write_all(&bytes).await.unwrap();
    let mut socket = WebSocketStream::from_raw_socket(line, Role::Server, None).await;
    expect_heartbeat(&mut socket, "a\u{fffd}").await;
    expect_heartbeat(&mut socket, "\u{1f433}").await;
    socket.send(heartbeat("still there")).await.unwrap();
    expect_heartbeat(&mut socket, "still there").await;
}

#[tokio::test(start_paused = true)]
async fn answers_without_a_connection_are_dropped_at_once() {
    let mut rig = Rig::start();
    drop(rig.next().await.line);
    rig.refusals.lock().unwrap().push_back(NextStep::WaitForRegistration);
    assert_eq!(rig.message().await, Incoming::Deregistered);
    for count in 0..10_000_u32 {
        let answer = Outgoing::StopVerification {
            message_id: count.to_string(),
            cluster: String::new(),
            candidates: Vec::new(),
        };
        rig.outgoing.send(answer).await.unwrap(); // far more than the channel holds
    }
    let mut socket = rig.next().await.socket().await;
    socket.send(heartbeat("first")).await.unwrap();
    expect_heartbeat(&mut socket, "first").await;
}

#[tokio::test(start_paused = true)]
async fn the_session_ends_on_cancel_in_every_state() {
    // While connected, during a write that waits, during a pause.
    for case in 0..3 {
        let mut rig = Rig::start();
        let accepted = rig.next().await;
        match case {
            0 => {}
            1 => {
                let candidates = vec!["arn:aws:ecs:us-west-2:123456789012:task/judge/0".into(); 2000];
                let question =
                    Outgoing::StopVerification { message_id: String::new(), cluster: String::new(), candidates };
                rig.outgoing.send(question).await.unwrap();
                tokio::time::sleep(secs(1)).await;
            }
            _ => {
                rig.refusals.lock().unwrap().push_back(NextStep::WaitForRegistration);
                drop(accepted);
                assert_eq!(rig.message().await, Incoming::Deregistered);
            }
        }
        let stopped_at = Instant::now();
        rig.cancel.cancel();
        rig.session.join_next().await.unwrap().unwrap();
        assert!(stopped_at.elapsed() <= secs(1), "case {case}: {:?}", stopped_at.elapsed());
    }
}
