//! From a signal to the end: stop taking input, let what is in flight end, commit, close. Tasks keep running.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancels `stop` at the first SIGTERM or SIGINT; returns at the second, which skips the grace.
///
/// # Errors
/// The system does not let signals be caught.
pub(super) async fn on_signals(stop: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    for count in 1.. {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        if count > 1 {
            break;
        }
        tracing::info!(signal = name, "stopping; tasks keep running");
        stop.cancel();
    }
    Ok(())
}
