//! What is to be pulled, and how far the pull has come: for whoever looks, and one log line now and then.
//!
//! Owns [`PullJob`], what is shown of its attempts and waits, and the counting of layers from the daemon's progress lines. Invariant:
//! what was counted of one attempt does not show in the next.

use super::rate_limit::Wait;
use crate::model::waiting::{PullPhase, PullProgress};
use crate::model::{Failure, Span, Timestamp};
use bollard::models::CreateImageInfo;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::time::sleep;

/// Between two log lines of one pull.
const EVERY: Duration = Duration::from_secs(15);
/// Layers counted; an image has at most 127.
const MAX_LAYERS: usize = 256;

/// What to pull, how patiently, and whom to tell how far it is.
#[derive(Debug)]
pub struct PullJob<'a> {
    /// Reference as the task names it.
    pub image: &'a str,
    /// Pull by this digest instead of the tag.
    pub digest: Option<&'a str>,
    /// A registry that refuses requests for a while (429) is waited for, within the limit of the whole pull. Otherwise that is a
    /// failure like any other, which is right where a local image serves as well.
    pub waits_for_limits: bool,
    /// Told how far it is.
    pub progress: &'a watch::Sender<PullProgress>,
}

/// Time since the Unix epoch.
pub(super) fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The moment for [`PullProgress`].
pub(super) fn now() -> Timestamp {
    Timestamp(wall().as_millis() as u64)
}

/// Shows that an attempt begins; what was counted in the last one is forgotten.
pub(super) fn attempt_begins(shown: &watch::Sender<PullProgress>, attempts: u32) {
    shown.send_modify(|shown| {
        *shown = PullProgress {
            phase: PullPhase::Asking,
            since: shown.since,
            attempt: shown.attempt + 1,
            attempts,
            failure: shown.failure.take(),
            ..PullProgress::default()
        }
    });
}

/// Shows why an attempt failed and when the next one begins.
pub(super) fn attempt_failed(shown: &watch::Sender<PullProgress>, phase: PullPhase, failure: &str, pause: Duration) {
    shown.send_modify(|shown| {
        shown.phase = phase;
        shown.failure = Some(failure.to_owned());
        shown.next_try = Some(now() + span(pause));
    });
}

/// Waits for the end of a registry's limit, and says so.
pub(super) async fn wait_for_limit(image: &str, shown: &watch::Sender<PullProgress>, failure: &Failure, wait: Wait) {
    let Wait { pause, retry_after } = wait;
    let ends = retry_after.map(|retry_after| now() + span(retry_after));
    tracing::warn!(image, %failure, ?pause, ?retry_after, "the registry takes no more requests for now; waiting");
    attempt_failed(shown, PullPhase::RateLimited, &failure.to_string(), pause);
    shown.send_modify(|shown| shown.limit_ends = ends);
    sleep(pause).await;
}

fn span(duration: Duration) -> Span {
    Span::millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// The layers of one attempt.
#[derive(Debug)]
pub(super) struct Layers<'a> {
    seen: BTreeMap<String, Layer>,
    last_shown: Instant,
    shown: &'a watch::Sender<PullProgress>,
}

#[derive(Debug, Default)]
struct Layer {
    current: u64,
    total: u64,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// The daemon fetches others first.
    #[default]
    Waiting,
    Moving,
    /// Fetched; those below it come first.
    Fetched,
    Done,
}

impl<'a> Layers<'a> {
    /// Counts anew; `shown` is told.
    pub(super) fn new(shown: &'a watch::Sender<PullProgress>, now: Instant) -> Self {
        Self { seen: BTreeMap::new(), last_shown: now, shown }
    }

    /// Takes one line in; says how far the pull is if it is time to.
    pub(super) fn note(&mut self, line: &CreateImageInfo, now: Instant) -> Option<String> {
        let (Some(id), Some(status)) = (&line.id, &line.status) else { return None };
        if self.seen.len() < MAX_LAYERS || self.seen.contains_key(id) {
            let layer = self.seen.entry(id.clone()).or_default();
            layer.stage = match status.as_str() {
                "Pull complete" | "Already exists" => Stage::Done,
                "Waiting" => Stage::Waiting,
                "Download complete" => Stage::Fetched,
                _ => Stage::Moving,
            };
            // Extraction counts from zero again; only what is fetched from the registry is told.
            if let Some(detail) = line.progress_detail.as_ref().filter(|_| status == "Downloading") {
                layer.current = detail.current.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default();
                layer.total = detail.total.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default();
            } else if matches!(layer.stage, Stage::Done | Stage::Fetched) {
                layer.current = layer.total;
            }
        }
        self.show();
        if now.duration_since(self.last_shown) < EVERY {
            return None;
        }
        self.last_shown = now;
        Some(format!("{}, now: {status}", self.shown.borrow().describe(self::now())))
    }

