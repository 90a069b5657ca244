//! An ordered table that knows which of its rows are of which kind and which have changed since they
//! were saved, so that neither an event nor a snapshot costs a walk over everything that ever happened.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A row of a [`Table`].
pub trait Row {
    /// What the scheduler asks for.
    type Kind: Copy + Ord;

    /// Which kind it is now; `None`: of no interest, which most rows become sooner or later.
    fn kind(&self) -> Option<Self::Kind>;
}

/// Rows by key. Reading is by [`BTreeMap`]; whoever asks for a row to change it has changed it.
#[derive(Debug, Clone)]
pub struct Table<K, V: Row> {
    rows: BTreeMap<K, V>,
    kinds: BTreeMap<V::Kind, BTreeSet<K>>,
    /// Rows whose kind may be another by now.
    touched: BTreeSet<K>,
    unsaved: BTreeSet<K>,
    none: BTreeSet<K>,
}

impl<K: Ord + Clone, V: Row> Table<K, V> {
    /// A row to change.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let row = self.rows.get_mut(key)?;
        touch(&mut self.touched, key);
        touch(&mut self.unsaved, key);
        Some(row)
    }

    /// Adds or replaces a row.
    pub fn insert(&mut self, key: K, row: V) {
        touch(&mut self.touched, &key);
        touch(&mut self.unsaved, &key);
        self.rows.insert(key, row);
    }

    /// Takes a row out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        touch(&mut self.touched, key);
        touch(&mut self.unsaved, key);
        self.rows.remove(key)
    }

    /// All rows to change, of those that `is_meant`.
    pub fn values_mut_if(&mut self, is_meant: impl Fn(&V) -> bool) -> impl Iterator<Item = &mut V> {
        let (touched, unsaved) = (&mut self.touched, &mut self.unsaved);
        self.rows.iter_mut().filter(move |(_, row)| is_meant(row)).map(move |(key, row)| {
            touch(touched, key);
            touch(unsaved, key);
            row
        })
    }

    /// Looks anew at the rows that were changed; whether there were any.
    pub fn refresh(&mut self) -> bool {
        let touched = std::mem::take(&mut self.touched);
        for key in &touched {
            for keys in self.kinds.values_mut() {
                keys.remove(key);
            }
            if let Some(kind) = self.rows.get(key).and_then(Row::kind) {
                self.kinds.entry(kind).or_default().insert(key.clone());
            }
        }
        !touched.is_empty()
    }

    /// Rows that were changed since [`Self::refresh`].
    pub fn touched(&self) -> impl Iterator<Item = &K> {
        self.touched.iter()
    }

    /// Rows of a kind, in order of their keys: what follows from them must not depend on what was looked
    /// at before.
    pub fn of(&self, kind: V::Kind) -> impl Iterator<Item = (&K, &V)> {
        let known = self.kinds.get(&kind).unwrap_or(&self.none);
        let keys = known.union(&self.touched);
        let rows = keys.filter_map(|key| self.rows.get_key_value(key));
        rows.filter(move |(_, row)| row.kind() == Some(kind))
    }

    /// Number of rows of a kind.
    pub fn count(&self, kind: V::Kind) -> usize {
        if self.touched.is_empty() {
            return self.kinds.get(&kind).map_or(0, BTreeSet::len);
        }
        self.of(kind).count()
    }

    /// Keys of rows that are not saved as they are, those that were taken out among them.
    pub fn unsaved(&self) -> &BTreeSet<K> {
        &self.unsaved
    }

    /// Everything is saved as it is.
    pub fn mark_saved(&mut self) {
        self.unsaved.clear();
    }
}

/// Most rows are changed several times in a row.
fn touch<K: Ord + Clone>(set: &mut BTreeSet<K>, key: &K) {
    if !set.contains(key) {
        set.insert(key.clone());
    }
}

impl<K, V: Row> Deref for Table<K, V> {
    type Target = BTreeMap<K, V>;

    fn deref(&self) -> &Self::Target {
        &self.rows
    }
}

impl<K: Ord + Clone, V: Row> FromIterator<(K, V)> for Table<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(rows: I) -> Self {
        let rows: BTreeMap<K, V> = rows.into_iter().collect();
        let all: BTreeSet<K> = rows.keys().cloned().collect();
        Self {
            rows,
            kinds: BTreeMap::new(),
            touched: all.clone(),
            unsaved: all,
            none: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Clone, V: Row> Default for Table<K, V> {
    fn default() -> Self {
        std::iter::empty().collect()
    }
}

/// What was looked at and saved makes no difference.
impl<K: PartialEq, V: Row + PartialEq> PartialEq for Table<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows
    }
}

impl<K: Serialize, V: Row + Serialize> Serialize for Table<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.rows.serialize(serializer)
    }
}

impl<'de, K: Ord + Clone + Deserialize<'de>, V: Row + Deserialize<'de>> Deserialize<'de>
    for Table<K, V>
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let rows = BTreeMap::<K, V>::deserialize(deserializer)?;
        Ok(rows.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone, PartialEq)]
    struct Number(u8);

    impl Row for Number {
        type Kind = u8;

        fn kind(&self) -> Option<u8> {
            Some(self.0 % 3).filter(|kind| *kind != 0)
        }
    }

    proptest! {
        /// Whenever the kinds are asked for, they are those of the rows.
        #[test]
        fn kinds_are_those_of_the_rows(steps in proptest::collection::vec((0u8..5, 0u8..8, 0u8..9), 0..60)) {
            let mut table: Table<u8, Number> = Table::default();
            for (what, key, value) in steps {
                match what {
                    0 => table.insert(key, Number(value)),
                    1 => { table.remove(&key); }
                    2 => { table.refresh(); }
                    3 => table.values_mut_if(|n| n.0 == value).for_each(|n| n.0 += 1),
                    _ => if let Some(row) = table.get_mut(&key) { row.0 = value },
                }
                for kind in 1..3 {
                    let found: Vec<u8> = table.of(kind).map(|(key, _)| *key).collect();
                    let is_meant = |(_, row): &(&u8, &Number)| row.kind() == Some(kind);
                    let meant: Vec<u8> = table.iter().filter(is_meant).map(|(key, _)| *key).collect();
                    prop_assert_eq!(&found, &meant);
                    prop_assert_eq!(table.count(kind), meant.len());
                }
            }
        }

        /// Whoever saves what is not saved, and nothing else, has everything.
        #[test]
        fn what_is_unsaved_is_enough(steps in proptest::collection::vec((0u8..4, 0u8..8, 0u8..9), 0..60)) {
            let mut table: Table<u8, Number> = Table::default();
            let mut saved: BTreeMap<u8, Number> = BTreeMap::new();
            for (what, key, value) in steps {
                match what {
                    0 => table.insert(key, Number(value)),
                    1 => { table.remove(&key); }
                    2 => if let Some(row) = table.get_mut(&key) { row.0 = value },
                    _ => {
                        for key in table.unsaved() {
                            match table.get(key) {
                                Some(row) => saved.insert(*key, row.clone()),
                                None => saved.remove(key),
                            };
                        }
                        table.mark_saved();
                        prop_assert_eq!(&saved, &*table);
                    }
                }
            }
        }
    }
}
