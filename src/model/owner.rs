//! Whose a container is: several agents may work with one engine, each in a network namespace of its own.
//!
//! Owns the question "is this container ours?", which the core and the Docker edge both ask, and the rule which identity of another data
//! directory's contents may be taken over. Invariant: a container that names another agent is ours only if that agent's data directory was
//! this one, and it does not run.

use super::OwnerId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The identities whose containers belong to this agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owners {
    /// The identity that new containers carry.
    pub own: OwnerId,
    /// Identities that this data directory had before its contents were lost.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub earlier: BTreeSet<OwnerId>,
}

/// What a container says about the agent that made it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnerMark {
    /// Identity of that agent.
    pub id: OwnerId,
    /// Its data directory: the file system, and the path in it. Empty if that agent kept no data.
    pub place: String,
}

impl Owners {
    /// Does a container with this label belong to this agent? `None`: it has none, because it was made by a version that wrote none, or by
    /// the Go agent; then its other labels and its name say whether it is ours.
    pub fn owns(&self, label: Option<&OwnerId>) -> bool {
        label.is_none_or(|id| *id == self.own || self.earlier.contains(id))
    }

    /// Takes over the identities of a data directory whose contents were lost: those of containers that were made with the data directory
    /// at `place`, and of which no agent runs (`live`). Gives back the identities that were added.
    pub fn take_over(&mut self, marks: &[OwnerMark], place: &str, live: &BTreeSet<OwnerId>) -> BTreeSet<OwnerId> {
        let is_left = |mark: &&OwnerMark| !place.is_empty() && mark.place == place && !live.contains(&mark.id);
        let left: BTreeSet<OwnerId> =
            marks.iter().filter(is_left).map(|mark| mark.id.clone()).filter(|id| !self.owns(Some(id))).collect();
        self.earlier.extend(left.iter().cloned());
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(id: &str, place: &str) -> OwnerMark {
        OwnerMark { id: id.into(), place: place.to_owned() }
    }

    #[test]
    fn a_container_is_ours_by_its_label_or_has_none() {
        let owners = Owners { own: "a".into(), earlier: BTreeSet::from(["b".into()]) };
        for (label, is_ours) in
            [(None, true), (Some("a"), true), (Some("b"), true), (Some("c"), false), (Some(""), false)]
        {
            assert_eq!(owners.owns(label.map(OwnerId::from).as_ref()), is_ours, "{label:?}");
        }
    }

    #[test]
    fn only_idle_identities_of_this_directory_are_taken_over() {
        let marks = [
            mark("own", "8:1 /data"),
            mark("lost", "8:1 /data"),
            mark("runs", "8:1 /data"),
            mark("other", "8:2 /data"),
        ];
        let live = BTreeSet::from(["runs".into()]);
        let mut owners = Owners { own: "own".into(), ..Owners::default() };
        assert_eq!(owners.take_over(&marks, "8:1 /data", &live), BTreeSet::from(["lost".into()]));
        assert!(owners.owns(Some(&"lost".into())) && !owners.owns(Some(&"runs".into())));
        assert!(!owners.owns(Some(&"other".into())));
        assert_eq!(owners.take_over(&marks, "8:1 /data", &live), BTreeSet::new(), "once");
    }

    #[test]
    fn without_a_data_directory_nothing_is_taken_over() {
        let mut owners = Owners { own: "own".into(), ..Owners::default() };
        assert_eq!(owners.take_over(&[mark("lost", "")], "", &BTreeSet::new()), BTreeSet::new());
    }
}
