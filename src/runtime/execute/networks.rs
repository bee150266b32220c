//! Operations on the networks of tasks, and reports of attachments.

use super::edges::Edges;
use crate::ecs::report::{self, SubmitError};
use crate::lane::LaneError;
use crate::metrics::ReportOutcome;
use crate::network::NetworkError;
use ecs_core::Output;
use ecs_core::model::attachment::AttachmentChange;
use ecs_core::model::text::cleaned;
use ecs_core::model::{Failure, NetworkRequest, OpError};

/// The name of failures of networks.
const NAME: &str = "ContainerNetworkingError";

/// Sets up the network of a task.
pub(super) async fn set_up(edges: &Edges, request: &NetworkRequest) -> Result<Output, OpError> {
    let done = edges.network.set_up(request).await;
    // Compat: the beginning of the Go agent's reason, which operators search for.
    done.map_err(|error| failure("container resource provisioning: failed to setup network namespace", &error))?;
    Ok(Output::Nothing)
}

/// Tears down the network of a task.
pub(super) async fn tear_down(edges: &Edges, request: &NetworkRequest) -> Result<Output, OpError> {
    let done = edges.network.tear_down(request).await;
    done.map_err(|error| failure("failed to clean up the network namespace", &error))?;
    Ok(Output::Nothing)
}

fn failure(what: &str, error: &NetworkError) -> OpError {
    let text = cleaned(&format!("{what}: {error}"));
    match error {
        NetworkError::Step { .. } => Failure::permanent(NAME, text).into(),
        // The steps go on, so their outcome is not known.
        NetworkError::Hangs { .. } => OpError::Unknown(Failure::retryable(NAME, text)),
        NetworkError::Busy { .. } => Failure::busy(NAME, text).into(),
        NetworkError::Lane(LaneError::StillHangs { .. } | LaneError::Full { .. }) => Failure::busy(NAME, text).into(),
        NetworkError::Lane(_) => Failure::retryable(NAME, text).into(),
    }
}

/// Reports that the device of an attachment is there.
pub(super) async fn report(edges: &Edges, change: &AttachmentChange) -> Result<Output, OpError> {
    let submitted = report::submit_attachment(&edges.ecs, &edges.report, change).await;
    edges.metrics.report_ended(match &submitted {
        Ok(()) => ReportOutcome::Accepted,
        Err(SubmitError::Rejected(_)) => ReportOutcome::Invalid,
        Err(SubmitError::Retryable(_)) => ReportOutcome::Failed,
    });
    submitted?;
    Ok(Output::Nothing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::StepFailure;
    use ecs_core::model::FailureKind;
    use std::time::Duration;

    #[test]
    fn a_failure_names_the_step_and_what_follows() {
        let step = StepFailure {
            step: "give eth0 the address 10.0.1.100/24".to_owned(),
            cause: "File exists (EEXIST)".to_owned(),
        };
        let error = failure("failed", &NetworkError::Step { failure: step, not_undone: Vec::new() });
        let OpError::Failed(found) = &error else { panic!("{error:?}") };
        let text = "ContainerNetworkingError: failed: give eth0 the address 10.0.1.100/24: File exists (EEXIST)";
        assert_eq!(found.to_string(), text);
        let hangs = NetworkError::Hangs { step: "x".to_owned(), since: Duration::from_secs(10) };
        assert!(matches!(failure("failed", &hangs), OpError::Unknown(_)));
        // What was not attempted does not count as an attempt.
        let since = Duration::from_secs(10);
        let not_begun = [
            NetworkError::Busy { step: "x".to_owned(), since },
            NetworkError::Lane(LaneError::StillHangs { what: "x".to_owned(), since }),
        ];
        for error in not_begun {
            let OpError::Failed(found) = failure("failed", &error) else { panic!("{error}") };
            assert_eq!(found.kind, FailureKind::Busy, "{found}");
        }
    }
}
