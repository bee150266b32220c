//! Decodes the messages of TCS (spec `tcs.md` §1). Pure.
//!
//! None of them has an effect on the agent: acknowledgements and heartbeats show that the connection works, and everything else is
//! for the log. Invariant: a text for the log is one bounded line.

use super::Incoming;
use crate::input::envelope::{Types, note};
use crate::websocket::Read;
use ecs_core::model::text::cleaned;

/// The types of messages that TCS sends.
const TYPES: [&str; 9] = [
    "HeartbeatMessage",
    "AckPublishMetric",
    "AckPublishHealth",
    "AckPublishInstanceStatus",
    "StopTelemetrySessionMessage",
    "ServerException",
    "BadRequestException",
    "ResourceValidationException",
    "InvalidParameterException",
];

/// The types that consist of a text only, and may come in the bare form.
const TEXT_ONLY: [&str; 5] = [
    "StopTelemetrySessionMessage",
    "ServerException",
    "BadRequestException",
    "ResourceValidationException",
    "InvalidParameterException",
];

/// Decodes one frame. Bytes that are not UTF-8 become U+FFFD.
pub(super) fn frame(bytes: &[u8]) -> Read<Incoming> {
    let text = String::from_utf8_lossy(bytes);
    match (Types { all: &TYPES, text_only: &TEXT_ONLY }).envelope(&text) {
        Ok((kind, body)) if TEXT_ONLY.contains(&kind) => Read::Complaint(cleaned(&note("TCS", kind, body))),
        Ok(_) => Read::Accept,
        Err(why) => Read::Drop(cleaned(&why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_acknowledgements_and_heartbeats_keep_the_connection() {
        for kind in TYPES {
            let text = format!(r#"{{"type":"{kind}","message":{{"message":"no such cluster","healthy":true}}}}"#);
            match frame(text.as_bytes()) {
                Read::Accept => assert!(kind.starts_with("AckPublish") || kind == "HeartbeatMessage", "{kind}"),
                Read::Complaint(text) => {
                    assert!(kind.ends_with("Exception") || kind == "StopTelemetrySessionMessage", "{kind}");
                    assert_eq!(text, format!("{kind} from TCS: \"no such cluster\""));
                }
                other => panic!("{kind}: {other:?}"),
            }
        }
    }

    #[test]
    fn forms_of_a_complaint_are_read_and_nonsense_is_dropped() {
        let complaint = |text: &str| match frame(text.as_bytes()) {
            Read::Complaint(text) => text,
            other => format!("{other:?}"),
        };
        assert_eq!(complaint(r#"{"ServerException":"try\nlater"}"#), r#"ServerException from TCS: "try later""#);
        assert_eq!(complaint(r#"{"type":"ServerException"}"#), "ServerException from TCS");
        assert!(complaint(&format!(r#"{{"ServerException":"{}"}}"#, "x".repeat(5000))).len() < 400);
        for text in ["", "nonsense", "[]", "{}", r#"{"type":"PayloadMessage","message":{}}"#, r#"{"type":7}"#] {
            assert!(matches!(frame(text.as_bytes()), Read::Drop(_)), "{text}");
        }
        assert!(matches!(frame(b"\xff{"), Read::Drop(_)));
    }
}
