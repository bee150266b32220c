//! Runs programs of this host, such as `iptables` and `tc`: by a list of arguments, never through a shell.
//!
//! Owns the process from its start to its end. Invariants: a program ends or is killed within its time limit, together with all
//! processes in its process group; what it writes is bounded; it gets an environment of two variables, and nothing of the
//! agent's, which may hold secrets. Edges of this module give the arguments and judge the result.

use ecs_core::model::text::{MAX_TEXT, cleaned_bytes, cut};
use rustix::process::{Pid, Signal, kill_process_group};
use std::fmt;
use std::io;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Where programs of the host are searched, in this order: the usual `PATH` of root, and where the Go agent's container has the host's
/// `/sbin`.
const DIRECTORIES: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/host/sbin";
/// Upper limit of a program's output, in bytes. A longer one is an error, because a part of it could be misread.
pub const MAX_OUTPUT: usize = 256 * 1024;
/// How long to wait for the end of the output after the program has ended. Only a process that left its process group can still
/// hold the pipe open.
const DRAIN: Duration = Duration::from_millis(250);
/// Upper limit of a command line as it is shown, in bytes.
const MAX_SHOWN: usize = 512;

/// The programs of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    /// The directories in which they are searched, as in `PATH`.
    directories: String,
}

impl Default for Programs {
    fn default() -> Self {
        Self { directories: DIRECTORIES.to_owned() }
    }
}

/// One run of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// The name of the program, without a path.
    pub program: &'a str,
    /// Its arguments, each passed as it is.
    pub arguments: &'a [&'a str],
    /// What it reads on standard input; empty: the input ends at once.
    pub input: &'a str,
    /// The time limit for the whole run.
    pub limit: Duration,
}

impl fmt::Display for Call<'_> {
    /// The command line for people, shortened. It must not be given to a shell.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [&[self.program], self.arguments].concat();
        f.write_str(&cut(&words.join(" "), MAX_SHOWN))
    }
}

/// How a program ended, and what it wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The exit code; `None`: a signal ended it.
    pub code: Option<i32>,
    /// Standard output, complete. Invalid bytes are U+FFFD.
    pub output: String,
    /// The beginning of standard error, in one clean line.
    pub error: String,
}

impl Outcome {
    /// The program ended with code 0.
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }

    /// How a failed program ended, with what it wrote: standard error, or else standard output.
    pub fn failure(&self) -> String {
        let end = self.code.map_or_else(|| "a signal ended it".to_owned(), |code| format!("exit code {code}"));
        let output = cleaned_bytes(self.output.as_bytes());
        match [&self.error, &output].into_iter().find(|text| !text.is_empty()) {
            Some(text) => format!("{end}: {text}"),
            None => end,
        }
    }
}

