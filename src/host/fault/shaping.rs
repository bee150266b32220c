//! The command lines of latency and loss, and the reading of what is there (spec `task-metadata.md` §9.2).
//!
//! Pure. The traffic of an interface is divided among 100 bands, by a hash of the connection. As many of them as the percentage
//! of connections delay packets or lose them. The handles are those of the Go agent, so that a fault of the Go agent is found
//! and can be stopped.

use super::command::CommandLine;
use ecs_core::model::fault::{Destination, Fault, Traffic};
use serde_json::Value;

/// The bands of each level of the tree.
const BANDS: usize = 10;
/// The largest number of characters of an interface's name.
const MAX_INTERFACE: usize = 15;

/// Latency or loss, which exclude each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Latency,
    Loss,
}

/// Whether the name can be a word of a batch of `tc`. The kernel also allows quotes and backslashes.
pub(super) fn is_plain(interface: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@' | '+');
    !interface.is_empty() && interface.len() <= MAX_INTERFACE && interface.chars().all(is_part)
}

/// Lists, as JSON, what the first band of an interface does with packets.
pub(super) fn check(interface: &str) -> CommandLine {
    CommandLine::new(["tc", "-j", "q", "show", "dev", interface, "parent", "100:1"])
}

/// What the output of [`check`] shows; `None`: neither. An error if it is not the list that `tc` writes.
pub(super) fn found(output: &str) -> Result<Option<Shape>, serde_json::Error> {
    if output.trim().is_empty() {
        return Ok(None);
    }
    let list: Vec<Value> = serde_json::from_str(output)?;
    let netem = list.iter().filter(|entry| entry["kind"] == "netem").map(|entry| &entry["options"]);
    let options: Vec<&Value> = netem.filter(|options| !options.is_null()).collect();
    // A delay of zero is not listed, so any netem without a loss is latency.
    Ok(if options.iter().any(|options| !options["loss-random"].is_null()) {
        Some(Shape::Loss)
    } else {
        (!options.is_empty()).then_some(Shape::Latency)
    })
}

/// Lists, as JSON, the root of an interface's tree.
pub(super) fn root_check(interface: &str) -> CommandLine {
    CommandLine::new(["tc", "-j", "q", "show", "dev", interface, "root"])
}

/// Whether the output of [`root_check`] shows the root of a fault.
pub(super) fn has_root(output: &str) -> Result<bool, serde_json::Error> {
    let list: Vec<Value> = if output.trim().is_empty() { Vec::new() } else { serde_json::from_str(output)? };
    Ok(list.iter().any(|entry| entry["kind"] == "prio" && entry["handle"] == "1:"))
}

/// The first command: it fails if the interface has such a tree already, and then nothing has changed.
pub(super) fn root(interface: &str) -> CommandLine {
    let words = ["tc", "qdisc", "add", "dev", interface, "root", "handle", "1:", "prio"];
    CommandLine::new(words).and(priomap())
}

/// All further commands, in order.
pub(super) fn tree(interface: &str, fault: &Fault) -> Vec<CommandLine> {
    let (netem, traffic): (Vec<String>, &Traffic) = match fault {
        Fault::Latency { delay, jitter, traffic } => {
            (vec!["delay".to_owned(), format!("{delay}ms"), format!("{jitter}ms")], traffic)
        }
        Fault::Loss { percent, traffic } => (vec!["loss".to_owned(), format!("{percent}%")], traffic),
        Fault::Blackhole { .. } => return Vec::new(),
    };
    let mut lines = vec![child(interface, "1:1", "10:")];
    lines.extend((0..BANDS).map(|band| child(interface, &class(10, band), &format!("{}:", 100 + band))));
    for flow in 0..usize::from(traffic.flows_percent) {
        let (parent, handle) = (class(100 + flow / BANDS, flow % BANDS), format!("{}:", 200 + flow));
        let words = ["tc", "qdisc", "add", "dev", interface, "parent", &parent, "handle", &handle, "netem"];
        lines.push(netem.iter().fold(CommandLine::new(words), |line, word| line.and([word.as_str()])));
    }
    lines.extend(traffic.spared.iter().map(|destination| filter(interface, "1", destination, "1:3")));
    lines.extend(traffic.to.iter().map(|destination| filter(interface, "2", destination, "1:1")));
    lines.push(flows(interface, 10, 1));
    lines.extend((0..BANDS).map(|band| flows(interface, 100 + band, band + 1)));
    lines
}

