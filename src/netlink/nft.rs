//! nf_tables: a table of rules for connections, made at once.
//!
//! Invariant: a batch replaces the whole table of its name, or changes nothing. Rules of others are not touched.

use crate::address::octets;
use crate::error::{Error, Result};
use crate::message::{AF_INET, Message, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST};
use crate::route::Network;
use crate::socket::Socket;
use rustix::io::Errno;

const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_NEWRULE: u16 = 6;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFT_REG_VERDICT: u32 = 0;
const NFT_REG_1: u32 = 1;
const NFT_RETURN: i32 = -5;
const NFT_CMP_EQ: u32 = 0;
const NFT_CMP_NEQ: u32 = 1;
const NFT_META_IIFNAME: u32 = 6;
const NFT_META_OIFNAME: u32 = 7;
const NFT_META_SKUID: u32 = 10;
const NFT_META_SKGID: u32 = 11;
const NFT_META_L4PROTO: u32 = 16;
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
const NFTA_FIB_F_SADDR: u32 = 1;
const NFTA_FIB_F_DADDR: u32 = 2;
const RTN_LOCAL: u32 = 2;
const IPPROTO_TCP: u8 = 6;
/// The offsets of the addresses in a header of IPv4, and of the destination port in one of TCP, in bytes.
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
const DESTINATION_PORT: u32 = 2;

/// When a chain of rules sees the first packet of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// It comes from outside.
    Incoming,
    /// A process of this namespace sends it.
    Outgoing,
    /// It is about to leave.
    Leaving,
    /// A process of this namespace is about to receive it.
    Arriving,
}

impl Hook {
    /// The name of the chain, the number of the hook, and the place among other chains.
    fn parts(self) -> (&'static str, u32, i32) {
        match self {
            Self::Incoming => ("incoming", 0, -100),
            Self::Outgoing => ("outgoing", 3, -100),
            Self::Leaving => ("leaving", 4, 100),
            Self::Arriving => ("arriving", 1, 100),
        }
    }
}

/// A condition on the first packet of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// It is TCP.
    Tcp,
    /// Its destination port. Only after [`Match::Tcp`].
    Port(u16),
    /// The sender is a process of this user.
    User(u32),
    /// The sender is a process of this group.
    Group(u32),
    /// Its destination is in this IPv4 network.
    To(Network),
    /// It comes from this IPv4 network.
    From(Network),
    /// It does not come from an address of this namespace.
    FromElsewhere,
    /// It does not go to an address of this namespace.
    ToElsewhere,
    /// It comes in over the link with this name.
    OverLink(String),
    /// It does not leave over the link with this name.
    NotLeavingOver(String),
}

/// What happens to a connection that meets all conditions of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No further rule of the chain sees it.
    Leave,
    /// It goes to this port of this namespace.
    RedirectTo(u16),
    /// It gets the address of the link that it leaves over as its source.
    Masquerade,
}

/// A table of NAT for IPv4 with its rules, as one change.
#[derive(Debug)]
pub struct Batch {
    table: String,
    messages: Vec<Message>,
}

impl Batch {
    /// A table with this name and no chain. It takes the place of an earlier one.
    pub fn replacing(table: &str) -> Self {
        let named = |kind, flags| nft(kind, flags).add_text(1, table);
        // The first one makes sure that there is one to delete.
        let messages = vec![
            named(NFT_MSG_NEWTABLE, NLM_F_CREATE),
            named(NFT_MSG_DELTABLE, 0),
            named(NFT_MSG_NEWTABLE, NLM_F_CREATE),
        ];
        Self { table: table.to_owned(), messages }
    }

    /// The removal of the table.
    pub fn removing(table: &str) -> Self {
        Self { table: table.to_owned(), messages: vec![nft(NFT_MSG_DELTABLE, 0).add_text(1, table)] }
    }

    /// Adds the chain of a hook. Connections that no rule decides on go on unchanged.
    #[must_use]
    pub fn chain(mut self, hook: Hook) -> Self {
        let (name, number, priority) = hook.parts();
        let message = nft(NFT_MSG_NEWCHAIN, NLM_F_CREATE).add_text(1, &self.table).add_text(3, name);
        let message = message.nest(4, |hook| hook.add_be32(1, number).add_be32(2, priority.cast_unsigned()));
        self.messages.push(message.add_text(7, "nat"));
        self
    }

    /// Adds a rule at the end of the chain of a hook.
    #[must_use]
    pub fn rule(mut self, hook: Hook, conditions: &[Match], verdict: Verdict) -> Self {
        let message = nft(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND).add_text(1, &self.table);
        self.messages.push(message.add_text(2, hook.parts().0).nest(4, |list| {
            let list = conditions.iter().fold(list, add_condition);
            // Counts packets, for people who look whether a rule is met.
            add_verdict(expression(list, "counter", |data| data), verdict)
        }));
        self
    }

    /// Makes the change.
    ///
    /// # Errors
    /// The kernel's: `EPROTONOSUPPORT` or `EOPNOTSUPP`: it has no nf_tables. `ENOENT`: there is no such table to remove, or the kernel
    /// lacks a part of nf_tables.
    pub fn send(self, socket: &Socket) -> Result<()> {
        let count = u32::try_from(self.messages.len()).unwrap_or(u32::MAX);
        // Two more, for the messages around it.
        let begin = socket.sequences(count + 2);
        let (first, last) = (begin + 1, begin + count);
        let mut bytes = border(NFNL_MSG_BATCH_BEGIN).bytes(NLM_F_REQUEST, begin);
        for (sequence, message) in (first..=last).zip(self.messages) {
            let flags = if sequence == last { NLM_F_REQUEST | NLM_F_ACK } else { NLM_F_REQUEST };
            bytes.extend(message.bytes(flags, sequence));
        }
        bytes.extend(border(NFNL_MSG_BATCH_END).bytes(NLM_F_REQUEST, last + 1));
        // A kernel without nf_tables refuses the first message, the border.
        socket.batch(&bytes, begin, last)
    }
}

