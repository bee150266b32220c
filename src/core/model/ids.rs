//! Identifiers, each a type of its own, so that a task ARN cannot be passed in place of a container name.
//!
//! A clone shares the text instead of copying it, since a step of the core clones the ARN of its task and the names of its
//! containers many times.

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Arc<str>);

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { by_bytes(self.0.as_bytes(), other.0.as_bytes()) }
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }


        impl $name {
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

    };
}

/// Compares two texts by their bytes, eight bytes at a time. The static binary's `memcmp` takes one byte at a time, and the ARNs
/// of one cluster share their first hundred bytes or so.
fn by_bytes(left: &[u8], right: &[u8]) -> Ordering {
    let (left_words, _) = left.as_chunks::<8>();
    let (right_words, _) = right.as_chunks::<8>();
    for (left, right) in left_words.iter().zip(right_words) {
        if left != right {
            return left.cmp(right);
        }
    }
    let compared = 8 * left_words.len().min(right_words.len());
    left[compared..].cmp(&right[compared..])
}

/// `Display` and `Debug` that show the whole identifier.
macro_rules! show_in_full {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.0).finish()
            }
        }
    )*};
}

text_id!(
    /// The full ARN of an ECS task, which identifies the task everywhere in the agent.
    TaskArn
);
text_id!(
    /// The name of a container in its task definition, unique in the task.
    ContainerName
);
text_id!(
    /// Docker's id of a container: 64 hexadecimal digits, known only after the create.
    RuntimeId
);
text_id!(
    /// The id of one set of IAM role credentials. The credentials themselves never enter the model. The id is shown shortened,
    /// because a program that knows it may request the credentials.
    CredentialsId
);
text_id!(
    /// The random id of one container in the URLs of the task metadata endpoint. It is shown shortened, because a program that
    /// knows it may read the container's metadata and change its task.
    EndpointId
);
text_id!(
    /// The identity of one agent, drawn at random once and kept in its data directory. Every container that the agent creates
    /// has it as a label.
    OwnerId
);
show_in_full!(TaskArn ContainerName RuntimeId OwnerId);

/// `Display` and `Debug` that show only the beginning, as in the log of the Go agent (spec `security.md` §3).
macro_rules! show_shortened {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let start: String = self.0.chars().take(8).collect();
                write!(f, "{start}-REDACTED")
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl $name {
            /// Whether `text` is this id. Takes the same time for every text of the same length, so that nobody can guess the id
            /// bit by bit.
            pub fn is(&self, text: &str) -> bool {
                is_same_secret(self.0.as_bytes(), text.as_bytes())
            }
        }
    )*};
}
show_shortened!(CredentialsId EndpointId);

/// Compares all bytes, wherever the first difference is.
fn is_same_secret(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false; // the length is no secret
    }
    // Words, not bytes: each request is compared with all ids of this host.
    let (left_words, left_rest) = left.as_chunks();
    let (right_words, right_rest) = right.as_chunks();
    let words = left_words.iter().zip(right_words);
    let words = words.fold(0, |all, (left, right)| all | (u64::from_ne_bytes(*left) ^ u64::from_ne_bytes(*right)));
    let rest = left_rest.iter().zip(right_rest).fold(0, |all, (left, right)| all | (left ^ right));
    // Otherwise the compiler could leave a loop at the first difference.
    std::hint::black_box(words) | std::hint::black_box(u64::from(rest)) == 0
}

impl TaskArn {
    /// The task id: the text after the last `/` (spec `docker-mapping.md` §5).
    pub fn task_id(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The task id, with the cluster before it if the ARN has one: `judge/abc`. As a relative path, it leads to the directory of
    /// the task's metadata files. `None` if a part of it is no plain name, so that no path leads elsewhere.
    pub fn path(&self) -> Option<&str> {
        let (_, path) = self.0.splitn(6, ':').nth(5)?.split_once('/')?;
        path.split('/').all(is_plain_name).then_some(path)
    }
}

/// The text is a plain name: letters, digits, `-` and `_`. It may be a part of a path.
pub fn is_plain_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// The id of one operation; its outcome carries the same id.
///
/// The core numbers its operations in ascending order and never reuses an id in the same process. So the late outcome of an
/// abandoned operation is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct OpId(pub u64);

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "op-{}", self.0)
    }
}