/// The commands that stop the fault on one interface, in order. If the last one succeeds, nothing of it is left.
pub(super) fn stop(interface: &str) -> [CommandLine; 2] {
    [
        CommandLine::new(["tc", "qdisc", "del", "dev", interface, "parent", "1:1", "handle", "10:"]),
        CommandLine::new(["tc", "qdisc", "del", "dev", interface, "root", "handle", "1:", "prio"]),
    ]
}

/// All these commands of `tc` in one call, which ends at the first one that fails: the command line, and its input. The Go agent
/// starts a process for each of the more than 120 commands, which takes a busy host longer than the five seconds that it has.
pub(super) fn batch(lines: &[CommandLine]) -> (CommandLine, String) {
    let input = lines.iter().map(|line| line.arguments().join(" ") + "\n").collect();
    (CommandLine::new(["tc", "-batch", "-"]), input)
}

/// Packets of each priority go to the third band, unless a filter sends them elsewhere.
fn priomap() -> [&'static str; 17] {
    let mut words = ["2"; 17];
    words[0] = "priomap";
    words
}

fn child(interface: &str, parent: &str, handle: &str) -> CommandLine {
    let words = ["tc", "qdisc", "add", "dev", interface, "parent", parent, "handle", handle, "prio", "bands", "10"];
    CommandLine::new(words).and(priomap())
}

/// The name of a band, counted from 0, which `tc` counts from 1 in hexadecimal digits.
fn class(parent: usize, band: usize) -> String {
    format!("{parent}:{:x}", band + 1)
}

fn filter(interface: &str, priority: &str, destination: &Destination, flow: &str) -> CommandLine {
    let family = if destination.is_ipv6() { "ip6" } else { "ip" };
    let words = ["tc", "filter", "add", "dev", interface, "protocol", "all", "parent", "1:0", "prio", priority, "u32"];
    CommandLine::new(words).and(["match", family, "dst", destination.as_str(), "flowid", flow])
}

