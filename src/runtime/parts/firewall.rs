//! Keeps the firewall's rules for 169.254.170.2: made once the agent has its engine for itself, checked again every minute, when
//! Docker was restarted, and when its bridges have changed.
//!
//! Where `host-setup` runs every minute, it keeps them instead, with rights that this process need not have: the unit does it so. Its
//! record says so; while that is fresh, the firewall is left alone here, and what the record says is shown (`recorded`).
//!
//! An agent that stops as asked removes the rules, and so does one that a restart cannot help. After a crash they stay: the agent is
//! started again within seconds, its tasks go on asking for credentials, and a guard that comes and goes guards nothing. A process
//! that may not change the firewall reports that once, and works with rules that others have made.

mod recorded;

use crate::backoff::{Backoff, Shape, seconds};
use crate::config::Config;
use crate::host::firewall::{
    Checked, Firewall, FirewallError, METADATA_ADDRESS, METADATA_PORT, PartFailure, Settings, USUAL_BRIDGE,
};
use crate::host::program::Programs;
use crate::host::setup_record::{Found, Place, Record};
use crate::http::introspection::{HostAnswer, KeptBy};
use crate::metrics::Counter;
use crate::runtime::Fatal;
use crate::runtime::supervisor::PartResult;
use ecs_core::model::{Bridges, with_causes};
use recorded::Recorded;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::sync::{Mutex, Notify, watch};
use tokio_util::sync::CancellationToken;

/// The pause between two checks.
const INTERVAL: Shape =
    Shape { initial: Duration::from_secs(60), max: Duration::from_secs(60), factor: 1.0, jitter: 0.2 };
/// The pauses after failed attempts.
const RETRY: Shape = Shape { initial: Duration::from_secs(5), max: Duration::from_secs(60), factor: 2.0, jitter: 0.2 };
/// The time limit for the removal. A call that hangs must not hold up the end of the agent.
const REMOVAL: Duration = Duration::from_secs(10);

impl From<&Result<Checked, FirewallError>> for Shown {
    /// The result of a check by this process.
    fn from(checked: &Result<Checked, FirewallError>) -> Self {
        match checked {
            Ok(Checked { failures, .. }) => {
                let text = |failure: &PartFailure| format!("{}: {}", failure.consequence, with_causes(&failure.error));
                let (wanted, others): (Vec<_>, Vec<_>) = failures.iter().partition(|failure| failure.is_wanted);
                let error = wanted.into_iter().map(text).reduce(|all, text| all + "; " + &text);
                Self { error, remarks: others.into_iter().map(text).collect(), ..Self::default() }
            }
            Err(FirewallError::NoRight) => Self { is_left_to_others: true, ..Self::default() },
            Err(error) => Self { error: Some(with_causes(error)), ..Self::default() },
        }
    }
}

/// The rules of this agent.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    state: Mutex<State>,
    /// Wakes the check, because Docker was restarted.
    docker_restarted: Notify,
    /// How often rules were missing and were put back, by this process.
    put_back: Counter,
    /// The result of the last check.
    shown: std::sync::Mutex<Shown>,
    /// Where `host-setup` leaves its record.
    place: Place,
}

/// The result of a check, for metrics and introspection.
#[derive(Clone, Debug, Default)]
struct Shown {
    /// The fresh record of `host-setup`; `None`: there is none.
    record: Option<Record>,
    /// This process lacks the right, or the configuration leaves the rules to others.
    is_left_to_others: bool,
    /// Why the rules could not be made; `None`: they were.
    error: Option<String>,
    /// What else could not be made, and why.
    remarks: Vec<String>,
}

#[derive(Debug, Default)]
enum State {
    /// The rules are not begun, or left to others.
    #[default]
    Untouched,
    Kept(Firewall),
    /// The agent ends; nothing is made any more.
    Ended,
}

impl Rules {
    /// How often rules were missing and were put back.
    pub(crate) fn put_back(&self) -> u64 {
        self.put_back.get() + self.shown().record.map_or(0, |record| record.put_back)
    }

    /// The last check could not make everything.
    pub(crate) fn is_failing(&self) -> bool {
        self.answer().error.is_some()
    }

