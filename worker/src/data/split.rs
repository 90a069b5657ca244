//! Rows to the examples of the three splits.
//!
//! * Files of their own for validation and test are taken as they are, so that scores compare with
//!   other people's; a text that stands in a held-out file is removed from what comes before it
//!   (test, then validation, then training).
//! * In the training file a text counts once, the first row wins.
//! * What is cut from the training file is chosen by a hash of the seed and the text: the choice
//!   does not depend on the order of the rows, and hardly on how many there are. Test is cut first.
//!   Classes keep their shares, and a count is met exactly.

use std::collections::{BTreeMap, BTreeSet};

use muster_common::manifest::Holdout;
use muster_common::seed::Seed;

use super::DataError;
use super::label::Classes;
use super::source::Rows;

/// A text and its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Example {
    pub(super) text: String,
    pub(super) label: u32,
}

/// The examples of an experiment.
#[derive(Debug, Default)]
pub(super) struct Splits {
    pub(super) train: Vec<Example>,
    pub(super) validation: Vec<Example>,
    pub(super) test: Option<Vec<Example>>,
    pub(super) tally: Tally,
}

/// What became of the rows.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) num_rows: u64,
    pub(super) num_left_out: u64,
    pub(super) num_duplicates: u64,
    pub(super) num_empty: u64,
    pub(super) remarks: Vec<String>,
}

/// A held-out split: its rows if it has a file, how it is cut otherwise.
#[derive(Debug)]
pub(super) enum HeldOut {
    Rows(Rows),
    Cut(Holdout),
}

/// Labels, removes duplicates and splits.
pub(super) fn assemble(
    train: Rows,
    validation: HeldOut,
    test: HeldOut,
    classes: &Classes,
    seed: Seed,
) -> Result<Splits, DataError> {
    let mut splits = Splits::default();
    let tally = &mut splits.tally;
    let mut taken: BTreeSet<String> = BTreeSet::new();
    let (test_file, test_cut) = open(test, classes, tally)?;
    if let Some(examples) = &test_file {
        taken.extend(examples.iter().map(|example| example.text.trim().to_owned()));
    }
    let (mut validation_file, validation_cut) = open(validation, classes, tally)?;
    if let Some(examples) = &mut validation_file {
        remove_taken(examples, &taken, "the validation file", tally);
        taken.extend(examples.iter().map(|example| example.text.trim().to_owned()));
    }
    let path = train.path.clone();
    let mut pool = label(train, classes, tally)?;
    remove_taken(&mut pool, &taken, "the training file", tally);
    remove_repeated(&mut pool, &path, tally);

    let pool_size = pool.len();
    let num_test = test_cut.as_ref().map_or(0, |holdout| amount(holdout, pool_size));
    let num_validation = validation_cut.as_ref().map_or(0, |holdout| amount(holdout, pool_size));
    if num_test.saturating_add(num_validation) >= pool_size {
        let message = format!(
            "{pool_size} usable examples, of which {num_test} are to be held out for test and \
             {num_validation} for validation: nothing is left to train on"
        );
        return Err(DataError::refused(path, message));
    }
    let test_part = cut(&mut pool, num_test, seed);
    let validation_part = cut(&mut pool, num_validation, seed);
    splits.test = test_file.or(test_cut.map(|_| test_part));
    splits.validation = validation_file.unwrap_or(validation_part);
    splits.train = pool;
    check(&splits, classes, &path)?;
    Ok(splits)
}

/// The examples of a held-out file, or how the split is cut; neither for a split that is absent.
fn open(
    held_out: HeldOut,
    classes: &Classes,
    tally: &mut Tally,
) -> Result<(Option<Vec<Example>>, Option<Holdout>), DataError> {
    match held_out {
        HeldOut::Rows(rows) => Ok((Some(label(rows, classes, tally)?), None)),
        HeldOut::Cut(Holdout::Absent) => Ok((None, None)),
        HeldOut::Cut(holdout) => Ok((None, Some(holdout))),
    }
}

fn check(splits: &Splits, classes: &Classes, path: &str) -> Result<(), DataError> {
    for (class, name) in classes.names.iter().enumerate() {
        if !splits.train.iter().any(|example| usize::try_from(example.label) == Ok(class)) {
            let message = format!(
                "class `{name}` has no example to train on: {} examples are left for training",
                splits.train.len()
            );
            return Err(DataError::refused(path, message));
        }
    }
    let empty = [("validation", Some(&splits.validation)), ("test", splits.test.as_ref())];
    for (name, examples) in empty {
        if examples.is_some_and(Vec::is_empty) {
            let message = "no usable example is left in the split";
            return Err(DataError::refused(format!("data.{name}"), message));
        }
    }
    Ok(())
}

