//! Where the daemon listens (`DOCKER_HOST`).
//!
//! Owns the two forms of this address. Nothing is opened here. Invariant: a user or password in the address is never shown.

use ecs_core::model::address;
use std::fmt;
use std::path::PathBuf;

/// The address of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `unix:///var/run/docker.sock`
    Unix(PathBuf),
    /// `tcp://127.0.0.1:2375`; host and port.
    Tcp(String),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            // Leaves out a user and password, which the operator may have written.
            Self::Tcp(host) => write!(f, "tcp://{}", host.rsplit('@').next().unwrap_or_default()),
        }
    }
}

impl Endpoint {
    pub(crate) fn parse(text: &str) -> Result<Self, BadEndpoint> {
        if let Some(path) = text.strip_prefix("unix://").filter(|path| path.starts_with('/')) {
            return Ok(Self::Unix(path.into()));
        }
        let host = text.strip_prefix("tcp://").or_else(|| text.strip_prefix("http://"));
        match host.map(|host| host.trim_end_matches('/')) {
            Some(host) if !host.is_empty() && !host.contains('/') => Ok(Self::Tcp(host.to_owned())),
            _ => Err(BadEndpoint(address::redacted(text).into_owned())),
        }
    }
}

/// The operator's text is not a valid address. Holds the text in a form that may be shown.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the Docker endpoint \"{0}\" (DOCKER_HOST) is neither unix:///path nor tcp://host:port")]
pub(crate) struct BadEndpoint(String);

#[cfg(test)]
mod tests {
    use super::super::error::DockerError;
    use super::*;

    #[test]
    fn endpoints() {
        assert_eq!(Endpoint::parse("unix:///run/docker.sock").unwrap(), Endpoint::Unix("/run/docker.sock".into()));
        for tcp in ["tcp://127.0.0.1:2375", "http://127.0.0.1:2375/"] {
            assert_eq!(Endpoint::parse(tcp).unwrap(), Endpoint::Tcp("127.0.0.1:2375".into()));
        }
        for bad in ["", "unix://relative", "ssh://host", "tcp://", "tcp://host/path", "/run/docker.sock"] {
            assert!(matches!(Endpoint::parse(bad).map_err(DockerError::from), Err(DockerError::Unusable(_))), "{bad}");
        }
        let error = Endpoint::parse("ssh://me:hunter2@host").unwrap_err().to_string();
        assert!(error.contains("\"ssh://***@host\"") && !error.contains("hunter2"), "{error}");
    }
}
