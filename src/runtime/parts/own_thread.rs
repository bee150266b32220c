//! Work with a thread and a runtime of its own.
//!
//! The threads of the main runtime may be busy for some milliseconds when many tasks start: with a turn of the core, with a disk, with
//! answers of Docker. What must answer at once does not wait for that here. The kernel favours its thread (see [`precedence`]): while
//! many tasks start, dozens of threads of Docker want the processor too, and a fair share of it would be milliseconds late.

use crate::runtime::precedence::{self, Precedence};
use crate::runtime::supervisor::PartResult;
use std::sync::{Arc, OnceLock};
use tokio::sync::oneshot;

/// The threads for name resolution.
const MAX_BLOCKING: usize = 2;

/// Runs this until it ends, or until the caller is dropped.
pub(super) async fn run(name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> PartResult {
    let (mut done, ended) = oneshot::channel::<()>();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let precedence = Arc::new(OnceLock::<Precedence>::new());
    let pausing = precedence.clone();
    runtime.on_thread_park(move || {
        if let Some(precedence) = pausing.get() {
            precedence.pausing();
        }
    });
    runtime.on_thread_start(precedence::renounce); // those for name resolution
    let runtime = runtime.enable_all().max_blocking_threads(MAX_BLOCKING).build();
    let runtime = runtime.map_err(|error| format!("it has no event loop: {error}"))?;
    let on_thread = move || {
        precedence.get_or_init(Precedence::for_this_thread);
        runtime.block_on(async {
            tokio::select! {
                () = work => {}
                () = done.closed() => {}
            }
        });
        // What still blocks, such as a name that is looked up, must not hold up the end.
        runtime.shutdown_background();
        let _ = done.send(());
    };
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(on_thread);
    started.map_err(|error| format!("no thread can be started: {error}"))?;
    ended.await.map_err(|_| "it panicked".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::task::JoinSet;

    #[tokio::test]
    async fn work_ends_by_itself_by_a_panic_or_with_its_caller() {
        assert_eq!(run("fine", tokio::time::sleep(Duration::from_millis(1))).await, Ok(()));
        assert_eq!(run("broken", async { panic!("broken") }).await, Err("it panicked".to_owned()));
        let (alive, end) = oneshot::channel::<()>();
        let forever = async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        };
        let limited = tokio::time::timeout(Duration::from_millis(50), run("endless", forever));
        assert!(limited.await.is_err());
        let ended = tokio::time::timeout(Duration::from_secs(30), end).await;
        assert!(ended.expect("it ends").is_err(), "it is dropped");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn work_goes_on_while_the_caller_is_busy() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let mut work = JoinSet::new();
        work.spawn(run("busy", async move { sender.send(()).expect("it is awaited") }));
        tokio::task::yield_now().await;
        receiver.recv_timeout(Duration::from_secs(30)).expect("it runs while this thread waits");
        assert_eq!(work.join_next().await.expect("it was started").expect("it ends"), Ok(()));
    }
}
