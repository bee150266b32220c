//! SIGUSR1: writes to the log what every task is and what it waits for. The reference dumps its goroutines; ours has none.

use super::supervisor::PartResult;
use crate::model::view::View;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Waits for the signal until told to stop.
pub(super) async fn on_signal(view: watch::Receiver<Arc<View>>, stop: CancellationToken) -> PartResult {
    let mut signal = signal(SignalKind::user_defined1()).map_err(|error| error.to_string())?;
    loop {
        tokio::select! {
            _ = signal.recv() => {
                let view = view.borrow().clone();
                write(&view);
            }
            () = stop.cancelled() => return Ok(()),
        }
    }
}

fn write(view: &View) {
    tracing::info!(tasks = view.tasks.len(), "state of all tasks, asked for by SIGUSR1");
    for task in &view.tasks {
        let (id, waits) = (task.arn.task_id(), task.waiting_for.as_deref().unwrap_or("nothing"));
        tracing::info!(task = id, family = task.family, known = %task.known, desired = %task.desired, waits_for = waits, "task");
        for container in &task.containers {
            let (name, known) = (&container.name, container.known);
            tracing::info!(task = id, container = %name, %known, exit = ?container.exit_code, health = ?container.health, "container");
        }
    }
}
