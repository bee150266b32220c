//! SIGUSR1: logs the state of every task, and what it waits for. The Go agent dumps its goroutines instead.

use crate::runtime::execute::pulls::Pulls;
use crate::runtime::supervisor::PartResult;
use ecs_core::model::ContainerName;
use ecs_core::model::view::View;
use ecs_core::model::waiting::Waiting;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Logs the tasks at each signal, until `stop` is cancelled.
pub(crate) async fn on_signal(view: watch::Receiver<Arc<View>>, pulls: Pulls, stop: CancellationToken) -> PartResult {
    let mut signal = signal(SignalKind::user_defined1()).map_err(|error| error.to_string())?;
    loop {
        tokio::select! {
            _ = signal.recv() => {
                let view = view.borrow().clone();
                write(&view, &pulls);
            }
            () = stop.cancelled() => return Ok(()),
        }
    }
}

fn write(view: &View, pulls: &Pulls) {
    let now = pulls.now();
    tracing::info!(tasks = view.tasks.len(), "State of all tasks, requested by SIGUSR1");
    for task in &view.tasks {
        let id = task.arn.task_id();
        tracing::info!(
            task = id,
            family = task.family,
            knownStatus = %task.known,
            desiredStatus = %task.desired,
            "State of a task"
        );
        for container in &task.containers {
            let (name, known, health) = (&container.name, container.known, container.health);
            tracing::info!(
                task = id,
                container = %name,
                containerKnownStatus = %known,
                containerExitCode = container.exit_code,
                %health,
                "State of a container"
            );
        }
        for Waiting { container, blocker, since } in &task.waits {
            let progress = blocker.op().and_then(|op| pulls.progress(op)).map(|progress| progress.describe(now));
            let (container, age_s) = (container.as_ref().map(ContainerName::as_str), now.since(*since).0 / 1000);
            tracing::info!(task = id, container, waits_for = %blocker, age_s, progress, "A step waits");
        }
    }
}
