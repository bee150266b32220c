//! What the runtime carries out for containers, and the reading of request bodies.
//!
//! Owns the bounds of a body, and decodes it as Go decodes JSON into a structure: names match in any case, `null` means "not
//! set", and whatever follows the first value is ignored.

use crate::input::members::{self, Members};
use axum::body::{Body, to_bytes};
use ecs_core::model::fault::{FaultError, FaultNetwork, FaultOperation, FaultStatus, Interfaces};
use ecs_core::model::protection::{ProtectionAnswer, ProtectionCall, ProtectionError};
use ecs_core::model::text::cut;
use ecs_core::model::{CredentialsId, TaskArn};
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::RawValue;
use std::fmt::Debug;
use std::io;
use std::sync::Arc;

/// Upper limit of a body in bytes: room for some thousand addresses.
const MAX_BODY: usize = 64 * 1024;
/// Upper limit of a value as an error shows it, in bytes.
const MAX_SHOWN: usize = 64;

/// Calls ECS about the protection of tasks.
pub trait TaskProtection: Debug + Send + Sync {
    /// Makes a call about this task with the credentials of its role.
    fn call(
        &self,
        task: TaskArn,
        role: CredentialsId,
        call: ProtectionCall,
    ) -> BoxFuture<'static, Result<ProtectionAnswer, ProtectionError>>;
}

/// Starts and stops network faults.
pub trait FaultInjector: Debug + Send + Sync {
    /// The network interfaces of the host's default routes.
    ///
    /// # Errors
    /// The kernel does not show its routes.
    fn host_interfaces(&self) -> io::Result<Interfaces>;

    /// Carries out an operation within its time limit.
    fn carry_out(
        &self,
        network: FaultNetwork,
        operation: FaultOperation,
    ) -> BoxFuture<'static, Result<FaultStatus, FaultError>>;
}

/// The work that the runtime carries out for containers.
#[derive(Clone, Debug)]
pub struct Work {
    /// Calls ECS about the protection of tasks.
    pub protection: Arc<dyn TaskProtection>,
    /// Starts and stops network faults.
    pub faults: Arc<dyn FaultInjector>,
}

/// The body of a request; `None` if it is too long, or did not arrive.
pub(super) async fn read(body: Body) -> Option<String> {
    let bytes = to_bytes(body, MAX_BODY).await.ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Why a body cannot be decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    /// There is no value.
    Empty,
    /// The text of Go's decoder.
    Wrong(String),
}

/// The members of the object in a body. `name` is the name that Go has for the structure.
pub(super) struct Fields<'a> {
    members: Members<'a>,
    name: &'static str,
}

impl<'a> Fields<'a> {
    /// Reads the first value of the body.
    pub(super) fn read(body: &'a str, name: &'static str) -> Result<Self, BodyError> {
        if body.trim_matches([' ', '\t', '\r', '\n']).is_empty() {
            return Err(BodyError::Empty);
        }
        match Members::parse_first(body) {
            Ok(members) => Ok(Self { members, name }),
            Err(_) => Err(BodyError::Wrong(problem(body, name))),
        }
    }

    /// A member whose name is none of these; `None`: there is no such member.
    pub(super) fn unknown(&self, known: &[&str]) -> Option<String> {
        let is_known = |name: &str| known.iter().any(|known| known.eq_ignore_ascii_case(name));
        self.members.iter().find(|(name, _)| !is_known(name)).map(|(name, _)| cut(name, MAX_SHOWN))
    }

    /// A number or a boolean; `None`: the member is missing. `kind` is Go's name of the type.
    pub(super) fn value<T: DeserializeOwned>(&self, name: &str, kind: &str) -> Result<Option<T>, BodyError> {
        let Some(raw) = self.members.get(name) else { return Ok(None) };
        serde_json::from_str(raw.get()).map(Some).map_err(|_| self.wrong(raw, name, kind))
    }

    /// A text; empty if the member is missing.
    pub(super) fn text(&self, name: &str) -> Result<String, BodyError> {
        self.members.get(name).map_or(Ok(String::new()), |raw| self.as_text(raw, name))
    }

    /// A list of texts; empty if the member is missing. A `null` in it is an empty text.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, BodyError> {
        let Some(raw) = self.members.get(name) else { return Ok(Vec::new()) };
        let items: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(|_| self.wrong(raw, name, "[]*string"))?;
        let is_null = |raw: &RawValue| raw.get() == "null";
        items.into_iter().map(|raw| if is_null(raw) { Ok(String::new()) } else { self.as_text(raw, name) }).collect()
    }

    fn as_text(&self, raw: &RawValue, name: &str) -> Result<String, BodyError> {
        members::text(raw).map_err(|_| self.wrong(raw, name, "string"))
    }

    fn wrong(&self, raw: &RawValue, field: &str, kind: &str) -> BodyError {
        let found = found(raw.get());
        let place = format!("{}.{field}", self.name);
        BodyError::Wrong(format!("json: cannot unmarshal {found} into Go struct field {place} of type {kind}"))
    }
}

