use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use muster_common::evaluation::Evaluation;
use muster_common::goal::{Goal, Merit};
use muster_common::id::{ExperimentId, TrialId};
use muster_common::manifest::{Assignment, ParameterValue, TrainingObjective};
use muster_common::objective::{Mode, Objective, ObjectiveMetric};
use muster_common::time::Timestamp;
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::frame::draw;
use super::key::{Course, press};
use super::palette::Palette;
use super::state::{News, Pane, Series, State};
use crate::view::{
    BestView, DecisionView, ExperimentState, ExperimentView, SlotStateName, SlotView,
    TrialStateName, TrialView, WorkView,
};

fn id(name: &str) -> ExperimentId {
    name.parse().unwrap()
}

fn trial_id(number: u32) -> TrialId {
    TrialId { experiment: id("sample-1"), number }
}

fn trial(number: u32, state: TrialStateName, step: u64, loss: Option<f64>) -> TrialView {
    let learning_rate = ParameterValue::Float(1e-4 * f64::from(number));
    let values = [("dropout", ParameterValue::Float(0.1)), ("learning_rate", learning_rate)];
    let reason = match state {
        TrialStateName::Stopped => "place 3 of 4 at its rung".to_owned(),
        _ => String::new(),
    };
    TrialView {
        id: trial_id(number),
        state,
        reason,
        assignment: values
            .map(|(name, value)| (name.to_owned(), value))
            .into_iter()
            .collect::<Assignment>(),
        step,
        target_step: if state == TrialStateName::Running { 160 } else { step },
        merit: loss.map(Merit::from),
        last_loss: (state == TrialStateName::Running).then_some(0.512),
        attempts: 1,
        restarts: 0,
        rungs_passed: u32::from(loss.is_some()),
        examples_per_second: 120.0,
        ranks: match state {
            TrialStateName::Running => vec![format!("rank 0 on here (here/{number})")],
            _ => Vec::new(),
        },
    }
}

fn experiment(name: &str, state: ExperimentState) -> ExperimentView {
    let trials = vec![
        trial(1, TrialStateName::Running, 97, Some(0.4312)),
        trial(2, TrialStateName::Stopped, 40, Some(0.6104)),
        trial(3, TrialStateName::Running, 12, None),
        trial(4, TrialStateName::Paused, 40, Some(0.5021)),
    ];
    let evaluation = Evaluation {
        loss: 0.4312,
        confusion: vec![vec![30, 10], vec![5, 35]],
        auc: None,
        masked: None,
    };
    let decision = |at, text: &str| DecisionView {
        at: Timestamp(at),
        trial: Some(trial_id(2)),
        text: text.to_owned(),
    };
    ExperimentView {
        id: id(name),
        description: String::new(),
        state,
        reason: String::new(),
        paused: false,
        created_at: Timestamp(1_000_000),
        ended_at: None,
        now: Timestamp(1_125_000),
        goal: Goal::from(Objective { metric: ObjectiveMetric::Loss, mode: Mode::Min }),
        max_trials: 8,
        rungs: vec!["40 steps".to_owned(), "160 steps".to_owned()],
        trials,
        data: None,
        parts_done: 0,
        num_parts: 0,
        num_workers: 2,
        examples_per_second: 240.0,
        seconds_left: Some(75.0),
        best: Some(BestView {
            trial: trial_id(1),
            step: 40,
            objective: 0.4312,
            validation: evaluation,
            test: None,
            model: String::new(),
        }),
        front: Vec::new(),
        decisions: vec![decision(1_100_000, "stopped: loss 0.6104 is place 3 of 4 at rung 1")],
        location: "muster-data/experiments/sample-1".to_owned(),
        ordered: false,
        warnings: Vec::new(),
        training_objective: TrainingObjective::Classification,
    }
}

fn slot(number: u32, work: bool) -> SlotView {
    SlotView {
        worker: format!("here-{number}").parse().unwrap(),
        host: "here".to_owned(),
        state: if work { SlotStateName::Busy } else { SlotStateName::Free },
        work: work.then(|| WorkView {
            experiment: id("sample-1"),
            trial: Some(trial_id(number)),
            text: "trains".to_owned(),
            rank: 0,
            num_ranks: 1,
            started_at: Timestamp(1_100_000),
            step: 97,
            target_step: 160,
            examples_per_second: 120.4,
            tokens_per_second: 2950.0,
        }),
    }
}

