//! The audit log: one line for each request for credentials, and for each request that came too often (spec `task-metadata.md`
//! §7).
//!
//! Owns the form of a line: ten columns, separated by spaces. The Go agent leaves the last four out if the request failed; here
//! every line has them. Invariants: a line has no id and no key, and no text of a client can add a column or a line.

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use ecs_core::model::TaskArn;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

/// Writes a finished line, which has no line break. Never blocks.
pub type AuditSink = Arc<dyn Fn(String) + Send + Sync>;

/// The version of the form.
const VERSION: u8 = 2;
/// The longest text of a client in a line, in characters.
const MAX_TEXT: usize = 256;

/// The audit log of one agent.
#[derive(Clone)]
pub struct Audit {
    /// The cluster of the agent.
    pub cluster: String,
    /// The ARN of the container instance.
    pub container_instance: String,
    /// Where the lines go; `None`: there is no audit log.
    pub sink: Option<AuditSink>,
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A request for credentials of a task role, or of an unknown id.
    TaskRole,
    /// A request for credentials of a task execution role.
    ExecutionRole,
    /// A second line about a request: it came from an address that is not the task's. The Go agent has no such line.
    WrongAddress,
    /// Any request that came too often.
    TooMany,
}

/// One request.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) status: u16,
    /// The peer; `None`: it has no address.
    pub(super) peer: Option<SocketAddr>,
    /// The path, without an id of credentials.
    pub(super) path: &'a str,
    pub(super) user_agent: &'a str,
    /// The task whose credentials were requested; `None`: there is none.
    pub(super) task: Option<&'a TaskArn>,
    pub(super) event: Event,
}

impl Audit {
    pub(super) fn write(&self, request: &Request<'_>) {
        if let Some(sink) = &self.sink {
            sink(self.line(request, SystemTime::now()));
        }
    }

    fn line(&self, request: &Request<'_>, now: SystemTime) -> String {
        let now = DateTime::from_secs(DateTime::from(now).secs()).fmt(Format::DateTime).unwrap_or_default();
        let peer = request.peer.map(|peer| peer.to_string()).unwrap_or_default();
        let event = match request.event {
            Event::TaskRole => "GetCredentials",
            Event::ExecutionRole => "GetCredentialsExecutionRole",
            Event::WrongAddress => "GetCredentialsWrongAddress",
            Event::TooMany => "TooManyRequests",
        };
        let arn = request.task.map(TaskArn::as_str).unwrap_or_default();
        format!(
            "{now} {} {} {} {} {} {event} {VERSION} {} {}",
            request.status,
            column(&peer),
            quoted(request.path),
            quoted(request.user_agent),
            column(arn),
            column(&self.cluster),
            column(&self.container_instance),
        )
    }
}

/// A column without quotation marks.
fn column(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { printable(text, |c| c == ' ') }
}

/// A column in quotation marks.
fn quoted(text: &str) -> String {
    format!("\"{}\"", printable(text, |c| c == '"' || c == '\\'))
}

/// The beginning of a text. Characters that could be mistaken for a part of the line are written as escapes.
fn printable(text: &str, is_special: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len().min(MAX_TEXT));
    for c in text.chars().take(MAX_TEXT) {
        if c.is_control() || is_special(c) || matches!(c, '\u{2028}' | '\u{2029}') {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const INSTANCE: &str = "arn:aws:ecs:us-west-2:1:container-instance/c/def";

    fn audit() -> Audit {
        Audit { cluster: "mycluster".to_owned(), container_instance: INSTANCE.to_owned(), sink: None }
    }

    fn request<'a>(task: Option<&'a TaskArn>, user_agent: &'a str) -> Request<'a> {
        let peer = Some("172.17.0.3:53124".parse().unwrap());
        Request { status: 200, peer, path: "/v2/credentials", user_agent, task, event: Event::TaskRole }
    }

    #[test]
    fn a_line_has_the_columns_of_the_go_agent() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_714_557_600_999);
        let task = TaskArn::from("arn:aws:ecs:us-west-2:1:task/c/abc");
        let expected = format!(
            "2024-05-01T10:00:00Z 200 172.17.0.3:53124 \"/v2/credentials\" \"aws-sdk-rust/1.3\" {task} GetCredentials 2 \
             mycluster {INSTANCE}"
        );
        assert_eq!(audit().line(&request(Some(&task), "aws-sdk-rust/1.3"), now), expected);
        let failed = Request { status: 400, peer: None, event: Event::ExecutionRole, ..request(None, "") };
        let expected = format!(
            "2024-05-01T10:00:00Z 400 - \"/v2/credentials\" \"\" - GetCredentialsExecutionRole 2 mycluster {INSTANCE}"
        );
        assert_eq!(audit().line(&failed, now), expected);
    }

    #[test]
    fn no_text_of_a_client_adds_a_column_or_a_line() {
        let hostile = format!("a\" 200 \\\n\r\u{2028}\u{7f}{}", "x".repeat(9_000));
        let line = audit().line(&request(None, &hostile), SystemTime::now());
        assert!(line.len() < 1_000 && !line.contains(['\n', '\r', '\u{2028}', '\u{7f}']), "{line}");
        assert_eq!(line.matches('"').count(), 4, "{line}");
        assert!(line.ends_with(INSTANCE), "{line}");
    }
}
