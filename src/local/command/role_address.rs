//! The address at which containers ask for the credentials of their role. Rules of the firewall lead it to the agent, and only root may
//! make them. This module finds out whether they are there, and says how to make them. Invariant: it changes nothing.

use super::arguments::Up;
use super::output::print_error;
use super::{agent, settings};
use crate::ids::new_id;
use axum::body::Body;
use http::Request;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The address. The rules hold for the host's own connections, too.
const ADDRESS: &str = "169.254.170.2:80";
/// The time limit for an answer from there. Without the rules, there may be none at all.
const LIMIT: Duration = Duration::from_secs(1);
/// The setting that leaves the rules to others.
const MANAGES: &str = "ECS_MANAGE_FIREWALL";
/// A header of the request, and the one in which the agent repeats its value.
const ASKED: &str = "x-forwarded-for";
const REPEATED: &str = "x-rate-limit-request-forwarded-for";

/// Says how to make the rules if the task has a role and the agent, which is ready, does not answer at the address. `report`: what the
/// agent's program says about its settings.
pub(super) async fn warn(request: &Up, report: &Value, definition: &Value) {
    let makes_rules = makes_rules(report);
    // An agent that runs as root makes the rules, unless a setting forbids it, or logs why it cannot.
    let may_lack_rules = !rustix::process::geteuid().is_root() || !makes_rules;
    if may_lack_rules && !definition["taskRoleArn"].is_null() && !leads_to_agent(ADDRESS).await {
        print_error(&remedy(agent::program(request).as_deref().unwrap_or(Path::new("ecs-agent")), makes_rules));
    }
}

/// The agent's settings let it make the rules. The report shows a value as it was written.
fn makes_rules(report: &Value) -> bool {
    let value = settings::effective(report, MANAGES).unwrap_or_default();
    !["0", "f", "F", "FALSE", "false", "False"].contains(&value.trim())
}

/// The agent answers at the address. A gateway may have an answer for any address, but does not repeat an id in the agent's header.
async fn leads_to_agent(address: &str) -> bool {
    let id = new_id();
    let repeated = timeout(LIMIT, repeated(address, &id)).await;
    repeated.ok().flatten().is_some_and(|repeated| repeated == id)
}

/// Asks for a path that nobody has. Returns what the answer repeats of this id; `None`: nothing.
async fn repeated(address: &str, id: &str) -> Option<String> {
    let stream = TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let request = Request::get("/ecs-local").header("host", address).header("connection", "close").header(ASKED, id);
    let request = request.body(Body::empty()).ok()?;
    let asking = async move {
        let answer = sender.send_request(request).await.ok()?;
        answer.headers().get(REPEATED)?.to_str().ok().map(str::to_owned)
    };
    let (repeated, _ended) = tokio::join!(asking, connection);
    repeated
}

/// The command can be copied: root has another search path. `makes_rules`: the agent would make the rules if it were root.
fn remedy(agent: &Path, makes_rules: bool) -> String {
    let path = std::path::absolute(agent).unwrap_or_else(|_| agent.to_owned());
    let shown = path.display().to_string();
    let is_plain = shown.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte));
    let quoted = if is_plain { shown } else { format!("'{}'", shown.replace('\'', "'\\''")) };
    let how = match makes_rules {
        true => "only root may make the firewall rules for that: start ecs-local with sudo, or",
        false => "ECS_MANAGE_FIREWALL=false leaves the firewall rules for that to others: leave it out, or",
    };
    format!(
        "containers ask for the credentials of their role at 169.254.170.2, which does not lead to the agent, and {how} run this once: \
         sudo {quoted} host-setup"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::io::{Read, Write};

    #[test]
    fn the_remedy_can_be_copied() {
        assert!(remedy(Path::new("/opt/x/ecs-agent"), true).ends_with(": sudo /opt/x/ecs-agent host-setup"));
        let here = std::env::current_dir().unwrap();
        let (text, wanted) = (
            remedy(Path::new("it's me/ecs-agent"), true),
            format!("{}/it'\\''s me/ecs-agent' host-setup", here.display()),
        );
        assert!(text.ends_with(&wanted), "{text}");
        let manual = remedy(Path::new("/x"), false);
        assert!(
            manual.contains("ECS_MANAGE_FIREWALL=false") && !manual.contains("start ecs-local with sudo"),
            "{manual}"
        );
    }

    #[test]
    fn rules_are_left_to_others_as_the_agent_reads_its_settings() {
        let report = |value: &str| json!({"checks": [{"effective": [{"setting": MANAGES, "value": value}]}]});
        assert!(makes_rules(&Value::Null) && makes_rules(&report("true")) && makes_rules(&report("1")));
        assert!(!makes_rules(&report("false")) && !makes_rules(&report("0")));
    }

    /// A server that gives every request this answer; `{id}` is what the request has in its header.
    fn serving(answer: &'static str) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = String::new();
            while !request.ends_with("\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(char::from(byte[0]));
            }
            let id = request.split("x-forwarded-for: ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
            stream.write_all(answer.replace("{id}", id).as_bytes()).unwrap();
        });
        address
    }

    #[tokio::test]
    async fn only_an_answer_of_the_agent_counts() {
        for (answer, is_agent) in [
            ("HTTP/1.1 404 Not Found\r\nx-rate-limit-request-forwarded-for: {id}\r\ncontent-length: 1\r\n\r\nx", true),
            (
                "HTTP/1.1 429 Too Many Requests\r\nX-Rate-Limit-Request-Forwarded-For: {id}\r\ncontent-length: 0\r\n\r\n",
                true,
            ),
            ("HTTP/1.1 403 Forbidden\r\nserver: gateway\r\ncontent-length: 0\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\nx-forwarded-for: {id}\r\ncontent-length: 0\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\nx-rate-limit-request-forwarded-for:\r\ncontent-length: 0\r\n\r\n", false),
            ("SSH-2.0-x\r\n", false),
            ("", false),
        ] {
            assert_eq!(leads_to_agent(&serving(answer)).await, is_agent, "{answer}");
        }
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap().to_string();
        assert!(!leads_to_agent(&address).await);
        drop(silent);
        assert!(!leads_to_agent(&address).await);
    }
}
