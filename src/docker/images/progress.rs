//! The description of a pull, and its progress: as a value for readers, and as a log line from time to time.
//!
//! Owns [`PullJob`], the shown state of its attempts and waits, and the counting of layers from the daemon's progress lines.
//! Invariants: the counts of one attempt do not show in the next; all times shown are on the job's clock.

use super::rate_limit::Wait;
use crate::backoff::seconds;
use bollard::models::CreateImageInfo;
use ecs_core::model::waiting::{PullPhase, PullProgress};
use ecs_core::model::{Failure, Span, Timestamp};
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::time::sleep;

/// The time between two log lines of one pull.
const EVERY: Duration = Duration::from_secs(15);
/// The largest number of layers that are counted; an image has at most 127.
const MAX_LAYERS: usize = 256;

/// What to pull, whether to wait for rate limits, and where to show the progress.
pub struct PullJob<'a> {
    /// The image's reference, as the task names it.
    pub image: &'a str,
    /// The digest to pull by; `None` = pull by the tag.
    pub digest: Option<&'a str>,
    /// If the registry limits the rate of requests (429), wait for the limit to end, within the time limit of the whole pull.
    /// Otherwise a rate limit is a failure like any other, which is right if a local image serves as well.
    pub waits_for_limits: bool,
    /// Receives the progress.
    pub progress: &'a watch::Sender<PullProgress>,
    /// The clock of all times in `progress`. It must be the clock with which readers compare them.
    pub now: &'a (dyn Fn() -> Timestamp + Sync),
}

impl fmt::Debug for PullJob<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { image, digest, waits_for_limits, progress: _, now: _ } = self;
        let mut job = f.debug_struct("PullJob");
        job.field("image", image).field("digest", digest).field("waits_for_limits", waits_for_limits);
        job.finish_non_exhaustive()
    }
}

