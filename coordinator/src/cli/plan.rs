//! `muster plan`: what an experiment will do, before anything is spent.

use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::Context;
use muster_common::count::counted;
use muster_common::manifest::{
    Budget, Holdout, LabelRule, Manifest, Source, SourceFormat, TrainingObjective,
};
use muster_common::model::{DirectoryError, ModelConfig, Shapes, read_shapes, trained};
use serde_json::{Value, json};

use super::args::PlanArguments;
use super::exit::{Exit, Misuse};
use super::number::clock;
use super::validate::read;
use crate::plan::{Plan, Premises, RungPlan, plan as rehearse};
use crate::plan_bytes::{PlannedBytes, planned_bytes};

/// Classes where only the data says how many there are.
const CLASSES_ASSUMED: u64 = 2;

pub(super) fn plan(arguments: &PlanArguments) -> anyhow::Result<Exit> {
    let manifest = read(&arguments.manifest)?.manifest;
    let mut notes = Vec::new();
    let num_train = match arguments.train_examples {
        Some(num_train) => num_train,
        None => num_train(&manifest, &mut notes)?,
    };
    let premises = Premises {
        num_slots: arguments.slots.unwrap_or_else(|| manifest.resources.slots.max()),
        num_train,
        examples_per_second: arguments.examples_per_second,
    };
    if premises.examples_per_second.is_some_and(|rate| !(rate.is_finite() && rate > 0.0)) {
        return Err(Misuse("--examples-per-second must be above 0".to_owned()).into());
    }
    let found = rehearse(&manifest, &premises)?;
    notes.extend(found.doubts.iter().cloned());
    let trained = parameters(&manifest, &mut notes);
    let bytes =
        trained.map(|trained| planned_bytes(&manifest, premises.num_train, &trained, &found));
    if arguments.json {
        println!("{:#}", described(&manifest, (&found, bytes), &premises, &notes));
        return Ok(Exit::Done);
    }
    println!("{}", describe(&manifest, (&found, bytes), &premises));
    for note in notes {
        println!("about: {note}");
    }
    Ok(Exit::Done)
}

/// The same for programs. Without a speed there are no times.
fn described(
    manifest: &Manifest,
    (plan, bytes): (&Plan, Option<PlannedBytes>),
    premises: &Premises,
    notes: &[String],
) -> Value {
    let rung = |rung: &RungPlan| {
        json!({
            "budget": rung.budget.to_string(),
            "num_trials": rung.num_trials,
            "steps": rung.steps,
        })
    };
    let is_timed = premises.examples_per_second.is_some();
    json!({
        "name": manifest.name.to_string(),
        "num_trials": plan.num_trials,
        "steps": plan.steps,
        "examples": plan.examples,
        "rungs": plan.rungs.iter().map(rung).collect::<Vec<_>>(),
        "num_checkpoints": plan.num_checkpoints,
        "most_checkpoints": plan.most_checkpoints,
        "checkpoint_bytes": bytes.map(|bytes| bytes.largest),
        "written_bytes": bytes.map(|bytes| bytes.written),
        "num_slots": premises.num_slots,
        "slot_seconds": is_timed.then_some(plan.slot_seconds),
        "wall_seconds": is_timed.then_some(plan.seconds),
        "notes": notes,
    })
}

