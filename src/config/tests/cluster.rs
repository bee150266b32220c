//! The cluster: values that can be used and that cannot, and lines that name it in another notation.

use super::*;
use crate::config::report;

/// What the operator wrote as a cluster, and a part of the problem. The agent never starts with another cluster.
const NO_CLUSTER: &[(&[u8], &str)] = &[
    (b"ECS_CLUSTER=\"prod\"", "ECS_CLUSTER (F:1): `\"prod\"` in quotation marks (they are part of the value here)"),
    (b"ECS_CLUSTER='prod'", "did you mean prod?"),
    (b"ECS_CLUSTER=my cluster", "`my cluster`, with a blank"),
    (b"ECS_CLUSTER=prod # main", "a comment needs a line of its own; expected a cluster name"),
    (b"ECS_CLUSTER=$(hostname)", "`$(hostname)`, and nothing is expanded here"),
    (b"ECS_CLUSTER=$CLUSTER", "`$CLUSTER`, and nothing is expanded here"),
    (b"ECS_CLUSTER=${CLUSTER}", "nothing is expanded here"),
    (b"ECS_CLUSTER=`hostname`", "nothing is expanded here"),
    (b"ECS_CLUSTER=prod.example", "`prod.example`"),
    (b"ECS_CLUSTER=prod\x1b[0m", "a control character"),
    (b"ECS_CLUSTER=prodAWS_SECRET_ACCESS_KEY=hunter2", "a text of 33 characters"),
    (b"ECS_CLUSTER=arn:aws:ecs:us-west-2:123456789012:service/prod", "or the ARN of a cluster"),
    (b"ECS_CLUSTER=pr\xffod", "ECS_CLUSTER (F:1): 17 bytes that are not UTF-8"),
    (b"{\"Cluster\":\"prod\"}", "a JSON document"),
    (b"E\0C\0S\0_\0C\0L\0U\0S\0T\0E\0R\0=\0p\0", "UTF-16 or UTF-32 text"),
    (b"ECS_CLUSTER=p\0\n", "a NUL byte in line 1"),
    (b"\xff\xfeE\0C\0S\0", "UTF-16 or UTF-32 text"),
];

/// Lines that name a cluster in another notation. The Go agent ignores them, so an instance with such a file is in `default`.
const OTHER_NOTATION: &[(&[u8], &str)] = &[
    (b"ECS_CLUSTER =prod", "white space in the name"),
    (b"export ECS_CLUSTER=prod", "without export"),
    (b"ECS_CLUSTER prod", "ECS_CLUSTER (F:1): a name and a value without = between them; expected NAME=value"),
    (b"ECS_CLUSTER\tprod", "a name and a value without ="),
    (b"ECS_CLUSTER: prod", "a name and a value without ="),
    (b"ECS_CLUSTER:prod", "a name and a value without ="),
    (b"- ECS_CLUSTER=prod", "white space in the name"),
    (b"ECS_CLUSTER", "a name without ="),
    (b"\"ECS_CLUSTER\"=prod", "did you mean ECS_CLUSTER?"),
    (b"\xe2\x80\x8bECS_CLUSTER=prod", "did you mean ECS_CLUSTER?"),
    (b"ECS_CLUSTR=prod", "did you mean ECS_CLUSTER?"),
    (b"ecs_cluster=prod", "did you mean ECS_CLUSTER?"),
    (b"ECS_CLUSTER_NAME=prod", "did you mean ECS_CLUSTER?"),
    (b"ECS-CLUSTER=prod", "did you mean ECS_CLUSTER?"),
    (b"Cluster=prod", "did you mean ECS_CLUSTER?"),
    (b"ECS_CLUSTER=prod\nECS_CLUSTER=", "set again, first in line 1"),
    (b";ECS_CLUSTER=prod", "ECS_CLUSTER"),
    (b"[ecs]\nECS_CLUSTR=prod", "did you mean ECS_CLUSTER?"),
];

