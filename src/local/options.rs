//! How a server is started: whom it plays, and what it has from the start.

use crate::model::Secret;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// A real Docker registry, for which the server plays ECR.
#[derive(Clone, Debug)]
pub struct Registry {
    /// `host:port` as it stands in image names.
    pub address: String,
    /// User name.
    pub user: String,
    /// Password.
    pub password: Secret,
    /// It speaks https.
    pub tls: bool,
    /// How long a token is said to be valid.
    pub token_ttl: Duration,
}

impl Registry {
    /// A registry with plain http, as on loopback, and tokens for 12 hours, as in AWS.
    pub fn new(address: &str, user: &str, password: Secret) -> Self {
        let (address, user) = (address.to_owned(), user.to_owned());
        Self { address, user, password, tls: false, token_ttl: Duration::from_secs(12 * 3600) }
    }
}

/// How to start a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// AWS region to play.
    pub region: String,
    /// AWS account id to play.
    pub account: String,
    /// Name of the cluster that is there from the start.
    pub cluster: String,
    /// EC2 instance id in the metadata.
    pub instance_id: String,
    /// The registry behind ECR.
    pub registry: Option<Registry>,
    /// Secrets that Secrets Manager has from the start, by name.
    pub secrets: BTreeMap<String, Secret>,
    /// Parameters that SSM has from the start, by name.
    pub parameters: BTreeMap<String, Secret>,
    /// Objects that S3 has from the start: bucket and key with a slash between them, and their texts.
    pub objects: BTreeMap<String, Secret>,
    /// Between two heartbeat messages.
    pub heartbeat: Duration,
    /// An unacknowledged payload is sent again after this long.
    pub redeliver: Duration,
    /// How long role credentials are said to be valid.
    pub credentials_ttl: Duration,
    /// User data of the instance; `None`: it was started without.
    pub user_data: Option<String>,
    /// The secret access key of the session's user, of visible ASCII; `None`: a random one, see [`Server::token`](super::Server::token).
    pub token: Option<Secret>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            region: "us-west-2".to_owned(),
            account: "123456789012".to_owned(),
            cluster: "default".to_owned(),
            instance_id: "i-0123456789abcdef0".to_owned(),
            registry: None,
            secrets: BTreeMap::new(),
            parameters: BTreeMap::new(),
            objects: BTreeMap::new(),
            heartbeat: Duration::from_secs(30),
            redeliver: Duration::from_secs(10),
            credentials_ttl: Duration::from_secs(6 * 3600),
            user_data: None,
            token: None,
        }
    }
}
