//! Shows what a task waits for, from the agent's own page `/v1/debug/tasks`, and the progress of its pulls. This module owns the
//! reading of the page and the lines made from it. Invariant: an agent without such a page is no error.

use super::end::without_pull;
use super::output::{bar, drop_live_lines, has_live_lines, print_line, set_live_lines};
use axum::body::{Body, to_bytes};
use http::Request;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// The address of the page.
const ADDRESS: &str = "127.0.0.1:51678";
/// Interval between two looks at the page.
const INTERVAL: Duration = Duration::from_secs(1);
/// The time limit for one look.
const LIMIT: Duration = Duration::from_secs(5);
/// The largest page that is read, in bytes.
const MAX_PAGE: usize = 8 * 1024 * 1024;
/// A wait is shown when it is this old, in seconds. Most are over sooner.
const MIN_AGE: u64 = 1;
/// How soon the next line of a pull is printed without a terminal.
const PULL_INTERVAL: Duration = Duration::from_secs(5);
const MIB: f64 = 1_048_576.0;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    #[serde(default)]
    tasks: Vec<Task>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Task {
    arn: String,
    #[serde(default)]
    waits: Vec<Wait>,
}

/// One wait of the task or of a container.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Wait {
    container: Option<String>,
    /// The kind of the wait, such as `pull`, or `digest` for the look-up of an image's manifest.
    r#for: String,
    text: String,
    age_seconds: u64,
    image: Option<String>,
    pull: Option<Pull>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Pull {
    phase: String,
    attempt: u32,
    attempts: u32,
    layers: u32,
    layers_done: u32,
    bytes: u64,
    bytes_total: u64,
    percent: Option<u64>,
    next_try_in_seconds: Option<u64>,
    limit_ends_in_seconds: Option<u64>,
    last_failure: Option<String>,
}

/// The largest number of different failures that are shown in full.
const MAX_FAILURES: usize = 50;

/// The tasks and containers that were shown as stopped. What the page says about them is over: it may have been read before.
#[derive(Clone, Debug, Default)]
pub(super) struct Stopped(Arc<Mutex<BTreeSet<String>>>);

impl Stopped {
    /// Adds a name as the lines begin with it, and removes its lines from the terminal.
    pub(super) fn add(&self, name: &str) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.insert(name.to_owned()) {
            drop_live_lines(name);
        }
    }

    /// Hands the waits that are not over to `use_them`. Nothing is added meanwhile.
    fn with_open<T>(&self, waits: &[Wait], use_them: impl FnOnce(&[&Wait]) -> T) -> T {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_shown = |wait: &&Wait| wait.age_seconds >= MIN_AGE || wait.pull.is_some();
        let open: Vec<&Wait> = waits.iter().filter(is_shown).filter(|wait| !names.contains(&wait.subject())).collect();
        use_them(&open)
    }
}

