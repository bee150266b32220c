//! The redirection of a task's connections through its proxy container (App Mesh; spec `networking.md` §10).
//!
//! One table of nf_tables in the task's namespace, for IPv4, as the Go agent configures it. The Go agent's plug-in runs `iptables` and
//! ignores all ports after the fifteenth; here each port has a rule. There is no fall-back on `iptables`: where the kernel has no nf_tables
//! (since Linux 3.13), the agent does not offer App Mesh.

use super::check::{AGENT, network};
use super::job::Job;
use super::place::Places;
use super::steps::{Cause, Done};
use ecs_core::model::interface::{Prefix, ProxyRules};
use ecs_netlink::{Batch, Errno, Error, Hook, Match, Protocol, Socket, Verdict};

/// The name of the table.
const TABLE: &str = "ecs-proxy";

/// Makes the rules. They take the place of earlier ones.
pub(super) fn redirect(job: &Job, places: &Places, rules: &ProxyRules) -> Done {
    job.steps.take(format!("redirect connections to the proxy at port {}", rules.egress_port), || {
        places.netfilter(job).and_then(|socket| table(rules).send(&socket)).map_err(why)
    })
}

fn why(error: Error) -> Cause {
    if error.is_without_nf_tables() {
        Cause::Text(format!("{error}: the kernel has no nf_tables"))
    } else if error.is(Errno::NOENT) {
        Cause::Text(format!("{error}: the kernel lacks a part of nf_tables"))
    } else {
        error.into()
    }
}

/// Makes rules of every kind in the namespace of this thread, which must be one of its own: so it shows whether the kernel can, and
/// has it load its modules before the first task needs them.
pub(super) fn probe() -> Result<(), Cause> {
    let rules = ProxyRules {
        ignored_uid: Some(1),
        ignored_gid: Some(1),
        ingress_port: Some(1),
        egress_port: 2,
        app_ports: vec![3],
        ignored_ports: vec![4],
        ignored_networks: vec![Prefix { address: AGENT.into(), length: 32 }],
    };
    Socket::open(Protocol::Netfilter).and_then(|socket| table(&rules).send(&socket)).map_err(why)
}

fn table(rules: &ProxyRules) -> Batch {
    use Match::{FromElsewhere, Group, Port, Tcp, To, ToElsewhere, User};
    // Linux before 4.18 translates answers back only if the chains of their hooks are there, too, even without rules.
    let mut batch = Batch::replacing(TABLE).chain(Hook::Incoming).chain(Hook::Outgoing).chain(Hook::Leaving);
    batch = batch.chain(Hook::Arriving);
    for (port, ingress) in rules.app_ports.iter().filter_map(|port| Some((*port, rules.ingress_port?))) {
        batch = batch.rule(Hook::Incoming, &[Tcp, Port(port), FromElsewhere], Verdict::RedirectTo(ingress));
    }
    let mut pass = |conditions: &[Match]| {
        let batch_before = std::mem::replace(&mut batch, Batch::removing(TABLE));
        batch = batch_before.rule(Hook::Outgoing, conditions, Verdict::Leave);
    };
    rules.ignored_uid.into_iter().for_each(|user| pass(&[User(user)]));
    rules.ignored_gid.into_iter().for_each(|group| pass(&[Group(group)]));
    rules.ignored_ports.iter().for_each(|port| pass(&[Tcp, Port(*port)]));
    let networks = rules.ignored_networks.iter().map(|prefix| network(*prefix));
    networks.filter(|network| network.address.is_ipv4()).for_each(|network| pass(&[To(network)]));
    batch.rule(Hook::Outgoing, &[Tcp, ToElsewhere], Verdict::RedirectTo(rules.egress_port))
}

/// Removes the rules, which may not be there.
pub(super) fn stop(job: &Job, places: &Places) -> Done {
    if job.request.proxy.is_none() {
        return Ok(());
    }
    job.steps.take_anyway("stop redirecting connections to the proxy", || {
        match places.netfilter(job).and_then(|socket| Batch::removing(TABLE).send(&socket)) {
            Err(error) if error.is(Errno::NOENT) || error.is_without_nf_tables() => Ok(()),
            removed => Ok(removed?),
        }
    })
}
