//! The command line, in Go's flag syntax: `-name`, `--name`, `-name=value`, `-name value`, `--` ends the flags. A command may be
//! written as a word or as a flag: `version`, `-version`.
//!
//! This module is pure: it reads a list of arguments by the table in `flags` and returns a value. Invariant: a flag that Go's `flag` package refuses is an error (exit code 5, spec
//! `registration.md` §1), and so is a word that names no command (exit code 2): the Go agent ignores such a word and starts. After
//! one of its own flags that prints something, words are ignored as there. Flags: spec `config.md` §2.8.

use super::flags::{FLAGS, Flag, Meaning, SHELLS, find, names};
use super::keys::LEVELS;
use super::kind::Kind;
use super::log::LogLevel;
use super::problem::{Problem, Severity};
use super::suggest::{completed, did_you_mean};
use super::{Role, meant, shown};
use ecs_core::model::text::cut;
use std::ffi::OsString;

pub use super::flags::{Action, Shell};

/// A parsed command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args {
    /// The action that the flags ask for.
    pub action: Action,
    /// The value of `-loglevel`, which takes precedence over `ECS_LOGLEVEL`; `None`: not given.
    pub log_level: Option<LogLevel>,
    /// The value of `-loglevel-driver`, for standard output only; `None`: not given.
    pub log_level_output: Option<LogLevel>,
    /// The value of `-loglevel-on-instance`, for the log file only; `None`: not given.
    pub log_level_file: Option<LogLevel>,
    /// TLS certificates are not verified (ECS API, ACS, TCS, ECR).
    pub accept_insecure_cert: bool,
    /// The instance metadata service is not used.
    pub blackhole_ec2_metadata: bool,
    /// The programs that the agent replaces.
    pub role: Role,
    /// The files that `check-config` checks; none: those of a start.
    pub files: Vec<String>,
    /// `check-config` lists the defaults, too.
    pub all: bool,
    /// `check-config` counts every warning.
    pub strict: bool,
    /// `check-config` prints JSON.
    pub json: bool,
    /// `host-setup` only prints what it would do.
    pub print: bool,
    /// `host-setup` removes what it has made.
    pub undo: bool,
    /// `host-setup` makes the AppArmor profile, too.
    pub apparmor: bool,
    /// The shell of `completion`.
    pub shell: Shell,
    /// The command that `help` is about; `None`: all of them.
    pub topic: Option<&'static str>,
    /// Arguments that were accepted without effect, for the log.
    pub notes: Vec<Problem>,
}

