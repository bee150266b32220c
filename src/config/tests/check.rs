//! What `check-config` says: the severity of each kind of problem, settings without effect, the two reports.

use super::*;
use crate::config::report;

/// Lines of `ecs.config`, a part of the report, and the highest severity.
type Case = (&'static str, &'static str, Option<Severity>);

/// One row for each kind of problem and of setting without effect: the rule of [`Severity`] as a table.
#[rustfmt::skip]
const SEVERITIES: &[Case] = &[
    ("ECS_CLUSTER=prod", "The agent would start.", None),
    // Another value is used.
    ("ECS_LOGLEVEL=loud", "warning: ECS_LOGLEVEL (F:1): `loud`; expected one of debug, info, warn, error, crit, none; the default `info` is used", CHANGES),
    ("ECS_IMAGE_CLEANUP_INTERVAL=20 minutes", "`20 minutes`; expected a duration such as 90s or 1h30m, at least 10m; did you mean 20m?; the default `30m` is used", CHANGES),
    ("ECS_IMAGE_CLEANUP_INTERVAL=1d", "`1d`; expected a duration such as 90s or 1h30m, at least 10m; did you mean 24h?; the default `30m` is used", CHANGES),
    ("ECS_IMAGE_CLEANUP_INTERVAL=10", "`10`, and a number needs a unit, such as 10s, 10m or 10h; expected a duration such as 90s or 1h30m, at least 10m; did you mean 10m?; the default `30m` is used", CHANGES),
    ("ECS_CONTAINER_START_TIMEOUT=10s", "the minimum of 45s is used", CHANGES),
    ("ECS_RESERVED_PORTS_UDP=[65536]", "`65536` is no port and is not reserved", CHANGES),
    ("ECS_RESERVED_PORTS=[]", "the default `[22,2375,2376,51678,51679]` is used", CHANGES),
    ("ECS_LOGLEVEL=warn\nECS_LOGLEVEL=info", "ECS_LOGLEVEL (F:2): set again, first in line 1; expected each name once; the last one counts", CHANGES),
    ("ECS_LOGLEVEL=info\nECS_LOGLEVEL=info", "note: ECS_LOGLEVEL (F:2): set again, first in line 1; expected each name once; the value is the same", NOTICE),
    ("ECS_CONTAINER_INSTANCE_TAGS={\"a\":\"1\",\"a\":\"2\"}", "`a` twice in one object; expected each name once; the last one counts", CHANGES),
    // A line, a name or a part is ignored.
    ("export ECS_LOGLEVEL=info", "ECS_LOGLEVEL (F:1): a line that begins with export", CHANGES),
    ("Environment=ECS_LOGLEVEL=info", "ECS_LOGLEVEL (F:1): a setting as a unit of systemd or a command has it; expected NAME=value without Environment= before it; did you mean ECS_LOGLEVEL=info?; the line is ignored", CHANGES),
    ("Environment=\"ECS_CLUSTER=prod\"", "did you mean ECS_CLUSTER=prod?; the line is ignored, and the agent joins the cluster `default`", CHANGES),
    ("--env=ECS_LOGLEVEL=info", "expected NAME=value without --env= before it", CHANGES),
    ("Environment=production", "would start.", None),
    ("some words", "(F:1): a text of 10 characters with white space in the name", CHANGES),
    ("ECS_LOGLEVEL", "ECS_LOGLEVEL (F:1): a name without =, and the environment has no variable of this name; expected NAME=value", CHANGES),
    ("ECS_LOGLEVAL=info", "did you mean ECS_LOGLEVEL?; it is ignored", CHANGES),
    ("ECS_DATADIR_X=/d", "did you mean ECS_DATADIR?; it is ignored", CHANGES),
    ("'ECS_LOGLEVEL'=info", "ECS_LOGLEVEL (F:1): a name with `'` before it", CHANGES),
    ("ECS_CONFIG_FILE=/x", "set where it is not read", CHANGES),
    ("AWS_ACCESS_KEY_ID=x", "AWS_ACCESS_KEY_ID (F:1): AWS_SECRET_ACCESS_KEY is missing; expected AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in one place; this key is not used", CHANGES),
    // A feature is off, or AWS refuses it.
    ("ECS_GMSA_SUPPORTED=true", "gMSA is off", CHANGES),
    ("ECS_ENGINE_AUTH_TYPE=docker", "images are pulled without these credentials", CHANGES),
    ("ECS_INSTANCE_ATTRIBUTES={\"a b\":\"\"}", "the name `a b`; expected at most 10 attributes", CHANGES),
    ("ECS_INSTANCE_ATTRIBUTES={\"a b\":\"\"}", "The agent would start, but the instance could not register: see", CHANGES),
    ("ECS_RESERVED_PORTS=[22,99999]\nECS_ENABLE_PROMETHEUS_METRICS=true", "  ECS_RESERVED_PORTS=[22,51680] (51680 since ECS_ENABLE_PROMETHEUS_METRICS is true)  (F:1)\n", CHANGES),
    ("ECS_CONTAINER_INSTANCE_TAGS={\"aws:a\":\"\"}", "the key `aws:a`; expected at most 50 tags", CHANGES),
    ("ECS_UPDATES_ENABLED=true", "without effect, warning: ECS_UPDATES_ENABLED (F:1): not supported yet; ECS cannot update this agent: install the new version", CHANGES),
    ("CREDENTIALS_FETCHER_HOST=unix:///x", "without effect, warning: CREDENTIALS_FETCHER_HOST (F:1): without a meaning for this agent; the socket", CHANGES),
    // The same at once, whatever the value.
    ("ECS_UPDATES_ENABLED=\"true\"", "without effect, warning: ECS_UPDATES_ENABLED (F:1): not supported yet", CHANGES),
    ("ECS_EBSTA_SUPPORTED=true", "without effect, warning: ECS_EBSTA_SUPPORTED (F:1): not supported yet; tasks with EBS volumes will not", CHANGES),
    ("ECS_CNI_PLUGINS_PATH=/x", "without effect, note: ECS_CNI_PLUGINS_PATH (F:1): without a meaning for this agent; the agent sets up the networks of tasks itself", NOTICE),
    // What was meant is clear, but it is not what is used.
    ("AWS_DEFAULT_REGION=eu-west-1a", "AWS_DEFAULT_REGION (F:1): `eu-west-1a`; expected a region such as eu-west-1; did you mean eu-west-1?; it is used", CHANGES),
    ("AWS_DEFAULT_REGION=\"eu-west-1\"", "in quotation marks (they are part of the value here); expected a region such as eu-west-1; did you mean eu-west-1?", CHANGES),
    ("AWS_DEFAULT_REGION=us-wset-2", "AWS_DEFAULT_REGION (F:1): `us-wset-2`; expected a region such as eu-west-1; did you mean us-west-2?; it is used", CHANGES),
    ("AWS_DEFAULT_REGION=xy-new-9", "AWS_DEFAULT_REGION=xy-new-9  (F:1)", None),
    ("ECS_DATADIR=data", "ECS_DATADIR (F:1): `data`; expected an absolute path; it is used as it is written", CHANGES),
    ("ECS_DATADIR=\"/data\"", "in quotation marks (they are part of the value here); expected an absolute path; did you mean /data?", CHANGES),
    ("ECS_LOGFILE= /log/x", "` /log/x` with white space around it; expected an absolute path; did you mean /log/x?", CHANGES),
    ("AWS_CONFIG_FILE=~/.aws/config", "AWS_CONFIG_FILE=~/.aws/config  (F:1)", None),
    ("ECS_DISABLE_PRIVILEGED=true # x", "`true # x`, and a comment needs a line of its own; expected true or false; did you mean true?", CHANGES),
    ("ECS_INSTANCE_ATTRIBUTES={\"rack\":1}", "`rack` is a number: write \"1\"; expected a JSON object of strings", FATAL),
    ("ECS_IMAGE_REGISTRY_MIRRORS={\"docker.io\":\"https://m.io\"}", "the mirror of `docker.io` begins with https://: write it without", CHANGES),
    ("ECS_AVAILABLE_LOGGING_DRIVERS=[\"json-file\",\"awslog\"]", "`awslog` is no log driver that ECS knows; expected log drivers from json-file, syslog", CHANGES),
    ("ECS_AVAILABLE_LOGGING_DRIVERS=[\"json-file\",\"awslog\"]", "  ECS_AVAILABLE_LOGGING_DRIVERS=[\"json-file\"]  (F:1)", CHANGES),
    ("ECS_AVAILABLE_LOGGING_DRIVERS=[\"json-file\",\"local\"]", "(F:1): `local` is no log driver that ECS knows", CHANGES),
    ("ECS_AVAILABLE_LOGGING_DRIVERS=[\"local\",\"awslogs\",\"loki\"]", "`local`, `loki` are no log drivers that ECS knows; expected log drivers from json-file, syslog, journald, gelf, fluentd, awslogs, splunk, logentries, sumologic, none, awsfirelens; only the others are offered to ECS", CHANGES),
    ("ECS_AVAILABLE_LOGGING_DRIVERS=[\"local\"]", "the default `[\"json-file\",\"none\"]` is used", CHANGES),
    // Settings that contradict each other.
    ("ECS_LOG_DRIVER=awslogs\nECS_LOGFILE=/log/a", "the agent's log does not go to awslogs, and no log file is written", CHANGES),
    ("ECS_LOG_DRIVER=awslogs", "the agent's log does not go to awslogs, only to standard output", CHANGES),
    ("ECS_LOG_DRIVER=awslogs\nECS_LOGLEVEL_ON_INSTANCE=info", "would start.", None),
    ("ECS_INTROSPECTION_LOOPBACK_ONLY=true\nECS_ALLOW_OFFHOST_INTROSPECTION_ACCESS=true", "ECS_ALLOW_OFFHOST_INTROSPECTION_ACCESS (F:2): true with ECS_INTROSPECTION_LOOPBACK_ONLY; expected one of the two; no other host can connect", CHANGES),
    ("ECS_INTROSPECTION_LOOPBACK_ONLY=true\nECS_ALLOW_OFFHOST_INTROSPECTION_ACCESS=false", "would start.", None),
    ("ECS_ALLOW_OFFHOST_PROMETHEUS_ACCESS=true", "ECS_ALLOW_OFFHOST_PROMETHEUS_ACCESS (F:1): true, and ECS_ENABLE_PROMETHEUS_METRICS is not; expected both, or none; no metrics are served", CHANGES),
    ("ECS_ALLOW_OFFHOST_PROMETHEUS_ACCESS=true\nECS_ENABLE_PROMETHEUS_METRICS=true", "would start.", None),
    ("ECS_MANAGE_FIREWALL=false\nECS_SKIP_LOCALHOST_TRAFFIC_FILTER=true", "ECS_SKIP_LOCALHOST_TRAFFIC_FILTER (F:2): true, and ECS_MANAGE_FIREWALL is false; expected one of the two; the agent makes no rules in any case", CHANGES),
    ("ECS_MANAGE_FIREWALL=false\nECS_SKIP_LOCALHOST_TRAFFIC_FILTER=false", "would start.", None),
    ("ECS_IMAGE_DISK_LOW_PERCENT=50", "ECS_IMAGE_DISK_LOW_PERCENT (F:1): set without a usable ECS_IMAGE_DISK_HIGH_PERCENT", CHANGES),
    ("ECS_IMAGE_DISK_LOW_PERCENT=90\nECS_IMAGE_DISK_HIGH_PERCENT=80", "`90` is above ECS_IMAGE_DISK_HIGH_PERCENT, which is 80; expected at most 80; 80 is used for both", CHANGES),
    ("ECS_IMAGE_DISK_LOW_PERCENT=80\nECS_IMAGE_DISK_HIGH_PERCENT=80", "would start.", None),
    ("ECS_DISABLE_IMAGE_CLEANUP=true\nECS_IMAGE_DISK_HIGH_PERCENT=80", "images are still deleted before a pull", CHANGES),
    ("ECS_VOLUME_PLUGIN_CAPABILITIES=[\"efsauth\"]", "`efsauth` is no capability of the volume plugin; expected efsAuth; did you mean efsAuth?", CHANGES),
    ("ECS_EXCLUDE_UNTRACKED_IMAGE=a, b", "the white space is taken as a part of the name", CHANGES),
    ("HTTP_PROXY=http://a:1\nhttp_proxy=http://b:1", "http_proxy (F:2): another value than that of HTTP_PROXY beside it; expected one of the two; HTTP_PROXY is used", CHANGES),
    ("HTTP_PROXY=http://a:1\nhttp_proxy=http://a:1", "would start.", None),
    // The operator gets what is written.
    ("ECS_UPDATES_ENABLED=false", "the same without these lines, since their features are not supported yet:\n  ECS_UPDATES_ENABLED=false  (F:1)", None),
    ("ECS_EBSTA_SUPPORTED=false", "not supported yet:\n  ECS_EBSTA_SUPPORTED=false  (F:1)", None),
    ("ECS_CLUSTER= prod", "note: ECS_CLUSTER (F:1): white space around `prod`; expected none; it is removed", NOTICE),
    ("ECS_LOGLEVEL= debug", "  ECS_LOGLEVEL=debug  (F:1)", NOTICE),
    ("ECS_DISABLE_METRICS=true", "  ECS_DISABLE_METRICS=true  (F:1)", None),
    ("ECS_AGENT_LABELS={}", "without effect, note: ECS_AGENT_LABELS (F:1): without a meaning for this agent", NOTICE),
    // Proxies are shown, without their passwords.
    ("HTTP_PROXY=http://me:hunter2@proxy:3128", "  HTTP_PROXY=http://***@proxy:3128  (F:1)\n  HTTPS_PROXY=http://***@proxy:3128  (F:1)\n", None),
    ("HTTPS_PROXY= proxy:3128", "  HTTPS_PROXY=proxy:3128  (F:1)\n", NOTICE),
    ("http_proxy=http://proxy:3128/", "  HTTP_PROXY=http://proxy:3128/  (F:1)\n", None),
    // The defaults are counted.
    ("ECS_RESERVED_MEMORY=64", "  ECS_CLUSTER=default  (default)\n  ECS_RESERVED_MEMORY=64  (F:1)\n  and ", None),
    ("ECS_EXTERNAL=true\nAWS_DEFAULT_REGION=eu-west-1", "  NoIID=true (since ECS_EXTERNAL is true)  (default)\n", None),
    // The agent does not start.
    ("ECS_CLUSTER=\"prod\"", "  ECS_CLUSTER  (unusable, F:1)\n", FATAL),
    ("DOCKER_HOST=x\nECS_CLUSTER=c", "  DOCKER_HOST  (unusable, F:1)\n", FATAL),
    ("ECS_BACKEND_HOST=ftp://x", "  ECS_BACKEND_HOST  (unusable, F:1)\n", FATAL),
    ("HTTP_PROXY=ftp://me:hunter2@h", "  HTTP_PROXY  (unusable, F:1)\n", FATAL),
    ("HTTPS_PROXY=socks5://me:hunter2@h", "fatal: HTTPS_PROXY (F:1): a text of 21 characters, a SOCKS proxy, which this agent cannot use; expected an http or https proxy URL", FATAL),
    ("ECS_INSTANCE_ATTRIBUTES=[1]", "ECS_INSTANCE_ATTRIBUTES (F:1): a JSON array, where an object belongs; expected a JSON object of strings", FATAL),
    ("ECS_CONTAINER_INSTANCE_TAGS=5", "a JSON number, where an object belongs", FATAL),
    ("ECS_RESERVED_PORTS={\"a\":22}", "a JSON object, where an array belongs", CHANGES),
    ("ECS_ENGINE_AUTH_TYPE=dockerconfig", "`dockerconfig`; expected one of docker, dockercfg; did you mean dockercfg?", CHANGES),
    ("ECS_BACKEND_HOST=ftp://x", "fatal: ECS_BACKEND_HOST (F:1): `ftp://x`; expected an http or https URL, or a host; the agent does not start", FATAL),
    ("ECS_INSTANCE_ATTRIBUTES={", "not valid JSON at column 1", FATAL),
    ("{\"Cluster\": \"prod\"}", "fatal: (F): a JSON document; expected NAME=value lines; JSON is read from", FATAL),
    ("# x\n\n  [1]", "fatal: (F): a JSON document", FATAL),
    ("ECS_LOGLEVEL=info\nECS_DATADIR=/d\0", "fatal: (F): a NUL byte in line 2", FATAL),
];

