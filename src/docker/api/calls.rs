//! Counts the calls to the daemon, for metrics: how long they take, and how they fail.
//!
//! Every call passes `connection`, which counts it. Invariant: the labels are those of `Operation` and `Reason`, whatever
//! the path and the daemon's answer.

use super::error::DockerError;
use crate::metrics::{Counter, Histogram};
use reqwest::Method;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Upper bounds of the buckets in milliseconds: from a ping to a stop with a long grace period.
const BOUNDS: &[u64] = &[5, 25, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 240_000];

/// Defines an enum whose variants have labels.
macro_rules! labels {
    ($(#[$about:meta])* $name:ident { $($variant:ident $label:literal)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum $name { $($variant),* }

        impl $name {
            /// The labels, in the order of the variants.
            const LABELS: &[&str] = &[$($label),*];
        }
    };
}

labels! {
    /// What a call asks for.
    Operation {
        Ping "ping"
        Version "version"
        Info "info"
        Events "events"
        Create "create"
        Start "start"
        Stop "stop"
        Inspect "inspect"
        Remove "remove"
        List "list"
        Statistics "statistics"
        Digest "digest"
        Pull "pull"
        Image "image"
        Volume "volume"
        Other "other"
    }
}

labels! {
    /// Why a call had no success.
    Reason {
        Refused "refused"
        Failed "failed"
        Unreachable "unreachable"
        Cut "cut"
        Timeout "timeout"
    }
}

impl Operation {
    /// The operation of a request. A pull and the load of an archive end with the first byte of their answer.
    fn from_request(method: &Method, path: &[&str]) -> Self {
        let is_delete = *method == Method::DELETE;
        match *path {
            ["_ping"] => Self::Ping,
            ["version"] => Self::Version,
            ["info"] => Self::Info,
            ["events"] => Self::Events,
            ["containers", "create"] => Self::Create,
            ["containers", "json"] => Self::List,
            ["containers", _] if is_delete => Self::Remove,
            ["containers", _, "start"] => Self::Start,
            ["containers", _, "stop"] => Self::Stop,
            ["containers", _, "json"] => Self::Inspect,
            ["containers", _, "stats"] => Self::Statistics,
            ["distribution", ..] => Self::Digest,
            ["images", "create"] => Self::Pull,
            ["images", ..] => Self::Image,
            ["volumes", ..] => Self::Volume,
            _ => Self::Other,
        }
    }
}

impl Reason {
    /// The reason of an error. A status below 500 is the caller's fault: the daemon works.
    fn from_error(error: &DockerError) -> Self {
        match error {
            DockerError::Daemon { status, .. } if *status < 500 => Self::Refused,
            DockerError::Unusable(_) | DockerError::NoVersion(_) => Self::Refused,
            DockerError::Daemon { .. } | DockerError::Stream(_) => Self::Failed,
            DockerError::Unreachable(_) => Self::Unreachable,
            DockerError::Cut(_) => Self::Cut,
            DockerError::Timeout(_) => Self::Timeout,
        }
    }
}

/// The calls of one kind.
#[derive(Debug)]
struct Kind {
    /// Those that the daemon answered, whatever it answered.
    seconds: Histogram,
    /// Those without success, in the order of [`Reason::LABELS`].
    errors: [Counter; Reason::LABELS.len()],
}

/// All calls since the start of the process.
#[derive(Debug)]
pub struct Calls {
    /// In the order of [`Operation::LABELS`].
    kinds: [Kind; Operation::LABELS.len()],
    begun: Counter,
    ended: Counter,
    /// When the daemon last answered; `None`: never.
    last_answer: Mutex<Option<Instant>>,
}

impl Default for Calls {
    fn default() -> Self {
        let kind = |_| Kind { seconds: Histogram::new(BOUNDS), errors: Default::default() };
        Self {
            kinds: std::array::from_fn(kind),
            begun: Counter::default(),
            ended: Counter::default(),
            last_answer: Mutex::default(),
        }
    }
}

impl Calls {
    /// Counts a call from now on. A call that is given up, after its limit for example, is dropped.
    pub(super) fn begin(&self, method: &Method, path: &[&str]) -> Running<'_> {
        self.begun.increment();
        let operation = Operation::from_request(method, path);
        Running { calls: self, operation, began: Instant::now(), reason: Some(Reason::Timeout) }
    }

    /// How long the answered calls took, by their operation.
    pub fn seconds(&self) -> impl Iterator<Item = (&'static str, &Histogram)> {
        Operation::LABELS.iter().copied().zip(self.kinds.iter().map(|kind| &kind.seconds))
    }

    /// The number of calls without success, by their operation and the reason.
    pub fn errors(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        Operation::LABELS.iter().zip(&self.kinds).flat_map(|(operation, kind)| {
            Reason::LABELS.iter().zip(&kind.errors).map(|(reason, count)| (*operation, *reason, count.get()))
        })
    }

    /// The number of calls without an answer so far.
    pub fn running(&self) -> u64 {
        // In this order: a call that begins and ends between the two reads must not count as -1.
        let ended = self.ended.get();
        self.begun.get().saturating_sub(ended)
    }

    /// How long ago the daemon last answered; `None`: never.
    pub fn last_answer_age(&self) -> Option<Duration> {
        let last = *self.last_answer.lock().unwrap_or_else(PoisonError::into_inner);
        last.map(|at| at.elapsed())
    }
}

