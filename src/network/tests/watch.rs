//! The watch of the host's interfaces.

use super::super::Watch;
use super::rig::{Rig, mac};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_device_is_seen_when_it_comes_and_goes() {
    let Some(rig) = Rig::new("a_device_is_seen_when_it_comes_and_goes") else { return };
    let mut watch = Watch::inside(Arc::new(rig.host.namespace())).unwrap();
    assert_eq!(watch.next().await.unwrap(), BTreeSet::new());
    rig.attach(1);
    assert_eq!(timeout(PATIENCE, watch.next()).await.unwrap().unwrap(), BTreeSet::from([mac(1)]));
    rig.attach(2);
    let both = BTreeSet::from([mac(1), mac(2)]);
    while timeout(PATIENCE, watch.next()).await.unwrap().unwrap() != both {}
    rig.host.shell("ip link del ens1");
    assert_eq!(timeout(PATIENCE, watch.next()).await.unwrap().unwrap(), BTreeSet::from([mac(2)]));
    let asked = watch.request();
    asked.notify_one();
    assert_eq!(timeout(PATIENCE, watch.next()).await.unwrap().unwrap(), BTreeSet::from([mac(2)]));
}

/// A list that changed all the time takes nothing away, and is read again soon.
#[tokio::test]
async fn a_partial_list_takes_nothing_away() {
    let Some(rig) = Rig::new("a_partial_list_takes_nothing_away") else { return };
    let mut watch = Watch::inside(Arc::new(rig.host.namespace())).unwrap();
    rig.attach(1);
    assert_eq!(watch.next().await.unwrap(), BTreeSet::from([mac(1)]));
    watch.take_links(&[], false);
    let soon = tokio::time::Instant::now() + Duration::from_secs(2);
    assert!(watch.due.is_some_and(|due| due < soon));
    watch.request().notify_one();
    assert_eq!(timeout(PATIENCE, watch.next()).await.unwrap().unwrap(), BTreeSet::from([mac(1)]));
    watch.take_links(&[], true);
    assert!(watch.due.is_some_and(|due| due > soon));
}

#[tokio::test]
async fn lost_events_are_made_up_for() {
    let Some(rig) = Rig::new("lost_events_are_made_up_for") else { return };
    let mut watch = Watch::inside(Arc::new(rig.host.namespace())).unwrap();
    watch.next().await.unwrap();
    watch.due = Some(tokio::time::Instant::now() + Duration::from_secs(3600));
    // More than the socket holds.
    rig.host.shell("for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do for j in 1 2 3 4 5 6 7 8 9; do ip link add n1 type veth peer name n2; ip link del n1; done; done");
    rig.attach(1);
    // All its events are lost, also those that come some time later.
    rig.host.shell("until ip -br link show ens1 | grep -q ' UP '; do sleep 0.1; done");
    while timeout(PATIENCE, watch.next()).await.unwrap().unwrap() != BTreeSet::from([mac(1)]) {}
    rig.host.shell("ip link del ens1");
    while timeout(PATIENCE, watch.next()).await.unwrap().unwrap() != BTreeSet::new() {}
}
