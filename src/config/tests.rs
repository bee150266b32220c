//! Loading as a whole: sources in, typed configuration and problems out.

use super::*;
use crate::model::Span;
use serde::Deserialize;
use std::path::PathBuf;

const MARKER: &str = "hunter2-do-not-show";

/// A file of its own for one test, removed afterwards.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("ecs-config-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }

    fn load(&self, environment: &[(&str, &str)]) -> Loaded {
        let path = self.0.to_str().unwrap().to_owned();
        let variables = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        load(&Environment::new(variables.chain([("ECS_CONFIG_FILE".to_owned(), path)])))
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn from(environment: &[(&str, &str)]) -> Loaded {
    let environment = Environment::new(environment.iter().copied());
    load_from(&[&environment], environment.problems())
}

fn config(environment: &[(&str, &str)]) -> Config {
    from(environment).config.expect("not fatal")
}

fn texts(loaded: &Loaded) -> Vec<String> {
    loaded.problems.iter().map(ToString::to_string).collect()
}

/// The value in effect, as text, and the number of problems.
fn effect(name: &str, value: &str) -> (Option<String>, Vec<String>) {
    let environment = Environment::new([(name, value)]);
    let mut problems = Vec::new();
    let values = resolve::resolve(&[&environment], &mut problems);
    (values.get(name).map(|value| value.canonical.clone()), problems.iter().map(ToString::to_string).collect())
}

#[test]
fn nothing_set_gives_the_defaults_and_no_word() {
    let loaded = from(&[]);
    assert!(loaded.problems.is_empty() && loaded.unbuilt.is_empty(), "{loaded:?}");
    let config = loaded.config.unwrap();
    assert_eq!(config.data_dir, PathBuf::from("/data/"));
    assert!(!config.checkpoint && !config.external && config.exclude_ipv6_port_binding);
    assert_eq!(config.cluster, None);
    assert_eq!(config.docker_host, "unix:///var/run/docker.sock");
    assert_eq!(config.detailed_os_family, "LINUX");
    assert_eq!(config.reserved_ports, [22, 2375, 2376, 51678, 51679]);
    assert_eq!(config.reserved_ports_udp, Vec::<u16>::new());
    assert_eq!(config.logging_drivers, ["json-file", "none"]);
    assert_eq!(config.task_cleanup_wait, Span::secs(3 * 3600));
    assert_eq!(config.task_cleanup_wait_jitter, Span::secs(0));
    assert_eq!(config.container_stop_timeout, Span::secs(30));
    assert_eq!(config.container_start_timeout, Span::secs(180));
    assert_eq!(config.container_create_timeout, Span::secs(240));
    assert_eq!(config.image_pull_timeout, Span::secs(7200));
    assert_eq!(config.image_pull_behavior, ImagePullBehavior::Default);
    assert_eq!((config.log_level, config.log_format), (LogLevel::Info, LogFormat::Logfmt));
    assert_eq!(config.dynamic_host_port_range, None);
    assert_eq!(config.imds_endpoint, "http://169.254.169.254");
    assert_eq!(config.proxy().no_proxy, "169.254.169.254,169.254.170.2,/var/run/docker.sock");
    assert_eq!((config.proxy().http, config.proxy().https), (None, None));
}

#[test]
fn every_typed_field_is_filled() {
    let config = config(&[
        ("ECS_CLUSTER", " prod "),
        ("AWS_DEFAULT_REGION", "eu-central-1\n"),
        ("ECS_BACKEND_HOST", "ecs.example:8443"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:4566"),
        ("ECS_INSTANCE_ATTRIBUTES", r#"{"rack":"a=1","slot":null,"rack":"b, c"}"#),
        ("ECS_CONTAINER_INSTANCE_TAGS", r#"{"team":"x"}"#),
        ("ECS_DETAILED_OS_FAMILY", ""),
        ("ECS_RESERVED_PORTS", "[22, 80]"),
        ("ECS_RESERVED_PORTS_UDP", "[53]"),
        ("ECS_RESERVED_MEMORY", "512"),
        ("ECS_AVAILABLE_LOGGING_DRIVERS", r#"["awslogs","awsfirelens"]"#),
        ("ECS_DYNAMIC_HOST_PORT_RANGE", "40000-40100"),
        ("ECS_IMAGE_PULL_BEHAVIOR", "prefer-cached"),
        ("ECS_LOGLEVEL", "CRIT"),
        ("ECS_LOG_OUTPUT_FORMAT", "json"),
        ("ECS_ENGINE_AUTH_TYPE", "dockercfg"),
        ("ECS_ENGINE_AUTH_DATA", r#"{"r":{"auth":"x"}}"#),
        ("AWS_ACCESS_KEY_ID", "AKIA"),
        ("AWS_SECRET_ACCESS_KEY", "key"),
        ("https_proxy", "proxy:3128"),
    ]);
    assert_eq!(config.cluster.as_deref(), Some("prod"));
    assert_eq!(config.region.as_deref(), Some("eu-central-1"));
    assert_eq!(config.backend_host.as_deref(), Some("https://ecs.example:8443"));
    assert_eq!(config.aws_endpoint_url.as_deref(), Some("http://127.0.0.1:4566"));
    assert_eq!(config.instance_attributes["rack"], "b, c");
    assert_eq!(config.instance_attributes["slot"], "");
    assert_eq!(config.container_instance_tags["team"], "x");
    assert_eq!(config.detailed_os_family, "");
    assert_eq!((config.reserved_ports, config.reserved_ports_udp), (vec![22, 80], vec![53]));
    assert_eq!(config.reserved_memory_mib, 512);
    assert_eq!(config.logging_drivers, ["awslogs", "awsfirelens"]);
    assert_eq!(config.dynamic_host_port_range, Some(PortRange { first: 40000, last: 40100 }));
    assert_eq!(config.image_pull_behavior, ImagePullBehavior::PreferCached);
    assert_eq!((config.log_level.filter(), config.log_format), ("error", LogFormat::Json));
    assert_eq!(config.engine_auth_data.unwrap().expose(), r#"{"r":{"auth":"x"}}"#);
    assert_eq!(config.access_key_id.unwrap().expose(), "AKIA");
    assert_eq!(config.https_proxy.unwrap().expose(), "http://proxy:3128");
    assert_eq!(config.http_proxy, None);
}

const NO: Option<&str> = None;

/// Variable, value, canonical value in effect, part of the problem.
type Case = (&'static str, &'static str, Option<&'static str>, Option<&'static str>);

#[rustfmt::skip]
const LIMITS: &[Case] = &[
    ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "1s", Some("1000"), NO),
    ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "999ms", Some("10800000"), Some("the default 3h is used")),
    ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "999.9999ms", Some("10800000"), Some("the default 3h is used")),
    ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "-5m", Some("10800000"), Some("the default 3h is used")),
    ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "0", Some("10800000"), Some("the default 3h is used")),
    ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "30", Some("10800000"), Some("a duration such as 90s")),
    ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION_JITTER", "5m", Some("300000"), NO),
    ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION_JITTER", "0", Some("0"), NO),
    (
    "ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION_JITTER",
    "-1s",
    Some("0"),
    Some("not negative; the default 0s is used"),
    ),
    ("ECS_CONTAINER_STOP_TIMEOUT", "1s", Some("1000"), NO),
    ("ECS_CONTAINER_STOP_TIMEOUT", "999ms", Some("1000"), Some("the minimum of 1s is used")),
    ("ECS_CONTAINER_STOP_TIMEOUT", "-1h", Some("1000"), Some("the minimum of 1s is used")),
    ("ECS_CONTAINER_STOP_TIMEOUT", "0", Some("30000"), Some("the default 30s is used")),
    ("ECS_CONTAINER_START_TIMEOUT", "45s", Some("45000"), NO),
    ("ECS_CONTAINER_START_TIMEOUT", "44s", Some("45000"), Some("the minimum of 45s is used")),
    ("ECS_CONTAINER_CREATE_TIMEOUT", "59.9s", Some("60000"), Some("the minimum of 1m is used")),
    ("ECS_CONTAINER_CREATE_TIMEOUT", "1m", Some("60000"), NO),
    ("ECS_MANIFEST_PULL_TIMEOUT", "29s", Some("30000"), Some("the minimum of 30s is used")),
    ("ECS_MANIFEST_PULL_TIMEOUT", "30s", Some("30000"), NO),
    ("ECS_IMAGE_PULL_INACTIVITY_TIMEOUT", "59s", Some("60000"), Some("the minimum of 1m is used")),
    ("ECS_IMAGE_PULL_TIMEOUT", "1ms", Some("1"), NO),
    ("ECS_IMAGE_PULL_TIMEOUT", "1ns", Some("1"), NO),
    ("ECS_IMAGE_PULL_TIMEOUT", "-1s", Some("7200000"), Some("the default 2h is used")),
    ("ECS_IMAGE_CLEANUP_INTERVAL", "10m", Some("600000"), NO),
    ("ECS_IMAGE_CLEANUP_INTERVAL", "9m59s", Some("1800000"), Some("the default 30m is used")),
    ("ECS_NUM_IMAGES_DELETE_PER_CYCLE", "1", Some("1"), NO),
    ("ECS_NUM_IMAGES_DELETE_PER_CYCLE", "0", Some("5"), Some("the default 5 is used")),
    ("ECS_NUM_IMAGES_DELETE_PER_CYCLE", "-1", Some("5"), Some("the default 5 is used")),
    ("ECS_NUM_IMAGES_DELETE_PER_CYCLE", " 3", Some("5"), Some("white space around it")),
    ("ECS_CGROUP_CPU_PERIOD", "8ms", Some("8"), NO),
    ("ECS_CGROUP_CPU_PERIOD", "7ms", Some("100"), Some("the default 100ms is used")),
    ("ECS_CGROUP_CPU_PERIOD", "100.1ms", Some("100"), Some("the default 100ms is used")),
    ("ECS_TASK_PIDS_LIMIT", "4194304", Some("4194304"), NO),
    ("ECS_TASK_PIDS_LIMIT", "4194305", None, Some("from 1 to 4194304")),
    ("ECS_TASK_PIDS_LIMIT", "-1", None, Some("from 1 to 4194304; it counts as not set")),
    ("ECS_TASK_PIDS_LIMIT", " 7 ", Some("7"), NO),
    ("ECS_RESERVED_MEMORY", "65535", Some("65535"), NO),
    ("ECS_RESERVED_MEMORY", "65536", Some("0"), Some("from 0 to 65535")),
    ("ECS_RESERVED_MEMORY", "-1", Some("0"), Some("from 0 to 65535")),
    ("ECS_RESERVED_MEMORY", "+1", Some("0"), Some("from 0 to 65535")),
    ("ECS_RESERVED_MEMORY", "0", Some("0"), NO),
    ("ECS_RESERVED_PORTS", "[0,65535]", Some("0,65535"), NO),
    ("ECS_RESERVED_PORTS", "[80,65536,\"x\"]", Some("80,0,0"), Some("2 of 3 members are taken as port 0")),
    ("ECS_RESERVED_PORTS", "[80] [90]", Some("80"), Some("what follows the first JSON value is ignored")),
    ("ECS_RESERVED_PORTS", "[80", Some("22,2375,2376,51678,51679"), Some("not valid JSON")),
    ("ECS_RESERVED_PORTS", "[]", Some("22,2375,2376,51678,51679"), Some("the default")),
    ("ECS_RESERVED_PORTS", "  ", Some("22,2375,2376,51678,51679"), NO),
    ("ECS_RESERVED_PORTS_UDP", "[]", Some(""), NO),
    ("ECS_TASK_METADATA_RPS_LIMIT", " 100 , 200 ", Some("100,200"), NO),
    ("ECS_TASK_METADATA_RPS_LIMIT", "0,200", Some("40,60"), Some("the default 40,60 is used")),
    ("ECS_TASK_METADATA_RPS_LIMIT", "100", Some("40,60"), Some("the default 40,60 is used")),
    ("ECS_DYNAMIC_HOST_PORT_RANGE", "100-99", None, Some("a port range")),
    ("ECS_DYNAMIC_HOST_PORT_RANGE", "100", Some("100,100"), NO),
    ("ECS_DYNAMIC_HOST_PORT_RANGE", "1-65536", None, Some("counts as not set")),
    ("ECS_LOG_MAX_FILE_SIZE_MB", "0.5", Some("0.5"), NO),
    ("ECS_LOG_MAX_FILE_SIZE_MB", "NaN", Some("5"), Some("the default 5 is used")),
];

#[test]
fn numbers_at_below_and_above_their_limits() {
    for &(name, value, canonical, problem) in LIMITS {
        let (found, problems) = effect(name, value);
        assert_eq!(found.as_deref(), canonical, "{name}={value}");
        match problem {
            Some(part) => {
                assert_eq!(problems.len(), 1, "{name}={value}: {problems:?}");
                assert!(problems[0].contains(part) && problems[0].starts_with(name), "{name}={value}: {problems:?}");
            }
            None => assert!(problems.is_empty(), "{name}={value}: {problems:?}"),
        }
    }
}

#[test]
fn words_switches_and_documents() {
    for (name, value, canonical, problems) in [
        ("ECS_DISABLE_PRIVILEGED", " T ", Some("true"), 0),
        ("ECS_DISABLE_PRIVILEGED", "0", Some("false"), 0),
        ("ECS_DISABLE_PRIVILEGED", "yes", Some("false"), 1),
        ("ECS_DISABLE_PRIVILEGED", "tRUE", Some("false"), 1),
        ("ECS_DISABLE_PRIVILEGED", " ", Some("false"), 0),
        ("ECS_EXCLUDE_IPV6_PORTBINDING", "f", Some("false"), 0),
        ("ECS_EXCLUDE_IPV6_PORTBINDING", "no", Some("true"), 1),
        ("ECS_IMAGE_PULL_BEHAVIOR", "Always", Some("default"), 1),
        ("ECS_IMAGE_PULL_BEHAVIOR", "always", Some("always"), 0),
        ("ECS_ENGINE_AUTH_TYPE", " dockercfg\n", Some("dockercfg"), 0),
        ("ECS_ENGINE_AUTH_TYPE", "Docker", None, 1),
        ("ECS_LOGLEVEL", "Warn", Some("warn"), 0),
        ("ECS_LOGLEVEL", "verbose", Some("info"), 1),
        ("ECS_INSTANCE_IP_COMPATIBILITY", " IPv6 ", Some("ipv6"), 0),
        ("ECS_AWSVPC_ADDITIONAL_LOCAL_ROUTES", r#"["10.0.0.0/8","fd00::/8"]"#, Some(r#"["10.0.0.0/8","fd00::/8"]"#), 0),
        ("ECS_AWSVPC_ADDITIONAL_LOCAL_ROUTES", r#"["10.0.0.0/33"]"#, Some("[]"), 1),
        ("ECS_AWSVPC_ADDITIONAL_LOCAL_ROUTES", r#"["10.0.0.1"]"#, Some("[]"), 1),
        ("ECS_INSTANCE_ATTRIBUTES", r#"{"a":1}"#, None, 1),
        ("ECS_INSTANCE_ATTRIBUTES", r#"{"a":"b"} x"#, None, 1),
        ("ECS_INSTANCE_ATTRIBUTES", "{}", None, 0),
        (
            "ECS_IMAGE_REGISTRY_MIRRORS",
            r#"{"docker.io": "1.dkr.ecr.eu-west-1.amazonaws.com/hub", "r.io:5000": "localhost/"}"#,
            Some(r#"{"docker.io":"1.dkr.ecr.eu-west-1.amazonaws.com/hub","r.io:5000":"localhost/"}"#),
            0,
        ),
        ("ECS_IMAGE_REGISTRY_MIRRORS", "{}", None, 0),
        ("ECS_IMAGE_REGISTRY_MIRRORS", r#"{"docker.io": "https://m.io"}"#, None, 1),
        ("ECS_IMAGE_REGISTRY_MIRRORS", r#"{"docker.io": "m.io//hub"}"#, None, 1),
        ("ECS_IMAGE_REGISTRY_MIRRORS", r#"{"docker.io": "m.io/hub:1"}"#, None, 1),
        ("ECS_IMAGE_REGISTRY_MIRRORS", r#"{"docker.io": "mirror"}"#, None, 1),
        ("ECS_IMAGE_REGISTRY_MIRRORS", r#"{"library/x": "m.io"}"#, None, 1),
        ("ECS_IMAGE_REGISTRY_MIRRORS", r#"["m.io"]"#, None, 1),
        ("ECS_EXCLUDE_UNTRACKED_IMAGE", "a,b c, d", Some(r#"["a","b c"," d"]"#), 0),
        ("DOCKER_HOST", "tcp://10.0.0.1:2375", Some("tcp://10.0.0.1:2375"), 0),
        ("DOCKER_HOST", "/var/run/docker.sock", Some("unix:///var/run/docker.sock"), 1),
        ("ECS_BACKEND_HOST", "ftp://x", None, 1),
        ("ECS_BACKEND_HOST", "http://127.0.0.1:80", Some("http://127.0.0.1:80"), 0),
        ("HTTP_PROXY", "socks5://p:1", Some("socks5://p:1"), 0),
        ("HTTP_PROXY", "http://", None, 1),
    ] {
        let (found, told) = effect(name, value);
        assert_eq!(found.as_deref(), canonical, "{name}={value}");
        assert_eq!(told.len(), problems, "{name}={value}: {told:?}");
    }
}

#[test]
fn only_what_the_reference_cannot_start_with_is_fatal() {
    for (name, value, fatal) in [
        ("ECS_INSTANCE_ATTRIBUTES", "{", true),
        ("ECS_CONTAINER_INSTANCE_TAGS", "[]", true),
        ("ECS_AWSVPC_ADDITIONAL_LOCAL_ROUTES", "10.0.0.0/8", true),
        ("ECS_AVAILABLE_LOGGING_DRIVERS", r#"["json-file","jsonfile"]"#, true),
        ("ECS_AVAILABLE_LOGGING_DRIVERS", "json-file", false),
        ("ECS_EXTERNAL", "true", true),
        ("ECS_BACKEND_HOST", "http://", true),
        ("DOCKER_HOST", "nonsense", true),
        ("ECS_ENGINE_AUTH_DATA", "{", false),
        ("ECS_ENGINE_AUTH_TYPE", "basic", false),
        ("ECS_PAUSE_LABELS", "{", false),
        ("ECS_CONTAINER_START_TIMEOUT", "soon", false),
    ] {
        let loaded = from(&[(name, value)]);
        assert_eq!(loaded.config.is_none(), fatal, "{name}: {:?}", texts(&loaded));
        assert!(!loaded.problems.is_empty(), "{name}");
        assert_eq!(
            loaded.problems.iter().any(|problem| problem.to_string().contains("does not start")),
            fatal,
            "{name}"
        );
    }
    assert!(from(&[("ECS_EXTERNAL", "true"), ("AWS_DEFAULT_REGION", "x")]).config.is_some());
    assert!(region_missing().fatal);
}

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
            "ECS_LOGLEVEL ({path}:2): a text of 4 characters; expected one of debug, info, warn, error, crit, none; the default info is used"
        ),
        format!("ECS_RESERVED_MEMORY ({path}:3)"),
        format!("ECS_INSTANCE_ATTRIBUTES ({path}:5): a text of 1 character, not valid JSON at column 1"),
        format!(
            "ECS_CLUSTR ({path}:6): not a variable of this agent; expected a name from --help; did you mean ECS_CLUSTER?"
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
fn the_environment_goes_before_the_file_field_by_field() {
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

#[test]
fn a_checkpoint_follows_the_data_directory_unless_it_was_set() {
    assert!(config(&[("ECS_DATADIR", "/d")]).checkpoint);
    assert!(!config(&[("ECS_DATADIR", "/d"), ("ECS_CHECKPOINT", "false")]).checkpoint);
    assert!(config(&[("ECS_CHECKPOINT", "true")]).checkpoint);
    assert!(config(&[("ECS_DATADIR", "/d"), ("ECS_CHECKPOINT", "dunno")]).checkpoint);
    assert!(!config(&[("ECS_DATADIR", "")]).checkpoint);
}

#[test]
fn half_of_the_registry_settings_is_told() {
    let told = |environment: &[(&str, &str)]| texts(&from(environment));
    assert!(told(&[("ECS_ENGINE_AUTH_TYPE", "docker")])[0].contains("set without ECS_ENGINE_AUTH_DATA"));
    assert!(told(&[("ECS_ENGINE_AUTH_DATA", "{}")])[0].contains("set without ECS_ENGINE_AUTH_TYPE"));
    // One problem is enough for a half that is there and cannot be used.
    assert_eq!(told(&[("ECS_ENGINE_AUTH_TYPE", "docker"), ("ECS_ENGINE_AUTH_DATA", "{")]).len(), 1);
    assert_eq!(told(&[("ECS_ENGINE_AUTH_TYPE", "basic"), ("ECS_ENGINE_AUTH_DATA", "{}")]).len(), 1);
}

#[test]
fn a_document_that_systemd_took_the_quotes_from_is_read_from_the_file() {
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
    assert_eq!(taken(&[("AWS_ACCESS_KEY_ID", "x")]), ("  ".to_owned(), 3));
    assert_eq!(taken(&[("AWS_SESSION_TOKEN", "z")]), ("a b ".to_owned(), 1));
}

#[test]
fn proxies_follow_the_reference() {
    let proxy = |environment: &[(&str, &str)]| config(environment).proxy();
    let both = proxy(&[("HTTP_PROXY", "http://a:1"), ("http_proxy", "http://b:1")]);
    assert_eq!(both.http.as_ref().map(crate::model::Secret::expose), Some("http://a:1"));
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
        let loaded = from(environment);
        let value = loaded.effective.iter().find(|value| value.name == "ECS_POLLING_METRICS_WAIT_DURATION");
        (value.map(|value| value.value.clone()).unwrap(), loaded.problems.len())
    };
    let name = "ECS_POLLING_METRICS_WAIT_DURATION";
    assert_eq!(wait(&[(name, "1s")]), ("1s".to_owned(), 0));
    assert_eq!(wait(&[(name, "4999ms"), ("ECS_POLL_METRICS", "true")]), ("5s".to_owned(), 1));
    assert_eq!(wait(&[(name, "20s"), ("ECS_POLL_METRICS", "true")]), ("20s".to_owned(), 0));
    assert_eq!(wait(&[(name, "21s"), ("ECS_POLL_METRICS", "true")]), ("20s".to_owned(), 1));
}

#[test]
fn what_is_not_built_yet_is_named_when_it_is_asked_for() {
    let loaded = from(&[
        ("ECS_ENABLE_TASK_ENI", "true"),
        ("ECS_ENABLE_TASK_IAM_ROLE", "false"),
        ("ECS_ENABLE_FIRELENS_ASYNC", "false"),
        ("ECS_IMAGE_CLEANUP_INTERVAL", "1800s"),
        ("ECS_AGENT_LABELS", "{}"),
    ]);
    assert_eq!(loaded.unbuilt, ["ECS_ENABLE_FIRELENS_ASYNC", "ECS_ENABLE_TASK_ENI"]);
    assert!(loaded.problems.is_empty(), "{:?}", texts(&loaded));
}

#[test]
fn names_that_are_not_ours_are_left_alone_and_misspelt_ones_are_told_once() {
    let file = TempFile::new("names", b"ECS_CLUSTR=x\necs_cluster=y\nAWS_PROFILE=p\nMY_OWN=z\n");
    let loaded = file.load(&[("ECS_CLUSTR", "x"), ("ECS_CONTAINER_METADATA_URI_V4", "http://x"), ("PATH", "/bin")]);
    let told = texts(&loaded);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].starts_with("AWS_PROFILE") && told[0].contains("set where it is not read"), "{told:?}");
    assert!(told[1].starts_with("ECS_CLUSTR (environment)"), "{told:?}");
    assert!(told[2].starts_with("ecs_cluster (") && told[2].contains("did you mean ECS_CLUSTER?"), "{told:?}");
}

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
        let loaded = load_from(&[&environment], Vec::new());
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

/// Collects the field names that a derived `Deserialize` asks for.
struct FieldNames(std::cell::Cell<&'static [&'static str]>);

impl<'de> serde::Deserializer<'de> for &FieldNames {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: serde::de::Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(serde::de::Error::custom("names only"))
    }

    fn deserialize_struct<V: serde::de::Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.set(fields);
        Err(serde::de::Error::custom("names only"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[test]
fn the_fields_of_the_configuration_are_the_rows_that_work() {
    let names = FieldNames(std::cell::Cell::new(&[]));
    assert!(Config::deserialize(&names).is_err());
    let mut fields: Vec<String> = names.0.get().iter().map(ToString::to_string).collect();
    let rows = KEYS.iter().filter(|key| key.stage == Stage::Now);
    let mut rows: Vec<String> = rows.map(|key| key.name.to_lowercase()).collect();
    fields.sort();
    rows.sort();
    assert_eq!(fields, rows);
}

mod files {
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
            ("NOT_THERE".to_owned(), "NOT_THERE", None),
            ("\n\n\nA=x\n".to_owned(), "A", Some("x")),
            (String::new(), "A", None),
        ] {
            let (file, problems) = parse(text.as_bytes());
            assert_eq!(file.get(key).as_deref(), value, "{text:?}");
            assert!(problems.is_empty(), "{text:?}: {problems:?}");
        }
    }

    #[test]
    fn a_bad_line_is_told_and_the_others_are_taken() {
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
            assert!(problems.len() == 1 && problems[0].fatal, "{path:?} {problems:?}");
        }
        let loaded = load(&Environment::new([("ECS_CONFIG_FILE", "/nonexistent/x"), ("ECS_LOGLEVEL", "loud")]));
        assert!(loaded.config.is_none());
        assert_eq!(loaded.problems.len(), 2, "the rest is still checked");
    }

    #[cfg(unix)]
    #[test]
    fn an_environment_that_is_not_text() {
        use std::ffi::OsString;
        use std::os::unix::ffi::OsStringExt;
        let bytes = || OsString::from_vec(vec![0xff]);
        let environment =
            Environment::new([(OsString::from("ECS_CLUSTER"), bytes()), (OsString::from("OTHER"), bytes())]);
        let loaded = load_from(&[&environment], environment.problems());
        assert_eq!(
            texts(&loaded),
            ["ECS_CLUSTER (environment): bytes that are not UTF-8; expected UTF-8 text; it is ignored"]
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
            let loaded = load_from(&[&environment], Vec::new());
            proptest::prop_assert_eq!(loaded.config.is_none(), loaded.problems.iter().any(|problem| problem.fatal));
            proptest::prop_assert!(!loaded.problems.iter().any(|problem| problem.place == "configuration"));
        }
    }
}
