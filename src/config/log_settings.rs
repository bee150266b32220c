//! What is logged, in which format, and to which file (spec `logging.md` §1).
//!
//! This module joins the variables of the log with the flags of the command line. It is pure, and it opens no file. Invariant: a
//! flag takes precedence over the variable of the same meaning.

use super::args::Args;
use super::log::{LogFormat, LogLevel, Rollover};
use super::settings::Config;
use std::path::{Path, PathBuf};

/// The levels of both outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLevels {
    /// The level on standard output.
    pub output: LogLevel,
    /// The level in the log file.
    pub file: LogLevel,
}

/// The log file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// The file's path.
    pub path: PathBuf,
    /// When it is replaced by a new one.
    pub rollover: Rollover,
    /// The size in bytes from which on it is replaced, with [`Rollover::Size`].
    pub max_bytes: u64,
    /// Number of earlier files that are kept; `None`: all.
    pub keep: Option<usize>,
}

/// The settings of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// The format of both outputs.
    pub format: LogFormat,
    /// The levels of both outputs.
    pub levels: LogLevels,
    /// The log file; `None`: there is none.
    pub file: Option<LogFile>,
    /// The value of `JOURNAL_STREAM`, which identifies the stream that the journal reads; `None`: not set.
    pub journal: Option<String>,
}

/// Number of earlier files with figures of the agent itself that are kept.
const EARLIER_RUNTIME_STATS: usize = 3;

impl LogSettings {
    /// The settings of a process; `journal` is the value of `JOURNAL_STREAM`. Without any configuration there is no file.
    pub fn new(config: Option<&Config>, args: &Args, journal: Option<String>) -> Self {
        let Some(config) = config else {
            let output = args.log_level_output.or(args.log_level).unwrap_or(LogLevel::Info);
            let levels = LogLevels { output, file: LogLevel::None };
            return Self { format: LogFormat::Logfmt, levels, file: None, journal };
        };
        // Compat: for the Go agent, a log driver of its container replaces the file.
        let inherited = if config.log_driver.is_some() { LogLevel::None } else { config.log_level };
        let levels = LogLevels {
            output: args.log_level_output.or(args.log_level).unwrap_or(config.log_level),
            file: args.log_level_file.or(args.log_level).or(config.log_level_on_instance).unwrap_or(inherited),
        };
        let file = config.log_file.as_ref().map(|path| file(config, path, config.log_rollover));
        Self { format: config.log_format, levels, file, journal }
    }
}

/// A log file at this path, with the size and the number of the configuration.
fn file(config: &Config, path: &Path, rollover: Rollover) -> LogFile {
    LogFile {
        path: path.to_owned(),
        rollover,
        max_bytes: max_bytes(config.log_max_file_size_mb),
        keep: usize::try_from(config.log_max_roll_count).ok().filter(|keep| *keep > 0),
    }
}

impl Config {
    /// The paths of all log files.
    pub fn log_paths(&self) -> Vec<PathBuf> {
        let others = [self.audit_log(), self.runtime_stats_log()].into_iter().flatten().map(|file| file.path);
        self.log_file.iter().cloned().chain(others).collect()
    }

    /// The log of requests for credentials; `None`: there is none.
    pub fn audit_log(&self) -> Option<LogFile> {
        // Compat: `none` means hourly for the Go agent's audit log.
        let rollover = match self.log_rollover {
            Rollover::None => Rollover::Hourly,
            other => other,
        };
        (!self.audit_disabled).then(|| file(self, &self.audit_file, rollover))
    }

    /// The file with figures of the agent itself; `None`: there is none. As with the Go agent, its size is that of a log file, and
    /// three earlier ones are kept, whatever the settings of the log say.
    pub fn runtime_stats_log(&self) -> Option<LogFile> {
        let file =
            || LogFile { keep: Some(EARLIER_RUNTIME_STATS), ..file(self, &self.runtime_stats_file, Rollover::Size) };
        self.runtime_stats.then(file)
    }
}

/// A size in MB as bytes: at least 1, since a file of no size would be replaced at every line.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the value is in the range of u64")]
fn max_bytes(mb: f64) -> u64 {
    (mb * 1e6).clamp(1.0, 1e15) as u64
}

#[cfg(test)]
mod tests {
    use super::super::{Environment, Role, Sources};
    use super::*;

    fn settings(variables: &[(&str, &str)], flags: &str) -> LogSettings {
        let mut all = vec![("ECS_CONFIG_FILE", "/dev/null"), ("ECS_AGENT_CONFIG_FILE_PATH", "/dev/null")];
        all.extend(variables);
        let loaded = Sources::open(Environment::new(all), Role::Agent).load(None);
        LogSettings::new(loaded.config.as_ref(), &Args::parse(flags.split_whitespace()).unwrap(), None)
    }

