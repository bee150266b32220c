//! A volume plugin of Docker under the name of the one that ecs-init brings. It mounts nothing: a volume is a directory. As
//! `mount.efs` does, it asks for the credentials at the path in the mount options, and refuses the mount if it gets none.
//!
//! Docker looks for plugins in fixed directories, so it needs a mount namespace of its own, and root.

use super::docker::TempDir;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const PLUGINS: &str = "/run/docker/plugins";
/// How long the plugin waits for the credentials, as `mount.efs`.
const LIMIT: Duration = Duration::from_secs(5);

/// The answer to one request for credentials.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub path: String,
    /// The status line and the headers.
    pub head: String,
    pub body: Value,
}

#[derive(Debug, Default)]
struct Volume {
    options: Value,
    mounts: Vec<String>,
}

#[derive(Debug, Default)]
struct State {
    volumes: BTreeMap<String, Volume>,
    calls: Vec<(String, Value)>,
    fetched: Vec<Fetched>,
    /// Credentials count as refused.
    refuses: bool,
}

/// The plugin. It ends with the test's process.
#[derive(Debug)]
pub struct VolumePlugin {
    state: Arc<Mutex<State>>,
    directory: TempDir,
}

impl VolumePlugin {
    /// Serves the plugin. A daemon that starts afterwards finds it.
    pub fn start() -> Self {
        std::fs::create_dir_all(PLUGINS).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "tmpfs", PLUGINS]).status().unwrap();
        assert!(mounted.success(), "{PLUGINS} is made for this test alone");
        let listener = UnixListener::bind(format!("{PLUGINS}/amazon-ecs-volume-plugin.sock")).unwrap();
        let plugin = Self { state: Arc::default(), directory: TempDir::new("ecs-test-volume-plugin") };
        let (state, root) = (Arc::clone(&plugin.state), plugin.directory.path().to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, root) = (Arc::clone(&state), root.clone());
                std::thread::spawn(move || serve(&stream, &state, &root));
            }
        });
        plugin
    }

    /// The calls so far that change a volume, in order: name and body.
    pub fn calls(&self, name: &str) -> Vec<Value> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.calls.iter().filter(|(call, _)| call == name).map(|(_, body)| body.clone()).collect()
    }

    /// From now on the plugin refuses mounts as if it got no credentials, or does so no longer.
    pub fn refuse(&self, refuses: bool) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).refuses = refuses;
    }

    /// The requests for credentials so far.
    pub fn fetched(&self) -> Vec<Fetched> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).fetched.clone()
    }
}

/// Answers the requests on one connection.
fn serve(stream: &UnixStream, state: &Mutex<State>, root: &std::path::Path) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let call = head.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
        let answer = answer(&call, &serde_json::from_slice(&body).unwrap_or_default(), state, root).to_string();
        let kind = "application/vnd.docker.plugins.v1.1+json";
        let length = answer.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{answer}");
        if (&*stream).write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn answer(call: &str, body: &Value, state: &Mutex<State>, root: &std::path::Path) -> Value {
    let text = |member: &str| body[member].as_str().unwrap_or_default().to_owned();
    let (name, path) = (text("Name"), root.join(text("Name")));
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    if ["Create", "Mount", "Unmount", "Remove"].iter().any(|change| call == format!("VolumeDriver.{change}")) {
        state.calls.push((call.trim_start_matches("VolumeDriver.").to_owned(), body.clone()));
    }
    match call {
        "Plugin.Activate" => json!({"Implements": ["VolumeDriver"]}),
        "VolumeDriver.Create" if state.volumes.contains_key(&name) => {
            json!({"Err": format!("volume {name} already exists")})
        }
        "VolumeDriver.Create" => {
            state.volumes.insert(name, Volume { options: body["Opts"].clone(), mounts: Vec::new() });
            json!({})
        }
        "VolumeDriver.Capabilities" => json!({"Capabilities": {"Scope": ""}}),
        "VolumeDriver.List" => {
            let all = state.volumes.keys().map(|name| json!({"Name": name, "Mountpoint": root.join(name)}));
            json!({"Volumes": all.collect::<Vec<_>>()})
        }
        _ if !state.volumes.contains_key(&name) => json!({"Err": format!("volume {name} not found")}),
        "VolumeDriver.Mount" => mount(&mut state, &name, text("ID"), path),
        "VolumeDriver.Unmount" => {
            state.volumes.entry(name).or_default().mounts.retain(|id| *id != text("ID"));
            json!({})
        }
        "VolumeDriver.Remove" => {
            state.volumes.remove(&name);
            json!({})
        }
        "VolumeDriver.Get" => json!({"Volume": {"Name": name, "Mountpoint": path}}),
        _ => json!({"Mountpoint": path}),
    }
}

fn mount(state: &mut State, name: &str, id: String, path: PathBuf) -> Value {
    let volume = state.volumes.entry(name.to_owned()).or_default();
    let options = volume.options["o"].as_str().unwrap_or_default().to_owned();
    let uri = options.split(',').find_map(|option| option.strip_prefix("awscredsuri="));
    if let Some(uri) = uri.filter(|_| volume.mounts.is_empty()) {
        let fetched = fetch(uri);
        let is_there = fetched.as_ref().is_ok_and(|fetched| fetched.head.split(' ').nth(1) == Some("200"));
        state.fetched.extend(fetched);
        if !is_there || state.refuses {
            // The words of mount.efs, which the plugin passes on.
            let why = format!("Unsuccessful retrieval of AWS security credentials at http://169.254.170.2{uri}.");
            return json!({"Err": format!("failed to mount volume {name}: {why}")});
        }
    }
    state.volumes.entry(name.to_owned()).or_default().mounts.push(id);
    std::fs::create_dir_all(&path).unwrap();
    json!({"Mountpoint": path})
}

fn fetch(uri: &str) -> std::io::Result<Fetched> {
    let mut stream = TcpStream::connect("169.254.170.2:80")?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(format!("GET {uri} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let body = serde_json::from_str(body).unwrap_or_default();
    Ok(Fetched { path: uri.to_owned(), head: head.to_owned(), body })
}
