//! The credentials fetcher: the daemon on the host that gets Kerberos tickets for service accounts (spec `resources.md` §7).
//!
//! Owns the calls and the number of attempts; [`grpc`](crate::grpc) encodes and transports the messages. It stores nothing.
//! Invariant: no error text contains a password.

use crate::backoff::{Backoff, Shape};
use crate::grpc::client::{self, Status};
use crate::grpc::protobuf;
use crate::grpc::system_error::system_error;
use crate::lane::{Lane, Settings};
use ecs_core::model::text::cleaned;
use ecs_core::model::{Secret, with_causes};
use std::path::PathBuf;
use std::time::Duration;

/// The limit for a call with all its attempts; each attempt has an equal part.
const CALL_LIMIT: Duration = Duration::from_secs(60);
/// How often a call is attempted.
const ATTEMPTS: u32 = 3;
const PAUSES: Shape = Shape { initial: Duration::from_secs(1), max: Duration::from_secs(5), factor: 2.0, jitter: 0.2 };

/// Why a call failed, in the Go agent's words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct FetcherError(String);

/// The account with which a host outside the domain requests the ticket of a service account.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) username: String,
    pub(super) password: Secret,
    pub(super) domain: String,
}

/// A lease, and the paths of its tickets on the host.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lease {
    /// The lease's id, by which it is deleted.
    pub(super) id: String,
    /// Paths of the tickets, in the order in which the daemon lists them.
    pub(super) paths: Vec<String>,
}

/// Threads that check whether the socket exists.
const SOCKET_CHECK: Settings = Settings { threads: 1, spare: 1, limit: Duration::from_secs(10) };

/// The client of the daemon.
#[derive(Debug)]
pub(super) struct CredentialsFetcher {
    socket: PathBuf,
    lane: Lane,
}

impl CredentialsFetcher {
    /// The daemon that listens on this socket. Nothing is sent yet.
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket, lane: Lane::new("credentials fetcher", SOCKET_CHECK) }
    }

    /// Gets tickets for the accounts in these documents, on a host that has joined the domain.
    pub(super) async fn add(&self, documents: &[String]) -> Result<Lease, FetcherError> {
        self.call("AddKerberosLease", &protobuf::write((1, documents), &[])).await.and_then(|answer| lease(&answer))
    }

    /// Gets tickets for the accounts in these documents, requested with this account.
    pub(super) async fn add_without_domain(
        &self,
        documents: &[String],
        account: &Account,
    ) -> Result<Lease, FetcherError> {
        let Account { username, password, domain } = account;
        account.check()?;
        let single = [(2, username.as_str()), (3, password.expose()), (4, domain.as_str())];
        let message = protobuf::write((1, documents), &single);
        self.call("AddNonDomainJoinedKerberosLease", &message).await.and_then(|answer| lease(&answer))
    }

    /// Renews all tickets that were requested with this account.
    pub(super) async fn renew(&self, account: &Account) -> Result<(), FetcherError> {
        let Account { username, password, domain } = account;
        account.check()?;
        let single = [(1, username.as_str()), (2, password.expose()), (3, domain.as_str())];
        self.call("RenewNonDomainJoinedKerberosLease", &protobuf::write((1, &[]), &single)).await.map(drop)
    }

    /// Gives a lease back. For the daemon, an unknown lease is success.
    pub(super) async fn delete(&self, lease: &str) -> Result<(), FetcherError> {
        self.call("DeleteKerberosLease", &protobuf::write((1, &[]), &[(1, lease)])).await.map(drop)
    }

    async fn call(&self, method: &str, message: &[u8]) -> Result<Vec<u8>, FetcherError> {
        let path = format!("/credentialsfetcher.CredentialsFetcherService/{method}");
        self.check_socket().await?;
        let mut pauses = Backoff::new(PAUSES);
        let mut attempt = 1;
        loop {
            match client::call(&self.socket, &path, message, CALL_LIMIT / ATTEMPTS).await {
                Ok(answer) => return Ok(answer),
                Err(status) if attempt == ATTEMPTS || !status.is_temporary() => return Err(status.into()),
                Err(status) => {
                    tracing::warn!(%status, method, attempt, "a call to the credentials fetcher failed; trying again");
                }
            }
            tokio::time::sleep(pauses.pause()).await;
            attempt += 1;
        }
    }
}

impl CredentialsFetcher {
    /// Checks that the socket exists.
    async fn check_socket(&self) -> Result<(), FetcherError> {
        let (socket, shown) = (self.socket.clone(), self.socket.display().to_string());
        let why = match self.lane.run(&shown, move || std::fs::metadata(&socket)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => system_error(&error),
            Err(error) => with_causes(&error),
        };
        Err(FetcherError(format!("stat {shown}: {why}")))
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
            return Err(Status::new(client::INVALID_ARGUMENT, text).into());
        }
        Ok(())
    }
}

