//! `ecs.config` as a file: its lines, its size, and files that cannot be read.

use super::*;

fn parse(text: &[u8]) -> (EnvFile, Vec<String>) {
    let environment = Environment::new([("FROM_ENV", "given")]);
    let (file, problems) = EnvFile::parse("f", text, &environment);
    (file, problems.iter().map(ToString::to_string).collect())
}

#[test]
fn lines_are_taken_verbatim() {
    let auth = r#"{"https://r.example:5000/v1/":{"auth":"dTpwPT0=","email":"a@b#c"}}"#;
    for (text, key, value) in [
        (format!("A={auth}"), "A", Some(auth)),
        (format!("A={auth}\r\nB=1\r\n"), "A", Some(auth)),
        ("A=x\r\r\n".to_owned(), "A", Some("x\r")),
        ("\u{feff}A=x".to_owned(), "A", Some("x")),
        ("  \t A=x".to_owned(), "A", Some("x")),
        ("A= x \t".to_owned(), "A", Some(" x \t")),
        ("A=\"x\"".to_owned(), "A", Some("\"x\"")),
        ("A='x'".to_owned(), "A", Some("'x'")),
        ("A=x # no comment".to_owned(), "A", Some("x # no comment")),
        ("#A=x".to_owned(), "A", None),
        ("   # A=x".to_owned(), "A", None),
        ("A=".to_owned(), "A", Some("")),
        ("A==".to_owned(), "A", Some("=")),
        ("A=b=c".to_owned(), "A", Some("b=c")),
        ("A=$HOME\\".to_owned(), "A", Some("$HOME\\")),
        ("A=gr\u{fc}\u{df} \u{1f600}".to_owned(), "A", Some("gr\u{fc}\u{df} \u{1f600}")),
        ("FROM_ENV".to_owned(), "FROM_ENV", Some("given")),
        ("\n\n\nA=x\n".to_owned(), "A", Some("x")),
        (String::new(), "A", None),
    ] {
        let (file, problems) = parse(text.as_bytes());
        assert_eq!(file.get(key).as_deref(), value, "{text:?}");
        assert!(problems.is_empty(), "{text:?}: {problems:?}");
    }
}

#[test]
fn a_file_in_a_wide_encoding_is_refused_as_a_whole() {
    for wide in [u16::to_le_bytes as fn(u16) -> [u8; 2], u16::to_be_bytes] {
        let bytes: Vec<u8> = "\u{feff}ECS_CLUSTER=hunter2\n".encode_utf16().flat_map(wide).collect();
        let (file, problems) = EnvFile::parse("f", &bytes, &Environment::default());
        assert!(file.keys().is_empty());
        assert!(problems.len() == 1 && problems[0].is_fatal(), "{problems:?}");
        let text = problems[0].to_string();
        assert!(text.contains("UTF-16 or UTF-32 text; expected UTF-8 text: save the file as UTF-8"), "{text}");
        assert!(!text.contains("hunter2"));
    }
}

#[test]
fn a_bad_line_is_reported_and_the_others_are_taken() {
    for (line, part) in [
        (&b"export B=1"[..], "a line that begins with export"),
        (b"B =1", "white space in the name"),
        (b"B\t=1", "white space in the name"),
        (b"=1", "begins with ="),
        (b"B=\xff\xfe", "bytes that are not UTF-8"),
        (b"some words", "white space in the name"),
    ] {
        let (file, problems) = parse(&[b"A=1\n", line, b"\nC=3"].concat());
        assert_eq!((file.get("A").as_deref(), file.get("C").as_deref()), (Some("1"), Some("3")));
        assert_eq!(file.get("B"), None);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("(f:2): ") && problems[0].contains(part), "{problems:?}");
    }
    let (file, problems) = parse(b"A=1\nA=2");
    assert_eq!((file.get("A").as_deref(), file.place("A").as_str()), (Some("2"), "f:2"));
    assert_eq!(problems, ["(f:2): a name again, first in line 1; expected each name once; the last one counts"]);
}

