//! The agent as a process: signals, core files, and its log when something that it needs is missing.

use super::rig::{LIMIT, Plan, Rig};
use ecs_testing::wait::until;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn send(signal: &str, pid: u32) {
    assert!(Command::new("kill").args(["-s", signal, &pid.to_string()]).status().unwrap().success(), "{signal}");
}

/// Signals whose default action ends a process although nobody means to end it, without the real-time signals.
/// `systemd/README.md` names them.
const HARMLESS: [&str; 11] = ["HUP", "USR1", "USR2", "PIPE", "ALRM", "VTALRM", "PROF", "IO", "PWR", "STKFLT", "XFSZ"];

#[tokio::test(flavor = "multi_thread")]
async fn signals_that_mean_nothing_end_nothing() {
    let Some(mut rig) = Rig::start("signals", Plan::default()).await else { return };
    rig.registered().await;
    let pid = rig.pid();
    for signal in HARMLESS {
        send(signal, pid);
    }
    let says = |signal: &str| signal == "PIPE" || rig.log().contains(&format!("SIG{signal}"));
    until("a line for each", Duration::from_secs(20), async || HARMLESS.iter().all(|name| says(name)).then_some(()))
        .await;
    let before = rig.log().matches("SIGUSR2").count();
    for _ in 0..50 {
        send("USR2", pid);
    }
    let image = rig.image();
    rig.lives_once(&image, 7, "it works on").await;
    assert_eq!(rig.pid(), pid);
    assert!(rig.log().matches("SIGUSR2").count() <= before + 2, "many at once are no flood: {}", rig.log());
    assert_eq!(rig.terminate().code(), Some(0), "SIGTERM still ends it");
    rig.start_agent();
    rig.registered().await;
    send("INT", rig.pid());
    assert_eq!(rig.ended().code(), Some(0), "and so does SIGINT");
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/README.md")).unwrap();
    for signal in HARMLESS {
        assert!(page.contains(&format!("SIG{signal}")), "SIG{signal} is not in systemd/README.md");
    }
}