/// Classes of the rows; rows without text or without a class are left out and counted.
fn label(rows: Rows, classes: &Classes, tally: &mut Tally) -> Result<Vec<Example>, DataError> {
    let mut first_empty = None;
    let mut num_empty = 0;
    let mut examples = Vec::with_capacity(rows.list.len());
    let (path, has_lines) = (rows.path.clone(), rows.has_lines);
    if let Some((count, at)) = rows.repaired {
        let place = rows.place(at);
        tally.remarks.push(format!(
            "{count} rows were not UTF-8; U+FFFD stands for the bytes (first: {place})"
        ));
    }
    tally.num_rows += rows.list.len() as u64;
    let shell = Rows { path, has_lines, list: Vec::new(), repaired: None };
    for row in rows.list {
        let class =
            classes.of(&row.label).map_err(|why| DataError::refused(shell.place(row.at), why))?;
        match class {
            _ if row.text.trim().is_empty() => {
                num_empty += 1;
                first_empty.get_or_insert(row.at);
            }
            None => tally.num_left_out += 1,
            Some(label) => examples.push(Example { text: row.text, label }),
        }
    }
    if let Some(at) = first_empty {
        let place = shell.place(at);
        tally.remarks.push(format!("{num_empty} rows without text left out (first: {place})"));
        tally.num_empty += num_empty;
    }
    Ok(examples)
}

fn remove_taken(
    examples: &mut Vec<Example>,
    taken: &BTreeSet<String>,
    whose: &str,
    tally: &mut Tally,
) {
    let before = examples.len();
    examples.retain(|example| !taken.contains(example.text.trim()));
    let removed = before - examples.len();
    if removed > 0 {
        tally.num_duplicates += removed as u64;
        tally.remarks.push(format!(
            "{removed} rows removed from {whose}: their texts stand in a held-out file"
        ));
    }
}

