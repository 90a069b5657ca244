//! `muster checkpoints`: what lies in the store. Needs no coordinator, only the store's URL and credentials.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use muster_common::count::counted;
use muster_common::id::{ExperimentId, TrialId};
use muster_common::storage::{
    BegunUpload, CheckpointKey, FoundCheckpoint, Garbage, Layout, Scope, Store, StoreError, garbage,
};
use muster_common::time::Timestamp;
use serde_json::{Value, json};

use super::args::{CheckpointsCommand, StoreArguments};
use super::exit::{Exit, Misuse};
use super::number::{bytes, clock};
use crate::settings::Settings;

pub(super) async fn checkpoints(command: CheckpointsCommand) -> anyhow::Result<Exit> {
    match command {
        CheckpointsCommand::Ls { subject, json, store } => {
            list(&open(&store).await?, subject.as_deref(), json).await
        }
        CheckpointsCommand::Verify { subject, json, store } => {
            verify(&open(&store).await?, subject.as_deref(), json).await
        }
        CheckpointsCommand::Get { checkpoint, directory, json, store } => {
            get(&open(&store).await?, &checkpoint.parse()?, &directory, json).await
        }
        CheckpointsCommand::Rm { checkpoint, force, json, store } => {
            remove(&open(&store).await?, &checkpoint.parse()?, force, json).await
        }
        CheckpointsCommand::Gc { dry_run, older_than_hours, json, store } => {
            let grace = Duration::from_secs(3600 * u64::from(older_than_hours));
            sweep(&open(&store).await?, grace, dry_run, json).await
        }
    }
}

/// The store that the arguments or the settings name, which is there and answers.
pub(super) async fn open(arguments: &StoreArguments) -> anyhow::Result<Store> {
    let settings = Settings::load(&arguments.settings(), std::env::vars())?;
    let url = settings.store_url()?;
    if let Some(directory) = settings.local_store()
        && !directory.is_dir()
    {
        let message = format!("there is no store at {}; name it with --store", directory.display());
        return Err(Misuse(message).into());
    }
    Ok(Store::open_checked(&url).await?)
}

/// All, an experiment's, a trial's, or one.
async fn find(store: &Store, subject: Option<&str>) -> anyhow::Result<Vec<FoundCheckpoint>> {
    let Some(text) = subject else { return Ok(store.checkpoints(&Scope::Store).await?) };
    if let Ok(experiment) = text.parse::<ExperimentId>() {
        return Ok(store.checkpoints(&Scope::Experiment(experiment)).await?);
    }
    if let Ok(trial) = text.parse::<TrialId>() {
        return Ok(store.checkpoints(&Scope::Trial(trial)).await?);
    }
    Ok(vec![find_one(store, &text.parse()?).await?])
}

async fn find_one(store: &Store, key: &CheckpointKey) -> anyhow::Result<FoundCheckpoint> {
    let of_trial = store.checkpoints(&Scope::Trial(key.trial.clone())).await?;
    let found = of_trial.into_iter().find(|found| found.key == *key);
    found.with_context(|| {
        format!(
            "no checkpoint {} in {}; `muster checkpoints ls` lists them",
            key.name(),
            store.url()
        )
    })
}

fn described(found: &FoundCheckpoint) -> Value {
    let index = found.index.as_ref();
    json!({
        "checkpoint": found.key.name(),
        "trial": found.key.trial.to_string(),
        "step": found.key.step,
        "generation": found.key.generation.0,
        "bytes": found.bytes(),
        "modified_at_ms": found.modified_at().0,
        "created_at_ms": index.ok().map(|index| index.created_at.0),
        "parent": index.ok().and_then(|index| index.parent.as_ref()).map(CheckpointKey::name),
        "parts": index.map(|index| index.parts.iter().map(|part| json!({
            "name": part.name, "bytes": part.bytes, "sha256": part.sha256.as_str(),
        })).collect::<Vec<_>>()).unwrap_or_default(),
        "error": found.index.as_ref().err().map(ToString::to_string),
    })
}

fn print_json(value: &Value) {
    println!("{value:#}");
}

async fn list(store: &Store, subject: Option<&str>, as_json: bool) -> anyhow::Result<Exit> {
    let found = find(store, subject).await?;
    if as_json {
        print_json(&Value::Array(found.iter().map(described).collect()));
        return Ok(Exit::Done);
    }
    let now = Timestamp::now();
    let width = found.iter().map(|found| found.key.name().len()).max().unwrap_or(0);
    let mut text = String::new();
    for found in &found {
        let age = clock(now.since(found.modified_at()).as_secs_f64());
        let from = match &found.index {
            Ok(index) => match &index.parent {
                Some(parent) => format!("from {}", parent.name()),
                None => "from the beginning".to_owned(),
            },
            Err(error) => format!("unusable: {error}"),
        };
        // Writing to a string does not fail.
        let _written = writeln!(
            text,
            "{:width$}  {:>9}  {age:>9} ago  {from}",
            found.key.name(),
            bytes(found.bytes())
        );
    }
    print!("{text}");
    if found.is_empty() {
        eprintln!("no checkpoints in {}", store.url());
    }
    Ok(Exit::Done)
}

