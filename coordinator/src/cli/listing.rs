//! Commands that list: experiments and trials, slots, hyperparameters by what they matter. For people, or as JSON
//! whose shapes `coordinator/README.md` describes.

use muster_common::count::counted;
use muster_common::goal::Breach;
use muster_common::id::ExperimentId;
use muster_proto::v1;
use serde_json::{Map, Value, json};

use super::args::{ImportanceArguments, LsArguments, SlotsArguments};
use super::client::{connect, once, said, timed};
use super::exit::Exit;
use super::progress::state_name;
use super::{number, summary, table};
use crate::rpc::{experiment_from_wire, importance_from_wire, slot_from_wire};
use crate::sweep::importance::Share;
use crate::view::{ExperimentView, ImportanceView, SlotView, TrialStateName};

/// Columns of the bar of the largest share.
const BAR_WIDTH: f64 = 30.0;

pub(super) async fn ls(arguments: LsArguments) -> anyhow::Result<Exit> {
    let mut client = connect(&arguments.client).await?;
    if let Some(experiment) = arguments.experiment {
        let view = once(&mut client, experiment).await?;
        if arguments.json {
            return Ok(print(&summary::summary(&view)));
        }
        if !view.reason.is_empty() {
            println!("{}", view.reason);
        }
        print!("{}{}{}", table::trials(&view), table::front(&view), table::ranks(&view));
        return Ok(Exit::Done);
    }
    let response = client
        .list_experiments(timed(v1::ListExperimentsRequest {}))
        .await
        .map_err(|status| said(&status))?;
    let response = response.into_inner();
    let views: Result<Vec<ExperimentView>, _> =
        response.experiments.into_iter().map(experiment_from_wire).collect();
    let views = views?;
    if arguments.json {
        return Ok(print(&views.iter().map(experiment).collect()));
    }
    if views.is_empty() {
        eprintln!("no experiments yet; `muster submit MANIFEST` makes one");
    }
    for view in views {
        println!("{}", line(&view));
        if !view.reason.is_empty() {
            println!("    {}", view.reason);
        }
    }
    for line in response.hosts_aside.into_iter().chain(response.allocations) {
        println!("{line}");
    }
    Ok(Exit::Done)
}

fn print(value: &Value) -> Exit {
    println!("{value:#}");
    Exit::Done
}

fn line(view: &ExperimentView) -> String {
    let best = view.best.as_ref().map_or_else(String::new, |best| {
        let front = match view.front.len() {
            0 => String::new(),
            num => format!(" (front of {num})"),
        };
        view.goal.words(&view.goal.merit(&best.validation)) + &front
    });
    format!(
        "{:<24} {:<10} {:>3} of {:<3} trials  {:>3} running  {:>8}  {best}",
        view.id.as_str(),
        state_name(view),
        view.trials.len(),
        view.max_trials,
        view.count(TrialStateName::Running),
        number::clock(view.elapsed_seconds()),
    )
}

/// One experiment of the list, without its trials.
fn experiment(view: &ExperimentView) -> Value {
    let states = TrialStateName::ALL.into_iter();
    let trials: Map<String, Value> =
        states.map(|state| (state.name().to_owned(), json!(view.count(state)))).collect();
    let best = view.best.as_ref().map(|best| {
        let merit = view.goal.merit(&best.validation);
        json!({
            "trial": best.trial.to_string(),
            "step": best.step,
            "objectives": summary::named(&view.goal, merit.values()),
            "breaks": view.breaches().iter().map(Breach::words).collect::<Vec<_>>(),
        })
    });
    json!({
        "experiment": view.id.to_string(),
        "description": view.description,
        "state": view.state.name(),
        "paused": view.paused,
        "reason": view.reason,
        "created_at_ms": view.created_at.0,
        "ended_at_ms": view.ended_at.map(|at| at.0),
        "wall_seconds": view.elapsed_seconds(),
        "seconds_left": view.seconds_left,
        "max_trials": view.max_trials,
        "trials": trials,
        "examples_per_second": view.examples_per_second,
        "best": best,
        "location": view.location,
    })
}

