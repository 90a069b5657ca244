//! What stands behind the `?` of a request.

use std::fmt::Display;
use std::str::FromStr;

use url::form_urlencoded;

use super::problem::Problem;

/// Longest text that is searched for.
const TEXT_MAX: usize = 200;
/// Rows of a page, if nothing is said.
const SIZE: usize = 50;
/// Most rows of a page.
const SIZE_MAX: usize = 500;

/// Names and values, as they were sent.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Of the raw text.
    pub(super) fn of(raw: Option<&str>) -> Self {
        let text = raw.unwrap_or_default();
        Self(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    /// All names, with values or without.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// The last value of a name that is not empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// As [`Query::text`], for what people type.
    pub(super) fn search(&self, name: &str) -> Result<Option<&str>, Problem> {
        match self.text(name) {
            Some(text) if text.len() > TEXT_MAX => {
                Err(Problem::Wrong(format!("{name}: longer than {TEXT_MAX} bytes")))
            }
            text => Ok(text),
        }
    }

    /// The value of a name, read as a number or the like.
    pub(super) fn value<T: FromStr>(&self, name: &str) -> Result<Option<T>, Problem>
    where
        T::Err: Display,
    {
        let read = |text: &str| {
            text.parse().map_err(|error| Problem::Wrong(format!("{name}: `{text}`: {error}")))
        };
        self.text(name).map(read).transpose()
    }

    /// A number within bounds; one outside is brought to the nearer bound.
    pub(super) fn count(&self, name: &str, default: usize, most: usize) -> Result<usize, Problem> {
        Ok(self.value(name)?.unwrap_or(default).clamp(1, most))
    }

    /// The part of a list that is asked for.
    pub(super) fn page(&self) -> Result<Page, Problem> {
        let number: usize = self.value("page")?.unwrap_or(1).max(1);
        Ok(Page { number, size: self.count("size", SIZE, SIZE_MAX)? })
    }

    /// All names that begin with `prefix`, without it, and their values.
    pub(super) fn with_prefix<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.iter().filter_map(move |(name, value)| {
            Some((name.strip_prefix(prefix)?, value.as_str())).filter(|_| !value.is_empty())
        })
    }
}

/// A part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page {
    /// From 1.
    number: usize,
    /// Rows.
    size: usize,
}

impl Page {
    /// The rows that are on it.
    pub(super) fn of<T>(self, rows: impl Iterator<Item = T>) -> Vec<T> {
        rows.skip((self.number - 1).saturating_mul(self.size)).take(self.size).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_bounded() {
        let query = Query::of(Some("page=2&size=3&q=a%20b&limit=x&sort="));
        assert_eq!(query.page().unwrap().of(0..10), [3, 4, 5]);
        assert_eq!(query.search("q").unwrap(), Some("a b"));
        assert_eq!(query.text("sort"), None);
        assert!(matches!(query.count("limit", 5, 9), Err(Problem::Wrong(_))));
        assert_eq!(query.count("other", 5, 9).unwrap(), 5);
        assert_eq!(Query::of(Some("size=100000")).page().unwrap().size, SIZE_MAX);
        assert_eq!(Query::of(Some("page=0&size=0")).page().unwrap().of(0..3), [0]);
        let far = format!("page={}&size=500", usize::MAX);
        assert!(Query::of(Some(&far)).page().unwrap().of(0..3).is_empty());
    }

    #[test]
    fn bounds_of_hyperparameters_are_found() {
        let query = Query::of(Some("min.dropout=0.1&max.dropout=&min.x=2"));
        assert_eq!(query.with_prefix("min.").collect::<Vec<_>>(), [("dropout", "0.1"), ("x", "2")]);
        assert_eq!(query.with_prefix("max.").count(), 0);
    }
}