#[test]
fn a_problem_matters_as_much_as_its_consequence() {
    for &(lines, part, severity) in SEVERITIES {
        let loaded = check(lines.as_bytes());
        let text = report::text(&loaded, false);
        assert!(text.contains(part), "{lines}:\n{text}");
        assert_eq!(loaded.severity(), severity, "{lines}:\n{text}");
        let is_last = match severity {
            FATAL => "would not start.\n",
            CHANGES => "see the warnings.\n",
            _ => "would start.\n",
        };
        assert!(text.ends_with(is_last), "{lines}:\n{text}");
        assert_eq!(loaded.config.is_none(), severity == FATAL, "{lines}");
    }
    let counts = |severity: Severity| (severity.counts(false), severity.counts(true));
    assert_eq!(counts(Severity::Fatal), (true, true));
    assert_eq!(counts(Severity::Changes), (true, true));
    assert_eq!(counts(Severity::Notice), (false, true));
}

#[test]
fn an_old_path_and_the_old_name_are_notes() {
    let file = TempFile::new("old-path", b"ECS_DATADIR=/data\n");
    let path = file.0.to_str().unwrap();
    let environment = Environment::new([("ECS_CONFIG_FILE", path)]);
    let loaded = Sources::open(environment, Role::Service).load(None);
    assert_eq!(loaded.severity(), NOTICE, "{:?}", texts(&loaded));
    assert_eq!(layered(&[], r#"{"ClusterArn": "prod"}"#, "").severity(), NOTICE);
}

#[test]
fn findings_are_sorted_and_the_fatal_ones_are_last() {
    let lines = "ECS_BACKEND_HOST=ftp://x\nECS_LOGLEVEL=loud\nECS_UPDATES_ENABLED=true\nECS_CLUSTR=x\nECS_DATADIR=data";
    let text = report::text(&check(lines.as_bytes()), false);
    let places: Vec<&str> = text.lines().filter_map(|line| line.split_once("(F:")?.1.split(')').next()).collect();
    let (_, findings) = places.split_at(places.len() - 5);
    assert_eq!(findings, ["2", "3", "4", "5", "1"], "{text}");
    assert!(text.ends_with("the agent does not start\nThe agent would not start.\n"), "{text}");
}

#[test]
fn a_file_that_is_not_there_or_cannot_be_used() {
    let environment = || Environment::new([("ECS_LOGLEVEL", "warn"), ("ECS_CONFIG_FILE", "/")]);
    let loaded = load(environment());
    let text = report::text(&loaded, false);
    assert!(loaded.has_unusable_file && !text.contains("ECS_LOGLEVEL=warn"), "{text}");
    assert!(
        text.contains("the values in effect are not shown")
            && report::json(None, &loaded)["effective"] == serde_json::json!([])
    );
    let loaded = Loaded { missing_file: Some("/etc/ecs/ecs.config".to_owned()), ..check(b"") };
    assert_eq!(loaded.severity(), None);
    let text = report::text(&loaded, false);
    assert!(text.contains("/etc/ecs/ecs.config is not there: the environment and the defaults are used.\n"), "{text}");
    let (file, problems) = EnvFile::open(std::path::Path::new("/nonexistent/x"), false, &Environment::default());
    assert!(file.state() == FileState::Absent && problems.is_empty());
}

/// Only in files: in the environment they may be meant for another program.
#[test]
fn names_close_to_general_ones_are_reported_in_files() {
    for (name, meant) in [
        ("AWS_REGION", Some("AWS_DEFAULT_REGION")),
        ("AWS_DEFUALT_REGION", Some("AWS_DEFAULT_REGION")),
        ("NOPROXY", Some("NO_PROXY")),
        ("HTTPS_PROXYY", Some("HTTPS_PROXY")),
        ("DOCKERHOST", Some("DOCKER_HOST")),
        ("AWS_SECRET_KEY", Some("AWS_SECRET_ACCESS_KEY")),
        ("JAVA_HOME", None),
        ("LANG", None),
    ] {
        let shown = texts(&check(format!("{name}=x").as_bytes())).join("\n");
        let hint = meant.map(|meant| format!("did you mean {meant}?"));
        assert_eq!(shown.contains("not a variable"), meant.is_some(), "{shown}");
        assert!(hint.is_none_or(|hint| shown.contains(&hint)), "{name}: {shown}");
        assert_eq!(texts(&layered(&[(name, "x")], "", "")), [""; 0], "{name} in the environment");
    }
}

#[test]
fn lines_that_the_go_agent_ignores_keep_nothing_down() {
    for lines in
        ["[ecs]\nECS_CLUSTER=prod", "# \0\nECS_CLUSTER=prod", "ECS_CLUSTER=prod\n\0\0\0", "{\nECS_CLUSTER=prod\n}"]
    {
        let loaded = check(lines.as_bytes());
        assert_eq!(loaded.config.unwrap().cluster.as_deref(), Some("prod"), "{lines:?}");
    }
}

#[test]
fn a_name_alone_has_its_value_in_the_environment() {
    let environment = Environment::new([("ECS_LOGLEVEL", "debug")]);
    let (file, problems) = EnvFile::parse("F", b"ECS_LOGLEVEL\nhunter2\nECS_DATADIR", &environment);
    assert_eq!(file.get("ECS_LOGLEVEL").as_deref(), Some("debug"));
    let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(shown.len(), 2, "{shown:?}");
    assert!(shown[0].starts_with("(F:2): a name without =") && !shown[0].contains("hunter2"), "{shown:?}");
    assert!(shown[1].starts_with("ECS_DATADIR (F:3): a name without ="), "{shown:?}");
}

#[test]
fn settings_without_effect_are_not_listed_as_in_effect() {
    let file = TempFile::new("unused", b"ECS_UPDATES_ENABLED=true\nECS_AGENT_LABELS={}\nECS_RESERVED_MEMORY=64\n");
    let environment = || Environment::new([("ECS_CONFIG_FILE", file.0.to_str().unwrap())]);
    for role in [Role::Agent, Role::Service] {
        let loaded = Sources::open(environment(), role).load(None);
        let text = report::text(&loaded, false);
        let (in_effect, apart) = text.split_once("\nwithout effect").expect("they are apart");
        let place = file.0.display();
        for name in [format!("ECS_UPDATES_ENABLED ({place}:1): not"), format!("ECS_AGENT_LABELS ({place}:2): without")]
        {
            assert!(apart.contains(&name), "{name}\n{text}");
        }
        assert!(in_effect.contains(&format!("ECS_RESERVED_MEMORY=64  ({place}:3)")), "{text}");
        // Nor are defaults of the service for features that do not exist yet.
        for name in ["ECS_UPDATES_ENABLED", "ECS_AGENT_LABELS"] {
            assert!(!in_effect.contains(name), "{name}\n{text}");
        }
        assert_eq!(loaded.without_effect().len(), 2, "the log names them, too");
    }
    let loaded = layered(&[], r#"{"PlatformVariables": {"a": 1}, "UpdatesEnabled": true}"#, "");
    let names: Vec<&str> = loaded.unused.iter().map(|unused| unused.key.name).collect();
    assert_eq!(names, ["ECS_UPDATES_ENABLED", "PlatformVariables"]);
}

#[test]
fn a_file_is_checked_in_place_of_the_usual_one() {
    let usual = TempFile::new("usual", b"ECS_CLUSTER=usual\n");
    let other = TempFile::new("other", b"ECS_CLUSTER=other\n");
    let load = |other: Option<&str>| {
        let environment = Environment::new([("ECS_CONFIG_FILE", usual.0.to_str().unwrap())]);
        Sources::open_to_check(environment, Role::Agent, other).load(None)
    };
    let cluster = |loaded: Loaded| loaded.config.unwrap().cluster.unwrap();
    assert_eq!(cluster(load(None)), "usual");
    assert!(!report::text(&load(other.0.to_str()), false).contains("ECS_CONFIG_FILE"), "it is not read");
    assert_eq!(cluster(load(other.0.to_str())), "other");
    // What is set in the shell that asks neither hides the file's values nor counts as its own.
    let bad = TempFile::new("bad", b"ECS_CLUSTER=\"prod\"\nECS_DATADIR\n");
    let shell = Environment::new([("ECS_CLUSTER", "default"), ("ECS_LOGLEVEL", "loud"), ("ECS_DATADIR", "/d")]);
    let loaded = Sources::open_to_check(shell, Role::Agent, bad.0.to_str()).load(None);
    let shown = texts(&loaded).join("\n");
    assert!(loaded.config.is_none() && shown.contains("in quotation marks") && !shown.contains("loud"), "{shown}");
    assert_eq!(loaded.unusable.unwrap().data_dir, std::path::PathBuf::from("/d"), "a line without `=`");
    let missing = load(Some("/nonexistent/x"));
    assert!(texts(&missing)[0].contains("this file was named and is not there"), "{:?}", texts(&missing));
    assert!(missing.config.is_none() && texts(&missing)[0].contains("not there"), "{:?}", texts(&missing));
}

#[test]
fn the_json_has_the_documented_members() {
    let loaded = check(
        b"ECS_LOGLEVEL=loud\nECS_UPDATES_ENABLED=true\nECS_AGENT_LABELS=x\nECS_CLUSTER=c\nAWS_ACCESS_KEY_ID=hunter2\nAWS_SECRET_ACCESS_KEY=hunter2",
    );
    let json = report::json(Some("F"), &loaded);
    assert!(!json.to_string().contains("hunter2"), "{json}");
    let problem = serde_json::json!({
        "severity": "warning", "setting": "ECS_LOGLEVEL", "place": "F:1", "file": "F", "line": 1, "found": "`loud`",
        "expected": "one of debug, info, warn, error, crit, none", "consequence": "the default `info` is used",
    });
    assert_eq!(json["problems"], serde_json::json!([problem]));
    let unused = |name: &str, line: u8, severity: &str, consequence: &str| {
        serde_json::json!([{"setting": name, "place": format!("F:{line}"), "file": "F", "line": line,
            "severity": severity, "consequence": consequence}])
    };
    let updates = "ECS cannot update this agent: install the new version";
    assert_eq!(json["unsupported"], unused("ECS_UPDATES_ENABLED", 2, "warning", updates));
    assert_eq!(json["foreign"][0]["setting"], "ECS_AGENT_LABELS");
    let effective = json["effective"].as_array().unwrap();
    let found = |name: &str| effective.iter().find(|value| value["setting"] == name).cloned().unwrap_or_default();
    let cluster = serde_json::json!({"setting": "ECS_CLUSTER", "value": "c", "place": "F:4"});
    assert_eq!(found("ECS_CLUSTER"), cluster);
    assert_eq!(found("AWS_SECRET_ACCESS_KEY")["value"], "[set, not shown]");
    assert_eq!(found("ECS_DATADIR")["place"], serde_json::Value::Null);
    assert_eq!((&json["file"], &json["starts"], &json["severity"]), (&"F".into(), &true.into(), &"warning".into()));
    // The members that `src/config/ecs_config.md` names.
    let page = include_str!("../ecs_config.md");
    for member in json.as_object().unwrap().keys().chain(problem.as_object().unwrap().keys()) {
        assert!(page.contains(&format!("`{member}`")), "{member} is not in the page");
    }
}

/// Names in a place that is not a file.
#[test]
fn the_json_tells_files_from_other_places() {
    let loaded = layered(&[("ECS_LOGLEVEL", "loud")], "", r#"{"ECSAgentConfiguration": {"DataDir": 5}}"#);
    let json = report::json(None, &loaded);
    let places: Vec<_> = json["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| {
            (problem["place"].as_str().unwrap_or_default().to_owned(), problem["file"].clone(), problem["line"].clone())
        })
        .collect();
    let null = serde_json::Value::Null;
    assert!(places.contains(&("environment".to_owned(), null.clone(), null.clone())), "{places:?}");
    assert!(places.contains(&("EC2 user data:1".to_owned(), null.clone(), 1.into())), "{places:?}");
    let missing = report::json(None, &load(Environment::new([("ECS_CONFIG_FILE", "/nonexistent/x")])));
    assert_eq!((&missing["problems"][0]["file"], &missing["file"]), (&"/nonexistent/x".into(), &null));
}

/// JSON as an editor lays it out: one finding, which says what happened and what to do.
#[test]
fn json_over_several_lines_is_one_finding() {
    let pretty = "{\n  \"rack\": \"r=1\",\n  \"zone\": \"b\"\n}";
    let gone_on = |line: usize| format!("JSON that goes on to line {line}, and a value ends with its line; expected");
    for (lines, wanted, last) in [
        (format!("ECS_INSTANCE_ATTRIBUTES={pretty}"), "fatal: ECS_INSTANCE_ATTRIBUTES (F:1): ", 4),
        (format!("ECS_INSTANCE_ATTRIBUTES='{pretty}'"), "fatal: ECS_INSTANCE_ATTRIBUTES (F:1): ", 4),
        (format!("ECS_INSTANCE_ATTRIBUTES=\n{pretty}"), "warning: ECS_INSTANCE_ATTRIBUTES (F:1): ", 5),
        (format!("ECS_CONTAINER_INSTANCE_TAGS={pretty}\n"), "ECS_CONTAINER_INSTANCE_TAGS (F:1): ", 4),
        (format!("ECS_ENGINE_AUTH_TYPE=docker\nECS_ENGINE_AUTH_DATA={pretty}"), "ECS_ENGINE_AUTH_DATA (F:2): ", 5),
        ("ECS_RESERVED_PORTS=[\n22,\n80\n]".to_owned(), "warning: ECS_RESERVED_PORTS (F:1): ", 4),
        (format!("ECS_CLUSTER={pretty}"), "ECS_CLUSTER (F:1): ", 4),
        (format!("MY_OWN={pretty}"), "warning: (F:1): ", 4),
        (format!("export ECS_INSTANCE_ATTRIBUTES={pretty}"), "(F:1): a line that begins with export; ", 4),
        (format!("ECS_INSTANCE_ATTRIBUTE={pretty}"), "ECS_INSTANCE_ATTRIBUTE (F:1): not a variable of this agent; ", 4),
    ] {
        let text = report::text(&check(lines.as_bytes()), false);
        let found: Vec<&str> = text.lines().filter(|line| line.contains("(F:") && !line.starts_with(' ')).collect();
        let [line] = found[..] else { panic!("{lines}\n{text}") };
        assert!(line.contains(&format!("{wanted}{}", gone_on(last))), "{line}");
        assert!(line.contains("all on one line (`jq -c .` prints JSON so); ") && !line.contains("r=1"), "{line}");
    }
    // What follows is read as before.
    let loaded = check(format!("ECS_RESERVED_PORTS_UDP=[\n1\n]\nECS_CLUSTER=prod\n{pretty}").as_bytes());
    assert_eq!(loaded.config.as_ref().unwrap().cluster.as_deref(), Some("prod"));
    // A setting without effect needs no correction first.
    let text = report::text(&check(format!("ECS_AGENT_LABELS={pretty}").as_bytes()), false);
    assert_eq!(text.lines().filter(|line| line.contains("(F:1)")).count(), 1, "{text}");
}

/// Defaults are listed with `-all`, and always in JSON.
#[test]
fn defaults_are_listed_on_request() {
    let loaded = check(b"ECS_RESERVED_MEMORY=64\nECS_LOGLEVEL=info\n");
    let (short, long) = (report::text(&loaded, false), report::text(&loaded, true));
    assert!(short.lines().count() < 8, "{short}");
    assert!(
        short.contains("  ECS_LOGLEVEL=info  (F:2)\n"),
        "a line of the file, although it says the default: {short}"
    );
    let defaults: Vec<&str> = long.lines().filter(|line| line.ends_with("(default)")).collect();
    assert!(short.contains(&format!("  and {} defaults, which -all lists\n", defaults.len() - 1)), "{short}");
    assert!(defaults.len() > 40 && !long.contains("-all"), "{long}");
    // The file's own lines come first.
    let first = long.lines().skip_while(|line| !line.starts_with("  ")).take(3).collect::<Vec<_>>().join("\n");
    assert!(first.contains("(F:1)") && first.contains("(F:2)") && first.contains("ECS_CLUSTER=default"), "{long}");
    let effective = report::json(None, &loaded)["effective"].as_array().unwrap().len();
    assert_eq!(effective, defaults.len() + 2);
    // So are the defaults of the service.
    let file = TempFile::new("defaults", b"ECS_CLUSTER=c\nECS_AGENT_CONFIG_FILE_PATH=/dev/null\n");
    let environment = Environment::new([("ECS_CONFIG_FILE", file.0.to_str().unwrap())]);
    let loaded = Sources::open(environment, Role::Service).load(None);
    let place = "(default of -service)";
    assert!(!report::text(&loaded, false).contains(place) && report::text(&loaded, true).contains(place));
}

/// What is written cannot be used, and the default is not in effect either.
#[test]
fn what_is_fatal_has_no_value_in_effect() {
    for key in KEYS.iter().filter(|key| key.fatal) {
        let loaded = from(&[(key.name, "{\"\u{1}\":[")]);
        let found: Vec<_> = loaded.effective.iter().filter(|value| value.name == key.name).collect();
        let [value] = found[..] else { panic!("{}: {found:?}", key.name) };
        assert_eq!((value.value.as_deref(), value.place.as_deref()), (None, Some("environment")), "{}", key.name);
    }
    let loaded = layered(&[], r#"{"Cluster": 5}"#, "");
    let json = report::json(None, &loaded);
    let cluster = json["effective"].as_array().unwrap().iter().find(|value| value["setting"] == "ECS_CLUSTER").unwrap();
    assert_eq!((&cluster["value"], &cluster["place"]), (&serde_json::Value::Null, &"config.json:1".into()));
}

/// SIGHUP keeps the levels if those that are written cannot be read.
#[test]
fn levels_that_cannot_be_read_are_found() {
    for (lines, why) in [
        ("ECS_LOGLEVEL=debug", None),
        ("ECS_LOGLEVEL= debug", None),
        ("ECS_LOGLEVEL=warn\nECS_LOGLEVEL=debug", None),
        ("ECS_LOGLEVEL=debug\nDOCKER_HOST=x\nECS_CLUSTR=x", None),
        ("", None),
        ("ECS_LOGLEVEL=loud", Some("ECS_LOGLEVEL (F:1): `loud`; expected one of debug, info, warn, error, crit, none")),
        (
            "ECS_LOGLEVEL=debug\nECS_LOGLEVEL_ON_INSTANCE=x",
            Some("ECS_LOGLEVEL_ON_INSTANCE (F:2): `x`; expected one of"),
        ),
        ("export ECS_LOGLEVEL=debug", Some("ECS_LOGLEVEL (F:1): a line that begins with export")),
        ("{\"LogLevel\":1}", Some("(F): a JSON document; expected NAME=value lines")),
    ] {
        let found = check(lines.as_bytes()).levels_unreadable();
        assert_eq!(found.is_some(), why.is_some(), "{lines}: {found:?}");
        let found = found.unwrap_or_default();
        assert!(found.starts_with(why.unwrap_or_default()) && !found.contains("does not start"), "{lines}: {found}");
    }
}