/// Go's name for the kind of a value. Go shows a number itself.
fn found(raw: &str) -> String {
    match raw.bytes().next() {
        Some(b'{') => "object".to_owned(),
        Some(b'[') => "array".to_owned(),
        Some(b'"') => "string".to_owned(),
        Some(b't' | b'f') => "bool".to_owned(),
        _ => format!("number {}", cut(raw, MAX_SHOWN)),
    }
}

/// Why the body is not an object.
fn problem(body: &str, name: &str) -> String {
    let mut values = serde_json::Deserializer::from_str(body);
    match IgnoredAny::deserialize(&mut values) {
        Ok(_) => {
            let kind = found(body.trim_start());
            let kind = kind.split(' ').next().unwrap_or_default();
            format!("json: cannot unmarshal {kind} into Go value of type types.{name}")
        }
        Err(error) if error.is_eof() => "unexpected EOF".to_owned(),
        // Go names the character and what it expected there.
        Err(error) => format!("invalid JSON in line {}, column {}", error.line(), error.column()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(body: &str) -> Result<(Option<u16>, String, Vec<String>), String> {
        let error = |error| match error {
            BodyError::Empty => "empty".to_owned(),
            BodyError::Wrong(text) => text,
        };
        let fields = Fields::read(body, "Request").map_err(error)?;
        let number = fields.value("Port", "uint16").map_err(error)?;
        Ok((number, fields.text("Protocol").map_err(error)?, fields.texts("Sources").map_err(error)?))
    }

    #[test]
    fn a_body_is_decoded_as_in_go() {
        let all = |number, text: &str, list: &[&str]| {
            Ok((number, text.to_owned(), list.iter().map(ToString::to_string).collect()))
        };
        let field = |found: &str, field: &str, kind: &str| {
            Err(format!("json: cannot unmarshal {found} into Go struct field Request.{field} of type {kind}"))
        };
        let whole = |found: &str| Err(format!("json: cannot unmarshal {found} into Go value of type types.Request"));
        let long = format!("number {} [cut]", "7".repeat(58));
        for (body, wanted) in [
            (r#"{"Port": 1, "Protocol": "tcp", "Sources": ["a", null]}"#, all(Some(1), "tcp", &["a", ""])),
            (r#"{"pORT": 1, "protocol": null, "more": {"x": [1]}} trailing"#, all(Some(1), "", &[])),
            ("null", all(None, "", &[])),
            ("{}", all(None, "", &[])),
            (r#"{"Protocol": "\ud83d"}"#, all(None, "\u{fffd}", &[])),
            ("", Err("empty".to_owned())),
            (" \n\t", Err("empty".to_owned())),
            ("{", Err("unexpected EOF".to_owned())),
            (r#"{"Port": 1"#, Err("unexpected EOF".to_owned())),
            ("{'a'}", Err("invalid JSON in line 1, column 2".to_owned())),
            ("[]", whole("array")),
            (" \"x\"", whole("string")),
            ("17", whole("number")),
            ("true", whole("bool")),
            (r#"{"Port": 70000}"#, field("number 70000", "Port", "uint16")),
            (r#"{"Port": -1}"#, field("number -1", "Port", "uint16")),
            (r#"{"Port": 1.5}"#, field("number 1.5", "Port", "uint16")),
            (r#"{"Port": "80"}"#, field("string", "Port", "uint16")),
            (r#"{"Port": {}}"#, field("object", "Port", "uint16")),
            (&format!(r#"{{"Port": {}}}"#, "7".repeat(10_000)), field(&long, "Port", "uint16")),
            (r#"{"Protocol": 6}"#, field("number 6", "Protocol", "string")),
            (r#"{"Sources": "10.0.0.1"}"#, field("string", "Sources", "[]*string")),
            (r#"{"Sources": [false]}"#, field("bool", "Sources", "string")),
        ] {
            assert_eq!(read_all(body), wanted, "{body:.80}");
        }
    }

    #[test]
    fn deep_nesting_is_no_danger() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let inner = format!("{}1{}", open.repeat(10_000), close.repeat(10_000));
            assert!(read_all(&inner).is_ok() == open.starts_with('{'));
            assert!(read_all(&format!("{{\"Port\": {inner}}}")).is_err());
            assert!(read_all(&format!("{{\"other\": {inner}}}")).is_ok());
        }
    }

    #[tokio::test]
    async fn a_body_is_bounded() {
        assert_eq!(read(Body::from("x".repeat(MAX_BODY))).await.map(|body| body.len()), Some(MAX_BODY));
        assert_eq!(read(Body::from("x".repeat(MAX_BODY + 1))).await, None);
        assert_eq!(read(Body::from(vec![b'"', 0xff, b'"'])).await.as_deref(), Some("\"\u{fffd}\""));
    }
}
