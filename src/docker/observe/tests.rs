use super::*;
use serde_json::json;

const ID: &str = "1cc22cbf0108bdb58731612fad20d18f5f854e58b71f814f9aec7931e109787e";

fn golden() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/docker_inspect_web.json");
    let mut golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    // The recording has only some parts of the engine's answer.
    golden["Id"] = json!(ID);
    golden["Created"] = json!("2026-11-21T23:36:44.1Z");
    golden
}

fn with_state(state: Value) -> Observation {
    let mut inspect = golden();
    inspect["State"] = state;
    observed(&inspect).unwrap().unwrap()
}

fn observed(inspect: &Value) -> Result<Option<Observation>, Unreadable> {
    from_inspect(inspect, ID, "judge")
}

const NEVER: &str = "0001-01-01T00:00:00Z";

#[test]
fn reads_the_recorded_container() {
    let seen = with_state(json!({"Running": true, "StartedAt": "2026-11-21T23:36:44.5Z", "FinishedAt": NEVER,
        "Health": {"Status": "healthy"}}));
    assert_eq!(seen.container.as_str(), "web");
    assert_eq!(seen.runtime_name, "ecs-judge-family-7-web-d49fe3fdbfdec3f7a101");
    assert_eq!((seen.state, seen.health, seen.exit_code), (RunState::Running, Health::Healthy, None));
    assert_eq!(seen.started_at.as_deref(), Some("2026-11-21T23:36:44.5Z"));
    let bound: Vec<_> = seen.bindings.iter().map(|b| (b.container_port, b.host_port, b.bind_ip.as_str())).collect();
    assert_eq!(bound, [(80, 28480, "0.0.0.0"), (80, 28480, "::"), (81, 32768, "0.0.0.0"), (81, 32768, "::")]);
    assert_eq!(seen.bindings[2].protocol, Protocol::Udp);
    assert_eq!(seen.mounts.len(), 3);
    assert_eq!((seen.mounts[1].volume.as_str(), seen.mounts[1].source.as_str()), ("", "/srv"));
    assert!(seen.image_id.starts_with("sha256:9cc0"));
}

#[test]
fn states_exit_codes_and_errors() {
    let started = "2026-11-21T23:36:44.5Z";
    let table = [
        (
            json!({"Status": "created", "Running": false, "StartedAt": NEVER, "FinishedAt": NEVER, "ExitCode": 0}),
            RunState::Created,
            None,
            None,
        ),
        (json!({"Running": true, "Paused": true, "StartedAt": started}), RunState::Running, None, None),
        (
            json!({"Running": true, "Restarting": true, "StartedAt": started, "ExitCode": 3}),
            RunState::Running,
            None,
            None,
        ),
        (
            json!({"Running": false, "Dead": true, "StartedAt": NEVER, "FinishedAt": NEVER}),
            RunState::Exited,
            None,
            None,
        ),
        (
            json!({"Running": false, "StartedAt": started, "FinishedAt": started, "ExitCode": 42}),
            RunState::Exited,
            Some(42),
            None,
        ),
        (
            json!({"Running": false, "StartedAt": NEVER, "FinishedAt": NEVER, "ExitCode": 127, "Error": "no such file"}),
            RunState::Exited,
            None,
            Some("DockerStateError: no such file"),
        ),
        (
            json!({"Running": false, "Status": "created", "StartedAt": NEVER, "ExitCode": 128, "Error": "Canceled: context canceled"}),
            RunState::Created,
            None,
            None,
        ),
        (
            json!({"Running": false, "StartedAt": started, "FinishedAt": started, "ExitCode": 1, "Error": "context canceled"}),
            RunState::Exited,
            Some(1),
            Some("DockerStateError: context canceled"),
        ),
        (
            json!({"Running": false, "StartedAt": started, "FinishedAt": started, "ExitCode": 137, "OOMKilled": true, "Error": "x"}),
            RunState::Exited,
            Some(137),
            Some("OutOfMemoryError: Container killed due to memory usage"),
        ),
        (
            json!({"Running": false, "Status": "hibernating", "StartedAt": started, "Health": {"Status": "dizzy"}}),
            RunState::Exited,
            None,
            None,
        ),
    ];
    for (state, run_state, code, error) in table {
        let seen = with_state(state.clone());
        let shown = seen.error.map(|failure| failure.to_string());
        assert_eq!((seen.state, seen.exit_code, shown.as_deref()), (run_state, code, error), "{state}");
    }
}

