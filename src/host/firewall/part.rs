//! What all parts of the rules share: how a part was found, and why it could not be made.

use crate::host::program::{Call, Outcome, ProgramError};
use std::io;
use std::time::Duration;

/// The time limit of one call. It includes the wait for the lock of `iptables`, and the first call may load modules of the kernel.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

/// Why the rules could not be made, checked or removed.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// This process may not change the firewall.
    #[error("this process may not change the firewall: it lacks the capability CAP_NET_ADMIN or CAP_NET_RAW")]
    NoRight,
    /// A program gave no outcome.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A program failed.
    #[error("{call} failed: {failure}")]
    Failed {
        /// The command line, shortened.
        call: String,
        /// How it ended, and what it wrote.
        failure: String,
    },
    /// The rules are not in the table after they were made.
    #[error("{program} does not show what {restore} has made: are the two of the same kind, legacy or nft?")]
    Absent {
        /// The program that lists rules.
        program: &'static str,
        /// The program that makes them.
        restore: &'static str,
    },
    /// The guard of `route_localnet` cannot be put back, and `route_localnet` cannot be taken back either.
    #[error("{error}; and {second}, so other hosts reach programs on 127.0.0.1")]
    Unguarded {
        /// Why the guard could not be put back.
        error: Box<Self>,
        /// Why `route_localnet` could not be taken back.
        second: Box<Self>,
    },
    /// A setting of the kernel cannot be read or written.
    #[error("{name} cannot be changed: {error}")]
    Setting {
        /// The name, as for `sysctl`.
        name: String,
        /// The system's answer.
        error: io::Error,
    },
}

/// A part of the rules, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name: table and built-in chain, or the name of a setting.
    pub name: String,
    /// What it is for, for people.
    pub purpose: &'static str,
    /// It was missing, or not as it must be, and has been put right.
    pub was_missing: bool,
}

/// The error of a program that failed.
pub(super) fn failed(call: &Call<'_>, outcome: &Outcome) -> FirewallError {
    FirewallError::Failed { call: call.to_string(), failure: outcome.failure() }
}
