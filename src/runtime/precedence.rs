//! The precedence of a thread that must answer at once: it is favoured by the kernel while it needs little of the processor.
//!
//! Owns the niceness of its thread. The system must allow it (`LimitNICE=` in the unit); otherwise the thread runs like all others.
//! Invariant: a thread that is kept busy, such as by a container that floods it, loses its precedence within about a second of its
//! next pause, so it never takes the processor from the tasks.

use rustix::process::{getpriority_process, setpriority_process};
use rustix::time::{ClockId, clock_gettime};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The niceness of a favoured thread.
const FAVOURED: i32 = -15;
/// The time over which the use of the processor is measured.
const WINDOW: Duration = Duration::from_secs(1);
/// The part of this time that a favoured thread may need.
const MAX_SHARE: f64 = 0.3;

/// The precedence of the thread that created it.
pub(crate) struct Precedence {
    /// The niceness without precedence.
    usual: i32,
    /// `None` if the system does not allow the thread to be favoured.
    watch: Mutex<Option<Watch>>,
}

/// What is known about the current window.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Watch {
    since: Instant,
    /// The processor time of the thread at that moment.
    used: Duration,
    is_favoured: bool,
}

impl Precedence {
    /// Favours this thread, if the system allows it.
    pub(crate) fn for_this_thread() -> Self {
        let usual = getpriority_process(None).unwrap_or_default();
        let is_allowed = usual > FAVOURED && setpriority_process(None, FAVOURED).is_ok();
        let watch = Watch { since: Instant::now(), used: used(), is_favoured: true };
        Self { usual, watch: Mutex::new(is_allowed.then_some(watch)) }
    }

    /// To be called from the same thread, at each of its pauses.
    pub(crate) fn pausing(&self) {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = *watch else { return };
        let now = Instant::now();
        if now.duration_since(last.since) < WINDOW {
            return;
        }
        let next = last.next(now, used());
        let niceness = if next.is_favoured { FAVOURED } else { self.usual };
        let is_set = next.is_favoured == last.is_favoured || setpriority_process(None, niceness).is_ok();
        *watch = is_set.then_some(next);
    }
}

impl Watch {
    /// The next window. `used`: the processor time of the thread at this moment.
    fn next(self, now: Instant, used: Duration) -> Self {
        let share = used.saturating_sub(self.used).as_secs_f64() / now.duration_since(self.since).as_secs_f64();
        Self { since: now, used, is_favoured: share <= MAX_SHARE }
    }
}

/// Makes this thread one without precedence, if a favoured thread has started it: threads inherit it.
pub(crate) fn renounce() {
    if getpriority_process(None) == Ok(FAVOURED) {
        let _allowed_to_all = setpriority_process(None, 0);
    }
}

/// The processor time that this thread has used.
fn used() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_thread_loses_its_precedence_until_it_is_quiet() {
        let start = Instant::now();
        let mut watch = Watch { since: start, used: Duration::ZERO, is_favoured: true };
        let (mut now, mut used) = (start, Duration::ZERO);
        for (passed, busy, wanted) in
            [(1000, 100, true), (1000, 300, true), (1000, 310, false), (5000, 5000, false), (1000, 299, true)]
        {
            (now, used) = (now + Duration::from_millis(passed), used + Duration::from_millis(busy));
            watch = watch.next(now, used);
            assert_eq!(watch, Watch { since: now, used, is_favoured: wanted }, "{busy} of {passed} ms");
        }
    }

    /// On a thread of its own, so that no other test runs with that niceness.
    #[test]
    fn a_flooded_thread_runs_like_all_others() {
        let flooded = || {
            let usual = getpriority_process(None).unwrap();
            let precedence = Precedence::for_this_thread();
            if precedence.watch.lock().unwrap().is_none() {
                return; // this user may not
            }
            assert_eq!(getpriority_process(None), Ok(FAVOURED));
            let began = used();
            while used() - began < 2 * WINDOW {
                std::hint::spin_loop();
            }
            // A loaded machine needs longer for that, so the share is set as it would be without other load.
            precedence.watch.lock().unwrap().as_mut().unwrap().since = Instant::now() - 2 * WINDOW;
            precedence.pausing();
            assert_eq!(getpriority_process(None), Ok(usual));
            precedence.watch.lock().unwrap().as_mut().unwrap().since -= WINDOW;
            precedence.pausing();
            assert_eq!(getpriority_process(None), Ok(FAVOURED), "it is quiet again");
            let started = std::thread::spawn(|| {
                renounce();
                getpriority_process(None)
            });
            assert_eq!(started.join().unwrap(), Ok(0));
        };
        std::thread::spawn(flooded).join().unwrap();
    }
}
