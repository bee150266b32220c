//! Images: pulls, digests, mirrors, clean-up, and the image of the pause container.
//!
//! Reading order: `reference`, `image` (local images and digests), `pull` with `progress` and `pull_text`, `rate_limit`,
//! `mirror`, `clean`, `pause` (the image that is not pulled).

pub(super) mod clean;
pub(super) mod image;
pub(super) mod mirror;
pub(super) mod pause;
pub(super) mod progress;
pub(super) mod pull;
pub(super) mod pull_text;
pub(super) mod rate_limit;
pub(super) mod reference;