fn flows(interface: &str, parent: usize, handle: usize) -> CommandLine {
    let (parent, handle, base) = (format!("{parent}:"), handle.to_string(), format!("{parent}:1"));
    let words = ["tc", "filter", "add", "dev", interface, "protocol", "all", "parent", &parent, "handle", &handle];
    let keys = "src,dst,proto,proto-src,proto-dst";
    let words = CommandLine::new(words).and(["prio", "2", "flow", "hash", "keys", keys, "divisor", "10"]);
    words.and(["baseclass", &base])
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIOMAP: &str = "priomap 2 2 2 2 2 2 2 2 2 2 2 2 2 2 2 2";

    fn traffic(flows_percent: u8) -> Traffic {
        let all =
            |texts: &[&str]| texts.iter().map(|text| Destination::new(text, text.contains(':')).unwrap()).collect();
        Traffic { to: all(&["10.0.0.0/8", "2001:db8::1"]), spared: all(&["10.1.2.3", "2001:db8::/64"]), flows_percent }
    }

    fn texts(lines: &[CommandLine]) -> Vec<String> {
        lines.iter().map(ToString::to_string).collect()
    }

    /// The tree as in the spec, for a number of affected connections that fills one level and begins the next.
    #[test]
    fn the_tree_has_the_go_agents_commands() {
        assert_eq!(root("eth0").to_string(), format!("tc qdisc add dev eth0 root handle 1: prio {PRIOMAP}"));
        let lines = texts(&tree("eth0", &Fault::Latency { delay: 200, jitter: 10, traffic: traffic(12) }));
        let mut wanted = vec![format!("tc qdisc add dev eth0 parent 1:1 handle 10: prio bands 10 {PRIOMAP}")];
        let seconds = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "a"];
        for (number, second) in seconds.iter().enumerate() {
            let handle = 100 + number;
            wanted.push(format!("tc qdisc add dev eth0 parent 10:{second} handle {handle}: prio bands 10 {PRIOMAP}"));
        }
        for (number, second) in seconds.iter().enumerate() {
            let handle = 200 + number;
            wanted.push(format!("tc qdisc add dev eth0 parent 100:{second} handle {handle}: netem delay 200ms 10ms"));
        }
        wanted.push("tc qdisc add dev eth0 parent 101:1 handle 210: netem delay 200ms 10ms".to_owned());
        wanted.push("tc qdisc add dev eth0 parent 101:2 handle 211: netem delay 200ms 10ms".to_owned());
        let u32 = "tc filter add dev eth0 protocol all parent 1:0 prio";
        wanted.push(format!("{u32} 1 u32 match ip dst 10.1.2.3 flowid 1:3"));
        wanted.push(format!("{u32} 1 u32 match ip6 dst 2001:db8::/64 flowid 1:3"));
        wanted.push(format!("{u32} 2 u32 match ip dst 10.0.0.0/8 flowid 1:1"));
        wanted.push(format!("{u32} 2 u32 match ip6 dst 2001:db8::1 flowid 1:1"));
        let hash = "prio 2 flow hash keys src,dst,proto,proto-src,proto-dst divisor 10 baseclass";
        wanted.push(format!("tc filter add dev eth0 protocol all parent 10: handle 1 {hash} 10:1"));
        for number in 0..10 {
            let parent = 100 + number;
            let handle = number + 1;
            wanted.push(format!(
                "tc filter add dev eth0 protocol all parent {parent}: handle {handle} {hash} {parent}:1"
            ));
        }
        assert_eq!(lines, wanted);
    }

    #[test]
    fn loss_differs_only_in_what_the_bands_do() {
        let lines = texts(&tree("ens5", &Fault::Loss { percent: 7, traffic: traffic(100) }));
        let netem: Vec<&String> = lines.iter().filter(|line| line.contains("netem")).collect();
        assert_eq!(netem.len(), 100);
        assert_eq!(netem[0], "tc qdisc add dev ens5 parent 100:1 handle 200: netem loss 7%");
        assert_eq!(netem[99], "tc qdisc add dev ens5 parent 109:a handle 299: netem loss 7%");
    }

    #[test]
    fn latency_and_loss_are_found_and_stopped() {
        assert_eq!(check("eth0").to_string(), "tc -j q show dev eth0 parent 100:1");
        let wanted = ["tc qdisc del dev eth0 parent 1:1 handle 10:", "tc qdisc del dev eth0 root handle 1: prio"];
        assert_eq!(texts(&stop("eth0")), wanted);
        let netem = r#"{"kind":"netem","handle":"200:","parent":"100:1","options":{"limit":1000"#;
        for (output, wanted) in [
            ("", None),
            ("[]\n", None),
            (r#"[{"kind":"noqueue","handle":"0:","root":true,"options":{}}]"#, None),
            (r#"[{"kind":"netem"}]"#, None),
            (&format!(r#"[{netem},"delay":{{"delay":0.2,"jitter":0.01,"correlation":0}}}}}}]"#), Some(Shape::Latency)),
            (&format!("[{netem}}}}}]"), Some(Shape::Latency)),
            (&format!(r#"[{netem},"loss-random":{{"loss":0.5,"correlation":0}}}}}}]"#), Some(Shape::Loss)),
        ] {
            assert_eq!(found(output).unwrap(), wanted, "{output}");
        }
        for (output, wanted) in [
            ("[]", false),
            (r#"[{"kind":"mq","handle":"0:","root":true}]"#, false),
            (r#"[{"kind":"prio","handle":"8001:","root":true}]"#, false),
            (r#"[{"kind":"prio","handle":"1:","root":true,"refcnt":2,"options":{"bands":3}}]"#, true),
        ] {
            assert_eq!(has_root(output).unwrap(), wanted, "{output}");
        }
        assert_eq!(root_check("eth0").to_string(), "tc -j q show dev eth0 root");
        for output in ["{", "{}", "Cannot find device \"eth0\""] {
            assert!(found(output).is_err(), "{output}");
        }
    }

    #[test]
    fn a_batch_holds_one_command_on_each_line() {
        let (line, input) = batch(&stop("eth0"));
        assert_eq!((line.program(), line.arguments().as_slice()), ("tc", ["-batch", "-"].as_slice()));
        assert_eq!(input, "qdisc del dev eth0 parent 1:1 handle 10:\nqdisc del dev eth0 root handle 1: prio\n");
    }

    #[test]
    fn only_plain_names_of_interfaces_get_into_a_batch() {
        for (name, wanted) in [("eth0", true), ("eth0.7", true), ("br-1_a", true), ("", false), ("e\"0", false)] {
            assert_eq!(is_plain(name), wanted, "{name}");
        }
        for name in ["e 0", "e\n0", "e\\0", "e#0", "interface-name-x"] {
            assert!(!is_plain(name), "{name}");
        }
    }
}
