//! Passes on what the container engine does, as events for the core.

use super::super::execute::edges::Edges;
use super::super::supervisor::PartResult;
use super::firewall::Rules;
use crate::docker;
use ecs_core::Event;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// Capacity of the queue of Docker's notices that are not yet passed on to the core loop.
const NOTICES: usize = 256;

/// Runs until `stop` is cancelled. `reopened` and the firewall's rules are notified when events may have been missed, because the
/// stream was opened again.
pub(crate) async fn watch(
    edges: Arc<Edges>,
    inbox: mpsc::Sender<Event>,
    reopened: Arc<Notify>,
    rules: Arc<Rules>,
    stop: CancellationToken,
) -> PartResult {
    let (sender, mut notices) = mpsc::channel(NOTICES);
    let pass_on = async {
        while let Some(notice) = notices.recv().await {
            let event = match notice {
                docker::Notice::Seen(observation) => Event::Observed(observation),
                docker::Notice::Removed { task, container, runtime_id, exit_code } => {
                    Event::Removed { task, container, runtime_id, exit_code }
                }
                docker::Notice::EventsMissed => {
                    reopened.notify_one();
                    rules.docker_restarted();
                    Event::EventsMissed
                }
            };
            if inbox.send(event).await.is_err() {
                break; // the core loop has ended
            }
        }
    };
    tokio::select! {
        () = edges.docker.watch(sender) => Err("the stream of events has ended".to_owned()),
        () = pass_on => Ok(()),
        () = stop.cancelled() => Ok(()),
    }
}
