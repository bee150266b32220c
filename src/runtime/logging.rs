//! Log lines: to standard error, one event a line.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::registry;

/// Form of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `key=value` for people and grep.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging; a second call changes nothing. `filter` is a level, or a list like `info,ecs_agent=debug`.
pub fn start(filter: &str, form: Form) {
    let filter = filter.parse().unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
    let lines = layer().with_writer(std::io::stderr).with_ansi(false);
    let lines = match form {
        Form::Text => lines.boxed(),
        Form::Json => lines.json().boxed(),
    };
    // An error means that a subscriber is there already (tests).
    let _ = tracing::subscriber::set_global_default(registry().with(lines).with(filter));
}
