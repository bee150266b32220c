//! The command line of `ecs-local`. This module owns the options and their help; it starts nothing. Invariant: an unknown
//! argument is an error.

use super::completion;
use super::files::{Directories, STANDARD_INPUT, buckets, read_text, texts_below};
use super::guard::GUARD;
use super::habits;
use super::option_names::{COMMANDS, FLAGS, ONLY_UP, TAKE_VALUES, TOP_VALUES};
use super::own_settings;
use super::registry::Embedded;
use super::token::Token;
use super::top;
use crate::suggestion::did_you_mean;
use crate::{Options, Registry};
use ecs_core::model::Secret;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The command to run.
#[derive(Debug)]
pub(crate) enum Command {
    Help,
    Version,
    /// Remove what sessions that have ended left.
    Clean {
        all: bool,
    },
    /// Print the completions for a shell: this text.
    Completion(String),
    /// Guard a session; `up` starts this.
    Guard,
    Serve {
        options: Options,
        quiet: bool,
        token: Token,
    },
    Up(Up),
    /// Show what tasks use.
    Top(top::Request),
}

/// The arguments of `ecs-local up`.
#[derive(Debug)]
pub(crate) struct Up {
    /// File with the task definition.
    pub(crate) task: PathBuf,
    /// The options of the control plane.
    pub(crate) options: Options,
    /// The directories with the values of the options.
    pub(crate) directories: Directories,
    /// The name of the cluster; `None`: one of its own.
    pub(crate) cluster: Option<String>,
    /// No state changes are printed.
    pub(crate) quiet: bool,
    /// The origin of the token.
    pub(crate) token: Token,
    /// The agent's binary; `None`: `ecs-agent` beside `ecs-local`.
    pub(crate) agent: Option<PathBuf>,
    /// The agent's log is printed.
    pub(crate) agent_log: bool,
    /// The shared volumes that the run made are removed.
    pub(crate) remove_volumes: bool,
    /// Environment variables for the agent.
    pub(crate) environment: Vec<(String, String)>,
}

/// Parses the arguments. The error explains the problem.
pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Command, String> {
    let word = arguments.next().ok_or("a command is missing: serve, up, top, or clean")?;
    match word.as_str() {
        "-h" | "--help" | "help" => Ok(Command::Help),
        "-V" | "--version" | "version" => Ok(Command::Version),
        "serve" => options(true, arguments),
        "up" => options(false, arguments),
        "top" => Ok(top::parse(split(arguments))?.map_or(Command::Help, Command::Top)),
        "clean" => match arguments.next().as_deref() {
            None => Ok(Command::Clean { all: false }),
            Some("-h" | "--help") => Ok(Command::Help),
            Some("--all") => match arguments.next().as_deref() {
                None => Ok(Command::Clean { all: true }),
                Some("-h" | "--help") => Ok(Command::Help),
                Some(other) => Err(format!("unknown argument `{other}`: clean takes only --all")),
            },
            Some(other) => Err(format!("unknown argument `{other}`: clean takes only --all")),
        },
        "completion" => match (arguments.next().as_deref(), arguments.next()) {
            (Some("-h" | "--help"), _) => Ok(Command::Help),
            (_, Some(other)) => Err(format!("unknown argument `{other}`: completion takes only the name of a shell")),
            (shell, None) => completion::script(shell).map(Command::Completion),
        },
        GUARD => Ok(Command::Guard),
        other => {
            let suggestion = did_you_mean(other, COMMANDS);
            let what = format!("unknown command `{other}`");
            Err(habits::command(other)
                .map_or_else(|| format!("{what}.{suggestion}"), |hint| habits::hinted(&what, hint)))
        }
    }
}

