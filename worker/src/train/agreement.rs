//! Whether a checkpoint was made by the trial that goes on from it, as it is configured now.

use serde::Serialize;
use serde_json::Value;

use super::TrainError;
use crate::checkpoint::Progress;

/// The one setting that does not decide any number.
const DEADLINE: &str = "step_deadline_s";

/// Refuses a checkpoint that was made with other random choices, another budget, other data, or with other
/// settings than those that `may_differ`; the error names the first of them.
pub(super) fn must_agree(
    own: &Progress,
    found: &Progress,
    may_differ: impl Fn(&str) -> bool,
) -> Result<(), TrainError> {
    differ("seed", &own.seed.0, &found.seed.0)?;
    differ("budget in steps", &own.total_steps, &found.total_steps)?;
    differ("data", &own.data, &found.data)?;
    for (own, found) in [
        (fields(&own.settings), fields(&found.settings)),
        (fields(&own.training), fields(&found.training)),
    ] {
        let kept = |name: &str| name != DEADLINE && !may_differ(name);
        for (name, found) in found.into_iter().filter(|(name, _)| kept(name)) {
            let wanted = own.get(&name).cloned().unwrap_or_default();
            differ(&name, &wanted, &found)?;
        }
    }
    Ok(())
}

/// Settings by name, to say which one differs.
fn fields(settings: &impl Serialize) -> serde_json::Map<String, Value> {
    match serde_json::to_value(settings) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    }
}

fn differ<T: PartialEq + ToString>(what: &str, wanted: &T, found: &T) -> Result<(), TrainError> {
    if wanted == found {
        return Ok(());
    }
    let what = what.to_owned();
    Err(TrainError::OtherTrial { what, wanted: wanted.to_string(), found: found.to_string() })
}
