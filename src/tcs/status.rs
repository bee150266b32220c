//! The state of the instance: whether Docker answers (spec `tcs.md` §6, `registration.md` §9).
//!
//! Owns the results of the checks and when they are reported. It does not ask Docker. Pure.

use ecs_core::model::Timestamp;

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// There was no check yet.
    Initializing,
    /// Docker answered.
    Ok,
    /// Docker did not answer in time.
    Impaired,
}

/// A report of the state. All times are of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceStatus {
    /// The result of the last check.
    pub condition: Condition,
    /// When the check before the last one was made; before the second check, when the agent started.
    ///
    /// Compat: the Go agent names that time `lastUpdated`. Before the first check it sends a time of the year 1; this agent sends
    /// its start.
    pub previous_check: Timestamp,
    /// When the result last changed.
    pub changed: Timestamp,
}

/// The results of the checks.
#[derive(Clone, Copy, Debug)]
pub struct Checks {
    now: InstanceStatus,
    last_check: Timestamp,
    is_reported: bool,
}

impl Checks {
    /// No check was made yet; the agent starts at this time.
    pub fn started(at: Timestamp) -> Self {
        let now = InstanceStatus { condition: Condition::Initializing, previous_check: at, changed: at };
        Self { now, last_check: at, is_reported: false }
    }

    /// Records a check. Its result is due to be reported, even if it has not changed.
    pub fn checked(&mut self, answered: bool, at: Timestamp) {
        let condition = if answered { Condition::Ok } else { Condition::Impaired };
        if condition != self.now.condition {
            self.now.changed = at;
        }
        self.now.condition = condition;
        self.now.previous_check = std::mem::replace(&mut self.last_check, at);
        self.is_reported = false;
    }

    /// Whether a report is due.
    pub fn is_due(&self) -> bool {
        !self.is_reported
    }

    /// The report; it counts as sent.
    pub fn report(&mut self) -> InstanceStatus {
        self.is_reported = true;
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_is_reported_once_with_the_time_of_the_one_before() {
        let mut checks = Checks::started(Timestamp(1));
        let report = |checks: &mut Checks| {
            assert!(checks.is_due());
            let InstanceStatus { condition, previous_check, changed } = checks.report();
            assert!(!checks.is_due());
            (condition, previous_check.0, changed.0)
        };
        assert_eq!(report(&mut checks), (Condition::Initializing, 1, 1));
        let table = [
            (true, 10, (Condition::Ok, 1, 10)),
            (true, 20, (Condition::Ok, 10, 10)),
            (false, 30, (Condition::Impaired, 20, 30)),
            (false, 40, (Condition::Impaired, 30, 30)),
            (true, 50, (Condition::Ok, 40, 50)),
        ];
        for (answered, at, expected) in table {
            checks.checked(answered, Timestamp(at));
            assert_eq!(report(&mut checks), expected, "at {at}");
        }
    }

    #[test]
    fn of_two_checks_between_reports_the_last_counts() {
        let mut checks = Checks::started(Timestamp(1));
        checks.checked(true, Timestamp(10));
        checks.checked(false, Timestamp(20));
        let last =
            InstanceStatus { condition: Condition::Impaired, previous_check: Timestamp(10), changed: Timestamp(20) };
        assert_eq!(checks.report(), last);
    }
}
