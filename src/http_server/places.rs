//! The places of a server: how many simultaneous connections there may be, and which of them yields to a new one.
//!
//! Pure. The rules: some places are reserved for this host; each peer has a limit; a connection whose request has not arrived yet
//! yields to a new connection, the oldest first; a connection that is being answered does not yield. Invariant: admitting a
//! connection never breaks a rule.

use super::peer::{Peer, Standing};
use std::net::{IpAddr, Ipv6Addr};

/// Limits on the number of simultaneous connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The limit for all peers together.
    pub total: usize,
    /// The part of `total` that is reserved for this host.
    pub kept_for_host: usize,
    /// The limit for one peer that is not on this host: one IPv4 address, or one IPv6 network of 64 bits. The limit for one peer
    /// on this host (one address or one user) is `total` less `kept_for_host`.
    pub per_peer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { total: 64, kept_for_host: 16, per_peer: 16 }
    }
}

impl Limits {
    /// The limit for one peer. On this host, one address must leave places to another (`127.0.0.1` to `::1`), and one user to
    /// root.
    fn per_peer(&self, standing: Standing) -> usize {
        match standing {
            Standing::Host => self.total - self.kept_for_host.min(self.total),
            Standing::Bridge | Standing::Other => self.per_peer,
        }
    }
}

/// One connection and its peer.
#[derive(Debug)]
struct Place<C> {
    peer: Key,
    on_host: bool,
    connection: C,
}

/// The state of a connection that decides whether it yields its place.
pub(super) trait Connection {
    /// True until the head of a request has arrived.
    fn is_waiting(&self) -> bool;
}

/// The occupied places, the oldest connection first.
#[derive(Debug)]
pub(super) struct Places<C> {
    limits: Limits,
    taken: Vec<Place<C>>,
}

/// The result of a search for a place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Room<C> {
    /// A place is free.
    Free,
    /// A place is free, because this connection lost its own and is to be closed.
    MadeBy(C),
    /// No place is free.
    None,
}

impl<C: Connection> Places<C> {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, taken: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.taken.len()
    }

    /// Looks for a place for a new connection of this peer; [`Self::enter`] then takes it.
    pub(super) fn room_for(&mut self, peer: Peer, standing: Standing) -> Room<C> {
        let (peer, on_host) = (key(peer), standing == Standing::Host);
        let from_peer = |place: &Place<C>| place.peer == peer;
        if self.count(from_peer) >= self.limits.per_peer(standing) {
            return self.make_room(from_peer);
        }
        let others = self.limits.total.saturating_sub(self.limits.kept_for_host);
        if !on_host && self.count(|place| !place.on_host) >= others {
            return self.make_room(|place| !place.on_host);
        }
        if self.taken.len() < self.limits.total {
            return Room::Free;
        }
        // A connection from this host first replaces one from elsewhere, then one of its own. Other peers replace none from this
        // host.
        match self.make_room(|place| !place.on_host) {
            Room::None if on_host => self.make_room(|place| place.on_host),
            room => room,
        }
    }

    /// Takes a place that [`Self::room_for`] has found.
    pub(super) fn enter(&mut self, peer: Peer, standing: Standing, connection: C) {
        self.taken.push(Place { peer: key(peer), on_host: standing == Standing::Host, connection });
    }

    /// Frees a place; has no effect for a connection that has already lost its place.
    pub(super) fn leave(&mut self, is_it: impl Fn(&C) -> bool) {
        self.taken.retain(|place| !is_it(&place.connection));
    }

    fn count(&self, which: impl Fn(&Place<C>) -> bool) -> usize {
        self.taken.iter().filter(|place| which(place)).count()
    }

    fn make_room(&mut self, among: impl Fn(&Place<C>) -> bool) -> Room<C> {
        let oldest = self.taken.iter().position(|place| among(place) && place.connection.is_waiting());
        oldest.map_or(Room::None, |index| Room::MadeBy(self.taken.remove(index).connection))
    }
}

/// The unit that the limit for one peer applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    /// One IPv4 address, or the first address of an IPv6 network.
    Network(IpAddr),
    User(Option<u32>),
}

fn key(peer: Peer) -> Key {
    match peer {
        Peer::Address(from) => Key::Network(network(from.ip())),
        Peer::User(user) => Key::User(user),
    }
}