#[test]
fn a_value_of_ten_megabytes_is_one_value() {
    let secret = format!(r#"{{"r":"{}"}}"#, MARKER.repeat(10 << 20 >> 4));
    let file = TempFile::new(
        "big",
        format!("ECS_ENGINE_AUTH_TYPE=docker\nECS_ENGINE_AUTH_DATA={secret}\nECS_CLUSTER=c").as_bytes(),
    );
    let config = file.load(&[]).config.unwrap();
    assert_eq!(config.engine_auth_data.unwrap().expose(), secret);
    assert_eq!(config.cluster.as_deref(), Some("c"));
    let file = TempFile::new("big2", format!("ECS_LOGLEVEL={secret}\nECS_{secret}=1").as_bytes());
    for problem in file.load(&[]).problems {
        assert!(problem.to_string().len() < 400, "a problem repeats the input");
    }
}

#[test]
fn files_that_cannot_be_read() {
    let environment = Environment::default();
    let absent = Path::new("/nonexistent/ecs.config");
    assert!(EnvFile::open(absent, false, &environment).1.is_empty(), "the default file may be absent");
    for (path, named) in
        [(absent, true), (Path::new("/"), true), (Path::new("/"), false), (Path::new("/dev/zero"), true)]
    {
        let problems = EnvFile::open(path, named, &environment).1;
        assert!(problems.len() == 1 && problems[0].is_fatal(), "{path:?} {problems:?}");
    }
    let loaded = load(Environment::new([("ECS_CONFIG_FILE", "/nonexistent/x"), ("ECS_LOGLEVEL", "loud")]));
    assert!(loaded.config.is_none());
    assert_eq!(loaded.problems.len(), 2, "the rest is still checked");
}

#[cfg(unix)]
#[test]
fn an_environment_that_is_not_text() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    let bytes = || OsString::from_vec(vec![0xff]);
    let environment = Environment::new([(OsString::from("ECS_CLUSTER"), bytes()), (OsString::from("OTHER"), bytes())]);
    let loaded = load_from(&[&environment], false, environment.problems());
    assert_eq!(
        texts(&loaded),
        ["ECS_CLUSTER (environment): bytes that are not UTF-8; expected UTF-8 text; the agent does not start"]
    );
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        let _ = EnvFile::parse("f", &bytes, &Environment::default());
    }

    #[test]
    fn any_values_are_loaded(values in proptest::collection::vec((0..KEYS.len(), "[\\[\\]{}\":,0-9a-z./ -]{0,20}"), 0..8)) {
        let environment = Environment::new(values.iter().map(|(row, value)| (KEYS[*row].name, value.as_str())));
        let loaded = load_from(&[&environment], false, Vec::new());
        proptest::prop_assert_eq!(loaded.config.is_none(), loaded.problems.iter().any(|problem| problem.is_fatal()));
        proptest::prop_assert!(!loaded.problems.iter().any(|problem| problem.place == "configuration"));
    }
}

/// The health check asks a running agent, which read its configuration at its start.
#[test]
fn the_host_of_the_health_check_needs_no_usable_configuration() {
    let host = |path: &str, more: &[(&str, &str)]| {
        let environment = [&[("ECS_CONFIG_FILE", path)], more].concat();
        let sources = Sources::open(Environment::new(environment), Role::Agent);
        (sources.load(None).config.is_some(), sources.healthcheck_host())
    };
    let named = [("ECS_AGENT_HEALTHCHECK_HOST", "127.0.0.2")];
    // A file that cannot be opened.
    assert_eq!(host("/nonexistent/x", &[]), (false, "localhost".to_owned()));
    assert_eq!(host("/nonexistent/x", &named), (false, "127.0.0.2".to_owned()));
    // A value that keeps the agent from starting.
    let wrong = TempFile::new("wrong-attributes", b"ECS_INSTANCE_ATTRIBUTES={\nECS_AGENT_HEALTHCHECK_HOST=127.0.0.3\n");
    assert_eq!(host(wrong.0.to_str().unwrap(), &[]), (false, "127.0.0.3".to_owned()));
    let well = TempFile::new("well", b"ECS_AGENT_HEALTHCHECK_HOST=127.0.0.3\n");
    assert_eq!(host(well.0.to_str().unwrap(), &[]), (true, "127.0.0.3".to_owned()));
    assert_eq!(host(well.0.to_str().unwrap(), &named), (true, "127.0.0.2".to_owned()));
}