/// Parses the options of `serve` or `up`.
fn options(serve: bool, arguments: impl Iterator<Item = String>) -> Result<Command, String> {
    let mut arguments = split(arguments);
    let mut up = Up {
        task: PathBuf::new(),
        options: Options::default(),
        directories: Directories::default(),
        cluster: None,
        quiet: false,
        token: Token::Random,
        agent: None,
        agent_log: false,
        remove_volumes: false,
        environment: Vec::new(),
    };
    if serve {
        up.options.listen = SocketAddr::from(([127, 0, 0, 1], 14566));
    }
    let (mut registry, mut user, mut password_file) = (None, "AWS".to_owned(), None);
    let mut embedded = Embedded::default();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "-h" | "--help" => return Ok(Command::Help),
            "-V" | "--version" => return Ok(Command::Version),
            "--listen" => up.options.listen = listen_at(&value()?)?,
            "--cluster" => up.cluster = Some(value()?),
            "--region" => up.options.region = value()?,
            "--task-role-profile" => up.options.task_role_profile = Some(value()?),
            "--registry" => registry = Some(value()?),
            "--registry-user" => user = value()?,
            "--registry-password-file" => password_file = Some(PathBuf::from(value()?)),
            option if Embedded::has(option) => embedded.read(option, &value()?)?,
            "--secrets" => up.options.secrets = texts_below(up.directories.secrets.insert(PathBuf::from(value()?)))?,
            "--parameters" => {
                up.options.parameters = texts_below(up.directories.parameters.insert(PathBuf::from(value()?)))?;
            }
            "--buckets" => up.options.objects = buckets(up.directories.buckets.insert(PathBuf::from(value()?)))?,
            "--token" | "--token-file" if up.token != Token::Random => {
                return Err("--token and --token-file: give one of them, once".to_owned());
            }
            "--token" => up.token = Token::Given(Secret::new(value()?)),
            "--token-file" => up.token = Token::File(PathBuf::from(value()?)),
            "--quiet" => up.quiet = true,
            "--agent" if !serve => up.agent = Some(PathBuf::from(value()?)),
            "--agent-log" if !serve => up.agent_log = true,
            "--remove-volumes" if !serve => up.remove_volumes = true,
            "--" if !serve => up.environment = variables(arguments.by_ref())?,
            "-" if !serve && up.task.as_os_str().is_empty() => up.task = PathBuf::from(STANDARD_INPUT),
            other if !serve && !other.starts_with('-') && up.task.as_os_str().is_empty() => {
                up.task = PathBuf::from(other)
            }
            other => {
                return Err(unknown(other, serve));
            }
        }
    }
    up.options.registry = registry_of(registry, &user, password_file)?;
    embedded.set(&mut up.options)?;
    if serve {
        if let Some(name) = up.cluster {
            up.options.cluster = name;
        }
        return Ok(Command::Serve { options: up.options, quiet: up.quiet, token: up.token });
    }
    if up.task.as_os_str().is_empty() {
        return Err("up needs a task definition: ecs-local up TASK.json".to_owned());
    }
    Ok(Command::Up(up))
}

/// Says that an argument does not exist, and what was probably meant.
fn unknown(argument: &str, serve: bool) -> String {
    let options = TAKE_VALUES.into_iter().chain(FLAGS).filter(|name| !serve || !ONLY_UP.contains(name));
    let what = format!("unknown argument `{argument}`");
    match habits::argument(argument, serve) {
        Some(hint) => habits::hinted(&what, &hint),
        None => format!("{what}.{}", did_you_mean(argument, options)),
    }
}

/// The arguments with `--option=value` as two. What follows `--` stays as it is.
fn split(arguments: impl Iterator<Item = String>) -> impl Iterator<Item = String> {
    let mut is_after_dashes = false;
    arguments.flat_map(move |argument| {
        is_after_dashes |= argument == "--";
        match argument.split_once('=') {
            Some((name, value)) if !is_after_dashes && takes_value(name) => {
                vec![name.to_owned(), value.to_owned()]
            }
            _ => vec![argument],
        }
    })
}

fn takes_value(name: &str) -> bool {
    TAKE_VALUES.into_iter().chain(TOP_VALUES).any(|known| known == name)
}

/// The variables for the agent, which are all that is left of the arguments.
fn variables(pairs: impl Iterator<Item = String>) -> Result<Vec<(String, String)>, String> {
    let split = |pair: String| match pair.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            own_settings::refused(name, value).map_or_else(|| Ok((name.to_owned(), value.to_owned())), Err)
        }
        _ => Err(format!("`{pair}` is not NAME=VALUE: settings of the agent follow `--`")),
    };
    pairs.map(split).collect()
}

