//! Network namespaces.
//!
//! Owns a descriptor that keeps a namespace alive: while it is open, the kernel gives no device of the namespace back to the host.
//! Invariant: only threads that end at once enter a namespace.

use crate::error::{Error, Result};
use crate::socket::{Protocol, Socket};
use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The stack of a thread, in bytes.
const STACK: usize = 256 * 1024;

/// Identifies a namespace as long as it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceId(u64, u64);

/// A network namespace, kept alive.
#[derive(Debug)]
pub struct Namespace(OwnedFd);

impl Namespace {
    /// The namespace of this thread.
    ///
    /// # Errors
    /// `/proc` is not mounted, or as for [`Self::open`].
    pub fn current() -> Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The namespace that this file of `/proc` leads to, such as `/proc/7/ns/net`.
    ///
    /// # Errors
    /// `ENOENT`: there is no such process. `EINVAL`: the file leads to something else. `EACCES`: this process may not trace that one.
    pub fn open(path: &Path) -> Result<Self> {
        let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty())?;
        Ok(Self(file))
    }

    /// Identifies the namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub fn id(&self) -> Result<NamespaceId> {
        let status = fstat(&self.0)?;
        Ok(NamespaceId(status.st_dev, status.st_ino))
    }

    /// Opens a socket in this namespace.
    ///
    /// # Errors
    /// `EPERM`: this needs `CAP_SYS_ADMIN`. `EPROTONOSUPPORT`: the kernel does not have the protocol. `EAGAIN`: no thread could be
    /// started.
    pub fn socket(&self, protocol: Protocol) -> Result<Socket> {
        self.on_a_thread(move || Socket::open(protocol))
    }

    /// Runs `work` on a thread inside this namespace, and waits for its end.
    ///
    /// # Errors
    /// As for [`Self::socket`], or those of `work`.
    pub fn on_a_thread<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let namespace = self.0.as_fd();
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("namespace".to_owned()).stack_size(STACK);
            let thread = thread.spawn_scoped(scope, move || {
                move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
                work()
            });
            let thread =
                thread.map_err(|error| Error::Refused(Errno::from_io_error(&error).unwrap_or(Errno::AGAIN)))?;
            thread.join().unwrap_or(Err(Error::NoAnswer))
        })
    }
}

impl From<OwnedFd> for Namespace {
    /// The namespace of an open file of `/proc`, such as `/proc/7/ns/net`.
    fn from(file: OwnedFd) -> Self {
        Self(file)
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
