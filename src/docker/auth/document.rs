//! Parses `ECS_ENGINE_AUTH_DATA`: from JSON to credentials and the names of helper programs.
//!
//! Owns the document's form, which is the Go agent's or that of Docker's `config.json`, and the decoding of `auth`. `AuthMap`
//! chooses the entry for an image. Invariant: a part that cannot be used is reported and skipped, and the rest of the document
//! still counts.

use super::helper;
use super::problem::{AuthProblem, form, is_member, misspelt};
use super::registry::{normalised, shown};
use crate::input::members::{Members, text};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ecs_core::model::{RegistryCredentials, Secret};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// Accepts what Go's `base64.StdEncoding` accepts, which ignores trailing bits, and also text without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const NO_CREDENTIALS: &str = "it has neither auth, nor username and password, nor a token";

/// Members of Docker's `config.json` that are not registries.
const HELPERS: &str = "credHelpers";
const STORE: &str = "credsStore";
const WRAPPER: &str = "auths";

/// What is expected in the first two.
const HELPER_NAMES: &str = "the name of a program without `docker-credential-` in front of it";

/// The usable part of the operator's document.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Document {
    /// Credentials, by registry.
    pub(super) entries: BTreeMap<String, RegistryCredentials>,
    /// Helper programs, by the registry whose password they know.
    pub(super) helpers: BTreeMap<String, String>,
    /// The helper program for all other registries; `None` = there is none.
    pub(super) store: Option<String>,
}

/// Parses the document and adds to `problems` each part that is ignored. `auth_type` is `docker` or `dockercfg`.
pub(super) fn read(auth_type: &str, data: &Secret, problems: &mut Vec<AuthProblem>) -> Document {
    let expected = form(auth_type);
    let Ok(document) = Members::parse(data.expose()) else {
        let shape = "ECS_ENGINE_AUTH_DATA is not a JSON object of registries";
        problems.push(AuthProblem::ignored(shape, expected, IGNORED));
        return Document::default();
    };
    let (helpers, store) = (helpers(&document, problems), store(&document, problems));
    let has_programs = store.is_some() || !helpers.is_empty();
    let mut entries = BTreeMap::new();
    let registries = registries(document, problems);
    if registries.iter().any(|(key, raw)| is_loose(key, raw)) {
        let shape = "the host of the registry is missing around the credentials";
        problems.push(AuthProblem::ignored(shape, expected, IGNORED));
    }
    for (key, raw) in registries.iter().filter(|(key, raw)| is_registry(key) && !is_loose(key, raw)) {
        let misspelt = || Members::parse(raw.get()).ok().and_then(|entry| misspelt(&entry));
        if normalised(key).is_empty() {
            let shape = "the name of the registry is empty: its host is missing";
            problems.push(AuthProblem::ignored(shape, expected, ENTRY_IGNORED));
            continue;
        }
        match credentials(key, raw, auth_type) {
            Ok(credentials) => {
                problems.extend(half(key, &credentials, misspelt(), expected));
                if entries.insert(normalised(key).to_owned(), credentials).is_some() {
                    let shape = format!("registry \"{}\" is named twice", shown(key));
                    problems.push(AuthProblem::ignored(shape, "each registry once", "the last entry is used"));
                }
            }
            // Docker's client writes an empty entry where a helper program has the password.
            Err(NO_CREDENTIALS) if has_programs => {}
            Err(NO_CREDENTIALS) => {
                problems.push(entry_problem(key, NO_CREDENTIALS, misspelt(), expected, ENTRY_IGNORED))
            }
            Err(problem) => problems.push(entry_problem(key, problem, None, expected, ENTRY_IGNORED)),
        }
    }
    if entries.is_empty() && !has_programs && problems.is_empty() {
        let shape = "ECS_ENGINE_AUTH_DATA names no registry";
        let problem = AuthProblem::ignored(shape, expected, "images are pulled without a password");
        problems.push(AuthProblem { is_note: true, ..problem });
    }
    Document { entries, helpers, store }
}

