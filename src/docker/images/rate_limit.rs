//! Rate limits of registries (429, `toomanyrequests`): how to recognise them, when they end, and how long to wait.
//!
//! Owns the reading of the error text, since Docker passes on no header of the registry's answer, and the waiting times. It does
//! not sleep. Invariant: a wait never ends after the given ceiling.

use crate::backoff::Shape;
use std::time::Duration;
use tokio::time::Instant;

/// The waits if the registry announces no time.
const WITHOUT_TIME: Shape =
    Shape { initial: Duration::from_secs(30), max: Duration::from_secs(600), factor: 2.0, jitter: 0.2 };
/// The shortest waits if the registry announces a time: some registries announce microseconds, again and again.
const WITH_TIME: Shape =
    Shape { initial: Duration::from_millis(1100), max: Duration::from_secs(600), factor: 2.0, jitter: 0.2 };

/// Longer than any rate limit. A larger number of seconds is a point in time, counted from the Unix epoch.
const DECADES: Duration = Duration::from_secs(1_000_000_000);

/// Texts by which registries and Docker report too many requests.
const SIGNS: [&str; 4] = ["toomanyrequests", "too many requests", "http 429 ", "status: 429"];
/// Texts that precede the time to wait.
const ANNOUNCEMENTS: [&str; 6] =
    ["retry-after", "retry after", "ratelimit-reset", "try again in", "try again after", "resets in"];

/// The waits of one pull for a registry's rate limit.
#[derive(Debug)]
pub(crate) struct LimitWaits {
    /// No wait may end after this time; `None` = rate limits are not waited for.
    ceiling: Option<Instant>,
    /// The number of waits so far.
    waits: u32,
}

/// A wait for the end of a rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    /// The time to wait.
    pub(crate) pause: Duration,
    /// The time until the limit ends, as the registry announced it; `None` = it announced none.
    pub(crate) retry_after: Option<Duration>,
}

impl LimitWaits {
    pub(crate) fn new(ceiling: Option<Instant>) -> Self {
        Self { ceiling, waits: 0 }
    }

    /// The wait after a failed attempt. `None`: the error is not a rate limit, rate limits are not waited for, or the wait would
    /// reach the ceiling. `wall` is the time since the Unix epoch.
    pub(crate) fn wait(&mut self, error: &str, now: Instant, wall: Duration) -> Option<Wait> {
        let ceiling = self.ceiling.filter(|_| is_limit(error))?;
        let retry_after = retry_after(error, wall);
        let schedule = if retry_after.is_some() { WITH_TIME } else { WITHOUT_TIME };
        // Up to a fifth more, so that hosts that were refused at the same time do not all return at the same time.
        let pause = schedule.delay(self.waits).max(schedule.spread(retry_after.unwrap_or_default()));
        self.waits += 1;
        (pause < ceiling.saturating_duration_since(now)).then_some(Wait { pause, retry_after })
    }
}

/// The error text reports a rate limit.
pub(crate) fn is_limit(error: &str) -> bool {
    let error = error.to_ascii_lowercase();
    SIGNS.iter().any(|sign| error.contains(sign))
}

/// The time until the limit ends, if the text contains it. Some registries name a point in time instead; `wall` is the time
/// since the Unix epoch.
fn retry_after(error: &str, wall: Duration) -> Option<Duration> {
    let error = error.to_ascii_lowercase();
    let rest = ANNOUNCEMENTS.iter().find_map(|sign| error.split_once(sign)).map(|(_, rest)| rest)?;
    let rest = rest.trim_start_matches(|c: char| c == ':' || c == '=' || c == '"' || c.is_whitespace());
    let retry_after = duration(rest)?;
    // The remaining time is bounded as well, in case the point in time is absurd.
    let is_point_in_time = retry_after > DECADES;
    Some(if is_point_in_time { retry_after.saturating_sub(wall).min(DECADES) } else { retry_after })
}

