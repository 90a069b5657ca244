//! `muster watch`: the whole coordinator on one screen. News and keys change a pure state, the state is drawn; where
//! nobody sits in front, lines are printed instead.

mod filter;
mod frame;
mod key;
mod palette;
mod screen;
mod source;
mod state;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use crossterm::event::{Event, EventStream};
use futures::StreamExt;
use muster_common::id::ExperimentId;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::WatchArguments;
use super::client::{Client, connect_to, follow, once};
use super::exit::{Exit, Misuse};
use super::progress::Progress;
use super::run::exit_of;
use super::table;
use key::{Course, press};
use palette::Palette;
use screen::Screen;
use source::Source;
use state::State;

/// Clocks go on when nothing is new.
const TICK: Duration = Duration::from_secs(1);

pub(super) async fn watch(arguments: WatchArguments) -> anyhow::Result<Exit> {
    let mut connected = connect_to(&arguments.client).await?;
    if arguments.plain || !screen::is_there() {
        let Some(experiment) = arguments.experiment else {
            let text =
                "name an experiment: without a terminal to draw on, `muster watch` follows one";
            bail!(Misuse(text.to_owned()));
        };
        let progress = if arguments.plain { Progress::plain() } else { Progress::new() };
        return follow(&mut connected.client, experiment, progress).await;
    }
    attend(connected.client, connected.url, arguments.experiment).await
}

/// Waits for the end of an experiment, in whatever way there is to show it.
pub(super) async fn watch_one(mut client: Client, url: String, id: String) -> anyhow::Result<Exit> {
    if screen::is_there() {
        return attend(client, url, Some(id)).await;
    }
    follow(&mut client, id, Progress::new()).await
}

/// Takes the terminal until the user leaves.
async fn attend(mut client: Client, url: String, wanted: Option<String>) -> anyhow::Result<Exit> {
    let wanted: Option<ExperimentId> = match wanted {
        // One that is not there is said before anything is drawn.
        Some(text) => Some(once(&mut client, text).await?.id),
        None => None,
    };
    let mut state = State::new(url, wanted.clone());
    let course = show(&client, &mut state).await?;
    if course == Course::Interrupt {
        // Where the terminal has gone, nobody reads it.
        let _unread = writeln!(std::io::stderr(), "interrupted; what runs goes on");
        return Ok(Exit::Interrupted);
    }
    let Some(wanted) = wanted else { return Ok(Exit::Done) };
    let found = state.experiments.iter().find(|view| view.id == wanted);
    match found {
        Some(view) if view.state.is_ended() => {
            print!("{}", table::render(view));
            Ok(exit_of(view.state))
        }
        _ => {
            eprintln!("{wanted} goes on; `muster watch {wanted}` shows it again");
            Ok(Exit::Done)
        }
    }
}

/// The loop: news and keys in, frames out.
async fn show(client: &Client, state: &mut State) -> anyhow::Result<Course> {
    // Before the terminal is taken: none of them may end the process while it is.
    let mut signals = Signals::new()?;
    let palette = Palette::of(|name| std::env::var(name).ok());
    let mut source = Source::open(client, state.wish());
    let mut screen = Screen::take().context("the terminal cannot be drawn on; try --plain")?;
    let mut keys = EventStream::new();
    let mut tick = tokio::time::interval(TICK);
    loop {
        screen.draw(|frame| frame::draw(frame, state, palette))?;
        tokio::select! {
            event = keys.next() => match event {
                Some(Ok(Event::Key(key))) => match press(state, key) {
                    Course::GoOn => {}
                    course => return Ok(course),
                },
                // Another size, or the focus: drawn anew.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error).context("the terminal cannot be read"),
                None => return Ok(Course::Interrupt),
            },
            news = source.next() => {
                state.receive(news.context("nobody asks the coordinator any more")?);
                while let Some(news) = source.waiting() {
                    state.receive(news);
                }
            }
            _ = tick.tick() => {}
            () = signals.any() => return Ok(Course::Interrupt),
        }
        source.want(state.wish());
    }
}

/// Signals that end a program.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}
