//! Which examples of a global batch are whose.

use std::cmp::Reverse;

/// The examples of `batch` that `rank` of `world_size` computes, in the order of the batch. Ranks get
/// nearly equal numbers of tokens: the longest example first, each goes to the rank that has the
/// fewest so far (Graham 1969). A pure function of its arguments; every example is one rank's.
pub fn share(batch: &[u32], length: impl Fn(u32) -> u64, rank: u32, world_size: u32) -> Vec<u32> {
    let mut positions: Vec<usize> = (0..batch.len()).collect();
    let length_at = |position: usize| batch.get(position).map_or(0, |index| length(*index));
    positions.sort_by_key(|position| Reverse(length_at(*position)));
    // Tokens and examples of each rank; of equally loaded ranks the first with the fewest examples.
    let mut loads: Vec<(u64, usize, u32)> =
        (0..world_size.max(1)).map(|rank| (0, 0, rank)).collect();
    let mut own = Vec::new();
    for position in positions {
        let Some(load) = loads.iter_mut().min() else { break };
        if load.2 == rank {
            own.push(position);
        }
        load.0 += length_at(position);
        load.1 += 1;
    }
    own.sort_unstable();
    own.into_iter().filter_map(|position| batch.get(position).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_lengths_are_dealt_out_evenly() {
        let batch: Vec<u32> = (0..32).collect();
        for rank in 0..2 {
            assert_eq!(share(&batch, |_| 7, rank, 2).len(), 16);
        }
        assert_eq!(share(&batch, |_| 7, 0, 1), batch);
        assert!(share(&[5], |_| 7, 1, 2).is_empty());
    }

    proptest! {
        #[test]
        fn every_example_is_one_ranks_and_tokens_are_balanced(
            lengths in proptest::collection::vec(1u64..128, 1..80), world_size in 1u32..6,
        ) {
            let batch: Vec<u32> = (0..).take(lengths.len()).collect();
            let length = |index: u32| lengths[index as usize];
            let shares: Vec<Vec<u32>> =
                (0..world_size).map(|rank| share(&batch, length, rank, world_size)).collect();
            let mut all = shares.concat();
            all.sort_unstable();
            prop_assert_eq!(&all, &batch);
            let tokens = |own: &Vec<u32>| own.iter().map(|index| length(*index)).sum::<u64>();
            let (least, most) = (
                shares.iter().map(tokens).min().unwrap(),
                shares.iter().map(tokens).max().unwrap(),
            );
            prop_assert!(most - least <= *lengths.iter().max().unwrap());
        }
    }
}