/// The unit of a peer. An owner of one IPv6 address has a whole network of them, so the network counts.
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

    /// A number, and whether it still waits for a head.
    type Fake = (u32, bool);

    impl Connection for Fake {
        fn is_waiting(&self) -> bool {
            self.1
        }
    }

    const LIMITS: Limits = Limits { total: 6, kept_for_host: 2, per_peer: 2 };
    const WAITS: bool = true;
    const ANSWERED: bool = false;

    fn at(peer: &str) -> Peer {
        Peer::Address((peer.parse::<IpAddr>().unwrap(), 1).into())
    }

    fn places(taken: &[(&str, Standing, bool)]) -> Places<Fake> {
        let mut places = Places::new(LIMITS);
        for (number, (peer, standing, waits)) in (0..).zip(taken) {
            places.enter(at(peer), *standing, (number, *waits));
        }
        places
    }

    fn room(places: &mut Places<Fake>, peer: &str, standing: Standing) -> Room<Fake> {
        places.room_for(at(peer), standing)
    }

    use Standing::{Bridge, Host, Other};

    #[test]
    fn one_peer_makes_room_for_itself_only() {
        let mut some = places(&[("10.0.0.1", Bridge, WAITS), ("10.0.0.2", Bridge, WAITS), ("10.0.0.2", Bridge, WAITS)]);
        assert_eq!(room(&mut some, "10.0.0.2", Bridge), Room::MadeBy((1, WAITS)));
        assert_eq!(room(&mut some, "10.0.0.1", Bridge), Room::Free);
        let mut busy = places(&[("10.0.0.2", Bridge, ANSWERED), ("10.0.0.2", Bridge, ANSWERED)]);
        assert_eq!(room(&mut busy, "10.0.0.2", Bridge), Room::None, "answers are not cut off");
    }

    #[test]
    fn an_ipv6_network_is_one_peer() {
        let mut some = places(&[("2001:db8::1", Other, ANSWERED), ("2001:db8::ffff:2", Other, ANSWERED)]);
        assert_eq!(room(&mut some, "2001:db8::3", Other), Room::None);
        assert_eq!(room(&mut some, "2001:db8:0:1::3", Other), Room::Free);
        let mut mapped = places(&[("::ffff:10.0.0.1", Other, ANSWERED), ("10.0.0.1", Other, ANSWERED)]);
        assert_eq!(room(&mut mapped, "::ffff:10.0.0.1", Other), Room::None);
        assert_eq!(room(&mut mapped, "::ffff:10.0.0.2", Other), Room::Free);
    }

    #[test]
    fn strangers_never_take_the_places_of_the_host() {
        let four = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"];
        let mut full = places(&four.map(|peer| (peer, Other, ANSWERED)));
        assert_eq!(room(&mut full, "10.0.0.5", Other), Room::None);
        assert_eq!(room(&mut full, "10.0.0.5", Bridge), Room::None);
        assert_eq!(room(&mut full, "127.0.0.1", Host), Room::Free);
        let mut half_open = places(&four.map(|peer| (peer, Other, WAITS)));
        assert_eq!(room(&mut half_open, "10.0.0.5", Other), Room::MadeBy((0, WAITS)), "the oldest");
    }

    #[test]
    fn the_host_takes_from_strangers_before_itself() {
        let mut full = places(&[
            ("127.0.0.1", Host, WAITS),
            ("127.0.0.1", Host, WAITS),
            ("::1", Host, WAITS),
            ("10.0.0.3", Other, ANSWERED),
            ("10.0.0.4", Other, WAITS),
            ("::1", Host, WAITS),
        ]);
        assert_eq!(room(&mut full, "127.0.0.1", Host), Room::MadeBy((4, WAITS)));
        full.enter(at("10.0.0.5"), Other, (9, ANSWERED));
        assert_eq!(room(&mut full, "127.0.0.1", Host), Room::MadeBy((0, WAITS)));
        full.enter(at("127.0.0.1"), Host, (10, ANSWERED));
        assert_eq!(full.len(), 6);
        let mut host_only = places(&[("127.0.0.1", Host, WAITS); 6]);
        assert_eq!(room(&mut host_only, "10.0.0.1", Bridge), Room::None, "strangers take nothing from the host");
    }

    #[test]
    fn one_address_of_the_host_leaves_places_to_another() {
        let mut busy = places(&[("127.0.0.1", Host, ANSWERED); 4]);
        assert_eq!(room(&mut busy, "127.0.0.1", Host), Room::None);
        assert_eq!(room(&mut busy, "::1", Host), Room::Free);
    }

    #[test]
    fn one_user_leaves_places_to_root() {
        let (mallory, root) = (Peer::User(Some(1000)), Peer::User(Some(0)));
        let mut busy = Places::new(LIMITS);
        (0..4).for_each(|number| busy.enter(mallory, Host, (number, ANSWERED)));
        assert_eq!(busy.room_for(mallory, Host), Room::None);
        assert_eq!(busy.room_for(root, Host), Room::Free);
        let mut half_open = Places::new(LIMITS);
        (0..4).for_each(|number| half_open.enter(mallory, Host, (number, WAITS)));
        assert_eq!(half_open.room_for(mallory, Host), Room::MadeBy((0, WAITS)), "room for itself");
    }

    #[test]
    fn a_place_given_back_is_free() {
        let mut busy = places(&[("10.0.0.2", Bridge, ANSWERED), ("10.0.0.2", Bridge, ANSWERED)]);
        busy.leave(|(number, _)| *number == 0);
        assert_eq!(room(&mut busy, "10.0.0.2", Bridge), Room::Free);
        busy.leave(|(number, _)| *number == 0);
        assert_eq!(busy.len(), 1);
    }
}
