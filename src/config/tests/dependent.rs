//! Variables that depend on each other.

use super::*;

#[test]
fn a_checkpoint_follows_the_data_directory_unless_it_was_set() {
    assert!(config(&[("ECS_DATADIR", "/d")]).checkpoint);
    assert!(!config(&[("ECS_DATADIR", "/d"), ("ECS_CHECKPOINT", "false")]).checkpoint);
    assert!(config(&[("ECS_CHECKPOINT", "true")]).checkpoint);
    assert!(config(&[("ECS_DATADIR", "/d"), ("ECS_CHECKPOINT", "dunno")]).checkpoint);
    assert!(!config(&[("ECS_DATADIR", "")]).checkpoint);
}

#[test]
fn half_of_the_registry_settings_is_reported() {
    let problem_texts = |environment: &[(&str, &str)]| texts(&from(environment));
    assert!(problem_texts(&[("ECS_ENGINE_AUTH_TYPE", "docker")])[0].contains("set without ECS_ENGINE_AUTH_DATA"));
    assert!(problem_texts(&[("ECS_ENGINE_AUTH_DATA", "{}")])[0].contains("set without ECS_ENGINE_AUTH_TYPE"));
    // A half that is set but cannot be used is one problem, not two.
    assert_eq!(problem_texts(&[("ECS_ENGINE_AUTH_TYPE", "docker"), ("ECS_ENGINE_AUTH_DATA", "{")]).len(), 1);
    assert_eq!(problem_texts(&[("ECS_ENGINE_AUTH_TYPE", "basic"), ("ECS_ENGINE_AUTH_DATA", "{}")]).len(), 1);
}