async fn verify(store: &Store, subject: Option<&str>, as_json: bool) -> anyhow::Result<Exit> {
    let mut verdicts = Vec::new();
    let mut is_whole = true;
    let all = find(store, subject).await?;
    if all.is_empty() {
        let of = subject.map_or_else(String::new, |subject| format!(" of {subject}"));
        eprintln!("no checkpoints{of} in {}", store.url());
    }
    for found in all {
        let wrong = store.verify_checkpoint(&found).await?;
        is_whole &= wrong.is_empty();
        if as_json {
            verdicts.push(json!({
                "checkpoint": found.key.name(), "ok": wrong.is_empty(), "wrong": wrong,
            }));
        } else if wrong.is_empty() {
            println!("ok     {}", found.key.name());
        } else {
            for wrong in wrong {
                println!("wrong  {}  {wrong}", found.key.name());
            }
        }
    }
    if as_json {
        print_json(&Value::Array(verdicts));
    }
    Ok(if is_whole { Exit::Done } else { Exit::Failed })
}

/// Writes the verified parts of a checkpoint into a new directory, the index last.
async fn get(
    store: &Store,
    key: &CheckpointKey,
    directory: &Path,
    as_json: bool,
) -> anyhow::Result<Exit> {
    let found = find_one(store, key).await?;
    let index = found.index.as_ref().map_err(Clone::clone)?;
    let place = directory.display();
    if directory.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{place} is not empty; name another directory");
    }
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {place}"))?;
    for part in &index.parts {
        let from = key.part(&part.name);
        let content = store.get_large(&from, part.bytes).await?;
        index.verify(&part.name, &content)?;
        let file = directory.join(from.filename().unwrap_or_default());
        std::fs::write(&file, &content)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    let file = directory.join("index.json");
    std::fs::write(&file, store.get(&key.index()).await?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    if as_json {
        print_json(&described(&found));
    } else {
        let parts = counted(index.parts.len(), "part");
        println!("{parts}, {}, in {place}", bytes(found.bytes()));
    }
    Ok(Exit::Done)
}

async fn remove(
    store: &Store,
    key: &CheckpointKey,
    force: bool,
    as_json: bool,
) -> anyhow::Result<Exit> {
    let found = find_one(store, key).await?;
    let of_trial = store.checkpoints(&Scope::Trial(key.trial.clone())).await?;
    let whole = of_trial.iter().filter(|found| found.index.is_ok());
    let newest = whole.max_by_key(|found| (found.key.generation, found.key.step));
    if !force && newest.is_some_and(|newest| newest.key == *key) {
        bail!(
            "{} is the newest of its trial, which would go on from an earlier one or not at all; \
             --force deletes it all the same",
            key.name()
        );
    }
    store.delete_checkpoint(key).await?;
    if as_json {
        print_json(&json!([described(&found)]));
    } else {
        println!("deleted {}, {}", key.name(), bytes(found.bytes()));
    }
    Ok(Exit::Done)
}

/// Deletes what nobody follows, or says what that would be.
async fn sweep(
    store: &Store,
    grace: Duration,
    dry_run: bool,
    as_json: bool,
) -> anyhow::Result<Exit> {
    let found = store.checkpoints(&Scope::Store).await?;
    let mut swept = Vec::new();
    let mut num_bytes = 0;
    for (found, why) in garbage(&found, Timestamp::now(), grace) {
        if !dry_run {
            delete_unless_written(store, found).await?;
        }
        num_bytes += found.bytes();
        let why = match why {
            Garbage::Unfinished => "parts without an index",
            Garbage::Superseded => "its trial went on from an earlier step",
        };
        let mut value = described(found);
        value["reason"] = json!(why);
        swept.push(value);
        if !as_json {
            println!("{}  {}  {why}", found.key.name(), bytes(found.bytes()));
        }
    }
    let uploads = sweep_uploads(store, grace, dry_run).await?;
    num_bytes += uploads.iter().filter_map(|upload| upload.bytes).sum::<u64>();
    let done = if dry_run { "would be deleted" } else { "deleted" };
    if as_json {
        let uploads: Vec<_> = uploads.iter().map(upload_json).collect();
        print_json(&json!({
            "dry_run": dry_run, "bytes": num_bytes, "checkpoints": swept, "uploads": uploads,
        }));
    } else {
        for upload in &uploads {
            let size = upload.bytes.map_or_else(|| "size unknown".to_owned(), bytes);
            println!("{}  {size}  an upload that was never ended", upload.key);
        }
        println!(
            "{} of {} and {}, {} {done}",
            swept.len(),
            counted(found.len(), "checkpoint"),
            counted(uploads.len(), "upload"),
            bytes(num_bytes)
        );
    }
    Ok(Exit::Done)
}

/// Gives up uploads that were begun longer than `grace` ago and never ended; gives those.
async fn sweep_uploads(
    store: &Store,
    grace: Duration,
    dry_run: bool,
) -> anyhow::Result<Vec<BegunUpload>> {
    let found = store.begun_uploads(&Layout::experiments()).await?.unwrap_or_default();
    let now = Timestamp::now();
    let old = found.into_iter().filter(|upload| now.since(upload.begun_at) > grace);
    let old: Vec<BegunUpload> = old.collect();
    for upload in old.iter().filter(|_| !dry_run) {
        store.give_up_upload(upload).await?;
    }
    Ok(old)
}

fn upload_json(upload: &BegunUpload) -> Value {
    json!({"key": upload.key.to_string(), "bytes": upload.bytes, "begun_at_ms": upload.begun_at.0})
}

/// A checkpoint that had no index may have been finished since it was listed.
async fn delete_unless_written(store: &Store, found: &FoundCheckpoint) -> Result<(), StoreError> {
    if found.index.is_err() && store.find(&found.key.index()).await?.is_some() {
        return Ok(());
    }
    store.delete_checkpoint(&found.key).await
}
