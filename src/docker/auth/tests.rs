use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

fn parse(auth_type: &str, data: &str) -> (AuthMap, Vec<String>) {
    let (map, problems) = AuthMap::parse(auth_type, &Secret::from(data));
    (map, problems.iter().map(ToString::to_string).collect())
}

fn keys(map: &AuthMap) -> Vec<&str> {
    map.registries().collect()
}

/// The entry for an image and its key.
fn select(map: &AuthMap, image: &str) -> (RegistryCredentials, Option<String>) {
    match map.source(image) {
        Source::Entry(key, credentials) => (credentials.clone(), Some(key.to_owned())),
        Source::Helper(_) | Source::Store(_) | Source::Anonymous => (RegistryCredentials::default(), None),
    }
}

#[test]
fn both_types_take_auth_plain_members_and_the_wrapper() {
    // dTpwOnc= is "u:p:w".
    let documents = [
        ("docker", r#"{"https://r.io": {"username": "u", "password": "p:w", "email": "e@x"}}"#),
        ("docker", r#"{"r.io": {"auth": "dTpwOnc="}}"#),
        ("dockercfg", r#"{"http://r.io": {"auth": "dTpwOnc=", "email": "e@x"}}"#),
        ("dockercfg", r#"{"r.io": {"username": "u", "password": "p:w"}}"#),
        ("dockercfg", r#"{"r.io": {"username": "x", "password": "y", "auth": "dTpwOnc="}}"#),
        ("docker", r#"{"r.io": {"username": "u", "password": "p:w", "auth": "!!"}}"#),
        (
            "dockercfg",
            r#"{"auths": {"r.io": {"auth": "dTpwOnc="}}, "HttpHeaders": {}, "psFormat": "", "currentContext": "x"}"#,
        ),
        ("docker", r#"{"auths": {"r.io": {"auth": "dTpwOnc="}}}"#),
        ("docker", r#"{"r.io": {"Username": "u", "PASSWORD": "p:w", "email": null, "x": [1]}}"#),
        ("dockercfg", r#"{"r.io": {"Auth": "dTpwOnc="}}"#),
        ("dockercfg", r#"{"AUTHS": {"r.io": {"AUTH": "dTpwOnc="}}, "CredHelpers": null, "CREDSSTORE": ""}"#),
        ("docker", r#"{"Auths": {"https:\/\/r.io": {"\u0061uth": "dTpwOnc="}}, "credsStore": null}"#),
        ("dockercfg", r#"{"auths": null, "r.io": {"auth": "", "Auth": "dTpwOnc=", "ge\u00e4ndert": "\ud83d"}}"#),
    ];
    for (auth_type, document) in documents {
        let (map, problems) = parse(auth_type, document);
        assert_eq!(problems, Vec::<String>::new(), "{document}");
        let (found, key) = select(&map, "r.io/app:1");
        assert_eq!((found.username.as_str(), found.password.expose()), ("u", "p:w"), "{document}");
        assert_eq!(key.as_deref(), Some("r.io"));
    }
    let (map, problems) = parse("docker", r#"{"r.io": {"identitytoken": "t"}, "s.io": {"registrytoken": "b"}}"#);
    assert!(problems.is_empty());
    assert_eq!(select(&map, "r.io/a").0.identity_token.expose(), "t");
    assert_eq!(select(&map, "s.io/a").0.registry_token.expose(), "b");
}

#[test]
fn auth_may_be_wrapped_and_padded_in_any_way() {
    let long = format!("me:{}", "secret-".repeat(30));
    let dense = STANDARD.encode(&long);
    assert!(dense.len() > 152, "two lines and a bit");
    let wrapped = |end: &str| {
        let lines: Vec<&str> = dense.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("{}{end}", lines.join(end))
    };
    let mut table: Vec<(String, &str)> =
        ["\\n", "\\r\\n", " ", "\\t", "\\n  "].map(|end| (wrapped(end), &long[3..])).into();
    // Go ignores the trailing bits: it reads `dTpwOnd=` as `dTpwOnc=`.
    for auth in ["dTpwOnc=", "dTpwOnc", "dTpwOnd=", "dTpw\\nOnc\\r\\n=", "\\n dTpwOnc= \\n"] {
        table.push((auth.to_owned(), "p:w"));
    }
    for (auth, password) in table {
        let (map, problems) = parse("dockercfg", &format!(r#"{{"r.io": {{"auth": "{auth}"}}}}"#));
        assert_eq!(problems, Vec::<String>::new(), "{auth}");
        assert_eq!(select(&map, "r.io/a").0.password.expose(), password, "{auth}");
    }
    for auth in ["dTpw!Onc=", "dTp=wOnc=", "dTpwO", "====", "dTpw_Onc"] {
        let (map, problems) = parse("dockercfg", &format!(r#"{{"r.io": {{"auth": "{auth}"}}}}"#));
        assert_eq!((keys(&map).len(), problems.len()), (0, 1), "{auth}");
    }
}

#[test]
fn a_password_that_ends_in_a_newline_is_kept_and_reported() {
    // bWU6c2VjcmV0Cg== is "me:secret\n", as `echo me:secret | base64` makes it.
    let document = r#"{
            "a.io": {"auth": "bWU6c2VjcmV0Cg=="}, "https://me:hunter2@b.io": {"username": "me", "password": "x\r\n"},
            "c.io": {"username": "me", "password": "x\ny"}, "d.io": {"identitytoken": "t\n"}
        }"#;
    let (map, problems) = parse("dockercfg", document);
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(select(&map, "a.io/x").0.password.expose(), "secret\n");
    assert_eq!(map.with_newline().collect::<Vec<_>>(), ["a.io", "b.io", "d.io"]);
}

/// One row: the type, the document, the registries that can be used, and a part of the problems.
type Row<'a> = (&'a str, &'a str, Vec<&'a str>, &'a str);

fn check_problems(table: &[Row<'_>]) {
    for (auth_type, document, wanted, problem) in table {
        let (map, problems) = parse(auth_type, document);
        assert_eq!(keys(&map), *wanted, "{document}");
        let joined = problems.join("; ");
        assert!(joined.contains(problem) && !joined.contains("hunter2"), "{document}: {joined}");
    }
}

/// What is missing, misspelt or in the wrong place, beside what can be used.
#[test]
fn a_half_entry_is_reported_without_secrets() {
    check_problems(&[
        (
            "dockercfg",
            r#"{"a":{"aut":"dTpw"}}"#,
            vec![],
            "\"a\": it has neither auth, nor username and password, nor a token, and `aut` has no meaning: entry ignored",
        ),
        (
            "docker",
            r#"{"a":{"usrname":"hunter2","password":"y"}}"#,
            vec!["a"],
            "\"a\": it has a password and no user name, and `usrname` has no meaning: the registry is asked with an empty user",
        ),
        ("docker", r#"{"a":{"user":"u","password":"y"}}"#, vec!["a"], "no user name, and `user` has no meaning"),
        ("docker", r#"{"a":{"password":"hunter2"}}"#, vec!["a"], "\"a\": it has a password and no user name: the reg"),
        ("dockercfg", r#"{"a":{"auth":"Onc="}}"#, vec!["a"], "\"a\": it has a password and no user name: the registry"),
        ("docker", r#"{"":{"username":"u","password":"hunter2"}}"#, vec![], "its host is missing: entry ignored"),
        ("docker", r#"{"https://":{"auth":"dTpw"}}"#, vec![], "its host is missing: entry ignored"),
        ("docker", r#"{"auths":{"a":{"auth":"dTpw"}},"hunter2":1}"#, vec!["a"], "a member beside auths has no meaning"),
        (
            "docker",
            r#"{"auths":{"a":{"auth":"dTpw"}},"https://u:hunter2@b":{"auth":"dTpw"}}"#,
            vec!["a"],
            "registry \"b\" is beside auths, not in it: entry ignored",
        ),
        (
            "dockercfg",
            r#"{"a":{"username":"u","pass":"hunter2","auth":"dTpw"}}"#,
            vec!["a"],
            "\"a\": `pass` has no meaning: it is ignored",
        ),
        (
            "docker",
            r#"{"a":{"username":"u","pass":"hunter2","auth":"dTpw"}}"#,
            vec!["a"],
            "\"a\": it has a user name and no password, and `pass` has no meaning",
        ),
    ]);
}

#[test]
fn unusable_parts_are_reported_without_secrets() {
    let table = [
        ("docker", "hunter2", vec![], "not a JSON object"),
        ("docker", r#"["hunter2"]"#, vec![], "not a JSON object"),
        ("dockercfg", r#"{"auths": "hunter2"}"#, vec![], "auths in"),
        ("dockercfg", r#"{"a": {"auth": "hunter2!"}, "b": {"auth": "dTpw"}}"#, vec!["b"], "\"a\": auth is not base64"),
        ("dockercfg", r#"{"a": {"auth": "aHVudGVyMg=="}}"#, vec![], "\"a\": auth is not base64 of user:password"),
        ("docker", r#"{"a": {"password": {"x": "hunter2"}}}"#, vec![], "\"a\": it is not an object of strings"),
        ("docker", r#"{"a": {"Password": ["hunter2"]}}"#, vec![], "\"a\": it is not an object of strings"),
        ("docker", r#"{"a": ["hunter2"], "b": {"auth": "dTpw"}}"#, vec!["b"], "\"a\": it is not an object of strings"),
        (
            "docker",
            r#"{"https://b": {"auth": "dTpw"}, "b": {"username": "hunter2"}}"#,
            vec!["b"],
            "\"b\" is named twice: the last",
        ),
        ("docker", r#"{"a\n[x]": {}}"#, vec![], "\"a [x]\": it has neither auth"),
        ("docker", r#"{"a": {}}"#, vec![], "\"a\": it has neither auth"),
        (
            "docker",
            r#"{"a":{"username":"u","pasword":"p"}}"#,
            vec!["a"],
            "\"a\": it has a user name and no password, and `pasword` has no meaning: the registry is asked with an empty",
        ),
        ("dockercfg", r#"{"auth":"hunter2"}"#, vec![], "the host of the registry is missing around the credentials"),
        ("docker", r#"{"username":"u","password":"hunter2"}"#, vec![], "the host of the registry is missing"),
        (
            "docker",
            r#"{"auths":{"username":"u","b":{"auth":"dTpw"}}}"#,
            vec!["b"],
            "the host of the registry is missing",
        ),
        ("docker", "{}", vec![], "names no registry: images are pulled without a password"),
        ("dockercfg", r#"{"auths":{}}"#, vec![], "names no registry"),
        ("docker", r#"{"https://me:hunter2@a": {}}"#, vec![], "\"a\": it has neither auth"),
        ("docker", r#"{"credsStore": "../hunter2", "b": {"auth": "dTpw"}}"#, vec!["b"], "credsStore is not the name"),
        (
            "docker",
            r#"{"credHelpers": {"a": "/hunter2", "b": "x"}}"#,
            vec!["b"],
            "credHelpers of \"a\" is not the name",
        ),
        ("docker", r#"{"credHelpers": "hunter2"}"#, vec![], "credHelpers is not a JSON object"),
        ("hunter2", r#"{"b": {"auth": "dTpw"}}"#, vec![], "neither docker nor dockercfg"),
        ("", r#"{"b": {"auth": "dTpw"}}"#, vec![], "without ECS_ENGINE_AUTH_TYPE"),
    ];
    check_problems(&table);
    assert_eq!(parse("", ""), (AuthMap::default(), vec![]));
}

#[test]
fn a_problem_has_the_form_of_its_type() {
    let first = |auth_type: &str, data: &str| AuthMap::parse(auth_type, &Secret::from(data)).1.remove(0);
    let docker = first("docker", r#"{"a":{"username":"u","pasword":"p"}}"#);
    assert!(docker.expected.starts_with(r#"{"registry.example.com":{"username":"#), "{docker:?}");
    assert!(docker.expected.ends_with("; did you mean password?") && !docker.is_note, "{docker:?}");
    let dockercfg = first("dockercfg", r#"{"a":{}}"#);
    assert!(dockercfg.expected.starts_with(r#"{"registry.example.com":{"auth":"#), "{dockercfg:?}");
    assert!(first("dockercfg", r#"{"auths":{}}"#).is_note);
    assert_eq!(parse("docker", r#"{"username":"u","password":"p"}"#).1.len(), 1, "one problem for both members");
}

#[test]
fn debug_prints_registries_only() {
    let (map, _) = parse("docker", r#"{"r.io": {"username": "alice", "password": "hunter2"}}"#);
    assert_eq!(format!("{map:?}"), r#"{"r.io"}"#);
    let (map, _) =
        parse("docker", r#"{"alice:hunter2@r.io": {"identitytoken": "t"}, "credHelpers": {"x:hunter2@h": "h"}}"#);
    assert_eq!(format!("{map:?}"), r#"{"r.io", "h"}"#);
    let (credentials, key) = select(&map, "r.io/app");
    assert_eq!((credentials.identity_token.expose(), key.as_deref()), ("t", Some("r.io")), "the host counts");
    assert!(!format!("{credentials:?}").contains("hunter2"));
}

#[test]
fn the_longest_key_that_begins_the_image_is_chosen() {
    let entry = |key: &str| (key.to_owned(), RegistryCredentials { username: key.to_owned(), ..Default::default() });
    let table: [(&[&str], &str, Option<&str>); 28] = [
        (&["r.io", "r.io/team", "r.io/team/app"], "r.io/team/app:1", Some("r.io/team/app")),
        (&["r.io", "r.io/team"], "r.io/other:1", Some("r.io")),
        (&["r.io/team"], "r.io/other", Some("r.io/team")),
        (&["r.io", "r.io/team"], "r.io/team-evil/app", Some("r.io")),
        (&["r.io/team"], "r.io/team-evil/app", None),
        (&["r.io/team"], "r.io/teams", None),
        (&["r.io/team/app"], "r.io/team/app2:1", None),
        (&["r.io/a", "r.io/team"], "r.io/team.evil/app", None),
        (&["r.io/team"], "r.io/team", Some("r.io/team")),
        (&["r.io/team"], "r.io/team:1", Some("r.io/team")),
        (&["r.io/team", "r.io/x"], "r.io/team@sha256:00", Some("r.io/team")),
        (&["r.io/team/", "r.io/x"], "r.io/team/app", Some("r.io/team/")),
        (&["r.io/team/", "r.io/x"], "r.io/team-evil/app", None),
        (&["r.io/team/app:1", "r.io"], "r.io/team/app:1", Some("r.io/team/app:1")),
        (&["r.io/team/app:1", "r.io"], "r.io/team/app:12", Some("r.io")),
        (&["r.io/a", "r.io/b"], "r.io/other", None),
        (&["r.io/a", "r.io/b"], "r.io/b/x@sha256:00", Some("r.io/b")),
        (&["r.io:5000"], "r.io/app", None),
        (&["localhost:5000"], "localhost:5000/app:1", Some("localhost:5000")),
        (&["localhost"], "localhost/app", Some("localhost")),
        (&["r.io/"], "r.io/app", Some("r.io/")),
        (&["index.docker.io/v1/", "docker.io"], "busybox", Some("index.docker.io/v1/")),
        (&["docker.io"], "me/app:1", Some("docker.io")),
        (&["index.docker.io/v1"], "docker.io/me/app", Some("index.docker.io/v1")),
        (&["registry-1.docker.io"], "index.docker.io/a", Some("registry-1.docker.io")),
        (&["index.docker.io/v1/user"], "busybox", None),
        (&["r.io"], "busybox", None),
        (&[], "r.io/app", None),
    ];
    for (keys, image, wanted) in table {
        let entries = keys.iter().map(|key| entry(key)).collect();
        let map = AuthMap { document: Document { entries, ..Document::default() } };
        let (found, key) = select(&map, image);
        assert_eq!(key.as_deref(), wanted, "{keys:?} {image}");
        assert_eq!(found.username, wanted.unwrap_or_default());
    }
}

#[test]
fn helper_programs_and_entries_can_be_combined() {
    let document = r#"{
            "auths": {"r.io": {"auth": "dTpw"}, "https://index.docker.io/v1/": {}, "h.io": {"auth": "dTpw"}},
            "credHelpers": {"h.io": "pass", "https://index.docker.io/v1/": "hub"}, "credsStore": "ecr-login"
        }"#;
    let (map, problems) = parse("dockercfg", document);
    assert_eq!(problems, Vec::<String>::new(), "Docker's client writes the empty entry");
    assert_eq!(map.source("h.io/app:1"), Source::Helper("docker-credential-pass"));
    assert_eq!(map.source("busybox"), Source::Helper("docker-credential-hub"));
    assert!(matches!(map.source("r.io/app"), Source::Entry("r.io", _)));
    assert_eq!(map.source("other.io/app"), Source::Store("docker-credential-ecr-login"));
    assert!(map.is_configured_for("busybox") && map.is_configured_for("r.io/app"));
    assert!(!map.is_configured_for("other.io/app"));
    let (map, problems) = parse("docker", r#"{"credsStore": ""}"#);
    assert_eq!((map.source("a.io/b"), problems.len()), (Source::Anonymous, 1));
}

#[tokio::test]
async fn a_missing_helper_fails_only_the_registry_it_is_named_for() {
    let document = r#"{"credHelpers": {"h.io": "of-nobody"}, "credsStore": "of-nobody-else"}"#;
    let (map, _) = parse("docker", document);
    let failure = map.credentials("h.io/app").await.unwrap_err().to_string();
    let wanted = "CannotPullContainerAuthError: docker-credential-of-nobody: it cannot be started: ";
    assert!(failure.starts_with(wanted), "{failure}");
    let (credentials, source) = map.credentials("busybox").await.unwrap();
    assert!(credentials.is_anonymous());
    assert!(source.starts_with("anonymous: docker-credential-of-nobody-else: it cannot be started: "), "{source}");
}

proptest::proptest! {
    #[test]
    fn never_panics(auth_type in "(docker|dockercfg|)", data in "[\\[\\]{}\":,a-zA-Z0-9=/. ]{0,80}", image in "\\PC{0,40}") {
        let (map, _) = parse(&auth_type, &data);
        let _ = select(&map, &image);
    }

    #[test]
    fn any_user_and_password_survive_base64(user in "[^:\0]{0,20}", password in "[^\0]{1,40}") {
        let auth = STANDARD.encode(format!("{user}:{password}"));
        let (map, problems) = parse("dockercfg", &format!(r#"{{"r.io": {{"auth": "{auth}"}}}}"#));
        proptest::prop_assert_eq!(problems.is_empty(), !user.is_empty(), "a missing user name is reported: {:?}", problems);
        let (found, _) = select(&map, "r.io/a");
        proptest::prop_assert_eq!((found.username, found.password.expose()), (user, password.as_str()));
    }
}
