//! Programs that a test writes and then runs.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes a script that can be run at once. Another process writes the file. If this one had it open for writing, a program that
/// another test starts at this moment would inherit it until it is executed, and meanwhile the kernel runs the script for nobody ("Text file
/// busy").
pub fn write(path: impl AsRef<Path>, text: &str) {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "umask 022; cat >\"$1\" && chmod 755 \"$1\"", "sh"]).arg(path.as_ref()).stdin(Stdio::piped());
    let mut shell = shell.spawn().expect("a shell");
    shell.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("the shell reads");
    assert!(shell.wait().expect("the shell ends").success(), "{} is written", path.as_ref().display());
}
