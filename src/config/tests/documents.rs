//! The JSON file and user data: every field, every wrong type, and precedence.

use super::*;
use keys::Key;
use kind::Kind;

/// A JSON value that is not the default, and its canonical form.
fn sample(key: &Key) -> (&'static str, &'static str) {
    match key.kind {
        Kind::Switch | Kind::Flag if key.default == "true" && key.kind == Kind::Switch => ("false", "false"),
        Kind::Switch | Kind::Flag => ("true", "true"),
        Kind::SecretJson => (r#"{"r": {"auth": "x"}}"#, r#"{"r": {"auth": "x"}}"#),
        Kind::Duration(_) => ("660000000000", "660000"),
        Kind::Integer(_) | Kind::TrimmedInteger(_) | Kind::Unsigned16 => ("77", "77"),
        Kind::Choice(words) => ("1", words[1]),
        Kind::Ports => ("[22, 80]", "22,80"),
        Kind::Names => (r#"["json-file", "syslog"]"#, r#"["json-file","syslog"]"#),
        Kind::List => (r#"["a", "b c"]"#, r#"["a","b c"]"#),
        Kind::Map => (r#"{"a": "b"}"#, r#"{"a":"b"}"#),
        Kind::Cidrs => (r#"["10.0.0.0/8"]"#, r#"["10.0.0.0/8"]"#),
        Kind::LocalAddress => (r#""169.254.172.9/22""#, "169.254.172.9"),
        Kind::Rates => ("50", "50,60"),
        Kind::Cluster => (r#""prod""#, "prod"),
        Kind::TrimmedChoice(_) => (r#""docker""#, "docker"),
        Kind::Endpoint => (r#""ecs.example""#, "https://ecs.example"),
        Kind::Region => (r#""eu-west-1""#, "eu-west-1"),
        Kind::Path | Kind::HomePath => (r#""/some/path""#, "/some/path"),
        Kind::DockerHost => (r#""unix:///x""#, "unix:///x"),
        _ => (r#""some text""#, "some text"),
    }
}

/// The case of a field's name does not matter.
#[test]
fn every_field_is_read_and_its_wrong_type_is_fatal() {
    let mut fields = 0;
    for key in KEYS.iter().filter(|key| key.stage != Stage::Foreign) {
        let Some(name) = key.json else { continue };
        fields += 1;
        let (json, canonical) = sample(key);
        for name in [name.to_owned(), name.to_ascii_lowercase(), name.to_ascii_uppercase()] {
            let (document, mut problems) = Document::file("f", &format!("{{\n\"{name}\": {json}\n}}"));
            let values = resolve::resolve(&[&document], &mut problems);
            assert!(problems.is_empty(), "{problems:?}");
            let value = &values[key.name];
            assert_eq!((value.canonical.as_str(), value.place.as_deref()), (canonical, Some("f:2")), "{name}");
        }
        let null = Document::file("f", &format!("{{\"{name}\": null}}"));
        assert!(null.0.get(key.name).is_none() && null.1.is_empty(), "{name}: null");
        if key.kind == Kind::SecretJson {
            continue; // anything is a document
        }
        let wrong = format!(r#"{{"{name}": {{"{MARKER}": ["{MARKER}"]}}}}"#);
        let loaded = layered(&[], &wrong, "");
        assert!(loaded.config.is_none(), "{name}");
        let shown = texts(&loaded);
        assert!(shown[0].starts_with(&format!("{name} (config.json:1): an object; expected ")), "{shown:?}");
        assert!(!shown.join("").contains(MARKER), "{shown:?}");
        let loaded = layered(&[], "", &format!(r#"{{"ECSAgentConfiguration": {wrong}}}"#));
        assert!(loaded.config.is_some(), "{name}: {:?}", texts(&loaded));
        assert!(texts(&loaded)[0].ends_with("it is ignored"), "{:?}", texts(&loaded));
    }
    assert!(fields >= 75, "the table lost fields: {fields}");
}

#[test]
fn types_are_those_of_the_go_agent() {
    for (field, value, fatal) in [
        ("Checkpoint", "1", false),
        ("Checkpoint", "0", false),
        ("Checkpoint", r#""true""#, true),
        ("NoIID", "true", false),
        ("NoIID", "1", true),
        ("DockerStopTimeout", r#""30s""#, true),
        ("DockerStopTimeout", "30000000000", false),
        ("DockerStopTimeout", "3e10", true),
        ("ImagePullBehavior", "3", false),
        ("ImagePullBehavior", r#""always""#, true),
        ("ReservedMemory", "65536", true),
        ("ReservedMemory", "-1", true),
        ("ReservedPorts", "[65536]", true),
        ("ReservedPorts", "22", true),
        ("AvailableLoggingDrivers", r#""awslogs""#, true),
        ("AWSVPCAdditionalLocalRoutes", r#"["10.0.0.0/33"]"#, true),
        ("InstanceAttributes", r#"{"a": 1}"#, true),
        ("Cluster", "5", true),
        ("TaskMetadataBurstRate", "1.5", true),
        ("PlatformVariables", r#"{"anything": 1}"#, false),
    ] {
        let loaded = layered(&[], &format!("{{\"{field}\": {value}}}"), "");
        assert_eq!(loaded.config.is_none(), fatal, "{field}: {value}: {:?}", texts(&loaded));
        assert_eq!(loaded.problems.is_empty(), !fatal, "{field}: {value}: {:?}", texts(&loaded));
    }
}

#[test]
fn environment_file_user_data_default_in_this_order() {
    let file = r#"{"Cluster": "file", "DataDir": "/file"}"#;
    let user_data =
        r#"{"ecsagentconfiguration": {"Cluster": "data", "DataDir": "/data-of-user", "DataDirOnHost": "/u"}}"#;
    let config = |environment: &[(&str, &str)], file: &str, user_data: &str| {
        let loaded = layered(environment, file, user_data);
        assert!(loaded.problems.is_empty(), "{:?}", texts(&loaded));
        let config = loaded.config.unwrap();
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        [config.cluster.unwrap_or_default(), path(&config.data_dir), path(&config.host_data_dir)].join(" ")
    };
    assert_eq!(config(&[("ECS_CLUSTER", "env")], file, user_data), "env /file /u");
    assert_eq!(config(&[("ECS_CLUSTER", "")], file, user_data), "file /file /u");
    assert_eq!(config(&[], "", user_data), "data /data-of-user /u");
    assert_eq!(config(&[], "{}", "{}"), " /data/ /var/lib/ecs");
    // Only the environment's directory turns the checkpoint on.
    assert!(!layered(&[], file, "").config.unwrap().checkpoint);
    assert!(layered(&[("ECS_DATADIR", "/d")], r#"{"Checkpoint": false}"#, "").config.unwrap().checkpoint);
}

/// Row, environment, file, canonical value in effect, number of problems.
type Merge = (&'static str, Option<&'static str>, &'static str, &'static str, usize);

#[rustfmt::skip]
const MERGES: &[Merge] = &[
    // An explicit false of a switch is used; that of a plain bool counts as not set.
    ("ECS_DISABLE_PRIVILEGED", Some("false"), r#"{"PrivilegedDisabled": true}"#, "false", 0),
    ("ECS_DISABLE_PRIVILEGED", Some("maybe"), r#"{"PrivilegedDisabled": true}"#, "true", 1),
    ("ECS_EXCLUDE_IPV6_PORTBINDING", None, r#"{"ShouldExcludeIPv6PortBinding": false}"#, "false", 0),
    ("ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST", Some("false"), r#"{"TaskIAMRoleEnabledForNetworkHost": true}"#, "true", 0),
    ("ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST", Some("true"), r#"{"TaskIAMRoleEnabledForNetworkHost": false}"#, "true", 0),
    ("ECS_EBSTA_SUPPORTED", Some("false"), "{}", "false", 0),
    ("ECS_EBSTA_SUPPORTED", Some("false"), r#"{"EBSTASupportEnabled": true}"#, "true", 0),
    ("ECS_EBSTA_SUPPORTED", None, r#"{"EBSTASupportEnabled": false}"#, "true", 1),
    // Zeros and empty lists count as not set.
    ("ECS_CONTAINER_STOP_TIMEOUT", Some("0"), r#"{"DockerStopTimeout": 60000000000}"#, "60000", 1),
    ("ECS_CONTAINER_STOP_TIMEOUT", Some("10s"), r#"{"DockerStopTimeout": 60000000000}"#, "10000", 0),
    ("ECS_CONTAINER_STOP_TIMEOUT", Some("soon"), r#"{"DockerStopTimeout": 60000000000}"#, "60000", 1),
    ("ECS_RESERVED_MEMORY", Some("0"), r#"{"ReservedMemory": 64}"#, "64", 0),
    ("ECS_RESERVED_PORTS", Some("[]"), r#"{"ReservedPorts": [80]}"#, "80", 1),
    ("ECS_RESERVED_PORTS", None, r#"{"ReservedPorts": []}"#, "22,2375,2376,51678,51679", 1),
    ("ECS_RESERVED_PORTS_UDP", None, r#"{"ReservedPortsUDP": [53]}"#, "53", 0),
    ("ECS_CLUSTER", Some(" "), r#"{"Cluster": " file "}"#, "file", 1),
    ("ECS_IMAGE_PULL_BEHAVIOR", Some("default"), r#"{"ImagePullBehavior": 1}"#, "always", 0),
    ("ECS_IMAGE_PULL_BEHAVIOR", Some("once"), r#"{"ImagePullBehavior": 1}"#, "once", 0),
    ("ECS_IMAGE_PULL_BEHAVIOR", None, r#"{"ImagePullBehavior": 9}"#, "default", 1),
    // A field that the environment always sets.
    ("ECS_CGROUP_CPU_PERIOD", None, r#"{"CgroupCPUPeriod": 20000000}"#, "100", 1),
    // Two fields, one variable.
    ("ECS_TASK_METADATA_RPS_LIMIT", None, r#"{"TaskMetadataSteadyStateRate": 50, "TaskMetadataBurstRate": 80}"#, "50,80", 0),
    ("ECS_TASK_METADATA_RPS_LIMIT", None, r#"{"TaskMetadataBurstRate": 80}"#, "40,80", 0),
    ("ECS_TASK_METADATA_RPS_LIMIT", None, r#"{"TaskMetadataBurstRate": -1}"#, "40,60", 1),
    // Limits apply to a document too.
    ("ECS_IMAGE_CLEANUP_INTERVAL", None, r#"{"ImageCleanupInterval": 1}"#, "1800000", 1),
    ("ECS_CONTAINER_CREATE_TIMEOUT", None, r#"{"ContainerCreateTimeout": 1000000000}"#, "60000", 1),
    // Names.
    ("ECS_CLUSTER", None, r#"{"ClusterArn": "old"}"#, "old", 1),
    ("ECS_CLUSTER", None, r#"{"ClusterArn": "old", "Cluster": "new"}"#, "new", 1),
    ("ECS_CLUSTER", None, r#"{"Cluster": "first", "cluster": "second"}"#, "second", 1),
];

#[test]
fn fields_are_merged_as_the_go_agent_merges_them() {
    for &(row, environment, file, canonical, shown) in MERGES {
        let environment = Environment::new(environment.map(|value| (row, value)));
        let (document, mut problems) = Document::file("config.json", file);
        let values = resolve::resolve(&[&environment, &document], &mut problems);
        assert_eq!(values[row].canonical, canonical, "{row} {file}");
        assert_eq!(problems.len(), shown, "{row} {file}: {problems:?}");
        assert!(!problems.iter().any(|problem| problem.is_fatal()), "{problems:?}");
    }
}

/// They are not fatal if the environment overrides them.
#[test]
fn two_timeouts_below_their_minimum_are_fatal_in_a_document() {
    let file = r#"{"DockerStopTimeout": 999999999, "ContainerStartTimeout": 44000000000}"#;
    let loaded = layered(&[], file, "");
    assert!(loaded.config.is_none());
    assert_eq!(loaded.problems.iter().filter(|problem| problem.is_fatal()).count(), 2, "{:?}", texts(&loaded));
    let user_data = format!("{{\"ECSAgentConfiguration\": {file}}}");
    assert!(layered(&[], "", &user_data).config.is_none());
    let set = [("ECS_CONTAINER_STOP_TIMEOUT", "5s"), ("ECS_CONTAINER_START_TIMEOUT", "1m")];
    assert!(layered(&set, file, "").problems.is_empty());
}

#[test]
fn most_user_data_is_not_ours() {
    for text in [
        "",
        "#!/bin/bash\necho ECS_CLUSTER=x >> /etc/ecs/ecs.config\n",
        "#cloud-config\npackages: [ECSAgentConfiguration]\n",
        "{}",
        "{\"other\": {\"Cluster\": 5}}",
        "[1]",
        "null",
        "{ this is no JSON",
        r#"{"ECSAgentConfiguration": null}"#,
        r#"{"ECSAgentConfiguration": {}}"#,
    ] {
        let (document, problems) = Document::user_data(text);
        assert!(problems.is_empty() && format!("{document:?}") == "{}", "{text}: {problems:?}");
    }
    for (text, part) in [
        ("{\"ECSAgentConfiguration\": {\n\"Cluster\": \"hunter2}", "(EC2 user data): not valid JSON at line 2 column"),
        ("{\"ECSAgentConfiguration\": 5}", "(EC2 user data): a JSON number, where an object belongs"),
        ("{\n\n\"ECSAgentConfiguration\":\n {\"Cluter\": \"hunter2\"}}", "Cluter (EC2 user data:4): not a field"),
        ("{\"ECSAgentConfiguration\": {\"ClusterArn\": \"hunter2\"}}", "ClusterArn (EC2 user data:1): an old name"),
    ] {
        let problems = Document::user_data(text).1;
        let shown = problems.iter().map(ToString::to_string).collect::<String>();
        assert!(problems.len() == 1 && shown.contains(part) && !problems[0].is_fatal(), "{shown}");
        assert!(!shown.contains("hunter2") && shown.ends_with("it is ignored"), "{shown}");
    }
}

#[test]
fn names_that_are_not_fields_are_reported_with_a_hint() {
    for (name, part) in [
        (
            "Clustr",
            "Clustr (config.json:1): not a field of this agent; expected a field that --help names after JSON; did you mean Cluster?; it is ignored",
        ),
        ("ECS_CLUSTER", "did you mean Cluster?"),
        ("ecs_container_stop_timeout", "did you mean DockerStopTimeout?"),
        ("CoffeeMachine", "names after JSON; it is ignored"),
        ("AcceptInsecureCert", "expected the flag -k; it is ignored"),
        (
            "dynamichostportrange",
            "DynamicHostPortRange (config.json:1): set where it is not read; expected ECS_DYNAMIC_HOST_PORT_RANGE",
        ),
        ("{\\\"password\\\": \\\"hunter2\\\"}", "(config.json:1): not a field"),
    ] {
        let loaded = layered(&[], &format!("{{\"{name}\": \"hunter2\"}}"), "");
        let shown = texts(&loaded);
        assert!(shown.len() == 1 && shown[0].contains(part) && !shown[0].contains("hunter2"), "{shown:?}");
        assert!(loaded.config.is_some(), "{shown:?}");
    }
}

#[test]
fn a_file_that_is_not_a_document() {
    let shown = |bytes: &[u8]| {
        let file = TempFile::new("document", bytes);
        let path = file.0.to_str().unwrap().to_owned();
        let environment =
            [("ECS_CONFIG_FILE", "/dev/null"), ("ECS_AGENT_CONFIG_FILE_PATH", &path), ("ECS_LOGLEVEL", "loud")];
        let loaded = load(Environment::new(environment));
        let shown = texts(&loaded).join("\n").replace(&path, "F");
        assert!(shown.contains("ECS_LOGLEVEL"), "the rest is still checked: {shown}");
        assert!(!shown.contains(MARKER), "{shown}");
        (loaded.config.is_some(), shown)
    };
    let fatal = |bytes: &[u8], part: &str| {
        let (starts, shown) = shown(bytes);
        assert!(!starts && shown.contains(part), "{shown}");
    };
    assert!(shown(b"").0 && shown(b" \n\t ").0 && shown(b"null").0 && shown(b"{}").0);
    fatal(format!("{{\"Cluster\": \"{MARKER}\"").as_bytes(), "(F): not valid JSON at line 1 column");
    fatal(format!("{{}} {MARKER}").as_bytes(), "(F): not valid JSON at line 1 column 4");
    fatal(b"[1, 2]", "(F): a JSON array, where an object belongs");
    fatal(b"{\"Cluster\": \"\xff\"}", "(F): bytes that are not UTF-8");
    fatal("[".repeat(100_000).as_bytes(), "(F): ");
    let deep = format!("{{\"ReservedPorts\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    fatal(deep.as_bytes(), "ReservedPorts (F:1): an array");
}

/// A file that cannot be opened is not fatal.
#[test]
fn a_file_that_opens_but_cannot_be_read_is_fatal() {
    let problems = |path: &Path, named: bool| Document::open(path, named).1;
    let absent = Path::new("/nonexistent/ecs.config.json");
    assert!(problems(absent, false).is_empty());
    assert!(problems(absent, true).len() == 1 && !problems(absent, true)[0].is_fatal());
    assert!(problems(Path::new("/"), false)[0].is_fatal(), "a directory");
    assert!(problems(Path::new("/dev/zero"), false)[0].is_fatal(), "endless");
    let link = std::env::temp_dir().join(format!("ecs-config-dangling-{}", std::process::id()));
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(absent, &link).unwrap();
    let (document, env_file) = (problems(&link, false), EnvFile::open(&link, false, &Environment::default()).1);
    std::fs::remove_file(&link).unwrap();
    assert!(document.len() == 1 && !document[0].is_fatal(), "{document:?}");
    assert!(env_file.len() == 1 && env_file[0].is_fatal(), "{env_file:?}");
}

#[test]
fn ten_megabytes_in_one_field_are_one_value() {
    let secret = format!(r#"{{"r": "{}"}}"#, MARKER.repeat(10 << 20 >> 4));
    let text = format!(r#"{{"EngineAuthType": "docker", "EngineAuthData": {secret}, "Cluster": "c"}}"#);
    let config = layered(&[], &text, "").config.unwrap();
    assert!(config.engine_auth_data.unwrap().expose() == secret);
    assert_eq!(config.cluster.as_deref(), Some("c"));
    let text = format!(
        r#"{{"DataDirOnHost": 5, "{secret_name}": 1, "NvidiaRuntime": {secret}}}"#,
        secret_name = "x".repeat(1 << 20)
    );
    for problem in layered(&[], &text, "").problems {
        assert!(problem.to_string().len() < 400, "a problem repeats the input");
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_document() {
    let (document, problems) = Document::user_data("\u{feff}{\"ECSAgentConfiguration\":{\"Cluster\":\"prod\"}}");
    assert_eq!((document.get("ECS_CLUSTER").as_deref(), problems.len()), (Some("prod"), 0));
    let path = std::env::temp_dir().join(format!("ecs-mark-{}.json", std::process::id()));
    std::fs::write(&path, "\u{feff}{\"Cluster\":\"prod\"}").unwrap();
    let (document, problems) = Document::open(&path, true);
    assert_eq!((document.get("ECS_CLUSTER").as_deref(), problems.len()), (Some("prod"), 0));

    let wide = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    std::fs::write(&path, wide("\u{feff}{\"Cluster\":\"prod\"}")).unwrap();
    let (_, problems) = Document::open(&path, true);
    assert!(problems.len() == 1 && problems[0].is_fatal() && problems[0].shape.contains("UTF-16"), "{problems:?}");
    std::fs::remove_file(&path).unwrap();
    // The text as the metadata client returns it.
    let shown = |text: &str| Document::user_data(&String::from_utf8_lossy(&wide(text))).1;
    let problems = shown("\u{feff}{\"ECSAgentConfiguration\":{\"Cluster\":\"prod\"}}");
    assert!(problems.len() == 1 && !problems[0].is_fatal() && problems[0].shape.contains("UTF-16"), "{problems:?}");
    assert!(shown("\u{feff}<powershell>Start</powershell>").is_empty(), "most user data is not ours");
}
