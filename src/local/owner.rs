//! Finds the user whose process is at the other end of a connection on this machine: the kernel lists the user of every socket.
//! This module owns the reading of `/proc/net/tcp` and `/proc/net/tcp6`. Invariant: a peer that is not listed there (another
//! machine, a container with a network of its own) has no known user and is not served.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

/// Maximum number of bytes that are read of a list: some 100,000 connections.
const MAX_LIST: u64 = 16 * 1024 * 1024;
/// The time limit for reading a list.
const LIMIT: Duration = Duration::from_secs(5);
/// The kernel's number for an open connection. Other states do not count: the kernel lists a connection that its process has
/// closed as root's.
const ESTABLISHED: &str = "01";

/// The two addresses of a connection, seen from this server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
}

impl Connection {
    /// The peer is a process on this machine, of this server's user or of root.
    pub(super) async fn is_from_the_user(self) -> bool {
        // The owner of `/proc/self` would be wrong: it is root for a process that may not be traced.
        let own = rustix::process::geteuid().as_raw();
        self.peer_user(list).await.is_some_and(|user| user == 0 || user == own)
    }

    /// The user id of the socket at the peer's end. The kernel writes its list in pieces, and an entry may be skipped when an
    /// earlier one is removed meanwhile. So the list is read again if the socket is missing.
    async fn peer_user<F: Future<Output = String>>(self, list: impl Fn(&'static str) -> F) -> Option<u32> {
        for path in ["/proc/self/net/tcp", "/proc/self/net/tcp6"].repeat(2) {
            if let Some(user) = self.user(&list(path).await) {
                return Some(user);
            }
        }
        None
    }

    /// The user id of the socket at the peer's end; `None` if it is not in the list.
    fn user(self, list: &str) -> Option<u32> {
        let (peer, local) = (canonical(self.peer), canonical(self.local));
        list.lines().find_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (from, to, state) = (address(fields.next()?)?, address(fields.next()?)?, fields.next()?);
            // The queues, the timer and the retries are between the state and the user.
            let user = fields.nth(3)?;
            ((from, to, state) == (peer, local, ESTABLISHED)).then(|| user.parse().ok())?
        })
    }
}

async fn list(path: &'static str) -> String {
    let mut text = String::new();
    let read = async {
        let file = tokio::fs::File::open(path).await?;
        file.take(MAX_LIST).read_to_string(&mut text).await
    };
    // If the list cannot be read, no user is known.
    let _read = timeout(LIMIT, read).await;
    text
}

/// The address with an IPv4-mapped IPv6 address as IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Parses `0100007F:BDE7`: each 32 bits of the address as a number in this machine's byte order, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |index: usize| Some(u32::from_str_radix(ip.get(index * 8..index * 8 + 8)?, 16).ok()?.to_ne_bytes());
    let ip = match ip.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (index, part) in bytes.chunks_mut(4).enumerate() {
                part.copy_from_slice(&word(index)?);
            }
            IpAddr::from(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(canonical(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:38E6 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:38E6 0100007F:DA8C 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 20 4 30 10 -1
   2: 0100007F:DA8C 0100007F:38E6 01 00000000:00000000 00:00000000 00000000 65534        0 3 1 0 20 4 30 10 -1
   3: 0100007F:DA8D 0100007F:38E6 06 00000000:00000000 03:00000BD4 00000000     0        0 0 3 0
";
    const LIST6: &str = "\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid
   0: 0000000000000000FFFF00000100007F:DA8E 0000000000000000FFFF00000100007F:38E6 01 00000000:00000000 00:00000000 00000000  1000 0 1
   1: 00000000000000000000000001000000:DA8F 00000000000000000000000001000000:38E6 01 00000000:00000000 00:00000000 00000000  1001 0 1
";

    fn user(peer: &str, local: &str, list: &str) -> Option<u32> {
        Connection { peer: peer.parse().unwrap(), local: local.parse().unwrap() }.user(list)
    }

    #[test]
    fn the_socket_at_the_other_end_has_a_user() {
        assert_eq!(user("127.0.0.1:55948", "127.0.0.1:14566", LIST), Some(65534));
        assert_eq!(user("127.0.0.1:55950", "127.0.0.1:14566", LIST6), Some(1000), "IPv4 through an IPv6 socket");
        assert_eq!(user("[::ffff:127.0.0.1]:55950", "[::ffff:127.0.0.1]:14566", LIST6), Some(1000));
        assert_eq!(user("[::1]:55951", "[::1]:14566", LIST6), Some(1001));
    }

    #[test]
    fn without_a_connection_there_is_no_user() {
        assert_eq!(user("127.0.0.1:55949", "127.0.0.1:14566", LIST), None, "closed already: root's by name only");
        assert_eq!(user("127.0.0.1:55948", "127.0.0.1:14567", LIST), None, "connected elsewhere");
        assert_eq!(user("10.0.0.7:55948", "127.0.0.1:14566", LIST), None, "another machine");
        assert_eq!(user("127.0.0.1:55948", "127.0.0.1:14566", "  2: 0100007F:DA8C 0100"), None, "cut off");
    }

    #[tokio::test]
    async fn a_socket_missing_once_is_looked_for_again() {
        let connection =
            Connection { peer: "127.0.0.1:55948".parse().unwrap(), local: "127.0.0.1:14566".parse().unwrap() };
        for (missing, wanted) in [(0, Some(65534)), (1, Some(65534)), (2, None)] {
            let read = std::cell::Cell::new(0);
            let list = |path: &'static str| {
                read.set(read.get() + usize::from(path.ends_with("/tcp")));
                let is_there = path.ends_with("/tcp") && read.get() > missing;
                std::future::ready(if is_there { LIST.to_owned() } else { String::new() })
            };
            assert_eq!(connection.peer_user(list).await, wanted, "missing {missing} times");
            assert!(read.get() <= 2);
        }
    }

    #[tokio::test]
    async fn a_connection_of_this_process_is_the_users() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = tokio::net::TcpListener::bind(address).await else { continue };
            let local = listener.local_addr().unwrap();
            let client = tokio::net::TcpStream::connect(local).await.unwrap();
            let connection = Connection { peer: client.local_addr().unwrap(), local };
            assert!(connection.is_from_the_user().await, "{address}");
            drop((client, listener));
            assert!(!connection.is_from_the_user().await, "{address}: gone");
        }
    }
}
