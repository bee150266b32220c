//! Makes the settings of the host, and puts back what is missing of them.

use super::report::{Report, is_service};
use crate::config::{Args, Config};
use crate::host::firewall::{self, Checked, Firewall, FirewallError};
use crate::host::program::Programs;
use crate::host::setup_record::{Place, Record, Rules, now};
use crate::host::{apparmor, ebs_directory, gpu};
use crate::runtime;
use ecs_core::model::with_causes;
use std::fmt::Write as _;

/// One run: what is there, and what it was before.
struct Run<'a> {
    args: &'a Args,
    config: &'a Config,
    /// What the run before has left; `None`: this is the first one since the boot, or since the service was stopped.
    before: Option<Record>,
    record: Record,
    report: Report,
}

/// Makes what is missing.
///
/// # Errors
/// This process is not privileged. Everything else that fails is in the report.
pub(super) async fn make(args: &Args, config: &Config) -> Result<Report, FirewallError> {
    firewall::check_right()?;
    let place = Place::default();
    let mut report = Report::default();
    let lock =
        place.lock().await.map_err(|error| report.remarks.push(format!("host-setup leaves no record: {error}"))).ok();
    let before = place.record().ok();
    let record = before.clone().unwrap_or_default();
    let mut run = Run { args, config, before, record, report };
    run.rules().await;
    if is_service(args) {
        run.service().await;
    }
    if args.apparmor {
        run.apparmor().await;
    }
    let Run { mut record, mut report, before, .. } = run;
    (record.error, record.remarks) = (report.errors.join("; "), report.remarks.clone());
    let is_same = |before: Record| (before.error, before.remarks) == (record.error.clone(), record.remarks.clone());
    report.is_known = is_service(args) && before.is_some_and(is_same);
    if let Some(lock) = lock {
        let written = place.write(record, &lock);
        report
            .remarks
            .extend(written.err().map(|error| format!("the record of host-setup cannot be written: {error}")));
    }
    Ok(report)
}

impl Run<'_> {
    fn failed(&mut self, error: &(dyn std::error::Error + 'static)) {
        self.report.errors.push(with_causes(error));
    }

    fn remark(&mut self, error: &(dyn std::error::Error + 'static)) {
        self.report.remarks.push(with_causes(error));
    }

    /// A run every minute only says what it has changed.
    fn line(&mut self, state: &str, is_change: bool, text: &str) {
        if is_change || !is_service(self.args) {
            let _ = writeln!(self.report.text, "{state:<9} {text}");
        }
    }

    /// The rules, `route_localnet`, the route and `accept_ra`. As a service, they are left to others if the operator says so.
    async fn rules(&mut self) {
        let made = self.before.as_ref().and_then(|before| before.rules.clone());
        let mut firewall = match made {
            Some(_) => Firewall::continued(Programs::default()),
            None => Firewall::new(Programs::default()),
        };
        if is_service(self.args) && !self.config.manage_firewall {
            self.record.rules = None;
            if made.is_some() {
                match firewall.undo().await {
                    Ok(()) => self.line("removed", true, "the rules: ECS_MANAGE_FIREWALL is false"),
                    Err(error) => self.failed(&error),
                }
            }
            return;
        }
        let bridges = made.as_ref().map(Rules::bridges).unwrap_or_default();
        let settings = runtime::firewall_settings(self.config, bridges).await;
        match firewall.ensure(&settings).await {
            Ok(checked) => self.checked(&settings, checked, made),
            Err(error) => return self.failed(&error),
        }
        // What ecs-init has left goes once ours stand, and is not looked for every minute.
        if is_service(self.args) && self.before.is_none() {
            match firewall.remove_leftovers(&settings).await {
                Ok(0) => {}
                Ok(count) => self.line("removed", true, &format!("{count} rules that ecs-init has left")),
                Err(error) => self.remark(&error),
            }
        }
    }

    fn checked(&mut self, settings: &firewall::Settings, checked: Checked, made: Option<Rules>) {
        let rules = Rules::from(settings);
        let mut missing = Vec::new();
        for part in checked.parts {
            let state = if part.was_missing { "made" } else { "in place" };
            self.line(state, part.was_missing, &format!("{}: {}", part.name, part.purpose));
            missing.extend(Some(part.name).filter(|_| part.was_missing));
        }
        for failure in &checked.failures {
            let texts = if failure.is_wanted { &mut self.report.errors } else { &mut self.report.remarks };
            texts.push(format!("{}: {}", failure.consequence, with_causes(&failure.error)));
        }
        // After a change of the settings, nothing was missing.
        if !missing.is_empty() && made.as_ref() == Some(&rules) {
            self.record.put_back += 1;
            (self.record.put_back_at, self.record.missing) = (now(), missing);
        }
        self.record.rules = Some(rules);
    }

    /// What ecs-init does besides.
    async fn service(&mut self) {
        match ebs_directory::make() {
            Ok(is_new) => self.line("made", is_new, ebs_directory::PATH),
            // As with ecs-init, which then offers no EBS volumes; this agent offers none yet.
            Err(error) => self.line("not made", self.before.is_none(), &format!("{}: {error}", ebs_directory::PATH)),
        }
        if !self.config.gpus {
            self.record.gpus = None;
        } else if self.record.gpus.is_none() {
            // Devices are waited for once; the agent is about to start.
            match gpu::discover(&Programs::default(), &gpu::Places::default(), self.before.is_none()).await {
                Ok(count) => {
                    self.record.gpus = Some(count);
                    self.line("found", true, &format!("{count} GPUs"));
                }
                Err(error) => self.remark(&error),
            }
        }
    }

    async fn apparmor(&mut self) {
        match apparmor::load(&Programs::default()).await {
            Ok(()) => self.line("made", true, &format!("the AppArmor profile {}", apparmor::NAME)),
            Err(error) => self.remark(&error),
        }
    }
}
