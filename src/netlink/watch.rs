//! The changes of links in a namespace, as the kernel reports them.

use crate::error::Result;
use crate::link::{Link, RTM_DELLINK, read};
use crate::message::messages;
use crate::socket::Socket;
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// The group of changes of links (`RTNLGRP_LINK`), as a bit.
const LINKS: u32 = 1;

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// The link came, or changed; this is how it is now.
    Present(Link),
    /// The link with this number was removed, or went to another namespace.
    Removed(u32),
}

/// Receives the changes of links. Its descriptor is readable when there are some.
#[derive(Debug)]
pub struct LinkEvents(Socket);

impl LinkEvents {
    /// Receives the changes in the namespace of this thread, from now on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> Result<Self> {
        Socket::open_for_group(LINKS).map(Self)
    }

    /// All changes that have come in. Does not wait.
    ///
    /// # Errors
    /// `ENOBUFS`: changes were lost; the list of links must be read again.
    pub fn read(&self) -> Result<Vec<LinkEvent>> {
        let (mut found, mut buffer, mut has_lost) = (Vec::new(), Socket::buffer(), false);
        loop {
            let length = match self.0.receive(&mut buffer) {
                Ok(Some(length)) => length,
                Ok(None) if has_lost => return Err(Errno::NOBUFS.into()),
                Ok(None) => return Ok(found),
                // The kernel reports nothing more until the socket is empty.
                Err(error) if error.is(Errno::NOBUFS) => {
                    has_lost = true;
                    continue;
                }
                Err(error) => return Err(error),
            };
            found.extend(messages(&buffer[..length]).filter_map(|message| {
                let link = read(&message)?;
                Some(if message.kind == RTM_DELLINK {
                    LinkEvent::Removed(link.index)
                } else {
                    LinkEvent::Present(link)
                })
            }));
        }
    }
}

impl AsFd for LinkEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for LinkEvents {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
