//! Environment files in S3 (spec `resources.md` §5).
//!
//! Owns the downloads and the parsing of lines. Unlike the Go agent, this module writes nothing to disk: the files are held in
//! memory ([`super::vault`]) until the container is created, so no key can lead out of a directory and nothing has to be
//! removed. Invariant: either all files of a container are fetched, or the failure names each file that is not.

use crate::aws::client::gather::{self, Failed};
use crate::aws::client::sdk::Sdk;
use crate::aws::identity::roles::RoleCredentials;
use crate::aws::services::s3::{self, Object, ObjectError};
use crate::input::byte_order_mark::without_bom;
use ecs_core::model::resource::EnvironmentFile;
use ecs_core::model::{ContainerName, Failure, Secret};
use std::collections::BTreeMap;

/// A line must be shorter than this, in bytes, as in the Go agent.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// The name of the resource that holds the files of a container.
pub fn resource_of(container: &ContainerName) -> String {
    format!("envfile_{container}")
}

/// Fetches the files: the variables of each, in the order of the files.
///
/// # Errors
/// The reason with which the task ends, or a retryable failure.
pub async fn fetch(
    sdk: &Sdk,
    files: &[EnvironmentFile],
    role: Option<&RoleCredentials>,
) -> Result<Vec<BTreeMap<String, Secret>>, Failure> {
    let Some(role) = role else {
        return Err(Failure::ends_task("environment file resource: unable to find execution role credentials"));
    };
    gather::all(files.iter().map(|file| fetch_file(sdk, &file.arn, role)).collect()).await
}

async fn fetch_file(sdk: &Sdk, arn: &str, role: &RoleCredentials) -> Result<BTreeMap<String, Secret>, Failed> {
    let object = Object::parse(arn).map_err(|error| Failed {
        text: format!("unable to parse bucket and key from s3 ARN specified in environmentFile {arn}, error: {error}"),
        may_pass: false,
    })?;
    let Object { bucket, key } = &object;
    let bytes = s3::get(sdk, &object, role).await.map_err(|error| match error {
        ObjectError::Bucket { text, may_pass } => {
            Failed { text: format!("unable to initialize s3 client for bucket {bucket}, error: {text}"), may_pass }
        }
        ObjectError::Object { text, may_pass } => Failed {
            text: format!("unable to download env file with key {key} from bucket {bucket}, error: {text}"),
            may_pass,
        },
    })?;
    parse(&bytes).map_err(|error| Failed {
        text: format!("unable to read env file with key {key} from bucket {bucket}, error: {error}"),
        may_pass: false,
    })
}