    #[test]
    fn flags_take_precedence_and_the_file_follows() {
        use LogLevel::{Debug, Error, Info, None, Warn};
        const ON_INSTANCE: (&str, &str) = ("ECS_LOGLEVEL_ON_INSTANCE", "debug");
        const DRIVER: (&str, &str) = ("ECS_LOG_DRIVER", "awslogs");
        const LEVEL: (&str, &str) = ("ECS_LOGLEVEL", "warn");
        for (variables, flags, output, file) in [
            (vec![], "", Info, Info),
            (vec![LEVEL], "", Warn, Warn),
            (vec![LEVEL, ON_INSTANCE], "", Warn, Debug),
            (vec![LEVEL, DRIVER], "", Warn, None),
            (vec![LEVEL, DRIVER, ON_INSTANCE], "", Warn, Debug),
            (vec![LEVEL, ON_INSTANCE], "-loglevel error", Error, Error),
            (vec![LEVEL], "-loglevel error -loglevel-driver debug", Debug, Error),
            (vec![LEVEL], "-loglevel-on-instance=none", Warn, None),
        ] {
            let levels = settings(&variables, flags).levels;
            assert_eq!(levels, LogLevels { output, file }, "{variables:?} {flags}");
        }
    }

    #[test]
    fn the_file_has_the_size_and_the_number_of_the_go_agent() {
        let path = PathBuf::from("/log/a.log");
        let file = |max_bytes, rollover, keep| Some(LogFile { path: path.clone(), rollover, max_bytes, keep });
        let set = ("ECS_LOGFILE", "/log/a.log");
        assert_eq!(settings(&[], "").file, None);
        assert_eq!(settings(&[set], "").file, file(5_000_000, Rollover::Size, Some(24)));
        let variables = [
            set,
            ("ECS_LOG_MAX_FILE_SIZE_MB", "0.5"),
            ("ECS_LOG_ROLLOVER_TYPE", "hourly"),
            ("ECS_LOG_MAX_ROLL_COUNT", "-1"),
        ];
        assert_eq!(settings(&variables, "").file, file(500_000, Rollover::Hourly, None));
        let variables = [set, ("ECS_LOG_MAX_FILE_SIZE_MB", "0.0000001"), ("ECS_LOG_ROLLOVER_TYPE", "none")];
        assert_eq!(settings(&variables, "").file, file(1, Rollover::None, Some(24)));
    }

    #[test]
    fn figures_of_the_agent_have_a_file_if_they_are_wanted() {
        let stats = |role: Role, variables: &[(&str, &str)]| {
            let mut all = vec![("ECS_CONFIG_FILE", "/dev/null"), ("ECS_AGENT_CONFIG_FILE_PATH", "/dev/null")];
            all.extend(variables);
            Sources::open(Environment::new(all), role).load(None).config.unwrap().runtime_stats_log()
        };
        assert_eq!(stats(Role::Agent, &[]), None);
        let variables = [
            ("ECS_ENABLE_RUNTIME_STATS", "true"),
            ("ECS_LOG_ROLLOVER_TYPE", "none"),
            ("ECS_LOG_MAX_FILE_SIZE_MB", "1"),
        ];
        let wanted = |path: &str| {
            Some(LogFile { path: path.into(), rollover: Rollover::Size, max_bytes: 1_000_000, keep: Some(3) })
        };
        assert_eq!(stats(Role::Agent, &variables), wanted("/log/agent-runtime-stats.log"));
        assert_eq!(stats(Role::Service, &variables), wanted("/var/log/ecs/agent-runtime-stats.log"));
    }

    #[test]
    fn the_audit_log_is_replaced_like_the_log_file() {
        let audit = |variables: &[(&str, &str)]| {
            let mut all = vec![("ECS_CONFIG_FILE", "/dev/null"), ("ECS_AGENT_CONFIG_FILE_PATH", "/dev/null")];
            all.extend(variables);
            Sources::open(Environment::new(all), Role::Agent).load(None).config.unwrap().audit_log()
        };
        let file = |path: &str, rollover, max_bytes| {
            Some(LogFile { path: PathBuf::from(path), rollover, max_bytes, keep: Some(24) })
        };
        assert_eq!(audit(&[]), file("/log/audit.log", Rollover::Size, 5_000_000));
        let variables = [
            ("ECS_AUDIT_LOGFILE", "/x/audit.log"),
            ("ECS_LOG_ROLLOVER_TYPE", "none"),
            ("ECS_LOG_MAX_FILE_SIZE_MB", "1"),
        ];
        assert_eq!(audit(&variables), file("/x/audit.log", Rollover::Hourly, 1_000_000));
        assert_eq!(audit(&[("ECS_AUDIT_LOGFILE_DISABLED", "true")]), None);
    }
}
