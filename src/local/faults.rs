//! Injected faults: refused, slow, malformed and lost answers, and payloads that come late, twice or out of order. This module
//! owns the queue of faults; [`super::refusal`], [`super::http`] and [`super::outbox`] carry them out. Invariant: each fault
//! affects one call, so a server without pending faults behaves correctly.

use super::suggestion::did_you_mean;
use serde::Deserialize;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Maximum number of pending faults for one operation.
const MAX_PENDING: usize = 1000;

/// The fault of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Status 400, `ThrottlingException`.
    Throttle,
    /// Status 500, `ServerException`.
    ServerError,
    /// Status 400, `AccessDeniedException`.
    AccessDenied,
    /// Any error: HTTP status, code, message.
    Error(u16, String, String),
    /// The normal answer after this time.
    Slow(Duration),
    /// Status 200 with a body that is not JSON.
    Malformed,
    /// Status 200 without a body.
    Empty,
    /// An HTML page with this HTTP status, as a load balancer or a captive portal sends it.
    Page(u16),
    /// Half an answer, then the connection is cut. The call has no effect.
    Truncated,
    /// The connection is cut before the call has any effect.
    Drop,
    /// The call has its effect, then the connection is cut: the caller cannot know the outcome.
    LoseAnswer,
}

/// How payloads and acknowledgements are delivered. The default: at once, once, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// How long a payload waits before it is sent.
    pub delay: Duration,
    /// Each payload is sent twice in a row.
    pub duplicate: bool,
    /// A payload waits for the next one, and the newer is sent first. A single one is sent after 5 seconds.
    pub reorder: bool,
    /// The number of acknowledgements that are ignored, so that the payload is sent again.
    pub lose_acks: u32,
}

/// The pending faults.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Faults by operation; `*` is any operation.
    pending: BTreeMap<String, VecDeque<Fault>>,
    pub(super) delivery: Delivery,
}

impl Faults {
    /// Adds a fault for the next `count` calls of `operation`, or of any operation if it is `*`.
    pub(super) fn add(&mut self, operation: &str, count: usize, fault: &Fault) {
        let queue = self.pending.entry(operation.to_owned()).or_default();
        let free = MAX_PENDING.saturating_sub(queue.len());
        queue.extend(std::iter::repeat_n(fault.clone(), count.min(free)));
    }

    /// Takes the fault of this call, if there is one.
    pub(super) fn take(&mut self, operation: &str) -> Option<Fault> {
        self.take_first(&[operation])
    }

    /// Takes the fault of a call that has several names: that of the first name with one.
    pub(super) fn take_first(&mut self, names: &[&str]) -> Option<Fault> {
        names.iter().copied().chain(["*"]).find_map(|name| self.take_named(name))
    }

    /// Takes the fault of this name only: one for any operation is not taken.
    pub(super) fn take_named(&mut self, name: &str) -> Option<Fault> {
        let queue = self.pending.get_mut(name)?;
        let fault = queue.pop_front();
        if queue.is_empty() {
            self.pending.remove(name);
        }
        fault
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// A request of the admin API for faults.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FaultRequest {
    pub(super) operation: String,
    #[serde(default = "default_count")]
    pub(super) count: usize,
    fault: String,
    #[serde(default)]
    seconds: f64,
    status: Option<u16>,
    code: Option<String>,
    message: Option<String>,
}

fn default_count() -> usize {
    1
}

impl FaultRequest {
    /// The fault that the request names. An error explains the problem.
    pub(super) fn fault(&self) -> Result<Fault, String> {
        Ok(match self.fault.as_str() {
            "throttle" => Fault::Throttle,
            "server-error" => Fault::ServerError,
            "access-denied" => Fault::AccessDenied,
            "slow" => {
                Fault::Slow(Duration::try_from_secs_f64(self.seconds).map_err(|error| format!("seconds: {error}"))?)
            }
            "malformed" => Fault::Malformed,
            "empty" => Fault::Empty,
            "page" => Fault::Page(self.status.filter(|status| (200..600).contains(status)).unwrap_or(503)),
            "truncated" => Fault::Truncated,
            "drop" => Fault::Drop,
            "lose-answer" => Fault::LoseAnswer,
            "error" => Fault::Error(
                self.status.filter(|status| (400..600).contains(status)).unwrap_or(400),
                self.code.clone().unwrap_or_else(|| "ClientException".to_owned()),
                self.message.clone().unwrap_or_else(|| "Refused on purpose".to_owned()),
            ),
            other => {
                let suggestion =
                    did_you_mean(other, ["throttle", "server-error", "access-denied", "malformed", "truncated"]);
                return Err(format!(
                    "unknown fault `{other}`.{suggestion} Use throttle, server-error, access-denied, slow (with seconds), malformed, empty, page \
                     (with status), truncated, drop, lose-answer or error (with status, code, message)"
                ));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_used_up_by_its_own_operation_first() {
        let mut faults = Faults::default();
        faults.add("RunTask", 1, &Fault::Throttle);
        faults.add("*", 1, &Fault::Drop);
        assert_eq!(faults.take("RunTask"), Some(Fault::Throttle));
        assert_eq!(faults.take("RunTask"), Some(Fault::Drop));
        assert_eq!(faults.take("RunTask"), None);
    }

    #[test]
    fn the_first_name_of_a_call_comes_first() {
        let mut faults = Faults::default();
        faults.add("registry", 1, &Fault::Throttle);
        faults.add("registry/blobs", 1, &Fault::Drop);
        assert_eq!(faults.take_first(&["registry/manifests", "registry"]), Some(Fault::Throttle));
        assert_eq!(faults.take_first(&["registry/manifests", "registry"]), None);
        assert_eq!(faults.take_first(&["registry/blobs", "registry"]), Some(Fault::Drop));
    }

    #[test]
    fn pending_faults_are_bounded() {
        let mut faults = Faults::default();
        faults.add("RunTask", usize::MAX, &Fault::Malformed);
        assert_eq!(std::iter::from_fn(|| faults.take("RunTask")).count(), MAX_PENDING);
    }

    #[test]
    fn requests_name_their_fault() {
        let parse = |text: &str| serde_json::from_str::<FaultRequest>(text).unwrap().fault();
        assert_eq!(
            parse(r#"{"operation":"RunTask","fault":"slow","seconds":1.5}"#),
            Ok(Fault::Slow(Duration::from_millis(1500)))
        );
        assert!(parse(r#"{"operation":"RunTask","fault":"slow","seconds":-1}"#).is_err());
        assert!(parse(r#"{"operation":"RunTask","fault":"explode"}"#).unwrap_err().contains("lose-answer"));
    }
}
