//! Log lines: to standard error, one event a line.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::Subscriber;

/// Form of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `key=value` for people and grep.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging; a second call changes nothing.
pub fn start(filter: &str, form: Form) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = Subscriber::builder().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    // An error means that a subscriber is there already (tests).
    let _ = match form {
        Form::Text => tracing::subscriber::set_global_default(builder.finish()),
        Form::Json => tracing::subscriber::set_global_default(builder.json().finish()),
    };
}
