//! Rows to the three splits.
//!
//! * Files of their own for validation and test are taken as they are, so that scores compare with
//!   other people's; a text that stands in a held-out file is removed from what comes before it
//!   (test, then validation, then training).
//! * In the training files a text counts once, the first row wins.
//! * What is cut from the training files is chosen by a hash of the seed and the text: the choice
//!   does not depend on the order of the rows, and hardly on how many there are. Test is cut first.
//!   Classes keep their shares, a count is met exactly, and near duplicates stay on one side where
//!   the count allows it.
//!
//! The manifest's `data.hygiene` changes what becomes of repeated and leaked rows.

use std::collections::BTreeMap;

use muster_common::count::counted_are;
use muster_common::manifest::{Holdout, Hygiene, Policy};
use muster_common::seed::Seed;

use super::DataError;
use super::census::{Census, NO_CLASS};
use super::near::Groups;
use super::problem::{Finding, Problem};
use super::source::Role;

/// Where a row goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Out,
    In(Role),
}

/// Where every row goes, and what was found on the way.
#[derive(Debug)]
pub(super) struct Division {
    pub(super) fates: Vec<Fate>,
    pub(super) findings: Vec<Finding>,
    /// Rows that are nearly the same as another one of the training files.
    pub(super) num_near_duplicates: u64,
}

/// Where held-out splits come from.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeldOut<'a> {
    pub(super) validation: &'a Holdout,
    pub(super) test: &'a Holdout,
}

/// Decides for every row.
pub(super) fn divide(
    census: &Census,
    held_out: HeldOut<'_>,
    hygiene: Hygiene,
    seed: Seed,
) -> Result<Division, DataError> {
    let mut divider = Divider::new(census, hygiene);
    divider.repeated()?;
    let kept: Vec<u32> = divider.kept();
    let near = census.signatures.len() == census.len();
    let mut groups =
        if near { Groups::of(&census.signatures, &kept) } else { Groups::alone(census.len()) };
    let mut members = if near { groups.members(&kept) } else { BTreeMap::new() };
    divider.near_leaks(&members)?;
    for rows in members.values_mut() {
        rows.retain(|row| divider.is_in(*row, Role::Train));
    }
    members.retain(|_, rows| rows.len() > 1);

    let pool: Vec<u32> =
        census.rows(Role::Train).filter(|row| divider.is_in(*row, Role::Train)).collect();
    let num_near_duplicates = members.values().map(|rows| rows.len() as u64).sum();
    let num_test = amount(held_out.test, pool.len());
    let num_validation = amount(held_out.validation, pool.len());
    if num_test.saturating_add(num_validation) >= pool.len() {
        let message = format!(
            "{} usable examples, of which {num_test} are to be held out for test and \
             {num_validation} for validation: nothing is left to train on",
            pool.len()
        );
        return Err(DataError::refused(census.pool(), message));
    }
    let mut units = Units::new(census, &pool, members, seed);
    divider.cut(&mut units, num_test, Role::Test);
    divider.cut(&mut units, num_validation, Role::Validation);
    divider.check(held_out)?;
    let Divider { fates, findings, .. } = divider;
    Ok(Division { fates, findings, num_near_duplicates })
}

/// How many examples of `pool_size` a holdout takes.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share between 0 and 1 of a count far below 2^53"
)]
fn amount(holdout: &Holdout, pool_size: usize) -> usize {
    match holdout {
        Holdout::Count(count) => usize::try_from(*count).unwrap_or(usize::MAX),
        Holdout::Fraction(share) => ((share * pool_size as f64).round() as usize).max(1),
        Holdout::Source(_) | Holdout::Absent => 0,
    }
}

/// What is held out together: single rows and groups of near duplicates. 16 bytes per row.
#[derive(Debug)]
struct Units {
    /// Key and first row of each, in the order in which they are held out.
    order: Vec<(u64, u32)>,
    /// Rows of a group, by its first row.
    groups: BTreeMap<u32, Vec<u32>>,
}

impl Units {
    fn new(census: &Census, pool: &[u32], groups: BTreeMap<u32, Vec<u32>>, seed: Seed) -> Self {
        let digest = |row: u32| census.digests.get(row as usize).copied().unwrap_or(0);
        let mut grouped = vec![false; census.len()];
        for row in groups.values().flatten() {
            if let Some(flag) = grouped.get_mut(*row as usize) {
                *flag = true;
            }
        }
        let groups: BTreeMap<u32, Vec<u32>> =
            groups.into_values().filter_map(|rows| Some((*rows.first()?, rows))).collect();
        let is_first = |row: &u32| {
            !grouped.get(*row as usize).copied().unwrap_or(false) || groups.contains_key(row)
        };
        let key = |row: u32| {
            let rows = groups.get(&row).map_or(&[] as &[u32], Vec::as_slice);
            let named = rows.iter().map(|row| digest(*row)).min().unwrap_or_else(|| digest(row));
            // The first eight bytes of the text's digest.
            let text = u64::try_from(named & u128::from(u64::MAX)).unwrap_or(0);
            seed.child("split", text).0
        };
        let firsts = pool.iter().copied().filter(is_first);
        let mut order: Vec<(u64, u32)> = firsts.map(|row| (key(row), row)).collect();
        order.sort_unstable();
        Self { order, groups }
    }
}

