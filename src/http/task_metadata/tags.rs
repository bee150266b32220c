//! The tags of a task and of its container instance, which ECS is asked for.
//!
//! Owns the order and the time limit of the two calls. They are made for every request that wants tags, as by the Go agent: tags
//! may change at any time. Invariant: the answer comes before the client gives up, with what is known by then.

use ecs_core::model::view::TaskView;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Time limit for each of the two calls. Both together end before the 5 s in which an answer must be written. (The Go agent tries
/// each for up to 30 s, and the connection is closed meanwhile.)
const LIMIT: Duration = Duration::from_millis(2_200);

/// Asks ECS for the tags of the resource with this ARN, for the container with this name.
pub type TagLookup = Arc<dyn Fn(TagQuestion) -> BoxFuture<'static, TagsResult> + Send + Sync>;

/// A question for tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagQuestion {
    /// ARN of the resource.
    pub resource: String,
    /// Name of the container that asks, for the audit trail of AWS; `None`: it is not named.
    pub container: Option<String>,
}

/// Tags, or why they are not known.
pub type TagsResult = Result<BTreeMap<String, String>, TagsProblem>;

/// Why tags are not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagsProblem {
    /// Error code of AWS; empty if there was no answer.
    pub code: String,
    /// What went wrong, for a person.
    pub message: String,
    /// HTTP status; `None` if there was no answer.
    pub status: Option<u16>,
    /// AWS's id of the request; empty if there is none.
    pub request_id: String,
}

/// The tags of a task and of its container instance.
#[derive(Debug)]
pub(super) struct Tags {
    pub(super) instance: TagsResult,
    pub(super) task: TagsResult,
}

/// Asks for the tags: first those of the instance, then those of the task.
pub(super) async fn asked(lookup: &TagLookup, instance: &str, task: &TaskView, container: Option<&str>) -> Tags {
    let question =
        |resource: &str| TagQuestion { resource: resource.to_owned(), container: container.map(str::to_owned) };
    let within = async |question: TagQuestion| {
        let resource = question.resource.clone();
        let answer = timeout(LIMIT, lookup(question)).await.unwrap_or_else(|_late| {
            let message = format!("GetResourceTags failed for {resource}: no answer within {} ms", LIMIT.as_millis());
            Err(TagsProblem { message, ..TagsProblem::default() })
        });
        if let Err(problem) = &answer {
            let (code, cause) = (&problem.code, &problem.message);
            tracing::warn!(task = task.arn.task_id(), resource, code, cause, "Task Metadata error: unable to get tags");
        }
        answer
    };
    Tags { instance: within(question(instance)).await, task: within(question(task.arn.as_str())).await }
}
