//! The command line of the daemon, in Go's flag syntax: `-name`, `--name`, `-name=value`, `-name value`, `--` ends the flags.
//!
//! This module is pure: it reads a list of arguments and returns a value. Invariant: an argument that Go's `flag` package refuses
//! is an error (exit code 5, spec `registration.md` §1), and an argument that it ignores is noted. Flags: spec `config.md` §2.8.

use super::Role;
use super::log::LogLevel;
use std::ffi::OsString;

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
    /// Load the configuration and print [`super::help::report`]; exit with 1 if a problem is fatal.
    CheckConfig,
    /// Print [`super::help::reference`].
    ConfigReference,
}

/// A parsed command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args {
    /// The action that the flags ask for.
    pub action: Action,
    /// The value of `-loglevel`, which takes precedence over the variables; `None`: not given.
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
    /// Arguments that were accepted without effect, for the log.
    pub notes: Vec<String>,
    /// The health check that the flags so far ask for, while parsing; [`Self::action`] has the result.
    healthcheck: Option<Action>,
}

/// The command line cannot be parsed: exit code 5.
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
}

/// One flag of [`FLAGS`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Flag {
    pub(super) name: &'static str,
    pub(super) value: Option<&'static str>,
    pub(super) help: &'static str,
    meaning: Meaning,
}

#[derive(Clone, Copy, Debug)]
enum Meaning {
    Do(Action),
    Healthcheck,
    Level,
    OutputLevel,
    FileLevel,
    Insecure,
    Blackhole,
    Service,
    Nothing,
}

const fn flag(name: &'static str, meaning: Meaning, help: &'static str) -> Flag {
    let value = match meaning {
        Meaning::Level | Meaning::OutputLevel | Meaning::FileLevel => Some("LEVEL"),
        _ => None,
    };
    Flag { name, value, help, meaning }
}

/// Every flag. If the flags ask for several actions, the first in this table is done.
#[rustfmt::skip]
pub(super) const FLAGS: &[Flag] = &[
    flag("help", Meaning::Do(Action::Help), "Print this text."),
    flag("h", Meaning::Do(Action::Help), "The same."),
    flag("license", Meaning::Do(Action::License), "Print the licence."),
    flag("version", Meaning::Do(Action::Version), "Print the version."),
    flag("healthcheck", Meaning::Healthcheck, "Check the health of the agent on this host: exit 0 if it is healthy or starting, else 1 with the cause. -healthcheck=http: exit 0 if anything answers on its port, else 1, as the Go agent's -healthcheck does."),
    flag("ecs-attributes", Meaning::Do(Action::EcsAttributes), "Print the attributes this agent would register with."),
    flag("check-config", Meaning::Do(Action::CheckConfig), "Check the configuration, print it without its secrets; exit 1 if the agent would not start."),
    flag("config-reference", Meaning::Do(Action::ConfigReference), "Print every variable as a commented ecs.config."),
    flag("loglevel", Meaning::Level, "debug, info, warn, error, crit or none. Takes precedence over ECS_LOGLEVEL and ECS_LOGLEVEL_ON_INSTANCE."),
    flag("loglevel-driver", Meaning::OutputLevel, "The same for standard output only. Takes precedence over -loglevel."),
    flag("loglevel-on-instance", Meaning::FileLevel, "The same for the log file only. Takes precedence over -loglevel."),
    flag("service", Meaning::Service, "Replace ecs-init too: its defaults for the agent apply where nothing is set, and /var/lib/ecs/ecs.config is read after /etc/ecs/ecs.config, which takes precedence."),
    flag("k", Meaning::Insecure, "Do not verify the TLS certificates of ECS, ACS and ECR. Not recommended: anyone on the network path can run containers here."),
    flag("blackhole-ec2-metadata", Meaning::Blackhole, "Do not ask the instance metadata service. Not recommended."),
    flag("windows-service", Meaning::Nothing, "Accepted, without effect."),
];

