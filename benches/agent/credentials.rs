//! Requests for the credentials of a task role while many tasks start, against a bare echo server in the same moments.
//!
//! Each server gets one request every millisecond over a kept connection, from a thread of its own. A time is counted from the
//! moment the request is sent; a thread that is late sends at once, so that both servers get the same number of requests. The echo
//! server is an ordinary process of its own, and sends an answer of the same size from two threads.

use super::process::Agent;
use super::{all, connected, definition, id_of, line, remove_control_groups, server};
use ecs_local::TaskStatus;
use ecs_testing::docker::{Cluster, docker, inspect};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The argument that makes this program the echo server; the size of its answers follows.
pub(crate) const ECHO: &str = "--echo";
const TASKS: usize = 50;
/// Starts of that many tasks, with precedence and without.
const ROUNDS: usize = 5;
const EVERY: Duration = Duration::from_millis(1);
const ROLE: &str = "arn:aws:iam::123456789012:role/taskRole";

/// Serves the answers until the process is killed. Prints its port.
#[tokio::main(worker_threads = 2)]
pub(crate) async fn echo(size: usize) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    let answer = Arc::new([vec![b'x'; size - 1], vec![b'}']].concat());
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        let answer = Arc::clone(&answer);
        connections.spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(1..) = stream.read(&mut buffer).await {
                if stream.write_all(&answer).await.is_err() {
                    break;
                }
            }
        });
    }
}

/// The echo server's process.
struct Echo(Child, SocketAddr);

impl Echo {
    fn start(size: usize) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args([ECHO, &size.to_string()]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the echo server starts");
        let mut address = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut address).expect("its address");
        Self(child, address.trim().parse().expect("an address"))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A kept connection to one of the servers. Each answer ends with the only `}` in it.
struct Connection {
    address: SocketAddr,
    request: Vec<u8>,
    stream: TcpStream,
}

impl Connection {
    fn new(address: SocketAddr, path: &str) -> Self {
        let request = format!("GET {path} HTTP/1.1\r\nHost: 169.254.170.2\r\n\r\n").into_bytes();
        Self { address, request, stream: Self::connected(address) }
    }

    fn connected(address: SocketAddr) -> TcpStream {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        stream
    }

    /// The answer. The agent closes a connection when it is a minute old; then there is a new one.
    fn ask(&mut self) -> Vec<u8> {
        loop {
            if let Some(answer) = self.answer() {
                return answer;
            }
            self.stream = Self::connected(self.address);
        }
    }

    fn answer(&mut self) -> Option<Vec<u8>> {
        let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
        self.stream.write_all(&self.request).ok()?;
        while !answer.ends_with(b"}") {
            let length = self.stream.read(&mut buffer).ok().filter(|length| *length > 0)?;
            answer.extend_from_slice(&buffer[..length]);
        }
        Some(answer)
    }
}

/// Asks until `stop`. Returns how long each answer took.
fn ask_every_millisecond(mut connection: Connection, stop: &AtomicBool) -> Vec<Duration> {
    let (begun, mut times) = (Instant::now(), Vec::new());
    for nth in 0_u32.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        std::thread::sleep((EVERY * nth).saturating_sub(begun.elapsed()));
        let sent = Instant::now();
        connection.ask();
        times.push(sent.elapsed());
    }
    times
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// Prints the slowest hundredth of the answers of both servers, for an agent whose thread may take precedence over others, as the
/// unit allows, and for one whose thread may not.
pub(crate) async fn credentials(image: &str) {
    docker(&["pull", "--quiet", image]);
    for (is_favoured, name) in [(false, "without precedence"), (true, "with precedence")] {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            rounds.push(round(image, is_favoured).await);
        }
        rounds.sort_by(|a, b| ratio(a).total_cmp(&ratio(b)));
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        for (agent, echo) in &rounds {
            println!("  {name}: agent {:.2} ms, echo {:.2} ms", ms(*agent), ms(*echo));
        }
        let (agent, echo) = rounds[rounds.len() / 2];
        line(&format!("credentials p99, {name}"), &format!("{:.2} ms", ms(agent)), "", "");
        line("  bare echo", &format!("{:.2} ms", ms(echo)), "", "");
        line("  agent / echo", &format!("{:.2} (median of rounds)", ratio(&(agent, echo))), "1.5", "");
    }
}

fn ratio((agent, echo): &(Duration, Duration)) -> f64 {
    agent.as_secs_f64() / echo.as_secs_f64()
}

/// Starts the tasks once. Returns the times of both servers.
async fn round(image: &str, is_favoured: bool) -> (Duration, Duration) {
    let cluster = Cluster::new();
    let server = server(&cluster).await;
    let environment = [("ECS_ENABLE_TASK_IAM_ROLE", "true"), ("ECS_TASK_METADATA_RPS_LIMIT", "100000,100000")];
    let agent = Agent::start_with(&server, is_favoured, &environment);
    connected(&server).await;
    let mut definition = definition(image);
    definition["taskRoleArn"] = ROLE.into();
    let first = server.run_task(&definition).expect("the task is placed");
    all(&server, std::slice::from_ref(&first), TaskStatus::Running).await;
    let container =
        server.read(|state| state.task(&first)?.container("main")?.runtime_id.clone()).expect("a container");
    let path = credentials_path(&container);

    let address = SocketAddr::from(([127, 0, 0, 1], ecs_agent::http::task_metadata::PORT));
    let mut connection = Connection::new(address, &path);
    let answer = connection.ask();
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "credentials are answered");
    let echo = Echo::start(answer.len());
    let stop = Arc::new(AtomicBool::new(false));
    let asking = [connection, Connection::new(echo.1, &path)].map(|connection| {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || ask_every_millisecond(connection, &stop))
    });
    let arns: Vec<String> = (0..TASKS).map(|_| server.run_task(&definition).expect("the task is placed")).collect();
    all(&server, &arns, TaskStatus::Running).await;
    stop.store(true, Ordering::Relaxed);
    let [agent_times, echo_times] = asking.map(|thread| p99(thread.join().expect("all were answered")));

    let arns: Vec<String> = arns.into_iter().chain([first]).collect();
    arns.iter().for_each(|arn| server.stop_task(arn, "measured").expect("the task is known"));
    all(&server, &arns, TaskStatus::Stopped).await;
    drop((agent, cluster));
    remove_control_groups(&arns.iter().filter_map(|arn| id_of(arn)).collect::<Vec<_>>());
    (agent_times, echo_times)
}

/// The path at which the container finds its credentials.
fn credentials_path(container: &str) -> String {
    let shown = inspect(container);
    let variables = shown["Config"]["Env"].as_array().expect("variables").iter().filter_map(|text| text.as_str());
    let mut paths = variables.filter_map(|text| text.strip_prefix("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI="));
    paths.next().expect("the container has a role").to_owned()
}
