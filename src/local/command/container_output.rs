//! Shows what a container writes, as it comes. This module owns the processes `docker logs` and the lines made from them. Invariants: no
//! part of the output is shown twice; what a container writes to standard error goes to standard error.

use super::child::bound;
use super::output::{Stream, print_error, print_output};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// The longest part of a line that is shown at once, in bytes.
const MAX_LINE: usize = 64 * 1024;
/// What Docker prints instead of the output of a log driver that cannot be read.
const DOCKER_ERROR: &str = "Error response from daemon: ";
/// How long a line that may be Docker's own error is held back.
const HOLD: Duration = Duration::from_secs(1);
/// The time limit for the end of a container to be known, when its output has ended.
const END_LIMIT: Duration = Duration::from_secs(2);

/// What was shown of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shown {
    /// The only line, which may be Docker's own error: it was not shown.
    held: Option<String>,
    /// Number of bytes, also of the held line.
    bytes: u64,
}

/// Prints the output of one run of a container, line by line, until it ends. `since` is the end of the run before it, `end` tells the
/// end of this one, in nanoseconds since the epoch.
pub(super) async fn follow_output(container: String, id: String, since: Option<u64>, end: oneshot::Receiver<u64>) {
    let mut command = logs(since, None);
    match read(&container, command.args(["--follow", &id]), [0, 0]).await {
        Ok(([out, error], is_docker)) => {
            // A container may print such a line as well.
            match error.held {
                Some(line) if is_docker => {
                    return print_error(&format!(
                        "the output of {container} is not shown: {}",
                        line.strip_prefix(DOCKER_ERROR).unwrap_or(&line)
                    ));
                }
                Some(line) => print_output(Stream::Error, &container, &line),
                None => {}
            }
            // A line without a line break is written at the very end. Docker 20.10 leaves it out while it follows, and has it afterwards.
            if let Ok(Ok(end)) = timeout(END_LIMIT, end).await {
                let mut command = logs(since, Some(end));
                let rest = read(&container, command.arg(&id), [out.bytes, error.bytes]).await;
                if let Ok(([_, Shown { held: Some(line), .. }], false)) = rest {
                    print_output(Stream::Error, &container, &line);
                }
            }
        }
        Err(error) => print_error(&format!("the output of {container} is not shown: docker logs: {error}")),
    }
}

/// `docker logs` for one run of a container: between these instants, in nanoseconds since the epoch.
fn logs(since: Option<u64>, until: Option<u64>) -> Command {
    let mut command = bound("docker");
    command.arg("logs");
    for (option, at) in [("--since", since), ("--until", until)] {
        if let Some(at) = at {
            command.args([option, &format!("{}.{:09}", at / 1_000_000_000, at % 1_000_000_000)]);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Prints what a command prints, but for the first bytes of standard output and standard error, `skipped` of each. Returns what was
/// shown of both, and whether the command has failed.
async fn read(container: &str, command: &mut Command, skipped: [u64; 2]) -> std::io::Result<([Shown; 2], bool)> {
    let mut child = command.spawn()?;
    let (out, error) = (child.stdout.take(), child.stderr.take());
    let (out, error, status) = tokio::join!(
        print_lines(container, Stream::Out, out, skipped[0]),
        print_lines(container, Stream::Error, error, skipped[1]),
        child.wait()
    );
    Ok(([out, error], !status.is_ok_and(|status| status.success())))
}

/// Prints lines until the end, but for the first bytes. If there is only one line and it may be Docker's own error, it is returned and
/// not printed.
async fn print_lines(
    container: &str,
    shown_on: Stream,
    from: Option<impl AsyncRead + Unpin>,
    mut skipped: u64,
) -> Shown {
    let mut shown = Shown::default();
    let Some(from) = from else { return shown };
    let text = |line: &[u8]| String::from_utf8_lossy(line).trim_end_matches(['\r', '\n']).to_owned();
    let mut is_first = shown_on == Stream::Error;
    let mut reader = BufReader::with_capacity(MAX_LINE, from);
    let mut line = Vec::new();
    loop {
        // Docker ends at once after its error.
        let read = timeout(if shown.held.is_some() { HOLD } else { Duration::MAX }, reader.fill_buf()).await;
        let is_over = matches!(read, Ok(Ok([]) | Err(_)));
        if !is_over && let Some(held) = shown.held.take() {
            print_output(shown_on, container, &held);
        }
        let Ok(read) = read else { continue };
        let Ok(part @ [_, ..]) = read else { break };
        if skipped > 0 {
            let taken = part.len().min(usize::try_from(skipped).unwrap_or(usize::MAX));
            reader.consume(taken);
            skipped -= taken as u64;
            continue;
        }
        let (end, taken) = match part.iter().position(|byte| *byte == b'\n') {
            Some(at) => (true, at + 1),
            None => (false, part.len()),
        };
        line.extend_from_slice(&part[..taken]);
        reader.consume(taken);
        shown.bytes += taken as u64;
        if end || line.len() >= MAX_LINE {
            let text = text(&line);
            if std::mem::take(&mut is_first) && text.starts_with(DOCKER_ERROR) {
                shown.held = Some(text);
            } else {
                print_output(shown_on, container, &text);
            }
            line.clear();
        }
    }
    if !line.is_empty() {
        print_output(shown_on, container, &text(&line));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `docker` in a container prints the same words as `docker logs`.
    #[tokio::test]
    async fn only_a_single_line_may_be_an_error_of_docker() {
        let only = async |text: &'static str| print_lines("app", Stream::Error, Some(text.as_bytes()), 0).await.held;
        let problem = "Error response from daemon: no such image";
        assert_eq!(only("Error response from daemon: no such image\n").await.as_deref(), Some(problem));
        assert_eq!(only("Error response from daemon: no such image\nretrying\n").await, None);
        assert_eq!(only("retrying\nError response from daemon: no such image\n").await, None);
        let out = print_lines("app", Stream::Out, Some(problem.as_bytes()), 0).await;
        assert_eq!(out, Shown { held: None, bytes: 41 });
    }

    #[tokio::test]
    async fn what_was_shown_is_skipped() {
        for (skipped, left) in [(0, 7), (2, 5), (7, 0), (99, 0)] {
            let shown = print_lines("app", Stream::Out, Some("a\nlast\n".as_bytes()), skipped).await;
            assert_eq!(shown, Shown { held: None, bytes: left }, "{skipped}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_of_a_container_that_goes_on_is_shown_soon() {
        let (ours, mut containers) = tokio::io::duplex(100);
        tokio::io::AsyncWriteExt::write_all(&mut containers, b"Error response from daemon: x\n").await.unwrap();
        let goes_on = async move {
            tokio::time::sleep(HOLD * 2).await;
            drop(containers);
        };
        let (shown, ()) = tokio::join!(print_lines("app", Stream::Error, Some(ours), 0), goes_on);
        assert_eq!(shown.held, None, "it was printed");
    }
}
