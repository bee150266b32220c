//! The options of `ecs-local top`. Invariant: an unknown argument is an error.

use super::super::option_names::{TOP_FLAGS, TOP_VALUES};
use super::super::token::Token;
use crate::suggestion::did_you_mean;
use ecs_core::model::Secret;
use std::path::PathBuf;

/// The order of the containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sort {
    /// The one that uses most comes first.
    #[default]
    Cpu,
    /// The same, by memory.
    Memory,
    /// By task definition, and then by container.
    Name,
}

/// The form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    #[default]
    Table,
    /// One object a line.
    Json,
}

/// The arguments of `ecs-local top`.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) sort: Sort,
    pub(crate) form: Form,
    /// One table, and no more.
    pub(crate) is_once: bool,
    /// The address of the server; `None`: all sessions of this user on this machine.
    pub(crate) url: Option<String>,
    /// The token for this address; random: not given.
    pub(crate) token: Token,
}

/// Parses the options, with `--option=value` as two words. `None`: the help is wanted.
pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Request>, String> {
    let mut request = Request::default();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "-h" | "--help" => return Ok(None),
            "--once" => request.is_once = true,
            "--json" => request.form = Form::Json,
            "--sort" => request.sort = sort(&value()?)?,
            "--url" => request.url = Some(value()?),
            "--token" | "--token-file" if request.token != Token::Random => {
                return Err("--token and --token-file: give one of them, once".to_owned());
            }
            "--token" => request.token = Token::Given(Secret::new(value()?)),
            "--token-file" => request.token = Token::File(PathBuf::from(value()?)),
            other => {
                let suggestion = did_you_mean(other, TOP_VALUES.into_iter().chain(TOP_FLAGS));
                return Err(format!("unknown argument `{other}` of top.{suggestion}"));
            }
        }
    }
    if request.url.is_none() && request.token != Token::Random {
        return Err(
            "--token and --token-file of top need --url: sessions on this machine are found without them".to_owned()
        );
    }
    Ok(Some(request))
}

fn sort(given: &str) -> Result<Sort, String> {
    match given {
        "cpu" => Ok(Sort::Cpu),
        "memory" => Ok(Sort::Memory),
        "name" => Ok(Sort::Name),
        other => Err(format!(
            "--sort needs cpu, memory or name, not `{other}`.{}",
            did_you_mean(other, ["cpu", "memory", "name"])
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Option<Request>, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_are_read_and_mistakes_are_named() {
        let request = parsed("--once --json --sort memory --url http://127.0.0.1:7 --token abc").unwrap().unwrap();
        assert_eq!((request.is_once, request.form, request.sort), (true, Form::Json, Sort::Memory));
        assert_eq!(request.token, Token::Given("abc".into()));
        assert!(parsed("--sort cpu --help").unwrap().is_none());
        for (line, wanted) in [
            ("--sort", "--sort needs a value"),
            ("--sort mem", "--sort needs cpu, memory or name, not `mem`."),
            ("--onec", "unknown argument `--onec` of top. Did you mean `--once`?"),
            ("x", "unknown argument `x` of top."),
            ("--token a", "need --url"),
            ("--url u --token a --token-file b", "give one of them, once"),
        ] {
            let problem = parsed(line).map(|_| ()).unwrap_err();
            assert!(problem.contains(wanted), "{line}: {problem}");
        }
    }
}
