//! The queue between the threads that log and the thread that writes.
//!
//! Owns the lines that are not written yet. Invariants: adding a line takes a short lock and waits for nothing else; the queue
//! holds at most [`MAX_BYTES`]; when it is full, the oldest lines are dropped, and their number is written in their place.

use super::line::{Form, Line, OWN_TARGET, hash};
use super::repeats::{LeftOut, Repeats};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tracing::Level;

/// Upper limit of the waiting lines, in bytes.
pub const MAX_BYTES: usize = 512 * 1024;
/// Upper limit of the number of waiting lines.
pub const MAX_LINES: usize = 4096;
/// Size of one write, in bytes; the last line may exceed it.
const BATCH: usize = 32 * 1024;
/// Pause between attempts when the output does not block and its reader is too slow.
const PAUSE: Duration = Duration::from_millis(20);
/// Stack of the writing thread, in bytes: enough for formatting and writing.
const STACK: usize = 128 * 1024;

/// The lines that wait for the writing thread.
#[derive(Debug)]
pub struct Queue {
    form: Form,
    /// Each line begins with its priority, for the journal.
    has_priorities: bool,
    inner: Mutex<Inner>,
    /// Signals that there is something to write, or that the queue is closing.
    work: Condvar,
    /// Signals that everything is written.
    done: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    lines: VecDeque<String>,
    bytes: usize,
    /// Number of lines that were dropped because the queue was full, or that could not be written.
    dropped: u64,
    /// Number of all lines that were ever dropped.
    dropped_so_far: u64,
    repeats: Repeats,
    is_writing: bool,
    is_closing: bool,
    /// There is a writing thread, so waiting for it makes sense.
    has_writer: bool,
}

impl Queue {
    /// An empty queue without a writing thread.
    pub fn new(form: Form, has_priorities: bool) -> Self {
        Self { form, has_priorities, inner: Mutex::default(), work: Condvar::new(), done: Condvar::new() }
    }

    /// Starts the writing thread.
    ///
    /// # Errors
    /// The system cannot start a thread.
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

    /// Adds a line, unless its place in the program has logged too much within this second. Never waits for the writing thread.
    pub fn push(&self, place: u64, line: Line, now: Instant) {
        let same = hash(&line.content());
        let mut inner = self.lock();
        if inner.repeats.admits(place, same, now, &line) {
            inner.push(self.text(line));
        }
        self.work.notify_one();
    }

    /// Waits until everything is written, for at most `limit`. Returns false if something is left.
    pub fn flush(&self, limit: Duration) -> bool {
        self.wait_while(limit, |inner| inner.has_writer && (inner.is_writing || !inner.lines.is_empty()))
    }

    /// Returns false if the condition still holds at the limit.
    fn wait_while(&self, limit: Duration, mut condition: impl FnMut(&Inner) -> bool) -> bool {
        let inner = self.lock();
        let waited = self.done.wait_timeout_while(inner, limit, |inner| condition(inner));
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Like [`Queue::flush`], but also writes the counts of the lines left out so far. Lines that are added later are not
    /// written.
    pub fn close(&self, limit: Duration) -> bool {
        self.begin_close();
        // The writing thread adds the counts before it ends.
        self.wait_while(limit, |inner| inner.has_writer)
    }

    /// Like [`Queue::close`], without waiting.
    pub fn begin_close(&self) {
        self.lock().is_closing = true;
        self.work.notify_one();
    }

    /// Waits for something to write; `None` when the queue is closed and empty.
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

    /// The line as it is written.
    fn text(&self, line: Line) -> String {
        if !self.has_priorities {
            return line.finish();
        }
        // The numbers of syslog.
        let priority = match line.level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        format!("<{priority}>{}", line.finish())
    }

    fn dropped(&self, count: u64) -> String {
        let mut line = Line::new(self.form, SystemTime::now(), Level::WARN, OWN_TARGET);
        line.message("lines of the log are missing here: they were not read fast enough, or could not be written");
        line.number("lines", count);
        self.text(line)
    }

    fn left_out(&self, what: LeftOut) -> String {
        let mut line = Line::new(self.form, SystemTime::now(), what.level, &what.target);
        line.message("repeated lines were left out");
        line.number("lines", what.count);
        line.text("like", what.example);
        self.text(line)
    }

    /// Number of lines that are not written yet, and of all that were dropped.
    pub fn depth(&self) -> (usize, u64) {
        let inner = self.lock();
        (inner.lines.len(), inner.dropped_so_far)
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
            self.dropped_so_far += 1;
        }
    }

