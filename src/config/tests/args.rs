//! The command line: flags as Go reads them, commands, and errors.

use crate::config::args::{Action, Args, ArgsError};
use crate::config::flags::{FLAGS, SHELLS};
use crate::config::{LogLevel, Role};
use std::ffi::OsString;

fn parse(line: &str) -> Result<Args, ArgsError> {
    Args::parse(line.split_whitespace())
}

#[test]
fn flags_are_read_as_go_reads_them() {
    for (line, action) in [
        ("", Action::Run),
        ("-version", Action::Version),
        ("--version", Action::Version),
        ("-version=true", Action::Version),
        ("-version=false", Action::Run),
        ("-version -version=0", Action::Run),
        ("--version -license", Action::License),
        ("-healthcheck", Action::Healthcheck),
        ("--healthcheck=true", Action::Healthcheck),
        ("-healthcheck=http", Action::HealthcheckHttp),
        ("-healthcheck=http -healthcheck", Action::Healthcheck),
        ("-healthcheck=http -healthcheck=false", Action::Run),
        ("-healthcheck http", Action::Healthcheck),
        ("-healthcheck=http -version", Action::Version),
        ("--help -version", Action::Help),
        ("-h", Action::Help),
        ("-ecs-attributes", Action::EcsAttributes),
        ("--check-config", Action::CheckConfig),
        ("-config-reference", Action::ConfigReference),
        ("--", Action::Run),
        // Go ignores everything from the first word on.
        ("-version start -nonsense", Action::Version),
        ("-ecs-attributes version", Action::EcsAttributes),
        ("-license -- -version", Action::License),
    ] {
        assert_eq!(parse(line).unwrap().action, action, "{line:?}");
    }
}

/// Every command, with and without dashes; those with arguments have them.
#[test]
fn a_command_is_a_word_or_a_flag() {
    for flag in FLAGS.iter().filter(|flag| flag.is_command()) {
        let argument = if flag.name == "completion" { "zsh" } else { "" };
        let parsed = |dashes: &str| parse(&format!("{dashes}{} {argument}", flag.name)).unwrap();
        let args = parsed("");
        assert_ne!(args.action, Action::Run, "{}", flag.name);
        assert_eq!((&parsed("-"), &parsed("--")), (&args, &args), "{}", flag.name);
        // Flags may stand on either side.
        let before = parse(&format!("-service {} {argument}", flag.name)).unwrap();
        let after = parse(&format!("{} {argument} -service", flag.name)).unwrap();
        assert_eq!((before.action, before.role), (args.action, Role::Service), "{}", flag.name);
        assert_eq!(after, before, "{}", flag.name);
    }
    for (name, shell) in SHELLS {
        assert_eq!(parse(&format!("completion {name}")).unwrap().shell, shell);
    }
    assert_eq!(parse("healthcheck=http").unwrap().action, Action::HealthcheckHttp);
}

#[test]
fn help_is_about_the_command_beside_it() {
    for (line, topic) in [
        ("help", None),
        ("-help", None),
        ("help check-config", Some("check-config")),
        ("check-config -help", Some("check-config")),
        ("check-config FILE -h", Some("check-config")),
        ("-help check-config", Some("check-config")),
        ("help completion", Some("completion")),
        ("healthcheck -help", Some("healthcheck")),
        ("help -strict check-config", Some("check-config")),
    ] {
        let args = parse(line).unwrap();
        assert_eq!((args.action, args.topic), (Action::Help, topic), "{line}");
    }
    assert_eq!(parse("help vershun").unwrap_err().hint().split('?').next(), Some("Did you mean version"));
}

#[test]
fn files_belong_to_check_config() {
    for (line, files) in [
        ("check-config", &[][..]),
        ("check-config a b", &["a", "b"]),
        ("-check-config a", &["a"]),
        ("--check-config a -strict b", &["a", "b"]),
        ("check-config version", &["version"]),
        ("check-config -- -a", &["-a"]),
        ("check-config -", &["-"]),
    ] {
        let args = parse(line).unwrap();
        assert_eq!((args.action, args.strict), (Action::CheckConfig, line.contains("-strict")), "{line}");
        assert_eq!(args.files, files, "{line}");
    }
    assert!(parse("-json check-config").unwrap().json);
    assert!(parse("check-config -all x").unwrap().all && !parse("check-config x").unwrap().all);
}

#[test]
fn switches_and_levels() {
    let args = parse("-k --blackhole-ec2-metadata -loglevel DEBUG").unwrap();
    assert!(args.accept_insecure_cert && args.blackhole_ec2_metadata && args.notes.is_empty());
    assert_eq!(args.log_level, Some(LogLevel::Debug));
    assert_eq!(parse("--loglevel=none").unwrap().log_level, Some(LogLevel::None));
    // The word after a flag with a value is that value, whatever it looks like.
    let args = parse("-loglevel -k").unwrap();
    assert_eq!((args.log_level, args.accept_insecure_cert), (None, false));
    let notes: Vec<String> = args.notes.iter().map(ToString::to_string).collect();
    let expected = "expected one of debug, info, warn, error, crit, none; it is ignored";
    assert_eq!(notes, [format!("-loglevel (command line): `-k`; {expected}")]);
    assert_eq!(parse("-windows-service -loglevel-driver=loud -version x").unwrap().notes.len(), 3);
}

