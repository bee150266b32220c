//! The slots of a server: each open connection occupies one. Decides how many there may be, and which connection is closed
//! (evicted) for a new one.
//!
//! Owns no sockets. The rules: some slots are reserved for this host, and some may be for others; each peer has a limit; for a new
//! connection, the one that has waited longest for a request is evicted; a connection that is being answered is never evicted.
//! Invariant: admitting a connection never breaks a rule.

use super::peer::{Peer, PeerLocation};
use std::net::{IpAddr, Ipv6Addr};
use tokio::time::Instant;

/// Limits on the number of simultaneous connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The limit for all peers together.
    pub total: usize,
    /// The part of `total` that is reserved for this host.
    pub reserved_for_host: usize,
    /// The part of `total` that is reserved for all other peers. Above 0 where containers are the clients: tasks in network mode host
    /// are on this host too, and have as many addresses as they like.
    pub reserved_for_others: usize,
    /// The limit for one peer that is not on this host: one IPv4 address, or one IPv6 network of 64 bits. The limit for one peer
    /// on this host (one address or one user) is `total` less `reserved_for_host`.
    pub per_peer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { total: 64, reserved_for_host: 16, reserved_for_others: 0, per_peer: 16 }
    }
}

impl Limits {
    /// The limit for one peer. On this host, one address must leave slots for another (`127.0.0.1` for `::1`), and one user for
    /// root.
    fn per_peer(&self, location: PeerLocation) -> usize {
        match location {
            PeerLocation::Host => self.total - self.reserved_for_host.min(self.total),
            PeerLocation::Bridge | PeerLocation::Other => self.per_peer,
        }
    }
}

/// One connection and its peer.
#[derive(Debug)]
struct Slot<C> {
    peer: Key,
    on_host: bool,
    connection: C,
}

/// What the slots must know about a connection.
pub(super) trait Connection {
    /// Since when the connection has waited for a request; `None` while it has one to answer. Then it cannot be evicted.
    fn waits_since(&self) -> Option<Instant>;
}

/// The occupied slots.
#[derive(Debug)]
pub(super) struct Slots<C> {
    limits: Limits,
    /// The oldest connection first.
    taken: Vec<Slot<C>>,
}

/// The result of a search for a slot.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FoundSlot<C> {
    /// A slot is free.
    Free,
    /// A slot is free because this connection was evicted. The caller must close it.
    Evicted(C),
    /// No slot is free.
    None,
}

impl<C: Connection> Slots<C> {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, taken: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.taken.len()
    }

    /// Looks for a slot for a new connection of this peer, and evicts another connection if necessary. [`Self::enter`] then
    /// takes the slot.
    pub(super) fn find_slot(&mut self, peer: Peer, location: PeerLocation) -> FoundSlot<C> {
        let (peer, on_host) = (key(peer), location == PeerLocation::Host);
        let from_peer = |slot: &Slot<C>| slot.peer == peer;
        if self.count(from_peer) >= self.limits.per_peer(location) {
            return self.evict(from_peer);
        }
        let reserved = if on_host { self.limits.reserved_for_others } else { self.limits.reserved_for_host };
        let on_same_side = |slot: &Slot<C>| slot.on_host == on_host;
        if self.count(on_same_side) >= self.limits.total.saturating_sub(reserved) {
            return self.evict(on_same_side);
        }
        if self.taken.len() < self.limits.total {
            return FoundSlot::Free;
        }
        // A connection from this host first evicts one from elsewhere, then one from this host. Other peers never evict one from
        // this host.
        match self.evict(|slot| !slot.on_host) {
            FoundSlot::None if on_host => self.evict(|slot| slot.on_host),
            found => found,
        }
    }

    /// Takes a slot that [`Self::find_slot`] has found.
    pub(super) fn enter(&mut self, peer: Peer, location: PeerLocation, connection: C) {
        self.taken.push(Slot { peer: key(peer), on_host: location == PeerLocation::Host, connection });
    }

    /// Frees the slot of the connection for which `is_closed` is true, if it still has one.
    pub(super) fn leave(&mut self, is_closed: impl Fn(&C) -> bool) {
        self.taken.retain(|slot| !is_closed(&slot.connection));
    }

    fn count(&self, which: impl Fn(&Slot<C>) -> bool) -> usize {
        self.taken.iter().filter(|slot| which(slot)).count()
    }

    /// Evicts the connection that has waited longest, of those for which `among` is true.
    fn evict(&mut self, among: impl Fn(&Slot<C>) -> bool) -> FoundSlot<C> {
        let waiting = self.taken.iter().enumerate().filter(|(_, slot)| among(slot));
        let waiting = waiting.filter_map(|(index, slot)| Some((slot.connection.waits_since()?, index)));
        waiting.min().map_or(FoundSlot::None, |(_, index)| FoundSlot::Evicted(self.taken.remove(index).connection))
    }
}

