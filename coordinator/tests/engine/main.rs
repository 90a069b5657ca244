//! The engine, step by step. Whatever can happen in any order is in the simulation by seed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;
mod continuation;
mod drain;
mod durable;
mod finishing;
mod gangs;
mod greeting;
mod kept;
mod leaving;
mod population;
mod preempted;
mod rules;
#[path = "../../src/sample.rs"]
mod sample;
mod sharing;
mod why;