pub(super) async fn slots(arguments: SlotsArguments) -> anyhow::Result<Exit> {
    let mut client = connect(&arguments.client).await?;
    let response = client.list_slots(timed(v1::ListSlotsRequest {})).await;
    let wire = response.map_err(|status| said(&status))?.into_inner().slots;
    let slots: Result<Vec<SlotView>, _> = wire.into_iter().map(slot_from_wire).collect();
    let slots = slots?;
    if arguments.json {
        return Ok(print(&slots.iter().map(slot).collect()));
    }
    if slots.is_empty() {
        eprintln!("no worker is here; `muster serve` starts some, and others dial in");
    }
    let width = slots.iter().map(|slot| slot.worker.to_string().len()).max().unwrap_or(0);
    for slot in &slots {
        let name = slot.worker.to_string();
        println!("{}", format!("{name:<width$}  {}  {}", slot.host, doing(slot)).trim_end());
    }
    Ok(Exit::Done)
}

fn doing(slot: &SlotView) -> String {
    let Some(work) = &slot.work else { return slot.state.name().to_owned() };
    let about =
        work.trial.as_ref().map_or_else(|| work.experiment.to_string(), ToString::to_string);
    let mut text = format!("{:<8}  {about} {}", slot.state.name(), work.text);
    if work.num_ranks > 1 {
        text += &format!(", rank {} of {}", work.rank, work.num_ranks);
    }
    if work.target_step > 0 {
        text += &format!(", step {} of {}", work.step, work.target_step);
    }
    if work.examples_per_second > 0.0 {
        text += &format!(", {:.0} examples/s", work.examples_per_second);
    }
    text
}

fn slot(slot: &SlotView) -> Value {
    json!({
        "worker": slot.worker.to_string(),
        "host": slot.host,
        "state": slot.state.name(),
        "work": slot.work.as_ref().map(|work| json!({
            "experiment": work.experiment.to_string(),
            "trial": work.trial.as_ref().map(ToString::to_string),
            "text": work.text,
            "rank": work.rank,
            "num_ranks": work.num_ranks,
            "started_at_ms": work.started_at.0,
            "step": work.step,
            "target_step": work.target_step,
            "examples_per_second": work.examples_per_second,
            "tokens_per_second": work.tokens_per_second,
        })),
    })
}

pub(super) async fn importance(arguments: ImportanceArguments) -> anyhow::Result<Exit> {
    let experiment_id = arguments.experiment.parse::<ExperimentId>()?.to_string();
    let mut client = connect(&arguments.client).await?;
    let request = v1::ReadImportanceRequest { experiment_id: experiment_id.clone() };
    let response = client.read_importance(timed(request)).await.map_err(|status| said(&status))?;
    let view = importance_from_wire(response.into_inner())?;
    if arguments.json {
        let share = |share: &Share| json!({"name": share.name, "share": share.share});
        return Ok(print(&json!({
            "experiment": experiment_id,
            "metric": view.metric.name(),
            "rung": Some(&view.rung).filter(|rung| !rung.is_empty()),
            "num_results": view.num_results,
            "shares": view.shares.iter().map(share).collect::<Vec<_>>(),
        })));
    }
    if view.shares.is_empty() {
        eprintln!(
            "nothing can be said yet: {} at one rung, and at least 8 that differ are needed",
            counted(view.num_results, "result")
        );
        return Ok(Exit::Done);
    }
    print!("{}", bars(&view));
    eprintln!(
        "of the differences in {}, by {} at {}; what hyperparameters do together is left out",
        view.metric.name(),
        counted(view.num_results, "result"),
        view.rung
    );
    Ok(Exit::Done)
}

/// A line for each hyperparameter, with a bar.
fn bars(view: &ImportanceView) -> String {
    let width = view.shares.iter().map(|share| share.name.chars().count()).max().unwrap_or(0);
    let most = view.shares.first().map_or(1.0, |share| share.share.max(f64::MIN_POSITIVE));
    let line = |Share { name, share }: &Share| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 0 to the width of a bar"
        )]
        let columns = (share / most * BAR_WIDTH).round() as usize;
        format!("{name:<width$}  {share:.3}  {}", "#".repeat(columns)).trim_end().to_owned() + "\n"
    };
    view.shares.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::objective::ObjectiveMetric;

    #[test]
    fn shares_have_bars() {
        let share = |name: &str, share: f64| Share { name: name.to_owned(), share };
        let view = ImportanceView {
            metric: ObjectiveMetric::Loss,
            rung: "rung 1 (40 steps)".to_owned(),
            num_results: 12,
            shares: vec![share("learning_rate", 0.75), share("dropout", 0.25), share("x", 0.0)],
        };
        let bar = |count| "#".repeat(count);
        let expected = format!(
            "learning_rate  0.750  {}\ndropout        0.250  {}\nx              0.000\n",
            bar(30),
            bar(10)
        );
        assert_eq!(bars(&view), expected);
    }
}
