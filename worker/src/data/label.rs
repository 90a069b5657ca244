//! The text of a label column to the number of a class.

use std::collections::BTreeSet;

use muster_common::manifest::{LabelRange, LabelRule};

/// Most classes found in a column without names; more means that it holds no class.
pub(super) const CLASSES_MAX: usize = 1000;

/// The classes of an experiment.
#[derive(Debug)]
pub(super) struct Classes {
    /// Names in the order of their numbers.
    pub(super) names: Vec<String>,
    ranges: Option<Vec<LabelRange>>,
}

impl Classes {
    /// From a rule that names the classes; `None` for one that leaves them to the training files.
    pub(super) fn written(rule: &LabelRule) -> Option<Self> {
        match rule {
            LabelRule::Ranges { ranges, .. } => {
                let names = ranges.iter().map(|range| range.name.clone()).collect();
                Some(Self { names, ranges: Some(ranges.clone()) })
            }
            LabelRule::Class { names, .. } => names.clone().map(Self::named),
        }
    }

    /// Classes with these names.
    pub(super) fn named(names: Vec<String>) -> Self {
        Self { names, ranges: None }
    }

    /// The class of a cell; `None` where it lies in no range. The error says what is wrong with it.
    pub(super) fn of(&self, cell: &str) -> Result<Option<u32>, String> {
        match &self.ranges {
            Some(ranges) => {
                let number = cell.trim().parse().ok().filter(|number: &f64| number.is_finite());
                let number = number.ok_or_else(|| format!("label `{cell}` is no number"))?;
                let class = ranges.iter().position(|range| range.contains(number));
                Ok(class.and_then(|class| u32::try_from(class).ok()))
            }
            None => self.class(cell).map(Some),
        }
    }

    fn class(&self, cell: &str) -> Result<u32, String> {
        let (trimmed, cell) = (cell.trim(), whole(cell));
        let named = self.names.iter().position(|name| name == trimmed);
        let named = named.or_else(|| self.names.iter().position(|name| whole(name) == cell));
        let class = named.or_else(|| {
            let number = cell.parse().ok().filter(|number| *number < self.names.len())?;
            // Of classes whose names are numbers, as those of stars, `0` is no other name of the first.
            let is_number = |name: &String| name.trim().parse::<f64>().is_ok();
            (!self.names.iter().all(is_number)).then_some(number)
        });
        let class = class.and_then(|class| u32::try_from(class).ok());
        class.ok_or_else(|| {
            let some: Vec<&str> = self.names.iter().take(20).map(String::as_str).collect();
            format!("label `{cell}` is none of the classes `{}`", some.join("`, `"))
        })
    }
}

/// A label without white space around it, and `1` for a whole number that is written as `1.0`.
pub(super) fn whole(cell: &str) -> &str {
    let cell = cell.trim();
    match cell.split_once('.') {
        Some((digits, zeros))
            if digits.parse::<i64>().is_ok() && zeros.bytes().all(|byte| byte == b'0') =>
        {
            digits
        }
        _ => cell,
    }
}

/// Names of classes from the distinct labels that were found, none of them empty: in the order of
/// numbers if all are whole numbers, of text otherwise.
pub(super) fn distinct<'a>(
    column: &str,
    values: impl Iterator<Item = &'a str>,
) -> Result<Vec<String>, String> {
    let values: BTreeSet<&str> = values.collect();
    if values.len() < 2 {
        return Err(match values.first() {
            None => "there are no rows".to_owned(),
            Some(value) => format!("`{column}` is `{value}` in every row: nothing to learn"),
        });
    }
    let mut values: Vec<&str> = values.into_iter().collect();
    if values.iter().all(|value| value.parse::<i64>().is_ok()) {
        values.sort_by_key(|value| value.parse::<i64>().unwrap_or(0));
    }
    Ok(values.into_iter().map(ToOwned::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_sorted_as_numbers_or_as_text() {
        let names = |labels: &[&str]| distinct("label", labels.iter().copied());
        assert_eq!(names(&["10", "9", "1"]).unwrap(), ["1", "9", "10"]);
        assert_eq!(names(&["pos", "neg", "pos"]).unwrap(), ["neg", "pos"]);
        assert_eq!(names(&["10", "9", "x"]).unwrap(), ["10", "9", "x"]);
        assert_eq!((whole(" 1.0 "), whole("1.5"), whole("1.")), ("1", "1.5", "1"));
        assert!(names(&["1", "1"]).unwrap_err().contains("every row"));
        assert!(names(&[]).unwrap_err().contains("no rows"));
    }

    #[test]
    fn a_name_wins_over_a_number() {
        let classes = Classes::named(["no", "yes", "0"].map(str::to_owned).to_vec());
        assert_eq!(classes.of("yes"), Ok(Some(1)));
        assert_eq!(classes.of("0"), Ok(Some(2)));
        assert_eq!(classes.of("1.0"), Ok(Some(1)));
        for bad in ["3", "-1", "", "Yes", "1.5", "nan"] {
            assert!(classes.of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_that_are_numbers_have_no_numbers_beside_them() {
        let classes =
            |names: &[&str]| Classes::named(names.iter().map(|name| (*name).to_owned()).collect());
        // Found in training files; `0` stands in another file only, and is not `-1` or one star.
        for names in [["-1", "1"], ["1", "2"]] {
            assert!(classes(&names).of("0").unwrap_err().contains("`0`"), "{names:?}");
            assert_eq!(classes(&names).of(" 1.0 "), classes(&names).of("1"));
        }
        // Written in a manifest with a point.
        let halves = classes(&["0.0", "0.5", "1.0"]);
        for (cell, class) in [("0.0", 0), ("0", 0), ("0.5", 1), ("1.0", 2), ("1", 2)] {
            assert_eq!(halves.of(cell), Ok(Some(class)), "{cell}");
        }
        assert!(halves.of("2").is_err());
        assert_eq!(classes(&["no", "yes"]).of("1"), Ok(Some(1)));
    }

    #[test]
    fn ranges_leave_out_what_lies_between() {
        let range = |name: &str, above, below| LabelRange { name: name.to_owned(), above, below };
        let ranges = vec![range("negative", None, Some(-0.5)), range("positive", Some(0.5), None)];
        let rule = LabelRule::Ranges { column: "rating".to_owned(), ranges };
        let classes = Classes::written(&rule).unwrap();
        assert_eq!(classes.of("-0.6"), Ok(Some(0)));
        assert_eq!(classes.of("0.5"), Ok(None));
        assert_eq!(classes.of("2.26666666667"), Ok(Some(1)));
        assert!(classes.of("inf").is_err());
        assert!(classes.of("good").unwrap_err().contains("`good`"));
    }
}