/// The command line cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// There is no such flag.
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    /// The name of a flag has a syntax error.
    #[error("bad flag syntax: {0}")]
    Syntax(String),
    /// The value of a flag is missing, as in `-loglevel` at the end.
    #[error("flag needs an argument: -{0}")]
    NoValue(&'static str),
    /// The value of a switch is not a boolean, as in `-k=perhaps`.
    #[error("invalid value for -{0}: expected true or false")]
    NotBoolean(&'static str),
    /// The value of `-healthcheck` is unknown, as in `-healthcheck=ftp`.
    #[error("invalid value for -healthcheck: expected http, true or false")]
    NotHealthcheck,
    /// An argument is not UTF-8.
    #[error("an argument is not UTF-8")]
    NotText,
    /// The flag, the first of the two, has no meaning without the command.
    #[error("-{0} is a flag of {1}, which is missing")]
    OnlyFor(&'static str, &'static str),
    /// There is no such command.
    #[error("unknown command: {0}")]
    UnknownCommand(String),
    /// `help` is asked about something that is no command.
    #[error("no such command: {0}")]
    UnknownTopic(String),
    /// A command has an argument that it does not take.
    #[error("unexpected argument: {0}")]
    Unexpected(String),
    /// A command that is switched off on the same line, as in `check-config -check-config=false`.
    #[error("{0} is a command and cannot be switched off")]
    SwitchedOff(&'static str),
    /// `completion` without the name of a shell that has completions.
    #[error("completion needs the name of a shell: bash, zsh or fish")]
    NoShell,
}

impl ArgsError {
    /// The exit code: 5 for what the Go agent refuses, too; 2 for a mistake in a command, which no service manager starts.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::UnknownCommand(_)
            | Self::UnknownTopic(_)
            | Self::Unexpected(_)
            | Self::SwitchedOff(_)
            | Self::NoShell => 2,
            Self::Unknown(_)
            | Self::Syntax(_)
            | Self::NoValue(_)
            | Self::NotBoolean(_)
            | Self::NotHealthcheck
            | Self::NotText
            | Self::OnlyFor(..) => 5,
        }
    }

    /// The second line of the message: what to write instead.
    pub fn hint(&self) -> String {
        let meant = match self {
            Self::Unknown(name) => completed(name, &names(|_| true)).map(|name| format!("-{name}")),
            Self::UnknownCommand(word) | Self::UnknownTopic(word) | Self::Unexpected(word) => {
                completed(word, &names(Flag::is_command)).map(str::to_owned)
            }
            Self::OnlyFor(name, command) => Some(format!("{command} -{name}")),
            _ => None,
        };
        let first = match (meant, self) {
            (Some(meant), _) => format!("Did you mean {meant}? "),
            (None, Self::UnknownCommand(word)) => {
                habit(word).unwrap_or("Without a command, the agent runs. ").to_owned()
            }
            (None, _) => String::new(),
        };
        format!("{first}`ecs-agent help` lists all commands and flags.")
    }
}

/// What to do instead of a command that other programs have; `None`: it is none of them.
fn habit(word: &str) -> Option<&'static str> {
    Some(match word {
        "status" => "`systemctl status ecs` shows the unit, `ecs-agent healthcheck` what is wrong. ",
        "stop" | "restart" | "reload" | "enable" | "disable" => "`systemctl` does that with the unit `ecs`. ",
        "log" | "logs" => "`journalctl -u ecs` shows the log. ",
        "validate" | "verify" | "lint" | "test" => "Did you mean check-config? ",
        "tasks" | "ps" | "ls" | "list" | "metadata" => "`curl -s localhost:51678/v1/tasks` asks the running agent. ",
        _ => return None,
    })
}

/// The place of a problem with the command line.
pub(super) const COMMAND_LINE: &str = "command line";

/// A word of the command line as it may be shown.
fn shown(word: &str) -> String {
    cut(word, 80)
}

/// What to do with a word that is no flag.
enum Word {
    Taken,
    /// This word and all that follow are ignored, as by the Go agent.
    EndsTheFlags,
}

/// The state while parsing.
#[derive(Default)]
struct Parser {
    args: Args,
    /// The commands so far.
    actions: Vec<Action>,
    /// The kind of health check that the flags so far ask for.
    healthcheck: Option<Action>,
    /// A command was written as a word.
    is_by_word: bool,
    /// A command that was given before and is switched off now.
    switched_off: Option<&'static str>,
    has_shell: bool,
}

impl Args {
    /// Parses the arguments after the program's name.
    ///
    /// # Errors
    /// [`ArgsError`]; the caller prints it with its hint and exits with its code.
    pub fn parse<T: Into<OsString>>(arguments: impl IntoIterator<Item = T>) -> Result<Self, ArgsError> {
        let mut parser = Parser::default();
        let mut words = arguments.into_iter().map(|word| word.into().into_string().map_err(|_| ArgsError::NotText));
        let mut only_words = false;
        while let Some(word) = words.next().transpose()? {
            let body = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).filter(|_| word != "-");
            let Some(body) = body.filter(|_| !only_words) else {
                match parser.word(&word)? {
                    Word::Taken => continue,
                    Word::EndsTheFlags => break,
                }
            };
            if body.is_empty() {
                only_words = true;
                continue;
            }
            if body.starts_with(['-', '=']) {
                // What follows a `=` may be a secret.
                let (name, value) = split(&word);
                return Err(ArgsError::Syntax(format!("{}{}", shown(name), if value.is_some() { "=…" } else { "" })));
            }
            let (name, value) = split(body);
            let flag = find(name).ok_or_else(|| ArgsError::Unknown(shown(name)))?;
            let value = match value {
                None if flag.takes_level() => words.next().transpose()?.ok_or(ArgsError::NoValue(flag.name))?,
                value => value.unwrap_or("true").to_owned(),
            };
            parser.flag(flag, &value)?;
        }
        parser.finish()
    }
}