    /// Moves the next lines to the batch, until it is full.
    fn take(&mut self, batch: &mut Vec<u8>) {
        while batch.len() < BATCH {
            let Some(line) = self.lines.pop_front() else { break };
            self.bytes -= line.len();
            batch.extend_from_slice(line.as_bytes());
        }
        if self.lines.is_empty() {
            // Releases the memory of a burst.
            self.lines = VecDeque::new();
        }
    }
}

/// The lines of one write.
struct Batch {
    bytes: Vec<u8>,
    /// Length, in bytes, of the first line, which reports the number of dropped lines; 0 if none were dropped.
    note: usize,
    /// Number of lines that were dropped before these.
    dropped: u64,
}

/// What of a batch was not written.
#[derive(Default)]
struct Lost {
    lines: u64,
    /// Number of earlier lines whose loss the note at the beginning of the batch reports.
    unreported: u64,
}

/// The writing thread.
struct Writer<W> {
    queue: Arc<Queue>,
    out: W,
    /// The last line was written only in part.
    is_torn: bool,
}

impl<W: Write> Writer<W> {
    fn run(mut self) {
        while let Some(batch) = self.queue.next() {
            // After a full disk or a closed pipe, the next lines are tried as usual; a note before them counts the missing ones.
            let lost = self.write(&batch);
            let mut inner = self.queue.lock();
            inner.dropped += lost.lines + lost.unreported;
            inner.dropped_so_far += lost.lines;
        }
    }

    /// Writes a batch, however long that takes. Returns what could not be written completely.
    fn write(&mut self, batch: &Batch) -> Lost {
        if self.is_torn && self.write_all(b"\n").is_ok() {
            self.is_torn = false;
        }
        let Err(written) = self.write_all(&batch.bytes) else { return Lost::default() };
        let (done, left) = batch.bytes.split_at(written);
        self.is_torn |= done.last().is_some_and(|last| *last != b'\n');
        let lost = left.iter().filter(|byte| **byte == b'\n').count();
        let lost = u64::try_from(lost).unwrap_or(u64::MAX);
        // The note itself does not count as a missing line; the number that it reports must still be reported.
        match written < batch.note {
            true => Lost { lines: lost - 1, unreported: batch.dropped },
            false => Lost { lines: lost, unreported: 0 },
        }
    }

    /// Like [`Write::write_all`], but also waits if `out` does not block. The error is the number of bytes written.
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

    /// An output that follows a script: it takes some bytes, fails, or blocks.
    #[derive(Clone, Default)]
    struct Pipe(Arc<(Mutex<State>, Condvar)>);

