//! Precedence of sources, and the places in problems.

use super::*;

#[test]
fn all_problems_come_at_once_with_their_places() {
    let file = TempFile::new(
        "all",
        b"# a comment\nECS_LOGLEVEL=loud\nECS_RESERVED_MEMORY=lots\nexport ECS_CLUSTER=x\nECS_INSTANCE_ATTRIBUTES={\nECS_CLUSTR=x\n",
    );
    let loaded = file.load(&[("ECS_IMAGE_PULL_BEHAVIOR", "sometimes"), ("ECS_CHECKPOINT", "perhaps")]);
    let path = file.0.display();
    let all = texts(&loaded).join("\n");
    for part in [
        format!("({path}:4): a line that begins with export"),
        format!(
            "ECS_LOGLEVEL ({path}:2): `loud`; expected one of debug, info, warn, error, crit, none; the default `info` is used"
        ),
        format!("ECS_RESERVED_MEMORY ({path}:3)"),
        format!("ECS_INSTANCE_ATTRIBUTES ({path}:5): a text of 1 character, not valid JSON at column 1"),
        format!(
            "ECS_CLUSTR ({path}:6): not a variable of this agent; expected a name that `ecs-agent help` lists; did you mean ECS_CLUSTER?"
        ),
        "ECS_IMAGE_PULL_BEHAVIOR (environment)".to_owned(),
        "ECS_CHECKPOINT (environment)".to_owned(),
    ] {
        assert!(all.contains(&part), "{part}\nnot in\n{all}");
    }
    assert_eq!(loaded.problems.len(), 7, "{all}");
    assert!(loaded.config.is_none());
}

#[test]
fn the_environment_takes_precedence_field_by_field() {
    let file = TempFile::new(
        "order",
        b"ECS_CLUSTER=file\nECS_LOGLEVEL=debug\nECS_DATADIR=/state\nECS_CONTAINER_STOP_TIMEOUT=2m\n",
    );
    let loaded = file.load(&[("ECS_CLUSTER", "env"), ("ECS_LOGLEVEL", ""), ("ECS_CONTAINER_STOP_TIMEOUT", "never")]);
    assert_eq!(loaded.problems.len(), 1);
    assert!(loaded.problems[0].to_string().ends_with(&format!("the value of {}:4 is used", file.0.display())));
    let config = loaded.config.unwrap();
    assert_eq!(config.cluster.as_deref(), Some("env"));
    assert_eq!(config.log_level, LogLevel::Debug);
    assert_eq!(config.container_stop_timeout, Span::secs(120));
    assert!(config.checkpoint, "a data directory turns the checkpoint on");
}

/// systemd removes quotes from the values of an environment file.
#[test]
fn a_document_without_its_quotes_is_read_from_the_file() {
    let file = TempFile::new(
        "unit",
        br#"ECS_ENGINE_AUTH_TYPE=docker
ECS_ENGINE_AUTH_DATA={"r":{"password":"x"}}
"#,
    );
    let loaded = file.load(&[("ECS_ENGINE_AUTH_TYPE", "docker"), ("ECS_ENGINE_AUTH_DATA", "{r:{password:x}}")]);
    assert_eq!(loaded.problems.len(), 1);
    assert_eq!(loaded.config.unwrap().engine_auth_data.unwrap().expose(), r#"{"r":{"password":"x"}}"#);
}

#[test]
fn unsupported_features_are_named_when_they_are_set() {
    let loaded = from(&[
        ("ECS_EBSTA_SUPPORTED", "true"),
        ("ECS_ENABLE_TASK_IAM_ROLE", "false"),
        ("ECS_UPDATES_ENABLED", "true"),
        ("ECS_IMAGE_CLEANUP_INTERVAL", "1800s"),
        ("ECS_AGENT_LABELS", "{}"),
    ]);
    let names: Vec<&str> = loaded.unused_at(Stage::Later).map(|unused| unused.key.name).collect();
    assert_eq!(names, ["ECS_UPDATES_ENABLED", "ECS_EBSTA_SUPPORTED"]);
    assert!(loaded.problems.is_empty(), "{:?}", texts(&loaded));
}

#[test]
fn foreign_names_are_ignored_and_misspelt_ones_reported_once() {
    let file = TempFile::new("names", b"ECS_CLUSTR=x\necs_cluster=y\nECS_CONFIG_FILE=p\nMY_OWN=z\n");
    let loaded = file.load(&[("ECS_CLUSTR", "x"), ("ECS_CONTAINER_METADATA_URI_V4", "http://x"), ("PATH", "/bin")]);
    let shown = texts(&loaded);
    assert_eq!(shown.len(), 3, "{shown:?}");
    assert!(shown[0].starts_with("ECS_CONFIG_FILE") && shown[0].contains("set where it is not read"), "{shown:?}");
    assert!(shown[1].starts_with("ECS_CLUSTR (environment)"), "{shown:?}");
    assert!(shown[2].starts_with("ecs_cluster (") && shown[2].contains("did you mean ECS_CLUSTER?"), "{shown:?}");
}

/// A variable that the environment has is not taken from the file.
#[test]
fn variables_of_libraries_are_taken_from_the_file() {
    let file = TempFile::new("process", b"AWS_PROFILE=p\nSSL_CERT_DIR=/certs\nAWS_CONFIG_FILE=\nECS_CLUSTER=c\n");
    let path = file.0.to_str().unwrap();
    let variables = |more: &[(&str, &str)]| {
        let environment = Environment::new([&[("ECS_CONFIG_FILE", path)], more].concat());
        let sources = Sources::open(environment, Role::Agent);
        assert!(texts(&sources.load(None)).is_empty());
        let variables = sources.process_variables();
        variables.iter().map(|(name, value)| format!("{name}={}", value.expose())).collect::<Vec<_>>()
    };
    assert_eq!(variables(&[]), ["AWS_PROFILE=p", "SSL_CERT_DIR=/certs"]);
    assert_eq!(variables(&[("AWS_PROFILE", "mine"), ("SSL_CERT_DIR", "/c")]), [""; 0]);
}