/// A call that is being made.
#[derive(Debug)]
pub(super) struct Running<'a> {
    calls: &'a Calls,
    operation: Operation,
    began: Instant,
    /// Why the call has no success, as far as is known; `None`: it has.
    reason: Option<Reason>,
}

impl Running<'_> {
    /// Notes the end of the call.
    pub(super) fn ended<T>(mut self, answer: &Result<T, DockerError>) {
        self.reason = answer.as_ref().err().map(Reason::from_error);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.calls.ended.increment();
        let kind = &self.calls.kinds[self.operation as usize];
        if let Some(reason) = self.reason {
            kind.errors[reason as usize].increment();
        }
        if matches!(self.reason, None | Some(Reason::Refused | Reason::Failed)) {
            kind.seconds.observe(self.began.elapsed());
            *self.calls.last_answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(calls: &Calls) -> Vec<(&'static str, &'static str, u64)> {
        calls.errors().filter(|(.., count)| *count > 0).collect()
    }

    #[test]
    fn no_label_depends_on_a_name() {
        for (method, path, label) in [
            (Method::GET, &["containers", "create", "json"][..], "inspect"),
            (Method::POST, &["containers", "create"], "create"),
            (Method::DELETE, &["containers", "json"], "list"),
            (Method::DELETE, &["containers", "my-name"], "remove"),
            (Method::GET, &["distribution", "my/image", "json"], "digest"),
            (Method::DELETE, &["images", "my/image"], "image"),
            (Method::GET, &["my-name"], "other"),
        ] {
            let operation = Operation::from_request(&method, path);
            assert_eq!(Operation::LABELS[operation as usize], label, "{path:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_given_up_counts_as_a_timeout() {
        let calls = Calls::default();
        let ping = || calls.begin(&Method::GET, &["_ping"]);
        let running = ping();
        assert_eq!((calls.running(), calls.last_answer_age()), (1, None));
        drop(running);
        assert_eq!((calls.running(), errors(&calls)), (0, vec![("ping", "timeout", 1)]));
        assert_eq!(calls.last_answer_age(), None);
        ping().ended(&Ok(()));
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(calls.last_answer_age(), Some(Duration::from_secs(7)));
        assert_eq!(errors(&calls), [("ping", "timeout", 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_answer_shows_that_docker_is_there() {
        let calls = Calls::default();
        let inspect = || calls.begin(&Method::GET, &["containers", "a", "json"]);
        let daemon = |status| DockerError::Daemon { status, message: "no".to_owned() };
        inspect().ended(&Err::<(), _>(DockerError::Cut("x".to_owned())));
        assert_eq!(calls.last_answer_age(), None);
        inspect().ended(&Err::<(), _>(daemon(404)));
        inspect().ended(&Err::<(), _>(daemon(500)));
        assert!(calls.last_answer_age().is_some());
        let expected = [("inspect", "refused", 1), ("inspect", "failed", 1), ("inspect", "cut", 1)];
        assert_eq!(errors(&calls), expected);
    }
}
