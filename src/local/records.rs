//! The log of API calls, websocket messages and metadata reads, in order. This module owns the log and its limits; it does not
//! interpret the entries. Invariant: there are never more than [`MAX_RECORDS`] entries and [`MAX_BYTES`] of text. The oldest
//! entries are dropped first and counted.

use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};

/// Maximum number of entries in the log.
const MAX_RECORDS: usize = 20_000;
/// Maximum size in bytes of the names, bodies and headers in the log.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// The origin of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A call of an AWS API; `name` is the operation, `body` the request.
    Api,
    /// A call that was answered with an error; `name` is the operation, `body` the error.
    ApiError,
    /// A request to the instance metadata; `name` is the path.
    Imds,
    /// The agent opened its ACS websocket; `body` holds the query.
    AcsConnect,
    /// An ACS websocket ended.
    AcsClose,
    /// A message from the agent over ACS; `name` is its type, `body` its `message`.
    AcsIn,
    /// A message to the agent over ACS.
    AcsOut,
    /// The agent opened its TCS websocket.
    TcsConnect,
    /// A TCS websocket ended.
    TcsClose,
    /// A message from the agent over TCS.
    TcsIn,
}

/// An entry of the log.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// The running number, from 1, without gaps.
    pub number: u64,
    /// The time, in seconds since the epoch.
    pub at: f64,
    /// The origin of the record.
    pub source: Source,
    /// The operation, the message type or the path.
    pub name: String,
    /// The body of the call or message.
    pub body: Value,
    /// The headers of an API call or a websocket handshake, without the session token and the signature: with these, somebody
    /// else could repeat the request.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    #[serde(skip)]
    bytes: usize,
}

/// The log.
#[derive(Debug, Default)]
pub(super) struct Records {
    entries: VecDeque<Record>,
    bytes: usize,
    last: u64,
}

impl Records {
    pub(super) fn add(&mut self, at: f64, source: Source, name: &str, body: Value, headers: BTreeMap<String, String>) {
        let header_bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let bytes = name.len() + body.to_string().len() + header_bytes;
        self.last += 1;
        self.bytes += bytes;
        self.entries.push_back(Record { number: self.last, at, source, name: name.to_owned(), body, headers, bytes });
        while self.entries.len() > MAX_RECORDS || (self.bytes > MAX_BYTES && self.entries.len() > 1) {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.bytes;
        }
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.entries.iter()
    }

    /// The number of entries that were dropped because of the limits.
    pub(super) fn dropped(&self) -> u64 {
        self.last - self.entries.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_leave_first_and_are_counted() {
        let mut records = Records::default();
        for number in 0..MAX_RECORDS + 3 {
            records.add(0.0, Source::Imds, &number.to_string(), Value::Null, BTreeMap::new());
        }
        assert_eq!(records.iter().count(), MAX_RECORDS);
        assert_eq!(records.dropped(), 3);
        assert_eq!(records.iter().next().map(|record| record.number), Some(4));
    }

    #[test]
    fn large_bodies_are_bounded_too() {
        let mut records = Records::default();
        for _ in 0..5 {
            let body = Value::String("x".repeat(MAX_BYTES / 3));
            records.add(0.0, Source::TcsIn, "PublishMetricsRequest", body, BTreeMap::new());
        }
        assert_eq!(records.iter().count(), 2);
    }
}
