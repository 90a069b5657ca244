//! One JSON object per line.

use std::io::Read;

use serde_json::{Map, Value};

use super::lines::Lines;
use super::{Mistake, Row, Wanted, repair};

/// Rows of a file of JSON objects; blank lines are none.
pub(super) struct Objects {
    lines: Lines,
    wanted: Wanted,
    failed: bool,
}

impl Objects {
    pub(super) fn new(reader: Box<dyn Read + Send>, wanted: &Wanted) -> Result<Self, Mistake> {
        Ok(Self { lines: Lines::new(reader)?, wanted: wanted.clone(), failed: false })
    }

    fn row(&mut self) -> Result<Option<Row>, Mistake> {
        loop {
            let Some((number, line)) = self.lines.next()? else { return Ok(None) };
            if !line.trim_ascii().is_empty() {
                return parse(number, line, &self.wanted).map(Some);
            }
        }
    }
}

impl Iterator for Objects {
    type Item = Result<Row, Mistake>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let row = self.row().transpose();
        self.failed = !matches!(row, Some(Ok(_)));
        row
    }
}

fn parse(at: u64, line: &[u8], wanted: &Wanted) -> Result<Row, Mistake> {
    let (line, repaired) = repair(line);
    let object = object_of(at, &line)?;
    let string = |name: &str| string(&object, name, at);
    let label = |name: &str| match field(&object, name, at)? {
        Value::String(label) => Ok(label.clone()),
        Value::Number(label) => Ok(label.to_string()),
        Value::Bool(label) => Ok(label.to_string()),
        other => {
            let message = format!("`{name}` is {}, not a number or a name", kind(other));
            Err(Mistake::row(at, message))
        }
    };
    Ok(Row {
        at,
        text: string(&wanted.text)?,
        pair: wanted.pair.as_deref().map(string).transpose()?,
        label: wanted.label.as_deref().map(label).transpose()?,
        repaired,
    })
}

/// An object and its line.
pub(super) type Numbered = (u64, Map<String, Value>);

/// The next object, whole.
pub(super) fn next_object(lines: &mut Lines) -> Result<Option<Numbered>, Mistake> {
    loop {
        let Some((number, line)) = lines.next()? else { return Ok(None) };
        if line.trim_ascii().is_empty() {
            continue;
        }
        let line = std::str::from_utf8(line).map_err(|_| Mistake::encoding(number))?;
        return object_of(number, line).map(|object| Some((number, object)));
    }
}

fn object_of(at: u64, line: &str) -> Result<Map<String, Value>, Mistake> {
    serde_json::from_str(line)
        .map_err(|error| Mistake::row(at, format!("not a JSON object on one line: {error}")))
}

/// The string under `name` in the object of line `at`.
pub(super) fn string(object: &Map<String, Value>, name: &str, at: u64) -> Result<String, Mistake> {
    match field(object, name, at)? {
        Value::String(text) => Ok(text.clone()),
        other => {
            let message = format!("`{name}` is {}, not a string", kind(other));
            Err(Mistake::row(at, message))
        }
    }
}

fn field<'a>(object: &'a Map<String, Value>, name: &str, at: u64) -> Result<&'a Value, Mistake> {
    object.get(name).ok_or_else(|| {
        let keys: Vec<&str> = object.keys().take(20).map(String::as_str).collect();
        let listed = keys.join("`, `");
        Mistake::row(at, format!("there is no key `{name}`; the keys are `{listed}`"))
    })
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
