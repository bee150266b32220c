//! Previews: what rules would expire, without expiring it.

use crate::ecr::digest::Digest;
use std::sync::Arc;

/// How long a preview can be read, in seconds.
const VALIDITY: f64 = 24.0 * 3600.0;

/// The result of a preview.
#[derive(Clone, Debug)]
pub(crate) struct Preview {
    /// The document with the rules.
    pub(crate) text: Arc<str>,
    /// When it was made, in seconds since the epoch.
    pub(crate) made_at: f64,
    /// The images that would expire, oldest first.
    pub(crate) entries: Vec<PreviewEntry>,
}

/// An image that would expire.
#[derive(Clone, Debug)]
pub(crate) struct PreviewEntry {
    pub(crate) digest: Digest,
    /// Its tags at that time.
    pub(crate) tags: Vec<String>,
    /// When it was pushed, in seconds since the epoch.
    pub(crate) pushed_at: f64,
    /// The priority of the rule that would expire it.
    pub(crate) priority: u64,
}

impl Preview {
    /// The status, as ECR names it.
    pub(crate) fn status(&self, now: f64) -> &'static str {
        if now - self.made_at > VALIDITY { "EXPIRED" } else { "COMPLETE" }
    }
}
