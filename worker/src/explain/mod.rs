//! Why a classifier says what it says. In reading order: [`eager`] computes the model with everything in view, a
//! [`subject`] is one text with a baseline; [`attribution`] and [`conductance`] say how much tokens and layers have
//! to do with the score, [`curve`] whether that can be believed, [`attention`] and [`probe`] what layers look at
//! and know. A [`record`] holds the results, and [`terminal`] and [`html`] show them.
//!
//! Baselines. The default replaces every word's embedding by that of the padding token, as most published examples do.
//! The mask token is nearer to what a model has seen in pretraining; zeros are nearer to nothing, but to no model's
//! vocabulary. Answers depend on the choice, which is why it is written beside them.

mod attention;
mod attribution;
mod conductance;
mod curve;
mod eager;
mod explainer;
mod html;
mod probe;
mod quadrature;
mod record;
mod request;
mod split;
mod subject;
mod terminal;
mod words;

#[cfg(test)]
mod tests;

pub use attention::{HeadSummary, rollout, summarize_heads};
pub use attribution::{
    Completeness, gradient_times_input, integrated_gradients, occlusion, single_tokens,
};
pub use conductance::{LayerConductance, layer_conductance};
pub use curve::{Curve, Faithfulness};
pub use eager::{Eager, Pass, Reading};
pub use explainer::{Explainer, Question};
pub use probe::ProbeAccuracy;
pub use record::{
    Baseline, ClassScore, FORMAT, Importance, LayerRecord, MeanCurves, Method, ModelRecord, Report,
    SettingsRecord, SplitExplanation, TextExplanation, TokenRecord,
};
pub use request::{Outputs, Request, attribute, run};
pub use split::SplitOptions;
pub use subject::Subject;
pub use terminal::Style;
pub use words::Word;