#[test]
fn the_first_process_is_named_only_while_it_runs() {
    let seen = |pid: Value| with_state(json!({"Running": true, "StartedAt": "2026-11-21T23:36:44.5Z", "Pid": pid})).pid;
    assert_eq!(seen(json!(4711)), Some(4711));
    for odd in [json!(0), json!(-1), json!(1_u64 << 40), json!("7"), json!(null)] {
        assert_eq!(seen(odd), None);
    }
}

#[test]
fn containers_of_others_are_skipped() {
    assert_eq!(from_inspect(&golden(), ID, "other"), Ok(None));
    for labels in [json!(null), json!({}), json!({"com.amazonaws.ecs.cluster": "judge"})] {
        assert_eq!(observed(&json!({"Id": ID, "Config": {"Labels": labels}})), Ok(None));
    }
    assert!(from_list(&json!([]), "judge").is_none());
}

#[test]
fn an_answer_about_another_container_is_unreadable() {
    let without = |pointer: &str, put: Value| {
        let mut inspect = golden();
        inspect["State"] = json!({"Running": true, "StartedAt": "2026-11-21T23:36:44.5Z"});
        *inspect.pointer_mut(pointer).unwrap() = put;
        inspect
    };
    for odd in [json!(null), json!({}), json!([]), json!("gone mad"), json!(-7)] {
        assert!(observed(&odd).is_err(), "{odd}");
        for pointer in ["/State", "/State/Running", "/Id"] {
            assert!(observed(&without(pointer, odd.clone())).is_err(), "{pointer} {odd}");
        }
    }
    assert!(observed(&without("/Config", json!(null))).is_err());
    assert!(observed(&without("/Config/Labels", json!(["a"]))).is_err());
    assert_eq!(observed(&without("/Id", json!("2cc2"))), Err(Unreadable("it describes another container")));
    let by_name = from_inspect(&without("/Image", json!("")), "ecs-judge-family-7-web-d49fe3fdbfdec3f7a101", "judge");
    assert!(by_name.unwrap().is_some());
}

#[test]
fn the_output_of_a_failed_health_check_is_kept_short() {
    let output = |health: Value| {
        let mut inspect = golden();
        inspect["State"] = json!({"Running": true, "Health": health});
        observed(&inspect).unwrap().unwrap().health_output
    };
    let check = |code: i32, output: &str| json!({"ExitCode": code, "Output": output});
    let log = |status: &str, checks: Vec<Value>| json!({"Status": status, "Log": checks});
    assert_eq!(
        output(log("unhealthy", vec![check(1, "old"), check(7, "no\u{1b}[2J pe\n"), check(0, "fine")])),
        "no [2J pe"
    );
    assert_eq!(output(log("healthy", vec![check(1, "old")])), "");
    assert_eq!(output(log("starting", vec![check(1, "old")])), "");
    let long = output(log("unhealthy", vec![check(1, &"é".repeat(5000))]));
    assert!(long.len() <= MAX_HEALTH_OUTPUT && long.starts_with('é'), "{}", long.len());
    for odd in [
        json!(null),
        json!(7),
        json!({"Status": "unhealthy"}),
        json!({"Status": "unhealthy", "Log": [7, {"Output": 7}]}),
    ] {
        assert_eq!(output(odd.clone()), "", "{odd}");
    }
}

#[test]
fn odd_members_do_not_hide_a_container() {
    let mut inspect = golden();
    inspect["State"] = json!({"Running": true, "ExitCode": -1, "Status": "dizzy", "OOMKilled": 7});
    inspect["Mounts"] = json!(7);
    inspect["NetworkSettings"]["Ports"] = json!({"80/sctp": [{"HostPort": "1"}], "x/tcp": null, "81/udp": [{"HostPort": 5}], "82/tcp": [{"HostPort": "-1"}]});
    let seen = observed(&inspect).unwrap().unwrap();
    assert_eq!((seen.state, seen.exit_code), (RunState::Running, None));
    assert_eq!((seen.bindings.len(), seen.mounts.len()), (0, 0));
}

