//! No value is shown anywhere.

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
            help::report(&loaded),
            texts(&loaded).join("\n")
        );
        assert!(!seen.contains(MARKER), "{seen}");
        assert_eq!(loaded.config.is_none(), bad);
    }
}

#[test]
fn no_problem_shows_a_value_of_any_variable() {
    for key in KEYS {
        for value in
            [MARKER.to_owned(), format!("[\"{MARKER}\"]"), format!("{{\"{MARKER}\":1}}"), format!("http://{MARKER}:x")]
        {
            for problem in from(&[(key.name, &value)]).problems {
                assert!(!problem.to_string().contains(MARKER), "{problem}");
            }
        }
    }
}

#[test]
fn a_value_in_the_place_of_a_name_is_not_shown() {
    let lines = format!(
        "ECS_ENGINE_AUTH_DATA:{{\"r\":\"{MARKER}==\"}}\nECS_CLUSTER:{MARKER}=\nECS_{MARKER}{MARKER}\n\"auth\":\"{MARKER}=\n\"auth\":\"{MARKER}=\n"
    );
    let loaded = TempFile::new("place", lines.as_bytes()).load(&[]);
    let told = texts(&loaded);
    assert!(!told.join("").contains(MARKER), "{told:?}");
    assert!(
        told.iter().any(|text| text.starts_with("ECS_ENGINE_AUTH_DATA (") && text.contains("something else than ="))
    );
    assert_eq!(told.len(), 3, "{told:?}");
}
