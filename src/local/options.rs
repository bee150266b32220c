//! Options of a server: the AWS account that it imitates, and its initial state.

use ecs_core::model::Secret;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The room for layers in memory, in bytes, unless the options say otherwise.
const DEFAULT_REGISTRY_MEMORY: u64 = 2 * 1024 * 1024 * 1024;

/// A real Docker registry. The server imitates ECR in front of it.
#[derive(Clone, Debug)]
pub struct Registry {
    /// The registry's `host:port`, as in image names.
    pub address: String,
    /// The user name of the registry.
    pub user: String,
    /// The password of the registry.
    pub password: Secret,
    /// Whether the registry speaks https.
    pub tls: bool,
    /// The validity of a token, as ECR reports it.
    pub token_ttl: Duration,
}

impl Registry {
    /// A registry over plain http, as on loopback, with tokens for 12 hours, as in AWS.
    pub fn new(address: &str, user: &str, password: Secret) -> Self {
        let (address, user) = (address.to_owned(), user.to_owned());
        Self { address, user, password, tls: false, token_ttl: Duration::from_secs(12 * 3600) }
    }
}

/// Options of a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address to listen on; port 0 takes a free port.
    pub listen: SocketAddr,
    /// The AWS region that the server imitates.
    pub region: String,
    /// The AWS account id that the server imitates.
    pub account: String,
    /// The name of the cluster that exists from the start.
    pub cluster: String,
    /// The beginning of the ids of all tasks: hexadecimal digits, up to 16; `None`: they begin at random. Their containers can be
    /// recognised by it.
    pub session_id: Option<String>,
    /// The EC2 instance id in the metadata.
    pub instance_id: String,
    /// Further AWS account ids, each with a registry of its own on a loopback address of its own.
    pub accounts: Vec<String>,
    /// A real registry behind ECR; `None`: the embedded one.
    pub registry: Option<Registry>,
    /// The directory in which the embedded registry keeps repositories and layers; `None`: in memory.
    pub registry_dir: Option<PathBuf>,
    /// The room for layers in memory, in bytes. A directory is bounded by its file system only.
    pub registry_memory: u64,
    /// The time after which an upload of a layer that nobody continues is removed.
    pub upload_idle: Duration,
    /// The validity of a token of the embedded registry, as in AWS: 12 hours.
    pub token_ttl: Duration,
    /// The policy of the instance's role, a JSON document; `None`: the role may do everything.
    pub instance_policy: Option<String>,
    /// Secrets that Secrets Manager has from the start, by name.
    pub secrets: BTreeMap<String, Secret>,
    /// Parameters that SSM has from the start, by name.
    pub parameters: BTreeMap<String, Secret>,
    /// Objects that S3 has from the start: bucket and key with a slash between them, and their texts.
    pub objects: BTreeMap<String, Secret>,
    /// The time between two heartbeat messages.
    pub heartbeat: Duration,
    /// The time after which an unacknowledged payload is sent again.
    pub redeliver: Duration,
    /// The validity of role credentials, as the metadata and payloads report it.
    pub credentials_ttl: Duration,
    /// The profile in `~/.aws` whose keys task roles have; `None`: they have keys that only this server accepts.
    pub task_role_profile: Option<String>,
    /// User data of the instance; `None`: it has none.
    pub user_data: Option<String>,
    /// The secret access key of the session's user, of visible ASCII; `None`: a random one, see
    /// [`Server::token`](super::Server::token).
    pub token: Option<Secret>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            region: "us-west-2".to_owned(),
            account: "123456789012".to_owned(),
            cluster: "default".to_owned(),
            session_id: None,
            instance_id: "i-0123456789abcdef0".to_owned(),
            accounts: Vec::new(),
            registry: None,
            registry_dir: None,
            registry_memory: DEFAULT_REGISTRY_MEMORY,
            upload_idle: Duration::from_secs(3600),
            token_ttl: Duration::from_secs(12 * 3600),
            instance_policy: None,
            secrets: BTreeMap::new(),
            parameters: BTreeMap::new(),
            objects: BTreeMap::new(),
            heartbeat: Duration::from_secs(30),
            redeliver: Duration::from_secs(10),
            credentials_ttl: Duration::from_secs(6 * 3600),
            task_role_profile: None,
            user_data: None,
            token: None,
        }
    }
}
