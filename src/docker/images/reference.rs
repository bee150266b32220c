//! Image references: their parts, and the full repository name that different spellings share.
//!
//! Owns the parsing; it makes no network call. Invariant: a parsed reference contains only characters that are allowed in a URL
//! path, so it cannot reach another endpoint of the daemon.

/// The longest name in Docker's own grammar, in bytes: host and path have 255 each.
const MAX_NAME: usize = 511;
const MAX_TAG: usize = 128;
/// The algorithms of digests that Docker knows, with the number of hexadecimal digits.
const ALGORITHMS: [(&str, usize); 3] = [("sha256", 64), ("sha384", 96), ("sha512", 128)];

/// The parts of an image reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reference<'a> {
    /// The text before the tag and the digest.
    pub(crate) name: &'a str,
    /// The text after the last `:`, unless that is a port; `None` = there is no tag.
    pub(crate) tag: Option<&'a str>,
    /// The text after `@`; `None` = there is no digest.
    pub(crate) digest: Option<&'a str>,
}

impl<'a> Reference<'a> {
    /// Parses a reference. `None` = no daemon would accept it ("invalid reference format").
    pub(crate) fn parse(image: &'a str) -> Option<Self> {
        let (rest, digest) = match image.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (image, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        let clean = |text: &str, more: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c));
        // Only the first segment can be a host, and only if a path follows. Only a host may have a port, be a bracketed IPv6 address,
        // or have capital letters.
        let (first, rest) = name.split_once('/').map_or(("", name), |(first, rest)| (first, rest));
        let has_host = first == "localhost" || first.contains(|c: char| ".:[".contains(c) || c.is_ascii_uppercase());
        let is_host = has_host && first.contains(char::is_alphanumeric) && clean(first, "._-:[]");
        let path = if is_host { rest } else { name };
        let parts_ok = path.split('/').all(is_path_segment)
            && tag.is_none_or(|tag| !tag.is_empty() && !tag.starts_with(['.', '-']) && clean(tag, "._-"))
            && digest.is_none_or(is_digest);
        let is_short = name.len() <= MAX_NAME && tag.is_none_or(|tag| tag.len() <= MAX_TAG);
        (is_short && parts_ok).then_some(Self { name, tag, digest })
    }

    /// The full repository name, with Docker's defaults: `docker.io/library/busybox` for `busybox`.
    pub(crate) fn repository(&self) -> String {
        let (host, path) = host_and_path(self.name);
        let host = if host == "index.docker.io" { "docker.io" } else { host };
        if host == "docker.io" && !path.contains('/') {
            format!("{host}/library/{path}")
        } else {
            format!("{host}/{path}")
        }
    }

    /// The reference for the pull call. Without a tag it gets `latest`, since the daemon would otherwise pull every tag.
    pub(crate) fn to_pull(self) -> String {
        match (self.tag, self.digest) {
            (None, None) => format!("{}:latest", self.name),
            (Some(tag), None) => format!("{}:{tag}", self.name),
            (None, Some(digest)) => format!("{}@{digest}", self.name),
            (Some(tag), Some(digest)) => format!("{}:{tag}@{digest}", self.name),
        }
    }
}

/// Lower-case letters and digits, in groups with a dot, one or two underscores, or dashes between them.
fn is_path_segment(segment: &str) -> bool {
    let is_separator = |c: char| "._-".contains(c);
    let is_group = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let mut groups = segment.split(is_separator);
    let separators = segment.split(|c: char| !is_separator(c)).filter(|text| !text.is_empty());
    let are_right = |text: &str| matches!(text, "." | "_" | "__") || text.chars().all(|c| c == '-');
    !segment.is_empty()
        && !segment.starts_with(is_separator)
        && !segment.ends_with(is_separator)
        && groups.all(is_group)
        && separators.into_iter().all(are_right)
}

fn is_digest(digest: &str) -> bool {
    let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    digest
        .split_once(':')
        .is_some_and(|(algorithm, digits)| ALGORITHMS.contains(&(algorithm, digits.len())) && is_hex(digits))
}

