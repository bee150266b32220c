//! Why the server of a session cannot start, and what to do about it, in words.

use super::output::wrong_argument;
use crate::StartError;
use std::io::ErrorKind;

/// Prints why a server cannot start, if what the command line names is the reason, and returns the exit code for it.
///
/// # Errors
/// Any other reason, and what to do about it.
pub(super) fn start_problem(error: &StartError) -> Result<u8, String> {
    match error {
        StartError::Listen(_, cause) if cause.kind() == ErrorKind::AddrInUse => {
            Err(format!("{error}: another `serve`? --listen takes another port"))
        }
        StartError::Listen(..) => Err(error.to_string()),
        StartError::Registry(_) | StartError::Value(_) | StartError::Profile(_) => {
            Ok(wrong_argument(&error.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, Server};

    #[tokio::test]
    async fn a_port_that_is_taken_has_a_remedy() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let options = Options { listen: taken.local_addr().unwrap(), ..Options::default() };
        let problem = start_problem(&Server::start(options).await.unwrap_err()).unwrap_err();
        assert!(problem.ends_with("another `serve`? --listen takes another port"), "{problem}");
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_used_is_a_wrong_argument() {
        let options = Options { registry_dir: Some("/proc/self".into()), ..Options::default() };
        assert_eq!(start_problem(&Server::start(options).await.unwrap_err()), Ok(2));
    }
}
