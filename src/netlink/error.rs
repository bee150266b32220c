//! Errors: what the kernel answers, with the name under which manuals list it.

use rustix::io::Errno;
use std::fmt;

/// The result of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The kernel refused it.
    Refused(Errno),
    /// The kernel did not answer.
    NoAnswer,
    /// The kernel's answer could not be read.
    Unreadable,
}

impl Error {
    /// The kernel refused it with this error.
    pub fn is(&self, errno: Errno) -> bool {
        *self == Self::Refused(errno)
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::Refused(errno)
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    /// `File exists (EEXIST)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(errno) => {
                let text = std::io::Error::from(*errno).to_string();
                let text = text.split(" (os error").next().unwrap_or_default();
                match NAMES.iter().find(|(known, _)| known == errno) {
                    Some((_, name)) => write!(f, "{text} ({name})"),
                    None => write!(f, "{text} (errno {})", errno.raw_os_error()),
                }
            }
            Self::NoAnswer => f.write_str("the kernel did not answer"),
            Self::Unreadable => f.write_str("the kernel's answer could not be read"),
        }
    }
}

/// The names of the errors that netlink answers with.
const NAMES: [(Errno, &str); 35] = [
    (Errno::PERM, "EPERM"),
    (Errno::NOENT, "ENOENT"),
    (Errno::SRCH, "ESRCH"),
    (Errno::INTR, "EINTR"),
    (Errno::IO, "EIO"),
    (Errno::NXIO, "ENXIO"),
    (Errno::BADF, "EBADF"),
    (Errno::AGAIN, "EAGAIN"),
    (Errno::NOMEM, "ENOMEM"),
    (Errno::ACCESS, "EACCES"),
    (Errno::BUSY, "EBUSY"),
    (Errno::EXIST, "EEXIST"),
    (Errno::NODEV, "ENODEV"),
    (Errno::INVAL, "EINVAL"),
    (Errno::NFILE, "ENFILE"),
    (Errno::MFILE, "EMFILE"),
    (Errno::NOSPC, "ENOSPC"),
    (Errno::RANGE, "ERANGE"),
    (Errno::LOOP, "ELOOP"),
    (Errno::NOSYS, "ENOSYS"),
    (Errno::OVERFLOW, "EOVERFLOW"),
    (Errno::MSGSIZE, "EMSGSIZE"),
    (Errno::NOPROTOOPT, "ENOPROTOOPT"),
    (Errno::PROTONOSUPPORT, "EPROTONOSUPPORT"),
    (Errno::OPNOTSUPP, "EOPNOTSUPP"),
    (Errno::AFNOSUPPORT, "EAFNOSUPPORT"),
    (Errno::ADDRINUSE, "EADDRINUSE"),
    (Errno::ADDRNOTAVAIL, "EADDRNOTAVAIL"),
    (Errno::NETDOWN, "ENETDOWN"),
    (Errno::NETUNREACH, "ENETUNREACH"),
    (Errno::NOBUFS, "ENOBUFS"),
    (Errno::TIMEDOUT, "ETIMEDOUT"),
    (Errno::HOSTUNREACH, "EHOSTUNREACH"),
    (Errno::ALREADY, "EALREADY"),
    (Errno::CONNREFUSED, "ECONNREFUSED"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_its_text_and_its_name() {
        assert_eq!(Error::from(Errno::EXIST).to_string(), "File exists (EEXIST)");
        let unknown = Error::from(Errno::HWPOISON).to_string();
        assert!(unknown.ends_with(" (errno 133)") && !unknown.contains("os error"), "{unknown}");
        assert!(Error::from(Errno::EXIST).is(Errno::EXIST) && !Error::NoAnswer.is(Errno::EXIST));
    }
}
