//! Slices of systemd: two calls of its D-Bus interface.
//!
//! Owns the calls; what a slice is for is not known here. The wire is in `message`. No crate does it: measured, an
//! asynchronous one (zbus) adds 27 crates and 0.9 MB, a blocking one (rustbus) ten, half of them old versions of what is here. Invariant: one connection for each
//! call, so nothing is to be kept alive, and every wait has a limit.

mod message;

use message::{Call, Reply};
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::UnixStream;
use tokio::time::timeout;

pub(super) use message::Property;

/// The message bus, where D-Bus's specification has it; and systemd's own socket, on hosts without a bus. An agent in a container has
/// them with `--volume=/var/run:/var/run`.
const BUS: &str = "/var/run/dbus/system_bus_socket";
const PRIVATE: &str = "/var/run/systemd/private";
/// Limit of connecting, and of one call.
const LIMIT: Duration = Duration::from_secs(10);
/// Longer messages are no answers to our calls.
const MAX_MESSAGE_BYTES: u32 = 1024 * 1024;

/// Why systemd did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// Nothing answers at its sockets.
    #[error("no connection by way of {BUS} or {PRIVATE}")]
    Unreachable(#[source] io::Error),
    /// The connection broke.
    #[error("the connection broke")]
    Cut(#[from] io::Error),
    /// What came is not D-Bus.
    #[error("an unreadable answer: {0}")]
    Unreadable(&'static str),
    /// It refused.
    #[error("{name}: {text}")]
    Refused {
        /// D-Bus name of the error.
        name: String,
        /// Its text.
        text: String,
    },
    /// It did not answer in time.
    #[error("no answer in time")]
    TimedOut,
}

/// Errors of D-Bus and systemd that say nothing about what was asked: nobody answered, or not now.
const PASSING: [&str; 10] = [
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
    /// systemd has said no; it would say the same the next time.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { name, .. } if !PASSING.contains(&name.as_str()))
    }

    /// There is no socket that this process may open: no systemd, or one that a container does not see.
    pub(super) fn is_out_of_reach(&self) -> bool {
        use io::ErrorKind::{NotFound, PermissionDenied};
        matches!(self, Self::Unreachable(error) if matches!(error.kind(), NotFound | PermissionDenied))
    }
}

/// A connection to systemd.
#[derive(Debug)]
pub(super) struct Systemd {
    stream: BufStream<UnixStream>,
    serial: u32,
}

impl Systemd {
    /// Connects as the user of this process: to the bus at `bus`, or, without one, to the host's.
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
            let mut this = Self { stream, serial: 0 };
            this.authenticate().await?;
            if is_bus {
                let hello = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello");
                this.call(&Call::new(hello)).await?;
            }
            Ok(this)
        };
        timeout(LIMIT, connect).await.unwrap_or(Err(SystemdError::TimedOut))
    }

    /// Starts a slice with these properties; one of that name is left as it is.
    pub(super) async fn start_slice(
        &mut self,
        name: &str,
        properties: &[(&str, Property)],
    ) -> Result<(), SystemdError> {
        let mut call = manager("StartTransientUnit");
        call.text(name).text("replace").properties(properties).no_further_units();
        match self.in_time(&call).await {
            Err(SystemdError::Refused { name, .. }) if name == "org.freedesktop.systemd1.UnitExists" => Ok(()),
            answer => answer,
        }
    }

    /// Stops a unit; one that is not there is success.
    pub(super) async fn stop_unit(&mut self, name: &str) -> Result<(), SystemdError> {
        let mut call = manager("StopUnit");
        call.text(name).text("replace");
        match self.in_time(&call).await {
            Err(SystemdError::Refused { name, .. }) if name == "org.freedesktop.systemd1.NoSuchUnit" => Ok(()),
            answer => answer,
        }
    }

    /// As who the socket says we are. The replies are lines.
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

    /// Sends a call and reads until its answer comes: signals may come before.
    async fn call(&mut self, call: &Call) -> Result<(), SystemdError> {
        self.serial += 1;
        self.stream.write_all(&call.encode(self.serial)).await?;
        self.stream.flush().await?;
        loop {
            let mut head = [0; message::HEAD];
            self.stream.read_exact(&mut head).await?;
            let rest = message::rest(&head).filter(|rest| *rest <= MAX_MESSAGE_BYTES);
            let rest = rest.ok_or(SystemdError::Unreadable("it is too long, or of another byte order"))?;
            let mut body = vec![0; rest as usize];
            self.stream.read_exact(&mut body).await?;
            let reply = message::decode(&head, &body).ok_or(SystemdError::Unreadable("its header is no header"))?;
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
