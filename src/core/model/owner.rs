//! The agent that a container belongs to: several agents may use one Docker, each in a network namespace of its own.
//!
//! Owns the decision whether a container is ours, which the core and the Docker edge both need, and the rule that says which
//! earlier identities this agent may take over. Invariant: a container that names another agent is ours only if that agent used
//! this data directory and does not run.

use super::OwnerId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The identities whose containers belong to this agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owners {
    /// The identity that new containers have as a label.
    pub own: OwnerId,
    /// Identities that the agent in this data directory had before the directory's contents were lost.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub earlier: BTreeSet<OwnerId>,
}

/// The labels of a container about the agent that created it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnerMark {
    /// The identity of that agent.
    pub id: OwnerId,
    /// The data directory of that agent: the file system, and the path in it. Empty if the agent kept no data.
    pub data_directory: String,
}

impl Owners {
    /// Whether a container with this label belongs to this agent. `None`: it has no such label, because the Go agent or an older
    /// version created it; then its other labels and its name decide.
    pub fn owns(&self, label: Option<&OwnerId>) -> bool {
        label.is_none_or(|id| *id == self.own || self.earlier.contains(id))
    }

    /// Takes over the earlier identities of a data directory whose contents were lost. `marks` are the owner labels of all
    /// containers. An identity is taken over if its agent used this data directory (`own_directory`) and does not run (`live`
    /// lists the identities of the agents that run). Returns the identities that were added.
    pub fn take_over(
        &mut self,
        marks: &[OwnerMark],
        own_directory: &str,
        live: &BTreeSet<OwnerId>,
    ) -> BTreeSet<OwnerId> {
        let is_abandoned = |mark: &&OwnerMark| {
            !own_directory.is_empty() && mark.data_directory == own_directory && !live.contains(&mark.id)
        };
        let abandoned: BTreeSet<OwnerId> =
            marks.iter().filter(is_abandoned).map(|mark| mark.id.clone()).filter(|id| !self.owns(Some(id))).collect();
        self.earlier.extend(abandoned.iter().cloned());
        abandoned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(id: &str, data_directory: &str) -> OwnerMark {
        OwnerMark { id: id.into(), data_directory: data_directory.to_owned() }
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