/// Parses the lease in an answer. The answers of both calls have the same form.
fn lease(answer: &[u8]) -> Result<Lease, FetcherError> {
    let unreadable = || FetcherError("the answer of the credentials fetcher cannot be read".to_owned());
    let mut lease = Lease { id: String::new(), paths: Vec::new() };
    for (number, text) in protobuf::read(answer).ok_or_else(unreadable)? {
        match number {
            // A name with control characters is refused, since a cleaned name would be another one.
            1 | 2 if cleaned(&text) != text => return Err(unreadable()),
            1 => lease.id = text,
            2 => lease.paths.push(text),
            _ => {}
        }
    }
    Ok(lease)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_testing::credentials_fetcher::{Call, Fault, Fetcher};

    /// The faults of the calls, the expected result, and the expected number of calls.
    type Case = (Vec<Fault>, Result<(), &'static str>, usize);

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("ecs-fetcher-{name}-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        path
    }

    fn document(account: &str) -> String {
        serde_json::json!({"DomainJoinConfig": {"MachineAccountName": account}}).to_string()
    }

    fn call(method: &str, fields: &[(u8, &str)]) -> Call {
        let fields = fields.iter().map(|(number, text)| (*number, (*text).to_owned())).collect();
        Call { method: method.to_owned(), fields }
    }

    #[tokio::test]
    async fn each_call_is_encoded_and_its_answer_parsed() {
        let directory = directory("calls");
        let fake = Fetcher::start(&directory);
        let fetcher = CredentialsFetcher::new(fake.socket());
        // Larger than the flow control window, so that the peer must acknowledge some data first.
        let large = document("web").replace('}', &format!("{}}}", " ".repeat(150_000)));
        let lease = fetcher.add(&[large.clone(), document("db")]).await.unwrap();
        let path =
            |lease: &Lease, account: &str| directory.join("krbdir").join(&lease.id).join(account).display().to_string();
        assert_eq!(lease.paths, [path(&lease, "web"), path(&lease, "db")]);
        let account = |password: &str| Account {
            username: "me".into(),
            password: password.into(),
            domain: "corp.example".into(),
        };
        let other = fetcher.add_without_domain(&[document("app")], &account("hunter2")).await.unwrap();
        assert_eq!(other.paths, [path(&other, "app")]);
        assert_eq!(fake.leases(), [lease.id.clone(), other.id]);
        fetcher.renew(&account("hunter2")).await.unwrap();
        for _ in 0..2 {
            fetcher.delete(&lease.id).await.unwrap();
        }
        assert_eq!(fake.leases().len(), 1);
        let wanted = [
            call("AddKerberosLease", &[(1, &large), (1, &document("db"))]),
            call(
                "AddNonDomainJoinedKerberosLease",
                &[(1, &document("app")), (2, "me"), (3, "hunter2"), (4, "corp.example")],
            ),
            call("RenewNonDomainJoinedKerberosLease", &[(1, "me"), (2, "hunter2"), (3, "corp.example")]),
            call("DeleteKerberosLease", &[(1, &lease.id)]),
            call("DeleteKerberosLease", &[(1, &lease.id)]),
        ];
        assert_eq!(fake.calls(), wanted);
        let error = fetcher.renew(&account("")).await.unwrap_err();
        let text = "rpc error: code = InvalidArgument desc = username, password or domain should not be empty";
        assert_eq!((error.to_string().as_str(), fake.calls().len()), (text, wanted.len()));
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[tokio::test]
    async fn temporary_failures_are_tried_three_times_others_once() {
        let table = [
            (vec![Fault::Status(14, "busy"), Fault::Reset], Ok(()), 3),
            (
                vec![Fault::Status(13, "no"), Fault::AtOnce(8, "much"), Fault::Status(10, "ERROR: 100%25")],
                Err("rpc error: code = Aborted desc = ERROR: 100%"),
                3,
            ),
            (vec![Fault::AtOnce(3, "bad")], Err("rpc error: code = InvalidArgument desc = bad"), 1),
            (vec![Fault::Status(7, "no")], Err("rpc error: code = PermissionDenied desc = no"), 1),
            (
                vec![Fault::Http(404)],
                Err(
                    "rpc error: code = Unimplemented desc = unexpected HTTP status code received from server: 404 Not Found",
                ),
                1,
            ),
        ];
        let run = |(nth, (faults, wanted, calls)): (usize, Case)| async move {
            let directory = directory(&nth.to_string());
            let fake = Fetcher::start(&directory);
            fake.fail_next(faults);
            let result = CredentialsFetcher::new(fake.socket()).delete("lease").await;
            assert_eq!(result.map_err(|error| error.to_string()), wanted.map_err(str::to_owned));
            assert_eq!(fake.calls().len(), calls);
            std::fs::remove_dir_all(directory).unwrap();
        };
        futures_util::future::join_all(table.into_iter().enumerate().map(run)).await;
    }

    #[tokio::test]
    async fn a_daemon_that_is_missing_or_silent_is_an_error() {
        let directory = directory("absent");
        let socket = directory.join("fetcher.sock");
        let reason = CredentialsFetcher::new(socket.clone()).delete("lease").await.unwrap_err().to_string();
        assert_eq!(reason, format!("stat {}: no such file or directory", socket.display()));
        let fake = Fetcher::start(&directory);
        fake.fail_next([Fault::Silence]);
        let status =
            client::call(&socket, "/credentialsfetcher.CredentialsFetcherService/X", b"", Duration::from_millis(200));
        let reason = status.await.unwrap_err().to_string();
        assert_eq!(reason, "rpc error: code = DeadlineExceeded desc = context deadline exceeded");
        drop(fake);
        let gone = async || client::call(&socket, "/x", b"", Duration::from_secs(20)).await.unwrap_err().to_string();
        // The fetcher's task ends at once, its listener a moment later.
        let mut reason = gone().await;
        while !reason.contains("refused") {
            tokio::task::yield_now().await;
            reason = gone().await;
        }
        let wanted = format!(
            "rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while dialing: dial unix {}: connect: \
             connection refused\"",
            socket.display()
        );
        assert_eq!(reason, wanted);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
