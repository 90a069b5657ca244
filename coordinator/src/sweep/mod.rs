//! What to try and what to stop. Pure: settings and results in, decisions out.

pub mod asha;
pub mod rung;
pub mod sampler;
