//! `muster curves`: what a trial has measured, as one line per metric, as steps, or as JSON.

use std::collections::{BTreeMap, BTreeSet};

use muster_common::id::TrialId;
use muster_proto::v1;
use serde_json::json;
use tonic::Status;

use super::args::CurvesArguments;
use super::client::{Client, connect, said};
use super::exit::Exit;
use super::outage::Outage;

/// Columns of the picture of a curve.
const WIDTH: usize = 40;
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

pub(super) async fn curves(arguments: CurvesArguments) -> anyhow::Result<Exit> {
    let trial_id = arguments.trial.parse::<TrialId>()?.to_string();
    let CurvesArguments { name: names, follow: is_followed, json: as_json, client, .. } = arguments;
    let mut client = connect(&client).await?;
    let request = v1::ReadCurvesRequest { trial_id: trial_id.clone(), names, follow: is_followed };
    let is_empty = if is_followed {
        follow(&mut client, &request).await?
    } else {
        print_once(&mut client, request, as_json).await.map_err(|status| said(&status))?
    };
    if is_empty {
        eprintln!("{trial_id} has measured nothing of that yet");
    }
    Ok(Exit::Done)
}

/// Prints what there is now; whether that was nothing.
async fn print_once(
    client: &mut Client,
    request: v1::ReadCurvesRequest,
    as_json: bool,
) -> Result<bool, Status> {
    let mut stream = client.read_curves(request).await?.into_inner();
    let mut is_empty = true;
    while let Some(response) = stream.message().await? {
        is_empty &= response.curves.is_empty();
        if as_json {
            for curve in &response.curves {
                println!("{}", to_json(curve));
            }
        } else {
            print!("{}", overview(&response.curves));
        }
    }
    Ok(is_empty)
}

/// Prints steps until the trial ends, and finds a coordinator again that was started anew; whether that was nothing.
async fn follow(client: &mut Client, request: &v1::ReadCurvesRequest) -> anyhow::Result<bool> {
    let mut printed = Printed::default();
    let mut outage = Outage::default();
    while let Err(status) = print_steps(client, request, &mut printed, &mut outage).await {
        outage.wait(&status).await?;
    }
    Ok(printed.0.is_empty())
}

async fn print_steps(
    client: &mut Client,
    request: &v1::ReadCurvesRequest,
    printed: &mut Printed,
    outage: &mut Outage,
) -> Result<(), Status> {
    let mut stream = client.read_curves(request.clone()).await?.into_inner();
    while let Some(response) = stream.message().await? {
        outage.end();
        for (step, line) in printed.add(&response.curves) {
            println!("step {step:>8}{line}");
        }
    }
    Ok(())
}

/// The steps of each metric that were printed. Not all come in their order: scores of a step are known after its loss,
/// and what was measured while there was no coordinator comes out of the store later.
#[derive(Debug, Default)]
struct Printed(BTreeMap<String, BTreeSet<u64>>);

impl Printed {
    /// Steps that have something new, and what was measured there.
    fn add(&mut self, curves: &[v1::Curve]) -> Vec<(u64, String)> {
        let mut steps = BTreeMap::<u64, String>::new();
        for curve in curves {
            let known = self.0.entry(curve.name.clone()).or_default();
            for (step, mean) in curve.steps.iter().zip(&curve.means) {
                if known.insert(*step) {
                    let line = steps.entry(*step).or_default();
                    *line += &format!("  {} {}", curve.name, short(*mean));
                }
            }
        }
        steps.into_iter().collect()
    }
}

/// One line per metric: its picture, the last value and the extremes.
fn overview(curves: &[v1::Curve]) -> String {
    let width = curves.iter().map(|curve| curve.name.len()).max().unwrap_or_default();
    let mut text = String::new();
    for curve in curves {
        let least = curve.minima.iter().copied().fold(f64::INFINITY, f64::min);
        let most = curve.maxima.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let last = curve.means.last().copied().unwrap_or(f64::NAN);
        let step = curve.steps.last().copied().unwrap_or_default();
        text += &format!(
            "{:<width$}  {:<WIDTH$}  {:>9} at step {step}, {} to {}\n",
            curve.name,
            picture(curve),
            short(last),
            short(least),
            short(most),
        );
    }
    text
}

