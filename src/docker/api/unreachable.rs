//! Why there is no connection to the daemon, with a remedy in each text.
//!
//! Owns the search for the cause and the texts. Callers decide whether to try again. Invariant: with this error nothing was sent
//! to the daemon. The search for the cause changes nothing and has a time limit.

use super::endpoint::Endpoint;
use crate::lane::Lane;
use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The time limit for finding out whether a port expects TLS.
const TLS_PROBE: Duration = Duration::from_secs(3);

/// The possible causes if root may not open a socket.
const ROOT: &str =
    ": the agent is root, so SELinux or AppArmor forbids it, or the capability CAP_DAC_OVERRIDE was taken from it";
/// The remedy if the agent runs in a container.
const CONFINED: &str = "run its container with --security-opt label=disable (SELinux) or --security-opt apparmor=unconfined \
                        (AppArmor)";

/// There is no connection to the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoConnection {
    /// The address at which the daemon should listen; empty if it is not known here.
    endpoint: String,
    cause: Cause,
    /// This process runs in a container; `false` also if that is not known.
    is_in_container: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Cause {
    /// This process may not open the socket. `user` is its user id, `owner` the socket's owner if it is known.
    Denied { user: u32, owner: Option<Owner> },
    /// There is no file of that name.
    NoSocket,
    /// There is a file of that name, and it is not a socket.
    NotASocket,
    /// Nothing listens at the socket or port.
    Refused,
    /// The host's name cannot be resolved, or the host is not reachable.
    NoHost(String),
    /// The port expects TLS.
    Tls,
    /// Any other cause, as the system reports it.
    Other(String),
}

/// The ownership and mode of a socket file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    user: u32,
    group: u32,
    mode: u32,
}

impl NoConnection {
    /// Derives the cause from a client's error, without inspecting the socket.
    pub(crate) fn from_error(error: &(dyn Error + 'static)) -> Self {
        let mut cause = Some(error);
        let mut deepest = error;
        while let Some(error) = cause {
            deepest = error;
            if let Some(error) = error.downcast_ref::<io::Error>()
                && let Some(cause) = cause_of(error)
            {
                return Self { endpoint: String::new(), cause, is_in_container: false };
            }
            cause = error.source();
        }
        Self { endpoint: String::new(), cause: Cause::Other(deepest.to_string()), is_in_container: false }
    }

    /// The port expects TLS, which this agent does not support.
    pub(crate) fn tls() -> Self {
        Self { endpoint: String::new(), cause: Cause::Tls, is_in_container: false }
    }

    /// Adds the endpoint, and inspects the socket on a thread of `files`: this gives a more precise cause than the system's
    /// error.
    pub(crate) async fn at(mut self, endpoint: &Endpoint, files: &Lane) -> Self {
        self.endpoint = endpoint.to_string();
        if let Endpoint::Unix(path) = endpoint {
            let (socket, shown) = (path.clone(), path.display().to_string());
            let found = files.run(&shown, move || (inspect_socket(&socket), is_in_container())).await;
            let (found, is_in_container) = found.unwrap_or_default();
            self.is_in_container = is_in_container;
            self.cause = match (self.cause, found) {
                (Cause::Denied { user, .. }, Some((_, owner))) => Cause::Denied { user, owner: Some(owner) },
                (Cause::Refused | Cause::Other(_), Some((false, _))) => Cause::NotASocket,
                (cause, _) => cause,
            };
        }
        self
    }
}

/// The cause behind an error; `None` for a wrapper around the real cause, and for an error that has no variant here.
fn cause_of(error: &io::Error) -> Option<Cause> {
    match error.kind() {
        ErrorKind::PermissionDenied => Some(Cause::Denied { user: rustix::process::geteuid().as_raw(), owner: None }),
        ErrorKind::NotFound | ErrorKind::NotADirectory => Some(Cause::NoSocket),
        ErrorKind::ConnectionRefused => Some(Cause::Refused),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::TimedOut => {
            Some(Cause::NoHost(error.to_string()))
        }
        _ if error.to_string().contains("failed to lookup address") => Some(Cause::NoHost(error.to_string())),
        _ => None,
    }
}

/// This process runs in a container: Docker and Podman leave a marker file in each.
fn is_in_container() -> bool {
    ["/.dockerenv", "/run/.containerenv"].iter().any(|mark| Path::new(mark).exists())
}

/// Whether the file is a socket, and its owner; `None` = it cannot be inspected.
fn inspect_socket(path: &Path) -> Option<(bool, Owner)> {
    let found = std::fs::metadata(path).ok()?;
    let owner = Owner { user: found.uid(), group: found.gid(), mode: found.mode() & 0o7777 };
    Some((found.file_type().is_socket(), owner))
}

/// Finds out whether a port expects TLS. To be called after it gave no readable answer to plain HTTP.
pub(crate) async fn expects_tls(endpoint: &Endpoint, config: &rustls::ClientConfig) -> bool {
    let Endpoint::Tcp(address) = endpoint else { return false };
    let Ok(name) = rustls::pki_types::ServerName::try_from("docker") else { return false };
    let Ok(mut hello) = rustls::ClientConnection::new(std::sync::Arc::new(config.clone()), name) else { return false };
    let mut bytes = Vec::new();
    if hello.write_tls(&mut bytes).is_err() {
        return false;
    }
    let probe = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(&bytes).await?;
        stream.read_u8().await
    };
    // The first byte of a TLS handshake record, or of an alert that refuses the handshake.
    matches!(timeout(TLS_PROBE, probe).await, Ok(Ok(0x16 | 0x15)))
}

