//! What a task may be given besides its definition: parameters of SSM and objects in S3.
//!
//! It owns the values, by name; it answers nobody. Invariant: they are in memory, read once from where they came from, so that no name
//! in a request is ever a path.

use crate::model::Secret;
use std::collections::BTreeMap;

/// Most parameters, and most objects.
const MOST: usize = 1000;

/// The values.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Parameters by name without the slash in front.
    parameters: BTreeMap<String, Secret>,
    /// Texts by bucket and key.
    objects: BTreeMap<(String, String), Secret>,
}

impl Kept {
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

    /// The parameter of this name, with or without the slash in front.
    pub(super) fn parameter(&self, name: &str) -> Option<&Secret> {
        self.parameters.get(name.trim_start_matches('/'))
    }

    /// The object of this name.
    pub(super) fn object(&self, bucket: &str, key: &str) -> Option<&Secret> {
        self.objects.get(&(bucket.to_owned(), key.to_owned()))
    }

    /// A bucket is there when something is in it.
    pub(super) fn has_bucket(&self, bucket: &str) -> bool {
        self.objects.keys().any(|(name, _)| name == bucket)
    }
}

fn put<K: Ord>(map: &mut BTreeMap<K, Secret>, key: K, value: Secret, named: bool, what: &str) -> Result<(), String> {
    if !named {
        return Err(format!("this {what} has no name"));
    }
    if map.len() >= MOST && !map.contains_key(&key) {
        return Err(format!("there are {MOST} {what}s already"));
    }
    map.insert(key, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names_and_their_number_is_bounded() {
        let mut kept = Kept::default();
        kept.put_parameter("/a/b", "1".into()).unwrap();
        kept.put_parameter("a/b", "2".into()).unwrap();
        assert_eq!(kept.parameter("/a/b").unwrap().expose(), "2");
        assert_eq!(kept.put_parameter("/", "x".into()), Err("this parameter has no name".to_owned()));
        assert_eq!(kept.put_object("b", "", "x".into()), Err("this object has no name".to_owned()));
        for number in 0..MOST {
            kept.put_object("b", &number.to_string(), "x".into()).unwrap();
        }
        assert!(kept.put_object("b", "more", "x".into()).is_err() && kept.put_object("b", "0", "y".into()).is_ok());
        assert!(kept.has_bucket("b") && !kept.has_bucket("c"));
        assert!(!format!("{kept:?}").contains('y'));
    }
}
