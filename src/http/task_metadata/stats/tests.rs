use super::*;
use crate::http::json;
use ecs_core::model::usage::{BlockIo, CgroupVersion, MemoryUsage, Pids, Throttling, Usage};
use serde_json::Value;

const ID: &str = "63f90b584c39ffaca00f7001ff2365097da7a49f6eeb4958ddaa3716c81f2fa0";

/// What Docker 20.10 wrote about a container with control groups of version 1, to the byte.
const DOCKER: &str = concat!(
    r#"{"read":"2026-11-30T10:40:04.294622301Z","preread":"0001-01-01T00:00:00Z","pids_stats":{"current":2},"#,
    r#""blkio_stats":{"io_service_bytes_recursive":[],"io_serviced_recursive":[],"io_queue_recursive":[],"#,
    r#""io_service_time_recursive":[],"io_wait_time_recursive":[],"io_merged_recursive":[],"io_time_recursive":[],"#,
    r#""sectors_recursive":[]},"num_procs":0,"storage_stats":{},"cpu_stats":{"cpu_usage":{"total_usage":36743542,"#,
    r#""percpu_usage":[8522468,28221074],"usage_in_kernelmode":30000000,"usage_in_usermode":0},"#,
    r#""system_cpu_usage":25198710000000,"online_cpus":2,"throttling_data":{"periods":0,"throttled_periods":0,"#,
    r#""throttled_time":0}},"precpu_stats":{"cpu_usage":{"total_usage":0,"usage_in_kernelmode":0,"usage_in_usermode":0},"#,
    r#""throttling_data":{"periods":0,"throttled_periods":0,"throttled_time":0}},"memory_stats":{"usage":10772480,"#,
    r#""max_usage":11907072,"stats":{"active_anon":4096,"active_file":974848,"cache":9658368,"dirty":0,"#,
    r#""hierarchical_memory_limit":67108864,"hierarchical_memsw_limit":134217728,"inactive_anon":102400,"#,
    r#""inactive_file":8683520,"mapped_file":978944,"pgfault":2602,"pgmajfault":3,"pgpgin":2339,"pgpgout":1995,"#,
    r#""rss":106496,"rss_huge":0,"total_active_anon":4096,"total_active_file":974848,"total_cache":9658368,"#,
    r#""total_dirty":0,"total_inactive_anon":102400,"total_inactive_file":8683520,"total_mapped_file":978944,"#,
    r#""total_pgfault":2602,"total_pgmajfault":3,"total_pgpgin":2339,"total_pgpgout":1995,"total_rss":106496,"#,
    r#""total_rss_huge":0,"total_unevictable":0,"total_writeback":0,"unevictable":0,"writeback":0},"limit":67108864},"#,
    r#""name":"/stats-probe","id":"63f90b584c39ffaca00f7001ff2365097da7a49f6eeb4958ddaa3716c81f2fa0","#,
    r#""networks":{"eth0":{"rx_bytes":736,"rx_packets":8,"rx_errors":0,"rx_dropped":0,"tx_bytes":0,"tx_packets":0,"#,
    r#""tx_errors":0,"tx_dropped":0}}}"#,
);

fn container() -> ContainerView {
    ContainerView { runtime_id: Some(ID.into()), runtime_name: "stats-probe".to_owned(), ..ContainerView::default() }
}

/// The statistics that a text of Docker shows.
fn statistics(text: &str) -> Statistics {
    let shown: Value = serde_json::from_str(text).unwrap();
    let number = |pointer: &str| shown.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    let mut details = MemoryDetails::zero(CgroupVersion::V1);
    for (name, value) in shown["memory_stats"]["stats"].as_object().unwrap() {
        details.set(name, value.as_u64().unwrap());
    }
    let cpu = |from: &str| CpuUsage {
        total: number(&format!("{from}/cpu_usage/total_usage")),
        per_cpu: [0, 1]
            .iter()
            .filter_map(|at| shown.pointer(&format!("{from}/cpu_usage/percpu_usage/{at}"))?.as_u64())
            .collect(),
        kernel: number(&format!("{from}/cpu_usage/usage_in_kernelmode")),
        user: number(&format!("{from}/cpu_usage/usage_in_usermode")),
        system: number(&format!("{from}/system_cpu_usage")),
        online: number(&format!("{from}/online_cpus")) as u32,
        throttling: Throttling::default(),
    };
    let traffic = Traffic {
        rx_bytes: number("/networks/eth0/rx_bytes"),
        rx_packets: number("/networks/eth0/rx_packets"),
        ..Traffic::default()
    };
    let usage = Usage {
        cpu: cpu("/cpu_stats"),
        memory: MemoryUsage {
            usage: number("/memory_stats/usage"),
            max_usage: number("/memory_stats/max_usage"),
            failures: 0,
            limit: number("/memory_stats/limit"),
            details,
        },
        block_io: BlockIo::empty(),
        pids: Pids { current: number("/pids_stats/current"), limit: 0 },
        networks: vec![Interface { name: "eth0".to_owned(), traffic }],
    };
    Statistics { usage, previous_cpu: cpu("/precpu_stats"), ..Statistics::default() }
}

