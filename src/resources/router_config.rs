//! The text of a log router's configuration (spec `resources.md` §6.3). Pure functions.
//!
//! Owns the sections, their order and their layout, which equals the Go agent's byte for byte. It writes no file. Invariant: the
//! same inputs give the same text. The sections of several containers have the order of the task definition; in the Go agent
//! their order is random.

use ecs_core::model::resource::{ExternalConfig, LogOutput, LogRouterKind, LogRouterSpec};
use std::collections::BTreeMap;
use std::fmt::Write;

const SOCKET: &str = "/var/run/fluent.sock";
const PORT: &str = "24224";
const INCLUDE: &str = "include-pattern";
const EXCLUDE: &str = "exclude-pattern";

/// The facts that the text depends on besides the router.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    /// The name of the cluster, for the record that is added to each line.
    pub(super) cluster: &'a str,
    /// The task's ARN.
    pub(super) task: &'a str,
    /// The task definition: `family:version`.
    pub(super) definition: &'a str,
    /// The id of the EC2 instance; empty if there is none.
    pub(super) instance: &'a str,
}

/// The text of the file. `Err` = what is wrong with a container's options.
pub(super) fn text(router: &LogRouterSpec, facts: &Facts<'_>) -> Result<String, String> {
    let mut out = String::new();
    let fluentd = router.kind == LogRouterKind::Fluentd;
    inputs(&mut out, router);
    for (pattern, element) in [(INCLUDE, "regexp"), (EXCLUDE, "exclude")] {
        for output in &router.outputs {
            if let Some(pattern) = output.options.get(pattern) {
                filter(&mut out, fluentd, &tag(router, output), element, pattern);
            }
        }
    }
    if router.adds_metadata {
        record(&mut out, router, facts);
    }
    if let Some(external) = &router.external {
        let word = if fluentd { "include" } else { "INCLUDE" };
        let path = match external {
            ExternalConfig::File(path) => path,
            ExternalConfig::S3(_) => external_path(router.kind),
        };
        append(&mut out, format_args!("\n@{word} {path}\n"));
    }
    if router.listens && !fluentd {
        section(&mut out, "OUTPUT", &[("Name", "null"), ("Match", HEALTH_CHECK)]);
    }
    for output in &router.outputs {
        destination(&mut out, router, output)?;
    }
    Ok(out)
}

/// The tag of the records that arrive at port 8877. They only serve to check that the router listens.
const HEALTH_CHECK: &str = "firelens-healthcheck";

/// The path in the router's container of a customer's configuration that comes from S3.
pub(super) fn external_path(kind: LogRouterKind) -> &'static str {
    match kind {
        LogRouterKind::Fluentd => "/fluentd/etc/external.conf",
        LogRouterKind::Fluentbit => "/fluent-bit/etc/external.conf",
    }
}

/// Appends formatted text; writing to a `String` cannot fail.
fn append(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _never = out.write_fmt(text);
}

/// Appends a section for Fluent Bit.
fn section(out: &mut String, name: &str, members: &[(&str, &str)]) {
    append(out, format_args!("\n[{name}]\n"));
    members.iter().for_each(|(key, value)| append(out, format_args!("    {key} {value}\n")));
}

/// Appends an element for Fluentd.
fn element(out: &mut String, name: &str, argument: &str, members: &[(&str, &str)]) {
    append(out, format_args!("\n<{name}{argument}>\n"));
    members.iter().for_each(|(key, value)| append(out, format_args!("    {key} {value}\n")));
    append(out, format_args!("</{name}>\n"));
}

fn inputs(out: &mut String, router: &LogRouterSpec) {
    let address = if router.is_local { "127.0.0.1" } else { "0.0.0.0" };
    match router.kind {
        LogRouterKind::Fluentd => {
            element(out, "source", "", &[("@type", "unix"), ("path", SOCKET)]);
            if router.listens {
                element(out, "source", "", &[("@type", "forward"), ("bind", address), ("port", PORT)]);
            }
        }
        LogRouterKind::Fluentbit => {
            let buffer = format!("{}MB", router.buffer);
            section(out, "INPUT", &[("Name", "forward"), ("Mem_Buf_Limit", &buffer), ("unix_path", SOCKET)]);
            if router.listens {
                section(out, "INPUT", &[("Name", "forward"), ("Listen", address), ("Port", PORT)]);
                let check = [("Name", "tcp"), ("Tag", HEALTH_CHECK), ("Listen", "127.0.0.1"), ("Port", "8877")];
                section(out, "INPUT", &check);
            }
        }
    }
}