#[test]
fn no_single_odd_member_hides_a_container_or_panics() {
    let mut base = golden();
    base["State"] = json!({"Running": true, "StartedAt": "2026-11-21T23:36:44.5Z", "Health": {"Status": "healthy"}});
    let members = ["/Name", "/Created", "/Image", "/Mounts", "/Mounts/0", "/Mounts/0/Source", "/NetworkSettings"]
        .into_iter()
        .chain([
            "/NetworkSettings/Ports",
            "/NetworkSettings/Ports/80~1tcp",
            "/NetworkSettings/Ports/80~1tcp/0/HostPort",
        ])
        .chain(["/State/StartedAt", "/State/Health", "/State/Health/Status", "/HostConfig"]);
    for member in members {
        for odd in [json!(null), json!(-7), json!("é"), json!([[]]), json!({"x": 1}), json!(1e300), json!(true)] {
            let mut inspect = base.clone();
            *inspect.pointer_mut(member).expect("the recording has it") = odd.clone();
            assert!(matches!(observed(&inspect), Ok(Some(_))), "{member} {odd}");
        }
    }
}

#[test]
fn a_list_entry_has_the_most_important_facts() {
    let labels = golden()["Config"]["Labels"].clone();
    let table = [
        ("exited", "Exited (42) 3 minutes ago", RunState::Exited, Some(42), Health::Unknown),
        ("running", "Up 3 minutes (healthy)", RunState::Running, None, Health::Healthy),
        ("running", "Up 3 minutes (unhealthy)", RunState::Running, None, Health::Unhealthy),
        ("created", "Created", RunState::Created, None, Health::Unknown),
        ("hibernating", "Up 3 minutes", RunState::Running, None, Health::Unknown),
        ("hibernating", "Exited (-1) just now", RunState::Exited, Some(-1), Health::Unknown),
    ];
    for (state, status, run_state, code, health) in table {
        let entry =
            json!({"Id": "1", "Names": ["/other/alias", "/n"], "State": state, "Status": status, "Labels": labels});
        let seen = from_list(&entry, "judge").unwrap().seen.unwrap();
        assert_eq!((seen.state, seen.exit_code, seen.health), (run_state, code, health), "{state}");
        assert_eq!(seen.runtime_name, "n");
    }
    let entry = json!({"Id": "1", "State": "hibernating", "Status": "Hibernating", "Labels": labels});
    let listed = from_list(&entry, "judge").unwrap();
    assert_eq!((listed.id.as_str(), listed.seen), ("1", None), "the container exists, in an unknown state");
}

#[test]
fn the_owner_is_read_from_the_label() {
    let mark = |labels: Value| owner_mark(&labels).map(|mark| (mark.id.0, mark.data_directory));
    let id = "0123456789abcdef".repeat(2);
    let table = [
        (json!({"ecs-agent.owner": id, "ecs-agent.data-dir": "8:1 /d"}), Some((id.as_str(), "8:1 /d"))),
        (json!({"ecs-agent.owner": "x"}), Some(("x", ""))),
        (json!({"ecs-agent.owner": ""}), Some(("", ""))),
        (json!({"ecs-agent.owner": "a\nb"}), Some(("a b", ""))),
        (json!({"ecs-agent.data-dir": "8:1 /d"}), None),
        (json!({"ecs-agent.owner": 7}), None),
        (Value::Null, None),
    ];
    for (labels, wanted) in table {
        assert_eq!(mark(labels.clone()), wanted.map(|(id, place)| (id.into(), place.to_owned())), "{labels}");
    }
    let mut inspect = golden();
    inspect["Config"]["Labels"]["ecs-agent.owner"] = json!(id);
    inspect["State"] = json!({"Running": true});
    assert_eq!(observed(&inspect).unwrap().unwrap().owner, Some(id.as_str().into()));
    let entry = json!({"Id": "1", "State": "running", "Labels": inspect["Config"]["Labels"]});
    assert_eq!(from_list(&entry, "judge").unwrap().seen.unwrap().owner, Some(id.as_str().into()));
}

#[test]
fn the_address_is_that_in_the_default_network() {
    let bridge = json!({"IPAddress": "", "Networks": {"bridge": {"IPAddress": "172.17.0.3"}}});
    let table = [
        (json!({"IPAddress": "172.17.0.2", "Networks": bridge["Networks"]}), Some("172.17.0.2")),
        (bridge, Some("172.17.0.3")),
        (json!({"Networks": {"bridge": {"IPAddress": ""}, "mine": {"IPAddress": "10.0.0.1"}}}), None),
        (json!({"Networks": {"host": {"IPAddress": ""}}}), None),
        (Value::Null, None),
    ];
    for (network, wanted) in table {
        assert_eq!(address(Some(&network)).as_deref(), wanted, "{network}");
    }
    assert_eq!(address(None), None);
}
