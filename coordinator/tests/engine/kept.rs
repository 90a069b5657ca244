//! Journals of older builds, kept as they were written (`tests/golden/journals`, made by `generate.py` there): every
//! format there ever was is read, and what was decided then is decided in every replay. Their outcomes are not to be
//! blessed: whoever changes one has changed the past of somebody's experiment.

use std::path::{Path, PathBuf};

use muster_common::time::Timestamp;
use muster_coordinator::engine::{Engine, Event, RULES};
use muster_coordinator::journal::Journal;
use rusqlite::types::Value as Cell;
use rusqlite::{Connection, params_from_iter};
use serde_json::{Map, Value, json};

/// Names of the journals, and the rules they were written by.
const KEPT: [(&str, u32); 4] =
    [("format-1", 0), ("format-2", 1), ("format-3-asha", 3), ("format-3-population", 3)];

/// Tables of formats 1 and 2.
const TABLES: &str = "
    CREATE TABLE events (position INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, body TEXT NOT NULL);
    CREATE TABLE snapshots (position INTEGER PRIMARY KEY, body TEXT NOT NULL);";
/// What format 3 added.
const ROWS: &str = "
    CREATE TABLE experiments (experiment TEXT PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE trials (experiment TEXT NOT NULL, number INTEGER NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (experiment, number)) WITHOUT ROWID;
    CREATE TABLE decisions (experiment TEXT NOT NULL, place INTEGER NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (experiment, place)) WITHOUT ROWID;";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/journals")
}

/// Writes a kept journal into a directory, with its snapshot or as events only.
fn lay(directory: &Path, name: &str, has_snapshot: bool) {
    let lines = std::fs::read_to_string(folder().join(format!("{name}.jsonl"))).unwrap();
    let connection = Connection::open(directory.join("journal.db")).unwrap();
    connection.execute_batch(TABLES).unwrap();
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let (table, row) = line.as_object().unwrap().iter().next().unwrap();
        match table.as_str() {
            "user_version" => {
                let version = row.as_i64().unwrap();
                connection.pragma_update(None, "user_version", version).unwrap();
                if version == 3 {
                    connection.execute_batch(ROWS).unwrap();
                }
            }
            "events" => insert(&connection, table, row),
            _ if has_snapshot => insert(&connection, table, row),
            _ => {}
        }
    }
}

fn insert(connection: &Connection, table: &str, row: &Value) {
    let cell = |value: &Value| match value {
        Value::String(text) => Cell::from(text.clone()),
        number => Cell::from(number.as_i64().unwrap()),
    };
    let cells: Vec<Cell> = row.as_array().unwrap().iter().map(cell).collect();
    let marks = vec!["?"; cells.len()].join(", ");
    let statement = format!("INSERT INTO {table} VALUES ({marks})");
    connection.execute(&statement, params_from_iter(cells)).unwrap();
}

/// What trials try and how they stand, and all decisions.
fn outcome(engine: &Engine) -> Value {
    let (mut trials, mut decisions) = (Map::new(), Map::new());
    for experiment in engine.experiments() {
        for trial in experiment.trials.values() {
            let id = experiment.trial_id(trial.number).to_string();
            trials.insert(id, json!({"assignment": trial.assignment, "state": trial.state}));
        }
        if !experiment.decisions.is_empty() {
            decisions.insert(experiment.id.to_string(), json!(&experiment.decisions[..]));
        }
    }
    json!({"trials": trials, "decisions": decisions})
}

#[test]
fn what_older_builds_decided_stays_decided() {
    for (name, rules) in KEPT {
        let kept = std::fs::read(folder().join(format!("{name}.outcome.json"))).unwrap();
        let kept: Value = serde_json::from_slice(&kept).unwrap();
        let replayed = [false, true].map(|has_snapshot| {
            let directory = tempfile::tempdir().unwrap();
            lay(directory.path(), name, has_snapshot);
            let (_, engine) = Journal::open(directory.path()).unwrap();
            assert_eq!(engine.rules(), rules, "{name}");
            engine.check_invariants().unwrap();
            assert_eq!(outcome(&engine), kept, "{name}, with its snapshot: {has_snapshot}");
            engine
        });
        // Earlier formats knew less than an engine knows now.
        if name.starts_with("format-3") {
            assert_eq!(replayed[0], replayed[1], "{name}: the snapshot says what the events say");
        }
    }
}

#[test]
fn journals_of_older_builds_are_written_on() {
    for (name, _) in KEPT {
        let directory = tempfile::tempdir().unwrap();
        lay(directory.path(), name, true);
        let (mut journal, mut engine) = Journal::open(directory.path()).unwrap();
        let at = Timestamp(1_900_000_000_000);
        let worker = "w9".parse().unwrap();
        let joined = Event::WorkerJoined { worker, host: "c".to_owned(), token_name: None };
        let events = [(at, Event::RulesAdopted { rules: RULES }), (at, joined)];
        for (at, event) in events.clone() {
            engine.apply(at, event);
        }
        journal.append(&events).unwrap();
        drop(journal);
        let (mut journal, mut again) = Journal::open(directory.path()).unwrap();
        assert_eq!(again, engine, "{name}: as it was, and what came since");
        journal.snapshot(&mut again).unwrap();
        drop(journal);
        let (_, restored) = Journal::open(directory.path()).unwrap();
        assert_eq!(restored, engine, "{name}: the snapshot has rows now");
    }
}