impl fmt::Display for NoConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, cause, is_in_container } = self;
        let is_unix = endpoint.is_empty() || endpoint.starts_with("unix:");
        let at = if endpoint.is_empty() { String::new() } else { format!(" at {endpoint}") };
        let cannot = format!("Cannot connect to the Docker daemon{at}");
        match cause {
            Cause::Denied { user, owner } => {
                write!(f, "permission denied while trying to connect to the Docker daemon socket{at}")?;
                match (*user, *is_in_container) {
                    (0, false) => write!(f, "{ROOT}; look into the audit log of this host")?,
                    (0, true) => write!(f, "{ROOT}; {CONFINED}")?,
                    (user, _) => write!(
                        f,
                        ": run the agent as root, or add its user (uid {user}) to the group of the socket, usually docker"
                    )?,
                }
                match owner {
                    Some(Owner { user, group, mode }) => {
                        write!(f, " (now: owner uid {user}, group gid {group}, mode {mode:04o})")
                    }
                    None => Ok(()),
                }
            }
            Cause::NoSocket => {
                write!(f, "{cannot}. Is the docker daemon running? There is no such socket: start Docker, ")?;
                write!(f, "or name its socket in DOCKER_HOST")?;
                if *is_in_container {
                    write!(f, "; in a container, the agent needs --volume=/var/run:/var/run to see it")?;
                }
                Ok(())
            }
            Cause::NotASocket => write!(f, "{cannot}: this path is not a socket. Name Docker's socket in DOCKER_HOST"),
            Cause::Refused if is_unix => write!(
                f,
                "{cannot}. Is the docker daemon running? The socket is there, but nothing listens: start Docker"
            ),
            Cause::Refused => write!(
                f,
                "{cannot}. Is the docker daemon running? Connection refused: nothing listens on this port; start Docker, or \
                 correct DOCKER_HOST"
            ),
            Cause::NoHost(error) => write!(f, "{cannot}: {error}. Correct the host in DOCKER_HOST, or the network"),
            Cause::Tls => write!(
                f,
                "{cannot}: it wants TLS, which this agent does not speak with Docker. Let DOCKER_HOST name Docker's socket \
                 (unix:///var/run/docker.sock)"
            ),
            Cause::Other(error) => write!(f, "{cannot}. Is the docker daemon running? {error}"),
        }
    }
}

impl Error for NoConnection {}

#[cfg(test)]
mod tests {
    use super::super::error::DockerError;
    use super::super::version::VersionsInUse;
    use super::*;
    use crate::docker::api::connection::Wire;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::sync::Arc;

    /// The text that an operator reads when the agent starts with this address.
    async fn reason(address: &str) -> String {
        let endpoint = Endpoint::parse(address).unwrap();
        let wire = Wire::new(&endpoint, Arc::new(VersionsInUse::default()), Duration::from_secs(5)).unwrap();
        let error = wire.negotiate().await.unwrap_err();
        assert!(matches!(error, DockerError::Unreachable(_)), "{error:?}");
        error.to_string()
    }

    struct Directory(PathBuf);

