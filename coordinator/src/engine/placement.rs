//! Which free slots a gang gets. Ranks that share a host reduce gradients through its memory, so a
//! gang is spread over as few hosts as possible, and among those over the ones it fills best: what is
//! left over stays in one piece for the next gang.

use std::collections::BTreeMap;

use muster_common::id::WorkerId;

/// `count` of the free workers, in the order of ranks, each with its host. `None`: there are not so
/// many. The same workers give the same answer in whatever order they are listed.
pub(super) fn place(free: &[(WorkerId, String)], count: usize) -> Option<Vec<(WorkerId, String)>> {
    if free.len() < count {
        return None;
    }
    let mut sorted: Vec<&(WorkerId, String)> = free.iter().collect();
    sorted.sort();
    // A run on one slot takes the first worker by name, as it did before there were gangs:
    // journals of that time are replayed by this code.
    if count == 1 {
        return sorted.first().map(|worker| vec![(*worker).clone()]);
    }
    let mut hosts: BTreeMap<&str, Vec<&(WorkerId, String)>> = BTreeMap::new();
    for worker in sorted {
        hosts.entry(&worker.1).or_default().push(worker);
    }
    let mut chosen = Vec::new();
    while chosen.len() < count {
        let missing = count - chosen.len();
        // The tightest host that holds all the rest; else the largest there is. First by name wins.
        let fitting = hosts.iter().filter(|(_, workers)| workers.len() >= missing);
        let tightest = fitting.min_by_key(|(_, workers)| workers.len());
        let largest = || hosts.iter().rev().max_by_key(|(_, workers)| workers.len());
        let host = *tightest.or_else(largest)?.0;
        let workers = hosts.remove(host)?;
        chosen.extend(workers.into_iter().take(missing).cloned());
    }
    Some(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(hosts: &[&str]) -> Vec<(WorkerId, String)> {
        let worker = |(number, host): (usize, &&str)| {
            let name = format!("w{number}").parse();
            (name.unwrap_or_else(|error| panic!("{error}")), (*host).to_owned())
        };
        hosts.iter().enumerate().map(worker).collect()
    }

    fn hosts(workers: &[&str], count: usize) -> Option<String> {
        let placed = place(&free(workers), count)?;
        Some(placed.iter().map(|(_, host)| host.as_str()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn the_tightest_host_that_holds_all_is_taken() {
        assert_eq!(hosts(&["a", "a", "a", "b", "b", "c"], 2).unwrap(), "b b");
        assert_eq!(hosts(&["a", "a", "b", "b"], 2).unwrap(), "a a");
    }

    #[test]
    fn a_gang_that_fits_no_host_takes_the_largest_first() {
        let workers = ["a", "b", "b", "b", "c", "c"];
        assert_eq!(hosts(&workers, 4).unwrap(), "b b b a");
        assert_eq!(hosts(&workers, 5).unwrap(), "b b b c c");
        assert_eq!(hosts(&["a", "a", "b", "b", "c"], 3).unwrap(), "a a c");
        assert_eq!(hosts(&workers, 7), None);
    }

    #[test]
    fn the_order_of_the_list_does_not_matter() {
        let mut workers = free(&["b", "a", "b", "a", "c"]);
        let expected = place(&workers, 3);
        workers.reverse();
        assert_eq!(place(&workers, 3), expected);
        assert_eq!(place(&workers, 1).unwrap()[0].0.as_str(), "w0");
    }
}