impl Error {
    /// The kernel has no nf_tables.
    pub fn is_without_nf_tables(&self) -> bool {
        [Errno::PROTONOSUPPORT, Errno::OPNOTSUPP, Errno::AFNOSUPPORT].iter().any(|errno| self.is(*errno))
    }
}

/// A message to nf_tables about IPv4.
fn nft(kind: u16, flags: u16) -> Message {
    Message::new((NFNL_SUBSYS_NFTABLES << 8) | kind, flags, &[AF_INET, 0, 0, 0])
}

fn border(kind: u16) -> Message {
    let [high, low] = NFNL_SUBSYS_NFTABLES.to_be_bytes();
    Message::new(kind, 0, &[0, 0, high, low])
}

fn expression(list: Message, name: &str, data: impl FnOnce(Message) -> Message) -> Message {
    list.nest(NFTA_LIST_ELEM, |element| element.add_text(NFTA_EXPR_NAME, name).nest(NFTA_EXPR_DATA, data))
}

fn add_condition(list: Message, condition: &Match) -> Message {
    match condition {
        Match::Tcp => compare(meta(list, NFT_META_L4PROTO), NFT_CMP_EQ, &[IPPROTO_TCP]),
        Match::Port(port) => {
            let list = payload(list, NFT_PAYLOAD_TRANSPORT_HEADER, DESTINATION_PORT, 2);
            compare(list, NFT_CMP_EQ, &port.to_be_bytes())
        }
        Match::User(user) => compare(meta(list, NFT_META_SKUID), NFT_CMP_EQ, &user.to_ne_bytes()),
        Match::Group(group) => compare(meta(list, NFT_META_SKGID), NFT_CMP_EQ, &group.to_ne_bytes()),
        Match::To(network) => compare_network(list, DESTINATION, network),
        Match::From(network) => compare_network(list, SOURCE, network),
        Match::FromElsewhere => compare(fib(list, NFTA_FIB_F_SADDR), NFT_CMP_NEQ, &RTN_LOCAL.to_ne_bytes()),
        Match::ToElsewhere => compare(fib(list, NFTA_FIB_F_DADDR), NFT_CMP_NEQ, &RTN_LOCAL.to_ne_bytes()),
        Match::OverLink(name) => compare(meta(list, NFT_META_IIFNAME), NFT_CMP_EQ, &link_name(name)),
        Match::NotLeavingOver(name) => compare(meta(list, NFT_META_OIFNAME), NFT_CMP_NEQ, &link_name(name)),
    }
}

fn add_verdict(list: Message, verdict: Verdict) -> Message {
    match verdict {
        Verdict::Leave => expression(list, "immediate", |data| {
            let code = |verdict: Message| verdict.add_be32(1, NFT_RETURN.cast_unsigned());
            data.add_be32(1, NFT_REG_VERDICT).nest(2, |value| value.nest(NFTA_DATA_VERDICT, code))
        }),
        Verdict::RedirectTo(port) => {
            let list = expression(list, "immediate", |data| {
                data.add_be32(1, NFT_REG_1).nest(2, |value| value.add(NFTA_DATA_VALUE, &port.to_be_bytes()))
            });
            expression(list, "redir", |data| data.add_be32(1, NFT_REG_1))
        }
        Verdict::Masquerade => expression(list, "masq", |data| data),
    }
}

fn meta(list: Message, key: u32) -> Message {
    expression(list, "meta", |data| data.add_be32(2, key).add_be32(1, NFT_REG_1))
}

fn payload(list: Message, base: u32, offset: u32, length: u32) -> Message {
    expression(list, "payload", |data| {
        data.add_be32(1, NFT_REG_1).add_be32(2, base).add_be32(3, offset).add_be32(4, length)
    })
}

/// The kind of an address, such as one of this namespace.
fn fib(list: Message, which: u32) -> Message {
    expression(list, "fib", |data| data.add_be32(1, NFT_REG_1).add_be32(2, NFT_FIB_RESULT_ADDRTYPE).add_be32(3, which))
}

fn compare(list: Message, how: u32, value: &[u8]) -> Message {
    expression(list, "cmp", |data| {
        data.add_be32(1, NFT_REG_1).add_be32(2, how).nest(3, |nested| nested.add(NFTA_DATA_VALUE, value))
    })
}

fn compare_network(list: Message, offset: u32, network: &Network) -> Message {
    let mask = u32::MAX.checked_shl(32_u32.saturating_sub(network.length.into())).unwrap_or(0);
    let list = payload(list, NFT_PAYLOAD_NETWORK_HEADER, offset, 4);
    let list = expression(list, "bitwise", |data| {
        data.add_be32(1, NFT_REG_1)
            .add_be32(2, NFT_REG_1)
            .add_be32(3, 4)
            .nest(4, |nested| nested.add(NFTA_DATA_VALUE, &mask.to_be_bytes()))
            .nest(5, |nested| nested.add(NFTA_DATA_VALUE, &[0; 4]))
    });
    compare(list, NFT_CMP_EQ, &octets(network.first().address))
}

/// The name as the kernel compares it: with zero bytes up to its full size.
fn link_name(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (byte, letter) in bytes.iter_mut().zip(name.bytes()) {
        *byte = letter;
    }
    bytes
}