    /// Who keeps the rules, and with what result.
    pub(crate) fn answer(&self) -> HostAnswer {
        let (shown, put_back) = (self.shown(), self.put_back());
        let Some(record) = shown.record else {
            let kept_by = if shown.is_left_to_others { KeptBy::Others } else { KeptBy::Agent };
            let Shown { error, remarks, .. } = shown;
            return HostAnswer { kept_by, put_back, error, remarks, ..HostAnswer::default() };
        };
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        HostAnswer {
            kept_by: if record.rules.is_some() { KeptBy::HostSetup } else { KeptBy::Others },
            put_back,
            missing: record.missing,
            put_back_at: some(record.put_back_at),
            last_run: some(record.at),
            error: some(record.error),
            remarks: record.remarks,
        }
    }

    fn shown(&self) -> Shown {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn show(&self, shown: Shown) {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown;
    }

    /// The configuration, or what this process can do, leaves the rules to others.
    pub(crate) fn leave_to_others(&self) {
        self.show(Shown { is_left_to_others: true, ..Shown::default() });
    }

    /// Docker was restarted, so the rules are checked at once.
    pub(crate) fn docker_restarted(&self) {
        self.docker_restarted.notify_one();
    }

    /// Makes and checks the rules until `stop` is cancelled. `bridges` holds Docker's bridges. `settings`: `None` if this process can do
    /// neither, which has been logged; the record of `host-setup` is shown all the same.
    pub(crate) async fn keep(
        &self,
        settings: Option<Settings>,
        mut bridges: watch::Receiver<Bridges>,
        stop: CancellationToken,
    ) -> PartResult {
        let (mut history, mut recorded) = (History::new(&self.put_back), Recorded::default());
        let checking = async {
            loop {
                // A bridge that becomes known under its usual name is no change.
                let Bridges { default, named } = bridges.borrow_and_update().clone();
                let default = Some(default.unwrap_or_else(|| USUAL_BRIDGE.to_owned()));
                let bridges_now = Bridges { default, named };
                let settings = settings.clone().map(|settings| Settings { bridges: bridges_now, ..settings });
                let pause = match self.place.found().await {
                    Found::Fresh(record) => self.leave_alone(*record, &mut recorded).await,
                    found => {
                        recorded.lost(&reason(&found));
                        match settings {
                            Some(settings) => self.check(settings, &mut history).await,
                            None => {
                                self.leave_to_others();
                                Some(INTERVAL.delay(0))
                            }
                        }
                    }
                };
                let Some(pause) = pause else { return };
                let changed = async {
                    if bridges.changed().await.is_err() {
                        std::future::pending::<()>().await; // nobody knows the bridges any more
                    }
                };
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = changed => {}
                    () = self.docker_restarted.notified() => {}
                }
            }
        };
        stop.run_until_cancelled(checking).await;
        stop.cancelled().await; // what cannot be done now cannot be done by a new start of this part either
        Ok(())
    }

    /// Leaves the rules to `host-setup`, and returns the pause before the next check. `None`: the agent ends.
    async fn leave_alone(&self, record: Record, recorded: &mut Recorded) -> Option<Duration> {
        match &mut *self.state.lock().await {
            State::Ended => return None,
            // What this process has made is the same, so nothing is to be removed by it.
            state => *state = State::Untouched,
        }
        recorded.note(&record);
        self.show(Shown { record: Some(record), ..Shown::default() });
        Some(INTERVAL.delay(0))
    }

    /// Makes and checks the rules, and returns the pause before the next check. `None`: the agent ends.
    async fn check(&self, settings: Settings, history: &mut History<'_>) -> Option<Duration> {
        let mut state = self.state.lock().await;
        if matches!(*state, State::Untouched) {
            *state = State::Kept(Firewall::new(Programs::default()));
        }
        let State::Kept(firewall) = &mut *state else { return None };
        let checked = firewall.ensure(&settings).await;
        drop(state);
        self.show(Shown::from(&checked));
        Some(history.note(settings, checked))
    }

