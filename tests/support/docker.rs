//! A real Docker daemon for tests: checks that there is one, makes images from busybox, and cleans up.
//!
//! Nothing is pulled from outside. Everything a test creates carries its own cluster label or tag and is removed when the guard
//! is dropped, also when the test fails.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The daemon's address.
pub const ENDPOINT: &str = "unix:///var/run/docker.sock";

/// Whether there is a Docker daemon. If not, prints that `test` is skipped, or panics if `ECS_TEST_REQUIRE_DOCKER=1`.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
pub fn available(test: &str) -> bool {
    let there = Command::new("docker")
        .args(["version", "--format", "{{.Server.Version}}"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !there {
        let required = std::env::var("ECS_TEST_REQUIRE_DOCKER").is_ok_and(|value| value == "1");
        assert!(!required, "{test} needs Docker and there is none");
        eprintln!("SKIPPED {test}: there is no Docker daemon here");
    }
    there
}

/// A unique name.
pub fn unique(prefix: &str) -> String {
    let id = uuid::Uuid::new_v4().simple().to_string();
    format!("{prefix}-{}", &id[..12])
}

/// Waits until no other test runs an agent in this network namespace: each needs the introspection port for itself. The lock is
/// held until the file is dropped.
pub fn one_agent() -> std::fs::File {
    let namespace = std::fs::metadata("/proc/self/ns/net").map_or(0, |namespace| namespace.ino());
    let path = std::env::temp_dir().join(format!("ecs-agent-test-{namespace}.lock"));
    let file = std::fs::File::options().create(true).truncate(false).write(true).open(path).expect("a lock file");
    file.lock().expect("the lock");
    file
}

/// Runs the docker command line and returns its output; panics if it fails.
pub fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().expect("docker runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The major version of the engine.
pub fn engine_major() -> u32 {
    let version = docker(&["version", "--format", "{{.Server.Version}}"]);
    version.split('.').next().and_then(|major| major.parse().ok()).expect("Docker tells its version")
}

/// Whether the engine keeps its images in containerd's store, the default of new installations from Docker 29 on.
pub fn has_containerd_store() -> bool {
    docker(&["info", "--format", "{{.DriverStatus}}"]).contains("io.containerd.snapshotter")
}

/// Whether root in a container is another user on the host (`userns-remap`). If so, says that this part of a test is skipped.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
pub fn remaps_users(what: &str) -> bool {
    let remaps = docker(&["info", "--format", "{{.SecurityOptions}}"]).contains("name=userns");
    if remaps {
        eprintln!("SKIPPED {what}: Docker refuses it with userns-remap");
    }
    remaps
}

/// The raw inspect answer of a container.
pub fn inspect(container: &str) -> serde_json::Value {
    let mut list: serde_json::Value = serde_json::from_str(&docker(&["inspect", container])).expect("inspect is JSON");
    list[0].take()
}

/// A temporary directory, removed when dropped.
#[derive(Debug)]
pub struct TempDir(pub PathBuf);

impl TempDir {
    pub fn new(prefix: &str) -> Self {
        let path = std::env::temp_dir().join(unique(prefix));
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A busybox image under one reference, which is removed when this is dropped.
#[derive(Debug)]
pub struct Image {
    pub reference: String,
}

impl Image {
    /// Makes an image of the static busybox with the usual applets. `changes` are Dockerfile lines (`ENV A=1`, `LABEL a=b`).
    pub fn make(reference: &str, changes: &[&str]) -> Self {
        Self::make_larger(reference, changes, 0)
    }

    /// The same, with a file of this many random bytes, which cannot be compressed.
    pub fn make_larger(reference: &str, changes: &[&str], bytes: u64) -> Self {
        const APPLETS: [&str; 16] = [
            "sh", "sleep", "httpd", "true", "false", "nc", "wget", "echo", "cat", "env", "kill", "mkdir", "ls", "test",
            "date", "hostname",
        ];
        let tree = TempDir::new("ecs-test-image");
        let bin = tree.path().join("bin");
        for directory in ["bin", "tmp", "www", "etc"] {
            std::fs::create_dir(tree.path().join(directory)).expect("a directory of the image");
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        std::fs::copy(busybox.expect("busybox-static is installed"), bin.join("busybox")).expect("busybox is copied");
        for applet in APPLETS {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).expect("a link in the image");
        }
        std::fs::write(tree.path().join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").expect("a user in the image");
        std::fs::write(tree.path().join("www/index.html"), "hello\n").expect("a page in the image");
        let random = std::fs::File::open("/dev/urandom").expect("random bytes");
        let mut noise = std::fs::File::create(tree.path().join("etc/noise")).expect("a file in the image");
        std::io::copy(&mut std::io::Read::take(random, bytes), &mut noise).expect("random bytes are copied");
        // No two images share a layer. Otherwise an image might exist already because another test has pulled it.
        std::fs::write(tree.path().join("etc/mark"), unique("mark")).expect("a mark in the image");
        let mut tar = Command::new("tar")
            .args(["-C", &tree.path().to_string_lossy(), "-c", "."])
            .stdout(Stdio::piped())
            .spawn()
            .expect("tar runs");
        let mut import = Command::new("docker");
        import.arg("import");
        for change in ["ENV PATH=/bin"].iter().chain(changes) {
            import.args(["--change", change]);
        }
        let archive = tar.stdout.take().expect("tar's output is piped");
        let output = import.args(["-", reference]).stdin(archive).output().expect("docker import runs");
        assert!(output.status.success(), "docker import: {}", String::from_utf8_lossy(&output.stderr));
        assert!(tar.wait().expect("tar ends").success(), "tar failed");
        Self { reference: reference.to_owned() }
    }

    /// Adds a layer with one small file.
    pub fn add_layer(&self) {
        let tree = TempDir::new("ecs-test-layer");
        let (file, name) = (tree.path().join("mark"), unique("layer"));
        std::fs::write(&file, &name).expect("a file for the layer");
        let container = docker(&["create", &self.reference, "true"]);
        docker(&["cp", &file.to_string_lossy(), &format!("{container}:/etc/{name}")]);
        docker(&["commit", &container, &self.reference]);
        docker(&["rm", &container]);
    }

    /// Removes the image locally, so that it must be pulled.
    pub fn remove_locally(reference: &str) {
        let _ = Command::new("docker").args(["image", "rm", "-f", reference]).output();
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        Self::remove_locally(&self.reference);
    }
}

/// Removes all containers labelled with a cluster, and the volumes of their tasks, when dropped. Declare it after the images that
/// the containers use, so that it is dropped before them: an image in use would only lose its name.
#[derive(Debug)]
pub struct Cluster {
    pub name: String,
}

impl Cluster {
    pub fn new() -> Self {
        Self { name: unique("ecs-test") }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let filter = format!("label=com.amazonaws.ecs.cluster={}", self.name);
        let listed = Command::new("docker").args(["ps", "-aq", "--filter", &filter]).output();
        let ids = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        if ids.trim().is_empty() {
            return;
        }
        let shown = Command::new("docker").arg("inspect").args(ids.split_whitespace()).output();
        let shown = shown.ok().and_then(|output| serde_json::from_slice(&output.stdout).ok());
        let _ = Command::new("docker").args(["rm", "-fv"]).args(ids.split_whitespace()).output();
        remove_volumes_of_tasks(&shown.unwrap_or_default());
    }
}

/// `containers` is the output of `docker inspect` before the containers were removed.
fn remove_volumes_of_tasks(containers: &serde_json::Value) {
    for container in containers.as_array().into_iter().flatten() {
        let mounts = container["Mounts"].as_array().into_iter().flatten();
        for name in mounts.filter_map(|mount| mount["Name"].as_str()).filter(|name| name.starts_with("ecs-")) {
            let _ = Command::new("docker").args(["volume", "rm", name]).output();
        }
    }
}

/// The directories of a control group made by the cgroupfs driver, one in each hierarchy.
pub fn control_groups(parent: &str) -> Vec<PathBuf> {
    let Some(parent) = parent.strip_prefix("/ecs/").filter(|id| !id.is_empty()) else { return Vec::new() };
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    hierarchies.map(|hierarchy| hierarchy.join("ecs").join(parent)).filter(|group| group.exists()).collect()
}
