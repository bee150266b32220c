//! From the threads that log to the one that writes.
//!
//! Owns the lines that are not written yet. Invariants: adding a line waits for nothing but a short lock; the lines hold at most
//! [`MAX_BYTES`]; when there are more, the oldest go, and how many went is written in their place.

use super::line::{Form, Line, OWN_TARGET};
use super::repeats::{LeftOut, Repeats, hash};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tracing::Level;

/// The most bytes of lines that wait.
pub const MAX_BYTES: usize = 512 * 1024;
/// The most lines that wait.
pub const MAX_LINES: usize = 4096;
/// So much is handed to the system at a time.
const BATCH: usize = 32 * 1024;
/// Between two attempts when the reader takes nothing and the system does not wait for it.
const PAUSE: Duration = Duration::from_millis(20);
/// Enough for writing and formatting.
const STACK: usize = 128 * 1024;

/// Lines on their way to whoever reads the log.
#[derive(Debug)]
pub struct Queue {
    form: Form,
    inner: Mutex<Inner>,
    /// There is something to write, or it is time to end.
    work: Condvar,
    /// Everything is written.
    done: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    lines: VecDeque<String>,
    bytes: usize,
    /// Lines that went for want of room, or could not be written.
    dropped: u64,
    repeats: Repeats,
    is_writing: bool,
    is_closing: bool,
    /// There is a writer, so waiting for it makes sense.
    has_writer: bool,
}

impl Queue {
    /// An empty queue, without a writer.
    pub fn new(form: Form) -> Self {
        Self { form, inner: Mutex::default(), work: Condvar::new(), done: Condvar::new() }
    }

