//! The fuzz target of messages from TCS.

use super::decode;
use crate::input::fuzz::assert_clean;
use crate::websocket::Read;

/// Decodes a message from TCS.
///
/// # Panics
/// If the message reaches the agent or is answered, or if a text for the log is not one bounded line.
pub fn tcs_frame(data: &[u8]) {
    match decode::frame(data) {
        Read::Accept => {}
        Read::Complaint(text) | Read::Drop(text) => assert_clean(&text),
        other => panic!("no message of TCS has an effect: {other:?}"),
    }
}
