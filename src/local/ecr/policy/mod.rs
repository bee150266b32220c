//! Policies of identities and of repositories: their form, and what they decide. [`super::access`] combines several of them.

mod condition;
mod document;
mod pattern;
mod principals;
mod request;
#[cfg(test)]
mod tests;

pub(crate) use document::{Decision, MAX_POLICY, Policy};
pub(crate) use pattern::is_match;
pub(crate) use request::Request;