fn remove_repeated(pool: &mut Vec<Example>, path: &str, tally: &mut Tally) {
    let mut first: BTreeMap<String, u32> = BTreeMap::new();
    let mut num_contrary: u64 = 0;
    let before = pool.len();
    pool.retain(|example| {
        let text = example.text.trim();
        if let Some(label) = first.get(text) {
            num_contrary += u64::from(*label != example.label);
            return false;
        }
        first.insert(text.to_owned(), example.label);
        true
    });
    tally.num_duplicates += (before - pool.len()) as u64;
    if num_contrary > 0 {
        tally.remarks.push(format!(
            "{num_contrary} repeated texts of {path} have another label than the first, which counts"
        ));
    }
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

/// Takes exactly `count` examples out of the pool, at most all; both keep their order.
fn cut(pool: &mut Vec<Example>, count: usize, seed: Seed) -> Vec<Example> {
    let mut classes: BTreeMap<u32, Vec<(u64, usize)>> = BTreeMap::new();
    for (index, example) in pool.iter().enumerate() {
        let key = seed.child_of_bytes("split", example.text.trim().as_bytes()).0;
        classes.entry(example.label).or_default().push((key, index));
    }
    let sizes: Vec<usize> = classes.values().map(Vec::len).collect();
    let mut chosen = vec![false; pool.len()];
    for (members, quota) in classes.values_mut().zip(quotas(&sizes, count)) {
        members.sort_unstable();
        for (_, index) in members.iter().take(quota) {
            if let Some(flag) = chosen.get_mut(*index) {
                *flag = true;
            }
        }
    }
    let mut flags = chosen.into_iter();
    pool.extract_if(.., |_| flags.next().unwrap_or(false)).collect()
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
mod tests {
    use super::*;
    use crate::data::source::Row;
    use muster_common::manifest::LabelRule;
    use proptest::prelude::*;

    fn rows(path: &str, rows: &[(&str, &str)]) -> Rows {
        let row = |(at, (text, label)): (u64, &(&str, &str))| Row {
            at,
            text: (*text).to_owned(),
            label: (*label).to_owned(),
        };
        let list = (1..).zip(rows).map(row).collect();
        Rows { path: path.to_owned(), has_lines: true, list, repaired: None }
    }

    fn classes() -> Classes {
        let names = Some(vec!["no".to_owned(), "yes".to_owned()]);
        let rule = LabelRule::Class { column: "label".to_owned(), names };
        Classes::new(&rule, &rows("x", &[])).unwrap()
    }

    fn cut_only(train: &[(&str, &str)], validation: Holdout) -> Result<Splits, DataError> {
        let absent = HeldOut::Cut(Holdout::Absent);
        assemble(rows("t.csv", train), HeldOut::Cut(validation), absent, &classes(), Seed(1))
    }

    #[test]
    fn repeated_texts_count_once_and_every_row_is_accounted_for() {
        let train =
            [("a", "no"), (" a ", "yes"), ("b", "yes"), ("", "no"), ("c", "no"), ("a", "no")];
        let splits = cut_only(&train, Holdout::Count(1)).unwrap();
        let tally = &splits.tally;
        assert_eq!((tally.num_rows, tally.num_duplicates, tally.num_empty), (6, 2, 1));
        assert_eq!(splits.train.len() + splits.validation.len(), 3);
        assert!(tally.remarks.iter().any(|remark| remark.contains("t.csv:4")), "{tally:?}");
        assert!(tally.remarks.iter().any(|remark| remark.contains("another label")), "{tally:?}");
    }

    #[test]
    fn held_out_files_stay_whole_and_leave_the_training_file() {
        let train = rows("t.csv", &[("a", "no"), ("b", "yes"), ("c", "no"), ("d", "yes")]);
        let validation = HeldOut::Rows(rows("v.csv", &[("b", "yes"), ("e", "no"), ("e", "no")]));
        let test = HeldOut::Rows(rows("s.csv", &[("e", "no"), ("a ", "no"), ("a", "no")]));
        let splits = assemble(train, validation, test, &classes(), Seed(1)).unwrap();
        let texts = |examples: &[Example]| {
            examples.iter().map(|example| example.text.clone()).collect::<Vec<_>>()
        };
        assert_eq!(texts(&splits.train), ["c", "d"]);
        assert_eq!(texts(&splits.validation), ["b"]);
        assert_eq!(texts(splits.test.as_ref().unwrap()), ["e", "a ", "a"]);
        assert_eq!(splits.tally.num_duplicates, 4);
    }

    #[test]
    fn too_few_examples_and_unseen_classes_are_refused_with_counts() {
        let train = [("a", "no"), ("b", "yes"), ("c", "no")];
        let error = cut_only(&train, Holdout::Count(3)).unwrap_err();
        assert!(error.is_permanent());
        assert!(error.to_string().contains("3 usable examples"), "{error}");
        let error = cut_only(&[("a", "no"), ("b", "no")], Holdout::Count(1)).unwrap_err();
        assert!(error.to_string().contains("class `yes`"), "{error}");
        let error = cut_only(&[("a", "no"), ("b", "maybe")], Holdout::Count(1)).unwrap_err();
        assert!(error.to_string().starts_with("t.csv:2: label `maybe`"), "{error}");
    }

    proptest! {
        #[test]
        fn cuts_are_exact_and_do_not_depend_on_the_order_of_rows(
            labels in proptest::collection::vec(0u32..4, 2..200), share in 0.0f64..1.0, seed: u64,
        ) {
            let mut pool: Vec<Example> = (0..).zip(&labels)
                .map(|(n, label)| Example { text: format!("text {n}"), label: *label }).collect();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
            let count = (share * pool.len() as f64) as usize;
            let mut shuffled = pool.clone();
            Seed(seed).child("rows", 0).draws().shuffle(&mut shuffled);
            let all = pool.len();
            let mut a = cut(&mut pool, count, Seed(seed));
            let mut b = cut(&mut shuffled, count, Seed(seed));
            prop_assert_eq!((a.len(), pool.len()), (count, all - count));
            a.sort_by(|x, y| x.text.cmp(&y.text));
            b.sort_by(|x, y| x.text.cmp(&y.text));
            prop_assert_eq!(&a, &b);
            for class in 0..4 {
                let of = |examples: &[Example]| {
                    examples.iter().filter(|example| example.label == class).count() as f64
                };
                let expected = (of(&a) + of(&pool)) * count as f64 / all as f64;
                prop_assert!((of(&a) - expected).abs() < 1.0);
            }
        }
    }
}
