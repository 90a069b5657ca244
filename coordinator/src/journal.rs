//! The journal: every event in the order it was applied, and snapshots to shorten replay. One SQLite
//! file, one owner.
//!
//! Records outlive code: events and snapshots are JSON with a format number, and a newer file is
//! refused rather than misread.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_common::time::Timestamp;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, params};

use crate::engine::saved::{Restoring, RowKey};
use crate::engine::{Engine, Event};

/// Format of events, snapshots and tables. 2: runs of several ranks. 3: experiments, trials and decisions
/// are rows of their own. 1 and 2 are read too.
const FORMAT: i64 = 3;
/// Events between two snapshots: replaying so many takes tenths of a second.
const SNAPSHOT_EVERY: u64 = 2500;
/// Room for most events, so that their text is not moved while it grows.
const ENTRY_BYTES: usize = 512;

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another coordinator works here.
    #[error(
        "another muster uses {}; wait for it to end, or \
         talk to it with `muster ls`, or choose another directory with --state",
        directory.display()
    )]
    Locked {
        /// The state directory.
        directory: PathBuf,
    },
    /// Files cannot be made or opened.
    #[error("cannot open {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The disk is full.
    #[error(
        "no space is left for the journal {}; make room and start again: \
         nothing that was acknowledged is lost",
        path.display()
    )]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// The database refused.
    #[error("journal {}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
    /// Written by a newer build.
    #[error("journal {} has format {found}, this build reads {FORMAT}: use a newer muster", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
    },
    /// A record does not parse.
    #[error("journal {} is damaged at position {position}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The record.
        position: u64,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
}

impl JournalError {
    fn database(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full { path },
            _ => Self::Database { path, source },
        }
    }
}

/// Name of the database in the state directory.
const FILE: &str = "journal.db";

/// Whether a coordinator has ever kept its journal in `directory`.
pub fn is_in(directory: &Path) -> bool {
    directory.join(FILE).is_file()
}

/// An event as it is written.
#[derive(Debug)]
pub struct Entry {
    at: Timestamp,
    /// JSON.
    body: Vec<u8>,
}

/// The open journal. Dropping it releases the directory.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    connection: Connection,
    position: u64,
    snapshot_position: u64,
    _lock: File,
}