/// The levels change; the log file follows. Settings other than the levels need a restart.
#[tokio::test(flavor = "multi_thread")]
async fn sighup_reads_the_levels_of_the_log_again() {
    let Some(mut rig) = Rig::without_agent("sighup", Plan::default()).await else { return };
    rig.environment.retain(|(name, _)| name != "ECS_LOGLEVEL");
    let (config, file) = (rig.directory.path().join("ecs.config"), rig.directory.path().join("log/file.log"));
    rig.environment.push(("ECS_LOGFILE".to_owned(), file.to_string_lossy().into_owned()));
    rig.start_agent();
    rig.registered().await;
    let kept = || std::fs::read_to_string(&file).unwrap_or_default();
    let has_debug = |log: &str| log.lines().any(|line| line.starts_with("level=debug"));
    assert!(!has_debug(&rig.log()) && kept().contains("Starting Amazon ECS Agent"), "{}", kept());
    for (lines, levels, is_debug) in [
        ("ECS_LOGLEVEL=debug\nECS_LOGLEVEL_ON_INSTANCE=info\n", "output=debug file=info", [true, false]),
        ("ECS_LOGLEVEL=warn\nECS_LOGLEVEL_ON_INSTANCE=debug\n", "output=warn file=debug", [false, true]),
    ] {
        std::fs::write(&config, lines).unwrap();
        let before = [rig.log().len(), kept().len()];
        send("HUP", rig.pid());
        until(levels, LIMIT, async || (rig.log() + &kept()).contains(levels).then_some(())).await;
        // Each request is a line at level debug. Other debug lines may come earlier, and this one only after the next SIGHUP.
        reqwest::get("http://127.0.0.1:51678/v1/metadata").await.unwrap();
        let new = || [rig.log()[before[0]..].to_owned(), kept()[before[1]..].to_owned()];
        let has_request = |log: &String| log.contains("Handling http request");
        until("the line of the request", LIMIT, async || new().iter().any(has_request).then_some(())).await;
        assert_eq!(new().map(|log| has_debug(&log)), is_debug, "{lines}: {:?}", new());
    }
    // What cannot be read changes nothing: an editor that replaces the file, a wrong level, a file that cannot be used.
    let is_about_it = |line: &&str| line.contains("SIGHUP");
    for (lines, why) in [
        (None, "is not there"),
        (Some("ECS_LOGLEVEL=loud\n"), "ECS_LOGLEVEL ("),
        (Some("{\"LogLevel\":\"debug\"}\n"), "a JSON document"),
    ] {
        match lines {
            Some(lines) => std::fs::write(&config, lines).unwrap(),
            None => std::fs::remove_file(&config).unwrap(),
        }
        let before = kept().len();
        send("HUP", rig.pid());
        let new = || kept()[before..].to_owned();
        until(why, LIMIT, async || new().lines().any(|line| line.contains("SIGHUP")).then_some(())).await;
        let text = new().lines().filter(is_about_it).collect::<Vec<_>>().join("\n");
        assert!(text.contains("the levels of the log stay as they are: ") && text.contains(why), "{text}");
        assert!(text.lines().count() == 1 && !text.contains("does not start") && !text.contains("is used"), "{text}");
        reqwest::get("http://127.0.0.1:51678/v1/metadata").await.unwrap();
        until("debug lines", LIMIT, async || has_debug(&new()).then_some(())).await;
    }
    std::fs::write(&config, "ECS_LOGLEVEL=info\nECS_LOGLEVEL_ON_INSTANCE=warn\n").unwrap();
    send("HUP", rig.pid());
    until("levels again", LIMIT, async || rig.log().contains("output=info file=warn").then_some(())).await;
    assert!(rig.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_while_it_starts_end_nothing() {
    // The start takes long, because there is no Docker.
    let Some(mut rig) = Rig::without_agent("signals-start", Plan::default()).await else { return };
    rig.environment.push(("DOCKER_HOST".to_owned(), "unix:///nonexistent/docker.sock".to_owned()));
    rig.start_agent();
    let pid = rig.pid();
    until("it waits for Docker", Duration::from_secs(60), async || rig.log().contains("DOCKER_HOST").then_some(()))
        .await;
    assert!(
        rig.log().contains("There is no such socket: start Docker, or name its socket in DOCKER_HOST"),
        "{}",
        rig.log()
    );
    for signal in HARMLESS {
        send(signal, pid);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let began = Instant::now();
    assert_eq!(rig.terminate().code(), Some(0), "it was there, and SIGTERM ends it cleanly");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_core_file_holds_its_memory() {
    let Some(mut rig) = Rig::start("core", Plan::default()).await else { return };
    rig.registered().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", rig.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["Max", "core", "file", "size", "0", "0", "bytes"]);
    rig.terminate();
}

/// Starts the agent on a machine where the metadata service accepts connections and never answers, as long as the listener exists.
/// The log is in the file `log` of the directory.
fn start_with_silent_metadata(directory: &std::path::Path) -> (std::net::TcpListener, std::process::Child) {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    std::fs::create_dir(directory).unwrap();
    std::fs::write(directory.join("none"), "").unwrap();
    let log = std::fs::File::create(directory.join("log")).unwrap();
    let agent = Command::new(env!("CARGO_BIN_EXE_ecs-agent"))
        .env_clear()
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("http://{}", silent.local_addr().unwrap()))
        .env("AWS_DEFAULT_REGION", "us-west-2")
        .env("ECS_CONFIG_FILE", directory.join("none"))
        .env("ECS_DATADIR", directory.join("data"))
        .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
        .stdout(Stdio::from(log.try_clone().unwrap()))
        .stderr(Stdio::from(log))
        .spawn()
        .unwrap();
    (silent, agent)
}

fn new_directory() -> std::path::PathBuf {
    std::env::temp_dir().join(format!("ecs-no-imds-{}", uuid::Uuid::new_v4().simple()))
}

/// A stop before the configuration is complete: the user data may hold a part of it, and its service is silent.
#[test]
fn a_stop_while_the_user_data_is_read_is_orderly() {
    for signal in ["TERM", "INT"] {
        let directory = new_directory();
        let (_silent, mut agent) = start_with_silent_metadata(&directory);
        let log = || std::fs::read_to_string(directory.join("log")).unwrap();
        let began = Instant::now();
        while !log().contains("Loading configuration") {
            assert!(began.elapsed() < LIMIT, "{}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
        let stopped = Instant::now();
        send(signal, agent.id());
        let status = agent.wait().unwrap();
        let (took, log) = (stopped.elapsed(), log());
        assert_eq!(status.code(), Some(0), "{signal}: {log}");
        assert!(log.contains(&format!("Agent received termination signal: SIG{signal}")), "{log}");
        assert!(!log.contains("Starting Amazon ECS Agent"), "it was in that phase: {log}");
        assert!(took < Duration::from_secs(5), "the service is given up after 15 s: {took:?}");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}

/// Returns the log after at most `limit`, the time until the agent logged that nothing answers, and the time from then until it
/// continued without the service.
fn start_without_metadata(limit: Duration) -> (String, Duration, Duration) {
    let directory = new_directory();
    let (_silent, mut agent) = start_with_silent_metadata(&directory);
    let (began, mut first, mut gave_up, mut log) = (Instant::now(), limit, limit, String::new());
    while began.elapsed() < limit && !log.contains("DOCKER_HOST") {
        std::thread::sleep(Duration::from_millis(20));
        log = std::fs::read_to_string(directory.join("log")).unwrap();
        if log.contains("the EC2 instance metadata service does not answer") {
            first = first.min(began.elapsed());
        }
        if log.contains("the EC2 instance id is unknown") {
            gave_up = gave_up.min(began.elapsed());
        }
    }
    agent.kill().unwrap();
    agent.wait().unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    assert!(log.contains("DOCKER_HOST"), "the start went on within {limit:?}: {log}");
    (log, first, gave_up.saturating_sub(first))
}

#[test]
fn without_a_metadata_service_it_says_so_soon() {
    let (log, first, asked) = start_without_metadata(Duration::from_secs(27));
    assert!(first < Duration::from_secs(6), "said after {first:?}: {log}");
    assert!(log.contains("start the agent with -blackhole-ec2-metadata"), "{log}");
    // The request that is under way at that time may take a moment longer.
    assert!(log.contains("asked again for 15 s") && asked < Duration::from_secs(18), "for {asked:?}: {log}");
    assert!(log.contains("the EC2 instance id is unknown") && !log.contains("saved"), "nothing is saved here: {log}");
}