/// The name and the value of `name=value`.
fn split(body: &str) -> (&str, Option<&str>) {
    body.split_once('=').map_or((body, None), |(name, value)| (name, Some(value)))
}

impl Parser {
    fn note(&mut self, flag: &str, shape: String, expected: &str, instead: &str, severity: Severity) {
        self.args.notes.push(Problem {
            variable: flag.to_owned(),
            place: COMMAND_LINE.to_owned(),
            shape,
            expected: expected.to_owned(),
            instead: instead.to_owned(),
            severity,
        });
    }

    fn word(&mut self, word: &str) -> Result<Word, ArgsError> {
        if word.is_empty() {
            // A shell leaves such an argument where a variable is empty.
            self.note("", "an empty argument".to_owned(), "none", "it is ignored", Severity::Notice);
            return Ok(Word::Taken);
        }
        if self.actions.contains(&Action::CheckConfig) {
            self.args.files.push(word.to_owned());
            return Ok(Word::Taken);
        }
        if self.actions.contains(&Action::Completion) && !self.has_shell {
            let (_, shell) = SHELLS.iter().find(|(name, _)| *name == word).ok_or(ArgsError::NoShell)?;
            (self.args.shell, self.has_shell) = (*shell, true);
            return Ok(Word::Taken);
        }
        let is_command_known = !self.actions.is_empty() || self.healthcheck.is_some();
        let is_topic = self.actions.contains(&Action::Help) && find(word).is_some_and(Flag::is_command);
        if is_command_known && !self.is_by_word && !is_topic {
            self.note("", "words after the flags".to_owned(), "none", "they are ignored", Severity::Notice);
            return Ok(Word::EndsTheFlags);
        }
        let (name, value) = split(word);
        match (find(name).filter(|flag| flag.is_command()), self.switched_off) {
            (Some(flag), _) => {
                self.is_by_word = true;
                self.flag(flag, value.unwrap_or("true"))?;
                let is_on = self.healthcheck.is_some() || !self.actions.is_empty();
                if is_on { Ok(Word::Taken) } else { Err(ArgsError::SwitchedOff(flag.name)) }
            }
            // What follows a `=` may be a secret.
            (None, _) if self.actions == [Action::Help] => Err(ArgsError::UnknownTopic(shown(name))),
            (None, _) if is_command_known => Err(ArgsError::Unexpected(shown(name))),
            (None, Some(command)) => Err(ArgsError::SwitchedOff(command)),
            (None, None) => Err(ArgsError::UnknownCommand(shown(name))),
        }
    }

