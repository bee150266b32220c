//! Lifecycle policies: rules that expire images of a repository by age or by number.

mod document;
mod evaluation;
mod preview;

pub(crate) use document::{LifecyclePolicy, Rule};
pub(crate) use evaluation::{Candidate, evaluate};
pub(crate) use preview::{Preview, PreviewEntry};
