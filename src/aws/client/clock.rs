//! The time for signatures: the time of the host, corrected by the time of AWS.
//!
//! AWS refuses a signature whose time is wrong by more than some minutes. Owns the correction; [`super::signing`] passes it the
//! answers to refused calls. It sets no clock and measures no durations. The invariant: the correction changes only after a
//! refused call, so a wrong date in a successful answer does no harm.

use aws_smithy_async::time::TimeSource;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use ecs_core::model::Timestamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

/// Maximum error of the signing time, in seconds, that needs no correction. AWS allows five minutes.
const TOLERANCE_S: u64 = 240;

/// The clock for signatures. Clones share the correction.
#[derive(Clone, Debug, Default)]
pub struct ServiceClock {
    /// The number of seconds that AWS is ahead of this host; negative if AWS is behind.
    ahead: Arc<AtomicI64>,
}

impl ServiceClock {
    /// The current time for a signature.
    pub fn now(&self) -> SystemTime {
        let ahead = self.ahead.load(Ordering::Relaxed);
        let span = Duration::from_secs(ahead.unsigned_abs());
        let host = SystemTime::now();
        let corrected = if ahead < 0 { host.checked_sub(span) } else { host.checked_add(span) };
        corrected.unwrap_or(host)
    }

    /// Learns the time of AWS from the answer to a call, if its status (HTTP) shows a refusal and its `date` (the header
    /// `Date`) is too far from `signed_at`, the time of the signature by this clock. True: it is, so the call may succeed if
    /// signed again.
    pub fn learn(&self, signed_at: SystemTime, status: u16, date: Option<&str>) -> bool {
        // Only these statuses can be due to the time. The codes are not checked, since they differ between services
        // (RequestExpired, InvalidSignatureException, …).
        if !matches!(status, 400 | 401 | 403) {
            return false;
        }
        let Some(theirs) = date.and_then(|date| DateTime::from_str(date, Format::HttpDate).ok()) else { return false };
        let theirs = theirs.secs();
        // Compared with `signed_at`, not with the current time: the correction may have changed since this call was signed.
        if theirs.abs_diff(seconds(signed_at)) <= TOLERANCE_S {
            return false;
        }
        let is_new = theirs.abs_diff(seconds(self.now())) > TOLERANCE_S;
        let ahead = theirs.saturating_sub(seconds(SystemTime::now()));
        self.ahead.store(ahead, Ordering::Relaxed);
        if is_new {
            tracing::warn!(
                ahead_s = ahead,
                "the clock of this host and that of AWS differ; calls are signed with the time of AWS"
            );
        }
        true
    }
}

impl ServiceClock {
    /// What the clock of AWS showed at this moment of the host's clock, as far as it is known now.
    pub fn corrected(&self, moment: Timestamp) -> Timestamp {
        let ahead_ms = self.ahead.load(Ordering::Relaxed).saturating_mul(1000);
        Timestamp(moment.0.saturating_add_signed(ahead_ms))
    }
}

impl TimeSource for ServiceClock {
    fn now(&self) -> SystemTime {
        self.now()
    }
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> i64 {
    DateTime::from(time).secs()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::aws::client::sdk::{Sdk, Settings};
    use crate::aws::identity::credentials::fixed;
    use crate::aws::tests::fake::{Answer, Fake, Request};
    use aws_credential_types::provider::SharedCredentialsProvider;
    use serde_json::json;

    pub(crate) fn http_date(ahead: i64) -> String {
        DateTime::from_secs(seconds(SystemTime::now()) + ahead).fmt(Format::HttpDate).unwrap()
    }

    #[test]
    fn the_correction_changes_only_after_a_refusal() {
        // (status, hours AWS is ahead, learnt)
        let table =
            [(400, 3, true), (403, -3, true), (401, 1, true), (200, 3, false), (500, 3, false), (400, 0, false)];
        for (status, hours, learnt) in table {
            let clock = ServiceClock::default();
            let (date, signed_at) = (http_date(hours * 3600), clock.now());
            assert_eq!(clock.learn(signed_at, status, Some(&date)), learnt, "{status} {hours}");
            let off = seconds(clock.now()) - seconds(SystemTime::now()) - if learnt { hours * 3600 } else { 0 };
            assert!(off.abs() <= 2, "{status} {hours}: {off}");
            let again = clock.learn(clock.now(), status, Some(&date));
            assert!(!again, "already corrected: the call is not repeated for ever");
            let concurrent = clock.learn(signed_at, status, Some(&date));
            assert_eq!(concurrent, learnt, "another call that was signed before the correction is repeated as well");
        }
        let clock = ServiceClock::default();
        assert_eq!(clock.corrected(Timestamp(5)), Timestamp(5));
        clock.ahead.store(-3, Ordering::Relaxed);
        assert_eq!([5_000, 2_000].map(|at| clock.corrected(Timestamp(at)).0), [2_000, 0]);
        let clock = ServiceClock::default();
        assert!(!clock.learn(clock.now(), 400, None) && !clock.learn(clock.now(), 400, Some("yesterday")));
        // The time of AWS equals that of the host again, as if the host's clock was corrected meanwhile.
        assert!(clock.learn(clock.now(), 403, Some(&http_date(7200))));
        assert!(clock.learn(clock.now(), 403, Some(&http_date(0))));
        assert!((seconds(clock.now()) - seconds(SystemTime::now())).abs() <= 2);
    }

    /// Whether the signature has another hour than the clock of an AWS that is ahead by this number of seconds.
    pub(crate) fn is_skewed(request: &Request, ahead: i64) -> bool {
        let Some(signed) = request.header("x-amz-date") else { return false };
        let theirs = DateTime::from_secs(seconds(SystemTime::now()) + ahead).fmt(Format::DateTime).unwrap();
        let hour: String = theirs.chars().filter(char::is_ascii_alphanumeric).take(11).collect();
        !signed.starts_with(&hour)
    }

    /// The answer of an AWS that is ahead by this number of seconds and checks the signing time.
    fn strict(request: &Request, ahead: i64, code: &str) -> Answer {
        let answer = match is_skewed(request, ahead) {
            false => Answer::json(200, &json!({"clusterArns": []})),
            true => Answer::error(403, code, "The difference between the times is too large."),
        };
        answer.dated(http_date(ahead))
    }

    #[tokio::test]
    async fn an_sdk_client_signs_again_with_the_corrected_time() {
        let codes =
            ["RequestTimeTooSkewed", "InvalidSignatureException", "RequestExpired", "UnrecognizedClientException"];
        for (ahead, code) in codes.into_iter().flat_map(|code| [(5 * 3600, code), (-5 * 3600, code)]) {
            let fake = Fake::start(move |request| strict(request, ahead, code)).await;
            let settings =
                Settings { backend_host: Some(fake.url()), region: "us-west-2".to_owned(), ..Settings::default() };
            let keys = SharedCredentialsProvider::new(fixed(&"AKID".into(), &"s".into(), &"".into()));
            let sdk = Sdk::new(settings).unwrap();
            let client = sdk.ecs(keys);
            client.list_clusters().send().await.unwrap();
            assert_eq!(fake.requests().len(), 2, "{ahead} {code}");
            client.list_clusters().send().await.unwrap();
            assert_eq!(fake.requests().len(), 3, "the time is corrected");
            let off = seconds(sdk.signing().clock().now()) - seconds(SystemTime::now()) - ahead;
            assert!(off.abs() <= 2, "the correction applies to all clients: {off}");
        }
    }
}
