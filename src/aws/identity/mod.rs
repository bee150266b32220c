//! Who this instance is to AWS: its metadata service, its identity document, its tags and its credentials.
//!
//! Reading order: [`imds`], [`document`], [`lifecycle`], [`tags`], [`credentials`] with `rotating` (a file that another program
//! renews), [`roles`] (the credentials of tasks).

pub mod credentials;
pub mod document;
pub mod imds;
pub mod lifecycle;
pub mod roles;
mod rotating;
pub mod tags;
