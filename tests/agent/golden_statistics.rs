//! Statistics at the task metadata endpoint, compared with the recordings of the Go agent.

use super::difference::Kind::{Any, MayBeExtra, Value as Other};
use super::difference::{Allowed, assert_same, golden};
use super::recorded_task::life;
use serde_json::{Value, json};

const MEASURED: &str = "measured";

/// What differs in each container's statistics.
const ALLOWED: &[Allowed] = &[
    ("*/read", Other, "now"),
    ("*/preread", Other, "a second earlier"),
    ("*/cpu_stats/cpu_usage/*", Any, MEASURED),
    ("*/cpu_stats/system_cpu_usage", Any, MEASURED),
    ("*/cpu_stats/online_cpus", Any, "those of this host"),
    ("*/cpu_stats/throttling_data/*", Any, MEASURED),
    ("*/precpu_stats/cpu_usage/*", Any, MEASURED),
    ("*/precpu_stats/system_cpu_usage", Any, MEASURED),
    ("*/precpu_stats/online_cpus", Any, "those of this host"),
    ("*/precpu_stats/throttling_data/*", Any, MEASURED),
    ("*/memory_stats/usage", Any, MEASURED),
    ("*/memory_stats/max_usage", Any, MEASURED),
    ("*/memory_stats/failcnt", MayBeExtra, "left out while it is zero"),
    ("*/memory_stats/stats/*", Any, MEASURED),
    ("*/networks/eth0/*", Any, MEASURED),
    ("*/network_rate_stats/*", Any, MEASURED),
    ("*/pids_stats/current", Any, MEASURED),
];

/// The statistics of each container without lists whose length depends on the host: processors, and devices that were used.
fn without_lists(mut body: Value) -> Value {
    for statistics in body.as_object_mut().unwrap().values_mut() {
        for cpu in ["cpu_stats", "precpu_stats"] {
            let processors = statistics[cpu]["online_cpus"].as_u64().unwrap() as usize;
            let times = statistics[cpu]["cpu_usage"].as_object_mut().unwrap();
            assert_eq!(times.remove("percpu_usage").unwrap().as_array().unwrap().len(), processors, "{cpu}");
        }
        for list in statistics["blkio_stats"].as_object_mut().unwrap().values_mut() {
            list.as_array_mut().unwrap().clear();
        }
    }
    body
}

/// The statistics of the only container of an answer, under its id as in the answer about a task.
fn by_id(body: &Value) -> Value {
    json!({body["id"].as_str().unwrap(): body})
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_have_the_recorded_form() {
    let Some(life) = life().await else { return };
    if life.cgroup.is_none() {
        eprintln!("SKIPPED golden statistics: the recorded host has control groups of version 1");
        return;
    }
    for (name, is_task) in
        [("tmds_v3_stats", false), ("tmds_v4_stats", false), ("tmds_v3_task_stats", true), ("tmds_v4_task_stats", true)]
    {
        let (recorded, ours) = (golden(name), life.renamed(&life.statistics[name]));
        for member in ["status", "content_type"] {
            assert_eq!(recorded[member], ours[member], "{name}: {member}");
        }
        let bodies = [&recorded, &ours].map(|answer| &answer["body"]);
        let [recorded, ours] = bodies.map(|body| without_lists(if is_task { body.clone() } else { by_id(body) }));
        assert_same(name, &recorded, &ours, ALLOWED);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_of_nobody_are_refused_as_recorded() {
    let Some(life) = life().await else { return };
    for name in ["tmds_v3_unknown_stats", "tmds_v4_unknown_stats"] {
        assert_same(name, &golden(name), &life.statistics[name], &[]);
    }
    // Version 2 knows a caller by its address, which is of a task only in network mode awsvpc.
    for name in ["v2_stats", "v2_container_stats"] {
        assert_same(name, &golden("tmds_v2_from_host"), &life.statistics[name], &[]);
    }
}
