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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    /// A part that was started again sends all interfaces, though nothing has changed; and so does a new announcement.
    #[tokio::test]
    async fn a_restarted_watch_sends_everything_again() {
        let signals = Arc::new(Signals::default());
        let (inbox, mut events) = mpsc::channel(4);
        for _ in 0..2 {
            let stop = CancellationToken::new();
            let part = watch(inbox.clone(), Arc::clone(&signals), stop.clone());
            let looks = async {
                for is_asked in [false, true] {
                    if is_asked {
                        signals.attached.notify_one();
                    }
                    let event = timeout(Duration::from_secs(20), events.recv()).await.unwrap();
                    assert!(matches!(event, Some(Event::Interfaces(_))), "{event:?}");
                }
                stop.cancel();
            };
            let (ended, ()) = tokio::join!(part, looks);
            ended.unwrap();
            // Links of other programs come and go meanwhile.
            while events.try_recv().is_ok() {}
        }
    }
}
