//! Values for tasks: parameters of SSM and objects in S3.
//!
//! This module owns the values, by name; it answers no requests. Invariant: the values are in memory and were read once, so a
//! name in a request is never used as a path.

use ecs_core::model::Secret;
use std::collections::BTreeMap;

/// Maximum number of parameters, and of objects.
const MAX_VALUES: usize = 1000;

/// The parameters and objects.
#[derive(Debug, Default)]
pub(super) struct StoredValues {
    /// Parameters by name, without a leading slash.
    parameters: BTreeMap<String, Secret>,
    /// Texts by bucket and key.
    objects: BTreeMap<(String, String), Secret>,
}

impl StoredValues {
    /// Sets a parameter.
    pub(super) fn put_parameter(&mut self, name: &str, value: Secret) -> Result<(), String> {
        let name = name.trim_start_matches('/');
        put(&mut self.parameters, name.to_owned(), value, !name.is_empty(), "parameter")
    }

    /// Sets an object.
    pub(super) fn put_object(&mut self, bucket: &str, key: &str, text: Secret) -> Result<(), String> {
        let has_name = !bucket.is_empty() && !key.is_empty();
        put(&mut self.objects, (bucket.to_owned(), key.to_owned()), text, has_name, "object")
    }

    /// The parameter with this name, with or without a leading slash.
    pub(super) fn parameter(&self, name: &str) -> Option<&Secret> {
        self.parameters.get(name.trim_start_matches('/'))
    }

    /// The object with this bucket and key.
    pub(super) fn object(&self, bucket: &str, key: &str) -> Option<&Secret> {
        self.objects.get(&(bucket.to_owned(), key.to_owned()))
    }

    /// The bucket has at least one object; empty buckets do not exist.
    pub(super) fn has_bucket(&self, bucket: &str) -> bool {
        self.objects.keys().any(|(name, _)| name == bucket)
    }
}

fn put<K: Ord>(map: &mut BTreeMap<K, Secret>, key: K, value: Secret, has_name: bool, what: &str) -> Result<(), String> {
    if !has_name {
        return Err(format!("this {what} has no name"));
    }
    if map.len() >= MAX_VALUES && !map.contains_key(&key) {
        return Err(format!("there are {MAX_VALUES} {what}s already"));
    }
    map.insert(key, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_need_a_name_and_their_number_is_bounded() {
        let mut stored = StoredValues::default();
        stored.put_parameter("/a/b", "1".into()).unwrap();
        stored.put_parameter("a/b", "2".into()).unwrap();
        assert_eq!(stored.parameter("/a/b").unwrap().expose(), "2");
        assert_eq!(stored.put_parameter("/", "x".into()), Err("this parameter has no name".to_owned()));
        assert_eq!(stored.put_object("b", "", "x".into()), Err("this object has no name".to_owned()));
        for number in 0..MAX_VALUES {
            stored.put_object("b", &number.to_string(), "x".into()).unwrap();
        }
        assert!(stored.put_object("b", "more", "x".into()).is_err() && stored.put_object("b", "0", "y".into()).is_ok());
        assert!(stored.has_bucket("b") && !stored.has_bucket("c"));
        assert!(!format!("{stored:?}").contains('y'));
    }
}
