//! Runs several AWS calls concurrently and yields all results, or all errors as one failure.
//!
//! Owns the number of concurrent calls and the combination of failures. The invariant: the combined failure is temporary only if
//! each of the failures is.

use ecs_core::model::{Failure, FailureKind};
use futures_util::{StreamExt, stream};
use std::future::Future;

/// Maximum number of concurrent calls for one resource.
const AT_ONCE: usize = 10;

/// Why one of the calls failed.
#[derive(Debug)]
pub(crate) struct Failed {
    /// The error text of the Go agent.
    pub(crate) text: String,
    /// True: a retry may succeed.
    pub(crate) may_pass: bool,
}

impl From<String> for Failed {
    fn from(text: String) -> Self {
        Self { text, may_pass: false }
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self { text: failure.message, may_pass: failure.kind == FailureKind::Retryable }
    }
}

/// The results of all calls in their order, or all error texts, joined with `;` as the Go agent does.
pub(crate) async fn all<T>(calls: Vec<impl Future<Output = Result<T, Failed>>>) -> Result<Vec<T>, Failure> {
    let answers: Vec<_> = stream::iter(calls).buffered(AT_ONCE).collect().await;
    let (mut found, mut texts, mut may_pass) = (Vec::new(), Vec::new(), true);
    for answer in answers {
        match answer {
            Ok(value) => found.push(value),
            Err(failed) => {
                may_pass &= failed.may_pass;
                texts.push(failed.text);
            }
        }
    }
    match texts.is_empty() {
        true => Ok(found),
        false if may_pass => Err(Failure::retryable("", texts.join(";"))),
        false => Err(Failure::ends_task(texts.join(";"))),
    }
}