/// What is missing in an entry that is used all the same, or a name in it that has no meaning.
fn half(
    key: &str,
    credentials: &RegistryCredentials,
    misspelt: Option<(String, &'static str)>,
    expected: &str,
) -> Option<AuthProblem> {
    let RegistryCredentials { username, password, identity_token, registry_token, .. } = credentials;
    let is_token = ![identity_token, registry_token].into_iter().all(Secret::is_empty);
    let (what, instead) = match (username.is_empty(), password.is_empty()) {
        (false, true) if !is_token => {
            ("it has a user name and no password", "the registry is asked with an empty password")
        }
        (true, false) => ("it has a password and no user name", "the registry is asked with an empty user name"),
        _ => {
            let (name, meant) = misspelt?;
            let shape = format!("registry \"{}\": `{name}` has no meaning", shown(key));
            return Some(AuthProblem::ignored(shape, format!("{expected}; did you mean {meant}?"), "it is ignored"));
        }
    };
    Some(entry_problem(key, what, misspelt, expected, instead))
}

const IGNORED: &str = "credentials ignored";
const ENTRY_IGNORED: &str = "entry ignored";

/// A problem with one entry, with the member that was probably meant by another name in it.
fn entry_problem(
    key: &str,
    what: &str,
    misspelt: Option<(String, &'static str)>,
    expected: &str,
    instead: &'static str,
) -> AuthProblem {
    let shape = format!("registry \"{}\": {what}", shown(key));
    match misspelt {
        Some((name, meant)) => {
            let shape = format!("{shape}, and `{name}` has no meaning");
            AuthProblem::ignored(shape, format!("{expected}; did you mean {meant}?"), instead)
        }
        None => AuthProblem::ignored(shape, expected, instead),
    }
}

/// A member of an entry that stands where a registry belongs.
fn is_loose(key: &str, raw: &RawValue) -> bool {
    is_member(key) && raw.get().starts_with('"')
}

/// The programs in `credHelpers`, by registry.
fn helpers(document: &Members<'_>, problems: &mut Vec<AuthProblem>) -> BTreeMap<String, String> {
    let mut helpers = BTreeMap::new();
    let Some(raw) = document.get(HELPERS) else { return helpers };
    let Ok(names) = Members::parse(raw.get()) else {
        problems.push(AuthProblem::ignored("credHelpers is not a JSON object of names", HELPER_NAMES, "ignored"));
        return helpers;
    };
    for (key, name) in names.iter() {
        match text(name).ok().and_then(|name| helper::program(&name)) {
            Some(program) => _ = helpers.insert(normalised(key).to_owned(), program),
            None => {
                let shape = format!("credHelpers of \"{}\" is not the name of a helper", shown(key));
                problems.push(AuthProblem::ignored(shape, HELPER_NAMES, "ignored"));
            }
        }
    }
    helpers
}

/// The program in `credsStore`.
fn store(document: &Members<'_>, problems: &mut Vec<AuthProblem>) -> Option<String> {
    let name = document.text(STORE);
    let program = name.as_deref().ok().and_then(helper::program);
    // Docker's client writes an empty name for "none".
    if program.is_none() && name.as_deref() != Ok("") {
        problems.push(AuthProblem::ignored("credsStore is not the name of a helper", HELPER_NAMES, "ignored"));
    }
    program
}

/// The object that holds the entries: `auths` if there is one, else the document itself. What stands beside `auths` is reported, except
/// for other settings of Docker's client.
fn registries<'a>(document: Members<'a>, problems: &mut Vec<AuthProblem>) -> Members<'a> {
    let Some(raw) = document.get(WRAPPER) else { return document };
    let is_beside = |key: &str| is_registry(key) && !is_of_client(key);
    for (key, raw) in document.iter().filter(|(key, _)| is_beside(key)).take(MAX_BESIDE) {
        // A name whose value is no entry may be no registry, so it is not shown.
        let shape = if raw.get().starts_with('{') {
            format!("registry \"{}\" is beside auths, not in it", shown(key))
        } else {
            "a member beside auths has no meaning".to_owned()
        };
        problems.push(AuthProblem::ignored(shape, "all registries in auths, or no auths", ENTRY_IGNORED));
    }
    Members::parse(raw.get()).unwrap_or_else(|_| {
        let shape = "auths in ECS_ENGINE_AUTH_DATA is not a JSON object of registries";
        problems.push(AuthProblem::ignored(shape, "an object, as in ~/.docker/config.json", IGNORED));
        Members::default()
    })
}

