//! The `data` section: where examples come from, what is held out, what becomes of bad rows.

use super::TrainingObjective;
use super::hub::HubName;
use super::label::read_label;
use super::reader::{Field, Section};
use super::section::{BUDGET_MAX, optional, optional_or, read_names};
use super::settings::written;
use super::source::{
    DataSettings, Delimiter, Holdout, HubSet, Hygiene, NearDuplicates, Policy, Source, SourceFormat,
};
use crate::storage::holds_secret;

pub(super) fn read_data(field: &Field<'_>, objective: TrainingObjective) -> Option<DataSettings> {
    let section = field.section()?;
    let train = section.require("train", "{path: FILE}").and_then(|field| read_source(&field));
    let validation =
        section.require("validation", "{fraction: 0.1}").and_then(|field| read_holdout(&field));
    let test = optional_or(section.get("test"), Holdout::Absent, |field| read_holdout(&field));
    let text = section.require("text", "COLUMN").and_then(|field| field.text());
    let pair = section.get("text_pair");
    let text_pair = optional(pair.clone(), |field| Some(Some(field.text()?.to_owned())));
    let label = match objective {
        TrainingObjective::Classification => section
            .require("label", "{column: COLUMN}")
            .and_then(|field| read_label(&field).map(Some)),
        _ => optional(section.get("label"), |field| unused(&field, objective)),
    };
    if let Some(pair) = pair.filter(|_| objective.pairs_sentences()) {
        unused::<()>(&pair, objective);
    }
    let hygiene =
        optional_or(section.get("hygiene"), Hygiene::default(), |field| read_hygiene(&field));
    section.finish();
    Some(DataSettings {
        train: train?,
        validation: validation?,
        test: test?,
        text: text?.to_owned(),
        text_pair: text_pair?,
        label: label?,
        hygiene: hygiene?,
    })
}

#[expect(clippy::option_option, reason = "what a reader of an optional value gives")]
fn unused<T>(field: &Field<'_>, objective: TrainingObjective) -> Option<Option<T>> {
    let message = format!("the objective `{}` makes no use of it", objective.name());
    field.refuse_mend(message, "remove it");
    None
}

#[derive(Clone, Copy)]
enum FormatName {
    Csv,
    Tsv,
    JsonLines,
    Parquet,
    Text,
    Glue,
    AclImdb,
}

const FORMATS: &[(&str, FormatName)] = &[
    ("csv", FormatName::Csv),
    ("tsv", FormatName::Tsv),
    ("jsonl", FormatName::JsonLines),
    ("parquet", FormatName::Parquet),
    ("text", FormatName::Text),
    ("glue", FormatName::Glue),
    ("aclimdb", FormatName::AclImdb),
];

/// Endings that say how a file is read.
const ENDINGS: &[(&str, FormatName)] = &[
    ("csv", FormatName::Csv),
    ("tsv", FormatName::Tsv),
    ("jsonl", FormatName::JsonLines),
    ("parquet", FormatName::Parquet),
    ("txt", FormatName::Text),
];

/// Endings of compressed files, to be taken off first.
const COMPRESSIONS: [&str; 2] = [".gz", ".zst"];

fn read_source(field: &Field<'_>) -> Option<Source> {
    let section = field.section()?;
    let hub = section.get("hub");
    let source = match &hub {
        Some(hub) => read_hub(&section, hub),
        None => read_files(&section),
    };
    section.finish();
    source
}

/// A data set of a hub.
fn read_hub(section: &Section<'_>, hub: &Field<'_>) -> Option<Source> {
    let text = hub.text();
    let config = optional(section.get("config"), |field| Some(Some(field.text()?.to_owned())));
    let split = optional(section.get("split"), |field| Some(Some(field.text()?.to_owned())));
    for key in ["path", "format", "columns"] {
        if let Some(field) = section.get(key) {
            let mend =
                "remove it: the files of a data set on a hub are Parquet, with names of their own";
            field.refuse_mend("stands beside `hub`", mend);
            return None;
        }
    }
    let text = text?;
    let Some(name) = HubName::parse(text) else {
        hub.refuse_mend(
            format!("`{text}` is no name on a hub"),
            "write for example stanfordnlp/sst2",
        );
        return None;
    };
    let hub = Some(HubSet { name, config: config?, split: split? });
    Some(Source { paths: Vec::new(), hub, format: SourceFormat::Parquet })
}

fn read_files(section: &Section<'_>) -> Option<Source> {
    let place = section.require("path", "FILE");
    let paths = place.as_ref().and_then(|place| {
        if place.is_list() {
            return read_names(place);
        }
        place.text().map(|path| vec![path.to_owned()])
    });
    if let Some(place) = &place
        && paths.iter().flatten().any(|path| holds_secret(path))
    {
        // The manifest is kept and shown: what it says must not be repeated here either.
        let mend =
            "take it out, and set AWS_ACCESS_KEY_ID and the like where muster and its workers run";
        place.refuse_mend("a URL here holds a credential", mend);
        return None;
    }
    let named = optional(section.get("format"), |field| field.choice(FORMATS).map(Some));
    let written_columns = section.get("columns");
    let columns = optional(written_columns.clone(), |field| read_names(&field).map(Some));
    let (place, paths, named, columns) = (place?, paths?, named?, columns?);
    let format = match named {
        Some(format) => format,
        None => format_of(&place, &paths)?,
    };
    let delimited = |delimiter| SourceFormat::Delimited { delimiter, columns: columns.clone() };
    let format = match format {
        FormatName::Csv => delimited(Delimiter::Comma),
        FormatName::Tsv => delimited(Delimiter::Tab),
        FormatName::JsonLines => SourceFormat::JsonLines,
        FormatName::Parquet => SourceFormat::Parquet,
        FormatName::Text => SourceFormat::Text,
        FormatName::Glue => SourceFormat::Glue,
        FormatName::AclImdb => SourceFormat::AclImdb,
    };
    if let Some(columns) =
        written_columns.filter(|_| !matches!(format, SourceFormat::Delimited { .. }))
    {
        columns.refuse_mend("only csv and tsv files without a header have `columns`", "remove it");
        return None;
    }
    let is_folder = matches!(format, SourceFormat::Glue | SourceFormat::AclImdb);
    if is_folder && (paths.len() != 1 || paths.iter().any(|path| Source::is_pattern(path))) {
        place.refuse_mend("this format is one folder", "write the path of the folder");
        return None;
    }
    if let Some(url) = paths.iter().find(|path| is_folder && Source::is_url(path)) {
        let message = format!("a folder of this format must lie on this machine, not at `{url}`");
        place.refuse_mend(message, "fetch it, or name its files with the format they have");
        return None;
    }
    Some(Source { paths, hub: None, format })
}

