//! One log format for every process: `tracing` to standard error, for people or as JSON.
//!
//! A JSON line is one flat object: `timestamp`, `level`, `process`, `target`, `message`, the event's own fields,
//! and those of the spans around it, of which the inner ones win. Whatever belongs to a run has
//! `experiment`, `trial` (unless the run has none), `run` and `rank`; what belongs to a step has `step`.

use std::collections::VecDeque;
use std::fmt::{self, Debug};
use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Span, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormattedFields};
use tracing_subscriber::registry::{LookupSpan, Scope};

use crate::id::{ExperimentId, Generation, TrialId};
use crate::run::RunSpec;

/// The environment variable that tells workers the format.
pub const FORMAT_VARIABLE: &str = "MUSTER_LOG_FORMAT";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One readable line per record.
    #[default]
    Text,
    /// One JSON object per record.
    Json,
}

impl LogFormat {
    /// As settings spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }

    /// The format of this process: what [`FORMAT_VARIABLE`] says, else text.
    pub fn of_environment() -> Self {
        let json = std::env::var(FORMAT_VARIABLE).is_ok_and(|name| name == Self::Json.name());
        if json { Self::Json } else { Self::Text }
    }
}

/// Installs the subscriber of this process, which lines call `process`. `filter` is in `EnvFilter` syntax, for
/// example `info` or `muster_coordinator=debug`. A second call changes nothing.
pub fn install(process: &'static str, filter: &str, format: LogFormat) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // Whatever is logged of a run names it. What the client of hubs says of its tries, who calls it says too.
    let directives = ["muster::run=error", "hf_hub::retry=off"].map(str::parse);
    let filter = directives.into_iter().flatten().fold(filter, EnvFilter::add_directive);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Tee);
    let installed = match format {
        LogFormat::Text => {
            builder.with_ansi(io::stderr().is_terminal()).with_target(false).try_init()
        }
        LogFormat::Json => builder
            .with_ansi(false)
            .fmt_fields(JsonFields::new())
            .event_format(JsonLines { process })
            .try_init(),
    };
    match (installed, format) {
        (Err(_), _) => tracing::debug!("a log subscriber is installed already"),
        // A panic is a line like any other.
        (Ok(()), LogFormat::Json) => std::panic::set_hook(Box::new(|info| {
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            let payload = info.payload();
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
            let message = text.unwrap_or("no message");
            tracing::error!(place, "panic: {message}");
        })),
        (Ok(()), LogFormat::Text) => {}
    }
}

/// An error and its causes on one line, none said twice: clients of stores and hubs repeat what has caused theirs.
pub fn one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let own = error.to_string();
        if !text.contains(&own) {
            text = format!("{text}: {own}");
        }
        cause = error.source();
    }
    text
}

/// Lines that [`recent_lines`] holds back at most.
const RECENT_MAX: usize = 4096;

static RECENT: Mutex<Option<VecDeque<String>>> = Mutex::new(None);

/// Standard error, and a copy for whoever keeps the lines of this process.
struct Tee;

impl io::Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(recent) = &mut *RECENT.lock().unwrap_or_else(PoisonError::into_inner) {
            if recent.len() == RECENT_MAX {
                recent.pop_front();
            }
            recent.push_back(without_colors(&String::from_utf8_lossy(bytes)));
        }
        // Where nobody reads standard error any more, nobody can be told; the work goes on.
        let _unheard = io::stderr().write_all(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Without the escape sequences that color text on a terminal.
fn without_colors(text: &str) -> String {
    let mut pieces = text.split('\u{1b}');
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        plain += piece.split_once('m').map_or(piece, |(_, after)| after);
    }
    plain
}

/// From now on lines of this process are held for [`recent_lines`]; called before [`install`].
pub fn hold_lines() {
    let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    recent.get_or_insert_default();
}

/// Lines that this process has logged since the last call, oldest first, if [`hold_lines`] was called; of
/// very many the newest.
pub fn recent_lines() -> Vec<String> {
    let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    recent.as_mut().map(|lines| lines.drain(..).collect()).unwrap_or_default()
}

/// Now, as log lines say it: RFC 3339, UTC, microseconds.
pub fn timestamp() -> String {
    let mut now = String::new();
    // Writing to a string does not fail.
    let _written = SystemTime.format_time(&mut Writer::new(&mut now));
    now
}

/// What lines about a run name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunIds {
    /// For whom.
    pub experiment: ExperimentId,
    /// For which trial, if for one.
    pub trial: Option<TrialId>,
    /// Which.
    pub run: Generation,
    /// The rank that the process has in it.
    pub rank: u32,
}

impl RunIds {
    /// Of a run as a worker is told of it.
    pub fn of(spec: &RunSpec) -> Self {
        Self {
            experiment: spec.experiment.clone(),
            trial: spec.task.trial().cloned(),
            run: spec.generation,
            rank: spec.gang.as_ref().map_or(0, |gang| gang.rank),
        }
    }

    /// The span of everything that is done for the run.
    pub fn span(&self) -> Span {
        // Of the highest level, so that warnings name the run even where nothing else is logged.
        tracing::error_span!(
            target: "muster::run",
            "run",
            experiment = %self.experiment,
            trial = self.trial.as_ref().map(|trial| trial.number),
            run = self.run.0,
            rank = self.rank,
        )
    }
}

