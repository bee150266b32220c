//! The fuzz target of messages from ACS.

use super::decode::{self, Frame};
use super::{HostFacts, Incoming, Outgoing};
use crate::input::fuzz::assert_clean;

/// Decodes a frame from ACS and encodes its answers.
///
/// # Panics
/// If a property of the decoder does not hold.
pub fn acs_frame(data: &[u8]) {
    let host = HostFacts { gpus: true, credential_specs: true, region: "us-west-2".to_owned(), ..HostFacts::default() };
    let mut ids = 0;
    let mut new_id = || {
        ids += 1;
        format!("id-{ids}")
    };
    match decode::frame(data, &host, &mut new_id) {
        Frame::Answer(answer, note) => {
            assert_is_message(&answer);
            note.iter().for_each(|note| assert_clean(note));
        }
        Frame::Heartbeat(answer, _) => assert_is_message(&answer),
        Frame::Accept => {}
        Frame::Complaint(text) | Frame::Note(text) | Frame::Invalid(text) | Frame::Drop(text) => assert_clean(&text),
        Frame::Deliver(Incoming::Payload { ack, .. } | Incoming::Manifest { ack, .. }, note) => {
            note.iter().for_each(|note| assert_clean(note));
            decode::encode(&Outgoing::Ack(ack)).iter().for_each(|answer| assert_is_message(answer));
        }
        Frame::Deliver(_, note) => note.iter().for_each(|note| assert_clean(note)),
    }
}

fn assert_is_message(answer: &str) {
    let answer: serde_json::Value = serde_json::from_str(answer).expect("an answer is JSON");
    assert!(answer["type"].is_string() && answer["message"].is_object());
}
