//! One call of ECR: its members, its caller, and pages of lists. Invariants: a member of a wrong form is named; a page has a
//! bounded number of entries.

use crate::ecr::error::EcrError;
use crate::ecr::names::{check_repository, is_account, shortened};
use crate::ecr::policy::Request;
use crate::ecr::{Action, Digest, Principal};
use crate::state::State;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// The longest token of a page, in bytes.
const MAX_TOKEN: usize = 2048;
/// The longest text in a list member, in bytes.
const MAX_TEXT: usize = 2048;

/// A call.
pub(super) struct Call<'a> {
    pub(super) state: &'a mut State,
    pub(super) caller: &'a Principal,
    pub(super) body: &'a Value,
    /// The time of ECR, in seconds since the epoch.
    pub(super) now: f64,
}

/// The repository that a call names, after its permission was checked.
pub(super) struct Target {
    pub(super) account: String,
    pub(super) name: String,
}

impl Target {
    /// The members that name the repository in an answer.
    pub(super) fn show(&self) -> Value {
        json!({"registryId": self.account, "repositoryName": self.name})
    }
}

impl<'a> Call<'a> {
    /// The account whose registry is meant: that of `registryId`, or the caller's own.
    pub(super) fn account(&self) -> Result<String, EcrError> {
        let account = match text(self.body, "registryId")? {
            Some(account) => account,
            None if self.caller.is_service() => return Err(EcrError::invalid("registryId", "Member must not be null")),
            None => self.caller.account(),
        };
        match is_account(account) {
            true => Ok(account.to_owned()),
            false => Err(EcrError::invalid("registryId", "must satisfy regular expression '[0-9]{12}'")),
        }
    }

    /// The repository that the call names, which exists, and on which the caller may perform the action.
    pub(super) fn target(&mut self, action: Action) -> Result<Target, EcrError> {
        let target = self.named()?;
        self.state.authorize_ecr(self.caller, action, &target.account, &target.name)?;
        Ok(target)
    }

    /// The repository that the call names, whether it exists or not. No permission is checked.
    pub(super) fn named(&self) -> Result<Target, EcrError> {
        let account = self.account()?;
        let name = required(self.body, "repositoryName")?;
        check_repository(name)?;
        Ok(Target { account, name: name.to_owned() })
    }

    /// The caller may perform an action that is about the whole registry of its account.
    pub(super) fn permit_registry(&mut self, action: Action) -> Result<(), EcrError> {
        let request = Request::new(self.caller, action.name(), "*", self.caller.account());
        self.state.permit(&request).map_err(EcrError::Denied)
    }
}

/// A text member of a request; `None`: it is missing.
pub(super) fn text<'b>(body: &'b Value, member: &'static str) -> Result<Option<&'b str>, EcrError> {
    match &body[member] {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        _ => Err(wrong_form(member, "a string")),
    }
}

/// A text member of a request that must be there.
pub(super) fn required<'b>(body: &'b Value, member: &'static str) -> Result<&'b str, EcrError> {
    text(body, member)?.ok_or_else(|| EcrError::invalid(member, "Member must not be null"))
}

/// A member of a request that is true or false; missing: false.
pub(super) fn flag(body: &Value, member: &'static str) -> Result<bool, EcrError> {
    match &body[member] {
        Value::Null => Ok(false),
        Value::Bool(flag) => Ok(*flag),
        _ => Err(wrong_form(member, "a boolean: true or false")),
    }
}

/// A list of up to `max` texts; empty: it is missing.
pub(super) fn texts<'b>(body: &'b Value, member: &'static str, max: usize) -> Result<Vec<&'b str>, EcrError> {
    let list = match &body[member] {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) => list,
        _ => return Err(wrong_form(member, "an array of strings")),
    };
    if list.is_empty() || list.len() > max {
        return Err(EcrError::invalid(member, format!("Member must have length 1 to {max}")));
    }
    let text = |value: &'b Value| value.as_str().filter(|text| text.len() <= MAX_TEXT);
    list.iter().map(text).collect::<Option<_>>().ok_or_else(|| wrong_form(member, "an array of strings"))
}

/// A member does not have the form of the API.
pub(super) fn wrong_form(member: &str, form: &str) -> EcrError {
    EcrError::other("SerializationException", format!("{member}: it must be {form}."))
}

