//! The agent as the host's service: ecs-init's defaults, and paths written for its container.

use super::*;
use defaults::ServiceDefaults;

fn service(environment: &[(&str, &str)], file: &str) -> Loaded {
    let environment = Environment::new(environment.iter().copied());
    let (file, problems) = Document::file("config.json", file);
    load_from(&[&environment, &file, &ServiceDefaults::for_this_host()], true, problems)
}

#[test]
fn the_defaults_of_ecs_init_hold_without_a_problem() {
    let loaded = service(&[], "");
    assert!(loaded.problems.is_empty() && loaded.unused.is_empty(), "{:?}", texts(&loaded));
    let config = loaded.config.unwrap();
    assert_eq!(config.logging_drivers, ["json-file", "syslog", "awslogs", "fluentd", "none"]);
    assert_eq!((config.data_dir, config.checkpoint), (PathBuf::from("/var/lib/ecs/data"), true));
    assert_ne!(config.detailed_os_family, "LINUX");
}

#[test]
fn operators_settings_take_precedence_over_these() {
    let drivers = r#"["json-file"]"#;
    let both =
        [("ECS_AVAILABLE_LOGGING_DRIVERS", drivers), ("ECS_CHECKPOINT", "false"), ("ECS_DETAILED_OS_FAMILY", "")];
    let config = service(&both, "").config.unwrap();
    assert_eq!((config.logging_drivers.len(), config.checkpoint, config.detailed_os_family.as_str()), (1, false, ""));
    let config = service(&[], r#"{"AvailableLoggingDrivers": ["none"], "Checkpoint": false}"#).config.unwrap();
    assert_eq!((config.logging_drivers, config.checkpoint), (vec!["none".to_owned()], false));
    // A plain bool that the environment turns off stays off: a default of the service does not turn it on again.
    let loaded = service(&[("ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST", "false")], "");
    let config = loaded.config.unwrap();
    assert!(config.task_roles && !config.task_roles_in_host_network && config.awslogs_with_execution_role);
}

#[test]
fn a_default_of_the_service_that_is_used_is_named() {
    let loaded = service(&[("ECS_AVAILABLE_LOGGING_DRIVERS", "json-file")], "");
    let shown = texts(&loaded).join("\n");
    assert!(
        shown.ends_with(
            "; the default of -service, `[\"json-file\",\"syslog\",\"awslogs\",\"fluentd\",\"none\"]`, is used"
        ),
        "{shown}"
    );
}

#[test]
fn an_external_service_gives_tasks_no_interfaces() {
    let eni = |environment: &[(&str, &str)]| {
        let environment = Environment::new(environment.iter().copied());
        after_rules(&[&environment, &ServiceDefaults::for_this_host()], true, "ECS_ENABLE_TASK_ENI")
    };
    assert_eq!(eni(&[]), "true");
    assert!(eni(&[("ECS_EXTERNAL", "true"), ("AWS_DEFAULT_REGION", "x")]).starts_with("false"));
}

#[test]
fn paths_of_the_container_are_reported_and_translated() {
    let loaded = service(&[("ECS_DATADIR", "/data")], "");
    assert_eq!(loaded.config.unwrap().data_dir, PathBuf::from("/var/lib/ecs/data"));
    assert_eq!(loaded.problems.len(), 1);
    assert!(loaded.problems[0].to_string().ends_with("/var/lib/ecs/data is used"), "{:?}", loaded.problems);
    assert_eq!(from(&[("ECS_DATADIR", "/data")]).config.unwrap().data_dir, PathBuf::from("/data"));
}

/// `check-config -service` is typed in a shell, and the unit does not have that shell's variables.
#[test]
fn variables_of_the_shell_do_not_count_for_the_unit() {
    let file = TempFile::new("unit", b"ECS_CLUSTER=prod\nECS_AGENT_CONFIG_FILE_PATH=/dev/null\n");
    let shell = || {
        let proxy = [("HTTPS_PROXY", "socks5://h"), ("AWS_DEFAULT_REGION", "eu-west-1"), ("SSL_CERT_FILE", "/x")];
        Environment::new(proxy.into_iter().chain([("ECS_CONFIG_FILE", file.0.to_str().unwrap())]))
    };
    let unit = Sources::open_to_check(shell(), Role::Service, None).load(None);
    assert!(unit.problems.is_empty(), "{:?}", texts(&unit));
    let shown = |name: &str| unit.effective.iter().any(|value| value.name == name && value.place.is_some());
    assert!(shown("ECS_CLUSTER") && !["HTTPS_PROXY", "AWS_DEFAULT_REGION", "SSL_CERT_FILE"].into_iter().any(shown));
    let here = Sources::open_to_check(shell(), Role::Agent, None).load(None);
    assert!(here.config.is_none(), "an agent that is started in this shell has them");
}

#[test]
fn lines_end_where_ecs_init_ends_them() {
    let file = TempFile::new("trim", b"ECS_IMAGE_PULL_BEHAVIOR=once \t\nECS_AGENT_CONFIG_FILE_PATH=/dev/null\r\n");
    let load = |role| {
        let environment = Environment::new([("ECS_CONFIG_FILE", file.0.to_str().unwrap())]);
        let loaded = Sources::open(environment, role).load(None);
        (loaded.problems.len(), loaded.config.unwrap().image_pull_behavior)
    };
    assert_eq!(load(Role::Agent), (1, ImagePullBehavior::Default));
    assert_eq!(load(Role::Service), (1, ImagePullBehavior::Once), "a note");
    let lines = b"ECS_CLUSTER=prod \nECS_DATADIR=/d\t\nMY_OWN=x \nECS_AUDIT_LOGFILE=/x \nECS_AGENT_CONFIG_FILE_PATH=/dev/null\n";
    let file = TempFile::new("trimmed", lines);
    let environment = Environment::new([("ECS_CONFIG_FILE", file.0.to_str().unwrap())]);
    let loaded = Sources::open(environment, Role::Service).load(None);
    let path = file.0.display();
    let note = |name: &str, line: u8, value: &str| {
        format!("{name} ({path}:{line}): white space around `{value}`; expected none; it is removed")
    };
    let mut shown = texts(&loaded);
    shown.sort();
    let audit = note("ECS_AUDIT_LOGFILE", 4, "/x");
    assert_eq!(shown, [audit, note("ECS_CLUSTER", 1, "prod"), note("ECS_DATADIR", 2, "/d")]);
    assert_eq!(loaded.severity(), NOTICE);
}
