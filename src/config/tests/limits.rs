//! Each kind of value at, below and above its limits, and which mistakes keep the agent from starting.

use super::*;

const NO: Option<&str> = None;

/// Variable, value, canonical value in effect, part of the problem.
type Case = (&'static str, &'static str, Option<&'static str>, Option<&'static str>);

#[rustfmt::skip]
const LIMITS: &[Case] = &[
    ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "1s", Some("1000"), NO),
    ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "999ms", Some("10800000"), Some("the default `3h` is used")),
    ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "999.9999ms", Some("10800000"), Some("the default `3h` is used")),
    ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "-5m", Some("10800000"), Some("the default `3h` is used")),
    ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "0", Some("10800000"), Some("the default `3h` is used")),
    ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "30", Some("10800000"), Some("a duration such as 90s")),
    ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION_JITTER", "5m", Some("300000"), NO),
    ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION_JITTER", "0", Some("0"), NO),
    ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION_JITTER", "-1s", Some("0"), Some("not negative; the default `0s` is used")),
    ("ECS_CONTAINER_STOP_TIMEOUT", "1s", Some("1000"), NO),
    ("ECS_CONTAINER_STOP_TIMEOUT", "999ms", Some("1000"), Some("the minimum of 1s is used")),
    ("ECS_CONTAINER_STOP_TIMEOUT", "-1h", Some("1000"), Some("the minimum of 1s is used")),
    ("ECS_CONTAINER_STOP_TIMEOUT", "0", Some("30000"), Some("the default `30s` is used")),
    ("ECS_CONTAINER_START_TIMEOUT", "45s", Some("45000"), NO),
    ("ECS_CONTAINER_START_TIMEOUT", "44s", Some("45000"), Some("the minimum of 45s is used")),
    ("ECS_CONTAINER_CREATE_TIMEOUT", "59.9s", Some("60000"), Some("the minimum of 1m is used")),
    ("ECS_CONTAINER_CREATE_TIMEOUT", "1m", Some("60000"), NO),
    ("ECS_MANIFEST_PULL_TIMEOUT", "29s", Some("30000"), Some("the minimum of 30s is used")),
    ("ECS_MANIFEST_PULL_TIMEOUT", "30s", Some("30000"), NO),
    ("ECS_IMAGE_PULL_INACTIVITY_TIMEOUT", "59s", Some("60000"), Some("the minimum of 1m is used")),
    ("ECS_IMAGE_PULL_INACTIVITY_TIMEOUT", "1m", Some("60000"), NO),
    ("ECS_IMAGE_PULL_TIMEOUT", "1ms", Some("1"), NO),
    ("ECS_IMAGE_PULL_TIMEOUT", "1ns", Some("1"), NO),
    ("ECS_IMAGE_PULL_TIMEOUT", "-1s", Some("7200000"), Some("the default `2h` is used")),
    ("ECS_IMAGE_CLEANUP_INTERVAL", "10m", Some("600000"), NO),
    ("ECS_IMAGE_CLEANUP_INTERVAL", "9m59s", Some("1800000"), Some("the default `30m` is used")),
    ("ECS_NUM_IMAGES_DELETE_PER_CYCLE", "1", Some("1"), NO),
    ("ECS_NUM_IMAGES_DELETE_PER_CYCLE", "0", Some("5"), Some("the default `5` is used")),
    ("ECS_NUM_IMAGES_DELETE_PER_CYCLE", "-1", Some("5"), Some("the default `5` is used")),
    ("ECS_NUM_IMAGES_DELETE_PER_CYCLE", " 3", Some("5"), Some("white space around it")),
    ("ECS_IMAGE_DISK_HIGH_PERCENT", "1", Some("1"), NO),
    ("ECS_IMAGE_DISK_HIGH_PERCENT", "100", Some("100"), NO),
    ("ECS_IMAGE_DISK_HIGH_PERCENT", "0", None, Some("from 1 to 100")),
    ("ECS_IMAGE_DISK_HIGH_PERCENT", "101", None, Some("from 1 to 100")),
    ("ECS_IMAGE_DISK_LOW_PERCENT", "1", Some("1"), NO),
    ("ECS_IMAGE_DISK_LOW_PERCENT", "100", Some("100"), NO),
    ("ECS_IMAGE_DISK_LOW_PERCENT", "0", None, Some("from 1 to 100")),
    ("ECS_IMAGE_DISK_LOW_PERCENT", "101", None, Some("from 1 to 100")),
    ("ECS_CGROUP_CPU_PERIOD", "8ms", Some("8"), NO),
    ("ECS_CGROUP_CPU_PERIOD", "7ms", Some("100"), Some("the default `100ms` is used")),
    ("ECS_CGROUP_CPU_PERIOD", "100.1ms", Some("100"), Some("the default `100ms` is used")),
    ("ECS_TASK_PIDS_LIMIT", "4194304", Some("4194304"), NO),
    ("ECS_TASK_PIDS_LIMIT", "4194305", None, Some("from 1 to 4194304")),
    ("ECS_TASK_PIDS_LIMIT", "-1", None, Some("from 1 to 4194304; it counts as not set")),
    ("ECS_TASK_PIDS_LIMIT", " 7 ", Some("7"), Some("white space around `7`; expected none; it is removed")),
    ("ECS_RESERVED_MEMORY", "65535", Some("65535"), NO),
    ("ECS_RESERVED_MEMORY", "65536", Some("0"), Some("from 0 to 65535")),
    ("ECS_RESERVED_MEMORY", "-1", Some("0"), Some("from 0 to 65535")),
    ("ECS_RESERVED_MEMORY", "+1", Some("0"), Some("from 0 to 65535")),
    ("ECS_RESERVED_MEMORY", "0", Some("0"), NO),
    ("ECS_RESERVED_PORTS", "[0,65535]", Some("0,65535"), NO),
    ("ECS_RESERVED_PORTS", "[80,65536,\"x\"]", Some("80"), Some("`65536` and 1 more are no ports and are not reserved")),
    ("ECS_RESERVED_PORTS", "[80] [90]", Some("80"), Some("what follows the first JSON value is ignored")),
    ("ECS_RESERVED_PORTS", "[80", Some("22,2375,2376,51678,51679"), Some("not valid JSON")),
    ("ECS_RESERVED_PORTS", "[]", Some("22,2375,2376,51678,51679"), Some("the default")),
    ("ECS_RESERVED_PORTS", "  ", Some("22,2375,2376,51678,51679"), NO),
    ("ECS_RESERVED_PORTS_UDP", "[]", Some(""), NO),
    ("ECS_TASK_METADATA_RPS_LIMIT", " 100 , 200 ", Some("100,200"), NO),
    ("ECS_TASK_METADATA_RPS_LIMIT", "0,200", Some("40,60"), Some("the default `40,60` is used")),
    ("ECS_TASK_METADATA_RPS_LIMIT", "100", Some("40,60"), Some("the default `40,60` is used")),
    ("ECS_DYNAMIC_HOST_PORT_RANGE", "100-99", None, Some("a port range")),
    ("ECS_DYNAMIC_HOST_PORT_RANGE", "100", Some("100,100"), NO),
    ("ECS_DYNAMIC_HOST_PORT_RANGE", "1-65536", None, Some("counts as not set")),
    ("ECS_RESERVED_PORTS_UDP", "[65535]", Some("65535"), NO),
    ("ECS_RESERVED_PORTS_UDP", "[65536]", Some(""), Some("`65536` is no port and is not reserved")),
    ("ECS_DYNAMIC_HOST_PORT_RANGE", "0-65535", Some("0,65535"), NO),
    ("ECS_TASK_METADATA_RPS_LIMIT", "1,1", Some("1,1"), NO),
    ("ECS_TASK_METADATA_RPS_LIMIT", "-1,1", Some("40,60"), Some("the default `40,60` is used")),
    ("ECS_IMAGE_MINIMUM_CLEANUP_AGE", "1ns", Some("1"), NO),
    ("ECS_IMAGE_MINIMUM_CLEANUP_AGE", "-1ns", Some("3600000"), Some("the default `1h` is used")),
    ("NON_ECS_IMAGE_MINIMUM_CLEANUP_AGE", "2562047h", Some("9223369200000"), NO),
    ("NON_ECS_IMAGE_MINIMUM_CLEANUP_AGE", "2562048h", Some("3600000"), Some("the default `1h` is used")),
    ("NONECS_NUM_CONTAINERS_DELETE_PER_CYCLE", "-1", Some("-1"), NO),
    ("NONECS_NUM_CONTAINERS_DELETE_PER_CYCLE", "9223372036854775807", Some("9223372036854775807"), NO),
    ("NONECS_NUM_CONTAINERS_DELETE_PER_CYCLE", "9223372036854775808", Some("5"), Some("the default `5` is used")),
    ("NONECS_NUM_CONTAINERS_DELETE_PER_CYCLE", "0", Some("5"), Some("the default `5` is used")),
    ("ECS_POLLING_METRICS_WAIT_DURATION", "1s", Some("1000"), NO),
    ("ECS_POLLING_METRICS_WAIT_DURATION", "-1s", Some("10000"), Some("the default `10s` is used")),
    ("ECS_LOG_MAX_ROLL_COUNT", "1", Some("1"), NO),
    ("ECS_LOG_MAX_ROLL_COUNT", "many", Some("24"), Some("the default `24` is used")),
    ("AWS_MAX_ATTEMPTS", "1", Some("1"), NO),
    ("AWS_MAX_ATTEMPTS", "100", Some("100"), NO),
    ("AWS_MAX_ATTEMPTS", "101", Some("3"), Some("the default `3` is used")),
    ("AWS_MAX_ATTEMPTS", "-1", Some("3"), Some("the default `3` is used")),
    ("ENIPauseContainerCleanupDelaySeconds", "-5", Some("-5"), NO),
    ("ENIPauseContainerCleanupDelaySeconds", "9223372036854775808", Some("0"), Some("a whole number")),
    ("NodeStageTimeout", "1", Some("1"), NO),
    ("NodeStageTimeout", "-1", Some("2000"), Some("the default `2s` is used")),
    ("NodeUnstageTimeout", "1000000000", Some("1000"), NO),
    ("NodeUnstageTimeout", "1.5", Some("30000"), Some("a whole number of nanoseconds")),
    ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2500", Some("2500"), NO),
    ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "600001", Some("10000"), Some("the default `10000` is used")),
    ("ECS_LOG_MAX_FILE_SIZE_MB", "0.5", Some("0.5"), NO),
    ("ECS_LOG_MAX_FILE_SIZE_MB", "0", Some("5"), Some("the default `5` is used")),
    ("ECS_LOG_MAX_FILE_SIZE_MB", "NaN", Some("5"), Some("the default `5` is used")),
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