    /// Everything that is not there yet waits for the daemon to fetch something else: silence is to be expected.
    pub(super) fn all_wait(&self) -> bool {
        let any = self.seen.values().any(|layer| layer.stage == Stage::Waiting);
        any && self.seen.values().all(|layer| layer.stage != Stage::Moving)
    }

    fn show(&self) {
        let count = |stage: Option<Stage>| {
            let counted = self.seen.values().filter(|layer| stage.is_none_or(|stage| layer.stage == stage)).count();
            u32::try_from(counted).unwrap_or(u32::MAX)
        };
        let sum = |bytes: fn(&Layer) -> u64| self.seen.values().map(bytes).fold(0, u64::saturating_add);
        self.shown.send_modify(|shown| {
            shown.phase = PullPhase::Fetching;
            (shown.layers, shown.layers_done) = (count(None), count(Some(Stage::Done)));
            (shown.bytes, shown.bytes_total) = (sum(|layer| layer.current), sum(|layer| layer.total));
            shown.moved = Some(now());
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::ProgressDetail;

    fn line(id: &str, status: &str, bytes: Option<(i64, i64)>) -> CreateImageInfo {
        CreateImageInfo {
            id: Some(id.to_owned()),
            status: Some(status.to_owned()),
            progress_detail: bytes
                .map(|(current, total)| ProgressDetail { current: Some(current), total: Some(total) }),
            ..CreateImageInfo::default()
        }
    }

    #[test]
    fn only_a_slow_pull_is_logged() {
        let start = Instant::now();
        let shown = watch::Sender::new(PullProgress { since: now(), ..PullProgress::default() });
        let mut layers = Layers::new(&shown, start);
        let mib = 1 << 20;
        assert_eq!(layers.note(&line("a", "Already exists", None), start), None);
        assert_eq!(layers.note(&line("b", "Downloading", Some((3 * mib, 8 * mib))), start), None);
        let later = start + EVERY;
        assert_eq!(
            layers.note(&line("b", "Downloading", Some((4 * mib, 8 * mib))), later).as_deref(),
            Some("fetching for 0 s, 1 of 2 layers, 4.0 of 8.0 MiB fetched, now: Downloading")
        );
        assert_eq!(shown.borrow().percent(), Some(50));
        assert_eq!(layers.note(&line("b", "Extracting", Some((1, 2))), later), None, "just said");
        let text = layers.note(&line("b", "Pull complete", None), later + EVERY);
        let wanted = "fetching for 0 s, 2 of 2 layers, 8.0 of 8.0 MiB fetched, now: Pull complete";
        assert_eq!(text.as_deref(), Some(wanted));
        assert_eq!((shown.borrow().layers_done, shown.borrow().percent()), (2, Some(100)));
        let mut next = Layers::new(&shown, start);
        next.note(&line("b", "Pulling fs layer", None), start);
        assert_eq!((shown.borrow().layers, shown.borrow().bytes), (1, 0), "counted anew");
    }

    #[test]
    fn lines_without_a_layer_and_lines_without_end_are_survived() {
        let start = Instant::now();
        let shown = watch::Sender::new(PullProgress::default());
        let mut layers = Layers::new(&shown, start);
        let odd = CreateImageInfo { status: Some("Digest: sha256:1".into()), ..CreateImageInfo::default() };
        assert_eq!(layers.note(&odd, start + EVERY), None);
        for id in 0..2000 {
            layers.note(&line(&id.to_string(), "Downloading", Some((-1, -1))), start);
        }
        assert_eq!(layers.seen.len(), MAX_LAYERS);
    }

    #[test]
    fn silence_is_expected_while_the_daemon_fetches_something_else() {
        let start = Instant::now();
        let shown = watch::Sender::new(PullProgress::default());
        let mut layers = Layers::new(&shown, start);
        assert!(!layers.all_wait(), "nothing is known yet");
        let steps = [
            (line("a", "Already exists", None), false),
            (line("b", "Pulling fs layer", None), false),
            (line("b", "Waiting", None), true),
            (line("c", "Downloading", Some((1, 2))), false),
            (line("c", "Download complete", None), true),
            (line("c", "Extracting", Some((1, 2))), false),
            (line("c", "Pull complete", None), true),
            (line("b", "Pull complete", None), false),
        ];
        for (line, waits) in steps {
            layers.note(&line, start);
            assert_eq!(layers.all_wait(), waits, "{line:?}");
        }
    }
}
