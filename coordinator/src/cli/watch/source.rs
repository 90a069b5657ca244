//! Asks the coordinator for what the screen needs, again and again, also when it was gone for a while.

use std::time::Duration;

use muster_common::id::{ExperimentId, TrialId};
use muster_proto::v1;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::state::{News, Series, Wish};
use crate::cli::client::{Client, said, timed};
use crate::rpc::{experiment_from_wire, slot_from_wire};

/// Pause between two looks at what slots do.
const SLOTS_EVERY: Duration = Duration::from_secs(1);
/// Looks at slots for each at all experiments, which can be large.
const SLOTS_PER_LIST: u32 = 3;
/// Pause before an answer is asked for again that did not come.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// News that may wait for the screen.
const NEWS_MAX: usize = 64;
/// Trials whose curves are drawn at once.
const NUM_CURVES: usize = 2;

/// What comes from the coordinator. Dropping it ends the asking.
pub(super) struct Source {
    news: mpsc::Receiver<News>,
    wish: watch::Sender<Wish>,
    _tasks: JoinSet<()>,
}

impl Source {
    /// Begins to ask.
    pub(super) fn open(client: &Client, wish: Wish) -> Self {
        let (sender, news) = mpsc::channel(NEWS_MAX);
        let (wish, wishes) = watch::channel(wish);
        let mut tasks = JoinSet::new();
        let asking = Asking { client: client.clone(), news: sender };
        tasks.spawn(asking.clone().look_around());
        let curves = (0..NUM_CURVES).map(Topic::Curves);
        for topic in [Topic::Experiment, Topic::Log].into_iter().chain(curves) {
            tasks.spawn(asking.clone().follow(topic, wishes.clone()));
        }
        Self { news, wish, _tasks: tasks }
    }

    /// What is new; `None`: nothing will be any more.
    pub(super) async fn next(&mut self) -> Option<News> {
        self.news.recv().await
    }

    /// What has come in the meantime.
    pub(super) fn waiting(&mut self) -> Option<News> {
        self.news.try_recv().ok()
    }

    /// Says what is needed from now on.
    pub(super) fn want(&self, wish: Wish) {
        self.wish.send_if_modified(|known| {
            let is_new = *known != wish;
            *known = wish;
            is_new
        });
    }
}

/// What is followed apart from the rest.
#[derive(Debug, Clone, Copy)]
enum Topic {
    Experiment,
    Log,
    /// Of the trial at this place of the wish.
    Curves(usize),
}

/// What is followed at the moment.
#[derive(Debug, PartialEq)]
enum Subject {
    Experiment(ExperimentId),
    Log(ExperimentId),
    Curves(TrialId),
}

impl Topic {
    fn of(self, wish: &Wish) -> Option<Subject> {
        match self {
            Self::Experiment => wish.experiment.clone().map(Subject::Experiment),
            Self::Log => wish.experiment.clone().map(Subject::Log),
            Self::Curves(place) => wish.trials.get(place).cloned().map(Subject::Curves),
        }
    }
}

#[derive(Clone)]
struct Asking {
    client: Client,
    news: mpsc::Sender<News>,
}

/// The screen is gone.
struct Gone;

/// Why a stream is over.
enum End {
    Gone,
    Lost,
}

impl From<Gone> for End {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<tonic::Status> for End {
    fn from(_: tonic::Status) -> Self {
        // Whoever looks around says why.
        Self::Lost
    }
}

impl Asking {
    async fn tell(&self, news: News) -> Result<(), Gone> {
        self.news.send(news).await.map_err(|_| Gone)
    }

