//! One JSON object per line.

use serde_json::{Map, Value};

use super::{Mistake, Row, Rows, Wanted, repair};

pub(super) fn read(body: &[u8], wanted: Wanted<'_>, rows: &mut Rows) -> Result<(), Mistake> {
    for (number, line) in (1..).zip(body.split(|byte| *byte == b'\n')) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let line = repair(rows, number, line);
        let object: Map<String, Value> = serde_json::from_str(&line).map_err(|error| {
            Mistake::row(number, format!("not a JSON object on one line: {error}"))
        })?;
        let text = match field(&object, wanted.text, number)? {
            Value::String(text) => text.clone(),
            other => {
                let message = format!("`{}` is {}, not a string", wanted.text, kind(other));
                return Err(Mistake::row(number, message));
            }
        };
        let label = match field(&object, wanted.label, number)? {
            Value::String(label) => label.clone(),
            Value::Number(label) => label.to_string(),
            Value::Bool(label) => label.to_string(),
            other => {
                let message =
                    format!("`{}` is {}, not a number or a name", wanted.label, kind(other));
                return Err(Mistake::row(number, message));
            }
        };
        rows.list.push(Row { at: number, text, label });
    }
    Ok(())
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