/// Why a program has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// There is no such program.
    #[error("{program} is not installed (searched in {directories})")]
    Missing {
        /// Its name.
        program: String,
        /// The directories that were searched.
        directories: String,
    },
    /// The program could not be started for another reason.
    #[error("{0} cannot be started: {1}")]
    NotStarted(String, #[source] io::Error),
    /// It did not end in time and was killed.
    #[error("{call} did not end within {} s and was killed", limit.as_secs_f32())]
    TimedOut {
        /// The command line, shortened.
        call: String,
        /// The time limit.
        limit: Duration,
    },
    /// It wrote too much and was killed.
    #[error("{0} wrote more than {MAX_OUTPUT} bytes and was killed")]
    TooLong(String),
    /// Its output or its end could not be read.
    #[error("{0}: its output cannot be read: {1}")]
    Unreadable(String, #[source] io::Error),
}

impl ProgramError {
    /// The program does not exist on this host.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

/// The process group of a program. Dropping it kills the processes that are left.
struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    fn led_by(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // An error means that no process is left.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

impl Programs {
    /// The programs in these directories, which are written as in `PATH`.
    pub fn in_directories(directories: &str) -> Self {
        Self { directories: directories.to_owned() }
    }

    /// Runs a program to its end. If the caller stops waiting, the program is killed.
    ///
    /// # Errors
    /// [`ProgramError`]. A program that ends with an error is an [`Outcome`].
    pub async fn run(&self, call: &Call<'_>) -> Result<Outcome, ProgramError> {
        let mut command = Command::new(call.program);
        command.args(call.arguments).env_clear().env("PATH", &self.directories).env("LC_ALL", "C").current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match command.process_group(0).kill_on_drop(true).spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (program, directories) = (call.program.to_owned(), self.directories.clone());
                return Err(ProgramError::Missing { program, directories });
            }
            Err(error) => return Err(ProgramError::NotStarted(call.program.to_owned(), error)),
        };
        // On a timeout the group is killed before the child is reaped; until then no other process can have its id.
        let group = ProcessGroup::led_by(&child);
        let ended = timeout(call.limit, outcome(&mut child, group, call)).await;
        ended.unwrap_or_else(|_| Err(ProgramError::TimedOut { call: call.to_string(), limit: call.limit }))
    }
}

/// Writes the input, and reads both outputs until the program has ended.
async fn outcome(child: &mut Child, group: ProcessGroup, call: &Call<'_>) -> Result<Outcome, ProgramError> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut output, mut error) = (Vec::new(), Vec::new());
    let write = async {
        if let Some(mut stdin) = stdin {
            // A program that does not read its input reports that by its exit code.
            let _unread = stdin.write_all(call.input.as_bytes()).await;
        }
        Ok::<(), io::Error>(())
    };
    let status = {
        let streams =
            async { tokio::try_join!(write, read(stdout, &mut output), read_start(stderr, &mut error)).map(|_| ()) };
        let mut streams = std::pin::pin!(streams);
        tokio::select! {
            ended = &mut streams => ended.map(|()| None),
            status = child.wait() => {
                drop(group);
                // A timeout here is no failure: no process of the group can write any more.
                let ended = timeout(DRAIN, streams).await.unwrap_or(Ok(()));
                ended.and(status.map(Some))
            }
        }
    };
    let unreadable = |error| ProgramError::Unreadable(call.program.to_owned(), error);
    if output.len() > MAX_OUTPUT {
        return Err(ProgramError::TooLong(call.to_string()));
    }
    let status = match status.map_err(unreadable)? {
        Some(status) => status,
        None => child.wait().await.map_err(unreadable)?,
    };
    let output = String::from_utf8_lossy(&output).into_owned();
    Ok(Outcome { code: status.code(), output, error: cleaned_bytes(&error) })
}

/// Reads to the end. Fails if there are more than [`MAX_OUTPUT`] bytes; one more than these has then been read.
async fn read(stream: Option<impl AsyncRead + Unpin>, bytes: &mut Vec<u8>) -> io::Result<()> {
    let Some(stream) = stream else { return Ok(()) };
    let mut stream = stream.take(MAX_OUTPUT as u64 + 1);
    while stream.read_buf(bytes).await? > 0 {}
    if bytes.len() > MAX_OUTPUT { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(()) }
}

/// Reads to the end and keeps the beginning, so that a talkative program is not blocked.
async fn read_start(stream: Option<impl AsyncRead + Unpin>, bytes: &mut Vec<u8>) -> io::Result<()> {
    let Some(mut stream) = stream else { return Ok(()) };
    let mut start = (&mut stream).take(MAX_TEXT as u64);
    while start.read_buf(bytes).await? > 0 {}
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(arguments: &[&str], limit: Duration) -> Result<Outcome, ProgramError> {
        let call = Call { program: "sh", arguments, input: "some input", limit };
        Programs::default().run(&call).await
    }

    #[tokio::test]
    async fn a_program_gets_its_arguments_and_nothing_else() {
        let script = r#"printf '%s|' "$@"; cat; echo; env; pwd; echo "a
b" >&2; exit 3"#;
        let outcome = run(&["-c", script, "sh", "$(id)", "a b", ""], Duration::from_secs(20)).await.unwrap();
        let mut lines: Vec<&str> = outcome.output.lines().collect();
        assert_eq!(lines.remove(0), "$(id)|a b||some input");
        lines.retain(|line| !line.starts_with("_=") && !line.starts_with("SHLVL=") && !line.starts_with("PWD="));
        lines.sort_unstable();
        assert_eq!(lines, ["/", "LC_ALL=C", &format!("PATH={DIRECTORIES}")]);
        assert_eq!((outcome.code, outcome.error.as_str()), (Some(3), "a b"));
        assert_eq!(outcome.failure(), "exit code 3: a b");
        assert!(!outcome.is_success());
    }

    #[tokio::test]
    async fn a_program_ends_within_its_limits() {
        let table = [
            ("sleep 60", "sh -c sleep 60 did not end within 0.7 s and was killed"),
            ("exec >&- 2>&-; sleep 60", "sh -c exec >&- 2>&-; sleep 60 did not end within 0.7 s and was killed"),
            ("exec cat /dev/zero", "sh -c exec cat /dev/zero wrote more than 262144 bytes and was killed"),
        ];
        for (script, wanted) in table {
            // Enough to write, even on a busy machine, except where the limit itself is tested.
            let limit = Duration::from_millis(if wanted.contains("0.7") { 700 } else { 60_000 });
            let began = std::time::Instant::now();
            assert_eq!(run(&["-c", script], limit).await.unwrap_err().to_string(), wanted);
            assert!(began.elapsed() < Duration::from_secs(50), "{script}");
        }
    }

    #[tokio::test]
    async fn a_talkative_program_is_read_to_its_end() {
        let script = "head -c 300000 /dev/zero | tr '\\0' x >&2; echo done";
        let outcome = run(&["-c", script], Duration::from_secs(60)).await.unwrap();
        assert_eq!((outcome.code, outcome.output.as_str()), (Some(0), "done\n"));
        assert!(outcome.error.len() <= MAX_TEXT && outcome.error.starts_with("xxx"), "{}", outcome.error.len());
    }

    #[tokio::test]
    async fn a_process_left_behind_is_killed_and_delays_nothing() {
        let began = std::time::Instant::now();
        let outcome = run(&["-c", "sleep 300 & echo $!"], Duration::from_secs(60)).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(50), "{:?}", began.elapsed());
        let file = format!("/proc/{}/stat", outcome.output.trim());
        for _ in 0..500 {
            match std::fs::read_to_string(&file) {
                Ok(stat) if !stat.contains(") Z ") => tokio::time::sleep(Duration::from_millis(20)).await,
                _ => return,
            }
        }
        panic!("the process runs on");
    }

    #[tokio::test]
    async fn a_missing_program_is_named_with_the_directories() {
        let call = Call { program: "iptables", arguments: &[], input: "", limit: Duration::from_secs(1) };
        let error = Programs::in_directories("/nowhere:/proc/self").run(&call).await.unwrap_err();
        assert!(error.is_missing());
        assert_eq!(error.to_string(), "iptables is not installed (searched in /nowhere:/proc/self)");
    }
}
