//! A span, and the ids of traces and spans.

use ecs_core::model::TaskArn;

/// A piece of work with a beginning and an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The trace that it belongs to. Not zero.
    pub trace: [u8; 16],
    /// Its id in the trace. Not zero.
    pub id: [u8; 8],
    /// The id of the span that it is a part of; `None` for the root of the trace.
    pub parent: Option<[u8; 8]>,
    /// What was done. One of few names.
    pub name: &'static str,
    /// The beginning in wall time, in milliseconds since the epoch.
    pub start_millis: u64,
    /// The end in wall time, in milliseconds since the epoch.
    pub end_millis: u64,
    /// Why it failed, without a secret; may be empty. `None`: it has not failed.
    pub error: Option<String>,
    /// Further facts.
    pub attributes: Vec<(&'static str, Value)>,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(u32),
}

/// The ids of the trace of a task and of its spans. They follow from the names alone, so every process gives the same ones.
#[derive(Clone, Debug)]
pub struct Ids {
    trace: [u8; 16],
    seed: u64,
}

impl Ids {
    /// The ids for this task. The trace has the id of the task, if that is 32 hexadecimal digits as with ECS.
    pub fn new(task: &TaskArn) -> Self {
        let seed = hash(hash(BASIS, task.as_str().as_bytes()), &[0]);
        let id = task.task_id();
        let is_hex = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u128::from_str_radix(id, 16).ok().filter(|number| is_hex && *number != 0);
        let hashed = || (u128::from(seed) << 64 | u128::from(hash(seed, id.as_bytes()))).max(1);
        Self { trace: number.unwrap_or_else(hashed).to_be_bytes(), seed }
    }

    /// The id of the trace.
    pub fn trace(&self) -> [u8; 16] {
        self.trace
    }

    /// The id of the span with this name. `subject` tells spans of one name apart.
    pub fn span(&self, name: &str, subject: &str) -> [u8; 8] {
        let named = hash(hash(self.seed, name.as_bytes()), &[0]);
        hash(named, subject.as_bytes()).max(1).to_be_bytes()
    }
}

/// The first value of FNV-1a.
const BASIS: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, continued from an earlier value. The same in every version of the agent.
fn hash(from: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(from, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_trace_has_the_id_of_its_task() {
        let ids = Ids::new(&"arn:aws:ecs:us-west-2:1:task/c/319892675625455485f5c720b4cd7692".into());
        assert_eq!(u128::from_be_bytes(ids.trace()), 0x3198_9267_5625_4554_85f5_c720_b4cd_7692);
        for odd in ["a", "", "arn:task/00000000000000000000000000000000", "arn:task/+19892675625455485f5c720b4cd7692"] {
            let ids = Ids::new(&odd.into());
            assert_ne!(ids.trace(), [0; 16], "{odd}");
            assert_eq!(ids.trace(), Ids::new(&odd.into()).trace());
        }
        let known = hash(BASIS, b"foobar");
        assert_eq!(known, 0x8594_4171_f739_67e8, "as published");
    }

    #[test]
    fn every_span_of_a_task_has_an_id_of_its_own() {
        let (one_task, other) = (Ids::new(&"arn:task/1".into()), Ids::new(&"arn:task/2".into()));
        let names = [("stop", "app"), ("stop", "ap"), ("stopa", "pp"), ("start", "app"), ("start", "")];
        let ids: BTreeSet<_> = [&one_task, &other]
            .into_iter()
            .flat_map(|ids| names.map(|(name, subject)| ids.span(name, subject)))
            .collect();
        assert_eq!(ids.len(), 10);
        assert_eq!(one_task.span("stop", "app"), Ids::new(&"arn:task/1".into()).span("stop", "app"));
    }
}
