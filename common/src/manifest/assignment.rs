//! What a trial tries.

use std::fmt;
use std::ops::Index;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::space::ParameterValue;

/// One value for every searched hyperparameter of a trial, by name. A sorted list: there are a few values
/// and very many trials.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Assignment(Vec<(String, ParameterValue)>);

impl Assignment {
    /// Without any value.
    pub fn new() -> Self {
        Self::default()
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.as_str().cmp(name))
    }

    /// The value of a hyperparameter.
    pub fn get(&self, name: &str) -> Option<&ParameterValue> {
        self.find(name).ok().and_then(|place| self.0.get(place)).map(|(_, value)| value)
    }

    /// Whether it has a value.
    pub fn contains_key(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    /// Sets the value of a hyperparameter.
    pub fn insert(&mut self, name: String, value: ParameterValue) {
        match self.find(&name) {
            Ok(place) => {
                if let Some(entry) = self.0.get_mut(place) {
                    entry.1 = value;
                }
            }
            Err(place) => {
                self.0.reserve_exact(1);
                self.0.insert(place, (name, value));
            }
        }
    }

    /// Takes a value out.
    pub fn remove(&mut self, name: &str) -> Option<ParameterValue> {
        let place = self.find(name).ok()?;
        Some(self.0.remove(place).1)
    }

    /// Names and values, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&String, &ParameterValue)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// Names.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &String> {
        self.0.iter().map(|(name, _)| name)
    }

    /// Values, by name.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &ParameterValue> {
        self.0.iter().map(|(_, value)| value)
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(String, ParameterValue)> for Assignment {
    fn from_iter<I: IntoIterator<Item = (String, ParameterValue)>>(values: I) -> Self {
        let mut assignment = Self::new();
        values.into_iter().for_each(|(name, value)| assignment.insert(name, value));
        assignment
    }
}

impl Index<&str> for Assignment {
    type Output = ParameterValue;

    /// The value of a hyperparameter that is known to have one.
    ///
    /// # Panics
    ///
    /// When it has none.
    fn index(&self, name: &str) -> &ParameterValue {
        self.get(name).unwrap_or_else(|| panic!("`{name}` has no value"))
    }
}

impl Extend<(String, ParameterValue)> for Assignment {
    fn extend<I: IntoIterator<Item = (String, ParameterValue)>>(&mut self, values: I) {
        values.into_iter().for_each(|(name, value)| self.insert(name, value));
    }
}

impl IntoIterator for Assignment {
    type Item = (String, ParameterValue);
    type IntoIter = std::vec::IntoIter<(String, ParameterValue)>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<const LEN: usize> From<[(String, ParameterValue); LEN]> for Assignment {
    fn from(values: [(String, ParameterValue); LEN]) -> Self {
        values.into_iter().collect()
    }
}

impl<'a> IntoIterator for &'a Assignment {
    type Item = (&'a String, &'a ParameterValue);
    type IntoIter = std::iter::Map<
        std::slice::Iter<'a, (String, ParameterValue)>,
        fn(&'a (String, ParameterValue)) -> Self::Item,
    >;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter().map(|(name, value)| (name, value))
    }
}

impl Serialize for Assignment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for (name, value) in self.iter() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Assignment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Values;
        impl<'de> Visitor<'de> for Values {
            type Value = Assignment;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("values by name")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Assignment, A::Error> {
                let mut assignment = Assignment::new();
                while let Some((name, value)) = map.next_entry::<String, ParameterValue>()? {
                    assignment.insert(name, value);
                }
                Ok(assignment)
            }
        }
        deserializer.deserialize_map(Values)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_a_map_in_every_respect(
            steps in prop::collection::vec(("[a-d]{1,2}", any::<i64>(), any::<bool>()), 0..40),
        ) {
            let (mut ours, mut map) = (Assignment::new(), BTreeMap::new());
            for (name, number, keep) in steps {
                let value = ParameterValue::Int(number);
                if keep {
                    ours.insert(name.clone(), value);
                    map.insert(name, value);
                } else {
                    prop_assert_eq!(ours.remove(&name), map.remove(&name));
                }
            }
            prop_assert_eq!(ours.len(), map.len());
            let listed: Vec<_> = ours.iter().map(|(name, value)| (name.clone(), *value)).collect();
            prop_assert_eq!(&listed, &map.clone().into_iter().collect::<Vec<_>>());
            for name in map.keys() {
                prop_assert_eq!(ours.get(name), map.get(name));
            }
            // Journals of older builds hold the map.
            let text = serde_json::to_string(&map).unwrap();
            prop_assert_eq!(&serde_json::to_string(&ours).unwrap(), &text);
            prop_assert_eq!(serde_json::from_str::<Assignment>(&text).unwrap(), ours);
        }
    }
}
