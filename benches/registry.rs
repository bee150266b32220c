//! How fast the registry of `ecs-local` takes and gives a layer of 100 MB over loopback, compared with Debian's `docker-registry`:
//! `cargo bench --bench registry`.
//!
//! Both are processes of their own with a directory on the same file system, and take turns. A push is POST, PATCH with the whole
//! layer, and PUT; each layer is new. Prints the median of the ratios and their range, and how much memory `ecs-local` had at most.

#![expect(clippy::print_stdout, reason = "a bench prints its numbers")]

use aws_credential_types::Credentials;
use base64::Engine;
use ecs_agent::aws::client::signature::Signed;
use ecs_testing::docker::TempDir;
use ecs_testing::registry::Registry;
use sha2::Digest;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

const LAYER: usize = 100 * 1000 * 1000;
const TOKEN: &str = "the-token-of-a-bench";

/// The program, stopped when it is dropped.
struct Local {
    child: Child,
    host: String,
    _directory: TempDir,
}

impl Local {
    fn start(in_memory: bool) -> Self {
        let directory = TempDir::new("ecs-bench-registry");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ecs-local"));
        command.args(["serve", "--quiet", "--listen", "127.0.0.1:0", "--token", TOKEN]);
        if !in_memory {
            command.arg("--registry-dir").arg(directory.path().join("registry"));
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("ecs-local starts");
        let mut line = String::new();
        let output = child.stdout.as_mut().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("its address");
        let host = line.trim().trim_start_matches("http://").to_owned();
        Self { child, host, _directory: directory }
    }

    /// Makes a call of ECR and returns the body of the answer.
    fn call(&self, operation: &str, body: &str) -> String {
        let url = format!("http://{}/", self.host).parse().expect("an address");
        let target = format!("AmazonEC2ContainerRegistry_V20150921.{operation}");
        let headers = [("x-amz-target", target.clone())];
        let at = SystemTime::now();
        let signed = Signed {
            at,
            region: "us-west-2",
            service: "ecr",
            method: "POST",
            url: &url,
            headers: &headers,
            body: body.as_bytes(),
        };
        let signed = signed.headers(Credentials::new("local", TOKEN, None, None, "bench")).expect("a signature");
        let mut head = format!("x-amz-target: {target}\r\n");
        for (name, value) in &signed {
            head.push_str(&format!("{name}: {}\r\n", value.to_str().expect("a text")));
        }
        let answer = exchange(&self.host, "POST", "/", &head, body.as_bytes());
        assert_eq!(answer.status, 200, "{operation}");
        String::from_utf8(answer.body).expect("JSON")
    }

    /// The header with a token for `docker`.
    fn authorization(&self) -> String {
        let answer: serde_json::Value = serde_json::from_str(&self.call("GetAuthorizationToken", "{}")).expect("JSON");
        let token = answer["authorizationData"][0]["authorizationToken"].as_str().expect("a token");
        let decoded = base64::engine::general_purpose::STANDARD.decode(token).expect("base64");
        format!("Authorization: Basic {}\r\n", base64::engine::general_purpose::STANDARD.encode(decoded))
    }

    /// The most memory that the process had, in MiB.
    fn peak(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("its status");
        let line = text.lines().find(|line| line.starts_with("VmHWM")).expect("VmHWM");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") / 1024
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Answer {
    status: u16,
    location: String,
    body: Vec<u8>,
}

/// Sends a request on a connection of its own and reads the answer.
fn exchange(host: &str, method: &str, path: &str, head: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(host).expect("a connection");
    stream.set_nodelay(true).expect("an option of the socket");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n{head}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).expect("the request is sent");
    let mut reader = BufReader::with_capacity(256 * 1024, stream);
    let (mut line, mut location) = (String::new(), String::new());
    reader.read_line(&mut line).expect("a status");
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    loop {
        line.clear();
        reader.read_line(&mut line).expect("a header");
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        if name.eq_ignore_ascii_case("location") {
            location = value.strip_prefix(&format!("http://{host}")).unwrap_or(value).to_owned();
        }
    }
    let mut body = Vec::with_capacity(LAYER);
    reader.read_to_end(&mut body).expect("a body");
    Answer { status, location, body }
}

/// Pushes and pulls a layer. Returns both times.
fn measure(host: &str, authorization: &str, layer: &[u8], digest: &str) -> (Duration, Duration) {
    let begin = Instant::now();
    let begun = exchange(host, "POST", "/v2/bench/blobs/uploads/", authorization, &[]);
    assert_eq!(begun.status, 202);
    let head = format!("Content-Type: application/octet-stream\r\n{authorization}");
    let taken = exchange(host, "PATCH", &begun.location, &head, layer);
    assert_eq!(taken.status, 202);
    let and = if taken.location.contains('?') { '&' } else { '?' };
    let stored = exchange(host, "PUT", &format!("{}{and}digest={digest}", taken.location), authorization, &[]);
    assert_eq!(stored.status, 201);
    let pushed = begin.elapsed();
    let begin = Instant::now();
    let pulled = exchange(host, "GET", &format!("/v2/bench/blobs/{digest}"), authorization, &[]);
    assert!(pulled.status == 200 && pulled.body == layer);
    (pushed, begin.elapsed())
}

fn main() {
    let rounds = std::env::var("BENCH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(7_u64);
    let other = Registry::start(&[]);
    let locals = [("in a directory", Local::start(false)), ("in memory", Local::start(true))];
    let mut ratios: [[Vec<f64>; 2]; 2] = Default::default();
    let mut seconds: [[Vec<f64>; 2]; 3] = Default::default();
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    let authorizations: Vec<String> = locals
        .iter()
        .map(|(_, local)| {
            local.call("CreateRepository", r#"{"repositoryName": "bench"}"#);
            local.authorization()
        })
        .collect();
    for _round in 0..rounds {
        let mut layer = Vec::with_capacity(LAYER + 8);
        while layer.len() < LAYER {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            layer.extend_from_slice(&noise.to_le_bytes());
        }
        let hex: String = sha2::Sha256::digest(&layer).iter().map(|byte| format!("{byte:02x}")).collect();
        let digest = format!("sha256:{hex}");
        let (push, pull) = measure(&other.host, "", &layer, &digest);
        let theirs = [push.as_secs_f64(), pull.as_secs_f64()];
        for (which, (_, local)) in locals.iter().enumerate() {
            let (push, pull) = measure(&local.host, &authorizations[which], &layer, &digest);
            for (direction, ours) in [push.as_secs_f64(), pull.as_secs_f64()].into_iter().enumerate() {
                ratios[which][direction].push(theirs[direction] / ours);
                seconds[which][direction].push(ours);
            }
        }
        for direction in 0..2 {
            seconds[2][direction].push(theirs[direction]);
        }
    }
    let median = |values: &[f64]| {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        (sorted[sorted.len() / 2], sorted[0], sorted[sorted.len() - 1])
    };
    for direction in 0..2 {
        let name = ["push", "pull"][direction];
        println!("{name}: docker-registry {:.3} s", median(&seconds[2][direction]).0);
        for (which, (place, _)) in locals.iter().enumerate() {
            let (middle, low, high) = median(&ratios[which][direction]);
            let time = median(&seconds[which][direction]).0;
            println!("{name}: ecs-local {place} {time:.3} s, {middle:.2} times as fast ({low:.2} to {high:.2})");
        }
    }
    println!("most memory of ecs-local with a directory: {} MiB", locals[0].1.peak());
}