    impl Directory {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("ecs-unreachable-{}", uuid::Uuid::new_v4().simple()));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn address(&self, name: &str) -> String {
            format!("unix://{}", self.0.join(name).display())
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[tokio::test]
    async fn each_cause_has_a_text_with_a_remedy() {
        let directory = Directory::new();
        std::fs::write(directory.0.join("file"), "").unwrap();
        drop(std::os::unix::net::UnixListener::bind(directory.0.join("dead")).unwrap());
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let table = [
            (directory.address("none"), "There is no such socket: start Docker, or name its socket in DOCKER_HOST"),
            (directory.address("file/none"), "There is no such socket"),
            (directory.address("file"), "this path is not a socket. Name Docker's socket in DOCKER_HOST"),
            (directory.address(""), "this path is not a socket"),
            (directory.address("dead"), "The socket is there, but nothing listens: start Docker"),
            (format!("tcp://{closed}"), "Connection refused: nothing listens on this port"),
            ("tcp://docker.invalid:2375".to_owned(), "Correct the host in DOCKER_HOST"),
        ];
        for (address, wanted) in table {
            let reason = reason(&address).await;
            let start = format!("Cannot connect to the Docker daemon at {}", address.trim_end_matches('/'));
            assert!(reason.starts_with(&start) && reason.contains(wanted), "{reason}");
        }
    }

    #[tokio::test]
    async fn permission_denied_is_not_reported_as_a_stopped_daemon() {
        let lane = Lane::new("test", crate::docker::api::connection::SOCKET_CHECK);
        let directory = Directory::new();
        let _listens = std::os::unix::net::UnixListener::bind(directory.0.join("s")).unwrap();
        std::fs::set_permissions(directory.0.join("s"), std::fs::Permissions::from_mode(0o660)).unwrap();
        let endpoint = Endpoint::Unix(directory.0.join("s"));
        let denied = |user| {
            let cause = Cause::Denied { user, owner: None };
            let error = NoConnection { endpoint: String::new(), cause, is_in_container: false };
            error.at(&endpoint, &lane)
        };
        let reason = denied(1000).await.to_string();
        let found = std::fs::metadata(directory.0.join("s")).unwrap();
        assert!(
            reason.starts_with("permission denied while trying to connect to the Docker daemon socket at unix:///")
        );
        assert!(reason.contains("run the agent as root, or add its user (uid 1000) to"), "{reason}");
        assert!(
            reason.ends_with(&format!("owner uid {}, group gid {}, mode 0660)", found.uid(), found.gid())),
            "{reason}"
        );
        assert!(!reason.contains("running?"), "{reason}");
        for (is_in_container, wanted) in
            [(false, "; look into the audit log of this host (now: "), (true, "--security-opt apparmor=unconfined (")]
        {
            let reason = NoConnection { is_in_container, ..denied(0).await }.to_string();
            assert!(reason.contains("the agent is root, so SELinux or AppArmor forbids it"), "{reason}");
            assert!(reason.contains(wanted) && !reason.contains("run the agent as root"), "{reason}");
        }
        let found = NoConnection::from_error(&io::Error::from(ErrorKind::PermissionDenied)).cause;
        assert_eq!(found, Cause::Denied { user: rustix::process::geteuid().as_raw(), owner: None });
    }

    #[test]
    fn a_missing_socket_in_a_container_names_the_volume() {
        for is_in_container in [false, true] {
            let error = NoConnection { endpoint: String::new(), cause: Cause::NoSocket, is_in_container };
            assert_eq!(error.to_string().contains("--volume=/var/run:/var/run"), is_in_container, "{error}");
        }
    }

    #[tokio::test]
    async fn a_port_that_expects_tls_is_reported() {
        // The answers to plain HTTP: that of Go's server, none, and a TLS alert.
        let go = "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
        for plain in [go.as_bytes(), b"", b"\x15\x03\x01\x00\x02\x02\x0a"] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = format!("tcp://{}", listener.local_addr().unwrap());
            let serve = async {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let mut first = [0; 512];
                    let _read = stream.read(&mut first).await.unwrap();
                    let is_handshake = first[0] == 0x16;
                    let answer: &[u8] = if is_handshake { b"\x16\x03\x03\x00\x00" } else { plain };
                    stream.write_all(answer).await.unwrap();
                }
            };
            let reason = tokio::select! { reason = reason(&address) => reason, () = serve => unreachable!() };
            assert!(reason.contains("it wants TLS, which this agent does not speak with Docker"), "{reason}");
        }
    }
}