/// The run that a line of either format names, if it names one.
pub fn named_run(line: &str) -> Option<Generation> {
    let line = without_colors(line);
    if line.starts_with('{') {
        let object: Map<String, Value> = serde_json::from_str(&line).ok()?;
        return object.get("run")?.as_u64().map(Generation);
    }
    // Of the spans before the message: `run{experiment=demo-1 trial=3 run=17 rank=0}: ...`.
    let (_, fields) = line.split_once("run{")?;
    let (fields, _) = fields.split_once('}')?;
    let number = fields.split(' ').find_map(|field| field.strip_prefix("run="))?;
    number.parse().ok().map(Generation)
}

/// A line that a library wrote to standard error, as one of `format`: JSON if it is not already.
pub fn foreign_line(
    process: &str,
    ids: Option<&RunIds>,
    line: String,
    format: LogFormat,
) -> String {
    let is_object = || serde_json::from_str::<Map<String, Value>>(&line).is_ok();
    if format == LogFormat::Text || is_object() {
        return line;
    }
    let mut object = heading("INFO", process, "stderr");
    if let Some(ids) = ids {
        object.insert("experiment".to_owned(), ids.experiment.as_str().into());
        if let Some(trial) = &ids.trial {
            object.insert("trial".to_owned(), trial.number.into());
        }
        object.insert("run".to_owned(), ids.run.0.into());
        object.insert("rank".to_owned(), ids.rank.into());
    }
    object.insert("message".to_owned(), line.into());
    Value::Object(object).to_string()
}

fn heading(level: &str, process: &str, target: &str) -> Map<String, Value> {
    let now = timestamp();
    let mut object = Map::new();
    for (name, value) in
        [("timestamp", now.as_str()), ("level", level), ("process", process), ("target", target)]
    {
        object.insert(name.to_owned(), value.into());
    }
    object
}

/// One flat JSON object per event.
struct JsonLines {
    process: &'static str,
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> tracing_subscriber::fmt::FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let mut object = heading(metadata.level().as_str(), self.process, metadata.target());
        for span in context.event_scope().into_iter().flat_map(Scope::from_root) {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<N>>();
            let fields = fields.and_then(|fields| serde_json::from_str(&fields.fields).ok());
            object.extend::<Map<String, Value>>(fields.unwrap_or_default());
        }
        event.record(&mut Fields(&mut object));
        writeln!(writer, "{}", Value::Object(object))
    }
}

/// Collects the fields of an event.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON knows no infinity.
        let number = serde_json::Number::from_f64(value).map(Value::Number);
        self.put(field, number.unwrap_or_else(|| value.to_string().into()));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, one_line(value));
    }
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn ids() -> RunIds {
        let experiment: ExperimentId = "demo-1".parse().unwrap();
        let trial = Some(TrialId { experiment: experiment.clone(), number: 3 });
        RunIds { experiment, trial, run: Generation(17), rank: 1 }
    }

    #[test]
    fn lines_of_both_formats_name_their_run() {
        let sink = Sink::default();
        let lines = sink.clone();
        let text = tracing_subscriber::fmt().with_target(false).with_writer(move || lines.clone());
        tracing::subscriber::with_default(text.finish(), || {
            tracing::warn!("run=4");
            ids().span().in_scope(|| tracing::warn!("an example {{run=5}}"));
        });
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let named: Vec<_> = text.lines().map(named_run).collect();
        assert_eq!(named, [None, Some(Generation(17))], "{text}");
        let json = |ids: Option<&RunIds>| {
            foreign_line("runner", ids, "a line".to_owned(), LogFormat::Json)
        };
        assert_eq!(named_run(&json(Some(&ids()))), Some(Generation(17)));
        assert_eq!(named_run(&json(None)), None);
    }

    #[test]
    fn a_line_is_one_flat_object_with_the_fields_of_its_spans() {
        let sink = Sink::default();
        let lines = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(JsonFields::new())
            .event_format(JsonLines { process: "runner" })
            .with_writer(move || lines.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let _run = ids().span().entered();
            let _step = tracing::error_span!("save", step = 7u64).entered();
            tracing::warn!(rate = f64::NAN, list = ?[1, 2], "two\nlines of \"text\"");
        });
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: Value = serde_json::from_str(&text).unwrap();
        let expected = serde_json::json!({
            "timestamp": line["timestamp"], "level": "WARN", "process": "runner",
            "target": line["target"], "message": "two\nlines of \"text\"", "experiment": "demo-1",
            "trial": 3, "run": 17, "rank": 1, "step": 7, "rate": "NaN", "list": "[1, 2]",
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn colors_are_taken_out() {
        let line = "\u{1b}[2m2026-01-01\u{1b}[0m \u{1b}[32m INFO\u{1b}[0m ready\n";
        assert_eq!(without_colors(line), "2026-01-01  INFO ready\n");
    }

    #[test]
    fn lines_of_libraries_become_json_where_that_is_wanted() {
        let plain = "[W123] a warning".to_owned();
        assert_eq!(foreign_line("runner", None, plain.clone(), LogFormat::Text), plain);
        let wrapped = foreign_line("runner", Some(&ids()), plain.clone(), LogFormat::Json);
        let line: Value = serde_json::from_str(&wrapped).unwrap();
        assert_eq!((line["message"].as_str(), line["run"].as_u64()), (Some(&*plain), Some(17)));
        assert_eq!(foreign_line("runner", None, wrapped.clone(), LogFormat::Json), wrapped);
    }

    #[test]
    fn causes_are_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot write: {source}")]
        struct Repeating {
            source: io::Error,
        }
        #[derive(Debug, thiserror::Error)]
        #[error("no checkpoint")]
        struct Outer {
            source: Repeating,
        }
        let error = Outer { source: Repeating { source: io::Error::other("the disk is full") } };
        assert_eq!(one_line(&error), "no checkpoint: cannot write: the disk is full");
    }
}
