//! A netlink socket: questions and answers.
//!
//! Invariants: nothing here waits for an answer, because the kernel gives it while it receives the question; an answer to an
//! earlier question is never taken for one to a later question.

use crate::error::{Error, Result};
use crate::message::{
    Message, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, Received, messages,
};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink, recv, sendto, socket_with,
};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The size of the buffer for answers, in bytes. The kernel fills at most this much of a list at once.
const BUFFER: usize = 32 * 1024;
/// How often a list is read again because it changed in the meantime.
const MAX_REPEATS: usize = 4;

/// The part of the kernel that a socket talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses and routes.
    Route,
    /// nf_tables.
    Netfilter,
}

/// A moment at which a fault can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The question has not been sent. An error takes its place.
    Before,
    /// The kernel has done what was asked. An error takes the place of its answer.
    After,
}

/// Plants faults, for tests: called at both moments of each question that changes something; an error takes effect.
#[derive(Clone)]
pub struct Fault(pub Arc<dyn Fn(Moment) -> Result<()> + Send + Sync>);

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fault")
    }
}

/// A netlink socket in one namespace.
#[derive(Debug)]
pub struct Socket {
    file: OwnedFd,
    sequence: AtomicU32,
    fault: Option<Fault>,
}

impl Socket {
    /// Opens a socket in the namespace of this thread.
    ///
    /// # Errors
    /// `EPROTONOSUPPORT`: the kernel does not have the protocol.
    pub fn open(protocol: Protocol) -> Result<Self> {
        Ok(Self { file: file(protocol, 0)?, sequence: AtomicU32::new(1), fault: None })
    }

    /// The same socket, with planted faults.
    #[must_use]
    pub fn with_fault(mut self, fault: Option<Fault>) -> Self {
        self.fault = fault;
        self
    }

    /// Asks for a change, and returns once the kernel has made it.
    pub(crate) fn change(&self, message: Message) -> Result<()> {
        self.may(Moment::Before)?;
        let sequence = self.send(message, NLM_F_REQUEST | NLM_F_ACK)?;
        let done = self.read(sequence, |_| {});
        done.and_then(|()| self.may(Moment::After))
    }

    /// Asks for an object. `None`: the kernel answered without it.
    pub(crate) fn get<T>(&self, message: Message, read: impl Fn(&Received<'_>) -> Option<T>) -> Result<Option<T>> {
        let sequence = self.send(message, NLM_F_REQUEST | NLM_F_ACK)?;
        let mut found = None;
        self.read(sequence, |message| found = read(message).or(found.take()))?;
        Ok(found)
    }

    /// Asks for a list. If it changes while it is read, it is read again, for a while; then it is not whole: an object that came or went
    /// meanwhile may be missing.
    pub(crate) fn list<T>(
        &self,
        message: &Message,
        read: impl Fn(&Received<'_>) -> Option<T>,
    ) -> Result<(Vec<T>, bool)> {
        let mut repeats = 0;
        loop {
            let (found, is_whole) = self.list_once(message, &read)?;
            repeats += 1;
            if is_whole || repeats >= MAX_REPEATS {
                return Ok((found, is_whole));
            }
        }
    }

    /// Asks for a list. Returns whether it is whole, too: it is not if it has changed while it was read.
    pub(crate) fn list_once<T>(
        &self,
        message: &Message,
        read: impl Fn(&Received<'_>) -> Option<T>,
    ) -> Result<(Vec<T>, bool)> {
        let sequence = self.send(message.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
        let (mut found, mut is_whole) = (Vec::new(), true);
        self.read(sequence, |message| {
            is_whole &= message.flags & NLM_F_DUMP_INTR == 0;
            found.extend(read(message));
        })?;
        Ok((found, is_whole))
    }

    /// Sends messages that belong together: all changes are made, or none. Each has a sequence number in `first..=last`, and the last
    /// one asks for an answer.
    pub(crate) fn batch(&self, bytes: &[u8], first: u32, last: u32) -> Result<()> {
        self.may(Moment::Before)?;
        self.send_bytes(bytes)?;
        let (mut buffer, mut result) = (Self::buffer(), Err(Error::NoAnswer));
        while let Some(length) = self.receive(&mut buffer)? {
            for message in messages(&buffer[..length]).filter(|message| (first..=last).contains(&message.sequence)) {
                match outcome(&message) {
                    Some(Ok(())) if message.sequence == last && result == Err(Error::NoAnswer) => result = Ok(()),
                    // The first message that is refused says why; those after it are refused for its sake.
                    Some(Err(error)) if !matches!(result, Err(Error::Refused(_))) => result = Err(error),
                    _ => {}
                }
            }
        }
        result.and_then(|()| self.may(Moment::After))
    }

    /// A number of sequence numbers that no other question has. Returns the first of them.
    pub(crate) fn sequences(&self, count: u32) -> u32 {
        self.sequence.fetch_add(count, Ordering::Relaxed)
    }

    fn may(&self, moment: Moment) -> Result<()> {
        self.fault.as_ref().map_or(Ok(()), |fault| fault.0(moment))
    }

    fn send(&self, message: Message, flags: u16) -> Result<u32> {
        let sequence = self.sequences(1);
        self.send_bytes(&message.bytes(flags, sequence))?;
        Ok(sequence)
    }

    fn send_bytes(&self, bytes: &[u8]) -> Result<()> {
        sendto(&self.file, bytes, SendFlags::empty(), &netlink::SocketAddrNetlink::new(0, 0))?;
        Ok(())
    }

    /// Reads the answers to a question, up to the one that ends them. `read` gets that one, too.
    fn read(&self, sequence: u32, mut read: impl FnMut(&Received<'_>)) -> Result<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = self.receive(&mut buffer)?.ok_or(Error::NoAnswer)?;
            for message in messages(&buffer[..length]).filter(|message| message.sequence == sequence) {
                read(&message);
                if let Some(result) = outcome(&message) {
                    return result;
                }
            }
        }
    }

    /// Receives what is there; `None`: nothing is.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> Result<Option<usize>> {
        match recv(&self.file, buffer, RecvFlags::TRUNC) {
            Ok((_, length)) if length > BUFFER => Err(Error::Unreadable),
            Ok((length, _)) => Ok(Some(length)),
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A socket that receives the changes of links in the namespace of this thread.
    pub(crate) fn open_for_group(group: u32) -> Result<Self> {
        Ok(Self { file: file(Protocol::Route, group)?, sequence: AtomicU32::new(1), fault: None })
    }

    /// A buffer for [`Self::receive`].
    pub(crate) fn buffer() -> Vec<u8> {
        vec![0; BUFFER]
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn file(protocol: Protocol, groups: u32) -> Result<OwnedFd> {
    let protocol = match protocol {
        Protocol::Route => None,
        Protocol::Netfilter => Some(netlink::NETFILTER),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let file = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
    bind(&file, &netlink::SocketAddrNetlink::new(0, groups))?;
    Ok(file)
}

/// How the question ended; `None`: the message is a part of the answer.
fn outcome(message: &Received<'_>) -> Option<Result<()>> {
    let code = || crate::message::u32_at(message.body, 0).map(u32::cast_signed);
    match message.kind {
        // A list ends with a code of its own: an error that came up while it was made.
        NLMSG_DONE => Some(code().map_or(Ok(()), errno)),
        NLMSG_ERROR => Some(code().map_or(Err(Error::Unreadable), errno)),
        _ => None,
    }
}

fn errno(code: i32) -> Result<()> {
    match code {
        0.. => Ok(()),
        _ => Err(Errno::from_raw_os_error(code.saturating_neg()).into()),
    }
}
