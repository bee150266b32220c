//! No text shows a value.

use super::*;

#[test]
fn a_secret_is_seen_nowhere() {
    let secrets: Vec<&keys::Key> = KEYS.iter().filter(|key| key.kind.is_secret()).collect();
    assert!(secrets.len() >= 6);
    let good = format!(r#"{{"r":{{"password":"{MARKER}"}}}}"#);
    let proxy = format!("http://u:{MARKER}@p:1");
    for bad in [false, true] {
        let text = |key: &keys::Key| match key.kind {
            kind::Kind::SecretJson if bad => format!("'{good}'"),
            kind::Kind::SecretJson => good.clone(),
            kind::Kind::Proxy if bad => format!("ftp://{MARKER}"),
            kind::Kind::Proxy => proxy.clone(),
            _ => MARKER.to_owned(),
        };
        let pairs: Vec<(String, String)> = secrets.iter().map(|key| (key.name.to_owned(), text(key))).collect();
        let environment = Environment::new(pairs);
        let loaded = load_from(&[&environment], false, Vec::new());
        let seen = format!(
            "{loaded:?}\n{loaded:#?}\n{environment:?}\n{}\n{}",
            report::text(&loaded, false),
            texts(&loaded).join("\n")
        );
        assert!(!seen.contains(MARKER), "{seen}");
        assert_eq!(loaded.config.is_none(), bad);
    }
}

/// The problem shows the value of its variable, which cannot be a secret.
fn may_show_its_value(problem: &Problem) -> bool {
    let key = keys::find(&problem.variable).or_else(|| keys::find_json(&problem.variable));
    key.is_some_and(|key| !key.kind.is_secret()) && problem.shape.starts_with('`')
}

/// A document in any variable, and another line glued to its value.
#[test]
fn no_problem_shows_what_may_hold_a_secret() {
    for key in KEYS {
        let values = [
            format!("[\"{MARKER}\"]"),
            format!("{{\"{MARKER}\":1}}"),
            format!("{{{MARKER}:1}}"),
            format!("x{MARKER}="),
            format!("trueAWS_SECRET_ACCESS_KEY={MARKER}"),
            format!("http://me:{MARKER}@h:x"),
            MARKER.repeat(5),
        ];
        for value in values {
            // Names of attributes, tags and labels are shown, as in the values in effect.
            let is_name = key.kind == kind::Kind::Map && value.ends_with("\":1}");
            for problem in from(&[(key.name, &value)]).problems {
                let shown = problem.to_string();
                let is_hidden = !shown.contains(MARKER);
                assert!(is_hidden || (is_name && problem.shape.starts_with('`')), "{shown}");
            }
        }
        for problem in from(&[(key.name, MARKER)]).problems {
            assert!(!problem.to_string().contains(MARKER) || may_show_its_value(&problem), "{problem}");
        }
    }
}

/// Every variable, with an address of every form in it.
#[test]
fn no_password_in_an_address_is_shown() {
    let mut seen = 0;
    for key in KEYS.iter().filter(|key| !key.kind.is_secret()) {
        let mut values = vec![
            format!("https://me:{MARKER}@h.example:8443/p"),
            format!("tcp://me:{MARKER}@10.0.0.1:2375"),
            format!("[\"https://{MARKER}@h.example\"]"),
            format!("{{\"k\": \"see https://me:{MARKER}@h.example\"}}"),
        ];
        if matches!(key.kind, kind::Kind::Endpoint | kind::Kind::PlainEndpoint | kind::Kind::DockerHost) {
            values.extend([format!("me:{MARKER}@h.example"), format!("http://me:{MARKER}/@{MARKER}@h.example")]);
        }
        for value in values {
            let loaded = from(&[(key.name, &value)]);
            let report = report::text(&loaded, false);
            let all = format!("{report}{:?}{}", loaded.effective, texts(&loaded).join("\n"));
            assert!(!all.contains(MARKER), "{}={value}: {all}", key.name);
            seen += usize::from(report.contains("***@"));
        }
    }
    assert!(seen >= 20, "most of these values are in effect, without the password: {seen}");
    let loaded = from(&[("ECS_BACKEND_HOST", "https://me:hunter2@ecs.example:8443/x")]);
    assert!(report::text(&loaded, false).contains("ECS_BACKEND_HOST=https://***@ecs.example:8443/x  (environment)"));
}

proptest::proptest! {
    /// For any mixture of sources nothing panics, and no text shows a secret.
    #[test]
    fn no_mixture_of_sources_shows_a_value(
        rows in proptest::collection::vec((0..KEYS.len(), 0..SHAPES.len(), 0..4_usize), 0..12),
        noise in "[ -~\\n]{0,40}",
    ) {
        let (mut environment, mut lines, mut file, mut data) = (Vec::new(), String::new(), Vec::new(), Vec::new());
        for (row, shape, place) in rows {
            let key = &KEYS[row];
            let value = SHAPES[shape].replace('@', MARKER);
            match place {
                0 => environment.push((key.name, value)),
                1 => lines.push_str(&format!("{}={value}\n{noise}\n", key.name)),
                _ => {
                    let value = if place == 2 && shape % 2 == 0 { serde_json::Value::from(value).to_string() } else { value };
                    let members = if shape % 3 == 0 { &mut data } else { &mut file };
                    members.push(format!("\"{}\": {value}", key.json.unwrap_or(key.name)));
                }
            }
        }
        let environment = Environment::new(environment);
        let (env_file, mut problems) = EnvFile::parse("ecs.config", lines.as_bytes(), &environment);
        let (file, more) = Document::file("config.json", &format!("{{{}}}", file.join(",\n")));
        problems.extend(more);
        let user_data = format!("{{\"ECSAgentConfiguration\": {{{}}}}}", data.join(","));
        let (user_data, more) = Document::user_data(&user_data);
        problems.extend(more);
        let loaded = load_from(&[&environment, &env_file, &file, &user_data], false, problems);
        let shown: Vec<String> =
            loaded.problems.iter().filter(|problem| !may_show_its_value(problem)).map(ToString::to_string).collect();
        let shown = shown.join("\n");
        proptest::prop_assert!(!shown.contains(MARKER), "{shown}");
        proptest::prop_assert_eq!(loaded.config.is_none(), loaded.problems.iter().any(|problem| problem.is_fatal()));
        proptest::prop_assert!(!loaded.problems.iter().any(|problem| problem.place == "configuration"), "{shown}");
        let sources = format!("{environment:?}{env_file:?}{file:?}{user_data:?}");
        proptest::prop_assert!(!sources.contains(MARKER));
        // The host of a proxy is shown; its password is not.
        let is_hidden = |value: &&Effective| {
            let kind = keys::find(value.name).unwrap().kind;
            kind.is_secret() && kind != kind::Kind::Proxy
        };
        for value in loaded.effective.iter().filter(is_hidden) {
            proptest::prop_assert!(!format!("{value:?}").contains(MARKER), "{}", value.name);
        }
    }

    #[test]
    fn any_text_is_a_document_or_reported(text in "[\\[\\]{}\":,0-9a-zA-Z \\\\\n.-]{0,60}") {
        for (document, problems) in [Document::file("f", &text), Document::user_data(&text)] {
            let _ = load_from(&[&document], false, problems);
        }
        let wrapped = format!("{{\"ECSAgentConfiguration\": {text}}}");
        let _ = Document::user_data(&wrapped);
    }
}

/// Values in which `@` stands for the marker.
const SHAPES: [&str; 14] = [
    "@",
    "\"@\"",
    "'@'",
    "[\"@\"]",
    "[@",
    "{\"@\": \"@\"}",
    "{\"@\": 5}",
    "http://u:@@h:1",
    "ftp://@",
    "true",
    "-1",
    "5s",
    "[]",
    "{\"r\": {\"password\": \"@\"}}",
];

#[test]
fn a_value_in_the_place_of_a_name_is_not_shown() {
    let lines = format!(
        "ECS_ENGINE_AUTH_DATA:{{\"r\":\"{MARKER}==\"}}\nECS_CLUSTER:{MARKER}=\nECS_{MARKER}{MARKER}\n\"auth\":\"{MARKER}=\n\"auth\":\"{MARKER}=\n"
    );
    let loaded = TempFile::new("place", lines.as_bytes()).load(&[]);
    let shown = texts(&loaded);
    assert!(!shown.join("").contains(MARKER), "{shown:?}");
    assert!(shown.iter().any(|text| text.starts_with("ECS_ENGINE_AUTH_DATA (") && text.contains("followed by `:`")));
    assert_eq!(shown.len(), 4, "{shown:?}");
}

/// A directory as systemd makes it for `LoadCredential=`, removed afterwards.
struct Credentials(PathBuf);

impl Credentials {
    fn new(name: &str, content: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("ecs-credentials-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("ecs-engine-auth"), content).unwrap();
        Self(path)
    }

    /// Loads with a file that has another value.
    fn load(&self, environment: &[(&str, &str)]) -> Loaded {
        let name = self.0.file_name().unwrap().to_str().unwrap();
        let lines = b"ECS_ENGINE_AUTH_TYPE=docker\nECS_ENGINE_AUTH_DATA={\"of\":{\"file\":\"x\"}}\n";
        let file = TempFile::new(name, lines);
        file.load(&[&[("CREDENTIALS_DIRECTORY", self.0.to_str().unwrap())], environment].concat())
    }
}

impl Drop for Credentials {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// `LoadCredential=`: below the environment, above `ecs.config`.
#[test]
fn a_credential_of_systemd_takes_precedence_over_the_file() {
    let secret = format!("{{\"r.example\":\n  {{\"password\":\"{MARKER}\"}}}}");
    let credentials = Credentials::new("good", format!("{secret}\r\n").as_bytes());
    let loaded = credentials.load(&[]);
    assert_eq!(texts(&loaded), [""; 0]);
    assert!(!format!("{loaded:?}").contains(MARKER));
    let shown = loaded.effective.iter().find(|value| value.name == "ECS_ENGINE_AUTH_DATA").unwrap();
    assert!(shown.place.as_ref().unwrap().ends_with("-good/ecs-engine-auth"), "{shown:?}");
    assert_eq!(loaded.config.unwrap().engine_auth_data.unwrap().expose(), secret);
    let environment = credentials.load(&[("ECS_ENGINE_AUTH_DATA", r#"{"of":{"environment":"x"}}"#)]);
    assert!(environment.config.unwrap().engine_auth_data.unwrap().expose().contains("environment"));
}

#[test]
fn a_credential_that_cannot_be_used_is_one_problem() {
    let bad = Credentials::new("bad", b"{\"r\":\"\xff\"}");
    let loaded = bad.load(&[]);
    let text = texts(&loaded).join("\n");
    assert!(text.contains("ECS_ENGINE_AUTH_DATA") && text.contains("bytes that are not UTF-8"), "{text}");
    assert_eq!(loaded.problems.len(), 1);
    assert!(loaded.config.unwrap().engine_auth_data.unwrap().expose().contains("file"), "the file's value is used");
    std::fs::remove_file(bad.0.join("ecs-engine-auth")).unwrap();
    assert_eq!(texts(&bad.load(&[])), [""; 0], "a unit without this credential");
    std::fs::create_dir(bad.0.join("ecs-engine-auth")).unwrap();
    let text = texts(&bad.load(&[])).join("\n");
    assert!(text.contains("cannot be read: it is a directory"), "{text}");
}
