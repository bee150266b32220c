//! The command lines of a blackhole (spec `task-metadata.md` §9.2).
//!
//! Pure. The dropped port has a chain of its own, with the name that the Go agent gives it, so that a blackhole of the Go agent
//! is found and can be stopped.

use super::command::CommandLine;
use ecs_core::model::fault::{BlackholePort, Destination, Direction};

/// The address of the task metadata server. It stays reachable, so that the task can stop the fault.
const TASK_METADATA: &str = "169.254.170.2";
/// The port at which tasks reach the task metadata server.
const TASK_METADATA_PORT: u16 = 80;

/// The two programs, each for its own rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// In the order in which the rules are changed.
    pub(super) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    fn tool(self) -> &'static str {
        match self {
            Self::V4 => "iptables",
            Self::V6 => "ip6tables",
        }
    }

    fn everywhere(self) -> &'static str {
        match self {
            Self::V4 => "0.0.0.0/0",
            Self::V6 => "::/0",
        }
    }
}

fn chain(port: BlackholePort) -> String {
    format!("{}-{}-{}", port.direction, port.protocol.as_str(), port.port)
}

fn parent(port: BlackholePort) -> &'static str {
    match port.direction {
        Direction::Ingress => "INPUT",
        Direction::Egress => "OUTPUT",
    }
}

/// Succeeds if the blackhole is running. Compat: only IPv4 is checked.
pub(super) fn check(port: BlackholePort) -> CommandLine {
    let (chain, protocol, number) = (chain(port), port.protocol.as_str(), port.port.to_string());
    CommandLine::iptables("iptables", ["-C", &chain, "-p", protocol, "--dport", &number, "-j", "DROP"])
}

/// The commands that start the blackhole for one family, in order. The first one creates the chain.
pub(super) fn start(family: Family, port: BlackholePort, spared: &[Destination]) -> Vec<CommandLine> {
    let (chain, tool) = (chain(port), family.tool());
    let number = port.port.to_string();
    let rule = |destination: &str, target: &str| {
        let words = ["-A", &chain, "-p", port.protocol.as_str(), "-d", destination, "--dport", &number, "-j", target];
        CommandLine::iptables(tool, words)
    };
    let is_served = port.direction == Direction::Egress && port.port == TASK_METADATA_PORT;
    let is_named = || spared.iter().any(|destination| destination.as_str() == TASK_METADATA);
    let own = (is_served && family == Family::V4 && !is_named()).then_some(TASK_METADATA);
    let is_v6 = family == Family::V6;
    let spared = spared.iter().filter(|spared| spared.is_ipv6() == is_v6).map(Destination::as_str).chain(own);
    let mut lines = vec![CommandLine::iptables(tool, ["-N", &chain])];
    lines.extend(spared.map(|destination| rule(destination, "ACCEPT")));
    lines.push(rule(family.everywhere(), "DROP"));
    lines.push(CommandLine::iptables(tool, ["-I", parent(port), "-j", &chain]));
    lines
}

/// The commands that stop the blackhole for one family, in order. If the last one succeeds, nothing of it is left.
pub(super) fn stop(family: Family, port: BlackholePort) -> [CommandLine; 3] {
    let (chain, tool) = (chain(port), family.tool());
    [
        CommandLine::iptables(tool, ["-F", &chain]),
        CommandLine::iptables(tool, ["-D", parent(port), "-j", &chain]),
        CommandLine::iptables(tool, ["-X", &chain]),
    ]
}

