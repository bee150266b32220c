use super::task::{AsmAuthData, DockerConfig, EcrAuthData};
use super::*;
use serde::Deserializer;
use serde::de::value::Error;
use serde::de::{Error as _, Visitor};
use serde_json::Value;

/// A deserializer that only records the names of a type's members.
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

/// Members that are kept as JSON values; other tests cover the errors in them.
const VALUES: [&str; 3] = ["arn", "overrides", "index"];

#[test]
fn the_corpus_has_a_wrong_kind_of_every_member_of_a_task() {
    let shapes = [
        ("", members::<Task>()),
        ("roleCredentials.", members::<RoleCredentials>()),
        ("executionRoleCredentials.", members::<RoleCredentials>()),
        ("associations[0].", members::<Association>()),
        ("associations[0].content.", members::<task::Content>()),
        ("attachments[0].", members::<Attachment>()),
        ("attachments[0].attachmentProperties[0].", members::<Property>()),
        ("elasticNetworkInterfaces[0].", members::<NetworkInterface>()),
        ("elasticNetworkInterfaces[0].interfaceVlanProperties.", members::<VlanProperties>()),
        ("elasticNetworkInterfaces[0].ipv4Addresses[0].", members::<Ipv4Address>()),
        ("elasticNetworkInterfaces[0].ipv6Addresses[0].", members::<interface::Ipv6Address>()),
        ("proxyConfiguration.", members::<ProxyConfiguration>()),
        ("volumes[0].", members::<Volume>()),
        ("volumes[0].host.", members::<volume::HostVolume>()),
        ("volumes[0].dockerVolumeConfiguration.", members::<DockerVolume>()),
        ("volumes[0].efsVolumeConfiguration.", members::<EfsVolume>()),
        ("volumes[0].efsVolumeConfiguration.authorizationConfig.", members::<volume::EfsAuthorization>()),
        ("containers[0].", members::<Container>()),
        ("containers[0].restartPolicy.", members::<RestartPolicy>()),
        ("containers[0].environmentFiles[0].", members::<EnvironmentFile>()),
        ("containers[0].secrets[0].", members::<Secret>()),
        ("containers[0].firelensConfiguration.", members::<FirelensConfiguration>()),
        ("containers[0].portMappings[0].", members::<PortMapping>()),
        ("containers[0].volumesFrom[0].", members::<VolumesFrom>()),
        ("containers[0].mountPoints[0].", members::<MountPoint>()),
        ("containers[0].dockerConfig.", members::<DockerConfig>()),
        ("containers[0].registryAuthentication.", members::<RegistryAuthentication>()),
        ("containers[0].registryAuthentication.asmAuthData.", members::<AsmAuthData>()),
        ("containers[0].registryAuthentication.ecrAuthData.", members::<EcrAuthData>()),
        ("containers[0].dependsOn[0].", members::<DependsOn>()),
    ];
    let cases = ecs_testing::corpus::cases();
    let outcomes = cases.iter().flat_map(|case| case["tasks"].as_array().into_iter().flatten()).map(Value::to_string);
    let outcomes: Vec<String> = outcomes.collect();
    for (shape, members) in shapes {
        for member in members.iter().filter(|member| !VALUES.contains(member)) {
            let place = format!(" into {shape}{member}, ");
            assert!(outcomes.iter().any(|outcome| outcome.contains(&place)), "no case has the text{place}");
        }
    }
}

#[test]
fn names_match_in_any_case_but_prefer_the_exact_name() {
    let text =
        r#"{"TYPE": "HeartbeatMessage", "Message": {"MESSAGEID": "a", "messageid": "b", "Unknown": {"NAME": 1}}}"#;
    let (kind, body) = envelope(text).unwrap();
    assert_eq!((kind, Header::read(body).unwrap().message_id.as_str()), ("HeartbeatMessage", "b"));
    let text = r#"{"type": "HeartbeatMessage", "message": {"MESSAGEID": "a", "messageId": "b", "messageid": "c"}}"#;
    assert_eq!(Header::read(envelope(text).unwrap().1).unwrap().message_id, "b");
    let text = r#"{"type": null, "message": null, "CloseMessage": "x"}"#;
    let (kind, body) = envelope(text).unwrap();
    assert_eq!((kind, body.text()), ("CloseMessage", "\"x\""));
}

#[test]
fn the_last_of_a_repeated_member_counts() {
    let text = r#"{"type": "CloseMessage", "type": "HeartbeatMessage", "message": {"messageId": "a", "messageId": "b", "messageId": null}}"#;
    let (kind, body) = envelope(text).unwrap();
    assert_eq!((kind, Header::read(body).unwrap().message_id.as_str()), ("HeartbeatMessage", "b"));
}

#[test]
fn names_that_the_customer_chose_are_unchanged() {
    let container: Container = decode(Raw::new(r#"{"Environment": {"NAME": "x", "Type": null}}"#)).unwrap();
    assert_eq!((container.environment["NAME"].as_str(), container.environment["Type"].as_str()), ("x", ""));
}

#[test]
fn nesting_costs_no_stack_and_no_message() {
    for depth in [20, 100, 5_000, 100_000] {
        let text = format!(
            r#"{{"type":"PayloadMessage","message":{{"new":{}0{},"messageId":"m"}}}}"#,
            "{\"a\":[".repeat(depth),
            "]}".repeat(depth)
        );
        let (_, body) = envelope(&text).unwrap();
        assert_eq!(Header::read(body).unwrap().message_id, "m", "{depth}");
    }
    // A member that is kept as a JSON value may nest as deeply.
    let text = format!("{{\"proxyConfiguration\":{}{}}}", "{\"a\":[".repeat(63), "]}".repeat(63));
    assert!(decode::<Task>(Raw::new(&text)).unwrap().proxy_configuration.is_some());
}
