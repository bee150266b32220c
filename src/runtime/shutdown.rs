//! From a signal to the end: stop taking input, let what is in flight end, commit, close. Tasks keep running. Signals that mean nothing to
//! the agent, and would end a process that does not know them, are taken and logged.

use rustix::process::Signal;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// After a line about a signal, further ones of it are not logged for so long.
const QUIET: Duration = Duration::from_secs(10);

/// What would end the process and is not meant to, and what to say about it. SIGQUIT is not among them: a dump is asked for with it.
/// Neither is SIGPIPE, which Rust ignores: a line about it would be written where writing raised it.
/// Nor are SIGXCPU, which ends what a limit on its CPU time was set for, and the real-time signals, which nobody sends to a program
/// that does not ask for them.
const HARMLESS: [(Signal, &str, &str); 9] = [
    (Signal::HUP, "SIGHUP", "the configuration is read at the start only; restart the agent to apply a change"),
    (Signal::USR2, "SIGUSR2", "it means nothing to this agent"),
    (Signal::ALARM, "SIGALRM", "it means nothing to this agent"),
    (Signal::VTALARM, "SIGVTALRM", "it means nothing to this agent"),
    (Signal::PROF, "SIGPROF", "it means nothing to this agent"),
    (Signal::IO, "SIGIO", "it means nothing to this agent"),
    (Signal::POWER, "SIGPWR", "it means nothing to this agent"),
    (Signal::STKFLT, "SIGSTKFLT", "it means nothing to this agent"),
    (
        Signal::XFSZ,
        "SIGXFSZ",
        "a file may not grow further (the limit on the size of files); what could not be written is said elsewhere",
    ),
];

/// Takes the harmless signals for as long as the result lives, and keeps them from ending the process for ever. SIGUSR1 is among these
/// already, before there is a state of tasks to write. To be called before anything that takes time.
pub fn take_harmless_signals() -> JoinSet<()> {
    let mut taking = JoinSet::new();
    for (number, name, meaning) in HARMLESS {
        match signal(SignalKind::from_raw(number.as_raw())) {
            Ok(mut signals) => {
                _ = taking.spawn(async move {
                    while signals.recv().await.is_some() {
                        tracing::warn!(signal = name, "ignored: {meaning}");
                        tokio::time::sleep(QUIET).await;
                    }
                })
            }
            Err(error) => tracing::warn!(%error, signal = name, "cannot be taken; it would end the agent"),
        }
    }
    if let Err(error) = signal(SignalKind::user_defined1()) {
        tracing::warn!(%error, signal = "SIGUSR1", "cannot be taken; it would end the agent");
    }
    taking
}

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
