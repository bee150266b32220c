//! Our reading of `ecs.config`, compared with the real `docker run --env-file`: the same bytes must give the same variables. And
//! its differences from systemd's `EnvironmentFile=` and from ecs-init, as in `src/config/ecs_config.md`.
//!
//! Needs Docker and a static busybox, or systemd; without them it prints a notice and passes. Everything that it makes is
//! labelled and removed.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]
#![expect(clippy::print_stderr, reason = "a skipped test must be seen")]

use ecs_agent::config::{EnvFile, Environment, Source};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const LABEL: &str = "ecs-agent-test=config-env-file";
const FROM_ENVIRONMENT: &str = "given by \"the\" environment";

/// Lines that Docker accepts. Every name begins with `T_`.
const GOOD: &[u8] = b"\xef\xbb\xbfT_FIRST=behind a byte order mark\n\
# T_COMMENT=x\n   # T_COMMENT2=x\n\n   \n\
T_JSON={\"https://r.example:5000/v1/\":{\"auth\":\"dTpwPT0=\",\"email\":\"a@b#c\"}}\n\
\t  T_INDENTED=x\nT_SPACES=  x  \nT_TAB=\tx\t\nT_DOUBLE=\"x\"\nT_SINGLE='x'\nT_OPEN=\"x\n\
T_CRLF=x\r\nT_CRCRLF=x\r\r\nT_EMPTY=\nT_EQUALS==\nT_MORE=a=b=c\nT_HASH=x # no comment\n\
T_DOLLAR=$HOME ${HOME} `id`\nT_BACKSLASH=a\\nb\\\nT_UNICODE=gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80\n\
T_FROM_ENV\nT_NOT_THERE\nT_TWICE=1\nT_TWICE=2\nT.DOT-DASH=x\n\xc2\xa0T_NBSP=x\nT_LAST=no newline";

/// Lines that make Docker refuse the file.
const BAD: [&[u8]; 5] = [b"export T_A=1\n", b"T_A =1\n", b"=1\n", b"T_A=\xff\n", b"two words\n"];

/// An image with busybox only, and a directory; both are removed at the end.
struct Lab {
    image: String,
    directory: PathBuf,
}

impl Lab {
    fn open() -> Option<Self> {
        let version = Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]).output();
        if !version.is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED config_env_file: no Docker daemon can be reached");
            return None;
        }
        let Some(busybox) = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists())
        else {
            eprintln!("SKIPPED config_env_file: no static busybox (Debian: busybox-static)");
            return None;
        };
        let id = std::process::id();
        let directory = std::env::temp_dir().join(format!("ecs-env-file-{id}"));
        let lab = Self { image: format!("ecs-agent-test/env-file:{id}"), directory };
        std::fs::create_dir_all(lab.directory.join("root/bin")).unwrap();
        std::fs::copy(busybox, lab.directory.join("root/bin/busybox")).unwrap();
        lab.import();
        Some(lab)
    }

    fn import(&self) {
        let root = self.directory.join("root");
        let mut tar = Command::new("tar").arg("-C").arg(root).args(["-c", "."]).stdout(Stdio::piped()).spawn().unwrap();
        let import = Command::new("docker")
            .args(["import", "-c", &format!("LABEL {LABEL}"), "-", &self.image])
            .stdin(tar.stdout.take().unwrap())
            .output()
            .unwrap();
        assert!(tar.wait().unwrap().success() && import.status.success(), "{import:?}");
    }

    fn docker_run(&self, file: &[u8]) -> Output {
        let path = self.directory.join("file");
        std::fs::write(&path, file).unwrap();
        Command::new("docker")
            .args(["run", "--rm", "--network=none", "--label", LABEL, "--env-file"])
            .arg(path)
            .args([&self.image, "/bin/busybox", "env", "-0"])
            .env("T_FROM_ENV", FROM_ENVIRONMENT)
            .env_remove("T_NOT_THERE")
            .output()
            .unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", &self.image]).output();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn ours(file: &[u8]) -> (BTreeMap<String, String>, usize) {
    let environment = Environment::new([("T_FROM_ENV", FROM_ENVIRONMENT)]);
    let (file, problems) = EnvFile::parse("file", file, &environment);
    let values = file.keys().into_iter().map(|key| (key.clone(), file.get(&key).unwrap())).collect();
    (values, problems.len())
}

