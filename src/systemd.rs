//! Slices of systemd: two calls of its D-Bus interface.
//!
//! Owns the calls, not the purpose of a slice. The encoding is in `message`. No crate is used: an asynchronous one (zbus) was
//! measured to add 27 crates and 0.9 MB, and a blocking one (rustbus) ten crates, half of them old versions of crates in use.
//! Invariants: each call has its own connection, so none has to be kept alive; every wait has a limit.

mod message;

use message::{Call, Reply};
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::UnixStream;
use tokio::time::timeout;

pub(super) use message::Property;

/// The socket of the message bus, as in D-Bus's specification. An agent in a container sees it, and [`PRIVATE`], with
/// `--volume=/var/run:/var/run`.
const BUS: &str = "/var/run/dbus/system_bus_socket";
/// systemd's own socket, for hosts without a bus.
const PRIVATE: &str = "/var/run/systemd/private";
/// The time limit for connecting, and for one call.
const LIMIT: Duration = Duration::from_secs(10);
/// The longest message that is read, in bytes; answers to these calls are shorter.
const MAX_MESSAGE_BYTES: u32 = 1024 * 1024;

/// Why a call to systemd failed.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// Neither socket could be connected to.
    #[error("no connection through {BUS} or {PRIVATE}")]
    Unreachable(#[source] io::Error),
    /// The connection broke.
    #[error("the connection broke")]
    Cut(#[from] io::Error),
    /// The received bytes are not D-Bus.
    #[error("an unreadable answer: {0}")]
    Unreadable(&'static str),
    /// systemd refused the call.
    #[error("{name}: {text}")]
    Refused {
        /// The D-Bus name of the error.
        name: String,
        /// The error's text.
        text: String,
    },
    /// There was no answer in time.
    #[error("no answer in time")]
    TimedOut,
}

/// Temporary errors of D-Bus and systemd, which do not mean that the call was refused.
const TEMPORARY: [&str; 10] = [
    "org.freedesktop.DBus.Error.NoReply",
    "org.freedesktop.DBus.Error.Timeout",
    "org.freedesktop.DBus.Error.TimedOut",
    "org.freedesktop.DBus.Error.Disconnected",
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.DBus.Error.LimitsExceeded",
    "org.freedesktop.DBus.Error.NoMemory",
    "org.freedesktop.systemd1.ShuttingDown",
    "org.freedesktop.systemd1.TransactionIsDestructive",
];

impl SystemdError {
    /// systemd refused the call, and would refuse it again.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { name, .. } if !TEMPORARY.contains(&name.as_str()))
    }

    /// There is no socket that this process may open: systemd is not running, or is not visible in this container.
    pub(super) fn is_out_of_reach(&self) -> bool {
        use io::ErrorKind::{NotFound, PermissionDenied};
        matches!(self, Self::Unreachable(error) if matches!(error.kind(), NotFound | PermissionDenied))
    }
}

/// A connection to systemd.
#[derive(Debug)]
pub(super) struct Systemd {
    stream: BufStream<UnixStream>,
    /// The serial number of the last call.
    serial: u32,
}

impl Systemd {
    /// Connects as the user of this process: to the bus at `bus`, or to the host's if that is `None`.
    pub(super) async fn connect(bus: Option<&Path>) -> Result<Self, SystemdError> {
        if let Some(bus) = bus {
            return Self::connect_to(bus, true).await;
        }
        match Self::connect_to(Path::new(BUS), true).await {
            Err(SystemdError::Unreachable(error)) if error.kind() == io::ErrorKind::NotFound => {
                Self::connect_to(Path::new(PRIVATE), false).await
            }
            connected => connected,
        }
    }

    async fn connect_to(path: &Path, is_bus: bool) -> Result<Self, SystemdError> {
        let connect = async {
            let stream = UnixStream::connect(path).await;
            let stream = BufStream::new(stream.map_err(SystemdError::Unreachable)?);
            let mut systemd = Self { stream, serial: 0 };
            systemd.authenticate().await?;
            if is_bus {
                let hello = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello");
                systemd.call(&Call::new(hello)).await?;
            }
            Ok(systemd)
        };
        timeout(LIMIT, connect).await.unwrap_or(Err(SystemdError::TimedOut))
    }

    /// Starts a slice with these properties. An existing slice of that name is left unchanged.
    pub(super) async fn start_slice(
        &mut self,
        name: &str,
        properties: &[(&str, Property)],
    ) -> Result<(), SystemdError> {
        let mut call = manager("StartTransientUnit");
        call.text(name).text("replace").properties(properties).no_auxiliary_units();
        match self.in_time(&call).await {
            Err(SystemdError::Refused { name, .. }) if name == "org.freedesktop.systemd1.UnitExists" => Ok(()),
            answer => answer,
        }
    }

    /// Stops a unit. A unit that does not exist is success.
    pub(super) async fn stop_unit(&mut self, name: &str) -> Result<(), SystemdError> {
        let mut call = manager("StopUnit");
        call.text(name).text("replace");
        match self.in_time(&call).await {
            Err(SystemdError::Refused { name, .. }) if name == "org.freedesktop.systemd1.NoSuchUnit" => Ok(()),
            answer => answer,
        }
    }

    /// Authenticates as the user that the kernel reports for the socket. The replies are lines.
    async fn authenticate(&mut self) -> Result<(), SystemdError> {
        self.stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\n").await?;
        self.stream.flush().await?;
        for expected in ["DATA", "OK "] {
            if !self.line().await?.starts_with(expected) {
                return Err(SystemdError::Unreadable("the authentication was refused"));
            }
        }
        self.stream.write_all(b"BEGIN\r\n").await?;
        Ok(self.stream.flush().await?)
    }

    async fn line(&mut self) -> Result<String, SystemdError> {
        const MAX_LINE_BYTES: usize = 512;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") && line.len() < MAX_LINE_BYTES {
            line.push(self.stream.read_u8().await?);
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    async fn in_time(&mut self, call: &Call) -> Result<(), SystemdError> {
        timeout(LIMIT, self.call(call)).await.unwrap_or(Err(SystemdError::TimedOut))
    }

    /// Sends a call and reads until its answer arrives. Signals may arrive before.
    async fn call(&mut self, call: &Call) -> Result<(), SystemdError> {
        self.serial += 1;
        self.stream.write_all(&call.encode(self.serial)).await?;
        self.stream.flush().await?;
        loop {
            let mut head = [0; message::HEAD];
            self.stream.read_exact(&mut head).await?;
            let rest = message::rest(&head).filter(|rest| *rest <= MAX_MESSAGE_BYTES);
            let rest = rest.ok_or(SystemdError::Unreadable("it is too long, or in another byte order"))?;
            let mut body = vec![0; rest as usize];
            self.stream.read_exact(&mut body).await?;
            let reply = message::decode(&head, &body).ok_or(SystemdError::Unreadable("its header is invalid"))?;
            match reply {
                Reply::Done(serial) if serial == self.serial => return Ok(()),
                Reply::Failed(serial, name, text) if serial == self.serial => {
                    return Err(SystemdError::Refused { name, text });
                }
                Reply::Done(_) | Reply::Failed(..) | Reply::Other => {}
            }
        }
    }
}

fn manager(method: &'static str) -> Call {
    let (path, interface) = ("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager");
    Call::new(("org.freedesktop.systemd1", path, interface, method))
}

#[cfg(test)]
pub(super) mod tests;
