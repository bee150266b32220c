//! The volumes of scope `shared` that a run of `up` makes: like ECS, `up` keeps them for later tasks. This module says so, and removes
//! them on request. It also says which volumes are left of sessions that were killed. Invariant: a volume that was there before the
//! run is never removed.

use super::child::output;
use super::output::print_error;
use serde_json::Value;
use std::collections::BTreeSet;

/// The shared volumes of a definition that the agent makes if they are needed.
#[derive(Debug, Default)]
pub(super) struct SharedVolumes(BTreeSet<String>);

impl SharedVolumes {
    /// Before the run: the volumes that are not there yet.
    pub(super) async fn before(definition: &Value) -> Self {
        let mut names = autoprovisioned(definition);
        if !names.is_empty() {
            // Without an answer, no volume is known to be new.
            let Ok(existing) = existing().await else { return Self::default() };
            names.retain(|name| !existing.contains(name));
        }
        Self(names)
    }

    /// After the run, when its containers are removed: removes the volumes that were made, or says that they stay.
    pub(super) async fn after(mut self, remove: bool, quiet: bool) {
        if self.0.is_empty() {
            return;
        }
        match existing().await {
            Ok(existing) => self.0.retain(|name| existing.contains(name)),
            Err(problem) => return print_error(&format!("shared volumes may be left: {problem}")),
        }
        if !remove {
            if let Some(text) = kept(&self.0).filter(|_| !quiet) {
                print_error(&text);
            }
            return;
        }
        for name in &self.0 {
            if let Err(problem) = output("docker", &["volume", "rm", "--", name]).await {
                print_error(&format!("the shared volume {name} stays: {problem}"));
            }
        }
    }
}

/// The names of all volumes of Docker.
async fn existing() -> Result<BTreeSet<String>, String> {
    Ok(output("docker", &["volume", "ls", "--quiet"]).await?.lines().map(str::to_owned).collect())
}

/// The names of the volumes that are made if they are missing. They are the names in Docker, too.
fn autoprovisioned(definition: &Value) -> BTreeSet<String> {
    let volumes = definition["volumes"].as_array().into_iter().flatten();
    let is_made = |volume: &&Value| {
        let docker = &volume["dockerVolumeConfiguration"];
        docker["scope"] == "shared" && docker["autoprovision"] == true
    };
    volumes.filter(is_made).filter_map(|volume| Some(volume["name"].as_str()?.to_owned())).collect()
}

/// Says that volumes stay; `None`: there are none.
fn kept(names: &BTreeSet<String>) -> Option<String> {
    let list = names.iter().map(String::as_str).collect::<Vec<_>>();
    let (volumes, them) = if let [_] = list[..] { ("volume", "it") } else { ("volumes", "them") };
    let (shown, words) = (list.join(", "), list.join(" "));
    (!list.is_empty()).then(|| {
        format!(
            "kept for later tasks (scope shared): the {volumes} {shown}. To remove {them}: docker volume rm {words} (or `up` with \
             --remove-volumes)"
        )
    })
}

/// Says which of these volumes of earlier sessions are still there, and how to remove them; `None`: there are none. Nobody knows whether
/// these sessions have made them, so no command removes them.
pub(super) async fn still_there(mut names: BTreeSet<String>) -> Option<String> {
    if !names.is_empty() {
        // Without an answer, they may all be there.
        let existing = existing().await.unwrap_or_else(|_| names.clone());
        names.retain(|name| existing.contains(name));
    }
    left(&names)
}

fn left(names: &BTreeSet<String>) -> Option<String> {
    let list = names.iter().map(String::as_str).collect::<Vec<_>>();
    let them = if let [_] = list[..] { "it" } else { "them" };
    (!list.is_empty()).then(|| {
        format!(
            "Volumes that earlier sessions used, which `clean` keeps for their data: {}. If nobody needs {them}: docker volume rm {}",
            list.join(", "),
            list.join(" ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_shared_volumes_that_up_makes_are_named() {
        let volume = |name: &str, docker: Value| json!({"name": name, "dockerVolumeConfiguration": docker});
        let definition = json!({"volumes": [
            volume("b", json!({"scope": "shared", "autoprovision": true})),
            volume("a", json!({"scope": "shared", "autoprovision": true})),
            volume("mine", json!({"scope": "shared"})),
            volume("task", json!({"scope": "task"})),
            {"name": "host"},
        ]});
        let text = kept(&autoprovisioned(&definition)).unwrap();
        assert!(text.contains("the volumes a, b. To remove them: docker volume rm a b ("), "{text}");
        assert_eq!(kept(&autoprovisioned(&json!({"volumes": 5}))), None);
        let text = left(&["b", "a"].map(str::to_owned).into()).unwrap();
        assert!(text.ends_with("data: a, b. If nobody needs them: docker volume rm a b"), "{text}");
        assert!(left(&["a".to_owned()].into()).unwrap().ends_with("needs it: docker volume rm a"));
        assert_eq!(left(&BTreeSet::new()), None);
    }
}
