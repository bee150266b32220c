//! The operator's registry credentials: `ECS_ENGINE_AUTH_TYPE` and `ECS_ENGINE_AUTH_DATA` (spec `config.md` §3).
//!
//! Owns parsing and the choice for an image. It does not fetch tokens (ECR is `aws`). Nothing here is fatal: what cannot be used is
//! named and skipped. Invariant: problems and `Debug` name registries, never an account name or a password.
//!
//! More is accepted than by the reference, since these are the traps people fall into: the `{"auths": …}` wrapper of
//! `~/.docker/config.json`, `auth` under either type, and every usual spelling of Docker Hub.

use super::reference::host_and_path;
use crate::model::{RegistryCredentials, Secret};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;
use zeroize::{Zeroize, Zeroizing};

/// How Docker Hub may be named, the reference's own form first.
const HUB_KEYS: [&str; 7] = [
    "index.docker.io/v1/",
    "index.docker.io/v1",
    "index.docker.io/",
    "index.docker.io",
    "docker.io/",
    "docker.io",
    "registry-1.docker.io",
];
const HUB_HOSTS: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// Credentials by registry, as the operator gave them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AuthMap(BTreeMap<String, RegistryCredentials>);

impl fmt::Debug for AuthMap {
    /// Registries only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// One entry in the document. Texts become [`Secret`]s or are zeroed when it is dropped.
#[derive(Deserialize, Zeroize)]
struct Entry {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
    email: Option<String>,
    serveraddress: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.zeroize();
    }
}

type Document<'a> = BTreeMap<String, &'a RawValue>;

impl AuthMap {
    /// Reads `data` as `auth_type` (`docker` or `dockercfg`) says, and lists what could not be used.
    pub fn parse(auth_type: &str, data: &Secret) -> (Self, Vec<String>) {
        let mut problems = Vec::new();
        let known_type = match auth_type {
            "docker" | "dockercfg" => true,
            "" if data.is_empty() => return (Self::default(), problems),
            "" => {
                problems.push("registry credentials are given without ECS_ENGINE_AUTH_TYPE: ignored".to_owned());
                false
            }
            _ => {
                problems.push("ECS_ENGINE_AUTH_TYPE is neither docker nor dockercfg: credentials ignored".to_owned());
                false
            }
        };
        let entries = if known_type { entries(data.expose(), &mut problems) } else { Document::new() };
        let mut map = BTreeMap::new();
        for (key, raw) in entries {
            match credentials(&key, raw.get(), auth_type) {
                Ok(credentials) => {
                    if map.insert(normalised(&key).to_owned(), credentials).is_some() {
                        problems.push(format!("registry {:?} is named twice: one of the entries is used", shown(&key)));
                    }
                }
                Err(problem) => problems.push(format!("registry {:?}: {problem}: entry ignored", shown(&key))),
            }
        }
        (Self(map), problems)
    }

    /// Credentials for an image, and the key they were found under. No entry: anonymous.
    ///
    /// The longest key that begins the image reference; the bare host is the shortest of these. For compatibility a key of the same
    /// host that does not begin the reference is taken when it is the only one of that host.
    pub fn select(&self, image: &str) -> (RegistryCredentials, Option<String>) {
        let (host, _) = host_and_path(without_tag(image));
        let key = if HUB_HOSTS.contains(&host) {
            HUB_KEYS.into_iter().find(|key| self.0.contains_key(*key))
        } else {
            let mut same_host = self.0.keys().map(String::as_str).filter(|key| key.split('/').next() == Some(host));
            let begins = same_host.clone().filter(|key| image.starts_with(key)).max_by_key(|key| key.len());
            begins.or_else(|| same_host.next().filter(|_| same_host.next().is_none()))
        };
        match key.and_then(|key| self.0.get_key_value(key)) {
            Some((key, credentials)) => (credentials.clone(), Some(key.clone())),
            None => (RegistryCredentials::default(), None),
        }
    }