/// Parses the duration at the beginning of a text: `30`, `1.5s`, `1h2m3s`, `250ms`, `54.865µs`, `5 minutes`. A bare number is in
/// seconds.
fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut total) = (text, None);
    loop {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        // A full stop may end the sentence.
        let Ok(number) = rest[..end].trim_end_matches('.').parse::<f64>() else { return total };
        let after = &rest[end..];
        let spaced = after.trim_start();
        let unit_end = spaced.find(|c: char| !c.is_alphabetic()).unwrap_or(spaced.len());
        let scale = match &spaced[..unit_end] {
            "h" | "hour" | "hours" => 3600.0,
            "m" | "min" | "minute" | "minutes" => 60.0,
            "s" | "sec" | "second" | "seconds" => 1.0,
            "ms" | "millisecond" | "milliseconds" => 1e-3,
            "µs" | "μs" | "us" => 1e-6,
            "ns" => 1e-9,
            _ if total.is_none() => return Duration::try_from_secs_f64(number).ok(),
            _ => return total,
        };
        let unit = &spaced[..unit_end];
        let part = Duration::try_from_secs_f64(number * scale).ok()?;
        let so_far = total.unwrap_or_default().saturating_add(part);
        // Go writes several parts (`1h2m3s`); a unit written as a word ends the duration.
        if unit.chars().count() > 2 {
            return Some(so_far);
        }
        (total, rest) = (Some(so_far), &spaced[unit_end..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: Duration = Duration::from_secs(1_800_000_000);
    const HUB: &str = "toomanyrequests: You have reached your pull rate limit. You may increase the limit by authenticating and \
                       upgrading: https://www.docker.com/increase-rate-limit";

    #[test]
    fn limits_are_known_by_their_texts() {
        let table = [
            (HUB, true),
            ("Error response from daemon: toomanyrequests: Rate exceeded", true),
            ("received unexpected HTTP status: 429 Too Many Requests", true),
            ("error parsing HTTP 429 response body: invalid character 's'", true),
            ("manifest unknown", false),
            ("Get \"http://r/v2/app-429/manifests/1\": EOF", false),
        ];
        for (text, wanted) in table {
            assert_eq!(is_limit(text), wanted, "{text}");
        }
    }

    #[test]
    fn the_end_of_a_limit_is_read_from_the_text() {
        let table = [
            (HUB, None),
            ("toomanyrequests: retry-after: 54.865µs, allowed: 44000/minute", Some(Duration::from_nanos(54_865))),
            ("toomanyrequests: retry-after: 1m2.5s, allowed: 1/minute", Some(Duration::from_millis(62_500))),
            ("toomanyrequests: retry-after: 250ms", Some(Duration::from_millis(250))),
            ("429 Too Many Requests (Retry-After: 120)", Some(Duration::from_secs(120))),
            ("429 Too Many Requests: try again in 5 minutes.", Some(Duration::from_secs(300))),
            ("429 Too Many Requests: try again in 30. Bye", Some(Duration::from_secs(30))),
            ("toomanyrequests: RateLimit-Reset: 1800000060", Some(Duration::from_secs(60))),
            ("toomanyrequests: ratelimit-reset=1700000000", Some(Duration::ZERO)),
            ("toomanyrequests: the quota resets in 1h2m, 100 allowed", Some(Duration::from_secs(3720))),
            ("toomanyrequests: retry-after: soon", None),
            ("toomanyrequests: retry-after: 99999999999999999999999999", None),
            ("toomanyrequests: retry-after: 9999999999999999999", Some(DECADES)),
            ("toomanyrequests: retry-after: 1..2", None),
        ];
        for (text, wanted) in table {
            assert_eq!(retry_after(text, WALL), wanted, "{text}");
        }
    }

    #[test]
    fn a_wait_is_as_long_as_announced_and_grows_otherwise() {
        let now = Instant::now();
        let mut limit_waits = LimitWaits::new(Some(now + Duration::from_secs(7200)));
        assert_eq!(limit_waits.wait("manifest unknown", now, WALL), None);
        let minute = limit_waits.wait("toomanyrequests: retry-after: 60s", now, WALL).unwrap();
        assert!((60.0..=72.0).contains(&minute.pause.as_secs_f64()), "{minute:?}");
        assert_eq!(minute.retry_after, Some(Duration::from_secs(60)));
        let mut limit_waits = LimitWaits::new(Some(now + Duration::from_secs(7200)));
        let pauses: Vec<f64> = (0..7).map(|_| limit_waits.wait(HUB, now, WALL).unwrap().pause.as_secs_f64()).collect();
        for (pause, minimum) in pauses.iter().zip([30.0, 60.0, 120.0, 240.0, 480.0, 600.0, 600.0]) {
            assert!((minimum..=minimum * 1.2).contains(pause), "{pauses:?}");
        }
        let mut limit_waits = LimitWaits::new(Some(now + Duration::from_secs(7200)));
        let tiny = "toomanyrequests: retry-after: 1µs";
        let pauses: Vec<f64> = (0..3).map(|_| limit_waits.wait(tiny, now, WALL).unwrap().pause.as_secs_f64()).collect();
        assert!(pauses[0] >= 1.1 && pauses[2] >= 4.4 && pauses[2] <= 5.3, "{pauses:?}");
    }

    #[test]
    fn no_wait_goes_beyond_the_ceiling() {
        let now = Instant::now();
        let hour = "toomanyrequests: retry-after: 1h";
        assert_eq!(LimitWaits::new(Some(now + Duration::from_secs(3000))).wait(hour, now, WALL), None);
        assert_eq!(LimitWaits::new(None).wait(HUB, now, WALL), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_can_be_read(text in "\\PC{0,40}") {
            let _ = retry_after(&format!("toomanyrequests: retry-after: {text}"), WALL);
        }
    }
}
