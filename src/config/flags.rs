//! The table of all commands and flags, with their help, exit codes and examples.
//!
//! [`super::args`] reads a command line by this table; the help, the completions and the manual page print it. Invariant: names are
//! unique, and every flag that a command names is in the table (tested).

/// The action of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Run as the agent.
    #[default]
    Run,
    /// Print [`super::help::usage`].
    Help,
    /// Print the version.
    Version,
    /// Print the licence.
    License,
    /// Ask a running agent for its health.
    Healthcheck,
    /// Ask whether anything answers on the agent's port, as the Go agent does.
    HealthcheckHttp,
    /// Print the attributes that registration would send.
    EcsAttributes,
    /// Load the configuration and print a report about it.
    CheckConfig,
    /// Make the settings of the host, take them back, or print them.
    HostSetup,
    /// Print [`super::help::reference`].
    ConfigReference,
    /// Print the completions for `Args::shell`.
    Completion,
    /// Print [`super::manual::page`].
    Man,
}

/// A shell with completions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shell {
    /// GNU bash.
    #[default]
    Bash,
    /// Z shell.
    Zsh,
    /// fish.
    Fish,
}

/// The shells by name.
pub(super) const SHELLS: [(&str, Shell); 3] = [("bash", Shell::Bash), ("zsh", Shell::Zsh), ("fish", Shell::Fish)];

/// One flag of [`FLAGS`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Flag {
    pub(super) name: &'static str,
    /// The value of the flag, or the arguments of the command.
    pub(super) value: Option<&'static str>,
    pub(super) help: &'static str,
    pub(super) meaning: Meaning,
    /// Other values than true and false, as in `-healthcheck=http`.
    pub(super) choices: &'static [&'static str],
    /// For a command: the names of flags that matter to it.
    pub(super) flags: &'static [&'static str],
    /// For a command: its exit codes; empty: 0 only.
    pub(super) exits: &'static [(u8, &'static str)],
    /// For a command: what to type, and what it does.
    pub(super) examples: &'static [(&'static str, &'static str)],
}

/// What a flag means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Do(Action),
    Healthcheck,
    Level,
    OutputLevel,
    FileLevel,
    Insecure,
    Blackhole,
    Service,
    Strict,
    Json,
    Print,
    Undo,
    AppArmor,
    All,
    Nothing,
}

impl Flag {
    /// The flag is a command: it may be written without a dash.
    pub(super) fn is_command(&self) -> bool {
        matches!(self.meaning, Meaning::Do(_) | Meaning::Healthcheck)
    }

    /// The argument after the flag is its value, a log level.
    pub(super) fn takes_level(&self) -> bool {
        !self.is_command() && self.value.is_some()
    }

    /// The flag has no meaning without `check-config`.
    pub(super) fn is_only_for_check(&self) -> bool {
        matches!(self.meaning, Meaning::All | Meaning::Strict | Meaning::Json)
    }

    const fn choices(self, choices: &'static [&'static str]) -> Self {
        Self { choices, ..self }
    }

    const fn flags(self, flags: &'static [&'static str]) -> Self {
        Self { flags, ..self }
    }

    const fn exits(self, exits: &'static [(u8, &'static str)]) -> Self {
        Self { exits, ..self }
    }

    const fn examples(self, examples: &'static [(&'static str, &'static str)]) -> Self {
        Self { examples, ..self }
    }
}

const fn flag(name: &'static str, meaning: Meaning, help: &'static str) -> Flag {
    Flag { name, value: None, help, meaning, choices: &[], flags: &[], exits: &[], examples: &[] }
}

const fn with_value(name: &'static str, value: &'static str, meaning: Meaning, help: &'static str) -> Flag {
    Flag { value: Some(value), ..flag(name, meaning, help) }
}