/// Parses a file with `NAME=VALUE` on each line, split at the first `=`. Nothing is trimmed or unquoted. Comments (`#`), lines
/// without `=` and lines without a name are ignored. If a name occurs several times, the last line takes precedence. A UTF-8
/// byte order mark is skipped.
pub(super) fn parse(bytes: &[u8]) -> Result<BTreeMap<String, Secret>, String> {
    let mut variables = BTreeMap::new();
    let bytes = without_bom(bytes).map_err(|error| error.to_string())?;
    for line in bytes.split(|byte| *byte == b'\n') {
        if line.len() >= MAX_LINE_BYTES {
            return Err(format!("a line has {MAX_LINE_BYTES} bytes or more"));
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(at) = line.iter().position(|byte| *byte == b'=') else { continue };
        if at > 0 && line[0] != b'#' {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            variables.insert(text(&line[..at]), Secret::new(text(&line[at + 1..])));
        }
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::tests::fake::{self, Answer, Fake, role};
    use ecs_core::model::FailureKind;

    #[test]
    fn lines_are_parsed_as_by_the_go_agent() {
        let text = "A=1\r\n# C=comment\n#C=comment\n =space\nB = two \n=nameless\nno equals sign\nQ=\"quoted\"\nE=\nA=last=with=more\n\
                    U=\u{e4}\nNOEOL=x";
        let found = parse(text.as_bytes()).unwrap();
        let shown: Vec<_> = found.iter().map(|(name, value)| format!("{name}={}", value.expose())).collect();
        let wanted = [" =space", "A=last=with=more", "B = two ", "E=", "NOEOL=x", "Q=\"quoted\"", "U=\u{e4}"];
        assert_eq!(shown, wanted);
        assert!(parse(b"").unwrap().is_empty());
        assert_eq!(parse(b"A=\xff").unwrap()["A"].expose(), "\u{fffd}");
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_name() {
        for text in ["\u{feff}A=1\nB=2", "\u{feff}#A=0\nA=1\r\nB=2"] {
            let found = parse(text.as_bytes()).unwrap();
            assert_eq!((found["A"].expose(), found["B"].expose(), found.len()), ("1", "2", 2), "{text:?}");
        }
        let wide: Vec<u8> = "\u{feff}A=hunter2\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(parse(&wide).unwrap_err(), "it is UTF-16 or UTF-32, not UTF-8: save it as UTF-8");
    }

    #[test]
    fn a_line_that_is_too_long_makes_the_file_invalid() {
        let line = |length: usize| format!("A=1\nB={}\n", "x".repeat(length - 2));
        assert_eq!(parse(line(MAX_LINE_BYTES - 1).as_bytes()).unwrap().len(), 2);
        assert_eq!(parse(line(MAX_LINE_BYTES).as_bytes()).unwrap_err(), "a line has 65536 bytes or more");
    }

    fn files(arns: &[&str]) -> Vec<EnvironmentFile> {
        arns.iter().map(|arn| EnvironmentFile { arn: (*arn).to_owned() }).collect()
    }

    #[tokio::test]
    async fn files_come_in_their_order() {
        let fake = Fake::start(|request| match request.path.as_str() {
            "/b" => Answer::text(200, "").with("x-amz-bucket-region", "us-west-2"),
            path => Answer::text(200, &format!("FROM={path}")),
        })
        .await;
        let sdk = Sdk::new(fake::settings(&fake)).unwrap();
        let asked = files(&["arn:aws:s3:::b/2.env", "arn:aws:s3:::b/1.env"]);
        let found = fetch(&sdk, &asked, Some(&role("exec"))).await.unwrap();
        let from: Vec<&str> = found.iter().map(|file| file["FROM"].expose()).collect();
        assert_eq!(from, ["/b/2.env", "/b/1.env"]);
    }

    #[tokio::test]
    async fn every_missing_file_is_reported() {
        let fake = Fake::start(|request| match request.path.as_str() {
            "/gone" => Answer::text(404, ""),
            "/b" => Answer::text(200, ""),
            "/b/long" => Answer::text(200, &"x".repeat(MAX_LINE_BYTES)),
            _ => Answer::text(403, "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"),
        })
        .await;
        let sdk = Sdk::new(fake::settings(&fake)).unwrap();
        let asked = files(&["here", "arn:aws:s3:::gone/k", "arn:aws:s3:::b/denied", "arn:aws:s3:::b/long"]);
        let failure = fetch(&sdk, &asked, Some(&role("exec"))).await.unwrap_err();
        let wanted = "unable to parse bucket and key from s3 ARN specified in environmentFile here, error: invalid s3 arn: here;\
            unable to initialize s3 client for bucket gone, error: bucket not found;\
            unable to download env file with key denied from bucket b, error: operation error S3: GetObject, https response error \
            StatusCode: 403, RequestID: , HostID: , api error AccessDenied: Access Denied;\
            unable to read env file with key long from bucket b, error: a line has 65536 bytes or more";
        assert_eq!((failure.message.as_str(), failure.kind), (wanted, FailureKind::EndsTask));
        let failure = fetch(&sdk, &asked, None).await.unwrap_err();
        assert_eq!(failure.message, "environment file resource: unable to find execution role credentials");
    }
}