fn encoded(version: Version, statistics: Statistics) -> String {
    let container = container();
    json::encode(&ContainerAnswer::new(version, &container, LastStatistics::Known(Arc::new(statistics)))).unwrap()
}

#[test]
fn the_answer_is_dockers_to_the_byte() {
    let statistics = Statistics { read: Moment(1_796_035_204_294_622_301), ..statistics(DOCKER) };
    assert_eq!(encoded(Version::V3, statistics.clone()), DOCKER);
    let rate = Some(NetworkRate { rx_bytes: 284.5, tx_bytes: 0.0 });
    let v4 = encoded(Version::V4, Statistics { rate, ..statistics.clone() });
    let expected = DOCKER.strip_suffix('}').unwrap();
    let expected = format!(r#"{expected},"network_rate_stats":{{"rx_bytes_per_sec":284.5,"tx_bytes_per_sec":0}}}}"#);
    assert_eq!(v4, expected);
    assert_eq!(encoded(Version::V3, Statistics { rate, ..statistics }), DOCKER, "not in version 3");
}

/// The recordings of the Go agent, whose members are in alphabetical order.
#[test]
fn the_recorded_statistics_come_back() {
    for (version, name) in [(Version::V3, "tmds_v3_stats"), (Version::V4, "tmds_v4_stats")] {
        let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let body = &golden["body"];
        let rate = Some(NetworkRate::default());
        let (read, previous_read) = (Moment(1_795_304_208_025_206_483), Some(Moment(1_795_304_207_022_357_204)));
        let statistics = Statistics { read, previous_read, rate, ..statistics(&body.to_string()) };
        let mut answer: Value = serde_json::from_str(&encoded(version, statistics)).unwrap();
        for named in ["name", "id"] {
            answer[named] = body[named].clone();
        }
        assert_eq!(&answer, body, "{name}");
    }
}

/// The counters of a task with an interface of its own, whose control groups are of version 2.
#[test]
fn the_recorded_networks_of_an_interface_come_back() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/awsvpc/tmds.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let with_rate = golden["v4 GET <uri>/stats"]["body"]["network_rate_stats"].clone();
    let rate = |name: &str| with_rate[name].as_f64().unwrap() as f32;
    let rate = Some(NetworkRate { rx_bytes: rate("rx_bytes_per_sec"), tx_bytes: rate("tx_bytes_per_sec") });
    for version in [Version::V3, Version::V4] {
        let name = if version == Version::V4 { "v4" } else { "v3" };
        let body = &golden[format!("{name} GET <uri>/stats")]["body"];
        let count = |name: &str| body["networks"]["eth0"][name].as_u64().unwrap();
        let traffic = Traffic {
            rx_bytes: count("rx_bytes"),
            rx_packets: count("rx_packets"),
            rx_errors: count("rx_errors"),
            rx_dropped: count("rx_dropped"),
            tx_bytes: count("tx_bytes"),
            tx_packets: count("tx_packets"),
            tx_errors: count("tx_errors"),
            tx_dropped: count("tx_dropped"),
        };
        let networks = vec![Interface { name: "eth0".to_owned(), traffic }];
        let statistics = Statistics { usage: Usage { networks, ..Usage::default() }, rate, ..Statistics::default() };
        let answer: Value = serde_json::from_str(&encoded(version, statistics)).unwrap();
        for member in ["networks", "network_rate_stats"] {
            assert_eq!(answer.get(member), body.get(member), "{name} {member}");
        }
    }
}

