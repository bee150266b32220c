//! The typed configuration: defaults, every field, and agreement of the table and the type.

use super::*;
use serde::Deserialize;

#[test]
fn nothing_set_gives_the_defaults_and_no_problem() {
    let loaded = from(&[]);
    assert!(loaded.problems.is_empty() && loaded.unused.is_empty(), "{loaded:?}");
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
    assert_eq!((config.log_level, config.log_format), (LogLevel::Crit, LogFormat::Json));
    assert_eq!(config.engine_auth_data.unwrap().expose(), r#"{"r":{"auth":"x"}}"#);
    assert_eq!(config.access_key_id.unwrap().expose(), "AKIA");
    assert_eq!(config.https_proxy.unwrap().expose(), "http://proxy:3128");
    assert_eq!(config.http_proxy, None);
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

#[test]
fn the_settings_of_task_interfaces_are_typed() {
    let defaults = config(&[]);
    assert!(!defaults.task_eni && defaults.eni_trunking && !defaults.awsvpc_block_imds);
    assert_eq!((defaults.awsvpc_local_routes, defaults.awsvpc_local_address), (Vec::new(), None));
    assert_eq!(defaults.pause_cleanup_delay, Span::secs(0));
    let variables = [
        ("ECS_ENABLE_TASK_ENI", "true"),
        ("ECS_AWSVPC_BLOCK_IMDS", "true"),
        ("ECS_AWSVPC_ADDITIONAL_LOCAL_ROUTES", r#"["10.0.0.0/8","fd00::/8","192.168.7.1/32"]"#),
    ];
    let set = config(&variables);
    assert!(set.task_eni && set.eni_trunking && set.awsvpc_block_imds);
    let routes: Vec<_> = set.awsvpc_local_routes.iter().map(ToString::to_string).collect();
    assert_eq!(routes, ["10.0.0.0/8", "192.168.7.1/32"]);
    for (delay, seconds) in [("7", 7), ("-5", 0)] {
        let file = format!(r#"{{"ENIPauseContainerCleanupDelaySeconds": {delay}}}"#);
        let config = layered(&[("AWS_DEFAULT_REGION", "x")], &file, "").config.unwrap();
        assert_eq!(config.pause_cleanup_delay, Span::secs(seconds), "{delay}");
    }
    for (address, used) in [
        ("169.254.172.2/22", Some("169.254.172.2")),
        ("169.254.175.254/32", Some("169.254.175.254")),
        ("169.254.172.1/22", None),
        ("169.254.175.255/22", None),
        ("10.0.0.1/8", None),
    ] {
        let file = format!(r#"{{"OverrideAWSVPCLocalIPv4Address": "{address}"}}"#);
        let config = layered(&[("AWS_DEFAULT_REGION", "x")], &file, "").config.unwrap();
        assert_eq!(config.awsvpc_local_address.map(|address| address.to_string()).as_deref(), used, "{address}");
    }
}