    #[derive(Default)]
    struct State {
        text: Vec<u8>,
        /// The results of the next writes. Without any, a write blocks.
        answers: VecDeque<Answer>,
        /// Every write succeeds.
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
            text.lines().map(content).collect()
        }
    }

    /// The message, and the fields between it and the module.
    fn content(line: &str) -> String {
        let Some((_, rest)) = line.split_once(" msg=\"") else { return line.to_owned() };
        let (message, fields) = rest.split_once('"').unwrap_or((rest, ""));
        let fields = fields.rsplit_once(" module=").map_or(fields, |(fields, _)| fields);
        format!("{message}{fields}")
    }

    fn queue(pipe: &Pipe) -> Arc<Queue> {
        let queue = Arc::new(Queue::new(Form::Logfmt, false));
        queue.write_to(pipe.clone()).unwrap();
        queue
    }

    fn log(queue: &Queue, text: &str) {
        log_at(queue, text, Instant::now());
    }

    fn log_at(queue: &Queue, text: &str, now: Instant) {
        let mut line = Line::new(Form::Logfmt, SystemTime::now(), Level::INFO, "test");
        line.message(text);
        queue.push(hash(&text), line, now);
    }

    #[test]
    fn lines_are_written_in_order_and_closing_waits_for_them() {
        let pipe = Pipe::default();
        pipe.set(|state| state.is_open = true);
        let queue = queue(&pipe);
        (0..100).for_each(|n| log(&queue, &format!("line {n}")));
        assert!(queue.close(LIMIT));
        assert_eq!(pipe.lines(), (0..100).map(|n| format!("line {n}")).collect::<Vec<_>>());
    }

    #[test]
    fn a_stopped_reader_delays_no_thread_and_gets_the_count() {
        let pipe = Pipe::default();
        let queue = queue(&pipe);
        log(&queue, "first");
        let (sender, ended) = mpsc::channel();
        let busy = queue.clone();
        let writer = std::thread::spawn(move || {
            (0..9000).for_each(|n| log(&busy, &format!("{n} {}", "x".repeat(200))));
            sender.send(()).unwrap();
        });
        ended.recv_timeout(LIMIT).expect("adding a line does not wait for the reader");
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
    fn lines_that_cannot_be_written_are_counted() {
        let pipe = Pipe::default();
        let queue = queue(&pipe);
        // One line is cut in the middle, another is lost, and so is the note about them. `WouldBlock` and `Interrupted` lose
        // nothing.
        let answers = [
            Answer::Take(20),
            Answer::Fail(ErrorKind::StorageFull),
            Answer::Fail(ErrorKind::BrokenPipe),
            Answer::Fail(ErrorKind::BrokenPipe),
        ];
        for text in ["torn", "lost"] {
            log(&queue, text);
            pipe.set(|state| state.answers.extend(if text == "torn" { &answers[..2] } else { &answers[2..] }));
            assert!(queue.flush(LIMIT));
        }
        pipe.set(|state| {
            state.answers.extend([Answer::Fail(ErrorKind::WouldBlock), Answer::Fail(ErrorKind::Interrupted)]);
            state.is_open = true;
        });
        log(&queue, "there");
        assert!(queue.close(LIMIT));
        let lines = pipe.lines();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[1].ends_with("lines=2"), "{lines:?}");
        assert_eq!(lines[2], "there");
    }

    #[test]
    fn repeats_are_counted_even_if_no_line_follows() {
        let pipe = Pipe::default();
        let queue = queue(&pipe);
        let until = |what: &str, is_so: &dyn Fn() -> bool| {
            let start = Instant::now();
            while !is_so() {
                assert!(start.elapsed() < LIMIT, "{what}");
                std::thread::sleep(PAUSE);
            }
        };
        // While the writing thread is stuck with another line, it ends no second, however long the loop takes.
        log(&queue, "first");
        until("the first line is being written", &|| queue.lock().is_writing);
        let (text, now) = ("no such task", Instant::now());
        (0..268).for_each(|_| log_at(&queue, text, now));
        pipe.set(|state| state.is_open = true);
        until("all lines are written", &|| pipe.lines().len() == 7);
        assert_eq!(pipe.lines()[6], format!("repeated lines were left out lines=263 like=\"{text}\""));
        // This second ends long after the queue was closed.
        let later = Instant::now() + LIMIT;
        (0..10).for_each(|_| log_at(&queue, text, later));
        assert!(queue.close(LIMIT));
        assert!(pipe.lines().last().unwrap().contains("lines=5"), "closing does not wait for the end of the second");
    }

    #[test]
    fn closing_waits_for_the_counts_of_an_idle_thread() {
        let pipe = Pipe::default();
        pipe.set(|state| state.is_open = true);
        let queue = queue(&pipe);
        let later = Instant::now() + LIMIT;
        (0..6).for_each(|_| log_at(&queue, "again", later));
        assert!(queue.flush(LIMIT) && queue.close(LIMIT));
        assert!(pipe.lines().last().unwrap().contains("lines=1"), "{:?}", pipe.lines());
    }

    #[test]
    fn without_a_writing_thread_closing_does_not_wait() {
        let queue = Queue::new(Form::Json, false);
        log(&queue, "into the void");
        assert!(queue.close(LIMIT));
    }
}