struct Divider<'a> {
    census: &'a Census,
    hygiene: Hygiene,
    fates: Vec<Fate>,
    findings: Vec<Finding>,
}

impl<'a> Divider<'a> {
    fn new(census: &'a Census, hygiene: Hygiene) -> Self {
        let fate = |(row, class): (u32, &u32)| match *class {
            NO_CLASS => Fate::Out,
            _ => Fate::In(census.role(row)),
        };
        let fates = (0..).zip(&census.classes).map(fate).collect();
        Self { census, hygiene, fates, findings: Vec::new() }
    }

    fn is_in(&self, row: u32, role: Role) -> bool {
        self.fates.get(row as usize) == Some(&Fate::In(role))
    }

    fn kept(&self) -> Vec<u32> {
        (0..).zip(&self.fates).filter(|(_, fate)| **fate != Fate::Out).map(|(row, _)| row).collect()
    }

    fn class(&self, row: u32) -> u32 {
        self.census.classes.get(row as usize).copied().unwrap_or(NO_CLASS)
    }

    fn put(&mut self, row: u32, fate: Fate) {
        if let Some(slot) = self.fates.get_mut(row as usize) {
            *slot = fate;
        }
    }

    /// Notes a finding about `row`, and leaves the row out if the policy says so.
    fn judge(
        &mut self,
        row: u32,
        other: u32,
        problem: Problem,
        policy: Policy,
    ) -> Result<(), DataError> {
        if policy == Policy::Refuse {
            let other = self.census.place(other);
            let message = match problem {
                Problem::NearLeak => format!("nearly the same text stands at {other}"),
                _ => format!("the same text stands at {other}"),
            };
            return Err(DataError::refused(self.census.place(row), message));
        }
        let kept = policy == Policy::Keep;
        self.findings.push(Finding { row, problem, kept, other: Some(other) });
        if !kept {
            self.put(row, Fate::Out);
        }
        Ok(())
    }

    /// Rows whose text stands elsewhere too.
    fn repeated(&mut self) -> Result<(), DataError> {
        let census = self.census;
        let digest = |row: u32| census.digests.get(row as usize).copied().unwrap_or(0);
        // Of equal texts the one of the test split comes first, then validation, then training.
        let rank = |row: u32| std::cmp::Reverse(census.role(row));
        let mut order = self.kept();
        order.sort_unstable_by_key(|row| (digest(*row), rank(*row), *row));
        let mut found = Vec::new();
        for same in order.chunk_by(|a, b| digest(*a) == digest(*b)).filter(|same| same.len() > 1) {
            let Some(first) = same.first().copied() else { continue };
            let mut first_of_role = first;
            for row in same.iter().copied().skip(1) {
                let role = census.role(row);
                let problem = match role {
                    _ if role != census.role(first) => Problem::Leak,
                    Role::Train => Problem::Duplicate,
                    Role::Validation | Role::Test => Problem::HeldOutDuplicate,
                };
                found.push((row, first, problem));
                if census.role(first_of_role) != role {
                    first_of_role = row;
                } else if problem == Problem::Leak && self.hygiene.leaks == Policy::Keep {
                    // A row that leaks and stays may repeat another one that leaks and stays.
                    let again = match role {
                        Role::Train => Problem::Duplicate,
                        _ => Problem::HeldOutDuplicate,
                    };
                    found.push((row, first_of_role, again));
                }
            }
        }
        found.sort_unstable_by_key(|(row, ..)| *row);
        for (row, other, problem) in found {
            let policy = match problem {
                Problem::Leak => self.hygiene.leaks,
                Problem::Duplicate => self.hygiene.duplicates,
                _ => Policy::Keep,
            };
            self.judge(row, other, problem, policy)?;
            if problem == Problem::Duplicate && self.class(row) != self.class(other) {
                let kept = policy == Policy::Keep;
                let problem = Problem::Contrary;
                self.findings.push(Finding { row, problem, kept, other: Some(other) });
            }
        }
        Ok(())
    }