/// The pattern for the tags of a container's lines; the log driver's tag also contains the task's id.
fn tag(router: &LogRouterSpec, output: &LogOutput) -> String {
    let end = if router.kind == LogRouterKind::Fluentd { "**" } else { "*" };
    format!("{}-firelens{end}", output.container)
}

fn filter(out: &mut String, fluentd: bool, tag: &str, kind: &str, pattern: &str) {
    if fluentd {
        append(out, format_args!("\n<filter {tag}>\n    @type  grep\n    <{kind}>\n"));
        append(out, format_args!("        key log\n        pattern {pattern}\n    </{kind}>\n</filter>\n"));
    } else {
        let rule = if kind == "regexp" { "Regex  log" } else { "Exclude log" };
        append(out, format_args!("\n[FILTER]\n    Name   grep\n    Match {tag}\n    {rule} {pattern}\n"));
    }
}

fn record(out: &mut String, router: &LogRouterSpec, facts: &Facts<'_>) {
    let mut fields = BTreeMap::from([
        ("ecs_cluster", facts.cluster),
        ("ecs_task_arn", facts.task),
        ("ecs_task_definition", facts.definition),
    ]);
    if router.adds_instance && !facts.instance.is_empty() {
        fields.insert("ec2_instance_id", facts.instance);
    }
    match router.kind {
        LogRouterKind::Fluentd => {
            append(out, format_args!("\n<filter **>\n    @type record_transformer\n    <record>\n"));
            fields.iter().for_each(|(key, value)| append(out, format_args!("        {key} {value}\n")));
            append(out, format_args!("    </record>\n</filter>\n"));
        }
        LogRouterKind::Fluentbit => {
            append(out, format_args!("\n[FILTER]\n    Name record_modifier\n    Match *\n"));
            fields.iter().for_each(|(key, value)| append(out, format_args!("    Record {key} {value}\n")));
        }
    }
}

