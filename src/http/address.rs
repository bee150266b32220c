//! Where a server listens: on a TCP port of every address of the host or of loopback alone, or on a Linux abstract socket, which
//! has a name but no file.
//!
//! Owns binding and accepting. Like a port, an abstract socket belongs to a network namespace, and one process at a time has its
//! name. The name becomes free as soon as that process ends, and any user of the host may take it first. So a client must check
//! which process has the name.

use super::peer::Peer;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net as unix;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

/// Maximum number of connections that the kernel queues until they are accepted. They are accepted at once, so few wait.
const BACKLOG: u32 = 1024;

/// Where a server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// This TCP port, on every address of the host; [`Audience`](super::Audience) decides which peers are served.
    Port(u16),
    /// This TCP port, on 127.0.0.1 only: no other host, and no container in a network of its own, can connect.
    Loopback(u16),
    /// The abstract socket with this name. Every user of this network namespace can connect to it.
    Socket(&'static str),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "port {port}"),
            Self::Loopback(port) => write!(f, "port {port} of {}", Ipv4Addr::LOCALHOST),
            Self::Socket(name) => write!(f, "socket @{name}"),
        }
    }
}

impl Address {
    /// Who has this address if it is taken, in words to add to the error; empty if the error is another one.
    pub(super) async fn holder(self, error: &io::Error) -> String {
        match self {
            _ if error.kind() != io::ErrorKind::AddrInUse => String::new(),
            Self::Socket(name) => match listening_process(name).await {
                Some(id) => format!(": process {id} has it, another agent of this host"),
                None => ": another agent of this host has it".to_owned(),
            },
            Self::Port(_) | Self::Loopback(_) => ": another program or an outgoing connection has it".to_owned(),
        }
    }
}

/// The id of the process that listens on an abstract socket; `None`: it is not visible from here. If too many connections wait there,
/// the kernel refuses this one at once.
async fn listening_process(name: &str) -> Option<i32> {
    let stream = UnixStream::connect(format!("\0{name}")).await.ok()?;
    stream.peer_cred().ok()?.pid().filter(|id| *id > 0)
}

/// A bound [`Address`].
#[derive(Debug)]
pub enum Listener {
    /// A listening TCP port.
    Tcp(TcpListener),
    /// A listening abstract socket.
    Unix(UnixListener),
}

/// An accepted connection.
#[derive(Debug)]
pub(super) enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream, Peer),
}

impl Listener {
    /// The same listener, whose events the runtime of the caller receives. It may have been bound in another one.
    ///
    /// # Errors
    /// The runtime cannot register it.
    pub fn registered_here(self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(listener) => Self::Tcp(TcpListener::from_std(listener.into_std()?)?),
            Self::Unix(listener) => Self::Unix(UnixListener::from_std(listener.into_std()?)?),
        })
    }

    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, from)| Accepted::Tcp(stream, from)),
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let user = stream.peer_cred().ok().map(|process| process.uid());
                Ok(Accepted::Unix(stream, Peer::User(user)))
            }
        }
    }
}

/// Tries once to bind the address. Needs a tokio runtime.
///
/// # Errors
/// The address is taken, or the system does not allow it.
pub fn bind(address: Address) -> io::Result<Listener> {
    match address {
        Address::Port(port) => bind_port(port).map(Listener::Tcp),
        Address::Loopback(port) => bind_v4(Ipv4Addr::LOCALHOST, port).map(Listener::Tcp),
        Address::Socket(name) => bind_socket(name).map(Listener::Unix),
    }
}

/// Binds every address, IPv4 and IPv6; only IPv4 where the kernel has no IPv6.
fn bind_port(port: u16) -> io::Result<TcpListener> {
    match bind_both(port) {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => bind_v4(Ipv4Addr::UNSPECIFIED, port),
        bound => bound,
    }
}

fn bind_v4(address: Ipv4Addr, port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((address, port).into())?;
    socket.listen(BACKLOG)
}

fn bind_both(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v6()?;
    socket.set_reuseaddr(true)?;
    // Also serve IPv4, whatever the value of `net.ipv6.bindv6only`.
    rustix::net::sockopt::set_ipv6_v6only(&socket, false)?;
    socket.bind((Ipv6Addr::UNSPECIFIED, port).into())?;
    socket.listen(BACKLOG)
}

fn bind_socket(name: &str) -> io::Result<UnixListener> {
    let listener = unix::UnixListener::bind_addr(&unix::SocketAddr::from_abstract_name(name)?)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn loopback_is_a_single_address() {
        let Listener::Tcp(listener) = bind(Address::Loopback(0)).unwrap() else { panic!("a TCP port") };
        let port = listener.local_addr().unwrap().port();
        let connects = async |address: [u8; 4]| TcpStream::connect((Ipv4Addr::from(address), port)).await.is_ok();
        assert!(connects([127, 0, 0, 1]).await && !connects([127, 0, 0, 2]).await);
        let taken = bind(Address::Port(port)).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        assert!(Address::Port(port).holder(&taken).await.contains("another program"));
        assert!(Address::Socket("x").holder(&taken).await.contains("another agent"));
        assert_eq!(Address::Port(port).holder(&io::ErrorKind::PermissionDenied.into()).await, "");
        assert_eq!(Address::Loopback(7).to_string(), "port 7 of 127.0.0.1");
        let socket = Address::Socket(format!("ecs-agent/test-{}", uuid::Uuid::new_v4().simple()).leak());
        let _first = bind(socket).unwrap();
        let holder = socket.holder(&bind(socket).unwrap_err()).await;
        assert_eq!(holder, format!(": process {} has it, another agent of this host", std::process::id()));
    }
}