/// Succeeds if the chain of the blackhole exists, even if the blackhole was started or stopped in part only.
pub(super) fn exists(family: Family, port: BlackholePort) -> CommandLine {
    CommandLine::iptables(family.tool(), ["-n", "-L", &chain(port)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_core::model::Protocol;

    fn port(direction: Direction, protocol: Protocol, port: u16) -> BlackholePort {
        BlackholePort { direction, protocol, port }
    }

    fn destination(text: &str) -> Destination {
        Destination::new(text, text.contains(':')).unwrap()
    }

    fn texts(lines: &[CommandLine]) -> Vec<String> {
        lines.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_blackhole_is_started_as_the_go_agent_does() {
        let ingress = port(Direction::Ingress, Protocol::Tcp, 1234);
        assert_eq!(check(ingress).to_string(), "iptables -w 5 -C ingress-tcp-1234 -p tcp --dport 1234 -j DROP");
        let spared = ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1"].map(destination);
        let v4 = [
            "iptables -w 5 -N ingress-tcp-1234",
            "iptables -w 5 -A ingress-tcp-1234 -p tcp -d 10.0.0.0/8 --dport 1234 -j ACCEPT",
            "iptables -w 5 -A ingress-tcp-1234 -p tcp -d 192.0.2.1 --dport 1234 -j ACCEPT",
            "iptables -w 5 -A ingress-tcp-1234 -p tcp -d 0.0.0.0/0 --dport 1234 -j DROP",
            "iptables -w 5 -I INPUT -j ingress-tcp-1234",
        ];
        assert_eq!(texts(&start(Family::V4, ingress, &spared)), v4);
        let v6 = [
            "ip6tables -w 5 -N ingress-tcp-1234",
            "ip6tables -w 5 -A ingress-tcp-1234 -p tcp -d 2001:db8::/32 --dport 1234 -j ACCEPT",
            "ip6tables -w 5 -A ingress-tcp-1234 -p tcp -d ::/0 --dport 1234 -j DROP",
            "ip6tables -w 5 -I INPUT -j ingress-tcp-1234",
        ];
        assert_eq!(texts(&start(Family::V6, ingress, &spared)), v6);
    }

    #[test]
    fn a_blackhole_is_stopped_as_the_go_agent_does() {
        let egress = port(Direction::Egress, Protocol::Udp, 53);
        for (family, tool) in [(Family::V4, "iptables"), (Family::V6, "ip6tables")] {
            let wanted = ["-F egress-udp-53", "-D OUTPUT -j egress-udp-53", "-X egress-udp-53"];
            assert_eq!(texts(&stop(family, egress)), wanted.map(|words| format!("{tool} -w 5 {words}")));
        }
    }

    #[test]
    fn the_task_metadata_server_stays_reachable() {
        let accept = "iptables -w 5 -A egress-tcp-80 -p tcp -d 169.254.170.2 --dport 80 -j ACCEPT";
        let accepted = |family, port, spared: &[Destination]| {
            let lines = texts(&start(family, port, spared));
            lines.iter().filter(|line| line.contains("169.254.170.2")).cloned().collect::<Vec<_>>()
        };
        let egress = port(Direction::Egress, Protocol::Tcp, 80);
        assert_eq!(accepted(Family::V4, egress, &[]), [accept]);
        assert_eq!(accepted(Family::V4, egress, &[destination("169.254.170.2")]), [accept], "once");
        assert_eq!(accepted(Family::V6, egress, &[]), [""; 0]);
        for other in [port(Direction::Ingress, Protocol::Tcp, 80), port(Direction::Egress, Protocol::Tcp, 8080)] {
            assert_eq!(accepted(Family::V4, other, &[]), [""; 0], "as with the Go agent");
        }
    }

    #[test]
    fn a_namespace_is_entered_by_its_file() {
        let line = check(port(Direction::Ingress, Protocol::Tcp, 1)).in_namespace(Some("/proc/7/ns/net"));
        let wanted = "nsenter --net=/proc/7/ns/net iptables -w 5 -C ingress-tcp-1 -p tcp --dport 1 -j DROP";
        assert_eq!((line.program(), line.to_string().as_str()), ("nsenter", wanted));
        assert_eq!(line.arguments()[..3], ["--net=/proc/7/ns/net", "iptables", "-w"]);
    }
}
