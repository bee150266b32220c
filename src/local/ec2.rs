//! The EC2 instance on which the container instance runs: its tags (DescribeTags, in EC2's Query protocol), additional metadata,
//! and a clock that may be wrong. This module owns those three and the XML. Invariant: all of it is empty until a script sets it.

use super::api_error::ApiError;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The image id of the instance.
pub(super) const IMAGE_ID: &str = "ami-0123456789abcdef0";
/// The instance type.
pub(super) const INSTANCE_TYPE: &str = "m5.large";
/// Maximum number of tags, and of metadata paths. Further ones are dropped.
const MAX_SET: usize = 100;

/// The parts of the instance that scripts set.
#[derive(Debug, Default)]
pub(super) struct Ec2 {
    /// Tags of the instance.
    pub(super) tags: BTreeMap<String, String>,
    /// Texts by path below `meta-data/`.
    metadata: BTreeMap<String, String>,
    /// How many seconds AWS's clock is ahead of the host's.
    pub(super) clock_ahead: i64,
}

impl Ec2 {
    /// Sets the text of a metadata path; `None` removes it. A new path beyond the maximum number is ignored.
    pub(super) fn set_metadata(&mut self, path: &str, text: Option<String>) {
        let has_room = self.metadata.len() < MAX_SET || self.metadata.contains_key(path);
        match text {
            Some(text) if has_room => {
                self.metadata.insert(path.to_owned(), text);
            }
            Some(_) => {}
            None => {
                self.metadata.remove(path);
            }
        }
    }

    pub(super) fn metadata(&self, path: &str) -> Option<String> {
        self.metadata.get(path).cloned()
    }

    /// Answers a call in the Query protocol.
    pub(super) fn call(&self, instance_id: &str, form: &[(String, String)]) -> Result<String, ApiError> {
        let find = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let action = find("Action").unwrap_or_default();
        if action != "DescribeTags" {
            // STS, IAM and other services use the same protocol.
            let message = format!(
                "{action} is not supported here. Of the services with this protocol there is only EC2, with DescribeTags."
            );
            return Err(ApiError::new(400, "InvalidAction", message));
        }
        let mut items = String::new();
        let is_this_one = form.iter().any(|(_, value)| value == instance_id);
        for (key, value) in self.tags.iter().take(MAX_SET).filter(|_| is_this_one) {
            let (key, value) = (escaped(key), escaped(value));
            let _ = write!(
                items,
                "<item><resourceId>{instance_id}</resourceId><resourceType>instance</resourceType><key>{key}</key><value>{value}</value></item>"
            );
        }
        let namespace = "http://ec2.amazonaws.com/doc/2016-11-15/";
        Ok(format!("<DescribeTagsResponse xmlns=\"{namespace}\"><tagSet>{items}</tagSet></DescribeTagsResponse>"))
    }

    /// The time of this AWS, in seconds since the epoch. `now` is the time of the host.
    pub(super) fn time(&self, now: f64) -> i64 {
        now as i64 + self.clock_ahead
    }

    /// The time of this AWS in the format of HTTP headers.
    pub(super) fn http_date(&self, now: f64) -> String {
        let time = aws_smithy_types::DateTime::from_secs(self.time(now));
        time.fmt(aws_smithy_types::date_time::Format::HttpDate).unwrap_or_default()
    }
}

/// An error in the Query protocol.
pub(super) fn error_body(error: &ApiError) -> String {
    let (code, message) = (escaped(&error.code), escaped(&error.message));
    format!("<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors></Response>")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_those_of_the_instance() {
        let mut ec2 = Ec2::default();
        ec2.tags.insert("a<b".to_owned(), "x & y".to_owned());
        let form = |id: &str| {
            vec![("Action".to_owned(), "DescribeTags".to_owned()), ("Filter.1.Value.1".to_owned(), id.to_owned())]
        };
        let own = ec2.call("i-1", &form("i-1")).unwrap();
        assert!(own.contains("<key>a&lt;b</key><value>x &amp; y</value>"), "{own}");
        assert!(!ec2.call("i-1", &form("i-2")).unwrap().contains("<item>"));
        assert_eq!(ec2.call("i-1", &[]).unwrap_err().code, "InvalidAction");
    }

    #[test]
    fn a_full_set_of_paths_takes_changes_but_no_new_path() {
        let mut ec2 = Ec2::default();
        for number in 0..=MAX_SET {
            ec2.set_metadata(&number.to_string(), Some("old".to_owned()));
        }
        ec2.set_metadata("0", Some("new".to_owned()));
        assert_eq!((ec2.metadata("0"), ec2.metadata(&MAX_SET.to_string())), (Some("new".to_owned()), None));
        ec2.set_metadata("0", None);
        assert_eq!((ec2.metadata("0"), ec2.metadata("1")), (None, Some("old".to_owned())));
    }

    #[test]
    fn a_clock_that_is_ahead_is_ahead_everywhere() {
        const NOW: f64 = 1_700_000_000.0; // 2023-11-14T22:13:20Z
        let ec2 = Ec2 { clock_ahead: 7200, ..Ec2::default() };
        assert_eq!(ec2.time(NOW), 1_700_007_200);
        assert_eq!(ec2.http_date(NOW), "Wed, 15 Nov 2023 00:13:20 GMT");
    }
}