fn destination(out: &mut String, router: &LogRouterSpec, output: &LogOutput) -> Result<(), String> {
    let (key, kind) = match router.kind {
        LogRouterKind::Fluentd => ("@type", "fluentd"),
        LogRouterKind::Fluentbit => ("Name", "fluentbit"),
    };
    let options = output.options.iter().filter(|(option, _)| ![key, INCLUDE, EXCLUDE].contains(&option.as_str()));
    let mut options = options.map(|(option, value)| (option.as_str(), value.as_str())).peekable();
    let Some(name) = output.options.get(key) else {
        if options.peek().is_none() {
            return Ok(()); // the customer's own configuration has the output
        }
        let text = format!("missing output key {key} which is required for firelens configuration of type {kind}");
        return Err(format!(
            "unable to apply log options of container {} to firelens config: {text}",
            output.container
        ));
    };
    let tag = tag(router, output);
    match router.kind {
        LogRouterKind::Fluentd => {
            let members: Vec<_> = std::iter::once(("@type", name.as_str())).chain(options).collect();
            element(out, "match", &format!(" {tag}"), &members);
        }
        LogRouterKind::Fluentbit => {
            let first = [("Name", name.as_str()), ("Match", &tag)];
            let members: Vec<_> = first.into_iter().chain(options).collect();
            section(out, "OUTPUT", &members);
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::Value;

    const FACTS: Facts<'static> =
        Facts { cluster: "judge", task: "arn", definition: "judge-family:7", instance: "i-123456789a" };

    /// A router that listens; the logs of `app` go to an output with these options.
    pub(in crate::resources) fn router(kind: LogRouterKind, options: &[(&str, &str)]) -> LogRouterSpec {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        LogRouterSpec {
            kind,
            container: "router".into(),
            user: String::new(),
            listens: true,
            is_local: false,
            buffer: 16,
            adds_metadata: true,
            adds_instance: false,
            external: None,
            outputs: vec![LogOutput { container: "app".into(), options }],
        }
    }

    #[test]
    fn the_recorded_files_byte_for_byte() {
        for (kind, name) in
            [(LogRouterKind::Fluentd, "firelens_fluentd"), (LogRouterKind::Fluentbit, "firelens_fluentbit")]
        {
            let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
            let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
            let facts = Facts { task: golden["task_arn"].as_str().unwrap(), ..FACTS };
            let made = text(&router(kind, &[("@type", "stdout"), ("Name", "stdout")]), &facts).unwrap();
            assert_eq!(made, golden["generated_configuration"].as_str().unwrap(), "{name}");
        }
    }

    const OPTIONS: [(&str, &str); 6] = [
        ("@type", "kinesis_firehose"),
        ("Name", "firehose"),
        ("region", "us-west-2"),
        ("delivery_stream", "my-stream"),
        ("include-pattern", "*failure*"),
        ("exclude-pattern", "*success*"),
    ];

    #[test]
    fn filters_record_and_the_customers_own_come_before_the_outputs() {
        let mut fluentd = router(LogRouterKind::Fluentd, &OPTIONS);
        (fluentd.listens, fluentd.adds_instance) = (false, true);
        fluentd.external = Some(ExternalConfig::File("/tmp/mine.conf".to_owned()));
        let wanted = "
<source>
    @type unix
    path /var/run/fluent.sock
</source>

<filter app-firelens**>
    @type  grep
    <regexp>
        key log
        pattern *failure*
    </regexp>
</filter>

<filter app-firelens**>
    @type  grep
    <exclude>
        key log
        pattern *success*
    </exclude>
</filter>

<filter **>
    @type record_transformer
    <record>
        ec2_instance_id i-123456789a
        ecs_cluster judge
        ecs_task_arn arn
        ecs_task_definition judge-family:7
    </record>
</filter>

@include /tmp/mine.conf

<match app-firelens**>
    @type kinesis_firehose
    Name firehose
    delivery_stream my-stream
    region us-west-2
</match>
";
        assert_eq!(text(&fluentd, &FACTS).unwrap(), wanted);
    }

    #[test]
    fn the_same_for_fluent_bit_with_the_check_that_it_listens() {
        let mut fluentbit = router(LogRouterKind::Fluentbit, &OPTIONS[1..]);
        let local = text(&LogRouterSpec { is_local: true, ..fluentbit.clone() }, &FACTS).unwrap();
        assert!(local.contains("    Listen 127.0.0.1\n    Port 24224\n") && !local.contains("0.0.0.0"), "{local}");
        (fluentbit.adds_metadata, fluentbit.buffer) = (false, 25);
        fluentbit.external = Some(ExternalConfig::S3("arn:aws:s3:::b/k".to_owned()));
        let wanted = "
[INPUT]
    Name forward
    Mem_Buf_Limit 25MB
    unix_path /var/run/fluent.sock

[INPUT]
    Name forward
    Listen 0.0.0.0
    Port 24224

[INPUT]
    Name tcp
    Tag firelens-healthcheck
    Listen 127.0.0.1
    Port 8877

[FILTER]
    Name   grep
    Match app-firelens*
    Regex  log *failure*

[FILTER]
    Name   grep
    Match app-firelens*
    Exclude log *success*

@INCLUDE /fluent-bit/etc/external.conf

[OUTPUT]
    Name null
    Match firelens-healthcheck

[OUTPUT]
    Name firehose
    Match app-firelens*
    delivery_stream my-stream
    region us-west-2
";
        assert_eq!(text(&fluentbit, &FACTS).unwrap(), wanted);
    }

    #[test]
    fn an_output_without_a_name_may_only_have_patterns() {
        let quiet = text(&router(LogRouterKind::Fluentd, &[]), &FACTS).unwrap();
        assert!(!quiet.contains("<match"), "{quiet}");
        for (kind, text_of) in [(LogRouterKind::Fluentd, "@type"), (LogRouterKind::Fluentbit, "Name")] {
            let error = text(&router(kind, &[("region", "r")]), &FACTS).unwrap_err();
            let start = "unable to apply log options of container app to firelens config: missing output key";
            assert!(error.starts_with(&format!("{start} {text_of} which is required")), "{error}");
            // The output of the remaining lines is in the customer's own configuration.
            let filtered = text(&router(kind, &[(INCLUDE, "ERROR"), (EXCLUDE, "debug")]), &FACTS).unwrap();
            assert!(filtered.contains("ERROR") && filtered.contains("debug"), "{filtered}");
            let outputs = filtered.matches("<match").count() + filtered.matches("[OUTPUT]").count();
            assert_eq!(
                outputs,
                usize::from(kind == LogRouterKind::Fluentbit),
                "only that of the health check: {filtered}"
            );
        }
    }

    #[test]
    fn containers_come_in_their_order() {
        let mut both = router(LogRouterKind::Fluentbit, &[("Name", "a")]);
        let options = BTreeMap::from([("Name".to_owned(), "b".to_owned())]);
        both.outputs.push(LogOutput { container: "aaa".into(), options });
        let made = text(&both, &FACTS).unwrap();
        let at = |what: &str| made.find(what).unwrap();
        assert!(at("Match app-firelens*") < at("Match aaa-firelens*"));
    }
}