/// Maximum number of members beside `auths` that are reported.
const MAX_BESIDE: usize = 5;

/// The member belongs to the configuration of Docker's client, and has nothing to do with registries.
fn is_of_client(key: &str) -> bool {
    const SETTINGS: [&str; 13] = [
        "httpheaders",
        "detachkeys",
        "experimental",
        "currentcontext",
        "contexts",
        "stackorchestrator",
        "kubernetes",
        "proxies",
        "plugins",
        "cliPluginsExtraDirs",
        "aliases",
        "features",
        "pruneFilters",
    ];
    let is_format = key.len() >= 6 && key.to_ascii_lowercase().ends_with("format"); // `psFormat`, `imagesFormat`
    is_format || SETTINGS.iter().any(|setting| setting.eq_ignore_ascii_case(key))
}

fn is_registry(key: &str) -> bool {
    ![HELPERS, STORE, WRAPPER].iter().any(|name| key.eq_ignore_ascii_case(name))
}

fn credentials(key: &str, raw: &RawValue, auth_type: &str) -> Result<RegistryCredentials, &'static str> {
    const NO_TEXTS: &str = "it is not an object of strings";
    let entry = Members::parse(raw.get()).map_err(|_| NO_TEXTS)?;
    let member = |name: &str| entry.text(name).map_err(|_| NO_TEXTS);
    let secret = |name: &str| member(name).map(Secret::new);
    let (mut username, mut password) = (member("username")?, secret("password")?);
    let (identity_token, registry_token) = (secret("identitytoken")?, secret("registrytoken")?);
    let (auth, email, server) = (secret("auth")?, member("email")?, member("serveraddress")?);
    let is_plain = !(username.is_empty() && password.is_empty());
    // With `dockercfg`, `auth` takes precedence; with `docker`, the plain members do.
    if !auth.is_empty() && (auth_type == "dockercfg" || !is_plain) {
        (username, password) = user_and_password(&auth)?;
    } else if !is_plain && identity_token.is_empty() && registry_token.is_empty() {
        return Err(NO_CREDENTIALS);
    }
    // A key may hold an account (`user@host`), which is not part of the address.
    let address = key.rsplit_once('@').map_or(key, |(_, host)| host);
    let server_address = if server.is_empty() { address.to_owned() } else { server };
    Ok(RegistryCredentials { username, password, email, server_address, identity_token, registry_token })
}

/// Decodes base64 of `user:password`. White space is ignored: some programs wrap long base64 into lines, and a folded YAML line
/// leaves blanks.
fn user_and_password(auth: &Secret) -> Result<(String, Secret), &'static str> {
    let dense: Zeroizing<Vec<u8>> =
        Zeroizing::new(auth.expose().bytes().filter(|byte| !byte.is_ascii_whitespace()).collect());
    let bytes = Zeroizing::new(BASE64.decode(&*dense).map_err(|_| "auth is not base64")?);
    let text = std::str::from_utf8(&bytes).map_err(|_| "auth is not base64 of a text")?;
    let (username, password) = text.split_once(':').ok_or("auth is not base64 of user:password")?;
    Ok((username.to_owned(), Secret::from(password.trim_matches('\0'))))
}
