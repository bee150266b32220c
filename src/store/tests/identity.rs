//! The registration and the identities beside the state.

use super::*;

/// Containers have the identity as a label, so it must remain the same if one file is lost.
#[test]
fn the_identity_outlives_the_loss_of_either_file() {
    let path = |directory: &Directory, name: &str| directory.0.join(name);
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 6] = [
        ("nothing", |_| ()),
        ("the state file is gone", |path| std::fs::remove_file(path.join(FILE)).unwrap()),
        ("the state file is broken", |path| std::fs::write(path.join(FILE), "broken").unwrap()),
        ("the other file is gone", |path| std::fs::remove_file(path.join("ecs-agent.owner")).unwrap()),
        ("the other file is broken", |path| std::fs::write(path.join("ecs-agent.owner"), "{").unwrap()),
        ("the other file is a directory", |path| {
            std::fs::remove_file(path.join("ecs-agent.owner")).unwrap();
            std::fs::create_dir(path.join("ecs-agent.owner")).unwrap();
        }),
    ];
    for (what, harm) in harms {
        let (directory, _) = saved("owner", 1);
        let own = open(&directory.0).unwrap().0.owners().own.clone();
        harm(&directory.0);
        for _ in 0..2 {
            assert_eq!(open(&directory.0).unwrap().0.owners().own, own, "{what}");
        }
    }
    let (directory, _) = saved("owner", 1);
    let (store, _) = open(&directory.0).unwrap();
    let mode = std::fs::metadata(path(&directory, "ecs-agent.owner")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let own = store.owners().own.clone();
    drop(store);
    std::fs::remove_dir_all(&directory.0).unwrap();
    assert_ne!(open(&directory.0).unwrap().0.owners().own, own, "without both files there is a new identity");
}

/// Without its registration, the instance would register as a second one.
#[test]
fn the_registration_outlives_the_loss_of_either_file() {
    const BESIDE: &str = "ecs-agent.instance";
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 6] = [
        ("nothing", |_| ()),
        ("the state file is removed", |path| std::fs::remove_file(path.join(FILE)).unwrap()),
        ("the state file is broken", |path| std::fs::write(path.join(FILE), "broken").unwrap()),
        ("the other file is removed", |path| std::fs::remove_file(path.join(BESIDE)).unwrap()),
        ("the other file is broken", |path| std::fs::write(path.join(BESIDE), "{").unwrap()),
        ("the other file has empty members", |path| {
            std::fs::write(path.join(BESIDE), r#"{"cluster":"","container_instance_arn":""}"#).unwrap();
        }),
    ];
    for (what, harm) in harms {
        let directory = Directory::new("registration");
        let (state, keys) = state_with(&["arn:a"]);
        let (mut store, _) = open(&directory.0).unwrap();
        store.commit(&state, &keys).unwrap();
        let identity = Identity {
            cluster: "c".into(),
            container_instance_arn: "arn:i".into(),
            ec2_instance_id: "i-1".into(),
            ..Identity::default()
        };
        store.save_identity(&identity).unwrap();
        drop(store);
        harm(&directory.0);
        for _ in 0..2 {
            let loaded = open(&directory.0).unwrap().1;
            assert_eq!((loaded.identity.as_ref(), loaded.host.seq), (Some(&identity), 7), "{what}");
        }
        let mode = std::fs::metadata(directory.0.join(BESIDE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{what}");
    }
}

#[test]
fn a_removed_registration_does_not_come_back() {
    let forget: [fn(&mut Store); 2] = [|store| store.clear().unwrap(), Store::forget_registration];
    for remove in forget {
        let (directory, _) = saved("registration-dropped", 1);
        std::fs::remove_file(directory.0.join(FILE)).unwrap();
        let (mut store, loaded) = open(&directory.0).unwrap();
        assert_eq!(loaded.identity.unwrap().cluster, "c", "from the file beside the state");
        remove(&mut store);
        drop(store);
        assert_eq!(open(&directory.0).unwrap().1.identity, None);
    }
}

#[test]
fn the_manifest_number_reaches_the_file_beside_the_state() {
    let (directory, mut state) = saved("registration-number", 1);
    let (mut store, _) = open(&directory.0).unwrap();
    state.host.seq = 12;
    store.commit(&state, &[Key::Host]).unwrap();
    drop(store);
    drop(open(&directory.0).unwrap());
    std::fs::remove_file(directory.0.join(FILE)).unwrap();
    assert_eq!(open(&directory.0).unwrap().1.host.seq, 12);
}

#[test]
fn a_state_file_without_an_identity_gets_one() {
    let (directory, _) = saved("owner-upgrade", 2);
    std::fs::remove_file(directory.0.join("ecs-agent.owner")).unwrap();
    {
        let opened = file::open(&directory.0).unwrap();
        let write = opened.database.begin_write().unwrap();
        write.open_table(META).unwrap().remove("owners").unwrap();
        write.commit().unwrap();
    }
    let (store, loaded) = open(&directory.0).unwrap();
    assert_eq!((loaded.tasks.len(), loaded.host.lost), (2, false), "nothing is lost");
    let own = store.owners().own.clone();
    drop(store);
    assert_eq!(open(&directory.0).unwrap().0.owners().own, own);
}

#[test]
fn a_cleared_state_gets_a_new_identity() {
    let (directory, _) = saved("owner-dropped", 1);
    let (mut store, _) = open(&directory.0).unwrap();
    let own = store.owners().own.clone();
    store.clear().unwrap();
    let now = store.owners().clone();
    assert_ne!(now.own, own);
    drop(store);
    assert_eq!(*open(&directory.0).unwrap().0.owners(), now, "the old one does not come back");
    assert_ne!(Store::in_memory().unwrap().owners().own, Store::in_memory().unwrap().owners().own);
}

#[test]
fn identities_that_were_taken_over_are_kept() {
    let (directory, state) = saved("owner-more", 1);
    let (mut store, _) = open(&directory.0).unwrap();
    let mut owners = store.owners().clone();
    owners.earlier.insert("before".into());
    store.save_owners(owners.clone()).unwrap();
    std::fs::remove_dir_all(&directory.0).unwrap();
    store.commit(&state, &[Key::Host]).unwrap();
    drop(store);
    for lost in ["", FILE, "ecs-agent.owner"] {
        let _gone = std::fs::remove_file(directory.0.join(lost));
        assert_eq!(*open(&directory.0).unwrap().0.owners(), owners, "{lost}");
    }
}
