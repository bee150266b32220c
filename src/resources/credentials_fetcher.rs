//! The credentials fetcher: the daemon on the host that gets Kerberos tickets for service accounts (spec `resources.md` §7).
//!
//! Owns its calls and how often they are tried; `grpc` carries them, `protobuf` is their language. It keeps nothing. The invariant: no
//! error text holds a password.

mod grpc;
mod protobuf;

use crate::aws::backoff::{Backoff, Shape};
use crate::model::Secret;
use grpc::Status;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// The limit of a call with all its tries, of which each has an equal part.
const CALL: Duration = Duration::from_secs(60);
const TRIES: u32 = 3;
const PAUSES: Shape = Shape { initial: Duration::from_secs(1), max: Duration::from_secs(5), factor: 2.0, jitter: 0.2 };

/// Why a call failed, in the words of the reference.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct FetcherError(String);

/// Who may ask for the ticket of a service account from a host without a domain.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) username: String,
    pub(super) password: Secret,
    pub(super) domain: String,
}

/// A lease, and where its tickets are on the host.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) id: String,
    pub(super) paths: Vec<String>,
}

/// The way to the daemon.
#[derive(Clone, Debug)]
pub(super) struct CredentialsFetcher {
    /// Its socket.
    pub(super) socket: PathBuf,
}

impl CredentialsFetcher {
    /// Tickets for the accounts of these documents, as a host of the domain.
    pub(super) async fn add(&self, documents: &[String]) -> Result<Lease, FetcherError> {
        self.call("AddKerberosLease", &protobuf::write((1, documents), &[])).await.and_then(|it| lease(&it))
    }

    /// Tickets for the accounts of these documents, in the name of this account.
    pub(super) async fn add_without_domain(
        &self,
        documents: &[String],
        account: &Account,
    ) -> Result<Lease, FetcherError> {
        let Account { username, password, domain } = account;
        account.check()?;
        let single = [(2, username.as_str()), (3, password.expose()), (4, domain.as_str())];
        let message = protobuf::write((1, documents), &single);
        self.call("AddNonDomainJoinedKerberosLease", &message).await.and_then(|it| lease(&it))
    }

    /// New tickets in the place of all that were got in the name of this account.
    pub(super) async fn renew(&self, account: &Account) -> Result<(), FetcherError> {
        let Account { username, password, domain } = account;
        account.check()?;
        let single = [(1, username.as_str()), (2, password.expose()), (3, domain.as_str())];
        self.call("RenewNonDomainJoinedKerberosLease", &protobuf::write((1, &[]), &single)).await.map(drop)
    }

    /// Gives a lease back. The daemon takes one that it does not know for given back.
    pub(super) async fn delete(&self, lease: &str) -> Result<(), FetcherError> {
        self.call("DeleteKerberosLease", &protobuf::write((1, &[]), &[(1, lease)])).await.map(drop)
    }

    async fn call(&self, method: &str, message: &[u8]) -> Result<Vec<u8>, FetcherError> {
        let path = format!("/credentialsfetcher.CredentialsFetcherService/{method}");
        if let Err(error) = tokio::fs::metadata(&self.socket).await {
            return Err(FetcherError(format!("stat {}: {}", self.socket.display(), system_error(&error))));
        }
        let mut pauses = Backoff::new(PAUSES);
        let mut tries = 1;
        loop {
            match grpc::call(&self.socket, &path, message, CALL / TRIES).await {
                Ok(answer) => return Ok(answer),
                Err(status) if tries == TRIES || !status.passes() => return Err(status.into()),
                Err(status) => {
                    tracing::warn!(%status, method, tries, "a call of the credentials fetcher failed; trying again");
                }
            }
            tokio::time::sleep(pauses.pause()).await;
            tries += 1;
        }
    }
}

impl From<Status> for FetcherError {
    fn from(status: Status) -> Self {
        Self(status.to_string())
    }
}

impl Account {
    fn check(&self) -> Result<(), FetcherError> {
        if self.username.is_empty() || self.password.is_empty() || self.domain.is_empty() {
            let text = "username, password or domain should not be empty";
            return Err(Status::new(grpc::INVALID_ARGUMENT, text).into());
        }
        Ok(())
    }
}

/// Both answers have the same form.
fn lease(answer: &[u8]) -> Result<Lease, FetcherError> {
    let unreadable = || FetcherError("the answer of the credentials fetcher cannot be read".to_owned());
    let mut lease = Lease { id: String::new(), paths: Vec::new() };
    for (number, text) in protobuf::read(answer).ok_or_else(unreadable)? {
        match number {
            1 => lease.id = text,
            2 => lease.paths.push(text),
            _ => {}
        }
    }
    Ok(lease)
}

/// Compat: as Go says it.
pub(super) fn system_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    }
}