/// Shows the waits of a task until it is dropped, except those of what has stopped.
pub(super) async fn show(task: String, stopped: Stopped) {
    let (mut shown, mut failures) = (Printed::new(), BTreeSet::new());
    loop {
        let waits = timeout(LIMIT, waits(&task)).await.ok().flatten().unwrap_or_default();
        stopped.with_open(&waits, |waits| {
            if has_live_lines() {
                print_failures(waits, &mut failures);
                set_live_lines(waits.iter().map(|wait| wait.line(true, false)).collect());
            } else {
                print_due(waits, &mut shown, Instant::now());
            }
        });
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Prints the failures that were not printed yet: a live line is cut at the edge of the terminal.
fn print_failures(waits: &[&Wait], printed: &mut BTreeSet<(String, String)>) {
    for wait in waits {
        let Some(line) = wait.failure() else { continue };
        let is_first = !printed.iter().any(|(key, _)| *key == wait.key());
        if printed.len() < MAX_FAILURES && printed.insert((wait.key(), line.clone())) {
            print_line(&line);
            wait.hint().filter(|_| is_first).iter().for_each(|hint| print_line(hint));
        }
    }
}

/// What was printed last of each wait.
type Printed = BTreeMap<String, Last>;

/// What was printed of a wait.
#[derive(Debug)]
struct Last {
    /// What the last line said, apart from the failure.
    state: String,
    at: Instant,
    /// The failure that was printed last; `None`: there was none.
    failure: Option<String>,
}

/// Prints the waits that are new, and those of pulls that have another line than some time ago.
fn print_due(waits: &[&Wait], printed: &mut Printed, now: Instant) {
    due(waits, printed, now).iter().for_each(|line| print_line(line));
}

/// The lines that are due. The text of a failure is in them once, as long as it stays the same.
fn due(waits: &[&Wait], printed: &mut Printed, now: Instant) -> Vec<String> {
    let mut lines = Vec::new();
    for wait in waits {
        let (state, failure, last) = (wait.state(), wait.last_failure(), printed.get(&wait.key()));
        let is_new_failure = failure.is_some() && failure != last.and_then(|last| last.failure.as_deref());
        let is_due = match last {
            // The first failure is said at once: the attempts may go on for minutes.
            Some(last) if failure.is_some() && last.failure.is_none() => true,
            Some(last) => state != last.state && now.duration_since(last.at) >= PULL_INTERVAL,
            None => failure.is_some() || wait.age_seconds >= MIN_AGE,
        };
        if is_due {
            lines.push(wait.line(false, is_new_failure));
            lines.extend(wait.hint().filter(|_| failure.is_some() && last.is_none_or(|last| last.failure.is_none())));
            let failure = failure.map(str::to_owned).or_else(|| last?.failure.clone());
            printed.insert(wait.key(), Last { state, at: now, failure });
        }
    }
    lines
}

impl Wait {
    /// What stays the same while the wait lasts.
    fn key(&self) -> String {
        let what = self.image.as_deref().unwrap_or(&self.text);
        format!("{} {what}", self.container.as_deref().unwrap_or_default())
    }

    fn subject(&self) -> String {
        self.container.as_ref().map_or_else(|| "task".to_owned(), |container| format!("container {container}"))
    }

    /// The last failure of the pull, in the registry's or Docker's words; `None`: there is none.
    fn last_failure(&self) -> Option<&str> {
        self.pull.as_ref()?.last_failure.as_deref()
    }

    /// The line about the last failure of the pull; `None`: there is none.
    fn failure(&self) -> Option<String> {
        Some(format!("{}: {} failed: {}", self.subject(), self.attempted()?, self.last_failure()?))
    }

    /// What a person can do instead of waiting for the attempts; `None`: nothing is pulled.
    fn hint(&self) -> Option<String> {
        let image = self.image.as_ref().filter(|_| self.pull.is_some())?;
        Some(format!("{}: {}", self.subject(), without_pull(image)))
    }

    /// What the attempts of the pull do; `None`: nothing is pulled.
    fn attempted(&self) -> Option<String> {
        let image = self.image.as_ref()?;
        Some(match self.r#for.as_str() {
            "digest" => format!("asking the registry for {image}"),
            _ => format!("pulling {image}"),
        })
    }

    /// What a line says, apart from the failure and the time that runs down to the next attempt.
    fn state(&self) -> String {
        match &self.pull {
            Some(pull) if pull.pauses() => format!("{} {}", self.r#for, pull.attempt),
            _ => self.line(false, false),
        }
    }

    /// The line about the wait. `has_failure`: with the text of the last failure, which a live line has no room for.
    fn line(&self, has_bar: bool, has_failure: bool) -> String {
        let subject = self.subject();
        let (Some(pull), Some(image), Some(attempted)) = (&self.pull, &self.image, self.attempted()) else {
            return format!("{subject}: {}", self.text);
        };
        let failure = pull.last_failure.as_ref().filter(|_| has_failure);
        if pull.pauses() {
            let failure = failure.map(|failure| format!(": {failure}")).unwrap_or_default();
            return format!("{subject}: {attempted} failed ({}){failure}", pull.attempts().join(", "));
        }
        let failure = failure.map(|failure| format!(", last failure: {failure}")).unwrap_or_default();
        format!("{subject}: {}{failure}", pull.line(image, has_bar))
    }
}

impl Pull {
    /// An attempt failed, and the next one has not begun.
    fn pauses(&self) -> bool {
        self.phase == "pausing"
    }

    /// The number of the attempt if it is not the first or has failed, and the time until the next one.
    fn attempts(&self) -> Vec<String> {
        let mut parts = Vec::new();
        if self.attempt > 1 || self.pauses() {
            parts.push(format!("attempt {} of {}", self.attempt, self.attempts.max(self.attempt)));
        }
        if let Some(seconds) = self.next_try_in_seconds.or(self.limit_ends_in_seconds) {
            parts.push(format!("again in {seconds} s"));
        }
        parts
    }

    fn line(&self, image: &str, has_bar: bool) -> String {
        let mut parts = Vec::new();
        match (self.phase.as_str(), self.percent) {
            ("fetching", Some(percent)) if has_bar => parts.push(format!("{} {percent:3} %", bar(percent))),
            ("fetching", Some(percent)) => parts.push(format!("{percent} %")),
            ("queued", _) => parts.push("waits for other pulls".to_owned()),
            ("asking", _) => parts.push("asks the registry".to_owned()),
            ("naming", _) => parts.push("is almost complete".to_owned()),
            ("rate-limited", _) => parts.push("is limited by the registry".to_owned()),
            _ => {}
        }
        if self.bytes_total > 0 {
            let (bytes, total) = (self.bytes as f64 / MIB, self.bytes_total as f64 / MIB);
            parts.push(format!("{bytes:.1} of {total:.1} MiB"));
        }
        if self.layers > 0 {
            parts.push(format!("{} of {} layers", self.layers_done, self.layers));
        }
        parts.extend(self.attempts());
        // The bar comes first, since a long line is cut.
        match has_bar {
            true => format!("{} of {image}", parts.join(", ")),
            false => format!("pull of {image}: {}", parts.join(", ")),
        }
    }
}

/// The waits of a task; `None` if the page cannot be read.
async fn waits(task: &str) -> Option<Vec<Wait>> {
    let stream = TcpStream::connect(ADDRESS).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let request = Request::get("/v1/debug/tasks?limit=0").header("host", ADDRESS).header("connection", "close");
    let request = request.body(Body::empty()).ok()?;
    let reading = async move {
        let answer = sender.send_request(request).await.ok()?;
        to_bytes(Body::new(answer.into_body()), MAX_PAGE).await.ok()
    };
    let (text, _ended) = tokio::join!(reading, connection);
    let page: Page = serde_json::from_slice(&text?).ok()?;
    page.tasks.into_iter().find(|found| found.arn == task).map(|found| found.waits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wait(members: serde_json::Value) -> Wait {
        serde_json::from_value(members).unwrap()
    }

    #[test]
    fn a_pull_is_a_bar_on_a_terminal_and_a_line_elsewhere() {
        let pull = wait(json!({
            "Container": "web", "For": "pull", "Text": "waits for its image", "Image": "busybox", "AgeSeconds": 3,
            "Pull": {"Phase": "fetching", "Attempt": 2, "Attempts": 5, "Layers": 3, "LayersDone": 1, "Bytes": 4_194_304,
                "BytesTotal": 16_777_216, "Percent": 25, "AgeSeconds": 3, "LastFailure": "timeout"},
        }));
        let rest = "4.0 of 16.0 MiB, 1 of 3 layers, attempt 2 of 5";
        let plain = format!("container web: pull of busybox: 25 %, {rest}");
        assert_eq!(pull.line(false, false), plain);
        assert_eq!(pull.line(false, true), format!("{plain}, last failure: timeout"));
        assert_eq!(
            pull.line(true, false),
            format!("container web: [######------------------]  25 %, {rest} of busybox")
        );
        // The edge of the terminal would cut it.
        assert_eq!(pull.failure().as_deref(), Some("container web: pulling busybox failed: timeout"));
    }

    #[test]
    fn other_waits_are_shown_in_the_agents_words() {
        let other = wait(
            json!({"Container": "work", "For": "containers", "Text": "waits for prepare to be SUCCESS", "AgeSeconds": 2}),
        );
        assert_eq!(other.line(true, false), "container work: waits for prepare to be SUCCESS");
        assert_eq!(wait(json!({"Text": "waits for its share"})).line(false, false), "task: waits for its share");
    }

    #[test]
    fn a_container_that_has_stopped_waits_for_nothing() {
        let waiting =
            |name: &str| wait(json!({"Container": name, "Text": "waits for Docker to stop it", "AgeSeconds": 2}));
        let (waits, stopped) = ([waiting("stub"), waiting("stub2")], Stopped::default());
        let open = |stopped: &Stopped| {
            stopped.with_open(&waits, |open| open.iter().map(|wait| wait.subject()).collect::<Vec<_>>())
        };
        assert_eq!(open(&stopped), ["container stub", "container stub2"]);
        stopped.add("container stub");
        assert_eq!(open(&stopped), ["container stub2"]);
    }

    #[test]
    fn a_failed_attempt_says_what_failed() {
        let pull = json!({"Phase": "pausing", "Attempt": 5, "Attempts": 9, "NextTryInSeconds": 1, "LastFailure": "no such host"});
        let line = |kind: &str| wait(json!({"Image": "i", "For": kind, "Pull": pull})).line(false, true);
        let rest = "failed (attempt 5 of 9, again in 1 s): no such host";
        assert_eq!(line("digest"), format!("task: asking the registry for i {rest}"));
        assert_eq!(line("pull"), format!("task: pulling i {rest}"));
    }

    #[test]
    fn a_failure_is_printed_once_with_its_remedy() {
        let (mut printed, begin) = (Printed::new(), Instant::now());
        let mut at = |seconds: u64, attempt: u32, next: u64, failure: &str| {
            let pull = json!({"Phase": "pausing", "Attempt": attempt, "Attempts": 9, "NextTryInSeconds": next, "LastFailure": failure});
            let pull = wait(json!({"Image": "i", "For": "digest", "AgeSeconds": 1, "Pull": pull}));
            due(&[&pull], &mut printed, begin + Duration::from_secs(seconds))
        };
        let first = at(0, 1, 1, "no such host");
        assert_eq!(first[0], "task: asking the registry for i failed (attempt 1 of 9, again in 1 s): no such host");
        assert!(
            first.len() == 2 && first[1].ends_with("give an image of yours this name: docker tag MY-IMAGE i"),
            "{first:?}"
        );
        assert_eq!(
            at(5, 3, 2, "no such host"),
            ["task: asking the registry for i failed (attempt 3 of 9, again in 2 s)"]
        );
        assert!(at(10, 3, 1, "no such host").is_empty(), "only the time has run down");
        let other = at(15, 4, 9, "timeout");
        assert_eq!(other, ["task: asking the registry for i failed (attempt 4 of 9, again in 9 s): timeout"]);
    }

    #[test]
    fn the_first_failure_has_its_remedy_at_once() {
        let (mut printed, begin) = (Printed::new(), Instant::now());
        let mut at = |age: u64, phase: &str, failure: Option<&str>| {
            let pull = json!({"Phase": phase, "Attempt": 1, "Attempts": 9, "LastFailure": failure});
            let image = "1.dkr.ecr.us-west-2.amazonaws.com/app";
            let pull =
                wait(json!({"Container": "app", "Image": image, "For": "pull", "AgeSeconds": age, "Pull": pull}));
            due(&[&pull], &mut printed, begin + Duration::from_secs(age))
        };
        assert_eq!(at(1, "asking", None).len(), 1);
        let failed = at(2, "pausing", Some("no such host"));
        assert!(failed[0].ends_with("failed (attempt 1 of 9): no such host"), "{failed:?}");
        let hint = "container app: Without an AWS account, give an image of yours this name before `up`: docker tag MY-IMAGE \
                    1.dkr.ecr.us-west-2.amazonaws.com/app";
        assert_eq!(failed[1], hint);
        assert!(at(3, "asking", Some("no such host")).is_empty(), "it was said");
    }

    #[test]
    fn a_line_is_printed_again_only_if_it_has_changed() {
        let (mut printed, begin) = (Printed::new(), Instant::now());
        let mut printed_at = |(percent, seconds): (u64, u64)| {
            let pull = wait(
                json!({"Image": "i", "Text": "t", "AgeSeconds": 1, "Pull": {"Phase": "fetching", "Percent": percent}}),
            );
            print_due(&[&pull], &mut printed, begin + Duration::from_secs(seconds));
            printed[&pull.key()].at.duration_since(begin).as_secs()
        };
        assert_eq!([(1, 0), (2, 3), (3, 5), (3, 60), (4, 61)].map(&mut printed_at), [0, 0, 5, 5, 61]);
        let (other, minutes) =
            (wait(json!({"Text": "waits for db to be HEALTHY", "AgeSeconds": 1})), Duration::from_secs(600));
        print_due(&[&other], &mut printed, begin);
        print_due(&[&other], &mut printed, begin + minutes);
        assert_eq!(printed[&other.key()].at, begin);
    }
}
