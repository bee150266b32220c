//! The memory of the real program does not depend on the size of a layer.

use super::client::{Client, noise};
use super::kill::Running;
use crate::binary::Scratch;
use serde_json::json;

/// The most memory that the process had, in bytes.
fn peak(process: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Pushes a layer of so many pieces of a megabyte as a stream, and pulls it.
async fn push_and_pull(client: &Client, pieces: u64) {
    use futures_util::StreamExt;
    use sha2::Digest;
    let piece = noise(1_000_000);
    let content = move |number: u64| [&number.to_le_bytes()[..], &piece].concat();
    let mut hash = sha2::Sha256::new();
    (0..pieces).for_each(|number| hash.update(content(number)));
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let path = client.begin("app").await;
    let stream = futures_util::stream::iter(0..pieces).map(move |number| Ok::<_, std::io::Error>(content(number)));
    let taken = client.try_send("PATCH", &path, &[], reqwest::Body::wrap_stream(stream)).await.unwrap();
    assert_eq!(taken.status, 202);
    let stored = client.send("PUT", &format!("{path}?digest=sha256:{hex}"), &[], Vec::new()).await;
    assert_eq!(stored.status, 201);
    let pulled = client.get(stored.header("location")).await;
    assert_eq!(pulled.body.len() as u64, pieces * 1_000_008);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_layer_needs_no_more_memory() {
    let scratch = Scratch::new("memory");
    let mut running = Running::start(&scratch).await;
    assert_eq!(running.call("CreateRepository", json!({"repositoryName": "app"})).await.0, 200);
    let client = running.client().await;
    push_and_pull(&client, 10).await;
    let before = peak(running.child.id().unwrap());
    push_and_pull(&client, 200).await;
    let after = peak(running.child.id().unwrap());
    assert!(after < before + 16_000_000, "{before} bytes with 10 MB, {after} bytes with 200 MB");
    running.child.start_kill().unwrap();
    running.child.wait().await.unwrap();
}