/// A sweep in the middle of its work.
fn state() -> State {
    let mut state = State::new("http://127.0.0.1:7700".to_owned(), Some(id("sample-1")));
    let older = ExperimentView {
        best: None,
        trials: Vec::new(),
        ..experiment("older-1", ExperimentState::Canceled)
    };
    state.receive(News::Experiments(vec![
        older,
        experiment("sample-1", ExperimentState::Searching),
    ]));
    state.receive(News::Slots(vec![slot(1, true), slot(2, false)]));
    let curve = |from: f64| {
        let point = |step: u32| (f64::from(step), from / (1.0 + f64::from(step) / 30.0));
        vec![
            Series { metric: "learning_rate".to_owned(), points: vec![(1.0, 1e-4), (97.0, 5e-5)] },
            Series { metric: "train_loss".to_owned(), points: (1..=97).map(point).collect() },
        ]
    };
    state.receive(News::Curves(trial_id(1), curve(0.7)));
    let lines = (1..=30).map(|n| format!("t{}  here-{}  step {n} of 160", 1 + n % 2, 1 + n % 2));
    state.receive(News::Lines(id("sample-1"), lines.collect()));
    state
}

fn keys(state: &mut State, text: &str) {
    for letter in text.chars() {
        let code = match letter {
            '\n' => KeyCode::Enter,
            '\t' => KeyCode::Tab,
            '\u{1b}' => KeyCode::Esc,
            letter => KeyCode::Char(letter),
        };
        assert_eq!(press(state, KeyEvent::new(code, KeyModifiers::NONE)), Course::GoOn, "{letter}");
    }
}

fn screen(state: &State, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, state, Palette::None)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |row: u16| {
        let symbols: String = (0..width).map(|column| buffer[(column, row)].symbol()).collect();
        symbols.trim_end().to_owned() + "\n"
    };
    (0..height).map(line).collect()
}

/// Compares with the file that somebody has looked at; `make bless` writes what is drawn now.
fn assert_approved(name: &str, found: &str) {
    let path = format!("{}/src/cli/watch/approved/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("MUSTER_BLESS").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let approved = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == approved,
        "{name} looks otherwise; `make bless` and look at the change:\n{found}"
    );
}

#[test]
fn screens_are_approved() {
    let mut state = state();
    assert_approved("large", &screen(&state, 120, 34));
    assert_approved("small", &screen(&state, 80, 24));
    keys(&mut state, "?");
    assert_approved("keys", &screen(&state, 100, 30));
    keys(&mut state, "?3");
    assert_approved("curve", &screen(&state, 60, 16));
    keys(&mut state, "5/step 7");
    assert_approved("log", &screen(&state, 60, 12));
    let empty = State::new("http://127.0.0.1:7700".to_owned(), None);
    assert_approved("asking", &screen(&empty, 60, 10));
    assert_approved("too_small", &screen(&state, 30, 4));
}

#[test]
fn keys_move_between_panes_and_rows() {
    let mut state = state();
    assert_eq!(state.pane, Pane::Trials);
    assert_eq!(state.trial().unwrap().id, trial_id(1), "one that runs");
    keys(&mut state, "j");
    assert_eq!(state.trial().unwrap().id, trial_id(4), "the next best");
    keys(&mut state, "G");
    assert_eq!(state.trial().unwrap().id, trial_id(3), "without a result: last");
    keys(&mut state, "jg");
    assert_eq!(state.trial().unwrap().id, trial_id(1));
    keys(&mut state, "\t");
    assert_eq!(state.pane, Pane::Curve);
    keys(&mut state, "1j");
    assert_eq!(state.experiment(), Some(&id("older-1")));
    assert!(state.log.is_empty(), "the log is that of another experiment");
    keys(&mut state, "k\n");
    assert_eq!((state.experiment(), state.pane), (Some(&id("sample-1")), Pane::Trials));
    keys(&mut state, "\n");
    assert!(state.is_zoomed);
    keys(&mut state, "\u{1b}");
    assert!(!state.is_zoomed);
}