/// The unit that the limit for one peer applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    /// One IPv4 address, or the first address of an IPv6 network.
    Network(IpAddr),
    /// One user of this host; `None`: unknown users together.
    User(Option<u32>),
}

fn key(peer: Peer) -> Key {
    match peer {
        Peer::Address(from) => Key::Network(network(from.ip())),
        Peer::User(user) => Key::User(user),
    }
}

/// The network of a peer. The owner of one IPv6 address usually has a whole network of them, so the limit applies to the
/// network.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(peer) if !peer.is_loopback() => {
            let [a, b, c, d, ..] = peer.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        peer => peer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::LazyLock;
    use std::time::Duration;

    /// A number, and whether it still waits for a head.
    type Fake = (u32, bool);

    impl Connection for Fake {
        fn waits_since(&self) -> Option<Instant> {
            static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
            self.1.then(|| *BEGIN + Duration::from_secs(self.0.into()))
        }
    }

    const LIMITS: Limits = Limits { total: 6, reserved_for_host: 2, reserved_for_others: 0, per_peer: 2 };
    const WAITS: bool = true;
    const ANSWERED: bool = false;

    fn at(peer: &str) -> Peer {
        Peer::Address((peer.parse::<IpAddr>().unwrap(), 1).into())
    }

    fn slots(taken: &[(&str, PeerLocation, bool)]) -> Slots<Fake> {
        let mut slots = Slots::new(LIMITS);
        for (number, (peer, location, waits)) in (0..).zip(taken) {
            slots.enter(at(peer), *location, (number, *waits));
        }
        slots
    }

    fn find(slots: &mut Slots<Fake>, peer: &str, location: PeerLocation) -> FoundSlot<Fake> {
        slots.find_slot(at(peer), location)
    }

    use PeerLocation::{Bridge, Host, Other};

    #[test]
    fn one_peer_evicts_only_its_own_connections() {
        let mut some = slots(&[("10.0.0.1", Bridge, WAITS), ("10.0.0.2", Bridge, WAITS), ("10.0.0.2", Bridge, WAITS)]);
        assert_eq!(find(&mut some, "10.0.0.2", Bridge), FoundSlot::Evicted((1, WAITS)));
        assert_eq!(find(&mut some, "10.0.0.1", Bridge), FoundSlot::Free);
        let mut busy = slots(&[("10.0.0.2", Bridge, ANSWERED), ("10.0.0.2", Bridge, ANSWERED)]);
        assert_eq!(find(&mut busy, "10.0.0.2", Bridge), FoundSlot::None, "answers are not cut off");
    }

    #[test]
    fn an_ipv6_network_is_one_peer() {
        let mut some = slots(&[("2001:db8::1", Other, ANSWERED), ("2001:db8::ffff:2", Other, ANSWERED)]);
        assert_eq!(find(&mut some, "2001:db8::3", Other), FoundSlot::None);
        assert_eq!(find(&mut some, "2001:db8:0:1::3", Other), FoundSlot::Free);
        let mut mapped = slots(&[("::ffff:10.0.0.1", Other, ANSWERED), ("10.0.0.1", Other, ANSWERED)]);
        assert_eq!(find(&mut mapped, "::ffff:10.0.0.1", Other), FoundSlot::None);
        assert_eq!(find(&mut mapped, "::ffff:10.0.0.2", Other), FoundSlot::Free);
    }

    #[test]
    fn strangers_never_take_the_slots_of_the_host() {
        let four = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"];
        let mut full = slots(&four.map(|peer| (peer, Other, ANSWERED)));
        assert_eq!(find(&mut full, "10.0.0.5", Other), FoundSlot::None);
        assert_eq!(find(&mut full, "10.0.0.5", Bridge), FoundSlot::None);
        assert_eq!(find(&mut full, "127.0.0.1", Host), FoundSlot::Free);
        let mut half_open = slots(&four.map(|peer| (peer, Other, WAITS)));
        assert_eq!(find(&mut half_open, "10.0.0.5", Other), FoundSlot::Evicted((0, WAITS)), "the oldest");
    }

    #[test]
    fn the_host_takes_from_strangers_before_itself() {
        let mut full = slots(&[
            ("127.0.0.1", Host, WAITS),
            ("127.0.0.1", Host, WAITS),
            ("::1", Host, WAITS),
            ("10.0.0.3", Other, ANSWERED),
            ("10.0.0.4", Other, WAITS),
            ("::1", Host, WAITS),
        ]);
        assert_eq!(find(&mut full, "127.0.0.1", Host), FoundSlot::Evicted((4, WAITS)));
        full.enter(at("10.0.0.5"), Other, (9, ANSWERED));
        assert_eq!(find(&mut full, "127.0.0.1", Host), FoundSlot::Evicted((0, WAITS)));
        full.enter(at("127.0.0.1"), Host, (10, ANSWERED));
        assert_eq!(full.len(), 6);
        let mut host_only = slots(&[("127.0.0.1", Host, WAITS); 6]);
        assert_eq!(find(&mut host_only, "10.0.0.1", Bridge), FoundSlot::None, "strangers take nothing from the host");
    }

    #[test]
    fn the_host_never_takes_the_slots_of_others() {
        let limits = Limits { reserved_for_others: 2, ..LIMITS };
        let mut busy = Slots::new(limits);
        for (number, peer) in (0..).zip(["127.0.0.1", "127.0.0.2", "127.0.0.3", "10.9.9.9"]) {
            busy.enter(at(peer), Host, (number, number == 1));
        }
        assert_eq!(find(&mut busy, "127.0.0.4", Host), FoundSlot::Evicted((1, WAITS)), "one of its own");
        busy.enter(at("127.0.0.4"), Host, (4, ANSWERED));
        assert_eq!(find(&mut busy, "127.0.0.5", Host), FoundSlot::None);
        for number in 5..7 {
            assert_eq!(find(&mut busy, "10.0.0.1", Bridge), FoundSlot::Free);
            busy.enter(at("10.0.0.1"), Bridge, (number, WAITS));
        }
        assert_eq!(find(&mut busy, "127.0.0.5", Host), FoundSlot::None, "containers keep what is reserved for them");
        assert_eq!(find(&mut busy, "10.0.0.1", Bridge), FoundSlot::Evicted((5, WAITS)));
    }

    #[test]
    fn one_address_of_the_host_leaves_slots_to_another() {
        let mut busy = slots(&[("127.0.0.1", Host, ANSWERED); 4]);
        assert_eq!(find(&mut busy, "127.0.0.1", Host), FoundSlot::None);
        assert_eq!(find(&mut busy, "::1", Host), FoundSlot::Free);
    }

    #[test]
    fn one_user_leaves_slots_to_root() {
        let (mallory, root) = (Peer::User(Some(1000)), Peer::User(Some(0)));
        let mut busy = Slots::new(LIMITS);
        (0..4).for_each(|number| busy.enter(mallory, Host, (number, ANSWERED)));
        assert_eq!(busy.find_slot(mallory, Host), FoundSlot::None);
        assert_eq!(busy.find_slot(root, Host), FoundSlot::Free);
        let mut half_open = Slots::new(LIMITS);
        (0..4).for_each(|number| half_open.enter(mallory, Host, (number, WAITS)));
        assert_eq!(half_open.find_slot(mallory, Host), FoundSlot::Evicted((0, WAITS)), "its own slot");
    }

    #[test]
    fn a_slot_given_back_is_free() {
        let mut busy = slots(&[("10.0.0.2", Bridge, ANSWERED), ("10.0.0.2", Bridge, ANSWERED)]);
        busy.leave(|(number, _)| *number == 0);
        assert_eq!(find(&mut busy, "10.0.0.2", Bridge), FoundSlot::Free);
        busy.leave(|(number, _)| *number == 0);
        assert_eq!(busy.len(), 1);
    }
}
