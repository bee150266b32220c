//! What is found in a directory at the start.

use super::super::tests::Scratch;
use super::*;
use std::os::unix::fs::PermissionsExt;

fn digest(seed: &str) -> Digest {
    Digest::compute(seed.as_bytes())
}

/// A registry with one layer.
fn filled(name: &str) -> Scratch {
    let scratch = Scratch::new(name);
    let (directory, found) = Directory::open(&scratch.registry()).unwrap();
    assert!(found.is_empty());
    let mut temporary = directory.temporary().unwrap();
    temporary.file().unwrap().write_all(b"lay").unwrap();
    temporary.close();
    temporary.file().unwrap().write_all(b"er").unwrap();
    directory.keep(temporary, &digest("layer")).unwrap();
    directory.write_state("{}").unwrap();
    scratch
}

fn problem(scratch: &Scratch) -> String {
    Directory::open(&scratch.registry()).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn layers_and_state_are_found_again() {
    let scratch = filled("again");
    let (directory, found) = Directory::open(&scratch.registry()).unwrap();
    assert_eq!(found.iter().map(|(digest, found)| (*digest, found.size)).collect::<Vec<_>>(), [(digest("layer"), 5)]);
    assert_eq!(directory.read_state().unwrap().as_deref(), Some("{}"));
    directory.write_state("{\"a\": 1}").unwrap();
    assert_eq!(directory.read_state().unwrap().as_deref(), Some("{\"a\": 1}"));
    for path in ["ecs-local-registry", "state.json", "blobs", "manifests", "uploads", "."] {
        let mode = std::fs::metadata(scratch.registry().join(path)).unwrap().mode() & 0o077;
        assert_eq!(mode, 0, "{path}: no other user can reach it");
    }
}

#[test]
fn a_directory_has_one_server() {
    let scratch = filled("lock");
    let open = Directory::open(&scratch.registry()).unwrap();
    assert!(problem(&scratch).ends_with("another ecs-local uses it"));
    drop(open);
    Directory::open(&scratch.registry()).unwrap();
}

#[test]
fn what_a_killed_server_left_is_removed() {
    let scratch = filled("killed");
    let number = "0".repeat(32);
    std::fs::write(scratch.registry().join("uploads").join(&number), "half").unwrap();
    std::fs::write(scratch.registry().join("state.json.new"), "half").unwrap();
    let twin = scratch.registry().join("blobs").join(format!("{}.{number}", digest("layer").hex()));
    std::fs::write(twin, "layer").unwrap();
    let (directory, found) = Directory::open(&scratch.registry()).unwrap();
    assert_eq!((found.len(), scratch.names("uploads").len(), scratch.names("blobs").len()), (1, 0, 1));
    assert!(!scratch.registry().join("state.json.new").exists());
    assert!(directory.layer(&found[&digest("layer")].name).is_ok());
}

#[test]
fn files_of_others_are_refused_and_stay() {
    for place in
        ["notes.txt", "blobs/notes.txt", "manifests/notes.txt", "uploads/notes.txt", "blobs/sha256", "uploads/x/y"]
    {
        let scratch = filled("others");
        let path = scratch.registry().join(place);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "mine").unwrap();
        assert!(problem(&scratch).contains("is not a registry's"), "{place}: {}", problem(&scratch));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }
    let scratch = Scratch::new("foreign");
    std::fs::create_dir(scratch.registry()).unwrap();
    std::fs::write(scratch.registry().join("thesis.txt"), "mine").unwrap();
    // With any mode: to close such a directory is no advice.
    for mode in [0o700, 0o755] {
        std::fs::set_permissions(scratch.registry(), std::fs::Permissions::from_mode(mode)).unwrap();
        assert!(problem(&scratch).contains("`thesis.txt` is not a registry's"), "{mode:o}: {}", problem(&scratch));
    }
    assert_eq!(scratch.names(""), ["thesis.txt"], "nothing was added");
}

#[test]
fn a_directory_that_others_can_reach_is_refused() {
    let scratch = filled("modes");
    for (path, mode) in [("", 0o755), ("blobs", 0o750), ("manifests", 0o705), ("uploads", 0o701)] {
        let path = scratch.registry().join(path);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let text = problem(&scratch);
        assert!(text.contains(&format!("its mode is {mode:o}")) && text.contains("chmod 700"), "{text}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    }
}

#[test]
fn links_are_not_followed() {
    let scratch = filled("links");
    let elsewhere = scratch.0.join("elsewhere");
    std::fs::rename(scratch.registry(), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, scratch.registry()).unwrap();
    assert!(problem(&scratch).contains("and no link"));
    std::fs::remove_file(scratch.registry()).unwrap();
    std::fs::rename(&elsewhere, scratch.registry()).unwrap();
    for name in ["blobs", "manifests", "uploads", "ecs-local-registry"] {
        let (path, away) = (scratch.registry().join(name), scratch.0.join("away"));
        std::fs::rename(&path, &away).unwrap();
        std::os::unix::fs::symlink(&away, &path).unwrap();
        assert!(Directory::open(&scratch.registry()).is_err(), "{name}");
        std::fs::remove_file(&path).unwrap();
        std::fs::rename(&away, &path).unwrap();
    }
    let link = scratch.registry().join("uploads").join("0".repeat(32));
    std::os::unix::fs::symlink("/etc/hostname", &link).unwrap();
    assert!(problem(&scratch).contains("is not a registry's"));
}

#[test]
fn another_version_is_refused() {
    let scratch = filled("version");
    std::fs::write(scratch.registry().join("ecs-local-registry"), "2\n").unwrap();
    assert!(problem(&scratch).contains("another version of ecs-local"));
    std::fs::write(scratch.registry().join("ecs-local-registry"), "").unwrap();
    Directory::open(&scratch.registry()).unwrap();
}
