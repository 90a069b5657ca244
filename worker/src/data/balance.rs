//! How many examples each class has, and what follows for scores: said before anybody trains on it.

use std::collections::BTreeMap;

use super::census::Census;
use super::source::Role;
use super::split::{Division, Fate};

/// Classes whose counts are all told.
const CLASSES_SHOWN: usize = 12;
/// From this share of the validation split on, a class makes accuracy a poor measure.
const MAJORITY: f64 = 0.8;

/// Examples of one class in each split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Counts {
    train: u64,
    validation: u64,
    test: u64,
}

/// How many of a class one split has.
type Count = fn(&Counts) -> u64;

/// Remarks about the classes of what was read; none where there are no labels.
pub(super) fn remarks(census: &Census, division: &Division) -> Vec<String> {
    let mut counts = vec![Counts::default(); census.names.len()];
    for (class, fate) in census.classes.iter().zip(&division.fates) {
        let Fate::In(role) = fate else { continue };
        let Some(counts) = counts.get_mut(*class as usize) else { continue };
        match role {
            Role::Train => counts.train += 1,
            Role::Validation => counts.validation += 1,
            Role::Test => counts.test += 1,
        }
    }
    said(&census.names, &counts)
}

fn said(names: &[String], counts: &[Counts]) -> Vec<String> {
    let classes: Vec<(&str, Counts)> =
        names.iter().map(String::as_str).zip(counts.iter().copied()).collect();
    let Some(largest) = classes.iter().max_by_key(|(_, counts)| counts.validation) else {
        return Vec::new();
    };
    let mut remarks = vec![table(&classes)];
    remarks.extend(twins(names));
    let held_out: [(&str, Count); 2] =
        [("validation", |counts| counts.validation), ("test", |counts| counts.test)];
    for (split, count) in held_out {
        let total: u64 = counts.iter().map(count).sum();
        let missing: Vec<&str> = classes
            .iter()
            .filter(|(_, counts)| count(counts) == 0)
            .map(|(name, _)| *name)
            .take(CLASSES_SHOWN)
            .collect();
        if total > 0 && !missing.is_empty() {
            remarks.push(format!(
                "the {split} split has no example of `{}`: its scores say nothing of that",
                missing.join("`, `")
            ));
        }
    }
    let total: u64 = counts.iter().map(|counts| counts.validation).sum();
    let (name, largest) = (largest.0, largest.1.validation);
    // Exact for any number of rows that fits in memory.
    let share = largest as f64 / total.max(1) as f64;
    if share >= MAJORITY {
        remarks.push(format!(
            "whoever always answers `{name}` has an accuracy of {share:.4} on the validation split: compare by \
             macro_f1 or mcc, and perhaps train with class_weights: balanced"
        ));
    }
    remarks
}

/// The counts of all classes, or of many the extremes.
fn table(classes: &[(&str, Counts)]) -> String {
    if classes.len() <= CLASSES_SHOWN {
        let all: Vec<String> = classes
            .iter()
            .map(|(name, Counts { train, validation, test })| {
                format!("{name} {train}, {validation}, {test}")
            })
            .collect();
        return format!("examples of each class (train, validation, test): {}", all.join("; "));
    }
    let fewest = classes.iter().min_by_key(|(_, counts)| counts.train);
    let most = classes.iter().max_by_key(|(_, counts)| counts.train);
    let shown = |class: Option<&(&str, Counts)>| {
        class.map_or_else(String::new, |(name, counts)| format!("{} (`{name}`)", counts.train))
    };
    format!("{} classes, of {} to {} training examples", classes.len(), shown(fewest), shown(most))
}

/// Classes whose names differ in case and blanks only are mostly one class, written carelessly.
fn twins(names: &[String]) -> Option<String> {
    let mut seen: BTreeMap<String, &String> = BTreeMap::new();
    let (other, name) = names.iter().find_map(|name| {
        let other = seen.insert(name.trim().to_lowercase(), name)?;
        Some((other, name))
    })?;
    Some(format!(
        "`{other}` and `{name}` are two classes that differ in case or blanks only: if they are one, mend the file"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(classes: &[(&str, [u64; 3])]) -> Vec<String> {
        let names: Vec<String> = classes.iter().map(|(name, _)| (*name).to_owned()).collect();
        let counts =
            |&(_, [train, validation, test]): &(&str, [u64; 3])| Counts { train, validation, test };
        said(&names, &classes.iter().map(counts).collect::<Vec<Counts>>())
    }

    #[test]
    fn even_classes_are_only_counted() {
        let remarks = of(&[("neg", [40, 5, 5]), ("pos", [38, 6, 4])]);
        assert_eq!(
            remarks,
            ["examples of each class (train, validation, test): neg 40, 5, 5; pos 38, 6, 4"]
        );
        assert!(of(&[]).is_empty());
        // Without a test split nothing is missing there.
        assert_eq!(of(&[("neg", [40, 5, 0]), ("pos", [38, 6, 0])]).len(), 1);
    }

    #[test]
    fn what_makes_scores_worthless_is_said() {
        let remarks = of(&[("Pos", [1, 0, 0]), ("neg", [40, 2, 1]), ("pos", [400, 38, 19])]);
        assert_eq!(
            remarks[1..],
            [
                "`Pos` and `pos` are two classes that differ in case or blanks only: if they are one, mend the file",
                "the validation split has no example of `Pos`: its scores say nothing of that",
                "the test split has no example of `Pos`: its scores say nothing of that",
                "whoever always answers `pos` has an accuracy of 0.9500 on the validation split: compare by \
                 macro_f1 or mcc, and perhaps train with class_weights: balanced",
            ]
        );
    }

    #[test]
    fn many_classes_are_told_by_their_extremes() {
        let names: Vec<String> = (0..20).map(|index| format!("c{index}")).collect();
        let classes: Vec<(&str, [u64; 3])> = names
            .iter()
            .enumerate()
            .map(|(index, name)| (name.as_str(), [3 + index as u64, 1, 1]))
            .collect();
        assert_eq!(of(&classes), ["20 classes, of 3 (`c0`) to 22 (`c19`) training examples"]);
    }
}
