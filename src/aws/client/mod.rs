//! How every call to AWS is made: transport, proxies, signatures, attempts.
//!
//! Reading order: [`sdk`], [`signing`] (corrections after refused calls) with `sdk_signing`, [`clock`], [`signature`],
//! `slow_attempts` (their lines in the log), [`json_call`] (services without an SDK crate) with `attempts` and `call_error`, `cache`, `gather` (concurrent calls),
//! [`proxy`], [`transport`] (and `insecure`, its replacement for the flag `-k`), `words` (errors
//! for people).

pub(super) mod attempts;
pub(super) mod cache;
pub(super) mod call_error;
pub mod clock;
pub(crate) mod gather;
mod insecure;
pub mod json_call;
pub mod proxy;
pub mod sdk;
mod sdk_signing;
pub mod signature;
pub mod signing;
mod slow_attempts;
pub mod transport;
pub(crate) mod words;
