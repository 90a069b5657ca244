//! The engine, step by step. Whatever can happen in any order is in the simulation by seed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;
mod continuation;
mod drain;
mod durable;
mod gangs;
mod greeting;
mod kept;
mod population;
mod sharing;
