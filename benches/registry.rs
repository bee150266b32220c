//! How fast the registry of `ecs-local` takes and gives a layer of 100 MB over loopback, compared with Debian's `docker-registry`:
//! `cargo bench --bench registry`.
//!
//! Both are processes of their own with a directory on the same file system, and take turns. A push is POST, PATCH with the whole
//! layer, and PUT; each layer is new, and is pulled several times. Prints the median of the ratios and their range, the processor time
//! of each server for a pull (which other work on the machine disturbs less), and how much memory `ecs-local` had at most.

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
/// How often each layer is pulled.
const PULLS: u32 = 3;
/// Number of steps of a second in which the kernel counts processor time, as user space sees it.
const STEPS: f64 = 100.0;
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

/// Sends a request on a connection of its own and reads the answer, with its body into this buffer: a new one would take the system
/// more time than the registry needs.
fn exchange_into(host: &str, method: &str, path: &str, head: &str, body: &[u8], mut buffer: Vec<u8>) -> Answer {
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
    buffer.clear();
    reader.read_to_end(&mut buffer).expect("a body");
    Answer { status, location, body: buffer }
}

/// [`exchange_into`] for a short answer.
fn exchange(host: &str, method: &str, path: &str, head: &str, body: &[u8]) -> Answer {
    exchange_into(host, method, path, head, body, Vec::new())
}

/// The processor time that a process has used, in seconds.
fn processor_time(process: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("its times");
    let (_, rest) = text.rsplit_once(") ").expect("a name");
    // Of its own code and in the kernel.
    let steps: u64 = rest.split(' ').skip(11).take(2).map(|steps| steps.parse::<u64>().expect("a number")).sum();
    steps as f64 / STEPS
}

/// A server, and what it took.
struct Measured {
    name: &'static str,
    host: String,
    process: u32,
    authorization: String,
    /// Seconds of each push and each pull (the mean of [`PULLS`]).
    seconds: [Vec<f64>; 2],
    /// Processor time of each pull, in seconds.
    processor: Vec<f64>,
}

impl Measured {
    fn new(name: &'static str, host: &str, process: u32, authorization: String) -> Self {
        let host = host.to_owned();
        Self { name, host, process, authorization, seconds: Default::default(), processor: Vec::new() }
    }

    /// Pushes a layer and pulls it. Returns the buffer.
    fn measure(&mut self, layer: &[u8], digest: &str, mut buffer: Vec<u8>) -> Vec<u8> {
        let (host, authorization) = (&self.host, &self.authorization);
        let begin = Instant::now();
        let begun = exchange(host, "POST", "/v2/bench/blobs/uploads/", authorization, &[]);
        assert_eq!(begun.status, 202);
        let head = format!("Content-Type: application/octet-stream\r\n{authorization}");
        let taken = exchange(host, "PATCH", &begun.location, &head, layer);
        assert_eq!(taken.status, 202);
        let and = if taken.location.contains('?') { '&' } else { '?' };
        let stored = exchange(host, "PUT", &format!("{}{and}digest={digest}", taken.location), authorization, &[]);
        assert_eq!(stored.status, 201);
        self.seconds[0].push(begin.elapsed().as_secs_f64());
        let (mut pulled, before) = (Duration::ZERO, processor_time(self.process));
        for _ in 0..PULLS {
            let begin = Instant::now();
            let path = format!("/v2/bench/blobs/{digest}");
            let answer = exchange_into(host, "GET", &path, authorization, &[], buffer);
            pulled += begin.elapsed();
            // This takes as long as the pull, so it is not measured.
            assert!(answer.status == 200 && answer.body == layer);
            buffer = answer.body;
        }
        self.seconds[1].push(pulled.as_secs_f64() / f64::from(PULLS));
        self.processor.push((processor_time(self.process) - before) / f64::from(PULLS));
        buffer
    }
}

/// A layer that was not there before, and its digest.
fn new_layer(noise: &mut u64) -> (Vec<u8>, String) {
    let mut layer = Vec::with_capacity(LAYER + 8);
    while layer.len() < LAYER {
        *noise ^= *noise << 13;
        *noise ^= *noise >> 7;
        *noise ^= *noise << 17;
        layer.extend_from_slice(&noise.to_le_bytes());
    }
    let hex: String = sha2::Sha256::digest(&layer).iter().map(|byte| format!("{byte:02x}")).collect();
    (layer, format!("sha256:{hex}"))
}

/// Median, least and most.
fn median(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[sorted.len() / 2], sorted[0], sorted[sorted.len() - 1])
}

/// Prints what the servers took. The first is the one with which the others are compared.
fn show(servers: &[Measured]) {
    let ratios = |theirs: &[f64], ours: &[f64]| {
        let pairs: Vec<f64> = theirs.iter().zip(ours).map(|(theirs, ours)| theirs / ours).collect();
        let (middle, low, high) = median(&pairs);
        format!("{middle:.2} times as fast ({low:.2} to {high:.2})")
    };
    let Some((other, own)) = servers.split_first() else { return };
    for (what, direction) in [("push", 0), ("pull", 1)] {
        println!("{what}: {} {:.3} s", other.name, median(&other.seconds[direction]).0);
        for server in own {
            let (name, seconds) = (server.name, &server.seconds[direction]);
            println!("{what}: {name} {:.3} s, {}", median(seconds).0, ratios(&other.seconds[direction], seconds));
        }
    }
    for server in servers {
        println!("processor time of a pull: {} {:.3} s", server.name, median(&server.processor).0);
    }
}

fn main() {
    let rounds = std::env::var("BENCH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(7_usize);
    let other = Registry::start(&[]);
    let locals = [("ecs-local in a directory", Local::start(false)), ("ecs-local in memory", Local::start(true))];
    let mut servers = vec![Measured::new("docker-registry", &other.host, other.process(), String::new())];
    for (name, local) in &locals {
        local.call("CreateRepository", r#"{"repositoryName": "bench"}"#);
        servers.push(Measured::new(name, &local.host, local.child.id(), local.authorization()));
    }
    let (mut noise, mut buffer) = (0x9e37_79b9_7f4a_7c15_u64, vec![1; LAYER]);
    for round in 0..rounds {
        let (layer, digest) = new_layer(&mut noise);
        for turn in 0..servers.len() {
            // Each is the first as often as the others.
            let which = (round + turn) % servers.len();
            buffer = servers[which].measure(&layer, &digest, buffer);
        }
    }
    show(&servers);
    println!("most memory of ecs-local with a directory: {} MiB", locals[0].1.peak());
}
