//! The address at which containers ask for the credentials of their role. Rules of the firewall lead it to the agent, and only root may
//! make them. This module finds out whether they are there, and says how to make them. Invariant: it changes nothing.

use super::agent;
use super::arguments::Up;
use super::output::print_error;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The address. The rules hold for the host's own connections, too.
const ADDRESS: &str = "169.254.170.2:80";
/// The time limit for a connection to it. Without the rules, there may be no answer at all.
const LIMIT: Duration = Duration::from_secs(1);

/// Says how to make the rules if the task has a role and the agent, which is ready, is not reached at the address.
pub(super) async fn warn(request: &Up, definition: &Value) {
    // An agent of root makes the rules, or says why not.
    let may_lack_rules = !definition["taskRoleArn"].is_null() && !rustix::process::geteuid().is_root();
    if may_lack_rules && !connects(ADDRESS).await {
        print_error(&remedy(agent::program(request).as_deref().unwrap_or(Path::new("ecs-agent"))));
    }
}

async fn connects(address: &str) -> bool {
    matches!(timeout(LIMIT, TcpStream::connect(address)).await, Ok(Ok(_)))
}

/// The command can be copied: root has another search path.
fn remedy(agent: &Path) -> String {
    let path = std::path::absolute(agent).unwrap_or_else(|_| agent.to_owned());
    let shown = path.display().to_string();
    let is_plain = shown.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte));
    let quoted = if is_plain { shown } else { format!("'{}'", shown.replace('\'', "'\\''")) };
    format!(
        "containers ask for the credentials of their role at 169.254.170.2, which does not lead to the agent, and only root may make the \
         firewall rules for that: start ecs-local with sudo, or run this once: sudo {quoted} host-setup"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_can_be_copied() {
        assert!(remedy(Path::new("/opt/x/ecs-agent")).ends_with(": sudo /opt/x/ecs-agent host-setup"));
        let here = std::env::current_dir().unwrap();
        let (text, wanted) =
            (remedy(Path::new("it's me/ecs-agent")), format!("{}/it'\\''s me/ecs-agent' host-setup", here.display()));
        assert!(text.ends_with(&wanted), "{text}");
    }

    #[tokio::test]
    async fn an_address_that_answers_needs_no_remedy() {
        let open = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = open.local_addr().unwrap().to_string();
        assert!(connects(&address).await);
        drop(open);
        assert!(!connects(&address).await);
    }
}
