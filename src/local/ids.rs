//! Ids of resources. Compares names with ARNs.

/// A new id of 32 hexadecimal digits, as tasks and instances have.
pub(super) fn new_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// `name` is the ARN itself, or its last part.
pub(super) fn same_resource(arn: &str, name: &str) -> bool {
    arn == name || (!name.contains(':') && !name.is_empty() && arn.rsplit('/').next() == name.rsplit('/').next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_found_by_arn_and_by_id() {
        let arn = "arn:aws:ecs:us-west-2:1:task/default/abc";
        assert!(same_resource(arn, arn) && same_resource(arn, "abc"));
        assert!(
            !same_resource(arn, "ab")
                && !same_resource(arn, "")
                && !same_resource(arn, "arn:aws:ecs:x:1:task/default/abc")
        );
    }
}
