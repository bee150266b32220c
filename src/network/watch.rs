//! Which network interfaces are on the host, by their hardware addresses.
//!
//! The kernel reports each change of a link. All links are read again at the start, when somebody asks, when reports were lost, and every
//! 30 s. Links of every kind count: which of them ECS has announced, others know.

use crate::lane::{self, Lane, LaneError};
use ecs_core::model::interface::MacAddress;
use ecs_netlink::{Errno, Error, Link, LinkEvent, LinkEvents, Namespace, Protocol};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The time between two readings of all links, as in the Go agent (spec `networking.md` §3.3).
const PERIOD: Duration = Duration::from_secs(30);
/// The same after a reading during which the links changed all the time.
const SOON: Duration = Duration::from_secs(1);
const LANE: lane::Settings = lane::Settings { threads: 1, spare: 1, limit: Duration::from_secs(10) };

/// Why the links are not known.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The kernel refused a question.
    #[error("the network interfaces of this host cannot be read: {0}")]
    Kernel(#[from] Error),
    /// The socket cannot be waited for.
    #[error("the network interfaces of this host cannot be watched: {0}")]
    Socket(#[from] io::Error),
    /// The kernel did not answer.
    #[error(transparent)]
    Lane(#[from] LaneError),
}

/// Watches the links of the host.
#[derive(Debug)]
pub struct Watch {
    events: AsyncFd<LinkEvents>,
    namespace: Arc<Namespace>,
    lane: Lane,
    /// The links with a hardware address, by their number.
    links: BTreeMap<u32, MacAddress>,
    /// When all links are read again; `None`: at once.
    pub(super) due: Option<Instant>,
    /// Somebody waits for the result of the reading that is due.
    is_asked: bool,
    ask: Arc<Notify>,
}

impl Watch {
    /// Begins to watch, in the namespace of this thread.
    ///
    /// # Errors
    /// The system's.
    pub fn open() -> Result<Self, WatchError> {
        Self::inside(Arc::new(Namespace::current()?))
    }

    /// Begins to watch in a namespace.
    pub(super) fn inside(namespace: Arc<Namespace>) -> Result<Self, WatchError> {
        let events = namespace.on_a_thread(LinkEvents::open)?;
        // Its successor is `unsafe`, because `AsyncFd` trusts that the descriptor stays open and the same: `LinkEvents` owns its own.
        #[expect(deprecated)]
        let events = AsyncFd::with_interest(events, Interest::READABLE)?;
        Ok(Self {
            events,
            namespace,
            lane: Lane::new("network interfaces", LANE),
            links: BTreeMap::new(),
            due: None,
            is_asked: true,
            ask: Arc::default(),
        })
    }

    /// To ask for a new reading, from wherever.
    pub fn request(&self) -> Arc<Notify> {
        Arc::clone(&self.ask)
    }

    /// Waits for a change, and returns the hardware addresses of all links on the host: at once the first time, and after each
    /// request also without a change. If the caller stops waiting, nothing is lost.
    ///
    /// # Errors
    /// [`WatchError`]. The next call reads all links.
    pub async fn next(&mut self) -> Result<BTreeSet<MacAddress>, WatchError> {
        let before = self.addresses();
        loop {
            match self.due {
                Some(due) => tokio::select! {
                    ready = self.events.readable() => {
                        ready?.clear_ready();
                        self.take_events()?;
                    }
                    () = self.ask.notified() => (self.is_asked, self.due) = (true, None),
                    () = sleep_until(due) => self.due = None,
                },
                None => self.read_all().await?,
            }
            let after = self.addresses();
            if self.due.is_some() && (self.is_asked || after != before) {
                self.is_asked = false;
                return Ok(after);
            }
        }
    }

    fn addresses(&self) -> BTreeSet<MacAddress> {
        self.links.values().copied().collect()
    }

    /// Events that came before the reading are applied after it: the last event of a link is right in any case.
    async fn read_all(&mut self) -> Result<(), WatchError> {
        let namespace = Arc::clone(&self.namespace);
        let read = move || namespace.socket(Protocol::Route).and_then(|socket| socket.links_if_whole());
        let (links, is_whole) = self.lane.run("the list of network interfaces", read).await??;
        self.take_links(&links, is_whole);
        Ok(())
    }

    /// A link that is missing in a list that is not whole may be there all the same.
    pub(super) fn take_links(&mut self, links: &[Link], is_whole: bool) {
        if is_whole {
            self.links.clear();
        }
        self.links.extend(links.iter().filter_map(|link| Some((link.index, address(link)?))));
        self.due = Some(Instant::now() + if is_whole { PERIOD } else { SOON });
    }

    fn take_events(&mut self) -> Result<(), WatchError> {
        let events = match self.events.get_ref().read() {
            Err(error) if error.is(Errno::NOBUFS) => {
                self.due = None;
                return Ok(());
            }
            events => events?,
        };
        for event in events {
            match event {
                LinkEvent::Removed(index) => _ = self.links.remove(&index),
                LinkEvent::Present(link) => match address(&link) {
                    Some(mac) => _ = self.links.insert(link.index, mac),
                    None => _ = self.links.remove(&link.index),
                },
            }
        }
        Ok(())
    }
}

/// The link's hardware address; `None`: it has none, as the loopback.
fn address(link: &Link) -> Option<MacAddress> {
    link.mac.filter(|mac| *mac != [0; 6]).map(MacAddress)
}
