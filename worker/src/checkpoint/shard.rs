//! How the ranks of a run share the writing of a checkpoint. All hold the same tensors; each writes some.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::model::NamedTensors;

/// The part of a checkpoint that one rank writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// From 0; that of rank 0 is 0.
    number: u32,
    /// How many there are, at least one.
    count: u32,
}

impl Shard {
    /// Everything, for a checkpoint that one rank writes.
    pub const WHOLE: Self = Self { number: 0, count: 1 };

    /// That of `rank` when `num_ranks` write `num_bytes`, at least `least` bytes each. `None`: the ranks
    /// before it write everything.
    pub fn of(rank: u32, num_ranks: u32, num_bytes: u64, least: u64) -> Option<Self> {
        let most = num_bytes.checked_div(least).unwrap_or(u64::MAX);
        let count = u32::try_from(most).unwrap_or(u32::MAX).clamp(1, num_ranks.max(1));
        (rank < count).then_some(Self { number: rank, count })
    }

    /// Whether it is that of rank 0, which also writes the progress and the index.
    pub(super) fn is_first(self) -> bool {
        self.number == 0
    }

    /// The other ranks that write a shard of the same checkpoint.
    pub(super) fn others(self) -> impl Iterator<Item = u32> {
        (0..self.count).filter(move |number| *number != self.number)
    }

    /// Whether there are others.
    pub(super) fn is_one_of_several(self) -> bool {
        self.count > 1
    }

    /// Name of the object with this shard's tensors of part `part`: `model`, or `model-2-of-4`.
    pub(super) fn name(self, part: &str) -> String {
        if self.is_one_of_several() {
            format!("{part}-{}-of-{}", self.number + 1, self.count)
        } else {
            part.to_owned()
        }
    }

    /// Leaves this shard's tensors in each of the parts: the largest tensor first, each goes to the shard that
    /// has the fewest bytes so far (Graham 1969). The same on every rank, because names and shapes are.
    pub(crate) fn select<const N: usize>(self, parts: [NamedTensors; N]) -> [NamedTensors; N] {
        if !self.is_one_of_several() {
            return parts;
        }
        let mut tensors = Vec::new();
        for (part, named) in parts.iter().enumerate() {
            tensors.extend(named.iter().map(|(name, tensor)| (tensor.numel(), part, name.clone())));
        }
        tensors.sort_by_key(|(size, part, name)| (Reverse(*size), *part, name.clone()));
        let mut loads: Vec<(usize, u32)> = (0..self.count).map(|number| (0, number)).collect();
        let mut own = BTreeSet::new();
        for (size, part, name) in tensors {
            let Some(load) = loads.iter_mut().min() else { break };
            load.0 += size;
            if load.1 == self.number {
                own.insert((part, name));
            }
        }
        let mut number = 0;
        parts.map(|mut part| {
            part.retain(|name, _| own.contains(&(number, name.clone())));
            number += 1;
            part
        })
    }
}

/// Whether the object `name` holds part `part` or a shard of it.
pub(super) fn holds(name: &str, part: &str) -> bool {
    name.strip_prefix(part).is_some_and(|rest| rest.is_empty() || is_shard(rest))
}

/// Whether it is the end of a name that [`Shard::name`] makes.
fn is_shard(end: &str) -> bool {
    let numbers = end.strip_prefix('-').and_then(|rest| rest.split_once("-of-"));
    numbers.is_some_and(|(number, count)| {
        [number, count].iter().all(|text| text.parse::<u32>().is_ok_and(|number| number > 0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tch::{Device, Kind, Tensor};

    #[test]
    fn small_checkpoints_have_few_shards() {
        let of = |rank, num_bytes| Shard::of(rank, 4, num_bytes, 100);
        assert_eq!(of(0, 99), Some(Shard::WHOLE));
        assert_eq!(of(1, 99), None);
        assert_eq!(of(1, 250), Some(Shard { number: 1, count: 2 }));
        assert_eq!(of(2, 250), None);
        assert_eq!(of(3, 10_000), Some(Shard { number: 3, count: 4 }));
        assert_eq!(Shard::of(1, 2, 5, 0), Some(Shard { number: 1, count: 2 }));
    }

    #[test]
    fn names_are_told_apart() {
        let shard = Shard { number: 1, count: 12 };
        assert_eq!(shard.name("model"), "model-2-of-12");
        assert!(holds(&shard.name("model"), "model") && holds("model", "model"));
        for other in
            ["model-", "model-2", "model-2-of-", "model-x-of-2", "model-0-of-2", "models", "mode"]
        {
            assert!(!holds(other, "model"), "{other}");
        }
    }

    fn named(part: usize, sizes: &[i64]) -> NamedTensors {
        let zeros = |size| Tensor::zeros([size], (Kind::Float, Device::Cpu));
        let sizes = sizes.iter().enumerate();
        sizes.map(|(at, size)| (format!("{part}.{at}"), zeros(*size))).collect()
    }

    proptest! {
        #[test]
        fn every_tensor_is_in_one_shard_and_bytes_are_balanced(
            sizes in proptest::collection::vec(proptest::collection::vec(0i64..200, 0..12), 2..3),
            count in 1u32..6,
        ) {
            let parts = || [named(0, &sizes[0]), named(1, &sizes[1])];
            let mut seen = Vec::new();
            let mut loads = Vec::new();
            for number in 0..count {
                let own = Shard { number, count }.select(parts());
                loads.push(own.iter().flat_map(NamedTensors::values).map(Tensor::numel).sum::<usize>());
                seen.extend(own.into_iter().flat_map(NamedTensors::into_keys));
            }
            seen.sort();
            let mut all: Vec<String> = parts().into_iter().flat_map(NamedTensors::into_keys).collect();
            all.sort();
            prop_assert_eq!(seen, all);
            let largest = sizes.iter().flatten().max().copied().unwrap_or(0);
            let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
            prop_assert!(i64::try_from(most - least).unwrap() <= largest);
        }
    }
}
