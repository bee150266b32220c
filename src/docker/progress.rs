//! How far a pull has come, from the daemon's progress lines: one log line now and then, so that a slow pull is seen to move.

use bollard::models::CreateImageInfo;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Between two log lines of one pull.
const EVERY: Duration = Duration::from_secs(15);
/// Layers counted; an image has at most 127.
const MOST_LAYERS: usize = 256;

/// The layers of one pull.
#[derive(Debug)]
pub(super) struct Progress {
    layers: BTreeMap<String, Layer>,
    said: Instant,
}

#[derive(Debug, Default)]
struct Layer {
    current: u64,
    total: u64,
    is_done: bool,
}

impl Progress {
    pub(super) fn new(now: Instant) -> Self {
        Self { layers: BTreeMap::new(), said: now }
    }

    /// Takes one line in; says how far the pull is if it is time to.
    pub(super) fn note(&mut self, line: &CreateImageInfo, now: Instant) -> Option<String> {
        let (Some(id), Some(status)) = (&line.id, &line.status) else { return None };
        if self.layers.len() < MOST_LAYERS || self.layers.contains_key(id) {
            let layer = self.layers.entry(id.clone()).or_default();
            layer.is_done = status == "Pull complete" || status == "Already exists";
            // Extraction counts from zero again; only what is fetched from the registry is told.
            if let Some(detail) = line.progress_detail.as_ref().filter(|_| status == "Downloading") {
                layer.current = detail.current.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default();
                layer.total = detail.total.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default();
            }
        }
        if now.duration_since(self.said) < EVERY {
            return None;
        }
        self.said = now;
        let (mut current, mut total) = (0, 0);
        for layer in self.layers.values() {
            current += layer.current;
            total += layer.total;
        }
        let done = self.layers.values().filter(|layer| layer.is_done).count();
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        Some(format!(
            "{done} of {} layers, {:.1} of {:.1} MiB fetched, now: {status}",
            self.layers.len(),
            mib(current),
            mib(total)
        ))
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
    fn a_slow_pull_is_told_of_and_a_quick_one_is_not() {
        let start = Instant::now();
        let mut progress = Progress::new(start);
        let mib = 1 << 20;
        assert_eq!(progress.note(&line("a", "Already exists", None), start), None);
        assert_eq!(progress.note(&line("b", "Downloading", Some((3 * mib, 8 * mib))), start), None);
        let later = start + EVERY;
        assert_eq!(
            progress.note(&line("b", "Downloading", Some((4 * mib, 8 * mib))), later).as_deref(),
            Some("1 of 2 layers, 4.0 of 8.0 MiB fetched, now: Downloading")
        );
        assert_eq!(progress.note(&line("b", "Extracting", Some((1, 2))), later), None, "just said");
        assert_eq!(
            progress.note(&line("b", "Pull complete", None), later + EVERY).as_deref(),
            Some("2 of 2 layers, 4.0 of 8.0 MiB fetched, now: Pull complete")
        );
    }
}