/// Every row with a number needs a case on each side of its limits.
#[test]
fn every_number_has_its_limits_tested() {
    use kind::{Kind, Limit};
    for key in KEYS {
        let ends: &[i64] = match key.kind {
            Kind::Duration(limit) | Kind::Integer(limit) | Kind::TrimmedInteger(limit) => match limit {
                Limit::AtLeast(min) | Limit::DefaultBelow(min) => &[min],
                Limit::DefaultOutside(min, max) => &[min, max],
                Limit::Any | Limit::Signed => &[],
            },
            Kind::Unsigned16 | Kind::Decimal | Kind::Ports | Kind::Rates | Kind::PortRange => &[],
            _ => continue,
        };
        let cases = || LIMITS.iter().filter(|(name, ..)| *name == key.name);
        assert!(cases().any(|(.., shown)| shown.is_none()), "{}: no case within its limits", key.name);
        assert!(cases().any(|(.., shown)| shown.is_some()), "{}: no case outside its limits", key.name);
        // At the limit, and one step beyond it.
        let write = |number: i64| match key.kind {
            Kind::Duration(_) => format!("{number}ms"),
            _ => number.to_string(),
        };
        for (place, end) in ends.iter().enumerate() {
            assert!(effect(key.name, &write(*end)).1.is_empty(), "{}: {end} is within", key.name);
            let beyond = if place == 0 { end - 1 } else { end + 1 };
            assert_eq!(effect(key.name, &write(beyond)).1.len(), 1, "{}: {beyond} is outside", key.name);
        }
    }
}