    /// Removes the rules if the agent has ended for good.
    pub(crate) async fn end(&self, result: &Result<(), Fatal>) {
        let is_for_good = result.as_ref().map_or_else(Fatal::is_terminal, |()| true);
        let removal = async {
            match std::mem::replace(&mut *self.state.lock().await, State::Ended) {
                State::Kept(mut firewall) if is_for_good => Some(firewall.undo().await),
                _ => None,
            }
        };
        let removed = tokio::time::timeout(REMOVAL, removal).await;
        match removed.map(|removed| removed.unwrap_or(Err(FirewallError::NoRight))) {
            Ok(Ok(())) => tracing::info!("The firewall rules for {METADATA_ADDRESS} are removed"),
            Ok(Err(FirewallError::NoRight)) => {} // nothing was made
            Ok(Err(error)) => {
                tracing::warn!(
                    error = with_causes(&error),
                    "the firewall rules for {METADATA_ADDRESS} cannot be removed"
                );
            }
            Err(_late) => {
                tracing::warn!("the firewall rules for {METADATA_ADDRESS} are not all removed: it took too long")
            }
        }
    }
}

/// What the configuration says about the rules.
pub(crate) fn settings(config: &Config) -> Settings {
    Settings {
        localhost_filter: !config.skip_localhost_filter,
        offhost_introspection: config.offhost_introspection,
        block_metadata: config.bridge_block_imds,
        bridges: Bridges::default(),
    }
}

/// What a person can do where the rules cannot be made.
const REMEDY: &str = "install iptables; as root on the host, `ecs-agent host-setup` makes the rules without the agent";

/// Why `host-setup` does not keep the rules.
fn reason(found: &Found) -> String {
    match found {
        Found::Stale(age_s) => format!("it has not run for {age_s} s"),
        Found::Missing => "its record is gone".to_owned(),
        Found::Unusable(error) => format!("its record cannot be used: {error}"),
        Found::Fresh(_) => "it does".to_owned(),
    }
}

fn report_no_right() {
    tracing::warn!(
        remedy = "as a service: the unit of this version; in a container: --cap-add=NET_ADMIN and an image with iptables; or, as root \
                  on the host: `ecs-agent host-setup`. ECS_MANAGE_FIREWALL=false if others make the rules",
        "this process may not change the firewall (it lacks CAP_NET_ADMIN or CAP_NET_RAW): it neither makes nor checks the rules that lead containers \
         from {METADATA_ADDRESS} to port {METADATA_PORT}, and works with those of others"
    );
}

/// What was logged about the rules, so that the same is not logged every minute.
#[derive(Debug)]
struct History<'a> {
    /// The settings of the last check that succeeded.
    made: Option<Settings>,
    /// The last failure; `None`: the last check succeeded.
    failure: Option<String>,
    retry: Option<Backoff>,
    /// It was reported that this process lacks the right.
    has_reported_no_right: bool,
    /// The last failures of parts.
    part_failures: Vec<String>,
    /// How often rules were missing.
    times_missing: &'a Counter,
}

impl<'a> History<'a> {
    fn new(times_missing: &'a Counter) -> Self {
        Self {
            made: None,
            failure: None,
            retry: None,
            has_reported_no_right: false,
            part_failures: Vec::new(),
            times_missing,
        }
    }

    /// Logs the result of a check, and returns the pause before the next one.
    fn note(&mut self, settings: Settings, checked: Result<Checked, FirewallError>) -> Duration {
        let checked = match checked {
            Ok(checked) => checked,
            Err(FirewallError::NoRight) => {
                if !std::mem::replace(&mut self.has_reported_no_right, true) {
                    report_no_right();
                }
                // Rules may be left to `host-setup` later.
                return INTERVAL.delay(0);
            }
            Err(error) => return self.failed(&error),
        };
        self.note_parts(&checked.failures);
        let missing: Vec<String> =
            checked.parts.into_iter().filter(|part| part.was_missing).map(|part| part.name).collect();
        let missing = missing.join(", ");
        self.retry = None;
        if self.failure.take().is_some() || self.made.is_none() {
            let made = Some(missing).filter(|names| !names.is_empty());
            tracing::info!(
                made,
                "Firewall rules are in place: containers and this host reach the agent at {METADATA_ADDRESS}"
            );
        } else if self.made.as_ref() != Some(&settings) {
            tracing::debug!(bridge = settings.bridges.default, "Firewall rules were adapted");
        } else if !missing.is_empty() {
            self.times_missing.increment();
            tracing::warn!(
                missing,
                times = self.times_missing.get(),
                "Firewall rules were missing and have been put back"
            );
        }
        self.made = Some(settings);
        INTERVAL.delay(0)
    }