/// Every flag. If the flags ask for several actions, the first in this table is done. Completions show the first sentence of the
/// help.
#[rustfmt::skip]
pub(super) const FLAGS: &[Flag] = &[
    with_value("help", "[COMMAND]", Meaning::Do(Action::Help), "Print this text, or the help of a command.")
        .examples(&[("ecs-agent help check-config", "the flags, exit codes and examples of one command")]),
    flag("h", Meaning::Do(Action::Help), "The same as help."),
    flag("license", Meaning::Do(Action::License), "Print the licence."),
    flag("version", Meaning::Do(Action::Version), "Print the version. The number after Version is reported to ECS: it is that of the Go agent whose behaviour this program has, since ECS offers features by it. The last line has the version of this program."),
    flag("healthcheck", Meaning::Healthcheck, "Check the health of the agent on this host: exit 0 if it is healthy or starting, else 1 with the cause. -healthcheck=http: exit 0 if anything answers on its port, else 1, as the Go agent's -healthcheck does.")
        .choices(&["http"])
        .exits(&[(0, "healthy, or starting for less than five minutes"), (1, "not healthy; the text says why")])
        .examples(&[
            ("sudo ecs-agent healthcheck", "what is wrong with the agent on this host"),
            ("ecs-agent healthcheck=http", "the same answer as from the Go agent"),
        ]),
    flag("ecs-attributes", Meaning::Do(Action::EcsAttributes), "Print the attributes this agent would register with.")
        .flags(&["service", "loglevel"])
        .exits(&[(0, "printed"), (1, "Docker does not answer, or the settings cannot be used"), (5, "an error that does not pass by itself")])
        .examples(&[("sudo ecs-agent ecs-attributes -service", "what an agent started by the unit would offer to ECS")]),
    with_value("check-config", "[FILE...]", Meaning::Do(Action::CheckConfig), "Check the configuration, or each FILE in place of /etc/ecs/ecs.config, and print it without its secrets. Exit 2 if the agent would not start, or not as the settings say.")
        .flags(&["service", "all", "strict", "json"])
        .exits(&[(0, "nothing is wrong, or only notes"), (2, "something is fatal, or there is a warning; with -strict also a note")])
        .examples(&[
            ("sudo ecs-agent check-config -service", "the settings of the unit"),
            ("ecs-agent check-config -service new.config", "a file, before it is installed"),
            ("ecs-agent check-config -json a.config b.config", "several files, for a program"),
        ]),
    flag("host-setup", Meaning::Do(Action::HostSetup), "Make what the agent needs of this host and may not make itself, as root: above all the firewall rules that lead containers to it at 169.254.170.2 and guard it. The unit runs it before the agent and every minute; for an agent in a container, run it yourself.")
        .flags(&["service", "print", "undo", "apparmor"])
        .exits(&[(0, "made, or in place already; removed; printed; with -service also if a part failed, which the text says"), (1, "failed; the text says why")])
        .examples(&[
            ("ecs-agent host-setup -print", "the settings, as commands"),
            ("sudo ecs-agent host-setup", "make them for an agent in a container"),
            ("sudo ecs-agent host-setup -undo", "take them back"),
        ]),
    flag("config-reference", Meaning::Do(Action::ConfigReference), "Print every variable as a commented ecs.config."),
    with_value("completion", "SHELL", Meaning::Do(Action::Completion), "Print the completions for bash, zsh or fish.")
        .exits(&[(0, "printed"), (2, "no such shell")])
        .examples(&[("ecs-agent completion bash", "the script for bash")]),
    flag("man", Meaning::Do(Action::Man), "Print the manual page.")
        .examples(&[("ecs-agent man | man -l -", "read it")]),
    flag("all", Meaning::All, "With check-config: list the defaults, too."),
    flag("strict", Meaning::Strict, "With check-config: exit 2 on a note, too."),
    flag("json", Meaning::Json, "With check-config: print one JSON document."),
    flag("print", Meaning::Print, "With host-setup: change nothing, and print the commands."),
    flag("undo", Meaning::Undo, "With host-setup: take the settings back."),
    flag("apparmor", Meaning::AppArmor, "With host-setup: write and load the AppArmor profile ecs-agent-default, for an agent in a container, too."),
    with_value("loglevel", "LEVEL", Meaning::Level, "Log level: debug, info, warn, error, crit or none. Takes precedence over ECS_LOGLEVEL and ECS_LOGLEVEL_ON_INSTANCE."),
    with_value("loglevel-driver", "LEVEL", Meaning::OutputLevel, "Log level on standard output only. Takes precedence over -loglevel."),
    with_value("loglevel-on-instance", "LEVEL", Meaning::FileLevel, "Log level in the log file only. Takes precedence over -loglevel."),
    flag("service", Meaning::Service, "Run as the service of the host, as the systemd unit does: in place of ecs-init, too. Where nothing is set, the defaults of ecs-init apply (state in /var/lib/ecs/data, more log drivers), and /var/lib/ecs/ecs.config is read, below /etc/ecs/ecs.config. Without this flag: the defaults of the Go agent alone, as in a container."),
    flag("k", Meaning::Insecure, "Do not verify the TLS certificates of ECS, ACS and ECR. Not recommended: anyone on the network path can run containers here."),
    flag("blackhole-ec2-metadata", Meaning::Blackhole, "Ask the instance metadata service for nothing but credentials. Not recommended."),
    flag("windows-service", Meaning::Nothing, "Accepted, without effect."),
];

/// The names of the flags that are wanted.
pub(super) fn names(wanted: impl Fn(&Flag) -> bool) -> Vec<&'static str> {
    FLAGS.iter().filter(|flag| wanted(flag)).map(|flag| flag.name).collect()
}

/// The flag or command of this name.
pub(super) fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_a_command_is_in_the_table() {
        let mut seen = std::collections::BTreeSet::new();
        for flag in FLAGS {
            assert!(seen.insert(flag.name), "{} twice", flag.name);
            assert!(flag.flags.iter().all(|name| find(name).is_some_and(|flag| !flag.is_command())), "{}", flag.name);
            let has_details = !flag.flags.is_empty() || !flag.exits.is_empty() || !flag.examples.is_empty();
            assert!(flag.is_command() || !has_details, "{} is no command", flag.name);
            for (line, _) in flag.examples {
                let words: Vec<&str> =
                    line.split(' ').skip_while(|word| *word == "sudo" || *word == "ecs-agent").collect();
                let words = words.iter().take_while(|word| **word != "|");
                assert!(super::super::Args::parse(words.copied()).is_ok(), "{line}");
            }
        }
    }
}
