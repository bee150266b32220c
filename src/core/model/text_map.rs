//! A map from texts to texts, such as the labels of a container or the options of its log driver.
//!
//! A clone shares the map instead of copying it: the state and each view of a task hold the same one. Invariant: `Debug` shows
//! the names only, since the values may be what a customer considers secret.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A map from texts to texts. Its clones share the contents.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TextMap(Option<Arc<BTreeMap<String, String>>>);

/// The contents of every empty map.
static EMPTY: BTreeMap<String, String> = BTreeMap::new();

impl TextMap {
    /// The contents.
    pub fn get(&self) -> &BTreeMap<String, String> {
        self.0.as_deref().unwrap_or(&EMPTY)
    }

    /// Whether the map has no entry.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl From<BTreeMap<String, String>> for TextMap {
    fn from(map: BTreeMap<String, String>) -> Self {
        Self((!map.is_empty()).then(|| Arc::new(map)))
    }
}

impl fmt::Debug for TextMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.get().keys()).finish()
    }
}

impl Serialize for TextMap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.get().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for TextMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_kept_and_shared_but_not_shown() {
        let map = TextMap::from(BTreeMap::from([("token".to_owned(), "hunter2".to_owned())]));
        let text = serde_json::to_string(&map).unwrap();
        assert_eq!(text, r#"{"token":"hunter2"}"#);
        assert_eq!(serde_json::from_str::<TextMap>(&text).unwrap(), map);
        assert!(std::ptr::eq(map.get(), map.clone().get()));
        assert_eq!(format!("{map:?}"), r#"{"token"}"#);
    }

    #[test]
    fn an_empty_map_equals_the_default() {
        let empty: TextMap = serde_json::from_str("{}").unwrap();
        assert!(empty == TextMap::default() && empty.is_empty() && empty.get().is_empty());
    }
}