fn listen_at(given: &str) -> Result<SocketAddr, String> {
    let address = given.replace("localhost:", "127.0.0.1:");
    address.parse().map_err(|_| "--listen needs ADDRESS:PORT, as in 127.0.0.1:14566".to_owned())
}

/// The registry behind ECR; `None`: there is none.
fn registry_of(
    address: Option<String>,
    user: &str,
    password_file: Option<PathBuf>,
) -> Result<Option<Registry>, String> {
    match (address, password_file) {
        (Some(address), Some(file)) => {
            let text = read_text(&file)?;
            Ok(Some(Registry::new(&address, user, Secret::from(text.trim_end_matches(['\r', '\n'])))))
        }
        (None, None) => Ok(None),
        _ => Err("--registry and --registry-password-file belong together".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::help::HELP;
    use super::super::option_names::TOP_FLAGS;
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn up_takes_a_task_options_and_variables() {
        let Ok(Command::Up(up)) = parsed("up t.json --agent /bin/agent --cluster c -- ECS_LOGLEVEL=debug A=b=c") else {
            panic!("not understood");
        };
        assert_eq!((up.task.to_str(), up.cluster.as_deref()), (Some("t.json"), Some("c")));
        assert_eq!(up.agent, Some(PathBuf::from("/bin/agent")));
        assert_eq!(up.environment[1], ("A".to_owned(), "b=c".to_owned()));
        assert!(up.options.listen.ip().is_loopback());
    }

    #[test]
    fn clean_does_nothing_with_an_argument_that_it_does_not_know() {
        assert!(matches!(parsed("clean --all"), Ok(Command::Clean { all: true })));
        for line in ["clean x", "clean --all x", "clean --all --dry-run"] {
            assert!(parsed(line).unwrap_err().contains("clean takes only --all"), "{line}");
        }
        assert!(matches!(parsed("clean --all --help"), Ok(Command::Help)));
        let Ok(Command::Up(up)) = parsed("up - --listen localhost:7") else { panic!("standard input") };
        assert_eq!(up.options.listen.to_string(), "127.0.0.1:7");
        assert_eq!(up.task.to_str(), Some("/dev/stdin"));
    }

    #[test]
    fn the_version_is_asked_for_in_every_usual_form() {
        for line in ["--version", "-V", "version", "up t.json --version"] {
            assert!(matches!(parsed(line), Ok(Command::Version)), "{line}");
        }
        for name in TAKE_VALUES.into_iter().chain(FLAGS).chain(TOP_VALUES).chain(TOP_FLAGS) {
            assert!(HELP.contains(name), "{name}");
        }
    }

    #[test]
    fn an_option_may_hold_its_value() {
        let Ok(Command::Up(up)) = parsed("up --cluster=a=b t.json --listen=localhost:7 -- --cluster=c A=b") else {
            panic!("not understood");
        };
        assert_eq!((up.cluster.as_deref(), up.options.listen.port()), (Some("a=b"), 7));
        assert_eq!(up.environment[0], ("--cluster".to_owned(), "c".to_owned()), "it is the agent's");
        for name in TAKE_VALUES {
            assert!(parsed(&format!("up t.json {name}")).unwrap_err().contains("needs a value"), "{name}");
        }
    }

    #[test]
    fn habits_of_other_programs_are_answered() {
        for (line, wanted) in [
            ("run t.json", "unknown command `run`: a task is run by `ecs-local up TASK.json`"),
            ("down", "Ctrl-C"),
            ("logs", "docker logs"),
            ("-v", "unknown command `-v`. Did you mean `-V`?"),
            ("up -f t.json", "unknown argument `-f`: the file has no option: ecs-local up TASK.json"),
            ("up t.json u.json", "one task definition"),
            ("up t.json ECS_LOGLEVEL=debug", "-- ECS_LOGLEVEL=..."),
            ("up -d t.json", "in the foreground"),
            ("serve --port 80", "--listen 127.0.0.1:PORT"),
            ("serve -- A=b", "its settings in its environment"),
            ("serve t.json", "runs no task"),
            ("serve --agent x", "only `up` has it"),
            ("up t.json -- ECS_LOGLEVEL", "is not NAME=VALUE"),
            ("up t.json -- A=b ECS_CLUSTER=foo", "use --cluster foo"),
        ] {
            let text = parsed(line).unwrap_err();
            assert!(text.contains(wanted), "{line}: {text}");
        }
    }

    #[test]
    fn top_has_options_of_its_own() {
        let Ok(Command::Top(top)) = parsed("top --once --url=http://127.0.0.1:7 --token=a=b") else {
            panic!("not understood")
        };
        assert_eq!(
            (top.is_once, top.url.as_deref(), top.token),
            (true, Some("http://127.0.0.1:7"), Token::Given("a=b".into()))
        );
        assert!(matches!(parsed("top --help"), Ok(Command::Help)));
        assert!(parsed("serve --sort cpu").unwrap_err().contains("unknown argument `--sort`"));
        assert!(parsed("up t.json --once").is_err());
    }

    #[test]
    fn a_token_is_given_or_in_a_file_or_random() {
        let token = |line: &str| match parsed(line) {
            Ok(Command::Serve { token, .. }) => token,
            other => panic!("not understood: {other:?}"),
        };
        assert_eq!(token("serve"), Token::Random);
        assert_eq!(token("serve --token abc"), Token::Given("abc".into()));
        assert_eq!(token("serve --token-file a/b"), Token::File(PathBuf::from("a/b")));
    }

    #[test]
    fn secrets_are_the_files_below_a_directory() {
        let directory = std::env::temp_dir().join(format!("ecs-local-secrets-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(directory.join("team")).unwrap();
        std::fs::write(directory.join("team/hub"), "hunter2\n").unwrap();
        let Ok(Command::Serve { options, .. }) = parsed(&format!("serve --secrets {}", directory.display())) else {
            panic!("not understood");
        };
        assert_eq!(options.secrets["team/hub"].expose(), "hunter2");
        std::fs::remove_dir_all(&directory).unwrap();
        assert!(parsed(&format!("serve --secrets {}", directory.display())).is_err());
    }

    #[test]
    fn parameters_and_buckets_are_read_once_at_the_start() {
        let directory = std::env::temp_dir().join(format!("ecs-local-kept-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(directory.join("team")).unwrap();
        std::fs::write(directory.join("team/key"), "hunter2\n").unwrap();
        let line = format!("serve --parameters {0} --buckets {0}", directory.display());
        let Ok(Command::Serve { options, .. }) = parsed(&line) else { panic!("not understood") };
        assert_eq!(
            (options.parameters["team/key"].expose(), options.objects["team/key"].expose()),
            ("hunter2", "hunter2\n")
        );
        std::fs::write(directory.join("stray"), "").unwrap();
        let problem = parsed(&line).map(|_| ()).unwrap_err();
        assert!(problem.ends_with("stray is in no bucket: buckets are directories"), "{problem}");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn mistakes_are_named() {
        for (line, expected) in [
            ("", "a command is missing: serve, up, top, or clean"),
            ("frobnicate", "unknown command `frobnicate`."),
            ("server", "unknown command `server`. Did you mean `serve`?"),
            ("serve --agent x", "unknown argument `--agent`: only `up` has it"),
            ("serve --regoin x", "unknown argument `--regoin`. Did you mean `--region`?"),
            ("up t.json --agentlog", "Did you mean `--agent-log`?"),
            ("clean everything", "clean takes only --all"),
            ("serve --listen here", "--listen needs ADDRESS:PORT"),
            ("serve --listen", "--listen needs a value"),
            ("serve --registry r", "belong together"),
            ("serve --registry-memory much", "--registry-memory needs a size"),
            ("serve --account 12", "--account needs ids of 12 digits"),
            ("up", "up needs a task definition"),
            ("serve --token", "--token needs a value"),
            ("serve --token a --token-file b", "--token and --token-file: give one of them, once"),
            ("up t.json --token a --token b", "--token and --token-file: give one of them, once"),
            ("up t.json -- NAME", "`NAME` is not NAME=VALUE"),
        ] {
            let problem = parsed(line).map(|_| ()).unwrap_err();
            assert!(problem.contains(expected), "{line}: {problem}");
        }
    }
}
