use super::task::{AsmAuthData, DockerConfig, EcrAuthData};
use super::*;
use serde::Deserializer;
use serde::de::value::Error;
use serde::de::{Error as _, Visitor};
use serde_json::json;

/// Asks a type for the names of its members, and for nothing else.
struct Names<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        Err(Error::custom("asked"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
        Err(Error::custom("not a struct"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn members<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    assert!(T::deserialize(Names(&mut names)).is_err());
    names
}

#[test]
fn every_member_that_is_read_is_known_in_any_case() {
    assert!(NAMES.is_sorted());
    let read = [
        members::<Header>(),
        members::<Payload>(),
        members::<RoleCredentials>(),
        members::<Credentials>(),
        members::<TaskList>(),
        members::<TaskIdentifier>(),
        members::<Task>(),
        members::<Container>(),
        members::<RestartPolicy>(),
        members::<PortMapping>(),
        members::<MountPoint>(),
        members::<DockerConfig>(),
        members::<RegistryAuthentication>(),
        members::<EcrAuthData>(),
        members::<AsmAuthData>(),
        members::<DependsOn>(),
        members::<Volume>(),
        members::<volume::HostVolume>(),
        members::<DockerVolume>(),
        members::<EfsVolume>(),
        members::<volume::EfsAuthorization>(),
        members::<AttachInterfaces>(),
        members::<NetworkInterface>(),
        members::<VlanProperties>(),
        members::<ConfirmAttachment>(),
        members::<Attachment>(),
        members::<Property>(),
    ];
    for name in read.into_iter().flatten() {
        assert_eq!(known_name(&name.to_uppercase()), Some(*name), "{name} is not in NAMES");
    }
}

#[test]
fn names_in_any_case_and_the_proper_one_first() {
    let text =
        r#"{"TYPE": "HeartbeatMessage", "Message": {"MESSAGEID": "a", "messageid": "b", "Unknown": {"NAME": 1}}}"#;
    let (kind, body) = envelope(text).unwrap();
    assert_eq!((kind, &body), ("HeartbeatMessage", &json!({"messageId": "a", "Unknown": {"name": 1}})));
    let text = r#"{"type": "HeartbeatMessage", "message": {"MESSAGEID": "a", "messageId": "b", "messageid": "c"}}"#;
    assert_eq!(envelope(text).unwrap().1, json!({"messageId": "b"}));
}

#[test]
fn what_belongs_to_the_customer_is_left_alone() {
    let body = json!({"Environment": {"NAME": "x", "Type": null}, "labels": {"ARN": "y"}});
    let text = json!({"type": "PayloadMessage", "message": body}).to_string();
    let expected = json!({"environment": {"NAME": "x", "Type": null}, "labels": {"ARN": "y"}});
    assert_eq!(envelope(&text).unwrap().1, expected);
    let container: Container = shape(&expected).unwrap();
    assert_eq!(container.environment["Type"], "");
}

#[test]
fn nesting_ends_without_a_stack_overflow() {
    for depth in [20, 100, 100_000] {
        let text =
            format!("{{\"type\":\"PayloadMessage\",\"message\":{}{}}}", "{\"a\":[".repeat(depth), "]}".repeat(depth));
        assert_eq!(envelope(&text).is_ok(), depth < 60, "{depth}");
    }
}