/// The wall clock, as the time since the Unix epoch: for texts of registries that name a point in time, not for
/// [`PullProgress`].
pub(crate) fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Shows that an attempt begins, and forgets the counts of the last one.
pub(crate) fn attempt_begins(job: &PullJob<'_>, attempts: u32) {
    job.progress.send_modify(|shown| {
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
pub(crate) fn attempt_failed(job: &PullJob<'_>, phase: PullPhase, failure: &str, pause: Duration) {
    job.progress.send_modify(|shown| {
        shown.phase = phase;
        shown.failure = Some(failure.to_owned());
        shown.next_try = Some((job.now)() + span(pause));
    });
}

/// Waits for the end of a registry's rate limit, and shows the wait.
pub(crate) async fn wait_for_limit(job: &PullJob<'_>, failure: &Failure, wait: Wait) {
    let Wait { pause, retry_after } = wait;
    let ends = retry_after.map(|retry_after| (job.now)() + span(retry_after));
    let image = job.image;
    let registry_asks_s = retry_after.map(seconds);
    tracing::warn!(
        image,
        error = %failure,
        retry_in_s = seconds(pause),
        registry_asks_s,
        "the registry limits the rate of requests; waiting"
    );
    attempt_failed(job, PullPhase::RateLimited, &failure.to_string(), pause);
    job.progress.send_modify(|shown| shown.limit_ends = ends);
    sleep(pause).await;
}

fn span(duration: Duration) -> Span {
    Span::millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// The layers of one attempt.
#[derive(Debug)]
pub(crate) struct Layers<'a> {
    /// The layers so far, by the daemon's id.
    seen: BTreeMap<String, Layer>,
    /// When the last log line was due.
    last_shown: Instant,
    /// The last line said something new.
    has_moved: bool,
    /// A layer was fetched or unpacked in this attempt, or waited for that.
    has_worked: bool,
    job: &'a PullJob<'a>,
}

/// Upper limit of [`Layers::patience`].
const MAX_PATIENCE: u32 = 10;

#[derive(Debug, Default)]
struct Layer {
    /// Bytes fetched.
    current: u64,
    /// Size in bytes, compressed; 0 = not known yet.
    total: u64,
    stage: Stage,
    /// A hash of the last line; `None` = there was none.
    shown: Option<u64>,
}

impl Layer {
    /// The layer is being fetched or unpacked, as far as the daemon says.
    fn is_active(&self) -> bool {
        matches!(self.stage, Stage::Named | Stage::Active)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// The daemon fetches other layers first.
    #[default]
    Waiting,
    /// The layer is named, and nothing more was said about it.
    Named,
    /// The layer is being fetched or unpacked.
    Active,
    /// The layer is fetched; the layers below are unpacked first.
    Fetched,
    /// The layer is complete.
    Done,
}

impl<'a> Layers<'a> {
    /// No layers yet. The counts will be shown in the progress of `job`.
    pub(crate) fn new(job: &'a PullJob<'a>, now: Instant) -> Self {
        Self { seen: BTreeMap::new(), last_shown: now, has_moved: false, has_worked: false, job }
    }

    /// Counts one progress line. `Some` is a text for the log, if one is due.
    pub(crate) fn note(&mut self, line: &CreateImageInfo, now: Instant) -> Option<String> {
        self.has_moved = true;
        let (Some(id), Some(status)) = (&line.id, &line.status) else { return None };
        // The first line of a pull has the tag or the digest in the place of a layer's id.
        if status.starts_with("Pulling from ") {
            return None;
        }
        if self.seen.len() < MAX_LAYERS || self.seen.contains_key(id) {
            let layer = self.seen.entry(id.clone()).or_default();
            let shown = Some(hash(status, line.progress_detail.as_ref().and_then(|detail| detail.current)));
            self.has_moved = layer.shown != shown;
            layer.shown = shown;
            layer.stage = match status.as_str() {
                "Pull complete" | "Already exists" => Stage::Done,
                "Waiting" => Stage::Waiting,
                "Pulling fs layer" => Stage::Named,
                "Download complete" => Stage::Fetched,
                _ => Stage::Active,
            };
            self.has_worked |= !matches!(layer.stage, Stage::Named | Stage::Done);
            // Extraction counts from zero again; only the bytes from the registry are shown.
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
        Some(format!("{}, now: {status}", self.job.progress.borrow().describe((self.job.now)())))
    }

    /// The last line said something new. With the containerd image store, the daemon repeats the state of a layer ten times in a
    /// second, also while no byte arrives.
    pub(crate) fn has_moved(&self) -> bool {
        self.has_moved
    }

    /// All layers are fetched, and at least one must be unpacked. Some engines with the containerd image store say nothing while
    /// they unpack.
    pub(crate) fn all_fetched(&self) -> bool {
        let is_fetched = |layer: &Layer| matches!(layer.stage, Stage::Fetched | Stage::Done);
        self.seen.values().any(|layer| layer.stage == Stage::Fetched) && self.seen.values().all(is_fetched)
    }

    /// All missing layers wait for the daemon to fetch something else, so silence is to be expected.
    pub(crate) fn all_wait(&self) -> bool {
        let any = self.seen.values().any(|layer| layer.stage == Stage::Waiting);
        any && !self.seen.values().any(Layer::is_active)
    }

    /// How many times longer than usual the pull may stand still. With the containerd image store, the daemon shows a layer's
    /// progress only after each MiB, and it fetches all layers at once, so that the bandwidth is shared among them. If an earlier
    /// pull has left all bytes, it names the layers and unpacks them without a word.
    pub(crate) fn patience(&self, has_containerd_store: bool) -> u32 {
        let count = |stage: Stage| self.seen.values().filter(|layer| layer.stage == stage).count();
        let (active, named) = (count(Stage::Active), count(Stage::Named));
        if has_containerd_store && !self.has_worked && named > 0 {
            return MAX_PATIENCE;
        }
        u32::try_from(active + named).unwrap_or(MAX_PATIENCE).clamp(1, MAX_PATIENCE)
    }

    fn show(&self) {
        let count = |stage: Option<Stage>| {
            let counted = self.seen.values().filter(|layer| stage.is_none_or(|stage| layer.stage == stage)).count();
            u32::try_from(counted).unwrap_or(u32::MAX)
        };
        let sum = |bytes: fn(&Layer) -> u64| self.seen.values().map(bytes).fold(0, u64::saturating_add);
        self.job.progress.send_modify(|shown| {
            shown.phase = PullPhase::Fetching;
            (shown.layers, shown.layers_done) = (count(None), count(Some(Stage::Done)));
            (shown.bytes, shown.bytes_total) = (sum(|layer| layer.current), sum(|layer| layer.total));
            if self.has_moved {
                shown.last_progress = Some((self.job.now)());
            }
        });
    }
}

/// Only the hash of a status is kept, since a status may be long.
fn hash(status: &str, current: Option<i64>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (status, current).hash(&mut hasher);
    hasher.finish()
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

    /// Years from the wall clock.
    const NOW: Timestamp = Timestamp(42_000);

    fn job(progress: &watch::Sender<PullProgress>) -> PullJob<'_> {
        PullJob { image: "app", digest: None, waits_for_limits: true, progress, now: &|| NOW }
    }

    #[tokio::test]
    async fn all_times_are_on_the_job_s_clock() {
        let shown = watch::Sender::new(PullProgress { since: Timestamp(40_000), ..PullProgress::default() });
        let job = job(&shown);
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        attempt_failed(&job, PullPhase::Pausing, "busy", second);
        assert_eq!(shown.borrow().next_try, Some(NOW + Span::secs(1)));
        let limit = Wait { pause: Duration::ZERO, retry_after: Some(second) };
        wait_for_limit(&job, &Failure::retryable("X", "slow down"), limit).await;
        assert_eq!((shown.borrow().next_try, shown.borrow().limit_ends), (Some(NOW), Some(NOW + Span::secs(1))));
        attempt_begins(&job, 5);
        let text = Layers::new(&job, start).note(&line("a", "Downloading", None), start + EVERY).unwrap();
        assert_eq!(shown.borrow().last_progress, Some(NOW));
        assert!(text.starts_with("fetching for 2 s"), "{text}");
    }

    #[test]
    fn only_a_slow_pull_is_logged() {
        let start = Instant::now();
        let shown = watch::Sender::new(PullProgress { since: NOW, ..PullProgress::default() });
        let job = job(&shown);
        let mut layers = Layers::new(&job, start);
        let mib = 1 << 20;
        assert_eq!(layers.note(&line("a", "Already exists", None), start), None);
        assert_eq!(layers.note(&line("b", "Downloading", Some((3 * mib, 8 * mib))), start), None);
        let later = start + EVERY;
        assert_eq!(
            layers.note(&line("b", "Downloading", Some((4 * mib, 8 * mib))), later).as_deref(),
            Some("fetching for 0 s, 1 of 2 layers, 4.0 of 8.0 MiB fetched, now: Downloading")
        );
        assert_eq!(shown.borrow().percent(), Some(50));
        assert_eq!(layers.note(&line("b", "Extracting", Some((1, 2))), later), None, "a line was just logged");
        let text = layers.note(&line("b", "Pull complete", None), later + EVERY);
        let wanted = "fetching for 0 s, 2 of 2 layers, 8.0 of 8.0 MiB fetched, now: Pull complete";
        assert_eq!(text.as_deref(), Some(wanted));
        assert_eq!((shown.borrow().layers_done, shown.borrow().percent()), (2, Some(100)));
        let mut next = Layers::new(&job, start);
        next.note(&line("latest", "Pulling from team/app", None), start);
        next.note(&line("b", "Pulling fs layer", None), start);
        assert_eq!((shown.borrow().layers, shown.borrow().bytes), (1, 0), "counted from zero");
    }

    #[test]
    fn lines_without_a_layer_and_endless_lines_are_handled() {
        let start = Instant::now();
        let shown = watch::Sender::new(PullProgress::default());
        let job = job(&shown);
        let mut layers = Layers::new(&job, start);
        let odd = CreateImageInfo { status: Some("Digest: sha256:1".into()), ..CreateImageInfo::default() };
        assert_eq!(layers.note(&odd, start + EVERY), None);
        for id in 0..2000 {
            layers.note(&line(&id.to_string(), "Downloading", Some((-1, -1))), start);
        }
        assert_eq!(layers.seen.len(), MAX_LAYERS);
    }

    #[test]
    fn a_line_that_repeats_the_last_one_of_its_layer_is_no_progress() {
        let start = Instant::now();
        let shown = watch::Sender::new(PullProgress::default());
        let clock = std::sync::atomic::AtomicU64::new(1);
        let now = || Timestamp(clock.load(std::sync::atomic::Ordering::Relaxed));
        let job = PullJob { image: "app", digest: None, waits_for_limits: true, progress: &shown, now: &now };
        let mut layers = Layers::new(&job, start);
        let table = [
            (line("a", "Pulling fs layer", None), true),
            (line("a", "Downloading", Some((1, 9))), true),
            (line("b", "Downloading", Some((1, 9))), true),
            (line("a", "Downloading", Some((1, 9))), false),
            (line("b", "Downloading", Some((1, 9))), false),
            (line("a", "Downloading", Some((2, 9))), true),
            (line("a", "Retrying in 2 seconds", None), true),
            (line("a", "Retrying in 1 second", None), true),
            (CreateImageInfo { status: Some("Digest: sha256:1".into()), ..CreateImageInfo::default() }, true),
        ];
        for (step, (line, moves)) in (2..).zip(table) {
            clock.store(step, std::sync::atomic::Ordering::Relaxed);
            layers.note(&line, start);
            assert_eq!(layers.has_moved(), moves, "{line:?}");
            if line.id.is_some() {
                assert_eq!(shown.borrow().last_progress == Some(Timestamp(step)), moves, "{line:?}");
            }
        }
    }

    #[test]
    fn layers_that_share_the_line_may_stand_still_for_longer() {
        let start = Instant::now();
        let shown = watch::Sender::new(PullProgress::default());
        let job = job(&shown);
        let mut layers = Layers::new(&job, start);
        assert_eq!(layers.patience(false), 1, "nothing is known yet");
        for (id, patience) in [("a", 1), ("b", 2), ("c", 3)] {
            layers.note(&line(id, "Downloading", Some((1 << 20, 1 << 30))), start);
            assert_eq!(layers.patience(false), patience);
        }
        layers.note(&line("c", "Download complete", None), start);
        layers.note(&line("b", "Waiting", None), start);
        assert_eq!(layers.patience(false), 1);
        (0..50).for_each(|id| drop(layers.note(&line(&id.to_string(), "Pulling fs layer", None), start)));
        assert_eq!(layers.patience(false), MAX_PATIENCE);
    }

    /// An earlier pull was interrupted after it had fetched everything.
    #[test]
    fn containerd_may_unpack_without_a_word() {
        let start = Instant::now();
        let shown = watch::Sender::new(PullProgress::default());
        let job = job(&shown);
        let mut layers = Layers::new(&job, start);
        layers.note(&line("a", "Pulling fs layer", None), start);
        assert_eq!((layers.patience(false), layers.patience(true)), (1, MAX_PATIENCE));
        layers.note(&line("b", "Already exists", None), start);
        assert_eq!(layers.patience(true), MAX_PATIENCE);
        layers.note(&line("b", "Downloading", Some((1, 2))), start);
        layers.note(&line("b", "Download complete", None), start);
        assert_eq!(layers.patience(true), 1, "it fetches, and a does not arrive");
    }

    #[test]
    fn silence_is_expected_while_everything_fetched_is_unpacked() {
        let start = Instant::now();
        let shown = watch::Sender::new(PullProgress::default());
        let job = job(&shown);
        let mut layers = Layers::new(&job, start);
        assert!(!layers.all_fetched(), "nothing is known yet");
        let steps = [
            (line("a", "Already exists", None), false),
            (line("b", "Download complete", None), true),
            (line("c", "Downloading", Some((1, 2))), false),
            (line("c", "Download complete", None), true),
            (line("b", "Extracting", Some((1, 0))), false),
            (line("b", "Pull complete", None), true),
            (line("c", "Pull complete", None), false),
        ];
        for (line, wanted) in steps {
            layers.note(&line, start);
            assert_eq!(layers.all_fetched(), wanted, "{line:?}");
        }
    }

    #[test]
    fn silence_is_expected_while_the_daemon_fetches_something_else() {
        let start = Instant::now();
        let shown = watch::Sender::new(PullProgress::default());
        let job = job(&shown);
        let mut layers = Layers::new(&job, start);
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