/// The `filter` of a call: which images it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    tags: TagStatus,
    /// Images that clients can pull: all of this registry, which archives none.
    is_active: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TagStatus {
    Any,
    Tagged,
    Untagged,
}

impl Filter {
    /// Reads the member. Without it, all images pass.
    pub(super) fn read(body: &Value) -> Result<Self, EcrError> {
        let filter = &body["filter"];
        if !filter.is_null() && !filter.is_object() {
            return Err(wrong_form("filter", "an object"));
        }
        let tags = match text(filter, "tagStatus")? {
            None | Some("ANY") => TagStatus::Any,
            Some("TAGGED") => TagStatus::Tagged,
            Some("UNTAGGED") => TagStatus::Untagged,
            Some(_) => {
                let constraint = "Member must satisfy enum value set: [TAGGED, UNTAGGED, ANY]";
                return Err(EcrError::invalid("filter.tagStatus", constraint));
            }
        };
        let is_active = match text(filter, "imageStatus")? {
            None | Some("ANY" | "ACTIVE") => true,
            Some("ARCHIVED" | "ACTIVATING") => false,
            Some(_) => {
                let constraint = "Member must satisfy enum value set: [ACTIVE, ARCHIVED, ACTIVATING, ANY]";
                return Err(EcrError::invalid("filter.imageStatus", constraint));
            }
        };
        Ok(Self { tags, is_active })
    }

    /// The filter lets images with or without tags pass.
    pub(super) fn passes(self, is_tagged: bool) -> bool {
        let fits = match self.tags {
            TagStatus::Any => true,
            TagStatus::Tagged => is_tagged,
            TagStatus::Untagged => !is_tagged,
        };
        fits && self.is_active
    }
}

/// Which page of a list a call wants.
#[derive(Clone, Debug)]
pub(super) struct Paging {
    /// The key of the last entry of the page before; `None`: the first page is wanted.
    after: Option<String>,
    max: usize,
}

impl Paging {
    /// Reads `nextToken` and `maxResults`: up to `max`, and `usual` if it is missing.
    pub(super) fn read(body: &Value, usual: usize, max: usize) -> Result<Self, EcrError> {
        let after = match text(body, "nextToken")?.filter(|token| !token.is_empty()) {
            None => None,
            Some(token) => {
                let decoded =
                    Some(token).filter(|token| token.len() <= MAX_TOKEN).map(|token| URL_SAFE_NO_PAD.decode(token));
                let key = decoded.and_then(Result::ok).and_then(|bytes| String::from_utf8(bytes).ok());
                Some(
                    key.ok_or_else(|| EcrError::invalid("nextToken", "it must be the nextToken of the answer before"))?,
                )
            }
        };
        let wanted = match &body["maxResults"] {
            Value::Null => usual,
            Value::Number(number) => {
                let number = number.as_u64().and_then(|number| usize::try_from(number).ok());
                let constraint = || format!("Member must have value between 1 and {max}");
                let fits = number.filter(|number| (1..=max).contains(number));
                fits.ok_or_else(|| EcrError::invalid("maxResults", constraint()))?
            }
            _ => return Err(wrong_form("maxResults", "a whole number")),
        };
        Ok(Self { after, max: wanted })
    }

    /// A call that names the entries itself wants no page of a list.
    pub(super) fn refuse(body: &Value, member: &str) -> Result<(), EcrError> {
        for (name, value) in [("maxResults", &body["maxResults"]), ("nextToken", &body["nextToken"])] {
            if !value.is_null() {
                let constraint = format!("{name} cannot be used when {member} are specified");
                return Err(EcrError::invalid(
                    if name == "maxResults" { "maxResults" } else { "nextToken" },
                    constraint,
                ));
            }
        }
        Ok(())
    }

    /// The key of the last entry of the page before; `None`: the first page is wanted. A list need not begin before it.
    pub(super) fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// The digest with which [`Self::after`] begins; `None`: it begins with none.
    pub(super) fn after_digest(&self) -> Option<Digest> {
        self.after()?.split(' ').next()?.parse().ok()
    }