    /// All slots and, less often, all experiments; also says whether the coordinator answers.
    async fn look_around(mut self) {
        let mut round = 0;
        loop {
            let looked = self.look(round % SLOTS_PER_LIST == 0).await;
            let (told, pause) = match looked {
                Ok(found) => {
                    round += 1;
                    (self.tell_all(found).await, SLOTS_EVERY)
                }
                Err(error) => {
                    round = 0;
                    let text = format!("{error:#}; trying again");
                    (self.tell(News::Lost(text)).await, AGAIN_AFTER)
                }
            };
            if told.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn tell_all(&self, all: Vec<News>) -> Result<(), Gone> {
        for news in all {
            self.tell(news).await?;
        }
        Ok(())
    }

    async fn look(&mut self, lists: bool) -> anyhow::Result<Vec<News>> {
        let mut found = vec![News::Reached];
        if lists {
            let response = self.client.list_experiments(timed(v1::ListExperimentsRequest {})).await;
            let wire = response.map_err(|status| said(&status))?.into_inner().experiments;
            let views: Result<Vec<_>, _> = wire.into_iter().map(experiment_from_wire).collect();
            found.push(News::Experiments(views?));
        }
        let response = self.client.list_slots(timed(v1::ListSlotsRequest {})).await;
        let wire = response.map_err(|status| said(&status))?.into_inner().slots;
        let slots: Result<Vec<_>, _> = wire.into_iter().map(slot_from_wire).collect();
        found.push(News::Slots(slots?));
        Ok(found)
    }

    /// Follows what is wished for of a topic, until something else is.
    async fn follow(self, topic: Topic, mut wishes: watch::Receiver<Wish>) {
        loop {
            let wanted = topic.of(&wishes.borrow_and_update());
            let another = async {
                loop {
                    if wishes.changed().await.is_err() {
                        return false;
                    }
                    if topic.of(&wishes.borrow_and_update()) != wanted {
                        return true;
                    }
                }
            };
            let goes_on = tokio::select! {
                () = self.keep_asking(wanted.as_ref()) => false,
                goes_on = another => goes_on,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Asks again when an answer breaks off; ends when the screen is gone.
    async fn keep_asking(&self, wanted: Option<&Subject>) {
        let Some(wanted) = wanted else { return std::future::pending().await };
        loop {
            match self.ask(wanted).await {
                // It has ended: nothing about it will change.
                Ok(()) => return std::future::pending().await,
                Err(End::Gone) => return,
                Err(End::Lost) => tokio::time::sleep(AGAIN_AFTER).await,
            }
        }
    }

    async fn ask(&self, subject: &Subject) -> Result<(), End> {
        match subject {
            Subject::Experiment(id) => self.ask_for_experiment(id).await,
            Subject::Log(id) => self.ask_for_log(id).await,
            Subject::Curves(id) => self.ask_for_curves(id).await,
        }
    }

    async fn ask_for_experiment(&self, id: &ExperimentId) -> Result<(), End> {
        let request = v1::WatchExperimentRequest { experiment_id: id.to_string(), once: false };
        let mut stream = self.client.clone().watch_experiment(request).await?.into_inner();
        while let Some(response) = stream.message().await? {
            if let Some(Ok(view)) = response.experiment.map(experiment_from_wire) {
                self.tell(News::Experiment(Box::new(view))).await?;
            }
        }
        Ok(())
    }

    async fn ask_for_log(&self, id: &ExperimentId) -> Result<(), End> {
        let request = v1::ReadLogsRequest {
            experiment_id: id.to_string(),
            trial_id: None,
            follow: true,
            tail: true,
        };
        let mut stream = self.client.clone().read_logs(request).await?.into_inner();
        self.tell(News::LogBegins(id.clone())).await?;
        while let Some(response) = stream.message().await? {
            self.tell(News::Lines(id.clone(), response.lines)).await?;
        }
        Ok(())
    }

    async fn ask_for_curves(&self, id: &TrialId) -> Result<(), End> {
        let request =
            v1::ReadCurvesRequest { trial_id: id.to_string(), names: Vec::new(), follow: true };
        let mut stream = self.client.clone().read_curves(request).await?.into_inner();
        while let Some(response) = stream.message().await? {
            let series = response.curves.into_iter().map(series).collect();
            self.tell(News::Curves(id.clone(), series)).await?;
        }
        Ok(())
    }
}

fn series(curve: v1::Curve) -> Series {
    let points = curve.steps.iter().map(|step| *step as f64).zip(curve.means).collect();
    Series { metric: curve.name, points }
}
