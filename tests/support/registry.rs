//! A real registry (Debian's `docker-registry`) on a random loopback port, with or without users.

use super::docker::{Image, TempDir, unique};
use base64::Engine as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running registry; stopped when dropped.
#[derive(Debug)]
pub struct Registry {
    /// `127.0.0.1:<port>`
    pub host: String,
    child: Child,
    directory: TempDir,
    user: Option<(String, String)>,
}

impl Registry {
    /// Starts a registry that accepts these users, or anybody if the list is empty.
    pub fn start(users: &[(&str, &str)]) -> Self {
        Self::listening("127.0.0.1", users, false)
    }

    /// Starts a registry at another address of this host, optionally with TLS and an untrusted certificate. Docker does not check
    /// certificates of loopback addresses.
    pub fn listening(address: &str, users: &[(&str, &str)], tls: bool) -> Self {
        let directory = TempDir::new("ecs-test-registry");
        let port = free_port();
        let host = format!("{address}:{port}");
        let path = directory.path().display();
        let mut config = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {path}/data\nhttp:\n  addr: {host}\n"
        );
        if tls {
            make_certificate(directory.path(), address);
            config.push_str(&format!("  tls:\n    certificate: {path}/certificate\n    key: {path}/key\n"));
        }
        if !users.is_empty() {
            let lines: String = users.iter().map(|(user, password)| htpasswd(user, password)).collect();
            std::fs::write(directory.path().join("htpasswd"), lines).expect("htpasswd is written");
            config.push_str(&format!("auth:\n  htpasswd:\n    realm: test\n    path: {path}/htpasswd\n"));
        }
        let file = directory.path().join("config.yml");
        std::fs::write(&file, config).expect("the configuration is written");
        let child = beside_docker("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed");
        let user = users.first().map(|(user, password)| ((*user).to_owned(), (*password).to_owned()));
        let mut registry = Self { host, child, directory, user };
        let started = Instant::now();
        while !listeners(registry.child.id()).contains(&port) {
            assert!(started.elapsed() < Duration::from_secs(20), "the registry does not listen");
            assert!(registry.child.try_wait().is_ok_and(|ended| ended.is_none()), "the registry ended by itself");
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    /// The id of its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Stops the registry; its port then refuses connections.
    pub fn stop(&mut self) {
        self.child.kill().expect("the registry runs");
        self.child.wait().expect("the registry ends");
    }

    /// Makes a busybox image, pushes it and removes it locally; returns its reference.
    pub fn push_busybox(&self, name: &str, changes: &[&str]) -> String {
        self.push_image(name, changes, 0)
    }

    /// The same with this many bytes more, which cannot be compressed.
    pub fn push_larger(&self, name: &str, bytes: u64) -> String {
        self.push_image(name, &[], bytes)
    }

    fn push_image(&self, name: &str, changes: &[&str], bytes: u64) -> String {
        // Different labels make different images: tests that share a daemon must not untag each other's images.
        let mark = format!("LABEL mark={}", unique("m"));
        let reference = format!("{}/{name}", self.host);
        let changes: Vec<&str> = changes.iter().copied().chain([mark.as_str()]).collect();
        let image = Image::make_larger(&reference, &changes, bytes);
        self.push(&image.reference);
        reference
    }

    /// Pushes a local image with the first user's credentials.
    pub fn push(&self, reference: &str) {
        let auth = self.user.as_ref().map(|(user, password)| basic(user, password));
        push(&self.directory, &self.host, auth.as_deref(), reference);
    }
}

/// Pushes a local image to the registry `host`. `auth` is base64 of `user:password`; `None`: the registry is open to everybody. The
/// client's configuration is written into the directory.
pub fn push(directory: &TempDir, host: &str, auth: Option<&str>, reference: &str) {
    let config = directory.path().join("client");
    std::fs::create_dir_all(&config).expect("a directory for the client");
    let entry = auth.map_or_else(|| serde_json::json!({}), |auth| serde_json::json!({"auth": auth}));
    let document = serde_json::json!({"auths": {host: entry}});
    std::fs::write(config.join("config.json"), document.to_string()).expect("the client's configuration is written");
    let output = Command::new("docker").arg("--config").arg(&config).args(["push", reference]).output();
    let output = output.expect("docker push runs");
    assert!(output.status.success(), "docker push: {}", String::from_utf8_lossy(&output.stderr));
}

/// Docker's network namespace, if the test runs in another one (`tests/run` sets this up).
fn dockers_network() -> Option<String> {
    std::env::var("ECS_TEST_DOCKER_NETWORK").ok().filter(|path| !path.is_empty())
}

/// A range of ports on Docker's network that most likely no other test uses, for an agent that cannot see which ports are taken.
pub fn container_ports() -> Option<String> {
    dockers_network()?;
    let first = 10_000 + 50 * (uuid::Uuid::new_v4().as_u128() % 200);
    Some(format!("{first}-{}", first + 49))
}

/// A command that runs in Docker's network namespace, so that Docker reaches it on the loopback address.
fn beside_docker(program: &str) -> Command {
    match dockers_network() {
        Some(namespace) => {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net={namespace}")).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// The address of Docker's host on the default bridge; Docker itself does not always report it.
pub fn bridge_address() -> String {
    let option = r#"{{index .Options "com.docker.network.bridge.name"}}"#;
    let interface = super::docker::docker(&["network", "inspect", "--format", option, "bridge"]);
    let output =
        beside_docker("ip").args(["-4", "-o", "address", "show", &interface]).output().expect("ip is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let address = text.split_whitespace().nth(3).expect("the bridge has an address");
    address.split('/').next().expect("something stands before the mask").to_owned()
}

/// A free port on Docker's loopback address. It is below the kernel's range of ephemeral ports, so that no connection gets it by
/// chance in the meantime.
fn free_port() -> u16 {
    let process = dockers_network().and_then(|path| path.split('/').nth(2).and_then(|process| process.parse().ok()));
    let taken = listeners(process.unwrap_or_else(std::process::id));
    let random = || 20_000 + u16::try_from(uuid::Uuid::new_v4().as_u128() % 10_000).expect("below 10,000");
    std::iter::repeat_with(random).find(|port| !taken.contains(port)).expect("some port is free")
}

/// Ports on which something listens in the network namespace of a process.
fn listeners(process: u32) -> Vec<u16> {
    const LISTEN: &str = "0A";
    let tables = ["tcp", "tcp6"].map(|table| std::fs::read_to_string(format!("/proc/{process}/net/{table}")));
    let lines = tables.iter().flatten().flat_map(|table| table.lines().skip(1));
    let fields = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields
        .filter(|fields| fields.get(3) == Some(&LISTEN))
        .filter_map(|fields| u16::from_str_radix(fields.get(1)?.rsplit(':').next()?, 16).ok())
        .collect()
}

/// base64 of `user:password`.
pub fn basic(user: &str, password: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))
}

fn make_certificate(directory: &std::path::Path, address: &str) {
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=test"])
        .args(["-addext", &format!("subjectAltName=IP:{address}"), "-out", "certificate", "-keyout", "key"])
        .current_dir(directory)
        .output()
        .expect("openssl is installed");
    assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
}

fn htpasswd(user: &str, password: &str) -> String {
    let output = Command::new("htpasswd").args(["-Bbn", user, password]).output().expect("htpasswd is installed");
    assert!(output.status.success(), "htpasswd failed");
    format!("{}\n", String::from_utf8_lossy(&output.stdout).trim())
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Images that were pulled from this registry are not needed any more.
        let pulled = format!("reference={}/*/*", self.host);
        let listed = Command::new("docker").args(["images", "-q", "--filter", &pulled]).output();
        let ids = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        if !ids.trim().is_empty() {
            let _ = Command::new("docker").args(["image", "rm", "-f"]).args(ids.split_whitespace()).output();
        }
    }
}
