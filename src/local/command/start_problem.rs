//! Why the server of a session cannot start, and what to do about it, in words.

use crate::StartError;
use std::io::ErrorKind;

/// The problem of a server that cannot start, and what to do about it.
pub(super) fn start_problem(error: &StartError) -> String {
    match error {
        StartError::Listen(_, cause) if cause.kind() == ErrorKind::AddrInUse => {
            format!("{error}: another `serve`? --listen takes another port")
        }
        _ => error.to_string(),
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
        let problem = start_problem(&Server::start(options).await.unwrap_err());
        assert!(problem.ends_with("another `serve`? --listen takes another port"), "{problem}");
    }
}