/// What the endings of the paths say, which must say the same.
fn format_of(place: &Field<'_>, paths: &[String]) -> Option<FormatName> {
    let mut found: Option<(&str, FormatName)> = None;
    for path in paths {
        let lower = Source::split_options(path).0.to_ascii_lowercase();
        let plain = COMPRESSIONS.iter().find_map(|ending| lower.strip_suffix(ending));
        let ending = plain.unwrap_or(&lower).rsplit('.').next().unwrap_or_default();
        let Some((name, format)) = ENDINGS.iter().find(|(name, _)| *name == ending) else {
            let message = format!("the ending of `{path}` does not say how to read it");
            let names: Vec<&str> = FORMATS.iter().map(|(name, _)| *name).collect();
            let mend = format!("add `format:`, one of {}", names.join(", "));
            place.refuse_mend(message, mend);
            return None;
        };
        if let Some((other, _)) = found.filter(|(other, _)| other != name) {
            let message = format!("some of the files are {other}, some {name}");
            place.refuse_mend(message, "all files of a split have one format");
            return None;
        }
        found = Some((name, *format));
    }
    found.map(|(_, format)| format)
}

fn read_holdout(field: &Field<'_>) -> Option<Holdout> {
    if !field.is_mapping() {
        let message = format!("expected a mapping, found {}", field.describe());
        field.refuse_mend(message, "write for example {fraction: 0.1}");
        return None;
    }
    let section = field.section()?;
    let examples = section.get("examples");
    let fraction = section.get("fraction");
    let path = section.get("path");
    let hub = section.get("hub");
    let is_source = path.is_some() || hub.is_some();
    if !is_source {
        section.finish();
    }
    let given = [examples.is_some(), fraction.is_some(), is_source];
    if given.into_iter().filter(|given| *given).count() != 1 {
        let message = "expected exactly one of `examples`, `fraction`, `path` and `hub`";
        field.refuse_mend(message, "write for example {fraction: 0.1}");
        return None;
    }
    if is_source {
        return read_source(field).map(Holdout::Source);
    }
    match (examples, fraction) {
        (Some(field), _) => field.whole(1, BUDGET_MAX).map(Holdout::Count),
        (None, Some(field)) => field.number().and_then(|share| {
            if share > 0.0 && share < 1.0 {
                return Some(Holdout::Fraction(share));
            }
            field.refuse(format!("{} lies outside 0 to 1, both exclusive", written(share)));
            None
        }),
        (None, None) => None,
    }
}

const KEEP: (&str, Policy) = ("keep", Policy::Keep);
const DROP: (&str, Policy) = ("drop", Policy::Drop);
const REFUSE: (&str, Policy) = ("refuse", Policy::Refuse);

fn read_hygiene(field: &Field<'_>) -> Option<Hygiene> {
    let section = field.section()?;
    let default = Hygiene::default();
    let policy = |key, default, choices: &[(&str, Policy)]| {
        optional_or(section.get(key), default, |field| field.choice(choices))
    };
    let any = [KEEP, DROP, REFUSE];
    let duplicates = policy("duplicates", default.duplicates, &any);
    let leaks = policy("leaks", default.leaks, &any);
    let near_leaks = policy("near_leaks", default.near_leaks, &any);
    let near = section.get("near_duplicates");
    let near_duplicates = optional_or(near.clone(), default.near_duplicates, |field| {
        let choices = [("together", NearDuplicates::Together), ("ignore", NearDuplicates::Ignore)];
        field.choice(&choices)
    });
    // A text that is not there and a class that does not exist cannot be kept.
    let empty = policy("empty", default.empty, &[DROP, REFUSE]);
    let unknown_labels = policy("unknown_labels", default.unknown_labels, &[DROP, REFUSE]);
    let bad_utf8 = policy("bad_utf8", default.bad_utf8, &any);
    section.finish();
    let hygiene = Hygiene {
        duplicates: duplicates?,
        leaks: leaks?,
        near_leaks: near_leaks?,
        near_duplicates: near_duplicates?,
        empty: empty?,
        unknown_labels: unknown_labels?,
        bad_utf8: bad_utf8?,
    };
    let looked_for = hygiene.near_duplicates == NearDuplicates::Together;
    if let Some(near) = near.filter(|_| !looked_for && hygiene.near_leaks != Policy::Keep) {
        let message = "`near_leaks` can be found only where near duplicates are looked for";
        near.refuse_mend(message, "write `near_duplicates: together`");
        return None;
    }
    Some(hygiene)
}
