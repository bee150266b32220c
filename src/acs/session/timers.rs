//! The session against a peer in memory, in paused time: timers of hours pass at once, and nothing depends on a real network.

use super::super::exchange::{MAX_WAITING, MAX_WAITING_BYTES};
use super::*;
use crate::websocket::MAX_MESSAGE;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

/// What the line between the two holds in each direction.
const LINE: usize = 64 * 1024;

/// The peer's end of one connection.
struct Accepted {
    line: DuplexStream,
    first: bool,
    at: Instant,
}

impl Accepted {
    async fn socket(self) -> WebSocketStream<DuplexStream> {
        WebSocketStream::from_raw_socket(self.line, Role::Server, None).await
    }
}

/// A running session and the peer's end of it.
struct Rig {
    accepted: mpsc::UnboundedReceiver<Accepted>,
    /// What attempts to connect end with before one succeeds.
    refusals: Arc<Mutex<VecDeque<Next>>>,
    incoming: mpsc::Receiver<Incoming>,
    outgoing: mpsc::Sender<Outgoing>,
    cancel: CancellationToken,
    session: JoinSet<()>,
}

impl Rig {
    fn start() -> Self {
        let (inbox, incoming) = mpsc::channel(1);
        let (outgoing, outbox) = mpsc::channel(256);
        let (accept, accepted) = mpsc::unbounded_channel();
        let cancel = CancellationToken::new();
        let refusals = Arc::new(Mutex::new(VecDeque::new()));
        let (refused, exchange) = (refusals.clone(), Exchange::new(inbox, outbox, cancel.clone()));
        let mut session = JoinSet::new();
        session.spawn(async move {
            let connect = |first| {
                let (refused, accept) = (refused.lock().unwrap().pop_front(), &accept);
                async move {
                    if let Some(next) = refused {
                        return Err(next);
                    }
                    let (ours, line) = duplex(LINE);
                    accept.send(Accepted { line, first, at: Instant::now() }).unwrap();
                    let limits = Some(crate::websocket::limits());
                    Ok(WebSocketStream::from_raw_socket(ours, Role::Client, limits).await)
                }
            };
            keep(Timing::default(), &HostFacts::default(), connect, exchange).await;
        });
        Self { accepted, refusals, incoming, outgoing, cancel, session }
    }

    async fn next(&mut self) -> Accepted {
        self.accepted.recv().await.expect("the session has ended")
    }

