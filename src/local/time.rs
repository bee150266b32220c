//! The host's time in the formats of AWS.

use aws_smithy_types::date_time::{DateTime, Format};
use std::time::{SystemTime, UNIX_EPOCH};

/// The time in seconds since the epoch, with milliseconds, as in the API.
pub(super) fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as f64 / 1000.0
}

/// A time in seconds since the epoch, as `2026-11-22T05:36:38Z`.
pub(super) fn iso_time(seconds: f64) -> String {
    DateTime::from_secs(seconds as i64).fmt(Format::DateTime).unwrap_or_else(|_| "1970-01-01T00:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_aws_does() {
        assert_eq!(iso_time(1_795_326_998.4), "2026-11-22T05:56:38Z");
    }
}