#[test]
fn a_file_reads_as_docker_run_reads_it() {
    let Some(lab) = Lab::open() else { return };
    let output = lab.docker_run(GOOD);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let docker: BTreeMap<String, String> = text
        .split('\0')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(key, _)| key.starts_with('T'))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let (values, problems) = ours(GOOD);
    assert_eq!(values, docker);
    assert_eq!(problems, 2, "only the repeated name, and the name without a value, are problems");
    for line in BAD {
        let output = lab.docker_run(line);
        assert!(!output.status.success(), "Docker takes {}", String::from_utf8_lossy(line));
        assert_eq!(ours(line), (BTreeMap::new(), 1), "{}", String::from_utf8_lossy(line));
    }
}

/// Lines of a file, and the value of `A` for this agent (and Docker), for ecs-init, for systemd.
type Difference = (&'static str, Option<&'static str>, Option<&'static str>, Option<&'static str>);

#[rustfmt::skip]
const DIFFERENCES: &[Difference] = &[
    (r#"A={"r":{"auth":"x"}}"#, Some(r#"{"r":{"auth":"x"}}"#), Some(r#"{"r":{"auth":"x"}}"#), Some(r#"{"r":{"auth":"x"}}"#)),
    (r#"A="x""#, Some(r#""x""#), Some(r#""x""#), Some("x")),
    ("A='x'", Some("'x'"), Some("'x'"), Some("x")),
    (r"A=a\b", Some(r"a\b"), Some(r"a\b"), Some("ab")),
    ("A=a\\\nb", Some("a\\"), Some("a\\"), Some("ab")),
    ("A=x # y", Some("x # y"), Some("x # y"), Some("x # y")),
    ("A= x", Some(" x"), Some(" x"), Some("x")),
    ("A=x ", Some("x "), Some("x"), Some("x")),
    ("A =x", None, None, Some("x")),
    ("export A=x", None, None, None),
    ("#A=x", None, None, None),
    (";A=x", None, None, None),
    ("A=$B", Some("$B"), Some("$B"), Some("$B")),
];

/// The grammar of ecs-init: the text and each line are trimmed, and each line is split at the first `=`.
fn ecs_init(text: &str) -> Option<String> {
    let lines = text.trim().split('\n').filter_map(|line| line.trim().split_once('='));
    lines.filter(|(key, _)| *key == "A").map(|(_, value)| value.to_owned()).next_back()
}

/// The value that systemd reads. systemd parses `/etc/os-release` like `EnvironmentFile=`, and `systemd-tmpfiles` can print one
/// of its values.
fn systemd(root: &Path, text: &str) -> Option<String> {
    let release = text.replacen('A', "BUILD_ID", 1);
    std::fs::create_dir_all(root.join("etc")).unwrap();
    std::fs::write(root.join("etc/os-release"), release).unwrap();
    let _ = std::fs::remove_file(root.join("out"));
    std::fs::write(root.join("conf"), "f /out 0644 - - - %B\n").unwrap();
    let root_option = format!("--root={}", root.display());
    let conf = root.join("conf");
    let output = Command::new("systemd-tmpfiles").arg(root_option).arg("--create").arg(conf).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    std::fs::read_to_string(root.join("out")).ok().filter(|value| !value.is_empty())
}

#[test]
fn readers_of_such_a_file_differ_as_the_page_says() {
    let page = include_str!("../../src/config/ecs_config.md");
    let root = std::env::temp_dir().join(format!("ecs-env-file-systemd-{}", std::process::id()));
    let has_systemd = Command::new("systemd-tmpfiles").arg("--version").output().is_ok();
    if !has_systemd {
        eprintln!("SKIPPED config_env_file: no systemd here, its column of the table is not checked");
    }
    for &(text, agent, init, unit) in DIFFERENCES {
        let (file, _) = EnvFile::parse("file", text.as_bytes(), &Environment::default());
        assert_eq!(file.get("A").as_deref(), agent, "{text}: this agent");
        assert_eq!(ecs_init(text).as_deref(), init, "{text}: ecs-init");
        if has_systemd {
            assert_eq!(systemd(&root, text).as_deref(), unit, "{text}: systemd");
        }
        let cell = |value: Option<&str>| value.map_or("not set".to_owned(), |value| format!("`{value}`"));
        let row = format!("| `{}` | {} | {} | {} |", text.replace('\n', "⏎"), cell(agent), cell(init), cell(unit));
        assert!(page.contains(&row), "the page lacks {row}");
    }
    let _ = std::fs::remove_dir_all(&root);
}
