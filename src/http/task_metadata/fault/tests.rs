//! Every answer about a fault.

use super::super::fakes::{ARN, Server, task};
use super::*;
use ecs_core::model::fault::{FaultId, FaultOperation, Interfaces};

const LATENCY: &str = r#"{"DelayMilliseconds": 1, "JitterMilliseconds": 1, "Sources": ["10.0.0.1"]}"#;

fn path(id: &str, rest: &str) -> String {
    format!("/api/{id}/fault/v1/{rest}")
}

/// Status and body of a request from a peer that has not asked before.
async fn ask(server: &Server, id: &str, rest: &str, body: &str) -> (u16, String) {
    use std::sync::atomic::{AtomicU16, Ordering};
    static PEERS: AtomicU16 = AtomicU16::new(0);
    let number = PEERS.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let peer = format!("172.17.{}.{}:1000", number[0], number[1]);
    let (status, headers, body) = server.ask(&peer, "POST", &path(id, rest), body).await;
    assert_eq!(headers["content-type"], "application/json");
    (status.as_u16(), body)
}

#[tokio::test]
async fn an_operation_is_carried_out_in_the_tasks_network() {
    let server = Server::with(vec![task()]);
    for (status, rest, wanted) in [
        (FaultStatus::Running, "network-latency/start", r#"{"Status":"running"}"#),
        (FaultStatus::Stopped, "network-latency/stop", r#"{"Status":"stopped"}"#),
        (FaultStatus::NotRunning, "network-packet-loss/status", r#"{"Status":"not-running"}"#),
    ] {
        server.script.lock().unwrap().fault = Ok(status);
        assert_eq!(ask(&server, "id-0", rest, LATENCY).await, (200, wanted.to_owned()));
    }
    let calls = std::mem::take(&mut server.script.lock().unwrap().fault_calls);
    let interfaces = Interfaces { names: vec!["eth0".to_owned()], ipv6_only: false };
    let wanted = FaultNetwork { task: ARN.into(), namespace: None, interfaces };
    assert!(calls.len() == 3 && calls.iter().all(|(network, _)| *network == wanted), "{calls:?}");
    assert!(matches!(calls[0].1, FaultOperation::Start(_)));
    assert_eq!(calls[1].1, FaultOperation::Stop(FaultId::Latency));
    assert_eq!(calls[2].1, FaultOperation::Status(FaultId::Loss));
}

#[tokio::test]
async fn requests_are_checked_in_the_order_of_the_go_agent() {
    let disabled = TaskView { fault_injection: false, ..task() };
    let bridge = TaskView { network: NetworkMode::Bridge, ..task() };
    let nowhere = TaskView { network: NetworkMode::None, ..task() };
    let off_bridge = TaskView { fault_injection: false, ..bridge.clone() };
    let own = TaskView { network: NetworkMode::Awsvpc, ..task() };
    let off_own = TaskView { fault_injection: false, ..own.clone() };
    let server = Server::with(vec![task(), disabled, bridge, nowhere, off_bridge, own, off_own]);
    let error = |text: &str| format!(r#"{{"Error":"{text}"}}"#);
    let unknown = error("unable to get task arn from request: unable to get task Arn from v3 endpoint ID: id-7");
    let off = error(&format!("enableFaultInjection is not enabled for task: {ARN}"));
    let unnetworked =
        |id: &str| error(&format!("failed to get task metadata due to internal server error for container: {id}"));
    let start = "network-latency/start";
    for (id, rest, body, status, wanted) in [
        ("id-7", start, "", 400, error("required request body is missing")),
        ("id-7", start, "{}", 400, error("required parameter DelayMilliseconds is missing")),
        ("id-7", start, LATENCY, 404, unknown.clone()),
        ("id-7", "network-latency/stop", "", 404, unknown.clone()),
        ("id-7", "network-blackhole-port/stop", "", 400, error("required request body is missing")),
        ("id-1", start, LATENCY, 400, off.clone()),
        ("id-2", start, LATENCY, 500, unnetworked("id-2")),
        ("id-3", start, LATENCY, 500, unnetworked("id-3")),
        ("id-4", start, LATENCY, 400, off.clone()),
        ("id-5", start, LATENCY, 400, error("awsvpc mode is not supported by this agent. Please use host mode.")),
        ("id-6", start, LATENCY, 400, off.clone()),
        ("id-0", start, &"x".repeat(1 << 20), 400, error("the request body is too long")),
    ] {
        assert_eq!(ask(&server, id, rest, body).await, (status, wanted), "{id} {body:.40}");
    }
    let no_route = || server.script.lock().unwrap().interfaces = Some(Interfaces::default());
    no_route();
    assert_eq!(ask(&server, "id-0", start, LATENCY).await, (500, unnetworked("id-0")));
    assert_eq!(ask(&server, "id-1", start, LATENCY).await, (400, off.clone()));
    server.script.lock().unwrap().interfaces = None;
    let unresolved = error("failed to resolve default host network interface");
    assert_eq!(ask(&server, "id-0", start, LATENCY).await, (500, unresolved.clone()));
    assert_eq!(ask(&server, "id-1", start, LATENCY).await, (500, unresolved), "before the task is checked");
    assert_eq!(ask(&server, "id-4", start, LATENCY).await, (400, off), "a bridge has no interface to find");
    assert!(server.script.lock().unwrap().fault_calls.is_empty());
}

#[tokio::test]
async fn each_failure_has_its_answer() {
    let server = Server::with(vec![task()]);
    let running = |what: &str| format!("There is already one {what} fault running");
    for (failure, status, wanted) in [
        (FaultError::LatencyRuns, 409, running("network latency")),
        (FaultError::LossRuns, 409, running("network packet loss")),
        (FaultError::TimedOut, 500, "start network-latency: request timed out".to_owned()),
        (FaultError::Failed, 500, "internal error".to_owned()),
    ] {
        server.script.lock().unwrap().fault = Err(failure);
        let answer = ask(&server, "id-0", "network-latency/start", LATENCY).await;
        assert_eq!(answer, (status, format!(r#"{{"Error":"{wanted}"}}"#)));
    }
    server.script.lock().unwrap().fault = Err(FaultError::TimedOut);
    for (rest, wanted) in [
        ("network-packet-loss/stop", "stop network-packet-loss"),
        ("network-latency/status", "check status network-latency"),
    ] {
        let answer = ask(&server, "id-0", rest, "").await;
        assert_eq!(answer, (500, format!(r#"{{"Error":"{wanted}: request timed out"}}"#)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_may_ask_once_in_five_seconds() {
    let server = Server::with(vec![task()]);
    let (first, other) = (path("id-0", "network-latency/status"), path("id-0", "network-packet-loss/status"));
    let ask = async |port: &str, path: &str| server.ask(&format!("10.0.0.1:{port}"), "POST", path, "").await;
    let (status, headers, _) = ask("1001", &first).await;
    assert_eq!(status, StatusCode::OK);
    let limits: Vec<_> = headers.get_all("x-rate-limit-limit").iter().collect();
    assert!(limits.contains(&&HeaderValue::from_static("0.20")), "{limits:?}");
    tokio::time::advance(std::time::Duration::from_millis(3500)).await;
    let (status, headers, body) = ask("1002", &first).await;
    assert_eq!((status.as_u16(), body.as_str()), (429, "You have reached maximum request limit"));
    assert_eq!(
        (&headers["content-type"], &headers["retry-after"]),
        (&HeaderValue::from_static("text/plain; charset=utf-8"), &HeaderValue::from_static("2"))
    );
    assert!(headers.get_all("x-rate-limit-request-remote-addr").iter().any(|peer| peer == "10.0.0.1:1002"));
    assert_eq!(ask("1003", &other).await.0, StatusCode::OK, "another path");
    tokio::time::advance(std::time::Duration::from_millis(1500)).await;
    assert_eq!(ask("1004", &first).await.0, StatusCode::OK);
    let (status, _, body) = server.ask("10.0.0.1:1", "GET", &first, "").await;
    assert_eq!((status.as_u16(), body.as_str()), (405, ""), "and it does not count");
}
