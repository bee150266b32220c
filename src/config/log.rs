//! The words of the log's settings: levels, formats, kinds of rollover (spec `logging.md` §1).

use serde::Deserialize;

/// The least severe messages that are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Details for developers.
    Debug,
    /// Status changes and their causes.
    Info,
    /// Events that need attention.
    Warn,
    /// Failures.
    Error,
    /// The Go agent's highest level; tracing has none above error.
    Crit,
    /// Nothing.
    None,
}

impl LogLevel {
    /// The level of this name in any case, as the flag and the variable take it.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "debug" => Self::Debug,
            "info" => Self::Info,
            "warn" => Self::Warn,
            "error" => Self::Error,
            "crit" => Self::Crit,
            "none" => Self::None,
            _ => return None,
        })
    }

    /// The level's name, as the flag and the variable take it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Crit => "crit",
            Self::None => "none",
        }
    }
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `key=value` pairs.
    Logfmt,
    /// One JSON object a line.
    Json,
}

/// When the log file is replaced by a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rollover {
    /// When it has reached its size.
    Size,
    /// When an hour has ended.
    Hourly,
    /// Never.
    None,
}
