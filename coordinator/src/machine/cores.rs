//! Which processors each local slot computes on. Nothing here looks at a machine or changes one.

use std::collections::BTreeMap;

/// A core: the processors that share its arithmetic units (hyper-threads), of those that may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Core {
    /// Their numbers, ascending; at least one.
    pub cpus: Vec<u32>,
    /// The memory that is near to it: number of its NUMA node.
    pub node: u32,
}

/// One group of processors for each slot, disjoint. `near` has the NUMA node that each slot's GPU is at,
/// as far as there is one and it is known.
///
/// Groups consist of whole cores while there are enough of them, else of single processors. No group
/// has cores of two nodes, unless some group would then be smaller than an even share. Slots of known
/// GPUs stay at the nodes of those, which is worth more than even shares. `None`: there are fewer
/// processors than slots, or no slots.
pub fn divide(cores: &[Core], near: &[Option<u32>]) -> Option<Vec<Vec<u32>>> {
    let mut units = cores.to_vec();
    units.sort_by(|a, b| (a.node, &a.cpus).cmp(&(b.node, &b.cpus)));
    if near.len() > units.len() {
        units = single(&units);
    }
    if near.is_empty() || near.len() > units.len() {
        return None;
    }
    let mut of_node: BTreeMap<u32, Vec<&Core>> = BTreeMap::new();
    for unit in &units {
        of_node.entry(unit.node).or_default().push(unit);
    }
    let homes = at_gpus(&of_node, near).or_else(|| by_size(&of_node, near.len(), units.len()));
    let Some(homes) = homes else {
        // Shares of one line, in the order of nodes: most slots still have one node to themselves.
        return Some(shares(&units.iter().collect::<Vec<_>>(), near.len()));
    };
    let mut groups = vec![Vec::new(); near.len()];
    for (node, units) in &of_node {
        let slots = homes.iter().enumerate().filter(|(_, home)| *home == node);
        let slots: Vec<usize> = slots.map(|(slot, _)| slot).collect();
        for (slot, group) in slots.iter().zip(shares(units, slots.len())) {
            groups[*slot] = group;
        }
    }
    Some(groups)
}

/// Every processor as a core of its own, siblings side by side.
fn single(cores: &[Core]) -> Vec<Core> {
    let alone = |core: &Core| {
        let node = core.node;
        core.cpus.iter().map(move |cpu| Core { cpus: vec![*cpu], node }).collect::<Vec<_>>()
    };
    cores.iter().flat_map(alone).collect()
}

/// The node of each slot is that of its GPU, if all are known and each has units enough.
fn at_gpus(of_node: &BTreeMap<u32, Vec<&Core>>, near: &[Option<u32>]) -> Option<Vec<u32>> {
    let homes: Vec<u32> = near.iter().copied().collect::<Option<_>>()?;
    let has_room = |node: &u32| {
        let num_slots = homes.iter().filter(|home| *home == node).count();
        of_node.get(node).is_some_and(|units| units.len() >= num_slots)
    };
    homes.iter().all(has_room).then_some(homes)
}

/// The node of each slot, so that the smallest group is as large as it can be without one that has cores of
/// two nodes: each slot in turn goes where its group would be largest (D'Hondt's highest averages).
/// `None`: some group would be smaller than an even share.
fn by_size(
    of_node: &BTreeMap<u32, Vec<&Core>>,
    num_slots: usize,
    num_units: usize,
) -> Option<Vec<u32>> {
    let mut num_of_node: BTreeMap<u32, usize> = of_node.keys().map(|node| (*node, 0)).collect();
    for _ in 0..num_slots {
        // units / (slots + 1), compared without fractions; of equal ones the first.
        let best = of_node.iter().reduce(|best, other| {
            let (with_best, with_other) = (num_of_node[best.0] + 1, num_of_node[other.0] + 1);
            if other.1.len() * with_best > best.1.len() * with_other { other } else { best }
        })?;
        *num_of_node.get_mut(best.0)? += 1;
    }
    let even = num_units / num_slots;
    let is_even = |(node, units): (&u32, &Vec<&Core>)| {
        let num_slots = num_of_node[node];
        num_slots == 0 || units.len() / num_slots >= even
    };
    let homes = num_of_node.iter().flat_map(|(node, count)| std::iter::repeat_n(*node, *count));
    of_node.iter().all(is_even).then(|| homes.collect())
}

/// Cuts units into so many groups of neighbors, whose sizes differ by one at most.
fn shares(units: &[&Core], num_groups: usize) -> Vec<Vec<u32>> {
    let mut rest = units;
    let mut groups = Vec::with_capacity(num_groups);
    for num_left in (1..=num_groups).rev() {
        let (group, others) = rest.split_at(rest.len().div_ceil(num_left));
        let mut cpus: Vec<u32> = group.iter().flat_map(|core| core.cpus.iter().copied()).collect();
        cpus.sort_unstable();
        groups.push(cpus);
        rest = others;
    }
    groups
}

/// Processors as `/sys` and `taskset` write them: `0-3,8`.
pub fn list_of(cpus: &[u32]) -> String {
    let mut spans: Vec<(u32, u32)> = Vec::new();
    for cpu in cpus {
        match spans.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*cpu) => *last = *cpu,
            _ => spans.push((*cpu, *cpu)),
        }
    }
    let text = |(first, last): &(u32, u32)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    spans.iter().map(text).collect::<Vec<_>>().join(",")
}