    /// Training rows (and rows of a validation file) in the group of a row that is held out.
    fn near_leaks(&mut self, members: &BTreeMap<u32, Vec<u32>>) -> Result<(), DataError> {
        for rows in members.values() {
            let held = |role| rows.iter().copied().find(|row| self.is_in(*row, role));
            let (test, validation) = (held(Role::Test), held(Role::Validation));
            for row in rows.clone() {
                let other = match self.census.role(row) {
                    Role::Train => test.or(validation),
                    Role::Validation => test,
                    Role::Test => None,
                };
                let digest = |row: u32| self.census.digests.get(row as usize);
                // The very same text is a leak, and has been judged as one.
                if let Some(other) = other.filter(|other| digest(*other) != digest(row)) {
                    self.judge(row, other, Problem::NearLeak, self.hygiene.near_leaks)?;
                }
            }
        }
        Ok(())
    }

    /// Takes exactly `count` rows out of the units, which have them. Groups are taken whole while
    /// they fit, and in pieces only if nothing else is left.
    fn cut(&mut self, units: &mut Units, count: usize, role: Role) {
        let Units { order, groups } = units;
        let mut sizes: BTreeMap<u32, usize> = BTreeMap::new();
        for (_, first) in order.iter() {
            for row in groups.get(first).map_or(std::slice::from_ref(first), Vec::as_slice) {
                *sizes.entry(self.class(*row)).or_default() += 1;
            }
        }
        let listed: Vec<usize> = sizes.values().copied().collect();
        let mut quota: BTreeMap<u32, usize> =
            sizes.into_keys().zip(quotas(&listed, count)).collect();
        let mut take = |divider: &mut Self, rows: &[u32]| {
            let mut wanted: BTreeMap<u32, usize> = BTreeMap::new();
            for row in rows {
                *wanted.entry(divider.class(*row)).or_default() += 1;
            }
            let left = |class: &u32| quota.get(class).copied().unwrap_or(0);
            if wanted.iter().any(|(class, count)| *count > left(class)) {
                return false;
            }
            for row in rows {
                divider.put(*row, Fate::In(role));
                if let Some(left) = quota.get_mut(&divider.class(*row)) {
                    *left -= 1;
                }
            }
            true
        };
        order.retain(|(_, first)| {
            let rows = groups.get(first).map_or(std::slice::from_ref(first), Vec::as_slice);
            !take(self, rows)
        });
        for (_, first) in order.iter() {
            let Some(rows) = groups.get_mut(first) else { continue };
            let before = rows.clone();
            rows.retain(|row| !take(self, &[*row]));
            let Some(other) = rows.first().copied() else { continue };
            // Rows of a group are in order: one template may have made a million of them.
            for row in before.into_iter().filter(|row| rows.binary_search(row).is_err()) {
                let problem = Problem::Apart;
                self.findings.push(Finding { row, problem, kept: true, other: Some(other) });
            }
        }
        order.retain(|(_, first)| groups.get(first).is_none_or(|rows| !rows.is_empty()));
    }

    /// Refuses a class that cannot be learned and a split without examples.
    fn check(&self, held_out: HeldOut<'_>) -> Result<(), DataError> {
        let census = self.census;
        let rows = |role| (0..).take(census.len()).filter(move |row| self.is_in(*row, role));
        let num_train = rows(Role::Train).count();
        let mut counts = vec![0usize; census.names.len()];
        for row in rows(Role::Train) {
            if let Some(count) = counts.get_mut(self.class(row) as usize) {
                *count += 1;
            }
        }
        if let Some((name, _)) = census.names.iter().zip(counts).find(|(_, count)| *count == 0) {
            let message = format!(
                "class `{name}` has no example to train on: {} left for training",
                counted_are(num_train, "example")
            );
            return Err(DataError::refused(census.pool(), message));
        }
        let wanted = [
            ("train", Role::Train, true),
            ("validation", Role::Validation, *held_out.validation != Holdout::Absent),
            ("test", Role::Test, *held_out.test != Holdout::Absent),
        ];
        for (name, role, wanted) in wanted {
            if wanted && rows(role).next().is_none() {
                let message = "no usable example is left in the split";
                return Err(DataError::refused(format!("data.{name}"), message));
            }
        }
        Ok(())
    }
}

/// Shares of `count` in proportion to `sizes`, by largest remainder; they add up to `count`, and
/// none is above its size, if `count` is at most the sum of the sizes.
fn quotas(sizes: &[usize], count: usize) -> Vec<usize> {
    let total = sizes.iter().sum::<usize>().max(1);
    let parts = |size: usize| {
        let product = size as u128 * count as u128;
        (product / total as u128, product % total as u128)
    };
    let mut quotas: Vec<usize> =
        sizes.iter().map(|size| usize::try_from(parts(*size).0).unwrap_or(*size)).collect();
    let missing = count.saturating_sub(quotas.iter().sum());
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order
        .sort_by_key(|class| std::cmp::Reverse(sizes.get(*class).map_or(0, |size| parts(*size).1)));
    for class in order.into_iter().take(missing) {
        if let Some(quota) = quotas.get_mut(class) {
            *quota += 1;
        }
    }
    quotas
}

#[cfg(test)]
mod tests;