impl Args {
    /// Parses the arguments after the program's name.
    ///
    /// # Errors
    /// [`ArgsError`]; the caller prints it and exits with code 5.
    pub fn parse<T: Into<OsString>>(arguments: impl IntoIterator<Item = T>) -> Result<Self, ArgsError> {
        let mut args = Self::default();
        let mut actions = Vec::new();
        let mut words = arguments.into_iter().map(|word| word.into().into_string().map_err(|_| ArgsError::NotText));
        while let Some(word) = words.next().transpose()? {
            let Some(body) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).filter(|_| word != "-") else {
                args.notes.push("arguments behind the flags are ignored".to_owned());
                break;
            };
            if body.is_empty() {
                break;
            }
            if body.starts_with(['-', '=']) {
                return Err(ArgsError::Syntax(word));
            }
            let (name, value) =
                body.split_once('=').map_or((body, None), |(name, value)| (name, Some(value.to_owned())));
            let flag =
                FLAGS.iter().find(|flag| flag.name == name).ok_or_else(|| ArgsError::Unknown(name.to_owned()))?;
            let value = match (value, flag.value) {
                (None, Some(_)) => words.next().transpose()?.ok_or(ArgsError::NoValue(flag.name))?,
                (value, _) => value.unwrap_or_else(|| "true".to_owned()),
            };
            args.apply(flag, &value, &mut actions)?;
        }
        let first = FLAGS.iter().find_map(|flag| match flag.meaning {
            Meaning::Do(action) if actions.contains(&flag.name) => Some(action),
            Meaning::Healthcheck => args.healthcheck,
            _ => None,
        });
        args.action = first.unwrap_or_default();
        Ok(args)
    }

    fn apply(&mut self, flag: &Flag, value: &str, actions: &mut Vec<&'static str>) -> Result<(), ArgsError> {
        let level = match flag.meaning {
            Meaning::Level => Some(&mut self.log_level),
            Meaning::OutputLevel => Some(&mut self.log_level_output),
            Meaning::FileLevel => Some(&mut self.log_level_file),
            _ => None,
        };
        if let Some(level) = level {
            match LogLevel::from_name(value) {
                Some(named) => *level = Some(named),
                None => self.notes.push(format!("-{}: no such level, ignored", flag.name)),
            }
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
            Meaning::Healthcheck => self.healthcheck = on.then_some(Action::Healthcheck),
            Meaning::Do(_) if on => actions.push(flag.name),
            Meaning::Do(_) => actions.retain(|name| *name != flag.name),
            Meaning::Insecure => self.accept_insecure_cert = on,
            Meaning::Service => self.role = if on { Role::Service } else { Role::Agent },
            Meaning::Blackhole => self.blackhole_ec2_metadata = on,
            Meaning::Level | Meaning::OutputLevel | Meaning::FileLevel | Meaning::Nothing => {
                self.notes.push(format!("-{} has no effect", flag.name))
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, ArgsError> {
        Args::parse(line.split_whitespace())
    }

    #[test]
    fn flags_are_read_as_go_reads_them() {
        for (line, action) in [
            ("", Action::Run),
            ("-version", Action::Version),
            ("--version", Action::Version),
            ("-version=true", Action::Version),
            ("-version=false", Action::Run),
            ("-version -version=0", Action::Run),
            ("--version -license", Action::License),
            ("-healthcheck", Action::Healthcheck),
            ("--healthcheck=true", Action::Healthcheck),
            ("-healthcheck=http", Action::HealthcheckHttp),
            ("-healthcheck=http -healthcheck", Action::Healthcheck),
            ("-healthcheck=http -healthcheck=false", Action::Run),
            ("-healthcheck http", Action::Healthcheck),
            ("-healthcheck=http -version", Action::Version),
            ("--help -version", Action::Help),
            ("-h", Action::Help),
            ("-ecs-attributes", Action::EcsAttributes),
            ("--check-config", Action::CheckConfig),
            ("-config-reference", Action::ConfigReference),
            ("-- -version", Action::Run),
            ("start -version", Action::Run),
            ("- -version", Action::Run),
        ] {
            assert_eq!(parse(line).unwrap().action, action, "{line:?}");
        }
    }

    #[test]
    fn switches_and_levels() {
        let args = parse("-k --blackhole-ec2-metadata -loglevel DEBUG").unwrap();
        assert!(args.accept_insecure_cert && args.blackhole_ec2_metadata && args.notes.is_empty());
        assert_eq!(args.log_level, Some(LogLevel::Debug));
        assert_eq!(parse("--loglevel=none").unwrap().log_level, Some(LogLevel::None));
        // The word after a flag with a value is that value, whatever it looks like.
        let args = parse("-loglevel -k").unwrap();
        assert_eq!((args.log_level, args.accept_insecure_cert), (None, false));
        assert_eq!(args.notes, ["-loglevel: no such level, ignored"]);
        let args = parse("-loglevel-driver=info -loglevel-on-instance debug").unwrap();
        assert_eq!((args.log_level_output, args.log_level_file), (Some(LogLevel::Info), Some(LogLevel::Debug)));
        assert_eq!(parse("-windows-service -loglevel-driver=loud x").unwrap().notes.len(), 3);
    }

    #[test]
    fn arguments_that_go_refuses_are_errors() {
        for (line, error) in [
            ("-nope", ArgsError::Unknown("nope".to_owned())),
            ("--nope=1", ArgsError::Unknown("nope".to_owned())),
            ("---version", ArgsError::Syntax("---version".to_owned())),
            ("-=x", ArgsError::Syntax("-=x".to_owned())),
            ("-loglevel", ArgsError::NoValue("loglevel")),
            ("-k=perhaps", ArgsError::NotBoolean("k")),
            ("-version=", ArgsError::NotBoolean("version")),
            ("-version=http", ArgsError::NotBoolean("version")),
            ("-healthcheck=https", ArgsError::NotHealthcheck),
            ("-healthcheck=", ArgsError::NotHealthcheck),
        ] {
            assert_eq!(parse(line), Err(error), "{line:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn bytes_that_are_no_text_are_an_error() {
        use std::os::unix::ffi::OsStringExt;
        assert_eq!(Args::parse([OsString::from_vec(vec![b'-', 0xff])]), Err(ArgsError::NotText));
    }
}