/// A 64-bit FNV-1a hash for the suffixes of names and for jitter. Not for security. It must give the same result in every build,
/// because names that it made are found again.
pub fn stable_hash(parts: &[&str]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for byte in part.bytes().chain([0xff]) {
            hash ^= u64::from(byte);
            hash = hash.wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    // FNV's low bits are weak for short inputs. The final mix of splitmix64 makes all bits usable.
    hash ^= hash >> 30;
    hash = hash.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash ^= hash >> 27;
    hash = hash.wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_have_the_order_of_their_texts() {
        let long = "arn:aws:ecs:us-west-2:1:task/cluster/";
        let mut texts: Vec<String> =
            ["", "a", "b", "1234567", "12345678", "123456789", "é", "éa", "\u{7f}"].map(String::from).into();
        texts.extend(texts.clone().iter().map(|text| format!("{long}{text}")));
        texts.extend(texts.clone().iter().map(|text| format!("{text}{long}")));
        for left in &texts {
            for right in &texts {
                let ids = [left, right].map(|text| TaskArn::from(text.as_str()));
                assert_eq!(ids[0].cmp(&ids[1]), left.cmp(right), "{left:?} {right:?}");
                assert_eq!(ids[0] == ids[1], left == right, "{left:?} {right:?}");
            }
        }
        let arn = TaskArn::from(long);
        assert_eq!(arn.cmp(&arn.clone()), Ordering::Equal);
    }

    #[test]
    fn task_id_is_the_last_segment_of_old_and_new_arns() {
        assert_eq!(TaskArn::from("arn:aws:ecs:us-west-2:1:task/judge/abc").task_id(), "abc");
        assert_eq!(TaskArn::from("arn:aws:ecs:us-west-2:1:task/abc").task_id(), "abc");
    }

    #[test]
    fn the_path_of_a_task_leads_nowhere_else() {
        let path = |arn: &str| TaskArn::from(arn).path().map(str::to_owned);
        assert_eq!(path("arn:aws:ecs:us-west-2:1:task/judge/abc").as_deref(), Some("judge/abc"));
        assert_eq!(path("arn:aws:ecs:us-west-2:1:task/abc").as_deref(), Some("abc"));
        for odd in ["", "task/abc", "arn:aws:ecs:r:1:task", "arn:aws:ecs:r:1:task/", "arn:aws:ecs:r:1:task/a//b"] {
            assert_eq!(path(odd), None, "{odd}");
        }
        for way_out in ["../abc", "judge/..", "judge/.", "judge/a:b", "/etc", "judge/a\0"] {
            assert_eq!(path(&format!("arn:aws:ecs:r:1:task/{way_out}")), None, "{way_out}");
        }
    }

    #[test]
    fn the_id_of_credentials_is_shortened_wherever_it_is_shown() {
        let id = CredentialsId::from("66666666-7777-8888-9999-000000000000");
        assert_eq!(
            (format!("{id}").as_str(), format!("{id:?}").as_str()),
            ("66666666-REDACTED", "CredentialsId(66666666-REDACTED)")
        );
        assert_eq!(format!("{:?}", TaskArn::from("arn")), "TaskArn(\"arn\")");
        let endpoint = EndpointId::from("d9c8a5df-4e7b-4ed7-8770-7a2d2a53f0ac");
        assert_eq!(format!("{endpoint} {endpoint:?}"), "d9c8a5df-REDACTED EndpointId(d9c8a5df-REDACTED)");
    }

    #[test]
    fn only_the_same_text_is_the_id() {
        let id = EndpointId::from("d9c8a5df");
        assert!(id.is("d9c8a5df"));
        for other in ["", "d", "d9c8a5d", "d9c8a5dg", "e9c8a5df", "D9C8A5DF", "d9c8a5dff", "d9c8a5df "] {
            assert!(!id.is(other), "{other}");
        }
    }

    #[test]
    fn the_hash_separates_parts_and_is_fixed() {
        assert_ne!(stable_hash(&["ab", "c"]), stable_hash(&["a", "bc"]));
        assert_eq!(stable_hash(&["task", "web"]), stable_hash(&["task", "web"]));
    }
}
