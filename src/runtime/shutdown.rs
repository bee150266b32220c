//! Signals. SIGTERM and SIGINT stop the agent: it takes no more input, lets running operations end, commits, and closes; tasks
//! keep running. SIGHUP makes the agent read the levels of the log again. Signals without a meaning for the agent, which would
//! end the process by default, are caught and logged.

use crate::lane::{Lane, Settings};
use rustix::process::Signal;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// After a signal was logged, further ones of the same kind are not logged for this long.
const QUIET: Duration = Duration::from_secs(10);

/// Signals that would end the process although that is not intended: number, name, text for the log. Not included are SIGQUIT,
/// because it requests a dump; SIGPIPE, because Rust ignores it, and a line about it would be written where writing had raised
/// it; SIGXCPU, because it enforces a limit on CPU time; and the real-time signals, because no one sends them to a program that
/// does not expect them.
const HARMLESS: [(Signal, &str, &str); 8] = [
    (Signal::USR2, "SIGUSR2", "this agent does not use it"),
    (Signal::ALARM, "SIGALRM", "this agent does not use it"),
    (Signal::VTALARM, "SIGVTALRM", "this agent does not use it"),
    (Signal::PROF, "SIGPROF", "this agent does not use it"),
    (Signal::IO, "SIGIO", "this agent does not use it"),
    (Signal::POWER, "SIGPWR", "this agent does not use it"),
    (Signal::STKFLT, "SIGSTKFLT", "this agent does not use it"),
    (Signal::XFSZ, "SIGXFSZ", "a file has reached the limit on file sizes; the failed write is logged separately"),
];

/// Reading the configuration again takes milliseconds.
const READING: Settings = Settings { threads: 1, spare: 0, limit: Duration::from_secs(10) };

/// Catches the harmless signals. They are logged while the result lives, and never end the process again. SIGUSR1 is caught as
/// well, since the tasks that it dumps do not exist yet. To be called before anything that takes time. `hang_up` is what SIGHUP
/// does; it may read files. Signals that arrive while it runs count as one more.
pub fn catch_harmless_signals(hang_up: impl Fn() + Send + Sync + 'static) -> JoinSet<()> {
    let mut catching = JoinSet::new();
    match signal(SignalKind::hangup()) {
        Ok(mut signals) => {
            let (lane, hang_up) = (Lane::new("configuration", READING), Arc::new(hang_up));
            _ = catching.spawn(async move {
                while signals.recv().await.is_some() {
                    let hang_up = Arc::clone(&hang_up);
                    if let Err(error) = lane.run("the configuration", move || hang_up()).await {
                        tracing::warn!(%error, "SIGHUP: the levels of the log are not read yet");
                    }
                }
            });
        }
        Err(error) => tracing::warn!(%error, signal = "SIGHUP", "cannot be caught; it would end the agent"),
    }
    for (number, name, meaning) in HARMLESS {
        match signal(SignalKind::from_raw(number.as_raw())) {
            Ok(mut signals) => {
                _ = catching.spawn(async move {
                    while signals.recv().await.is_some() {
                        tracing::warn!(signal = name, "ignored: {meaning}");
                        tokio::time::sleep(QUIET).await;
                    }
                })
            }
            Err(error) => tracing::warn!(%error, signal = name, "cannot be caught; it would end the agent"),
        }
    }
    if let Err(error) = signal(SignalKind::user_defined1()) {
        tracing::warn!(%error, signal = "SIGUSR1", "cannot be caught; it would end the agent");
    }
    catching
}

/// SIGTERM and SIGINT, which stop the agent. Those that arrive while this exists are kept until somebody asks.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signals,
    interrupt: Signals,
}

impl StopSignals {
    /// Catches the signals from now on. To be called before anything that takes time: until then, SIGTERM ends the process with
    /// an exit code of its own, or does nothing if the process is the first one of a container.
    ///
    /// # Errors
    /// The signals cannot be caught.
    pub fn catch() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the first signal, and logs it.
    pub async fn first(&mut self) {
        let name = self.next().await;
        tracing::info!("Agent received termination signal: {name}; its tasks keep running");
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Cancels `stop` at the first signal, and returns at the second, which skips the grace period.
    pub(super) async fn stop(mut self, stop: CancellationToken) {
        self.first().await;
        stop.cancel();
        self.next().await;
    }
}