    /// Not a warning if nobody has asked for the part: containers reach the agent all the same.
    fn note_parts(&mut self, failures: &[PartFailure]) {
        let texts: Vec<String> = failures.iter().map(|failure| with_causes(&failure.error)).collect();
        for (failure, error) in failures.iter().zip(&texts).filter(|(_, error)| !self.part_failures.contains(error)) {
            match failure.is_wanted {
                true => tracing::warn!(error, "{}", failure.consequence),
                false => tracing::info!(error, "{}", failure.consequence),
            }
        }
        self.part_failures = texts;
    }

    fn failed(&mut self, error: &FirewallError) -> Duration {
        let pause = self.retry.get_or_insert_with(|| Backoff::new(RETRY)).pause();
        let (error, retry_in_s) = (with_causes(error), seconds(pause));
        if self.failure.as_ref() == Some(&error) {
            tracing::debug!(error, retry_in_s, "firewall rules still cannot be made or checked");
        } else {
            tracing::warn!(
                error,
                remedy = REMEDY,
                retry_in_s,
                "firewall rules cannot be made or checked; without them containers do not reach the agent at {METADATA_ADDRESS}"
            );
        }
        self.failure = Some(error);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::firewall::Part;

    #[test]
    fn the_same_failure_is_logged_once_and_tried_again_slower() {
        let times_missing = Counter::default();
        let mut history = History::new(&times_missing);
        let failure = || Err(FirewallError::Absent { program: "iptables", restore: "iptables-restore" });
        let settings = Settings::default;
        let pauses: Vec<Duration> = (0..6).map(|_| history.note(settings(), failure())).collect();
        assert!(pauses[0] < Duration::from_secs(7) && pauses[5] >= Duration::from_secs(60), "{pauses:?}");
        assert!(history.failure.is_some() && times_missing.get() == 0);
        let checked = |was_missing| {
            let part = Part { name: "nat OUTPUT".to_owned(), purpose: "", was_missing };
            Ok(Checked { parts: vec![part], failures: Vec::new() })
        };
        let pause = history.note(settings(), checked(true));
        assert!(pause >= Duration::from_secs(60) && pause <= Duration::from_secs(72), "{pause:?}");
        assert_eq!((times_missing.get(), history.failure.is_none()), (0, true), "made for the first time");
        history.note(settings(), checked(false));
        history.note(settings(), checked(true));
        assert_eq!(times_missing.get(), 1);
        history.note(
            Settings { bridges: Bridges { named: ["mine".to_owned()].into(), default: None }, ..settings() },
            checked(true),
        );
        assert_eq!(times_missing.get(), 1, "the settings have changed, so nothing was missing");
    }

    #[tokio::test]
    async fn rules_that_were_never_begun_are_not_removed() {
        let rules = Rules::default();
        rules.end(&Ok(())).await;
        assert!(matches!(*rules.state.lock().await, State::Ended));
        // Nor are they made by a part that is still about to begin.
        let settings = Settings::default();
        let stop = CancellationToken::new();
        stop.cancel();
        rules.keep(Some(settings), watch::channel(Bridges::default()).1, stop).await.unwrap();
        assert!(matches!(*rules.state.lock().await, State::Ended));
    }

    #[tokio::test]
    async fn a_process_that_can_make_no_rules_leaves_them_to_others() {
        let rules = Rules::default();
        let stop = CancellationToken::new();
        let others = async {
            while rules.answer().kept_by != KeptBy::Others {
                tokio::task::yield_now().await;
            }
            stop.cancel();
        };
        let (kept, ()) = tokio::join!(rules.keep(None, watch::channel(Bridges::default()).1, stop.clone()), others);
        kept.unwrap();
        assert!(matches!(*rules.state.lock().await, State::Untouched));
    }
}
