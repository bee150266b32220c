//! The command line as an operator types it: commands, mistakes, `check-config`, completions in real shells, the manual page.

use ecs_testing::docker::TempDir;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const AGENT: &str = env!("CARGO_BIN_EXE_ecs-agent");

/// Runs the agent with no variables but the path of a file that does not exist. A daemon would end with code 1.
fn agent(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(AGENT);
    command.args(arguments).env_clear().env("ECS_CONFIG_FILE", "/nonexistent/ecs.config");
    command
}

fn printed(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn commands_work_with_and_without_dashes() {
    for (name, wanted) in [
        ("help", "Usage: ecs-agent [FLAG...]"),
        ("version", "Amazon ECS Agent:\n\tVersion: "),
        ("license", "Apache License"),
        ("config-reference", "#ECS_CLUSTER=\n"),
        ("man", ".TH ECS\\-AGENT 8"),
        ("completion zsh", "#compdef ecs-agent\n"),
    ] {
        let output = |dashes: &str| {
            let line = format!("{dashes}{name}");
            let output = agent(&line.split(' ').collect::<Vec<_>>());
            assert_eq!(output.status.code(), Some(0), "{line}: {output:?}");
            printed(&output)
        };
        let (text, errors) = output("");
        assert!(text.contains(wanted) && errors.is_empty(), "{name}: {text}{errors}");
        assert_eq!((&output("-"), &output("--")), (&(text.clone(), errors.clone()), &(text, errors)), "{name}");
    }
    let nobody = agent(&["healthcheck"]);
    assert_eq!(nobody.status.code(), Some(1), "{nobody:?}");
    let (text, errors) = printed(&nobody);
    assert!(
        text.starts_with("not healthy: no agent answers here (port 51678 is closed") && errors.is_empty(),
        "{nobody:?}"
    );
    for line in [&["help", "check-config"][..], &["check-config", "-help"]] {
        let (text, _) = printed(&agent(line));
        assert!(text.starts_with("Usage: ecs-agent check-config [FILE...]") && !text.contains("ECS_CLUSTER"), "{text}");
    }
}

/// The error of a command is for a person: plain text, and nothing else.
#[test]
fn a_command_that_fails_prints_its_error_as_plain_text() {
    let variables = [
        ("ECS_CONFIG_FILE", "/dev/null"),
        ("DOCKER_HOST", "unix:///nonexistent/docker.sock"),
        ("AWS_DEFAULT_REGION", "us-west-2"),
    ];
    let arguments = ["ecs-attributes", "-blackhole-ec2-metadata"];
    let output = command(&arguments).envs(variables).output().unwrap();
    let (text, errors) = printed(&output);
    assert_eq!((output.status.code(), text.as_str()), (Some(1), ""), "{errors}");
    let line = errors.lines().last().unwrap_or_default();
    assert!(line.starts_with("Could not connect to docker daemon: "), "{errors}");
    assert!(!errors.contains("level=info") && !line.contains("\\\""), "{errors}");
    // Nor is a wrong setting a line of a log.
    let output = command(&arguments).envs(variables).env("ECS_CLUSTER", "\"prod\"").output().unwrap();
    let (_, errors) = printed(&output);
    assert!(
        output.status.code() == Some(1) && errors.starts_with("fatal: ECS_CLUSTER (environment): `\"prod\"`"),
        "{errors}"
    );
}

#[test]
fn a_mistake_is_two_lines_and_no_daemon() {
    for (arguments, code, first, second) in [
        (&["chekc-config"][..], 2, "unknown command: chekc-config", "Did you mean check-config?"),
        (&["start"], 2, "unknown command: start", "Without a command, the agent runs."),
        (&["status"], 2, "unknown command: status", "`systemctl status ecs` shows the unit"),
        (&["logs"], 2, "unknown command: logs", "`journalctl -u ecs` shows the log."),
        (&["validate"], 2, "unknown command: validate", "Did you mean check-config?"),
        (&["-k", "run"], 2, "unknown command: run", "Without a command"),
        (&["SECRET=hunter2"], 2, "unknown command: SECRET", "Without a command"),
        (&["version", "x"], 2, "unexpected argument: x", "`ecs-agent help`"),
        (&["help", "foo"], 2, "no such command: foo", "`ecs-agent help`"),
        (&["help", "vershun"], 2, "no such command: vershun", "Did you mean version?"),
        (&["vershun"], 2, "unknown command: vershun", "Did you mean version?"),
        (
            &["check-config", "-check-config=false", "x"],
            2,
            "check-config is a command and cannot be",
            "`ecs-agent help`",
        ),
        (&["completion", "tcsh"], 2, "completion needs the name of a shell", "`ecs-agent help`"),
        (&["-verison"], 5, "flag provided but not defined: -verison", "Did you mean -version?"),
        (&["--log-level=debug"], 5, "flag provided but not defined: -log-level", "Did you mean -loglevel?"),
        (&["-strict"], 5, "-strict is a flag of check-config", "Did you mean check-config -strict?"),
        (&["-loglevel"], 5, "flag needs an argument: -loglevel", "`ecs-agent help`"),
    ] {
        let output = agent(arguments);
        let (text, errors) = printed(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        let lines: Vec<&str> = errors.lines().collect();
        assert!(text.is_empty() && lines.len() == 2, "{arguments:?}: {text}{errors}");
        assert!(lines[0].starts_with(first) && lines[1].contains(second), "{arguments:?}: {errors}");
        assert!(!errors.contains("hunter2"), "{errors}");
    }
    // The unit starts no agent again for which that cannot help.
    let unit = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/ecs.service")).unwrap();
    assert!(unit.contains("\nRestartPreventExitStatus=2 5\n"));
}

/// `ecs-host-setup.service` and `ecs-host-check.service` run the same command, in the same sandbox.
#[test]
fn the_units_that_set_up_the_host_have_the_same_sandbox() {
    let [setup, check] = ["setup", "check"].map(|name| {
        let path = format!("{}/systemd/ecs-host-{name}.service", env!("CARGO_MANIFEST_DIR"));
        let unit = std::fs::read_to_string(path).unwrap();
        let (head, sandbox) = unit.split_once("# The lines from here to the end").unwrap();
        assert!(head.contains("/usr/libexec/ecs-agent host-setup -service\n"), "{head}");
        sandbox.split_once('\n').unwrap().1.to_owned()
    });
    assert_eq!(setup, check);
    assert!(setup.contains("\nCapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW\n"), "{setup}");
}

/// Files for one test.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(TempDir::new("ecs-test-check"))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

#[test]
fn each_file_is_checked_and_the_worst_decides() {
    let files = Files::new();
    let good = files.write("good", b"ECS_CLUSTER=prod\n");
    let note = files.write("note", b"ECS_CLUSTER=prod\nECS_AGENT_LABELS={}\n");
    let warning = files.write("warning", b"ECS_CLUSTER=prod\nECS_LOGLEVEL=loud\n");
    let bad = files.write("bad", b"ECS_CLUSTER=\"prod\"\n");
    let table: [(&[&str], i32); 9] = [
        (&[&good], 0),
        (&[&note], 0),
        (&[&note, "-strict"], 2),
        (&[&good, "-strict"], 0),
        (&[&warning], 2),
        (&[&bad], 2),
        (&[&good, &note, &bad], 2),
        (&[&bad, &good], 2),
        (&["/nonexistent/x"], 2),
    ];
    for (arguments, code) in table {
        for verb in ["check-config", "-check-config"] {
            let output = agent(&[&[verb], arguments].concat());
            let (text, errors) = printed(&output);
            assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}{errors}");
            for file in arguments.iter().filter(|word| **word != "-strict") {
                assert_eq!(text.lines().filter(|line| *line == format!("{file}:")).count(), 1, "{text}");
            }
        }
    }
    let (text, _) = printed(&agent(&["check-config", &good, &bad]));
    let (about_good, about_bad) = text.split_once(&format!("{bad}:\n")).unwrap();
    assert!(
        about_good.contains(&format!("ECS_CLUSTER=prod  ({good}:1)")) && about_good.contains("would start."),
        "{text}"
    );
    assert!(about_bad.contains(&format!("\nfatal: ECS_CLUSTER ({bad}:1): `\"prod\"`")), "{text}");
    let (_, end) = about_bad.split_once("The agent would not start.\n").expect("the verdict");
    assert!(end.starts_with("Checked for an agent in a container.") && end.lines().count() == 1, "{text}");
    assert!(
        !printed(&agent(&["check-config", "-service", &good])).0.contains("Checked for"),
        "that is what was asked for"
    );
    // Without a file, the sources of a start.
    assert_eq!(agent(&["check-config"]).status.code(), Some(2), "/nonexistent/ecs.config");
    let started = command(&["check-config"]).env("ECS_CONFIG_FILE", &good).output().unwrap();
    assert!(started.status.success() && printed(&started).0.contains("ECS_CLUSTER=prod"), "{started:?}");
}

#[test]
fn standard_input_is_checked() {
    let mut child = command(&["check-config", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"ECS_CLUSTER=$(hostname)\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let (text, _) = printed(&output);
    assert!(text.starts_with("standard input:\n") && !text.contains("/dev/stdin"), "{text}");
    for part in [
        "  ECS_CLUSTER  (unusable, standard input:1)\n",
        "fatal: ECS_CLUSTER (standard input:1): `$(hostname)`, and nothing is expanded here",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// What a start finds after the configuration has been loaded, and on its command line.
#[test]
fn the_check_finds_what_a_start_finds_later() {
    let files = Files::new();
    let auth = |data: &str| format!("ECS_CLUSTER=c\nECS_ENGINE_AUTH_TYPE=dockercfg\nECS_ENGINE_AUTH_DATA={data}\n");
    let level = ["-loglevel=loud"];
    for (lines, arguments, part, code) in [
        (auth(r#"{"r.io":{"auth":"hunter2!"}}"#), &[][..], ":3): registry \"r.io\": auth is not base64; expected", 2),
        (auth(r#"{"r.io":{"auth":"aHVudGVyMg=="}}"#), &[], "auth is not base64 of user:password", 2),
        (auth(r#"{"r.io":{}}"#), &[], "has neither auth, nor username and password", 2),
        (auth(r#"["hunter2"]"#), &[], "is not a JSON object of registries; expected", 2),
        (
            auth(r#"{"r.io":{"auth":"bWU6eA=="},"r.io":{"auth":"bWU6eQ=="}}"#),
            &[],
            "registry \"r.io\" is named twice",
            2,
        ),
        (auth(r#"{"r.io":{"auth":"bWU6eA==","auth":"bWU6eQ=="}}"#), &[], "`auth` twice in one object", 2),
        (auth(r#"{"r.io":{"auth":"bWU6eAo="}}"#), &[], "note: ECS_ENGINE_AUTH_DATA", 0),
        (auth(r#"{"r.io":{"auth":"bWU6eA=="}}"#), &[], "would start.", 0),
        (
            auth(r#"{"auth":"bWU6eA=="}"#),
            &[],
            "the host of the registry is missing around the credentials; expected {",
            2,
        ),
        (auth(r#"{"auths":{}}"#), &[], "note: ECS_ENGINE_AUTH_DATA", 0),
        (
            auth(r#"{"r.io":{"username":"me","pasword":"hunter2"}}"#),
            &[],
            "did you mean password?; the registry is asked with an empty password",
            2,
        ),
        // Another fatal problem does not hide it.
        (format!("{}DOCKER_HOST=x\n", auth(r#"{"r.io":{"auth":"!"}}"#)), &[], "auth is not base64", 2),
        ("ECS_CLUSTER=c\n".to_owned(), &level, "-loglevel (command line): `loud`; expected one of debug, info", 2),
        ("ECS_CLUSTER=c\n".to_owned(), &["-loglevel=debug"], "would start.", 0),
    ] {
        let path = files.write("ecs.config", lines.as_bytes());
        let output = agent(&[&["check-config", path.as_str()], arguments].concat());
        let (text, _) = printed(&output);
        assert!(text.contains(part) && !text.contains("hunter2"), "{lines}: {text}");
        assert_eq!(output.status.code(), Some(code), "{lines}: {text}");
    }
}

/// The start and the check say the same about a cluster that cannot be used, and the agent joins no other one.
#[test]
fn no_start_with_a_cluster_that_cannot_be_used() {
    let files = Files::new();
    for bytes in [
        &b"ECS_CLUSTER=\"prod\"\n"[..],
        b"ECS_CLUSTER=prod # main\n",
        b"ECS_CLUSTER=$(hostname)\n",
        b"ECS_CLUSTER=pr\xffod\n",
        b"ECS_CLUSTER=prod\0\n",
        b"{\"Cluster\": \"prod\"}\n",
    ] {
        let path = files.write("ecs.config", bytes);
        let shown = String::from_utf8_lossy(bytes).into_owned();
        let check = agent(&["check-config", &path]);
        let (text, _) = printed(&check);
        let line =
            text.lines().find_map(|line| line.strip_prefix("fatal: ")).unwrap_or_else(|| panic!("{shown}: {text}"));
        assert!(line.ends_with("the agent does not start") && check.status.code() == Some(2), "{shown}: {text}");
        let start = command(&[]).env("ECS_CONFIG_FILE", &path).output().unwrap();
        assert_eq!(start.status.code(), Some(1), "{shown}: {start:?}");
        let (log, errors) = printed(&start);
        // The log may escape quotation marks.
        let end = &line[line.rfind("; expected ").unwrap()..];
        assert!(format!("{log}{errors}").contains(end), "{shown}: {end}\n{log}{errors}");
    }
    // The Go agent ignores these lines, so an instance with such a file is in `default` already.
    for line in ["export ECS_CLUSTER=prod\n", "ECS_CLUSTR=prod\n", "ECS_CLUSTER\n"] {
        let check = agent(&["check-config", &files.write("ecs.config", line.as_bytes())]);
        let (text, _) = printed(&check);
        assert!(text.contains("warning: ECS_CLUST") && !text.contains("fatal: "), "{line}: {text}");
        assert_eq!(check.status.code(), Some(2), "{line}: {text}");
    }
}

#[test]
fn the_json_is_one_document_for_all_files() {
    let files = Files::new();
    let good = files.write("good", b"ECS_CLUSTER=prod\nAWS_ACCESS_KEY_ID=hunter2\nAWS_SECRET_ACCESS_KEY=hunter2\n");
    let bad = files.write("bad", b"ECS_CLUSTER=my cluster\nECS_UPDATES_ENABLED=true\n");
    let output = agent(&["check-config", "--json", &good, &bad]);
    assert_eq!(output.status.code(), Some(2));
    let (text, _) = printed(&output);
    assert!(!text.contains("hunter2"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&json["version"], &json["ok"]), (&1.into(), &false.into()));
    let checks = json["checks"].as_array().unwrap();
    assert_eq!(
        (checks.len(), &checks[0]["file"], &checks[1]["file"]),
        (2, &good.as_str().into(), &bad.as_str().into())
    );
    assert_eq!((&checks[0]["starts"], &checks[1]["starts"]), (&true.into(), &false.into()));
    let problem = &checks[1]["problems"][0];
    assert_eq!((&problem["setting"], &problem["line"]), (&"ECS_CLUSTER".into(), &1.into()));
    assert_eq!(problem["file"], bad.as_str());
    assert_eq!(checks[1]["unsupported"][0]["setting"], "ECS_UPDATES_ENABLED");
    let output = agent(&["-check-config", "-json", &good]);
    let json: serde_json::Value = serde_json::from_str(&printed(&output).0).unwrap();
    assert!(output.status.success() && json["ok"] == true, "{json}");
}

fn is_installed(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", "command -v \"$0\"", program]).output().unwrap().status.success();
    if !found {
        eprintln!("SKIPPED what needs {program}: it is not installed");
    }
    found
}

/// What the shell's script calls to complete a line, with stubs for what only an interactive zsh has.
const BASH: &str = r#"source "$0"; shift 0; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _ecs_agent 2>/dev/null
printf '%s\n' "${COMPREPLY[@]}"; complete -p ecs-agent >/dev/null"#;
const ZSH: &str = r#"compdef() { [[ $2 == ecs-agent ]] }
compadd() { print -l -- ${(M)@:#$PREFIX*} }
_describe() { local -a found=(${(P)2}); print -l -- ${(M)${found%%:*}:#$PREFIX*} }
_files() { print -l -- $PREFIX*(N) }
file=$1; shift; source $file; words=("$@"); CURRENT=$#; PREFIX=$words[CURRENT]; _ecs_agent"#;
const FISH: &str = r#"source $argv[1]; complete -C "$argv[2..]""#;

/// The completions of the last word.
fn completed(shell: &str, script: &Path, words: &[&str]) -> Vec<String> {
    let script = script.to_str().unwrap();
    let mut command = Command::new(shell);
    match shell {
        "bash" => command.args(["--norc", "-c", BASH, script]),
        "zsh" => command.args(["-f", "-c", ZSH, "zsh", script]),
        _ => command.args(["--no-config", "-c", FISH, script]),
    };
    let output = command.args(words).output().unwrap();
    let (text, errors) = printed(&output);
    assert!(output.status.success() && errors.is_empty(), "{shell} {words:?}: {errors}");
    // fish prints a description after a tab.
    let names = text.lines().filter_map(|line| line.split('\t').next()).filter(|name| !name.is_empty());
    let mut found: Vec<String> = names.map(str::to_owned).collect();
    found.sort();
    found
}

#[test]
fn real_shells_complete_commands_flags_and_values() {
    let files = Files::new();
    let file = files.write("my-ecs.config", b"");
    let beginning = file.trim_end_matches("ecs.config").to_owned();
    let commands = [
        "check-config",
        "completion",
        "config-reference",
        "ecs-attributes",
        "healthcheck",
        "help",
        "host-setup",
        "license",
        "man",
        "version",
    ];
    let table: [(&[&str], &[&str]); 20] = [
        (&[""], &commands),
        (&["help", ""], &commands),
        (&["help", "ver"], &["version"]),
        (&["version", ""], &[]),
        // Not a dash alone: fish then offers both forms.
        (&["check-config", "-s"], &["-service", "-strict"]),
        (&["check-config", "--s"], &["--service", "--strict"]),
        (&["check-config", "-l"], &[]),
        (&["version", "-l"], &[]),
        (&["-str"], &[]),
        (&["ver"], &["version"]),
        (&["--healthc"], &["--healthcheck", "--healthcheck=http"]),
        (&["c"], &["check-config", "completion", "config-reference"]),
        (&["-ver"], &["-version"]),
        (&["--chec"], &["--check-config"]),
        (&["-loglevel", "d"], &["debug"]),
        (&["-loglevel", "debug", "lic"], &["license"]),
        (&["completion", "f"], &["fish"]),
        (&["completion", ""], &["bash", "fish", "zsh"]),
        (&["check-config", "-str"], &["-strict"]),
        (&["check-config", &beginning], &[&file]),
    ];
    for shell in ["bash", "zsh", "fish"].into_iter().filter(|shell| is_installed(shell)) {
        let script = files.write(shell, &agent(&["completion", shell]).stdout);
        for (words, wanted) in table {
            let words = [&["ecs-agent"], words].concat();
            // fish takes the word after a value as an argument of the program.
            if shell == "fish" && words.contains(&"lic") {
                continue;
            }
            assert_eq!(completed(shell, Path::new(&script), &words), wanted, "{shell} {words:?}");
        }
    }
}

#[test]
fn programs_for_manual_pages_accept_the_page() {
    let files = Files::new();
    let page = files.write("ecs-agent.8", &agent(&["man"]).stdout);
    let table: [(&str, &[&str]); 3] = [
        ("man", &["--warnings", "-E", "UTF-8", "-l", &page]),
        ("mandoc", &["-T", "utf8", "-W", "error,stop", &page]),
        ("groff", &["-man", "-Tutf8", "-ww", &page]),
    ];
    for (program, arguments) in table.into_iter().filter(|(program, _)| is_installed(program)) {
        let output = Command::new(program).args(arguments).env("MANWIDTH", "100").output().unwrap();
        let (text, errors) = printed(&output);
        assert!(output.status.success() && errors.is_empty(), "{program}: {errors}");
        // Bold letters may be written as a letter, a backspace and the same letter, or with escapes.
        let mut plain = String::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            match c {
                '\u{8}' => _ = plain.pop(),
                '\u{1b}' => _ = rest.find(|c| c.is_ascii_alphabetic()),
                _ => plain.push(c),
            }
        }
        for part in [
            "ECS-AGENT(8)",
            "check-config [FILE...]",
            "-loglevel LEVEL",
            "ECS_CLUSTER",
            "EXIT STATUS",
            "EXAMPLES",
            "SIGHUP",
        ] {
            assert!(plain.contains(part), "{program}: {part}\n{plain}");
        }
    }
}
