//! The signature of a message: lines of an HTTP header, an empty line, the message (spec `tcs.md` §2).
//!
//! Owns the form of these lines. The invariant: the result contains keys, so it goes to the connection and nowhere else.

use crate::aws::client::signature::Signed;
use crate::aws::client::signing::{MayBeRefusal, Refusal};
use crate::aws::client::words;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use std::fmt::Write;
use std::time::SystemTime;
use url::{Position, Url};

/// The lines, in their order.
const LINES: [&str; 3] = ["Authorization", "X-Amz-Date", "X-Amz-Security-Token"];

/// Why a message is not signed. The text has no key.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct FrameError(String);

impl FrameError {
    /// There is no connection whose address could be signed.
    pub(super) fn unconnected() -> Self {
        Self("there is no connection".to_owned())
    }
}

impl From<CredentialsError> for FrameError {
    fn from(error: CredentialsError) -> Self {
        Self(words::credentials_error(&error))
    }
}

impl MayBeRefusal for FrameError {
    /// TCS does not answer a message, so it cannot refuse one.
    fn refusal(&self) -> Option<Refusal<'_>> {
        None
    }
}

/// The message with its signature. `url` is the address of the connection, with its query.
pub(super) fn signed(
    url: &Url,
    region: &str,
    keys: Credentials,
    at: SystemTime,
    message: &str,
) -> Result<String, FrameError> {
    let request = Signed { at, region, service: "ecs", method: "GET", url, headers: &[], body: message.as_bytes() };
    let headers = request.headers(keys).map_err(|error| FrameError(error.to_string()))?;
    let mut text = String::with_capacity(message.len() + 2048);
    for name in LINES {
        let Some(value) = headers.get(name) else { continue };
        let value = value.to_str().map_err(|_| FrameError(format!("the header {name} is not printable")))?;
        let _infallible = write!(text, "{name}: {value}\r\n");
        if name == "Authorization" {
            let _infallible = write!(text, "Host: {}\r\n", &url[Position::BeforeHost..Position::AfterPort]);
        }
    }
    text.push_str("\r\n");
    text.push_str(message);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn keys(token: Option<&str>) -> Credentials {
        Credentials::new("ASIAINSTANCEROLE0001", "secret", token.map(str::to_owned), None, "test")
    }

    fn lines(token: Option<&str>, url: &str) -> Vec<String> {
        let at = UNIX_EPOCH + Duration::from_secs(1_795_304_217);
        let text = signed(&Url::parse(url).unwrap(), "us-west-2", keys(token), at, "{}").unwrap();
        let (head, message) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(message, "{}");
        head.split("\r\n").map(str::to_owned).collect()
    }

    #[test]
    fn the_lines_are_the_recorded_ones() {
        let path = format!("{}/tests/golden/tcs_publish_health.json", env!("CARGO_MANIFEST_DIR"));
        let golden: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let recorded: Vec<&str> =
            golden["preamble_lines"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
        let mut ours = lines(Some("REDACTED"), "http://127.0.0.1:14566/tcs/ws?a=b");
        let (shown, signature) = ours[0].split_once("Signature=").unwrap();
        assert!(signature.len() == 64 && signature.bytes().all(|byte| byte.is_ascii_hexdigit()), "{signature}");
        ours[0] = format!("{shown}Signature=REDACTED");
        assert_eq!(ours[0].replace("20261122", "20261121"), recorded[0]);
        assert_eq!(ours[1], recorded[1]);
        assert_eq!(ours[2], "X-Amz-Date: 20261121T233657Z");
        assert_eq!(ours[2..], recorded[2..]);
    }

    #[test]
    fn keys_without_a_token_have_no_line_for_it() {
        let lines = lines(None, "https://ecs-t-1.us-west-2.amazonaws.com/ws?a=b");
        assert_eq!(lines.len(), 3);
        assert!(lines[0].contains("SignedHeaders=host;x-amz-date, "), "{}", lines[0]);
        assert_eq!(lines[1], "Host: ecs-t-1.us-west-2.amazonaws.com");
    }

    #[test]
    fn unusable_keys_are_an_error_without_the_keys() {
        let url = Url::parse("https://example.com/ws").unwrap();
        let error = signed(&url, "us-west-2", keys(Some("to\nken")), UNIX_EPOCH, "{}").unwrap_err();
        assert!(!error.to_string().contains("ken\""), "{error}");
        assert!(error.to_string().contains("session token"), "{error}");
    }
}