#[test]
fn a_choice_stays_when_places_change() {
    let mut state = state();
    keys(&mut state, "j");
    let mut view = experiment("sample-1", ExperimentState::Searching);
    view.trials[3].merit = Some(Merit::from(0.1));
    state.receive(News::Experiment(Box::new(view)));
    assert_eq!(state.trial().unwrap().id, trial_id(4));
    assert_eq!(state.trials()[0].1.id, trial_id(4), "now it is the first");
}

#[test]
fn a_filter_narrows_its_pane_only() {
    let mut state = state();
    keys(&mut state, "/STOP\n");
    assert_eq!(state.trials().len(), 1);
    assert_eq!(state.lines().len(), 30);
    keys(&mut state, "\u{1b}");
    assert_eq!(state.trials().len(), 4);
    keys(&mut state, "/q");
    assert_eq!(state.filter.text, "q", "a letter, and no command");
    keys(&mut state, "\u{1b}t");
    assert_eq!(state.lines().len(), 15, "those of the chosen trial");
}

#[test]
fn who_reads_further_up_is_left_there() {
    let mut state = state();
    keys(&mut state, "5kk");
    let shown = |state: &State| {
        let lines = state.lines();
        lines[lines.len() - 1 - state.scrolled_back].to_owned()
    };
    let before = shown(&state);
    state.receive(News::Lines(id("sample-1"), vec!["t1  here-1  more".to_owned(); 5]));
    assert_eq!(shown(&state), before);
    keys(&mut state, "G");
    assert_eq!(state.scrolled_back, 0);
    state.receive(News::Lines(id("other-1"), vec!["t1  here-1  not ours".to_owned()]));
    state.receive(News::Lines(id("sample-1"), vec!["t1  here-1  line".to_owned(); 9000]));
    assert_eq!(state.log.len(), 2000);
}

#[test]
fn metrics_are_drawn_in_turn() {
    let mut state = state();
    assert_eq!(state.metric(), "train_loss", "the objective is no curve yet");
    keys(&mut state, "m");
    assert_eq!(state.metric(), "learning_rate");
    keys(&mut state, "m");
    assert_eq!(state.metric(), "train_loss");
    assert_eq!(state.points(&trial_id(1)).len(), 97);
    keys(&mut state, "j");
    assert_eq!(state.wish().trials, [trial_id(4), trial_id(1)], "the chosen one and the best");
}

#[test]
fn a_silent_coordinator_is_said_and_nothing_is_lost() {
    let mut state = state();
    state.receive(News::Lost("the coordinator went away; trying again".to_owned()));
    let text = screen(&state, 120, 34);
    assert!(text.contains("went away; trying again") && text.contains("sample-1"), "{text}");
    state.receive(News::Reached);
    assert!(!screen(&state, 120, 34).contains("went away"));
}

#[test]
fn only_some_keys_leave() {
    let mut state = state();
    let key = |code, modifiers| KeyEvent::new(code, modifiers);
    let control = key(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(press(&mut state, key(KeyCode::Char('q'), KeyModifiers::NONE)), Course::Leave);
    assert_eq!(press(&mut state, control), Course::Interrupt);
    keys(&mut state, "/");
    assert_eq!(press(&mut state, control), Course::Interrupt, "also while something is typed");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_keys_can_be_drawn_on_any_screen(
        text in "[qjkgGmtnN/?1-5 \n\t\u{1b}a]{0,24}",
        width in 1u16..160,
        height in 1u16..60,
        knows_something: bool,
    ) {
        let mut state = if knows_something {
            state()
        } else {
            State::new("http://127.0.0.1:7700".to_owned(), None)
        };
        for letter in text.chars() {
            let code = match letter {
                '\n' => KeyCode::Enter,
                '\t' => KeyCode::BackTab,
                '\u{1b}' => KeyCode::Esc,
                letter => KeyCode::Char(letter),
            };
            press(&mut state, KeyEvent::new(code, KeyModifiers::NONE));
        }
        screen(&state, width, height);
    }
}