/// The recorded answer about a task with two containers. Each answer is compared as a whole.
#[test]
fn the_recorded_statistics_of_a_task_come_back() {
    for (version, name) in [(Version::V3, "tmds_v3_task_stats"), (Version::V4, "tmds_v4_task_stats")] {
        let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let body = golden["body"].as_object().unwrap().clone();
        let containers = body.iter().map(|(id, shown)| ContainerView {
            runtime_id: Some(id.as_str().into()),
            runtime_name: shown["name"].as_str().unwrap().trim_start_matches('/').to_owned(),
            ..ContainerView::default()
        });
        let task = TaskView { containers: containers.collect(), ..TaskView::default() };
        let time = |text: &Value| {
            let format = aws_smithy_types::date_time::Format::DateTime;
            let time = aws_smithy_types::DateTime::from_str(text.as_str().unwrap(), format).unwrap();
            Moment(u64::try_from(time.as_nanos()).unwrap())
        };
        let recorded = body.clone();
        let lookup: StatsLookup = Arc::new(move |container| {
            let shown = &recorded[container.runtime_id.as_ref().unwrap().as_str()];
            LastStatistics::Known(Arc::new(Statistics {
                read: time(&shown["read"]),
                previous_read: Some(time(&shown["preread"])),
                rate: Some(NetworkRate::default()),
                ..statistics(&shown.to_string())
            }))
        });
        let text = json::encode(&TaskAnswer::new(version, &task, &lookup)).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), Value::Object(body), "{name}");
    }
}

#[test]
fn version_2_of_control_groups_looks_as_dockers_does() {
    let mut details = MemoryDetails::zero(CgroupVersion::V2);
    details.set("anon", 5);
    let entry = |op: &str| BlockEntry { major: 8, minor: 0, op: op.into(), value: 7 };
    let usage = Usage {
        cpu: CpuUsage { total: 9_000, online: 4, ..CpuUsage::default() },
        memory: MemoryUsage { usage: 6, details, ..MemoryUsage::default() },
        block_io: BlockIo { service_bytes: Some(vec![entry("read"), entry("write")]), ..BlockIo::default() },
        pids: Pids { current: 1, limit: u64::MAX },
        networks: Vec::new(),
    };
    let text = encoded(Version::V4, Statistics { usage, ..Statistics::default() });
    for part in [
        r#""pids_stats":{"current":1,"limit":18446744073709551615}"#,
        r#""io_service_bytes_recursive":[{"major":8,"minor":0,"op":"read","value":7},{"major":8,"minor":0,"op":"write","value":7}]"#,
        r#""io_serviced_recursive":null,"io_queue_recursive":null"#,
        r#""cpu_usage":{"total_usage":9000,"usage_in_kernelmode":0,"usage_in_usermode":0},"online_cpus":4"#,
        r#""memory_stats":{"usage":6,"stats":{"active_anon":0,"active_file":0,"anon":5,"#,
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    for absent in ["networks", "network_rate_stats", "max_usage", "failcnt"] {
        assert!(!text.contains(absent), "{absent}");
    }
}

#[test]
fn a_task_shows_what_is_known_of_each_container() {
    let created = |name: &str, id: Option<&str>| ContainerView {
        name: name.into(),
        runtime_id: id.map(Into::into),
        ..ContainerView::default()
    };
    let containers =
        vec![created("b", Some("b")), created("a", Some("a")), created("none", None), created("c", Some("c"))];
    let task = TaskView { containers, ..TaskView::default() };
    let lookup: StatsLookup = Arc::new(|container| match container.name.as_str() {
        "a" => LastStatistics::Known(Arc::default()),
        "b" => LastStatistics::Waiting,
        _ => LastStatistics::Untracked,
    });
    for (version, empty) in [(Version::V3, "null"), (Version::V4, "{}")] {
        let text = json::encode(&TaskAnswer::new(version, &task, &lookup)).unwrap();
        assert!(text.starts_with(r#"{"a":{"read":"1970-01-01T00:00:00Z","preread":"0001-01-01T00:00:00Z""#), "{text}");
        assert!(text.ends_with(&format!(r#","b":{empty},"c":{empty}}}"#)), "{text}");
    }
}

#[test]
fn a_rate_is_written_as_go_writes_it() {
    for (value, expected) in [(0.0, "0"), (500.0, "500"), (284.659_58, "284.65958"), (0.1, "0.1")] {
        assert_eq!(serde_json::to_string(&Float(value)).unwrap(), expected);
    }
}
