//! Command lines as data. Nothing here runs a program.

use rustix::process::geteuid;
use rustix::thread::{CapabilitySet, capabilities};
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// The seconds for which `iptables` and `ip6tables` wait for other programs that change the rules.
const LOCK_WAIT: &str = "5";

/// Exists on a host whose init is systemd.
const SYSTEMD: &str = "/run/systemd/system";

/// What runs the commands that read and change the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Runner {
    /// This process.
    #[default]
    Agent,
    /// systemd, each as a short unit of its own. So the service needs no right to change the network, which it would hold all the
    /// time for something that few tasks ever ask for.
    Systemd,
}

impl Runner {
    /// What can run them on this host: systemd only if this process is root and lacks one of the rights.
    pub fn for_this_process() -> Self {
        let needed = CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW;
        let has_right = capabilities(None).is_ok_and(|sets| sets.effective.contains(needed));
        let is_service = !has_right && geteuid().is_root() && Path::new(SYSTEMD).exists();
        if is_service { Self::Systemd } else { Self::Agent }
    }
}

/// The rights of such a unit: what `iptables` and `tc` need, and `nsenter` for the network of a task.
const RIGHTS: &str = "--property=CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_SYS_ADMIN CAP_SYS_PTRACE";

/// The program and its arguments. Each word reaches the program as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CommandLine(Vec<String>);

impl CommandLine {
    /// A command line of these words.
    pub(super) fn new<const N: usize>(words: [&str; N]) -> Self {
        Self(words.map(str::to_owned).into())
    }

    /// A call of `iptables` or `ip6tables`, which waits for the lock on the rules.
    pub(super) fn iptables<const N: usize>(tool: &str, words: [&str; N]) -> Self {
        Self::new([tool, "-w", LOCK_WAIT]).and(words)
    }

    /// The same command line with more words at its end.
    pub(super) fn and<const N: usize>(mut self, words: [&str; N]) -> Self {
        self.0.extend(words.map(str::to_owned));
        self
    }

    /// The same command in the network namespace of this file; `None`: in that of the agent.
    pub(super) fn in_namespace(self, namespace: Option<&str>) -> Self {
        let Some(file) = namespace else { return self };
        Self([vec!["nsenter".to_owned(), format!("--net={file}")], self.0].concat())
    }

    /// The same command as this runner runs it, within the time limit.
    pub(super) fn by(self, runner: Runner, limit: Duration) -> Self {
        if runner == Runner::Agent {
            return self;
        }
        // The unit gets the input, and its output and exit code come back. Of its end systemd writes nothing to the journal.
        let words = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", "--setenv=LC_ALL=C", RIGHTS];
        let end = [
            "--property=LogLevelMax=notice".to_owned(),
            format!("--property=RuntimeMaxSec={}ms", limit.as_millis()),
            "--".to_owned(),
        ];
        Self([Self::new(words).0, end.into(), self.0].concat())
    }

    /// The program.
    pub(super) fn program(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }

    /// The arguments.
    pub(super) fn arguments(&self) -> Vec<&str> {
        self.0.iter().skip(1).map(String::as_str).collect()
    }
}

impl fmt::Display for CommandLine {
    /// The words with spaces between them, for the log and for a batch of `tc`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_of_systemd_is_the_same_command_in_a_unit() {
        let line = || CommandLine::iptables("iptables", ["-S", "OUTPUT"]);
        let limit = Duration::from_millis(4321);
        assert_eq!(line().by(Runner::Agent, limit), line());
        let by_systemd = line().in_namespace(Some("/proc/7/ns/net")).by(Runner::Systemd, limit);
        let text = by_systemd.to_string();
        assert!(text.starts_with("systemd-run --quiet --pipe --wait --collect "), "{text}");
        let end = "--property=RuntimeMaxSec=4321ms -- nsenter --net=/proc/7/ns/net iptables -w 5 -S OUTPUT";
        assert!(text.ends_with(end), "{text}");
    }
}