#[test]
fn flags_that_go_refuses_end_with_code_5() {
    for (line, error) in [
        ("-nope", ArgsError::Unknown("nope".to_owned())),
        ("--nope=1", ArgsError::Unknown("nope".to_owned())),
        ("check-config -nope", ArgsError::Unknown("nope".to_owned())),
        ("---version", ArgsError::Syntax("---version".to_owned())),
        ("-=x", ArgsError::Syntax("-=…".to_owned())),
        ("---password=hunter2", ArgsError::Syntax("---password=…".to_owned())),
        ("-loglevel", ArgsError::NoValue("loglevel")),
        ("-k=perhaps", ArgsError::NotBoolean("k")),
        ("-version=", ArgsError::NotBoolean("version")),
        ("-version=http", ArgsError::NotBoolean("version")),
        ("-healthcheck=https", ArgsError::NotHealthcheck),
        ("-healthcheck=", ArgsError::NotHealthcheck),
        ("-strict", ArgsError::OnlyFor("strict", "check-config")),
        ("version -json", ArgsError::OnlyFor("json", "check-config")),
        ("-undo", ArgsError::OnlyFor("undo", "host-setup")),
        ("check-config -print", ArgsError::OnlyFor("print", "host-setup")),
        ("-all", ArgsError::OnlyFor("all", "check-config")),
    ] {
        assert_eq!(parse(line), Err(error.clone()), "{line:?}");
        assert_eq!(error.exit_code(), 5, "{line:?}");
    }
}

#[test]
fn words_that_name_no_command_end_with_code_2() {
    let unknown = |word: &str| ArgsError::UnknownCommand(word.to_owned());
    for (line, error) in [
        ("start", unknown("start")),
        ("start -version", unknown("start")),
        ("- -version", unknown("-")),
        ("-- -version", unknown("-version")),
        ("-k x", unknown("x")),
        ("k", unknown("k")),
        ("loglevel debug", unknown("loglevel")),
        ("AWS_SECRET_ACCESS_KEY=hunter2", unknown("AWS_SECRET_ACCESS_KEY")),
        ("version x", ArgsError::Unexpected("x".to_owned())),
        ("man extra", ArgsError::Unexpected("extra".to_owned())),
        ("help foo", ArgsError::UnknownTopic("foo".to_owned())),
        ("help SECRET=hunter2", ArgsError::UnknownTopic("SECRET".to_owned())),
        ("help version x", ArgsError::Unexpected("x".to_owned())),
        ("version=false", ArgsError::SwitchedOff("version")),
        ("check-config -check-config=false", ArgsError::SwitchedOff("check-config")),
        ("check-config -check-config=false /etc/ecs/ecs.config", ArgsError::SwitchedOff("check-config")),
        ("-check-config FILE -check-config=false", ArgsError::SwitchedOff("check-config")),
        ("healthcheck -healthcheck=false", ArgsError::SwitchedOff("healthcheck")),
        ("completion zsh x", ArgsError::Unexpected("x".to_owned())),
        ("completion", ArgsError::NoShell),
        ("completion csh", ArgsError::NoShell),
        ("-completion=true", ArgsError::NoShell),
    ] {
        assert_eq!(parse(line), Err(error.clone()), "{line:?}");
        assert_eq!(error.exit_code(), 2, "{line:?}");
    }
}

#[test]
fn every_error_is_two_lines_with_a_suggestion() {
    for (line, meant) in [
        ("-verison", Some("Did you mean -version? ")),
        ("--log-level=debug", Some("Did you mean -loglevel? ")),
        ("-healtcheck", Some("Did you mean -healthcheck? ")),
        ("-chekc-config", Some("Did you mean -check-config? ")),
        ("check", Some("Did you mean check-config? ")),
        ("Version", Some("Did you mean version? ")),
        ("vershun", Some("Did you mean version? ")),
        ("version verbose", None),
        ("help foo", None),
        ("help chek-config", Some("Did you mean check-config? ")),
        ("-all", Some("Did you mean check-config -all? ")),
        ("start", Some("Without a command, the agent runs. ")),
        ("-strict", Some("Did you mean check-config -strict? ")),
        ("-undo", Some("Did you mean host-setup -undo? ")),
        ("-nonsense", None),
        ("-loglevel", None),
        ("-k=2", None),
        ("completion", None),
        ("version \u{1b}[2J", None),
    ] {
        let error = parse(line).unwrap_err();
        let text = format!("{error}\n{}", error.hint());
        assert_eq!(text.lines().count(), 2, "{line}: {text}");
        assert!(!text.contains('\u{1b}') && text.len() < 250, "{line}: {text}");
        assert_eq!(error.hint(), format!("{}`ecs-agent help` lists all commands and flags.", meant.unwrap_or("")));
    }
    let long = Args::parse([format!("-{}\n", "x\n".repeat(100_000))]).unwrap_err();
    assert!(long.to_string().len() < 200 && long.to_string().lines().count() == 1, "{long}");
}

#[test]
fn bytes_that_are_no_text_are_an_error() {
    use std::os::unix::ffi::OsStringExt;
    assert_eq!(Args::parse([OsString::from_vec(vec![b'-', 0xff])]), Err(ArgsError::NotText));
}
