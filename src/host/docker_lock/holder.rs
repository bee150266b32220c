//! The description that an agent writes into its lock file, so that a second agent can name it.

use ecs_core::model::{OwnerId, text};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek};

/// Upper limit of a holder's description, in bytes: longer than its texts and the identities in `ecs-agent.owner` can become.
const MAX_HOLDER: u64 = 256 * 1024;

/// Description of the agent that holds a lock, written by that agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Holder {
    /// Process id of the agent, in its own PID namespace; 0 if unknown.
    pub pid: u32,
    /// How the agent runs: as a service, or in which container; empty: neither.
    pub form: String,
    /// The agent's `ECS_DATADIR`.
    pub data_dir: String,
    /// The cluster that the agent works for.
    pub cluster: String,
    /// Identities that mark the agent's own containers; empty until it has read its data.
    pub identities: BTreeSet<OwnerId>,
}

impl Holder {
    /// The same description with short texts, free of control characters.
    pub(super) fn cleaned(self) -> Self {
        let Self { pid, form, data_dir, cluster, identities } = self;
        let [form, data_dir, cluster] = [form, data_dir, cluster].map(|field| text::cleaned(&field));
        Self { pid, form, data_dir, cluster, identities }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pid == 0 {
            return f.write_str("an agent that did not describe itself");
        }
        let Self { pid, form, data_dir, cluster, identities: _ } = self;
        let form = if form.is_empty() { String::new() } else { format!("{form}, ") };
        write!(f, "process {pid}, {form}ECS_DATADIR {data_dir}, cluster {cluster}")
    }
}

/// The holder's description in this file; an empty one if the file holds anything else.
pub(super) fn holder_of(file: &File) -> Holder {
    let mut bytes = Vec::new();
    let mut reader = file;
    let read = reader.rewind().and_then(|()| reader.take(MAX_HOLDER).read_to_end(&mut bytes));
    // It must be an object: serde would read an array as a struct, too.
    let object: Option<serde_json::Map<_, _>> = read.ok().and_then(|_| serde_json::from_slice(&bytes).ok());
    let holder: Option<Holder> = object.and_then(|object| serde_json::from_value(object.into()).ok());
    holder.unwrap_or_default().cleaned()
}

/// Describes how this agent runs; empty if it is neither a service nor in a container. `mounts` is its `/proc/self/mountinfo`: Docker mounts files into a container from a directory
/// that is named after the container. A mount *on* such a directory proves nothing: on a host, the containers' shared memory is
/// mounted there.
pub fn form(is_service: bool, mounts: &str) -> String {
    let is_id = |word: &&str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let container = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let (source, mounted_on) = (fields.next()?, fields.next()?);
        let is_container_file = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"].contains(&mounted_on);
        source.split_once("/containers/").filter(|_| is_container_file)?.1.split('/').next().filter(is_id)
    });
    match container {
        Some(id) => format!("in container {}", &id[..12]),
        None if is_service => "the system service (-service)".to_owned(),
        // What it is not helps nobody to find it.
        None => String::new(),
    }
}