#[test]
fn words_switches_and_documents() {
    for (name, value, canonical, problems) in [
        ("ECS_DISABLE_PRIVILEGED", " T ", Some("true"), 1),
        ("ECS_DISABLE_PRIVILEGED", "0", Some("false"), 0),
        ("ECS_DISABLE_PRIVILEGED", "yes", Some("false"), 1),
        ("ECS_DISABLE_PRIVILEGED", "tRUE", Some("false"), 1),
        ("ECS_DISABLE_PRIVILEGED", " ", Some("false"), 0),
        ("ECS_EXCLUDE_IPV6_PORTBINDING", "f", Some("false"), 0),
        ("ECS_EXCLUDE_IPV6_PORTBINDING", "no", Some("true"), 1),
        ("ECS_IMAGE_PULL_BEHAVIOR", "Always", Some("default"), 1),
        ("ECS_IMAGE_PULL_BEHAVIOR", "always", Some("always"), 0),
        ("ECS_ENGINE_AUTH_TYPE", " dockercfg\n", Some("dockercfg"), 1),
        ("ECS_ENGINE_AUTH_TYPE", "Docker", None, 1),
        ("ECS_LOGLEVEL", "Warn", Some("warn"), 0),
        ("ECS_LOGLEVEL", "verbose", Some("info"), 1),
        ("ECS_INSTANCE_IP_COMPATIBILITY", " IPv6 ", Some("ipv6"), 1),
        ("ECS_AWSVPC_ADDITIONAL_LOCAL_ROUTES", r#"["10.0.0.0/8"]"#, Some(r#"["10.0.0.0/8"]"#), 0),
        ("ECS_AWSVPC_ADDITIONAL_LOCAL_ROUTES", r#"["10.0.0.0/8","fd00::/8"]"#, Some(r#"["10.0.0.0/8"]"#), 1),
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
        ("ECS_EXCLUDE_UNTRACKED_IMAGE", "a,b c", Some(r#"["a","b c"]"#), 0),
        ("ECS_EXCLUDE_UNTRACKED_IMAGE", "a,b c, d", Some(r#"["a","b c"," d"]"#), 1),
        ("DOCKER_HOST", "tcp://10.0.0.1:2375", Some("tcp://10.0.0.1:2375"), 0),
        ("DOCKER_HOST", "/var/run/docker.sock", Some("unix:///var/run/docker.sock"), 1),
        ("DOCKER_HOST", "tcp://ho st:2375", Some("unix:///var/run/docker.sock"), 1),
        ("DOCKER_HOST", "tcp://h:99999", Some("unix:///var/run/docker.sock"), 1),
        ("DOCKER_HOST", "tcp://h:2375/x", Some("unix:///var/run/docker.sock"), 1),
        ("DOCKER_HOST", "http://[::1]:2375/", Some("http://[::1]:2375/"), 0),
        ("ECS_BACKEND_HOST", "ftp://x", None, 1),
        ("ECS_BACKEND_HOST", "HTTPS://ECS.Example/a b", Some("https://ecs.example/a%20b"), 0),
        ("AWS_ENDPOINT_URL_ECR", "ecr.ex\u{e4}mple", Some("https://ecr.xn--exmple-cua"), 0),
        ("AWS_ENDPOINT_URL_S3", "http://h/\u{e4}?q=<", Some("http://h/%C3%A4?q=%3C"), 0),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://[fd00:ec2::254]/", Some("http://[fd00:ec2::254]"), 0),
        // The metadata service has no TLS.
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "169.254.169.254", Some("http://169.254.169.254"), 0),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", " 127.0.0.1:1338/ ", Some("http://127.0.0.1:1338"), 1),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "https://imds.example", Some("https://imds.example"), 0),
        ("ECS_AGENT_HEALTHCHECK_HOST", "agent.example", Some("agent.example"), 0),
        ("ECS_AGENT_HEALTHCHECK_HOST", "fd00::1", Some("fd00::1"), 0),
        ("ECS_AGENT_HEALTHCHECK_HOST", "[fd00::1]", Some("[fd00::1]"), 0),
        ("ECS_AGENT_HEALTHCHECK_HOST", "http://10.0.0.1", Some("http://10.0.0.1"), 1),
        ("ECS_AGENT_HEALTHCHECK_HOST", "10.0.0.1:51678", Some("10.0.0.1:51678"), 1),
        ("ECS_AGENT_HEALTHCHECK_HOST", "[fd00::1]:51678", Some("[fd00::1]:51678"), 1),
        ("ECS_AGENT_HEALTHCHECK_HOST", "agent.example/health", Some("agent.example/health"), 1),
        ("ECS_AGENT_HEALTHCHECK_HOST", "\"localhost\"", Some("\"localhost\""), 1),
        ("ECS_BACKEND_HOST", "http://127.0.0.1:80", Some("http://127.0.0.1"), 0),
        ("HTTP_PROXY", "socks5://p:1", None, 1),
        ("HTTP_PROXY", "http://", None, 1),
    ] {
        let (found, shown) = effect(name, value);
        assert_eq!(found.as_deref(), canonical, "{name}={value}");
        assert_eq!(shown.len(), problems, "{name}={value}: {shown:?}");
    }
}

#[test]
fn only_values_that_stop_the_go_agent_are_fatal() {
    for (name, value, fatal) in [
        ("ECS_INSTANCE_ATTRIBUTES", "{", true),
        ("ECS_CONTAINER_INSTANCE_TAGS", "[]", true),
        ("ECS_AWSVPC_ADDITIONAL_LOCAL_ROUTES", "10.0.0.0/8", true),
        // The Go agent does not start with an unknown driver; this agent offers the others.
        ("ECS_AVAILABLE_LOGGING_DRIVERS", r#"["json-file","jsonfile"]"#, false),
        ("ECS_AVAILABLE_LOGGING_DRIVERS", "json-file", false),
        ("ECS_EXTERNAL", "true", true),
        ("ECS_BACKEND_HOST", "http://", true),
        ("ECS_BACKEND_HOST", &format!("https://h/{}", "x".repeat(70_000)), true),
        ("AWS_ENDPOINT_URL_S3", &format!("h/{}", "x".repeat(70_000)), true),
        ("DOCKER_HOST", "nonsense", true),
        ("ECS_ENGINE_AUTH_DATA", "{", false),
        ("ECS_ENGINE_AUTH_TYPE", "basic", false),
        ("ECS_PAUSE_LABELS", "{", false),
        ("ECS_CONTAINER_START_TIMEOUT", "soon", false),
    ] {
        let loaded = from(&[(name, value)]);
        assert_eq!(loaded.config.is_none(), fatal, "{name}: {:?}", texts(&loaded));
        assert!(loaded.problems[0].to_string().contains(name), "{name}: {:?}", texts(&loaded));
        assert_eq!(
            loaded.problems.iter().any(|problem| problem.to_string().contains("does not start")),
            fatal,
            "{name}"
        );
    }
    assert!(from(&[("ECS_EXTERNAL", "true"), ("AWS_DEFAULT_REGION", "x")]).config.is_some());
    assert!(region_missing().is_fatal());
}
