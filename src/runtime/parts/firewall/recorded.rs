//! What the agent says about rules that `host-setup` keeps, by the record of its last run.

use crate::host::setup_record::Record;

/// What a person can do where `host-setup` fails.
const REMEDY: &str =
    "as root on the host, `ecs-agent host-setup -service` shows the error; see also `systemctl status ecs-host-setup`";

/// What is new in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// `host-setup` keeps the rules from now on.
    Kept,
    /// Rules were missing and were put back.
    PutBack,
    /// Something could not be made.
    Failed,
    /// Everything could be made again.
    Mended,
}

/// What was logged, so that the same is not logged every minute.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    /// The record of the last check; `None`: `host-setup` did not keep the rules then.
    last: Option<Record>,
}

impl Recorded {
    /// Logs what a fresh record says, as far as it is new.
    pub(super) fn note(&mut self, record: &Record) {
        for change in self.changes(record) {
            log(change, record);
        }
        self.last = Some(record.clone());
    }

    fn changes(&self, record: &Record) -> Vec<Change> {
        let Some(last) = &self.last else {
            let failed = Some(Change::Failed).filter(|_| !is_whole(record));
            return [Change::Kept].into_iter().chain(failed).collect();
        };
        let put_back = Some(Change::PutBack).filter(|_| record.put_back > last.put_back);
        let is_same = (&record.error, &record.remarks) == (&last.error, &last.remarks);
        let other = if is_whole(record) { Change::Mended } else { Change::Failed };
        let error = Some(other).filter(|_| !is_same);
        put_back.into_iter().chain(error).collect()
    }

    /// `host-setup` does not keep the rules any more. Logs why, if it did before.
    pub(super) fn lost(&mut self, reason: &str) {
        if self.last.take().is_some() {
            let remedy = "systemctl status ecs-host-setup.timer";
            tracing::warn!(reason, remedy, "host-setup does not keep the firewall rules any more");
        }
    }
}

/// Everything could be made.
fn is_whole(record: &Record) -> bool {
    record.error.is_empty() && record.remarks.is_empty()
}

fn log(change: Change, record: &Record) {
    match change {
        Change::Kept => {
            let by = if record.rules.is_some() { "host-setup" } else { "others" };
            let (last_run, put_back) = (&record.at, record.put_back);
            tracing::info!(by, last_run, put_back, "Firewall rules are kept outside of this process");
        }
        Change::PutBack => {
            let missing = record.missing.join(", ");
            let times = record.put_back;
            tracing::warn!(missing, times, by = "host-setup", "Firewall rules were missing and have been put back");
        }
        Change::Failed if record.error.is_empty() => {
            let error = record.remarks.join("; ");
            tracing::warn!(error, remedy = REMEDY, "host-setup cannot make all settings of this host");
        }
        Change::Failed => {
            let error = [std::slice::from_ref(&record.error), &record.remarks[..]].concat().join("; ");
            let effect = "containers may not reach the agent";
            tracing::error!(error, effect, remedy = REMEDY, "host-setup cannot make the firewall rules");
        }
        Change::Mended => tracing::info!("host-setup has made all settings of this host again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_logged_once() {
        let record = Record { put_back: 2, ..Record::default() };
        let more = Record { put_back: 3, ..record.clone() };
        let failed = Record { error: "iptables is not installed".to_owned(), ..more.clone() };
        let other = Record { remarks: vec!["no memory".to_owned()], put_back: 4, ..more.clone() };
        let mut recorded = Recorded::default();
        for (record, wanted) in [
            (&record, &[Change::Kept][..]),
            (&record, &[]),
            (&more, &[Change::PutBack]),
            (&failed, &[Change::Failed]),
            (&failed, &[]),
            (&other, &[Change::PutBack, Change::Failed]),
            (&more, &[Change::Mended]),
        ] {
            assert_eq!(recorded.changes(record), wanted, "{record:?}");
            recorded.note(record);
        }
        recorded.lost("it has not run for 300 s");
        assert_eq!(recorded.changes(&failed), [Change::Kept, Change::Failed]);
    }
}