impl Journal {
    /// Opens or creates the journal of `directory` and replays it.
    pub fn open(directory: &Path) -> Result<(Self, Engine), JournalError> {
        let path = directory.join(FILE);
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| JournalError::Io { path, source }
        };
        std::fs::create_dir_all(directory).map_err(io(directory))?;
        let lock_path = directory.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(io(&lock_path))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => JournalError::Locked { directory: directory.to_owned() },
            TryLockError::Error(source) => JournalError::Io { path: lock_path.clone(), source },
        })?;
        let database = |source| JournalError::database(&path, source);
        let connection = Connection::open(&path).map_err(database)?;
        prepare(&connection, &path)?;
        let mut journal =
            Self { path: path.clone(), connection, position: 0, snapshot_position: 0, _lock: lock };
        let engine = journal.replay()?;
        Ok((journal, engine))
    }

    /// Number of events written.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// How an event that is applied at `at` is written; the engine can have it afterwards.
    pub fn entry(&self, at: Timestamp, event: &Event) -> Result<Entry, JournalError> {
        let mut body = Vec::with_capacity(ENTRY_BYTES);
        serde_json::to_writer(&mut body, event).map_err(|source| JournalError::Damaged {
            path: self.path.clone(),
            position: self.position + 1,
            source,
        })?;
        Ok(Entry { at, body })
    }

    /// Makes events durable, all or none.
    pub fn append(&mut self, events: &[(Timestamp, Event)]) -> Result<(), JournalError> {
        let entries = events.iter().map(|(at, event)| self.entry(*at, event));
        let entries = entries.collect::<Result<Vec<Entry>, JournalError>>()?;
        self.write(&entries)
    }

    /// As [`Journal::append`], of events that are written down already.
    pub fn write(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        let path = self.path.clone();
        let database = |source| JournalError::database(&path, source);
        let transaction = self.connection.transaction().map_err(database)?;
        let mut position = self.position;
        {
            let mut insert = transaction
                .prepare_cached("INSERT INTO events (position, at_ms, body) VALUES (?1, ?2, ?3)")
                .map_err(database)?;
            for Entry { at, body } in entries {
                position += 1;
                let body = ToSqlOutput::Borrowed(ValueRef::Text(body));
                insert
                    .execute(params![integer(position), integer(at.0), body])
                    .map_err(database)?;
            }
        }
        transaction.commit().map_err(database)?;
        self.position = position;
        Ok(())
    }

    /// Whether enough has happened since the last snapshot for another.
    pub fn is_snapshot_due(&self) -> bool {
        self.position - self.snapshot_position >= SNAPSHOT_EVERY
    }

    /// Brings the snapshot to the present. Events are kept: they are the history. The engine must be
    /// the state after every appended event.
    pub fn snapshot(&mut self, engine: &mut Engine) -> Result<(), JournalError> {
        let (path, position) = (self.path.clone(), self.position);
        let body = engine.head().and_then(|head| Ok((head, engine.unsaved()?)));
        let (head, rows) =
            body.map_err(|source| JournalError::Damaged { path: path.clone(), position, source })?;
        let write = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            for (key, row) in &rows {
                write_row(&transaction, key, row)?;
            }
            transaction.execute(
                "INSERT OR REPLACE INTO snapshots (position, body) VALUES (?1, ?2)",
                params![integer(position), head],
            )?;
            transaction
                .execute("DELETE FROM snapshots WHERE position < ?1", params![integer(position)])?;
            transaction.commit()
        };
        write(&mut self.connection).map_err(|source| JournalError::database(&path, source))?;
        engine.mark_saved();
        self.snapshot_position = position;
        Ok(())
    }

    fn replay(&mut self) -> Result<Engine, JournalError> {
        let path = self.path.clone();
        let database = |source| JournalError::database(&path, source);
        let damaged = |position: u64| {
            let path = path.clone();
            move |source| JournalError::Damaged { path, position, source }
        };
        let found: Option<(i64, String)> = self
            .connection
            .query_row(
                "SELECT position, body FROM snapshots ORDER BY position DESC LIMIT 1",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()
            .map_err(database)?;
        let (mut position, mut engine) = match found {
            None => (0, Engine::default()),
            Some((position, head)) => {
                let position = position.unsigned_abs();
                let mut restoring = Restoring::new(&head).map_err(damaged(position))?;
                read_rows(&self.connection, |kind, row| match kind {
                    Kind::Experiment => restoring.experiment(row),
                    Kind::Trial => restoring.trial(row),
                    Kind::Decision => restoring.decision(row),
                })
                .map_err(database)?
                .map_err(damaged(position))?;
                (position, restoring.finish())
            }
        };
        self.snapshot_position = position;
        let mut statement = self
            .connection
            .prepare(
                "SELECT position, at_ms, body FROM events WHERE position > ?1 ORDER BY position",
            )
            .map_err(database)?;
        let mut rows = statement.query(params![integer(position)]).map_err(database)?;
        while let Some(row) = rows.next().map_err(database)? {
            let read = || -> rusqlite::Result<(i64, i64, String)> {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            };
            let (at_position, at, body) = read().map_err(database)?;
            position = at_position.unsigned_abs();
            let event: Event = serde_json::from_str(&body).map_err(damaged(position))?;
            // What was to be done has been done, or is found again by `Engine::outstanding`.
            let _actions = engine.apply(Timestamp(at.unsigned_abs()), event);
        }
        self.position = position;
        Ok(engine)
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Experiment,
    Trial,
    Decision,
}

fn write_row(connection: &Connection, key: &RowKey, row: &str) -> rusqlite::Result<usize> {
    match key {
        RowKey::Experiment(id) => connection
            .prepare_cached(
                "INSERT OR REPLACE INTO experiments (experiment, body) VALUES (?1, ?2)",
            )?
            .execute(params![id.as_str(), row]),
        RowKey::Trial(id) => connection
            .prepare_cached(
                "INSERT OR REPLACE INTO trials (experiment, number, body) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![id.experiment.as_str(), id.number, row]),
        RowKey::Decision(id, place) => connection
            .prepare_cached(
                "INSERT OR REPLACE INTO decisions (experiment, place, body) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![id.as_str(), integer(*place), row]),
    }
}

/// Hands out the rows of a snapshot: each experiment, then its trials and decisions in order.
fn read_rows(
    connection: &Connection,
    mut take: impl FnMut(Kind, &str) -> Result<(), serde_json::Error>,
) -> rusqlite::Result<Result<(), serde_json::Error>> {
    let mut experiments = connection.prepare("SELECT experiment, body FROM experiments")?;
    let mut trials =
        connection.prepare("SELECT body FROM trials WHERE experiment = ?1 ORDER BY number")?;
    let mut decisions =
        connection.prepare("SELECT body FROM decisions WHERE experiment = ?1 ORDER BY place")?;
    let mut rows = experiments.query([])?;
    while let Some(row) = rows.next()? {
        let id: String = row.get(0)?;
        if let Err(error) = take(Kind::Experiment, row.get_ref(1)?.as_str()?) {
            return Ok(Err(error));
        }
        for (kind, statement) in [(Kind::Trial, &mut trials), (Kind::Decision, &mut decisions)] {
            let mut rows = statement.query(params![id])?;
            while let Some(row) = rows.next()? {
                if let Err(error) = take(kind, row.get_ref(0)?.as_str()?) {
                    return Ok(Err(error));
                }
            }
        }
    }
    Ok(Ok(()))
}

/// SQLite knows signed integers only; positions and times stay far below the limit.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn prepare(connection: &Connection, path: &Path) -> Result<(), JournalError> {
    let database = |source| JournalError::database(path, source);
    connection.busy_timeout(Duration::from_secs(5)).map_err(database)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(database)?;
    // FULL: a decision that was acted upon survives a power cut, not only a killed process.
    connection.pragma_update(None, "synchronous", "FULL").map_err(database)?;
    let found: i64 =
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(database)?;
    if found > FORMAT {
        return Err(JournalError::Newer { path: path.to_owned(), found });
    }
    connection
        .execute_batch(
            "CREATE TABLE IF NOT EXISTS events (
                 position INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, body TEXT NOT NULL);
             CREATE TABLE IF NOT EXISTS snapshots (
                 position INTEGER PRIMARY KEY, body TEXT NOT NULL);
             CREATE TABLE IF NOT EXISTS experiments (experiment TEXT PRIMARY KEY, body TEXT NOT NULL);
             CREATE TABLE IF NOT EXISTS trials (
                 experiment TEXT NOT NULL, number INTEGER NOT NULL, body TEXT NOT NULL,
                 PRIMARY KEY (experiment, number)) WITHOUT ROWID;
             CREATE TABLE IF NOT EXISTS decisions (
                 experiment TEXT NOT NULL, place INTEGER NOT NULL, body TEXT NOT NULL,
                 PRIMARY KEY (experiment, place)) WITHOUT ROWID;",
        )
        .map_err(database)?;
    connection.pragma_update(None, "user_version", FORMAT).map_err(database)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(name: &str) -> (Timestamp, Event) {
        let worker = name.parse().unwrap();
        (Timestamp(1), Event::WorkerJoined { worker, host: "here".to_owned(), token_name: None })
    }

    #[test]
    fn what_was_appended_is_replayed_with_and_without_snapshots() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, mut engine) = Journal::open(directory.path()).unwrap();
        journal.append(&[join("a"), join("b")]).unwrap();
        for (at, event) in [join("a"), join("b")] {
            engine.apply(at, event);
        }
        drop(journal);
        let (mut journal, replayed) = Journal::open(directory.path()).unwrap();
        assert_eq!(replayed, engine);
        journal.snapshot(&mut engine).unwrap();
        journal.append(&[join("c")]).unwrap();
        engine.apply(Timestamp(1), join("c").1);
        drop(journal);
        let (journal, replayed) = Journal::open(directory.path()).unwrap();
        assert_eq!((replayed, journal.position()), (engine, 3));
    }

    #[test]
    fn a_journal_of_the_format_before_is_read_and_written_on() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, mut engine) = Journal::open(directory.path()).unwrap();
        journal.append(&[join("a")]).unwrap();
        engine.apply(Timestamp(1), join("a").1);
        journal.connection.pragma_update(None, "user_version", 1).unwrap();
        // A snapshot of a build that knew neither rules nor gangs.
        let mut old = serde_json::to_value(&engine).unwrap();
        let fields = old.as_object_mut().unwrap();
        for new in ["hosts", "last_loss", "clock", "rules"] {
            fields.remove(new).unwrap();
        }
        let insert = "INSERT INTO snapshots (position, body) VALUES (1, ?1)";
        journal.connection.execute(insert, params![old.to_string()]).unwrap();
        drop(journal);
        let (mut journal, replayed) = Journal::open(directory.path()).unwrap();
        assert_eq!((replayed.rules(), replayed.workers()), (0, engine.workers()));
        let adopted = (Timestamp(2), Event::RulesAdopted { rules: crate::engine::RULES });
        journal.append(&[adopted]).unwrap();
        drop(journal);
        let (_, replayed) = Journal::open(directory.path()).unwrap();
        assert_eq!(replayed.rules(), crate::engine::RULES);
    }

    #[test]
    fn a_second_owner_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let _first = Journal::open(directory.path()).unwrap();
        assert!(matches!(Journal::open(directory.path()), Err(JournalError::Locked { .. })));
    }

    #[test]
    fn damage_and_newer_formats_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _engine) = Journal::open(directory.path()).unwrap();
        journal.append(&[join("a")]).unwrap();
        journal.connection.execute("UPDATE events SET body = '{\"x\":'", []).unwrap();
        drop(journal);
        let error = Journal::open(directory.path()).unwrap_err();
        assert!(error.to_string().contains("position 1"), "{error}");
        let connection = Connection::open(directory.path().join("journal.db")).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        assert!(matches!(Journal::open(directory.path()), Err(JournalError::Newer { .. })));
    }
}
