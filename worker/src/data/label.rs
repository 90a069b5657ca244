//! The text of a label column to the number of a class.

use std::collections::BTreeSet;

use muster_common::manifest::{LabelRange, LabelRule};

use super::DataError;
use super::source::Rows;

/// Most classes found in a column without names; more means that it holds no class.
const CLASSES_MAX: usize = 1000;

/// The classes of an experiment.
#[derive(Debug)]
pub(super) struct Classes {
    /// Names in the order of their numbers.
    pub(super) names: Vec<String>,
    ranges: Option<Vec<LabelRange>>,
}

impl Classes {
    /// From the rule, and from the values of the training file where the rule names no classes.
    pub(super) fn new(rule: &LabelRule, train: &Rows) -> Result<Self, DataError> {
        match rule {
            LabelRule::Ranges { ranges, .. } => {
                let names = ranges.iter().map(|range| range.name.clone()).collect();
                Ok(Self { names, ranges: Some(ranges.clone()) })
            }
            LabelRule::Class { names: Some(names), .. } => {
                Ok(Self { names: names.clone(), ranges: None })
            }
            LabelRule::Class { column, names: None } => {
                Ok(Self { names: distinct(column, train)?, ranges: None })
            }
        }
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
            None => self.class(whole(cell)).map(Some),
        }
    }

    fn class(&self, cell: &str) -> Result<u32, String> {
        let named = self.names.iter().position(|name| name == cell);
        let numbered = || cell.parse().ok().filter(|number| *number < self.names.len());
        let class = named.or_else(numbered).and_then(|class| u32::try_from(class).ok());
        class.ok_or_else(|| {
            let some: Vec<&str> = self.names.iter().take(20).map(String::as_str).collect();
            format!("label `{cell}` is none of the classes `{}`", some.join("`, `"))
        })
    }
}

/// A label without white space around it, and `1` for a whole number that is written as `1.0`.
fn whole(cell: &str) -> &str {
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

/// Distinct values, in the order of numbers if all are whole numbers, of text otherwise.
fn distinct(column: &str, rows: &Rows) -> Result<Vec<String>, DataError> {
    let mut values: BTreeSet<&str> = BTreeSet::new();
    for row in &rows.list {
        let value = whole(&row.label);
        if value.is_empty() {
            let message = format!("`{column}` is empty: remove the row or give it a class");
            return Err(DataError::refused(rows.place(row.at), message));
        }
        values.insert(value);
        if values.len() > CLASSES_MAX {
            let message = format!(
                "`{column}` has more than {CLASSES_MAX} different values: name the classes with \
                 `label.names`, or cut numbers into classes with `label.ranges`"
            );
            return Err(DataError::refused(rows.place(row.at), message));
        }
    }
    if values.len() < 2 {
        let message = match values.first() {
            None => "there are no rows".to_owned(),
            Some(value) => format!("`{column}` is `{value}` in every row: nothing to learn"),
        };
        return Err(DataError::refused(&*rows.path, message));
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
    use crate::data::source::Row;

    fn rows(labels: &[&str]) -> Rows {
        let row = |(at, label): (u64, &&str)| Row {
            at,
            text: format!("text {at}"),
            label: (*label).to_owned(),
        };
        let list = (1..).zip(labels).map(row).collect();
        Rows { path: "a.csv".to_owned(), has_lines: true, list, repaired: None }
    }

    fn class(names: Option<&[&str]>) -> LabelRule {
        let names = names.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        LabelRule::Class { column: "label".to_owned(), names }
    }

    #[test]
    fn values_are_sorted_as_numbers_or_as_text() {
        let names = |labels: &[&str]| Classes::new(&class(None), &rows(labels)).unwrap().names;
        assert_eq!(names(&["10", "9", " 1.0", "1"]), ["1", "9", "10"]);
        assert_eq!(names(&["pos", "neg", "pos"]), ["neg", "pos"]);
        assert_eq!(names(&["10", "9", "x"]), ["10", "9", "x"]);
    }

    #[test]
    fn a_name_wins_over_a_number() {
        let classes = Classes::new(&class(Some(&["no", "yes", "0"])), &rows(&[])).unwrap();
        assert_eq!(classes.of("yes"), Ok(Some(1)));
        assert_eq!(classes.of("0"), Ok(Some(2)));
        assert_eq!(classes.of("1.0"), Ok(Some(1)));
        for bad in ["3", "-1", "", "Yes", "1.5", "nan"] {
            assert!(classes.of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges_leave_out_what_lies_between() {
        let range = |name: &str, above, below| LabelRange { name: name.to_owned(), above, below };
        let ranges = vec![range("negative", None, Some(-0.5)), range("positive", Some(0.5), None)];
        let rule = LabelRule::Ranges { column: "rating".to_owned(), ranges };
        let classes = Classes::new(&rule, &rows(&[])).unwrap();
        assert_eq!(classes.of("-0.6"), Ok(Some(0)));
        assert_eq!(classes.of("0.5"), Ok(None));
        assert_eq!(classes.of("2.26666666667"), Ok(Some(1)));
        assert!(classes.of("inf").is_err());
        assert!(classes.of("good").unwrap_err().contains("`good`"));
    }

    #[test]
    fn columns_that_hold_no_class_are_refused() {
        let many: Vec<String> = (0..=CLASSES_MAX).map(|n| n.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let message =
            |labels: &[&str]| Classes::new(&class(None), &rows(labels)).unwrap_err().to_string();
        assert!(message(&many).contains("ranges"));
        assert!(message(&["1", "1.0"]).contains("every row"));
        assert!(message(&[]).contains("no rows"));
        assert!(message(&["a", ""]).starts_with("a.csv:2:"));
    }
}