/// A line of blocks, lowest to highest; `!` where a value is not finite.
fn picture(curve: &v1::Curve) -> String {
    let count = curve.means.len().min(WIDTH);
    let columns: Vec<f64> = (0..count)
        .map(|column| {
            let (from, to) =
                (column * curve.means.len() / count, (column + 1) * curve.means.len() / count);
            let part = curve.means.get(from..to).unwrap_or_default();
            part.iter().sum::<f64>() / part.len().max(1) as f64
        })
        .collect();
    let finite = || columns.iter().copied().filter(|value| value.is_finite());
    let least = finite().fold(f64::INFINITY, f64::min);
    let most = finite().fold(f64::NEG_INFINITY, f64::max);
    let level = |value: &f64| {
        if !value.is_finite() {
            return '!';
        }
        let share = if most > least { (value - least) / (most - least) } else { 0.5 };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 0 to the number of levels"
        )]
        let level = (share * (LEVELS.len() - 1) as f64).round() as usize;
        LEVELS.get(level).copied().unwrap_or(' ')
    };
    columns.iter().map(level).collect()
}

/// Four digits that matter.
pub(super) fn short(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || (1e-3..1e5).contains(&size) {
        let whole_digits = size.trunc().to_string().len();
        return format!("{value:.*}", 5usize.saturating_sub(whole_digits).min(4));
    }
    format!("{value:.3e}")
}

fn to_json(curve: &v1::Curve) -> String {
    json!({
        "metric": curve.name,
        "steps": curve.steps,
        "mean": curve.means,
        "min": curve.minima,
        "max": curve.maxima,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(name: &str, values: &[f64]) -> v1::Curve {
        v1::Curve {
            name: name.to_owned(),
            steps: (1..=values.len() as u64).collect(),
            means: values.to_vec(),
            minima: values.to_vec(),
            maxima: values.to_vec(),
        }
    }

    #[test]
    fn a_curve_is_drawn() {
        assert_eq!(picture(&curve("loss", &[0.0, 1.0, f64::NAN, 0.5])), "▁█!▅");
        assert_eq!(picture(&curve("loss", &[])), "");
        assert_eq!(picture(&curve("loss", &[2.0; 100])).chars().count(), WIDTH);
        let falling: Vec<f64> = (0..1000).map(|step| 1000.0 - f64::from(step)).collect();
        let drawn = picture(&curve("loss", &falling));
        assert!(drawn.starts_with('█') && drawn.ends_with('▁'), "{drawn}");
    }

    #[test]
    fn an_overview_has_a_line_for_each_metric() {
        let text = overview(&[curve("train_loss", &[0.7, 0.25]), curve("lr", &[2e-5, 1e-5])]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].contains("0.2500 at step 2, 0.2500 to 0.7000"), "{}", lines[0]);
        assert!(lines[1].starts_with("lr          █▁"), "{}", lines[1]);
        assert!(lines[1].contains("1.000e-5 at step 2"), "{}", lines[1]);
    }

    #[test]
    fn steps_are_shown_once() {
        let mut printed = Printed::default();
        let both = [curve("a", &[1.0, 2.0]), curve("b", &[3.0])];
        let lines = printed.add(&both[..1]);
        assert_eq!(lines, [(1, "  a 1.0000".to_owned()), (2, "  a 2.0000".to_owned())]);
        // A metric of a step that was shown already.
        assert_eq!(printed.add(&both), [(1, "  b 3.0000".to_owned())]);
        assert!(printed.add(&both).is_empty());
    }

    #[test]
    fn a_gap_is_filled_and_joined_points_are_known() {
        let of = |steps: &[u64]| v1::Curve {
            steps: steps.to_vec(),
            ..curve("a", &steps.iter().map(|step| *step as f64).collect::<Vec<_>>())
        };
        let mut printed = Printed::default();
        let shown = |lines: Vec<(u64, String)>| lines.iter().map(|line| line.0).collect::<Vec<_>>();
        assert_eq!(shown(printed.add(&[of(&[1, 2, 7, 8])])), [1, 2, 7, 8]);
        assert_eq!(shown(printed.add(&[of(&[1, 2, 3, 4, 5, 6, 7, 8])])), [3, 4, 5, 6]);
        // At half the resolution, and one more.
        assert_eq!(shown(printed.add(&[of(&[2, 4, 6, 8, 9])])), [9]);
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 0.12345, 12.3456, 2345.6, 2e-5, f64::NAN].map(short);
        assert_eq!(shown, ["0.0000", "0.1235", "12.346", "2345.6", "2.000e-5", "NaN"]);
    }
}