    /// The registries there are credentials for.
    pub fn registries(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// The entries of the document, unwrapped from `auths` if need be.
fn entries<'a>(data: &'a str, problems: &mut Vec<String>) -> Document<'a> {
    let not_an_object = "ECS_ENGINE_AUTH_DATA is not a JSON object of registries: credentials ignored";
    let Ok(document) = serde_json::from_str::<Document<'a>>(data) else {
        problems.push(not_an_object.to_owned());
        return Document::new();
    };
    for member in ["credHelpers", "credsStore"] {
        if document.contains_key(member) {
            problems.push(format!("ECS_ENGINE_AUTH_DATA has {member}: credential helpers are not supported"));
        }
    }
    match document.get("auths").map(|inner| serde_json::from_str::<Document<'a>>(inner.get())) {
        Some(Ok(inner)) => inner,
        Some(Err(_)) => {
            problems.push(
                "auths in ECS_ENGINE_AUTH_DATA is not a JSON object of registries: credentials ignored".to_owned(),
            );
            Document::new()
        }
        None => document.into_iter().filter(|(key, _)| key != "credHelpers" && key != "credsStore").collect(),
    }
}

fn credentials(key: &str, raw: &str, auth_type: &str) -> Result<RegistryCredentials, &'static str> {
    let mut entry: Entry = serde_json::from_str(raw).map_err(|_| "it is not an object of texts")?;
    let plain = entry.username.as_deref().is_some_and(|name| !name.is_empty())
        || entry.password.as_deref().is_some_and(|password| !password.is_empty());
    let has_auth = entry.auth.as_deref().is_some_and(|auth| !auth.is_empty());
    let has_token = [&entry.identitytoken, &entry.registrytoken].into_iter().flatten().any(|token| !token.is_empty());
    // `dockercfg` trusts `auth` first, `docker` the plain members.
    if has_auth && (auth_type == "dockercfg" || !plain) {
        let (username, password) = user_and_password(entry.auth.as_deref().unwrap_or_default())?;
        entry.username.zeroize();
        entry.password.zeroize();
        (entry.username, entry.password) = (Some(username), Some(password));
    } else if !plain && !has_token {
        return Err("it has neither auth, nor username and password, nor a token");
    }
    let server = entry.serveraddress.take().filter(|address| !address.is_empty());
    Ok(RegistryCredentials {
        username: entry.username.take().unwrap_or_default(),
        password: Secret::new(entry.password.take().unwrap_or_default()),
        email: entry.email.take().unwrap_or_default(),
        server_address: server.unwrap_or_else(|| key.to_owned()),
        identity_token: Secret::new(entry.identitytoken.take().unwrap_or_default()),
        registry_token: Secret::new(entry.registrytoken.take().unwrap_or_default()),
    })
}

fn user_and_password(auth: &str) -> Result<(String, String), &'static str> {
    let bytes = Zeroizing::new(STANDARD.decode(auth.trim()).map_err(|_| "auth is not base64")?);
    let text = std::str::from_utf8(&bytes).map_err(|_| "auth is not base64 of a text")?;
    let (username, password) = text.split_once(':').ok_or("auth is not base64 of user:password")?;
    Ok((username.to_owned(), password.trim_matches('\0').to_owned()))
}

fn normalised(key: &str) -> &str {
    key.strip_prefix("http://").or_else(|| key.strip_prefix("https://")).unwrap_or(key)
}

/// A key as it may be logged: a confused operator may have put an account into it (`https://user:password@host`).
fn shown(key: &str) -> &str {
    key.rsplit_once('@').map_or(key, |(_, host)| host)
}