fn describe(
    manifest: &Manifest,
    (plan, bytes): (&Plan, Option<PlannedBytes>),
    premises: &Premises,
) -> String {
    let mut lines = vec![format!(
        "{}: {}, {}, {}",
        manifest.name,
        counted(plan.num_trials, "trial"),
        counted(plan.steps, "step"),
        counted(plan.examples, "example")
    )];
    for (number, rung) in (1..).zip(&plan.rungs) {
        lines.push(format!(
            "  rung {number} ({}): {}, {} on the way to it",
            rung.budget,
            counted(rung.num_trials, "trial"),
            counted(rung.steps, "step")
        ));
    }
    let (written, most) = (plan.num_checkpoints, plan.most_checkpoints);
    lines.push(match bytes {
        Some(bytes) => format!(
            "  {} of {} each{}, {} written; at most {most} at once, {}",
            counted(written, "checkpoint"),
            size(bytes.largest),
            // An average or best weights may come later.
            if bytes.written < bytes.largest.saturating_mul(written) { " at most" } else { "" },
            size(bytes.written),
            size(bytes.largest.saturating_mul(most))
        ),
        None => format!("  {}, at most {most} at once", counted(written, "checkpoint")),
    });
    let slots = counted(premises.num_slots, "slot");
    lines.push(if premises.examples_per_second.is_some() {
        let hours = plan.slot_seconds / 3600.0;
        let finish = clock(plan.seconds);
        format!("  {hours:.2} slot-hours of training; on {slots} done after {finish}")
    } else {
        let busy =
            plan.slot_seconds / plan.seconds.max(1e-9) / f64::from(premises.num_slots.max(1))
                * 100.0;
        format!(
            "  {slots} busy {busy:.0} % of the time; --examples-per-second says how long \
             it takes (`muster watch` shows the speed of a running trial)"
        )
    });
    lines.join("\n")
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// Training examples where nobody said how many: lines of the files, without what is held out.
fn num_train(manifest: &Manifest, notes: &mut Vec<String>) -> anyhow::Result<u64> {
    if matches!(manifest.budget, Budget::Steps(_)) {
        return Ok(0);
    }
    let rows = count_rows(&manifest.data.train)?;
    let Some(rows) = rows else {
        if matches!(manifest.budget, Budget::Examples(_)) {
            notes.push("the last batch of an epoch may be a smaller one".to_owned());
            return Ok(0);
        }
        let message =
            "the budget is in epochs: say how many training examples there are, --train-examples N";
        return Err(Misuse(message.to_owned()).into());
    };
    let held = |holdout: &Holdout| match holdout {
        Holdout::Count(count) => *count,
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a count"
        )]
        Holdout::Fraction(share) => (share * rows as f64).round() as u64,
        Holdout::Source(_) | Holdout::Absent => 0,
    };
    let left = rows
        .saturating_sub(held(&manifest.data.validation))
        .saturating_sub(held(&manifest.data.test));
    notes.push(format!(
        "{left} training examples, counted by lines; duplicates and left-out rows make it fewer"
    ));
    Ok(left.max(1))
}

/// Rows of local files with one row per line; `None`: they cannot be counted so simply.
fn count_rows(source: &Source) -> anyhow::Result<Option<u64>> {
    let header = match &source.format {
        SourceFormat::Delimited { columns, .. } => u64::from(columns.is_none()),
        SourceFormat::JsonLines | SourceFormat::Text => 0,
        SourceFormat::Parquet | SourceFormat::Glue | SourceFormat::AclImdb => return Ok(None),
    };
    let mut rows = 0;
    for path in &source.paths {
        let is_plain = !Source::is_url(path)
            && !Source::is_pattern(path)
            && !Path::new(path).extension().is_some_and(|ending| ending == "gz" || ending == "zst");
        if source.hub.is_some() || !is_plain {
            return Ok(None);
        }
        let file = std::fs::File::open(path).with_context(|| format!("cannot open {path}"))?;
        let lines = BufReader::new(file).split(b'\n').try_fold(0u64, |count, line| {
            line.map(|line| count + u64::from(!line.iter().all(u8::is_ascii_whitespace)))
        });
        rows += lines.with_context(|| format!("cannot read {path}"))?.saturating_sub(header);
    }
    Ok(Some(rows))
}

/// The parameters that trials of a model in a local directory train; `None`: they are not known.
fn parameters(manifest: &Manifest, notes: &mut Vec<String>) -> Option<Shapes> {
    let directory = Path::new(&manifest.model.pretrained);
    if !directory.is_dir() {
        return None;
    }
    let read = || -> Result<_, DirectoryError> {
        Ok((ModelConfig::read(directory)?, read_shapes(directory)?))
    };
    let (config, found) = match read() {
        Ok(found) => found,
        Err(error) => {
            notes.push(format!("how large checkpoints are is not known: {error}"));
            return None;
        }
    };
    let num_classes = num_classes(manifest).unwrap_or_else(|| {
        notes.push(format!(
            "checkpoints are those of {CLASSES_ASSUMED} classes; `names` in data.label says how many there are"
        ));
        CLASSES_ASSUMED
    });
    Some(trained(&config, &found, &manifest.model, (manifest.objective, num_classes)))
}

/// Classes that are learned, where the manifest says it.
fn num_classes(manifest: &Manifest) -> Option<u64> {
    if manifest.objective != TrainingObjective::Classification {
        return Some(0);
    }
    match manifest.data.label.as_ref()? {
        LabelRule::Ranges { ranges, .. } => Some(ranges.len() as u64),
        LabelRule::Class { names, .. } => Some(names.as_ref()?.len() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::manifest;

    #[test]
    fn rows_are_counted_by_lines_where_nobody_says_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("d.csv");
        std::fs::write(&file, "text,label\na,1\nb,0\n\nc,1\n").unwrap();
        let mut manifest = manifest("e", "budget: {epochs: 1}\n");
        manifest.rebase(folder.path());
        let mut notes = Vec::new();
        assert_eq!(num_train(&manifest, &mut notes).unwrap(), 3);
        assert_eq!(notes.len(), 1);
    }
}
