//! The form of a manifest as JSON Schema (draft 2020-12), for editors. The reader is strict and knows more: what
//! one value means for another is beyond a schema. Tests hold both against the same manifests, right and wrong.
//!
//! Names and limits are the reader's own; descriptions and defaults are those of the tables in
//! `configs/README.md`.

mod sections;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// Where the published copy says it comes from.
const TITLE: &str = "Muster manifest";

/// The reference whose tables hold what each key means.
const REFERENCE: &str = include_str!("../../../../configs/README.md");

/// The schema, as it is published in `configs/manifest.schema.json`.
pub fn schema() -> Value {
    let rows = Rows::read(REFERENCE);
    let mut schema = sections::manifest(&rows);
    if let Some(object) = schema.as_object_mut() {
        object.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        object.insert("title".to_owned(), json!(TITLE));
        object.insert("$defs".to_owned(), sections::definitions(&rows));
    }
    schema
}

/// What the tables of the reference say, by key.
struct Rows(BTreeMap<String, Row>);

#[derive(Debug, Clone, Default)]
struct Row {
    default: String,
    meaning: String,
}

impl Rows {
    fn read(text: &str) -> Self {
        let mut rows = BTreeMap::new();
        let mut columns: Vec<&str> = Vec::new();
        for line in text.lines() {
            let Some(inside) = line.strip_prefix('|') else {
                columns.clear();
                continue;
            };
            let cells: Vec<&str> = inside.trim_end_matches('|').split('|').map(str::trim).collect();
            if columns.is_empty() {
                columns = cells;
                continue;
            }
            let cell = |name: &str| {
                let at = columns.iter().position(|column| *column == name);
                at.and_then(|at| cells.get(at)).map_or(String::new(), |cell| (*cell).to_owned())
            };
            // `data.hygiene` has the sentence around the table for a meaning.
            let rest = if cell("rows").is_empty() { cell("meaning") } else { cell("rows") };
            let key = cells.first().and_then(|key| key.strip_prefix('`'));
            if let Some(key) = key.and_then(|key| key.strip_suffix('`')) {
                let row = Row { default: cell("default"), meaning: rest };
                // The first table with a key is the manifest's; settings come later.
                rows.entry(key.to_owned()).or_insert(row);
            }
        }
        Self(rows)
    }

    /// A key's schema with what its row says.
    fn describe(&self, key: &str, schema: Value) -> Value {
        let Some(row) = self.0.get(key) else { return schema };
        let Value::Object(mut object) = schema else { return schema };
        let literal = default_of(&row.default);
        let mut text = row.meaning.clone();
        if literal.is_none() && !row.default.is_empty() {
            text += &format!(" (default: {})", row.default);
        }
        if let Some(literal) = literal {
            object.insert("default".to_owned(), literal);
        }
        object.insert("description".to_owned(), Value::String(text));
        Value::Object(object)
    }
}

/// The value that a cell of defaults names, if it names one.
fn default_of(cell: &str) -> Option<Value> {
    let name = cell.strip_prefix('`').and_then(|cell| cell.strip_suffix('`'));
    if let Some(name) = name.filter(|name| !name.contains('`')) {
        return Some(Value::String(name.to_owned()));
    }
    let number = || cell.parse::<i64>().ok().map(Value::from);
    let real =
        || cell.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Value::Number);
    match cell {
        "true" => Some(Value::Bool(true)),
        "false" => Some(Value::Bool(false)),
        _ => number().or_else(real),
    }
}

/// A mapping with these keys and no others; those marked must be there, and the others may be empty.
fn section(keys: Vec<(&str, bool, Value)>) -> Value {
    let required: Vec<&str> =
        keys.iter().filter(|(_, required, _)| *required).map(|(key, _, _)| *key).collect();
    let property = |(key, required, schema): (&str, bool, Value)| {
        (key.to_owned(), if required { schema } else { or_null(schema) })
    };
    let properties: Map<String, Value> = keys.into_iter().map(property).collect();
    let mut object = json!({
        "type": "object", "properties": properties, "additionalProperties": false,
    });
    if let (false, Some(object)) = (required.is_empty(), object.as_object_mut()) {
        object.insert("required".to_owned(), json!(required));
    }
    object
}

/// An empty value is the same as an absent key.
fn or_null(schema: Value) -> Value {
    let Value::Object(mut object) = schema else { return schema };
    let mut outer = Map::new();
    for key in ["description", "default"] {
        outer.extend(object.remove(key).map(|value| (key.to_owned(), value)));
    }
    outer.insert("anyOf".to_owned(), json!([object, {"type": "null"}]));
    Value::Object(outer)
}

/// Text; a plain scalar that looks like a number or a truth value is text too.
fn text() -> Value {
    json!({"type": ["string", "number", "boolean"], "minLength": 1})
}

fn truth() -> Value {
    json!({"type": "boolean"})
}

/// A whole number, perhaps written with `_` between its digits.
fn whole(min: u64, max: u64) -> Value {
    json!({
        "type": ["integer", "string"], "minimum": min, "maximum": max,
        "pattern": "^[0-9]+(_[0-9]+)+$",
    })
}

/// A real number, perhaps written with `_` between its digits.
fn real(min: f64, max: f64) -> Value {
    json!({
        "type": ["number", "string"], "minimum": min, "maximum": max,
        "pattern": "^-?[0-9]+(_[0-9]+)+([.][0-9]*)?$",
    })
}

fn choice(names: &[&str]) -> Value {
    json!({"enum": names})
}

fn definition(name: &str) -> Value {
    json!({"$ref": format!("#/$defs/{name}")})
}

/// Some of a kind, each once.
fn list(items: Value, fewest: u32) -> Value {
    let mut list = json!({"type": "array", "minItems": fewest, "uniqueItems": true});
    list["items"] = items;
    list
}

fn one_of(variants: Vec<Value>) -> Value {
    Value::Object(Map::from_iter([("anyOf".to_owned(), Value::Array(variants))]))
}