    /// The page of a list whose keys rise, and the token of the next page; `None`: this is the last page.
    pub(super) fn page<T>(&self, list: impl Iterator<Item = (String, T)>) -> (Vec<T>, Option<String>) {
        let mut rest = list.skip_while(|(key, _)| self.after.as_ref().is_some_and(|after| key <= after)).peekable();
        let (mut page, mut last) = (Vec::new(), None);
        while page.len() < self.max {
            let Some((key, entry)) = rest.next() else { break };
            page.push(entry);
            last = Some(key);
        }
        let token = last.filter(|_| rest.peek().is_some()).map(|key| URL_SAFE_NO_PAD.encode(key));
        (page, token)
    }
}

/// Adds members to an answer; `null` ones are left out.
pub(super) fn with(mut answer: Value, members: Value) -> Value {
    if let (Value::Object(answer), Value::Object(members)) = (&mut answer, members) {
        answer.extend(members.into_iter().filter(|(_, value)| !value.is_null()));
    }
    answer
}

/// A text of a request, as an error shows it.
pub(super) fn shown(text: &str) -> String {
    shortened(text, 300)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(count: usize) -> impl Iterator<Item = (String, usize)> {
        (0..count).map(|number| (format!("{number:03}"), number))
    }

    #[test]
    fn pages_are_complete_and_do_not_overlap() {
        for (count, size) in [(0, 10), (1, 10), (10, 10), (11, 10), (25, 10)] {
            let (mut seen, mut token) = (Vec::new(), Value::Null);
            loop {
                let paging = Paging::read(&json!({"maxResults": size, "nextToken": token}), 100, 100).unwrap();
                let (page, next) = paging.page(list(count));
                assert!(page.len() <= size);
                seen.extend(page);
                let Some(next) = next else { break };
                token = json!(next);
            }
            assert_eq!(seen, (0..count).collect::<Vec<_>>(), "{count}");
        }
    }

    #[test]
    fn wrong_pages_are_refused_by_member() {
        for (body, reason) in [
            (
                json!({"maxResults": 0}),
                "'maxResults' failed to satisfy constraint: 'Member must have value between 1 and 50'",
            ),
            (json!({"maxResults": 51}), "between 1 and 50"),
            (json!({"maxResults": -1}), "between 1 and 50"),
            (json!({"maxResults": 1.5}), "between 1 and 50"),
            (json!({"maxResults": "5"}), "maxResults: it must be a whole number"),
            (json!({"nextToken": "?"}), "'nextToken' failed"),
            (json!({"nextToken": "x".repeat(5000)}), "'nextToken' failed"),
            (json!({"nextToken": 5}), "nextToken: it must be a string"),
        ] {
            let error = Paging::read(&body, 10, 50).unwrap_err().to_string();
            assert!(error.contains(reason), "{body}: {error}");
        }
        assert_eq!(Paging::read(&json!({}), 10, 50).unwrap().max, 10);
        let error = Paging::refuse(&json!({"maxResults": 5}), "imageIds").unwrap_err().to_string();
        assert!(error.contains("cannot be used when imageIds are specified"), "{error}");
    }

    #[test]
    fn members_of_a_wrong_form_are_named() {
        let body = json!({"a": 1, "b": [1], "c": [], "d": {"tagStatus": "some"}, "filter": {"tagStatus": "some"}});
        for error in [
            text(&body, "a").err(),
            required(&body, "x").err(),
            flag(&body, "a").err(),
            texts(&body, "b", 5).err(),
            texts(&body, "c", 5).err(),
        ] {
            assert!(["SerializationException", "InvalidParameterException"].contains(&error.unwrap().code()));
        }
    }

    #[test]
    fn filters_let_images_pass_by_tags_and_status() {
        for (filter, tagged, untagged) in [
            (Value::Null, true, true),
            (json!({"tagStatus": "ANY"}), true, true),
            (json!({"tagStatus": "TAGGED"}), true, false),
            (json!({"tagStatus": "UNTAGGED", "imageStatus": "ACTIVE"}), false, true),
            (json!({"imageStatus": "ARCHIVED"}), false, false),
        ] {
            let read = Filter::read(&json!({"filter": filter})).unwrap();
            assert_eq!((read.passes(true), read.passes(false)), (tagged, untagged), "{filter}");
        }
        for (filter, member) in [
            (json!({"tagStatus": "some"}), "filter.tagStatus"),
            (json!({"imageStatus": "some"}), "filter.imageStatus"),
            (json!("TAGGED"), "filter: it must be an object"),
        ] {
            let error = Filter::read(&json!({"filter": filter})).unwrap_err().to_string();
            assert!(error.contains(member), "{error}");
        }
    }
}