#[test]
fn another_notation_of_the_cluster_is_no_reason_to_stay_down() {
    for (lines, part) in OTHER_NOTATION {
        let loaded = check(lines);
        let (shown, text) = (texts(&loaded).join("\n"), String::from_utf8_lossy(lines));
        assert_eq!(loaded.severity(), CHANGES, "{text}: {shown}");
        assert!(shown.contains(part), "{text}: {shown}");
        assert_eq!(loaded.config.unwrap().cluster, None, "{text}");
    }
    for (file, user_data, part) in [
        (r#"{"Clutser": "prod"}"#, "", "did you mean Cluster?"),
        ("", r#"{"ECSAgentConfiguration": {"Cluster": 5}}"#, "Cluster (EC2 user data:1): a number"),
        ("", r#"{"ECSAgentConfiguration": {"ClusterArn": "prod"}}"#, "ClusterArn (EC2 user data:1): an old name"),
        ("", r#"{"ECSAgentConfiguration": {"Cluster": "prod"}"#, "Cluster (EC2 user data): not valid JSON"),
    ] {
        let loaded = layered(&[], file, user_data);
        let shown = texts(&loaded).join("\n");
        assert!(loaded.config.is_some() && shown.contains(part), "{file}{user_data}: {shown}");
    }
    // A cluster in user data counts, whatever is wrong above it.
    let loaded = layered(&[("ECS_CLUSTR", "x")], "", r#"{"ECSAgentConfiguration": {"Cluster": "prod"}}"#);
    assert_eq!(loaded.config.unwrap().cluster.as_deref(), Some("prod"));
}

#[test]
fn the_cluster_is_shown_even_if_nothing_names_it() {
    for (lines, cluster) in [("", "default"), ("ECS_CLUSTR=prod", "default"), ("ECS_CLUSTER=prod", "prod")] {
        let shown = report::text(&check(lines.as_bytes()), false);
        assert!(shown.contains(&format!("\n  ECS_CLUSTER={cluster}  (")), "{lines}: {shown}");
        let joins = "it is ignored, and the agent joins the cluster `default`";
        assert_eq!(shown.contains(joins), lines.contains("CLUSTR"), "{lines}: {shown}");
    }
}

/// A lost line says which cluster the agent joins instead.
#[test]
fn a_lost_line_about_the_cluster_has_its_consequence() {
    for (lines, line, meant) in [
        ("ECS_CLUSTER prod", 1, true),
        ("export ECS_CLUSTER=prod", 1, true),
        ("ECS_CLUSTER: prod", 1, true),
        ("ECS_CLUSTER = \"prod\"", 1, true),
        ("ECS_CLUSTER", 1, false),
        ("ECS_CLUSTER=other\nexport ECS_CLUSTER=prod", 2, true),
        ("ECS_CLUSTER=other\nECS_CLUSTER_NAME=prod", 2, false),
    ] {
        let joined = if lines.contains("other") { "other" } else { "default" };
        let shown = texts(&check(lines.as_bytes())).join("\n");
        assert!(shown.contains(&format!("(F:{line}): ")), "{lines}: {shown}");
        assert!(
            shown.ends_with(&format!("is ignored, and the agent joins the cluster `{joined}`")),
            "{lines}: {shown}"
        );
        assert_eq!(shown.contains("did you mean ECS_CLUSTER=prod?"), meant, "{lines}: {shown}");
    }
    // Nothing is joined if the agent does not start.
    for lines in [
        &b"ECS_CLUSTER=\"prod\"\nexport ECS_CLUSTER=prod"[..],
        b"ECS_CLUSTER=\"prod\"\nECS_CLUSTR=x",
        b"ECS_CLUSTER=my cluster\necs_cluster=prod",
        b"ECS_CLUSTER=pr\xffod\necs_cluster=prod",
        b"DOCKER_HOST=nonsense\nECS_CLUSTR=prod",
        b"DOCKER_HOST=nonsense\nexport ECS_CLUSTER=prod",
    ] {
        let shown = texts(&check(lines)).join("\n");
        assert!(shown.contains("ignored") && shown.contains("the agent does not start"), "{shown}");
        assert!(!shown.contains("joins the cluster"), "{shown}");
    }
}

#[test]
fn a_cluster_that_cannot_be_used_never_becomes_default() {
    for (lines, part) in NO_CLUSTER {
        let loaded = check(lines);
        let (shown, text) = (texts(&loaded).join("\n"), String::from_utf8_lossy(lines));
        assert!(loaded.config.is_none(), "{text}: {shown}");
        assert!(shown.contains(part) && shown.ends_with("the agent does not start"), "{text}: {shown}");
        assert!(!shown.contains("hunter2") && !shown.contains('\u{1b}'), "{shown}");
    }
    let file = r#"{"Cluster": "my cluster"}"#;
    let shown = texts(&layered(&[], file, "")).join("\n");
    assert!(shown.contains("Cluster (config.json:1): `my cluster`, with a blank"), "{shown}");
    assert!(shown.ends_with("the agent does not start"), "{shown}");
}

#[test]
fn a_cluster_that_can_be_used() {
    let arn = "arn:aws-cn:ecs:cn-north-1:123456789012:cluster/prod";
    for (lines, cluster, severity) in [
        ("ECS_CLUSTER=prod".to_owned(), Some("prod"), None),
        ("ECS_CLUSTER= prod \r".to_owned(), Some("prod"), NOTICE),
        ("ECS_CLUSTER=prod\r\r\n".to_owned(), Some("prod"), NOTICE),
        ("\u{feff}ECS_CLUSTER=Prod_1-a".to_owned(), Some("Prod_1-a"), None),
        (format!("ECS_CLUSTER={arn}"), Some(arn), None),
        ("ECS_CLUSTER=a\nexport ECS_CLUSTER=b".to_owned(), Some("a"), CHANGES),
        (String::new(), None, None),
        // Set to nothing, so `default`, but not silently.
        ("ECS_CLUSTER=".to_owned(), None, CHANGES),
        ("ECS_CLUSTER= \t".to_owned(), None, CHANGES),
    ] {
        let loaded = check(lines.as_bytes());
        assert_eq!(loaded.severity(), severity, "{lines}: {:?}", texts(&loaded));
        assert_eq!(loaded.config.unwrap().cluster.as_deref(), cluster, "{lines}");
    }
    let nothing = texts(&check(b"ECS_CLUSTER="));
    assert!(nothing[0].starts_with("ECS_CLUSTER (F:1): set to nothing;"), "{nothing:?}");
    assert!(nothing[0].ends_with("the cluster `default` is used"), "{nothing:?}");
    // Another program's variable.
    assert!(from(&[("CLUSTER", "x")]).problems.is_empty());
}