/// The processors of such a list. `None`: it is none.
pub fn of_list(text: &str) -> Option<Vec<u32>> {
    /// More than any kernel counts; a longer span is no list of processors.
    const CPUS_MAX: u32 = 1 << 16;
    let mut cpus = Vec::new();
    for span in text.trim().split(',').filter(|span| !span.is_empty()) {
        let (first, last) = span.split_once('-').unwrap_or((span, span));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= CPUS_MAX {
            return None;
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// `nodes` has the number of cores of each node; every core has `threads` processors, numbered as
    /// Linux does: first threads first.
    fn machine(nodes: &[u32], threads: u32) -> Vec<Core> {
        let num_cores: u32 = nodes.iter().sum();
        let node_of =
            nodes.iter().zip(0u32..).flat_map(|(count, node)| vec![node; *count as usize]);
        let cpus = |core: u32| (0..threads).map(|thread| core + thread * num_cores).collect();
        (0..num_cores).zip(node_of).map(|(core, node)| Core { cpus: cpus(core), node }).collect()
    }

    fn lists(cores: &[Core], near: &[Option<u32>]) -> Vec<String> {
        divide(cores, near).unwrap().iter().map(|cpus| list_of(cpus)).collect()
    }

    #[test]
    fn siblings_stay_together_and_nodes_whole() {
        assert_eq!(lists(&machine(&[2], 1), &[None; 2]), ["0", "1"]);
        assert_eq!(lists(&machine(&[4], 2), &[None; 2]), ["0-1,4-5", "2-3,6-7"]);
        // Two nodes; no group has cores of both, unless it must.
        assert_eq!(lists(&machine(&[4, 4], 1), &[None; 4]), ["0-1", "2-3", "4-5", "6-7"]);
        assert_eq!(lists(&machine(&[4, 4], 1), &[None; 3]), ["0-1", "2-3", "4-7"]);
        assert_eq!(lists(&machine(&[6, 10], 1), &[None; 3]), ["0-5", "6-10", "11-15"]);
        assert_eq!(lists(&machine(&[3, 5], 1), &[None; 2]), ["0-3", "4-7"]);
        // More slots than cores: siblings apart; more than processors: nobody has one for itself.
        assert_eq!(lists(&machine(&[2], 2), &[None; 3]), ["0,2", "1", "3"]);
        assert_eq!(divide(&machine(&[2], 2), &[None; 5]), None);
        assert_eq!(divide(&machine(&[2], 2), &[]), None);
    }

    #[test]
    fn slots_compute_where_their_gpu_is() {
        let cores = machine(&[4, 4], 1);
        let near = [Some(1), Some(0), Some(1), Some(1)];
        assert_eq!(lists(&cores, &near), ["4-5", "0-3", "6", "7"]);
        // Of one the node is not known, or not here: even shares.
        assert_eq!(lists(&cores, &[Some(1), None]), ["0-3", "4-7"]);
        assert_eq!(lists(&cores, &[Some(7), Some(0)]), ["0-3", "4-7"]);
    }

    #[test]
    fn lists_are_read_as_they_are_written() {
        for text in ["", "0", "0-3,8", "1,3,5-6"] {
            assert_eq!(list_of(&of_list(text).unwrap()), text);
        }
        assert_eq!(of_list("0-1,1-2\n"), Some(vec![0, 1, 2]));
        for bad in ["x", "3-1", "-1", "0-", "0-4000000000"] {
            assert_eq!(of_list(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn groups_are_disjoint_allowed_and_even(
            nodes in proptest::collection::vec(0u32..9, 1..5),
            threads in 1u32..4,
            forbidden in proptest::collection::btree_set(0u32..96, 0..24),
            near in proptest::collection::vec(proptest::option::weighted(0.2, 0u32..5), 1..20),
        ) {
            let mut cores = machine(&nodes, threads);
            for core in &mut cores {
                core.cpus.retain(|cpu| !forbidden.contains(cpu));
            }
            cores.retain(|core| !core.cpus.is_empty());
            let allowed: BTreeSet<u32> =
                cores.iter().flat_map(|core| core.cpus.clone()).collect();
            let Some(groups) = divide(&cores, &near) else {
                prop_assert!(near.len() > allowed.len());
                return Ok(());
            };
            prop_assert_eq!(groups.len(), near.len());
            let all: Vec<u32> = groups.iter().flatten().copied().collect();
            let distinct: BTreeSet<u32> = all.iter().copied().collect();
            prop_assert_eq!(distinct.len(), all.len(), "no processor twice");
            prop_assert!(distinct.is_subset(&allowed));
            let is_whole = near.len() <= cores.len();
            let units = if is_whole { cores.clone() } else { single(&cores) };
            let units_in = |group: &Vec<u32>| {
                units.iter().filter(|unit| unit.cpus.iter().all(|cpu| group.contains(cpu))).count()
            };
            let nodes_of = |group: &Vec<u32>| {
                let inside = units.iter().filter(|unit| group.contains(&unit.cpus[0]));
                inside.map(|unit| unit.node).collect::<BTreeSet<u32>>()
            };
            for group in &groups {
                let parts: usize = units
                    .iter()
                    .filter(|unit| unit.cpus.iter().any(|cpu| group.contains(cpu)))
                    .count();
                prop_assert_eq!(parts, units_in(group), "no unit is cut");
                prop_assert!(parts >= 1);
            }
            let even = units.len() / near.len();
            let smallest = groups.iter().map(units_in).min().unwrap();
            if near.iter().any(Option::is_none) {
                prop_assert!(smallest >= even, "{smallest} of {even}");
                // Two nodes in one group: then without, some group would have been smaller.
                if groups.iter().any(|group| nodes_of(group).len() > 1) {
                    let count = |node: u32| units.iter().filter(|unit| unit.node == node).count();
                    let room: usize = (0..5).map(|node| count(node) / even).sum();
                    prop_assert!(room < near.len(), "room for {room} groups of {even}");
                }
            }
        }
    }
}