#[test]
fn access_keys_are_taken_from_one_source_and_whole() {
    let file = TempFile::new("keys", b"AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=b\nAWS_SESSION_TOKEN=c\n");
    let taken = |environment: &[(&str, &str)]| {
        let loaded = file.load(environment);
        let config = loaded.config.unwrap();
        let keys = [config.access_key_id, config.secret_access_key, config.session_token];
        let keys = keys.map(|key| key.map_or_else(String::new, |key| key.expose().to_owned())).join(" ");
        (keys, loaded.problems.len())
    };
    assert_eq!(taken(&[]), ("a b c".to_owned(), 0));
    assert_eq!(taken(&[("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "y")]), ("x y ".to_owned(), 1));
    assert_eq!(taken(&[("AWS_ACCESS_KEY_ID", "x")]), ("  ".to_owned(), 1), "one mistake is one problem");
    assert_eq!(taken(&[("AWS_SESSION_TOKEN", "z")]), ("a b ".to_owned(), 1));
    let both = file.load(&[("AWS_ACCESS_KEY_ID", "x")]).problems.remove(0).to_string();
    let path = file.0.display();
    assert!(
        both.contains(&format!(
            "(environment): AWS_ACCESS_KEY_ID is from environment, AWS_SECRET_ACCESS_KEY from {path};"
        )),
        "{both}"
    );
    assert!(both.contains("neither of them is used, nor a token beside them, and the AWS SDK looks for"), "{both}");
}

#[test]
fn proxies_follow_the_go_agent() {
    let proxy = |environment: &[(&str, &str)]| config(environment).proxy();
    let both = proxy(&[("HTTP_PROXY", "http://a:1"), ("http_proxy", "http://b:1")]);
    assert_eq!(both.http.as_ref().map(ecs_core::model::Secret::expose), Some("http://a:1"));
    assert_eq!(both.https, both.http, "https falls back to the http proxy");
    let two = proxy(&[("http_proxy", "a:1"), ("HTTPS_PROXY", "https://b:1"), ("NO_PROXY", "x,.y")]);
    assert_eq!(two.https.unwrap().expose(), "https://b:1");
    assert_eq!(two.no_proxy, "x,.y");
    assert_eq!(
        proxy(&[("no_proxy", "x"), ("NO_PROXY", "")]).no_proxy,
        "x,169.254.169.254,169.254.170.2,/var/run/docker.sock"
    );
}

#[test]
fn polling_has_limits_only_while_it_is_on() {
    let wait = |environment: &[(&str, &str)]| {
        let source = Environment::new(environment.iter().copied());
        let value = after_rules(&[&source], false, "ECS_POLLING_METRICS_WAIT_DURATION");
        let is_kept = environment[0].1 == value;
        assert_eq!(from(environment).problems.is_empty(), is_kept, "{environment:?}");
        value
    };
    let name = "ECS_POLLING_METRICS_WAIT_DURATION";
    assert_eq!(wait(&[(name, "1s")]), "1s");
    assert_eq!(wait(&[(name, "4999ms"), ("ECS_POLL_METRICS", "true")]), "5s");
    assert_eq!(wait(&[(name, "20s"), ("ECS_POLL_METRICS", "true")]), "20s");
    assert_eq!(wait(&[(name, "21s"), ("ECS_POLL_METRICS", "true")]), "20s");
}

#[test]
fn prometheus_takes_its_port_from_the_tasks() {
    assert!(!config(&[]).reserved_ports.contains(&51680));
    let on = ("ECS_ENABLE_PROMETHEUS_METRICS", "true");
    assert_eq!(config(&[on]).reserved_ports, [22, 2375, 2376, 51678, 51679, 51680]);
    assert_eq!(config(&[on, ("ECS_RESERVED_PORTS", "[51680, 80]")]).reserved_ports, [51680, 80]);
    // Compat: only the environment turns it on.
    let loaded = layered(&[], r#"{"PrometheusMetricsEnabled": true}"#, "");
    assert!(texts(&loaded)[0].contains("expected ECS_ENABLE_PROMETHEUS_METRICS"), "{:?}", texts(&loaded));
    assert!(!loaded.config.unwrap().reserved_ports.contains(&51680));
}

/// The value in effect, as shown.
fn shown(loaded: &Loaded, name: &str) -> String {
    let value = loaded.effective.iter().find(|value| value.name == name);
    value.and_then(|value| value.value.clone()).unwrap_or_default()
}

#[test]
fn trunking_needs_interfaces_for_tasks() {
    let name = "ECS_ENABLE_HIGH_DENSITY_ENI";
    let trunking =
        |environment: &[(&str, &str)]| after_rules(&[&Environment::new(environment.iter().copied())], false, name);
    assert!(trunking(&[(name, "true")]).starts_with("false"));
    assert_eq!(trunking(&[(name, "true"), ("ECS_ENABLE_TASK_ENI", "true")]), "true");
    assert_eq!(trunking(&[(name, "false"), ("ECS_ENABLE_TASK_ENI", "true")]), "false");
}

#[test]
fn service_accounts_need_a_fetcher_and_a_domain_or_a_secret() {
    let there = std::env::temp_dir().to_string_lossy().into_owned();
    let directory = ("CREDENTIALS_FETCHER_HOST_DIR", there.as_str());
    let absent = ("CREDENTIALS_FETCHER_HOST_DIR", "/nonexistent/socket");
    let secret = ("CREDENTIALS_FETCHER_SECRET_NAME_FOR_DOMAINLESS_GMSA", "s");
    let joined = ("ECS_DOMAIN_JOINED_LINUX_INSTANCE", "true");
    let skip = ("ZZZ_SKIP_DOMAIN_JOIN_CHECK_NOT_SUPPORTED_IN_PRODUCTION", "true");
    for (environment, on, in_domain) in [
        (&[][..], false, false),
        (&[directory], true, false),
        (&[joined], false, false),
        (&[absent, joined], false, false),
        (&[directory, joined], true, true),
        (&[directory, secret], true, true),
        (&[skip], true, true),
    ] {
        let environment = [environment, &[("ECS_GMSA_SUPPORTED", "true")]].concat();
        let loaded = from(&environment);
        assert_eq!(shown(&loaded, "ECS_GMSA_SUPPORTED") == "true", on, "{environment:?}");
        assert_eq!(loaded.problems.len(), usize::from(!in_domain), "{environment:?}");
        let config = loaded.config.unwrap();
        assert_eq!((config.gmsa, config.gmsa_in_domain()), (on, in_domain), "{environment:?}");
    }
}

/// Outside EC2, no identity document is sent either.
#[test]
fn outside_ec2_the_region_must_be_in_the_environment() {
    let external = ("ECS_EXTERNAL", "true");
    let loaded = from(&[external, ("AWS_DEFAULT_REGION", "eu-north-1")]);
    assert!(loaded.config.unwrap().no_identity_document);
    let loaded = layered(&[external], r#"{"AWSRegion": "eu-north-1"}"#, "");
    assert!(loaded.config.is_none(), "the Go agent asks for the region before it reads the file");
    let loaded = layered(&[], r#"{"AWSRegion": "eu-north-1", "External": true}"#, "");
    assert!(loaded.config.unwrap().no_identity_document);
    assert!(!config(&[]).no_identity_document);
}