    fn flag(&mut self, flag: &Flag, value: &str) -> Result<(), ArgsError> {
        if flag.takes_level() {
            self.level(flag, value);
            return Ok(());
        }
        let on = match (value, flag.meaning) {
            ("1" | "t" | "T" | "true" | "TRUE" | "True", _) => true,
            ("0" | "f" | "F" | "false" | "FALSE" | "False", _) => false,
            ("http", Meaning::Healthcheck) => {
                self.healthcheck = Some(Action::HealthcheckHttp);
                return Ok(());
            }
            (_, Meaning::Healthcheck) => return Err(ArgsError::NotHealthcheck),
            _ => return Err(ArgsError::NotBoolean(flag.name)),
        };
        match flag.meaning {
            Meaning::Healthcheck => {
                self.switched_off = self.healthcheck.filter(|_| !on).map(|_| flag.name).or(self.switched_off);
                self.healthcheck = on.then_some(Action::Healthcheck);
            }
            Meaning::Do(action) if on => self.actions.push(action),
            Meaning::Do(action) => {
                self.switched_off = self.actions.contains(&action).then_some(flag.name).or(self.switched_off);
                self.actions.retain(|other| *other != action);
            }
            Meaning::Insecure => self.args.accept_insecure_cert = on,
            Meaning::Service => self.args.role = if on { Role::Service } else { Role::Agent },
            Meaning::Blackhole => self.args.blackhole_ec2_metadata = on,
            Meaning::All => self.args.all = on,
            Meaning::Strict => self.args.strict = on,
            Meaning::Json => self.args.json = on,
            Meaning::Print => self.args.print = on,
            Meaning::Undo => self.args.undo = on,
            Meaning::AppArmor => self.args.apparmor = on,
            Meaning::Level | Meaning::OutputLevel | Meaning::FileLevel | Meaning::Nothing => self.without_effect(flag),
        }
        Ok(())
    }

    fn level(&mut self, flag: &Flag, value: &str) {
        let level = match flag.meaning {
            Meaning::OutputLevel => &mut self.args.log_level_output,
            Meaning::FileLevel => &mut self.args.log_level_file,
            _ => &mut self.args.log_level,
        };
        *level = LogLevel::from_name(value).or(*level);
        if LogLevel::from_name(value).is_none() {
            let kind = Kind::AnyCase(LEVELS);
            let meant = meant::meant(kind, value, "").map_or_else(String::new, did_you_mean);
            let expected = format!("{}{meant}", kind.expected());
            self.note(
                &format!("-{}", flag.name),
                shown::shape(kind, value),
                &expected,
                "it is ignored",
                Severity::Changes,
            );
        }
    }

    fn without_effect(&mut self, flag: &Flag) {
        let name = format!("-{}", flag.name);
        self.note(&name, "a flag without effect".to_owned(), "no such flag", "it is ignored", Severity::Notice);
    }

    fn finish(self) -> Result<Args, ArgsError> {
        let Self { mut args, actions, healthcheck, has_shell, is_by_word, switched_off } = self;
        let is_asked = |flag: &&Flag| match flag.meaning {
            Meaning::Do(action) => actions.contains(&action),
            Meaning::Healthcheck => healthcheck.is_some(),
            _ => false,
        };
        let mut asked = FLAGS.iter().filter(is_asked);
        args.action = match asked.next().map(|flag| flag.meaning) {
            Some(Meaning::Do(action)) => action,
            Some(_) => healthcheck.unwrap_or_default(),
            // With a word or a file, a person has asked for something, and not for a daemon.
            None => match switched_off.filter(|_| is_by_word || !args.files.is_empty()) {
                Some(name) => return Err(ArgsError::SwitchedOff(name)),
                None => Action::Run,
            },
        };
        if args.action == Action::Help {
            args.topic = asked.find(|flag| flag.meaning != Meaning::Do(Action::Help)).map(|flag| flag.name);
            return Ok(args);
        }
        let (check, setup) = ((Action::CheckConfig, "check-config"), (Action::HostSetup, "host-setup"));
        for (name, is_set, (action, command)) in [
            ("all", args.all, check),
            ("strict", args.strict, check),
            ("json", args.json, check),
            ("print", args.print, setup),
            ("undo", args.undo, setup),
            ("apparmor", args.apparmor, setup),
        ] {
            if is_set && args.action != action {
                return Err(ArgsError::OnlyFor(name, command));
            }
        }
        if args.action == Action::Completion && !has_shell { Err(ArgsError::NoShell) } else { Ok(args) }
    }
}
