//! Watches which network interfaces are on the host, and passes this on as events for the core.

use super::super::supervisor::PartResult;
use super::control_plane::Signals;
use crate::network::Watch;
use ecs_core::Event;
use ecs_core::model::with_causes;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Runs until `stop` is cancelled. All interfaces are read again when ECS announces some.
pub(crate) async fn watch(inbox: mpsc::Sender<Event>, signals: Arc<Signals>, stop: CancellationToken) -> PartResult {
    let mut watch = Watch::open().map_err(|error| with_causes(&error))?;
    let again = watch.request();
    let ask = async {
        loop {
            signals.attached.notified().await;
            again.notify_one();
        }
    };
    let pass_on = async {
        loop {
            let addresses = watch.next().await.map_err(|error| with_causes(&error))?;
            if inbox.send(Event::Interfaces(addresses)).await.is_err() {
                return Ok(()); // the core loop has ended
            }
        }
    };
    tokio::select! {
        () = ask => Ok(()),
        ended = pass_on => ended,
        () = stop.cancelled() => Ok(()),
    }
}
