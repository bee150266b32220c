//! Several things wanted of AWS at once: all of them, or everything that is wrong.
//!
//! Owns how many are asked for at a time and how failures become one. The invariant: the one failure is worth another try only if each
//! of them is.

use crate::model::{Failure, FailureKind};
use futures_util::{StreamExt, stream};
use std::future::Future;

/// Calls at a time on behalf of one resource.
const AT_ONCE: usize = 10;

/// Why one of them is not to be had.
#[derive(Debug)]
pub(crate) struct Failed {
    /// In the Go agent's words.
    pub(crate) text: String,
    /// Asking again may help.
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

/// What all of them give, in their order; or all texts, joined with `;` as the Go agent does.
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
