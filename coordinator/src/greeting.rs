//! What a worker that says Hello is told, so that both sides have the same opinion about which run it does.

use muster_common::id::{Generation, WorkerId};

use crate::engine::Engine;
use crate::live::ToWorker;

/// What the engine knows of a worker that says Hello.
#[derive(Debug, Clone, PartialEq)]
pub struct Greeting {
    /// Name of the token that it came in with.
    pub token_name: Option<String>,
    /// What it should be doing.
    pub run: Option<Generation>,
    /// What it has to be told about that.
    pub messages: Vec<ToWorker>,
    /// It has reported about its run, and does not know of it: this is another process, whose reports would have
    /// numbers that were counted.
    pub has_forgotten: bool,
}

/// What a worker is told that holds the run `held`; `None`: it has to join first.
pub fn greet(engine: &Engine, worker: &WorkerId, held: Option<Generation>) -> Option<Greeting> {
    let known = engine.workers().get(worker)?;
    let token_name = known.token_name.clone();
    let Some(generation) = known.run else {
        return Some(Greeting {
            token_name,
            run: None,
            messages: Vec::new(),
            has_forgotten: false,
        });
    };
    let run = engine.runs().get(&generation)?;
    let is_held = Some(generation) == held;
    let member = run.rank_of(worker).and_then(|rank| run.member(rank));
    let has_forgotten = !is_held && member.is_some_and(|member| member.next_sequence > 1);
    let spec = engine.spec(generation, worker).filter(|_| !is_held);
    // It may have been said while the worker was away.
    let directive = run.directive_for_ranks();
    let assign = spec.map(|spec| ToWorker::Assign(Box::new(spec)));
    let direct = directive.map(|directive| ToWorker::Direct { generation, directive });
    let messages = assign.into_iter().chain(direct).collect();
    Some(Greeting { token_name, run: Some(generation), messages, has_forgotten })
}