    /// The next message for the agent that is not about the connection.
    async fn message(&mut self) -> Incoming {
        loop {
            match self.incoming.recv().await.expect("the session has ended") {
                Incoming::Connected => {}
                message => return message,
            }
        }
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn heartbeat(id: &str) -> Message {
    Message::text(json!({"type": "HeartbeatMessage", "message": {"messageId": id, "healthy": true}}).to_string())
}

fn manifest(timeline: usize) -> Message {
    let message = json!({"messageId": "m", "timeline": timeline, "tasks": []});
    Message::text(json!({"type": "TaskManifestMessage", "message": message}).to_string())
}

/// The next text of the agent; everything else on the way to it is passed over.
async fn hear(socket: &mut WebSocketStream<DuplexStream>) -> Value {
    loop {
        if let Message::Text(text) = socket.next().await.expect("the end").expect("no error") {
            return serde_json::from_str(text.as_str()).unwrap();
        }
    }
}

async fn heard_heartbeat(socket: &mut WebSocketStream<DuplexStream>, id: &str) {
    assert_eq!(hear(socket).await, json!({"type": "HeartbeatAckRequest", "message": {"messageId": id}}));
}

/// The close frame that ends the connection.
async fn closed(socket: &mut WebSocketStream<DuplexStream>) -> Option<CloseFrame> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Close(frame))) => return frame,
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return None,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_recognised_messages_keep_a_connection() {
    let mut rig = Rig::start();
    let mut socket = rig.next().await.socket().await;
    // Kept for half an hour by messages that count, also such as nothing is done about and such as are not valid.
    let counts = [
        r#"{"type":"CloseMessage","message":{}}"#,
        r#"{"InactiveInstanceException":"in-band errors are only noted"}"#,
        r#"{"type":"PayloadMessage","message":{}}"#,
        r#"{"type":"AckRequest"}"#,
    ];
    for round in 0..28 {
        tokio::time::sleep(secs(59)).await;
        socket.send(Message::text(counts[round % counts.len()])).await.unwrap();
    }
    socket.send(heartbeat("still there")).await.unwrap();
    heard_heartbeat(&mut socket, "still there").await;
    let last = Instant::now();
    // None of these does, and the connection ends a minute or two after the last that did.
    let nothing = ["", "{", "[]", r#"{"type":"Nobody"}"#, r#"{"type":"HeartbeatMessage","message":{"messageId":5}}"#];
    let mut nothing = nothing.into_iter().cycle();
    loop {
        tokio::time::sleep(secs(5)).await;
        let text = Message::text(nothing.next().unwrap());
        let sent = [socket.send(Message::Ping(Vec::new().into())).await, socket.send(text).await];
        if sent.iter().any(Result::is_err) {
            break;
        }
    }
    let again = rig.next().await;
    let lasted = again.at - last;
    assert!(lasted >= secs(60) && lasted <= secs(121), "{lasted:?}");
    assert!(!again.first);
}

#[tokio::test(start_paused = true)]
async fn a_half_open_connection_is_given_up_and_made_anew_after_the_backoff() {
    let mut rig = Rig::start();
    let mut last = rig.next().await;
    let mut held = Vec::new();
    for _ in 0..20 {
        let next = rig.next().await;
        // 60 to 120 s of silence, then the back-off: short, for a connection of that age mostly counts as good.
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
            // The echo is stuck. What ACS goes on saying is not answered, and does not keep the connection for ever.
            let again = rig.next().await;
            assert!(again.at - asked >= secs(60) && again.at - asked <= secs(121), "{:?}", again.at - asked);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_connection_decides_about_the_next() {
    // How it ends; and whether the next attempt is made at once, after the back-off, or in an hour.
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
        ("text that is no UTF-8", vec![0x81, 2, 0xff, 0xfe], LATER),
        ("a continuation of nothing", vec![0x80, 0], LATER),
        ("a fragmented ping", vec![0x09, 0], LATER),
        ("a ping that is too long", [&[0x89, 126, 0, 200], [0; 200].as_slice()].concat(), LATER),
    ];
    for (what, bytes, (least, most)) in table {
        let mut rig = Rig::start();
        let mut accepted = rig.next().await;
        tokio::time::sleep(secs(2)).await;
        accepted.line.write_all(&bytes).await.unwrap();
        let ended = Instant::now();
        let mut rest = Vec::new();
        if most == 0 {
            drop(accepted.line);
        } else {
            // Whatever it still says, its end closes.
            accepted.line.read_to_end(&mut rest).await.unwrap();
        }
        let again = rig.next().await;
        let waited = (again.at - ended).as_millis() as u64;
        assert!((least..=most).contains(&waited), "{what}: {waited} ms");
        assert!(!again.first, "{what}");
        if least >= 3_600_000 {
            assert_eq!(rig.message().await, Incoming::Deregistered, "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_back_off_and_a_connection_that_lasts_starts_over() {
    let mut rig = Rig::start();
    let began = rig.next().await.at;
    rig.refusals.lock().unwrap().extend([Next::ReconnectLater; 20]);
    let after = rig.next().await;
    // The first connection was too short to be replaced at once. 250 ms, then times 1.5 up to 120 s: 21 pauses.
    let pauses = (0..21).map(|attempt| f64::min(0.25 * 1.5f64.powi(attempt), 120.0)).sum::<f64>();
    let waited = (after.at - began).as_secs_f64();
    assert!(waited >= pauses * 0.99 && waited <= pauses * 1.21, "{waited} s for {pauses} s");
    // A broken connection that lasted two minutes starts over: 250 ms.
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
async fn a_deregistered_instance_asks_again_every_hour_and_tells_it() {
    let mut rig = Rig::start();
    rig.refusals.lock().unwrap().extend([Next::WaitForRegistration; 2]);
    let began = Instant::now();
    for _ in 0..2 {
        assert_eq!(rig.message().await, Incoming::Deregistered);
    }
    let accepted = rig.next().await;
    assert!(accepted.first, "no connection stood yet: credentials are asked for");
    assert_eq!(accepted.at - began, secs(2 * 3600));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_is_still_listened_to_and_given_up_in_the_end() {
    let mut rig = Rig::start();
    let accepted = rig.next().await;
    let (began, mut line) = (accepted.at, accepted.line);
    // An answer that does not fit on the line: writing hangs.
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
        assert_eq!(timeline, round as i64, "what ACS says is heard while nothing can be written");
    }
    // Answers meanwhile: some wait, the rest is dropped, and nobody is held up.
    for _ in 0..1000 {
        let ack = Outgoing::Ack(crate::model::Ack {
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
    // What was left belongs to the old connection.
    let mut socket = again.socket().await;
    socket.send(heartbeat("first")).await.unwrap();
    heard_heartbeat(&mut socket, "first").await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_takes_nothing_slows_acs_down_and_loses_nothing() {
    const FLOOD: usize = 10_000;
    let mut rig = Rig::start();
    let mut socket = rig.next().await.socket().await;
    assert_eq!(rig.incoming.recv().await, Some(Incoming::Connected));
    // As long as there is room heartbeats are answered.
    for timeline in 0..MAX_WAITING / 2 {
        socket.send(manifest(timeline)).await.unwrap();
    }
    socket.send(heartbeat("while there is room")).await.unwrap();
    heard_heartbeat(&mut socket, "while there is room").await;
    let (mut sink, mut stream) = socket.split();
    let flood = async {
        for timeline in MAX_WAITING / 2..FLOOD {
            sink.send(manifest(timeline)).await.unwrap();
        }
        sink.send(heartbeat("after the flood")).await.unwrap();
    };
    tokio::pin!(flood);
    // Then it stops: the line is full, not the memory; and ten minutes of it end no connection.
    let patience = tokio::time::timeout(secs(600), &mut flood);
    assert!(patience.await.is_err(), "ten thousand messages were swallowed");
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
async fn large_messages_fill_the_room_sooner() {
    let mut rig = Rig::start();
    let mut socket = rig.next().await.socket().await;
    assert_eq!(rig.incoming.recv().await, Some(Incoming::Connected));
    let large = json!({"messageId": "m", "timeline": 1, "filler": "x".repeat(MAX_MESSAGE / 2)});
    let large = Message::text(json!({"type": "TaskManifestMessage", "message": large}).to_string());
    let mut sent = 0;
    // One is with the agent's end of the channel, two fill the room, one more may be on the line.
    while tokio::time::timeout(secs(30), socket.send(large.clone())).await.is_ok() {
        sent += 1;
        assert!(sent <= MAX_WAITING_BYTES / (MAX_MESSAGE / 2) + 2, "memory is not bounded");
    }
    assert!(sent >= 2, "{sent}");
}

#[tokio::test(start_paused = true)]
async fn heartbeats_without_end_are_answered_without_end() {
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
    // An answer that finds the queue full is dropped; a peer that reads finds it full rarely, if ever.
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
    // The longest that is taken.
    let envelope = json!({"type": "HeartbeatMessage", "message": {"messageId": "h", "filler": ""}}).to_string();
    let filler = "x".repeat(MAX_MESSAGE - envelope.len());
    let longest = envelope.replace(r#""filler":"""#, &format!(r#""filler":"{filler}""#));
    assert_eq!(longest.len(), MAX_MESSAGE);
    socket.send(Message::text(longest)).await.unwrap();
    heard_heartbeat(&mut socket, "h").await;
}

#[tokio::test(start_paused = true)]
async fn frames_of_any_kind_make_one_message() {
    let mut rig = Rig::start();
    let mut line = rig.next().await.line;
    let text = json!({"type": "HeartbeatMessage", "message": {"messageId": "h"}}).to_string();
    // Text in one-byte fragments with pings between them; then as a binary message.
    let mut bytes = Vec::new();
    for (at, byte) in text.bytes().enumerate() {
        let (opcode, end) = (u8::from(at == 0), u8::from(at + 1 == text.len()) << 7);
        bytes.extend([opcode | end, 1, byte, 0x89, 1, b'p']);
    }
    bytes.extend([0x8a, 0]); // a pong nobody asked for
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
async fn answers_without_a_connection_are_dropped_and_hold_nobody_up() {
    let mut rig = Rig::start();
    drop(rig.next().await.line);
    rig.refusals.lock().unwrap().push_back(Next::WaitForRegistration);
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
    heard_heartbeat(&mut socket, "first").await;
}

#[tokio::test(start_paused = true)]
async fn the_session_ends_when_told_whatever_it_does() {
    // While connected, with a write that hangs, in a pause.
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
                rig.refusals.lock().unwrap().push_back(Next::WaitForRegistration);
                drop(accepted);
                assert_eq!(rig.message().await, Incoming::Deregistered);
            }
        }
        let told = Instant::now();
        rig.cancel.cancel();
        rig.session.join_next().await.unwrap().unwrap();
        assert!(told.elapsed() <= secs(1), "case {case}: {:?}", told.elapsed());
    }
}
