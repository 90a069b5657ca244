//! What goes over the wire comes back as it was, and what is not legal is refused by the field's name.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use muster_common::evaluation::{Evaluation, MaskedScore};
use muster_common::id::{Attempt, Generation};
use muster_common::manifest::{Assignment, Category, Manifest, ParameterValue};
use muster_common::run::{FailureClass, Gang, RunExit, RunReport, RunSpec, Task, TrainTask};
use muster_common::storage::CheckpointKey;
use muster_proto::convert::{ConvertError, RunWriter};
use muster_proto::v1;
use proptest::prelude::*;

const MANIFEST: &str = "version: 1
name: wire
model: {pretrained: m}
data:
  train: {path: d.csv}
  validation: {fraction: 0.1}
  text: text
  label: {column: label}
budget: {steps: 10}
";

fn assignment() -> Assignment {
    Assignment::from([
        ("learning_rate".to_owned(), ParameterValue::Float(3e-5)),
        ("global_batch_size".to_owned(), ParameterValue::Int(16)),
        ("schedule".to_owned(), ParameterValue::Category(Category::SlantedTriangular)),
    ])
}

fn spec(gang: Option<Gang>) -> RunSpec {
    RunSpec {
        generation: Generation(7),
        experiment: "wire-1".parse().unwrap(),
        task: Task::Train(TrainTask {
            trial: "wire-1/t1".parse().unwrap(),
            attempt: Attempt(2),
            assignment: assignment(),
            target_step: 5,
            total_steps: 10,
            resume_from: None,
            earlier: vec![CheckpointKey {
                trial: "wire-1/t1".parse().unwrap(),
                step: 3,
                generation: Generation(5),
            }],
            seed_of: Some(3),
        }),
        manifest: Manifest::parse(MANIFEST).unwrap().into(),
        store: "file:///store".to_owned(),
        gang,
    }
}

#[test]
fn every_place_in_a_gang_comes_back() {
    let first = Gang { rank: 0, world_size: 3, rendezvous: None };
    let last = Gang { rank: 2, world_size: 3, rendezvous: Some("10.0.0.1:4711".to_owned()) };
    for gang in [None, Some(first), Some(last)] {
        let spec = spec(gang);
        let wire = RunWriter::default().write(&spec).unwrap();
        assert_eq!(RunSpec::try_from(wire).unwrap(), spec);
    }
}

#[test]
fn a_writer_tells_manifests_apart() {
    let writer = RunWriter::default();
    let (first, mut second) = (spec(None), spec(None));
    second.manifest = Manifest::parse(&MANIFEST.replace("steps: 10", "steps: 11")).unwrap().into();
    for spec in [&first, &first, &second, &first, &second] {
        let wire = writer.write(spec).unwrap();
        assert_eq!(RunSpec::try_from(wire).unwrap(), *spec);
    }
}

#[test]
fn words_that_nobody_knows_are_refused() {
    use v1::parameter_value::Value;
    let mut wire = RunWriter::default().write(&spec(None)).unwrap();
    let Some(v1::run_spec::Task::Train(task)) = &mut wire.task else {
        panic!("it is a task to train")
    };
    let value = Some(Value::Category("rhombic".to_owned()));
    task.assignment.insert("schedule".to_owned(), v1::ParameterValue { value });
    let error = RunSpec::try_from(wire).unwrap_err();
    assert!(matches!(error, ConvertError::Illegal { field: "assignment.value", .. }), "{error}");
}

#[test]
fn places_that_cannot_be_are_refused() {
    let mut wire = RunWriter::default().write(&spec(None)).unwrap();
    let at = |rank, world_size, rendezvous: Option<&str>| v1::Gang {
        rank,
        world_size,
        rendezvous: rendezvous.map(str::to_owned),
    };
    let wrong = [at(2, 2, Some("a:1")), at(0, 1, None), at(1, 2, None), at(0, 2, Some("a:1"))];
    for gang in wrong {
        wire.gang = Some(gang.clone());
        let error = RunSpec::try_from(wire.clone()).unwrap_err();
        assert!(error.to_string().contains("gang"), "{gang:?}: {error}");
    }
    let empty = v1::RendezvousOpened { address: String::new() };
    let report = v1::RunReport { report: Some(v1::run_report::Report::RendezvousOpened(empty)) };
    let refused = RunReport::try_from(report);
    assert!(matches!(refused, Err(ConvertError::Missing { .. })), "{refused:?}");
}

/// JSON, which the journal is of, has no word for them: it could not be read again.
#[test]
fn losses_that_are_not_finite_are_no_evaluations() {
    for (loss, of_tokens) in [(f64::NAN, 1.0), (1.0, f64::NAN), (1.0, f64::INFINITY)] {
        let masked = Some(MaskedScore { loss: of_tokens, num_masked: 8, num_right: 2 });
        let evaluation = Evaluation { loss, masked, ..Evaluation::default() };
        let report = RunReport::Evaluated { step: 1, evaluation };
        let refused = RunReport::try_from(v1::RunReport::from(&report));
        assert!(matches!(refused, Err(ConvertError::Illegal { .. })), "{refused:?}");
    }
}

#[test]
fn a_failure_without_a_class_is_an_error_of_any_kind() {
    let failed = v1::run_exit::Failed { message: "m".to_owned(), permanent: false, class: 0 };
    let wire = v1::RunExit { exit: Some(v1::run_exit::Exit::Failed(failed)) };
    let exit = RunExit::try_from(wire).unwrap();
    assert!(matches!(exit, RunExit::Failed { class: FailureClass::Other, .. }), "{exit:?}");
    // A journal of a build that had no classes.
    let old = r#"{"failed":{"message":"m","permanent":false}}"#;
    assert_eq!(serde_json::from_str::<RunExit>(old).unwrap(), exit);
}

proptest! {
    #[test]
    fn ends_and_addresses_come_back(
        message in ".{0,40}",
        address in ".{1,40}",
        permanent: bool,
        class in prop::sample::select(FailureClass::ALL.to_vec()),
    ) {
        let exit = RunExit::Failed { message, permanent, class };
        for report in [RunReport::Ended { exit }, RunReport::RendezvousOpened { address }] {
            let wire = v1::RunReport::from(&report);
            prop_assert_eq!(RunReport::try_from(wire).unwrap(), report);
        }
    }
}
