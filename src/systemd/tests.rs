use super::message::{Call, HEAD, Reply, decode, rest};
use super::*;
use proptest::prelude::*;
use tokio::net::UnixListener;

/// An answer as a daemon sends it: fields, then a text.
fn answer(kind: u8, serial: u32, error: &str, text: &str) -> Vec<u8> {
    let mut fields = Vec::new();
    if !error.is_empty() {
        fields.extend([4, 1, b's', 0]);
        fields.extend((error.len() as u32).to_le_bytes());
        fields.extend(error.as_bytes());
        fields.push(0);
        fields.resize(fields.len().next_multiple_of(8), 0);
    }
    fields.extend([5, 1, b'u', 0]);
    fields.extend(serial.to_le_bytes());
    fields.extend([8, 1, b'g', 0, 1, b's', 0]);
    let mut body = (text.len() as u32).to_le_bytes().to_vec();
    body.extend(text.as_bytes());
    body.push(0);
    let mut out = vec![b'l', kind, 1, 1];
    out.extend((body.len() as u32).to_le_bytes());
    out.extend(7_u32.to_le_bytes());
    out.extend((fields.len() as u32).to_le_bytes());
    fields.resize(fields.len().next_multiple_of(8), 0);
    out.extend(fields);
    out.extend(body);
    out
}

fn decoded(bytes: &[u8]) -> Option<Reply> {
    let (head, behind) = bytes.split_first_chunk::<HEAD>()?;
    assert_eq!(rest(head)? as usize, behind.len());
    decode(head, behind)
}

#[test]
fn a_call_is_laid_out_as_the_specification_says() {
    let mut call = Call::new(("d", "/p", "i", "M"));
    call.text("n").properties(&[("F", Property::Flag(true)), ("N", Property::Number(5))]).no_auxiliary_units();
    let bytes = call.encode(1);
    let fields =
        b"\x01\x01o\0\x02\0\0\0/p\0\0\0\0\0\0\x02\x01s\0\x01\0\0\0i\0\0\0\0\0\0\0\x03\x01s\0\x01\0\0\0M\0\0\0\0\0\0\0\
        \x06\x01s\0\x01\0\0\0d\0\0\0\0\0\0\0\x08\x01g\0\x0fsa(sv)a(sa(sv))\0";
    let mut wanted = b"l\x01\0\x01".to_vec();
    wanted.extend((bytes.len() as u32 - 16 - fields.len().next_multiple_of(8) as u32).to_le_bytes());
    wanted.extend(1_u32.to_le_bytes());
    wanted.extend((fields.len() as u32).to_le_bytes());
    wanted.extend(fields);
    wanted.resize(wanted.len().next_multiple_of(8), 0);
    assert_eq!(bytes[..wanted.len()], wanted);
    let body = &bytes[wanted.len()..];
    assert_eq!(body[..6], *b"\x01\0\0\0n\0");
    // The list begins at 8: its length, padding to 16, two structures at multiples of 8, then the empty list.
    let length = u32::from_le_bytes(body[8..12].try_into().unwrap()) as usize;
    assert_eq!(body[16..32], *b"\x01\0\0\0F\0\x01b\0\0\0\0\x01\0\0\0");
    assert_eq!(body[32..56], *b"\x01\0\0\0N\0\x01t\0\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0");
    assert_eq!((length, body.len()), (40, 64));
    assert_eq!(body[56..], [0; 8]);
}

#[test]
fn answers_refusals_and_other_messages_are_distinguished() {
    assert_eq!(decoded(&answer(2, 3, "", "/job")), Some(Reply::Done(3)));
    let refused = decoded(&answer(3, 4, "org.freedesktop.systemd1.NoSuchUnit", "not loaded."));
    let name = "org.freedesktop.systemd1.NoSuchUnit".to_owned();
    assert_eq!(refused, Some(Reply::Failed(4, name, "not loaded.".to_owned())));
    assert_eq!(decoded(&answer(4, 3, "", "")), Some(Reply::Other));
    let mut other_order = answer(2, 3, "", "");
    other_order[0] = b'B';
    assert_eq!(rest(other_order.first_chunk().unwrap()), None);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(head: [u8; HEAD], body in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = (rest(&head), decode(&head, &body));
    }
}

/// Answers each call in turn, like a bus with systemd behind it; a signal comes before each answer.
pub(crate) async fn bus(listener: UnixListener, answers: Vec<(u8, &'static str)>) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut greeting = [0; 22];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"\0AUTH EXTERNAL\r\nDATA\r\n");
    stream.write_all(b"DATA\r\nOK 1234\r\n").await.unwrap();
    let mut begin = [0; 7];
    stream.read_exact(&mut begin).await.unwrap();
    let hello = std::iter::once((2, ""));
    for (serial, (kind, error)) in (1..).zip(hello.chain(answers)) {
        let mut head = [0; HEAD];
        stream.read_exact(&mut head).await.unwrap();
        stream.read_exact(&mut vec![0; rest(&head).unwrap() as usize]).await.unwrap();
        stream.write_all(&answer(4, 99, "", "a signal")).await.unwrap();
        stream.write_all(&answer(kind, serial, error, "text")).await.unwrap();
    }
}

#[tokio::test]
async fn a_finished_change_is_success_and_a_refusal_is_an_error() {
    let path = std::env::temp_dir().join(format!("ecs-test-bus-{}", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let answers = vec![
        (2, ""),
        (3, "org.freedesktop.systemd1.UnitExists"),
        (3, "org.freedesktop.systemd1.NoSuchUnit"),
        (3, "org.freedesktop.DBus.Error.AccessDenied"),
    ];
    let calls = async {
        let mut systemd = Systemd::connect_to(&path, true).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        systemd.start_slice("a.slice", &[]).await.unwrap();
        systemd.start_slice("a.slice", &[("TasksMax", Property::Number(5))]).await.unwrap();
        systemd.stop_unit("a.slice").await.unwrap();
        let refused = systemd.stop_unit("a.slice").await.unwrap_err();
        assert_eq!(refused.to_string(), "org.freedesktop.DBus.Error.AccessDenied: text");
        assert!(matches!(systemd.stop_unit("a.slice").await, Err(SystemdError::Cut(_))), "the bus has gone");
    };
    tokio::join!(calls, bus(listener, answers));
    assert!(matches!(Systemd::connect_to(&path, true).await, Err(SystemdError::Unreachable(_))));
}
