//! Takes the settings of the host back.

use super::report::{Report, is_service};
use crate::config::Args;
use crate::host::firewall::{self, Firewall, FirewallError};
use crate::host::program::Programs;
use crate::host::setup_record::Place;
use crate::host::{apparmor, ebs_directory};
use ecs_core::model::with_causes;

/// Takes everything back. With `-service`, rules that are left to others stay.
///
/// # Errors
/// This process is not privileged. Everything else that fails is in the report.
pub(super) async fn remove(args: &Args) -> Result<Report, FirewallError> {
    firewall::check_right()?;
    let mut report = Report::default();
    let place = Place::default();
    let _lock = place.lock().await.map_err(|error| report.remarks.push(error.to_string()));
    let is_left_to_others = is_service(args) && place.record().is_ok_and(|record| record.rules.is_none());
    if !is_left_to_others {
        match Firewall::new(Programs::default()).undo().await {
            Ok(()) => report.text.push_str("The rules of the agent are removed.\n"),
            Err(error) => report.errors.push(with_causes(&error)),
        }
    }
    ebs_directory::remove_if_empty();
    if args.apparmor
        && let Err(error) = apparmor::unload(&Programs::default()).await
    {
        report.remarks.push(with_causes(&error));
    }
    // If something is left, the record goes all the same: nobody keeps the rules any more.
    report.remarks.extend(place.remove().err().map(|error| error.to_string()));
    Ok(report)
}