/// Splits a name into the registry's host and the path. A name without a host belongs to Docker Hub (`docker.io`).
pub(crate) fn host_and_path(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path),
        _ => ("docker.io", name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_split_into_name_tag_and_digest() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let with_digest = format!("r.io/a@{digest}");
        let table = [
            ("busybox", ("busybox", None, None), "busybox:latest", "docker.io/library/busybox"),
            ("me/app:1", ("me/app", Some("1"), None), "me/app:1", "docker.io/me/app"),
            (
                "localhost:5000/app",
                ("localhost:5000/app", None, None),
                "localhost:5000/app:latest",
                "localhost:5000/app",
            ),
            (with_digest.as_str(), ("r.io/a", None, Some(digest.as_str())), with_digest.as_str(), "r.io/a"),
            (
                "index.docker.io/a:t",
                ("index.docker.io/a", Some("t"), None),
                "index.docker.io/a:t",
                "docker.io/library/a",
            ),
        ];
        for (image, (name, tag, digest), pull, repository) in table {
            let reference = Reference::parse(image).unwrap();
            assert_eq!(reference, Reference { name, tag, digest }, "{image}");
            assert_eq!(reference.to_pull(), pull);
            assert_eq!(reference.repository(), repository);
        }
    }

    #[test]
    fn a_text_that_could_leave_its_url_path_is_no_reference() {
        for image in ["", ":", "a:", "../containers", "a/../b", "a//b", "a?x=1", "a#b", "a b", "a@sha256", "a%2e"] {
            assert_eq!(Reference::parse(image), None, "{image}");
        }
    }

    #[test]
    fn only_the_host_of_a_registry_has_a_port_or_brackets() {
        for image in ["localhost:5000/a", "[::1]:5000/a/b:1", "r.io:443/a", "HOST/app:Tag", "a:LATEST"] {
            assert!(Reference::parse(image).is_some(), "{image}");
        }
        for image in [
            "r.io/a:1:2",
            "a:1:2",
            "[a]:1",
            "r.io/[a]",
            "r.io/a+b",
            "a=b",
            "a:t+1",
            "r.io/b:1/a",
            "App",
            "r.io/App",
            "UPPER/Case",
        ] {
            assert_eq!(Reference::parse(image), None, "{image}");
        }
    }

    #[test]
    fn a_name_that_docker_refuses_is_not_asked_for() {
        for image in ["a.b-c__d/e_f--g:_x.y-z", "a-b.c/d", "1/2:3", "localhost/a", "docker.io/library/a"] {
            assert!(Reference::parse(image).is_some(), "{image}");
        }
        for image in
            ["a..b", "a___b", "a._b", "-a", "a-", "a/_b", "a/b.", "r.io/a/.b", "r.io/", "/a", ".:/a", "a:-x", "a:.x"]
        {
            assert_eq!(Reference::parse(image), None, "{image}");
        }
        let hex = |length: usize| "a".repeat(length);
        for (digest, wanted) in [
            (format!("sha256:{}", hex(64)), true),
            (format!("sha384:{}", hex(96)), true),
            (format!("sha256:{}", hex(40)), false),
            (format!("sha256:{}", hex(63)), false),
            (format!("sha256:{}", "A".repeat(64)), false),
            (format!("sha256:{}", "g".repeat(64)), false),
            (format!("md5:{}", hex(64)), false),
            ("sha256:".to_owned(), false),
            (hex(64), false),
        ] {
            assert_eq!(Reference::parse(&format!("r.io/a@{digest}")).is_some(), wanted, "{digest}");
        }
    }

    #[test]
    fn a_reference_that_docker_would_refuse_for_its_length_is_none() {
        let name = |length: usize| format!("r.io/{}", "x".repeat(length - 5));
        let table = [
            (name(MAX_NAME), true),
            (name(MAX_NAME + 1), false),
            (name(70_000), false),
            (format!("a:{}", "t".repeat(MAX_TAG)), true),
            (format!("a:{}", "t".repeat(MAX_TAG + 1)), false),
            (format!("a@sha512:{}", "0".repeat(128)), true),
            (format!("a@sha256:{}", "0".repeat(70_000)), false),
        ];
        for (image, wanted) in table {
            assert_eq!(Reference::parse(&image).is_some(), wanted, "{} bytes", image.len());
        }
    }
}