    /// Starts the one thread that writes.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn write_to(self: &Arc<Self>, out: impl Write + Send + 'static) -> io::Result<()> {
        let queue = self.clone();
        self.lock().has_writer = true;
        let started = std::thread::Builder::new()
            .name("log".to_owned())
            .stack_size(STACK)
            .spawn(move || Writer { queue, out, is_torn: false }.run());
        if started.is_err() {
            self.lock().has_writer = false;
        }
        started.map(drop)
    }

    /// Adds a line, unless its place in the program has logged too much within this second. Never waits for the writer.
    pub fn push(&self, place: u64, line: Line, now: Instant) {
        let same = hash(&line.content());
        let mut inner = self.lock();
        if inner.repeats.takes(place, same, now, &line) {
            inner.push(line.finish());
        }
        self.work.notify_one();
    }

    /// Waits until everything is written, at most that long; false if something is left.
    pub fn flush(&self, limit: Duration) -> bool {
        let inner = self.lock();
        let is_busy = |inner: &mut Inner| inner.has_writer && (inner.is_writing || !inner.lines.is_empty());
        let (_inner, waited) =
            self.done.wait_timeout_while(inner, limit, is_busy).unwrap_or_else(PoisonError::into_inner);
        !waited.timed_out()
    }

    /// The same as [`Queue::flush`], with what was left out until now; lines of later are not written.
    pub fn close(&self, limit: Duration) -> bool {
        self.lock().is_closing = true;
        self.work.notify_one();
        self.flush(limit)
    }

    /// Waits for something to write. `None` at the end.
    fn next(&self) -> Option<Batch> {
        let mut inner = self.lock();
        inner.is_writing = false;
        loop {
            let at_end = inner.is_closing.then_some(None);
            for left_out in inner.repeats.ended(at_end.unwrap_or_else(|| Some(Instant::now()))) {
                let line = self.left_out(left_out);
                inner.push(line);
            }
            if !inner.lines.is_empty() {
                inner.is_writing = true;
                let dropped = std::mem::take(&mut inner.dropped);
                let mut bytes = if dropped == 0 { Vec::new() } else { self.dropped(dropped).into_bytes() };
                let note = bytes.len();
                inner.take(&mut bytes);
                return Some(Batch { bytes, note, dropped });
            }
            self.done.notify_all();
            if inner.is_closing {
                inner.has_writer = false;
                return None;
            }
            inner = match inner.repeats.next_end() {
                Some(end) => {
                    let limit = end.saturating_duration_since(Instant::now());
                    self.work.wait_timeout(inner, limit).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.work.wait(inner).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn dropped(&self, count: u64) -> String {
        let mut line = Line::new(self.form, SystemTime::now(), Level::WARN, OWN_TARGET);
        line.message("lines of the log are missing here: nobody read them fast enough, or they could not be written");
        line.number("lines", count);
        line.finish()
    }

    fn left_out(&self, what: LeftOut) -> String {
        let mut line = Line::new(self.form, SystemTime::now(), what.level, &what.target);
        line.message("repeated lines were left out");
        line.number("lines", what.count);
        line.text("like", format_args!("{:?}", what.example));
        line.finish()
    }

    /// The lines that are not written yet.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> Vec<String> {
        self.lock().lines.iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn push(&mut self, line: String) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.bytes > MAX_BYTES || self.lines.len() > MAX_LINES {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= oldest.len();
            self.dropped += 1;
        }
    }

    /// The next lines, up to a batch.
    fn take(&mut self, batch: &mut Vec<u8>) {
        while batch.len() < BATCH {
            let Some(line) = self.lines.pop_front() else { break };
            self.bytes -= line.len();
            batch.extend_from_slice(line.as_bytes());
        }
        if self.lines.is_empty() {
            // What a burst took is given back.
            self.lines = VecDeque::new();
        }
    }
}

/// What is written at a time.
struct Batch {
    bytes: Vec<u8>,
    /// How many of the bytes are the line that says how many lines were dropped.
    note: usize,
    /// How many lines were dropped before these.
    dropped: u64,
}

/// The thread that writes.
struct Writer<W> {
    queue: Arc<Queue>,
    out: W,
    /// The last line could only be written in part.
    is_torn: bool,
}

impl<W: Write> Writer<W> {
    fn run(mut self) {
        while let Some(batch) = self.queue.next() {
            // A full disk or a closed pipe is tried again with the next lines, which then say what is missing.
            let lost = self.write(&batch);
            self.queue.lock().dropped += lost;
        }
    }

    /// Writes a batch, however long that takes. How many lines could not be written, in whole or in part.
    fn write(&mut self, batch: &Batch) -> u64 {
        if self.is_torn && self.write_all(b"\n").is_ok() {
            self.is_torn = false;
        }
        let Err(written) = self.write_all(&batch.bytes) else { return 0 };
        let (done, left) = batch.bytes.split_at(written);
        self.is_torn |= done.last().is_some_and(|last| *last != b'\n');
        let lost = left.iter().filter(|byte| **byte == b'\n').count();
        let lost = u64::try_from(lost).unwrap_or(u64::MAX);
        // The note itself is no line that anybody misses; what it says is still to be said.
        if written < batch.note { lost - 1 + batch.dropped } else { lost }
    }

    /// Like [`Write::write_all`], and waits also where the system does not. The error is how much was written.
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut written = 0;
        while written < bytes.len() {
            match self.out.write(&bytes[written..]) {
                Ok(0) => return Err(written),
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
                Err(_) => return Err(written),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const LIMIT: Duration = Duration::from_secs(10);

    /// A reader that takes what it is allowed to, and fails or waits otherwise.
    #[derive(Clone, Default)]
    struct Pipe(Arc<(Mutex<State>, Condvar)>);

    #[derive(Default)]
    struct State {
        text: Vec<u8>,
        /// What happens with the next bytes; waits when there is nothing.
        answers: VecDeque<Answer>,
        /// Takes everything.
        is_open: bool,
    }

    #[derive(Clone, Copy)]
    enum Answer {
        Take(usize),
        Fail(ErrorKind),
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (state, changed) = &*self.0;
            let is_stuck = |state: &mut State| !state.is_open && state.answers.is_empty();
            let mut state = changed.wait_while(state.lock().unwrap(), is_stuck).unwrap();
            let count = match state.answers.pop_front() {
                Some(Answer::Fail(kind)) => return Err(kind.into()),
                Some(Answer::Take(count)) => count.min(bytes.len()),
                None => bytes.len(),
            };
            state.text.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Pipe {
        fn set(&self, change: impl FnOnce(&mut State)) {
            change(&mut self.0.0.lock().unwrap());
            self.0.1.notify_all();
        }

        fn lines(&self) -> Vec<String> {
            let text = String::from_utf8(self.0.0.lock().unwrap().text.clone()).unwrap();
            text.lines().map(|line| line.split_once(": ").map_or(line, |(_, rest)| rest).to_owned()).collect()
        }
    }

    fn queue(pipe: &Pipe) -> Arc<Queue> {
        let queue = Arc::new(Queue::new(Form::Text));
        queue.write_to(pipe.clone()).unwrap();
        queue
    }

    fn say(queue: &Queue, text: &str) {
        let mut line = Line::new(Form::Text, SystemTime::now(), Level::INFO, "test");
        line.message(text);
        queue.push(hash(&text), line, Instant::now());
    }

    #[test]
    fn lines_come_out_in_order_and_the_end_waits_for_them() {
        let pipe = Pipe::default();
        pipe.set(|state| state.is_open = true);
        let queue = queue(&pipe);
        (0..100).for_each(|n| say(&queue, &format!("line {n}")));
        assert!(queue.close(LIMIT));
        assert_eq!(pipe.lines(), (0..100).map(|n| format!("line {n}")).collect::<Vec<_>>());
    }

    #[test]
    fn a_reader_that_stops_stops_nobody_and_learns_what_is_missing() {
        let pipe = Pipe::default();
        let queue = queue(&pipe);
        say(&queue, "first");
        let (sender, ended) = mpsc::channel();
        let busy = queue.clone();
        let writer = std::thread::spawn(move || {
            (0..9000).for_each(|n| say(&busy, &format!("{n} {}", "x".repeat(200))));
            sender.send(()).unwrap();
        });
        ended.recv_timeout(LIMIT).expect("writing a line waits for nobody");
        writer.join().unwrap();
        let start = Instant::now();
        assert!(!queue.flush(Duration::from_millis(100)), "there are lines left");
        assert!(start.elapsed() < Duration::from_secs(5));
        assert!(queue.lock().bytes <= MAX_BYTES && queue.lock().lines.len() <= MAX_LINES);
        pipe.set(|state| state.is_open = true);
        assert!(queue.close(LIMIT));
        let lines = pipe.lines();
        let kept = lines.iter().filter(|line| line.ends_with('x')).count();
        let note = lines.iter().position(|line| line.starts_with("lines of the log are missing here")).unwrap();
        assert!(note <= 160, "the note is where the gap is: {note}");
        assert!(lines[note].ends_with(&format!("lines={}", 9000 - kept)), "{}", lines[note]);
        assert!(lines.last().unwrap().starts_with("8999 "), "the newest lines are kept");
        assert_eq!(lines[0], "first");
    }

    #[test]
    fn what_could_not_be_written_is_counted() {
        let pipe = Pipe::default();
        let queue = queue(&pipe);
        // A line is torn in the middle, another is lost; so is the note about them. The reader's "wait a moment" costs nothing.
        let answers = [
            Answer::Take(20),
            Answer::Fail(ErrorKind::StorageFull),
            Answer::Fail(ErrorKind::BrokenPipe),
            Answer::Fail(ErrorKind::BrokenPipe),
        ];
        for text in ["torn", "lost"] {
            say(&queue, text);
            pipe.set(|state| state.answers.extend(if text == "torn" { &answers[..2] } else { &answers[2..] }));
            assert!(queue.flush(LIMIT));
        }
        pipe.set(|state| {
            state.answers.extend([Answer::Fail(ErrorKind::WouldBlock), Answer::Fail(ErrorKind::Interrupted)]);
            state.is_open = true;
        });
        say(&queue, "there");
        assert!(queue.close(LIMIT));
        let lines = pipe.lines();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[1].ends_with("lines=2"), "{lines:?}");
        assert_eq!(lines[2], "there");
    }

    #[test]
    fn repeats_are_counted_without_another_line() {
        let pipe = Pipe::default();
        pipe.set(|state| state.is_open = true);
        let queue = queue(&pipe);
        let text = "no such task";
        (0..268).for_each(|_| say(&queue, text));
        let start = Instant::now();
        while pipe.lines().len() < 6 && start.elapsed() < LIMIT {
            std::thread::sleep(PAUSE);
        }
        assert_eq!(pipe.lines()[5], format!("repeated lines were left out lines=263 like=\"{text}\""));
        (0..10).for_each(|_| say(&queue, text));
        assert!(queue.close(LIMIT));
        assert!(pipe.lines().last().unwrap().contains("lines=5"), "the end waits for no second");
    }

    #[test]
    fn without_a_writer_nobody_waits() {
        let queue = Queue::new(Form::Json);
        say(&queue, "into the void");
        assert!(queue.close(LIMIT));
    }
}
