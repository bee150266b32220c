//! The AWS edge: the identity of this instance, its credentials, and the clients for AWS services.
//!
//! Owns IMDS, the instance's credential chain, the in-memory store of task and execution role credentials, ECR tokens, registry
//! credentials in Secrets Manager, proxies and the back-off that network callers share. It does not know tasks, the engine or
//! the configuration: the caller supplies settings as small structs. The invariant: no secret leaves this module except inside
//! a signed request or a `model::Secret`.
//!
//! Reading order: [`sdk`], [`signing`] (corrections after refused calls) with `sdk_signing`, [`clock`], [`credentials`] with
//! `rotating` (a file that another program renews), [`roles`], [`imds`], [`identity`], [`lifecycle`], [`tags`], [`signature`],
//! [`ecr`] and [`registry_secret`] with `cache`, [`ssm`], [`secrets_manager`] and [`s3`] with `gather` (concurrent calls),
//! [`json_call`] (services without an SDK crate) with `attempts` and `call_error`, [`proxy`], [`transport`] (and `insecure`, its
//! replacement for the flag `-k`), [`backoff`].

mod attempts;
pub mod backoff;
mod cache;
mod call_error;
pub mod clock;
pub mod credentials;
pub mod ecr;
#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod gather;
pub mod identity;
pub mod imds;
mod insecure;
pub mod json_call;
pub mod lifecycle;
pub mod proxy;
pub mod registry_secret;
pub mod roles;
mod rotating;
pub mod s3;
pub mod sdk;
mod sdk_signing;
pub mod secrets_manager;
#[cfg(test)]
#[path = "../../tests/support/self_signed_front.rs"]
pub(crate) mod self_signed_front;
pub mod signature;
pub mod signing;
pub mod ssm;
pub mod tags;
pub mod transport;

/// Makes ring the process-wide TLS provider; does nothing if one is already installed.
///
/// Every constructor in this module that needs TLS calls it, since reqwest panics without a provider.
pub fn install_tls() {
    // The only possible error is "already installed", which is fine.
    let _already = rustls::crypto::ring::default_provider().install_default();
}
