//! Command lines as data. Nothing here runs a program.

use std::fmt;

/// The seconds for which `iptables` and `ip6tables` wait for other programs that change the rules.
const LOCK_WAIT: &str = "5";

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