fn without_tag(image: &str) -> &str {
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => image,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(auth_type: &str, data: &str) -> (AuthMap, Vec<String>) {
        AuthMap::parse(auth_type, &Secret::from(data))
    }

    fn keys(map: &AuthMap) -> Vec<&str> {
        map.registries().collect()
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
            ("dockercfg", r#"{"auths": {"r.io": {"auth": "dTpwOnc="}}, "HttpHeaders": {}}"#),
            ("docker", r#"{"auths": {"r.io": {"auth": "dTpwOnc="}}}"#),
        ];
        for (auth_type, document) in documents {
            let (map, problems) = parse(auth_type, document);
            assert_eq!(problems, Vec::<String>::new(), "{document}");
            let (found, key) = map.select("r.io/app:1");
            assert_eq!((found.username.as_str(), found.password.expose()), ("u", "p:w"), "{document}");
            assert_eq!(key.as_deref(), Some("r.io"));
        }
        let (map, problems) = parse("docker", r#"{"r.io": {"identitytoken": "t"}, "s.io": {"registrytoken": "b"}}"#);
        assert!(problems.is_empty());
        assert_eq!(map.select("r.io/a").0.identity_token.expose(), "t");
        assert_eq!(map.select("s.io/a").0.registry_token.expose(), "b");
    }

    #[test]
    fn what_cannot_be_used_is_named_without_secrets() {
        let table = [
            ("docker", "hunter2", vec![], "not a JSON object"),
            ("docker", r#"["hunter2"]"#, vec![], "not a JSON object"),
            ("dockercfg", r#"{"auths": "hunter2"}"#, vec![], "auths in"),
            (
                "dockercfg",
                r#"{"a": {"auth": "hunter2!"}, "b": {"auth": "dTpw"}}"#,
                vec!["b"],
                "\"a\": auth is not base64",
            ),
            ("dockercfg", r#"{"a": {"auth": "aHVudGVyMg=="}}"#, vec![], "\"a\": auth is not base64 of user:password"),
            ("docker", r#"{"a": {"password": {"x": "hunter2"}}}"#, vec![], "\"a\": it is not an object of texts"),
            ("docker", r#"{"a": {}}"#, vec![], "\"a\": it has neither auth"),
            ("docker", r#"{"https://me:hunter2@a": {}}"#, vec![], "\"a\": it has neither auth"),
            ("docker", r#"{"credsStore": "hunter2", "b": {"auth": "dTpw"}}"#, vec!["b"], "credential helpers"),
            ("hunter2", r#"{"b": {"auth": "dTpw"}}"#, vec![], "neither docker nor dockercfg"),
            ("", r#"{"b": {"auth": "dTpw"}}"#, vec![], "without ECS_ENGINE_AUTH_TYPE"),
        ];
        for (auth_type, document, wanted, problem) in table {
            let (map, problems) = parse(auth_type, document);
            assert_eq!(keys(&map), wanted, "{document}");
            let said = problems.join("; ");
            assert!(said.contains(problem) && !said.contains("hunter2"), "{document}: {said}");
        }
        assert_eq!(parse("", ""), (AuthMap::default(), vec![]));
    }

    #[test]
    fn debug_prints_registries_only() {
        let (map, _) = parse("docker", r#"{"r.io": {"username": "alice", "password": "hunter2"}}"#);
        assert_eq!(format!("{map:?}"), r#"{"r.io"}"#);
    }

    #[test]
    fn the_longest_key_that_begins_the_image_is_chosen() {
        let entry =
            |key: &str| (key.to_owned(), RegistryCredentials { username: key.to_owned(), ..Default::default() });
        let table: [(&[&str], &str, Option<&str>); 16] = [
            (&["r.io", "r.io/team", "r.io/team/app"], "r.io/team/app:1", Some("r.io/team/app")),
            (&["r.io", "r.io/team"], "r.io/other:1", Some("r.io")),
            (&["r.io/team"], "r.io/other", Some("r.io/team")),
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
            let map = AuthMap(keys.iter().map(|key| entry(key)).collect());
            let (found, key) = map.select(image);
            assert_eq!(key.as_deref(), wanted, "{keys:?} {image}");
            assert_eq!(found.username, wanted.unwrap_or_default());
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(auth_type in "(docker|dockercfg|)", data in "[\\[\\]{}\":,a-zA-Z0-9=/. ]{0,80}", image in "\\PC{0,40}") {
            let (map, _) = parse(&auth_type, &data);
            let _ = map.select(&image);
        }

        #[test]
        fn any_user_and_password_survive_base64(user in "[^:\0]{0,20}", password in "[^\0]{1,40}") {
            let auth = STANDARD.encode(format!("{user}:{password}"));
            let (map, problems) = parse("dockercfg", &format!(r#"{{"r.io": {{"auth": "{auth}"}}}}"#));
            proptest::prop_assert!(problems.is_empty());
            let (found, _) = map.select("r.io/a");
            proptest::prop_assert_eq!((found.username, found.password.expose()), (user, password.as_str()));
        }
    }
}
