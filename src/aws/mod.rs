//! The AWS edge: the identity of this instance, its credentials, and the clients for AWS services.
//!
//! Owns IMDS, the instance's credential chain, the in-memory store of task and execution role credentials, ECR tokens, registry
//! credentials in Secrets Manager, secrets of tasks, objects in S3, and proxies. It does not know tasks, the engine or
//! the configuration: the caller supplies settings as small structs. The invariant: no secret leaves this module except inside
//! a signed request or an [`ecs_core::model::Secret`].
//!
//! Reading order: [`client`] (how a call is made), [`identity`] (this instance and its credentials), [`services`].

pub mod client;
pub mod identity;
pub mod services;
#[cfg(test)]
pub(crate) mod tests;

/// Makes ring the process-wide TLS provider; does nothing if one is already installed.
///
/// Every constructor in this module that needs TLS calls it, since reqwest panics without a provider.
pub fn install_tls() {
    // The only possible error is "already installed", which is fine.
    let _already = rustls::crypto::ring::default_provider().install_default();
}
