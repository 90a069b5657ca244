//! What a runner keeps between runs, so that the second trial of an experiment starts at once.

use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use muster_common::digest::ContentHash;
use muster_common::id::ExperimentId;
use muster_common::manifest::Manifest;
use muster_common::run::RunSpec;
use muster_common::seed::Seed;
use muster_common::storage::{CheckpointKey, Store};
use tch::Device;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::task::TaskError;
use crate::checkpoint::Snapshot;
use crate::data::{self, Data, DataError, Dataset, TextTokenizer};
use crate::deadline::while_it_moves;
use crate::model::{
    Adaptation, Classifier, LanguageModel, LanguageObjective, MaskingVocabulary, Pretrained,
    PretrainedStamp, TaskModel,
};
use crate::prefix::{Prefix, PrefixCache, PrefixProgress};
use crate::train::Masking;

/// Reading and tokenizing large files takes hours; where nothing moves for so long, it hangs.
const DATA_DEADLINE: Duration = Duration::from_secs(60 * 60);

/// Whoever waits for data looks for directives so often.
const LOOK: Duration = Duration::from_millis(50);

/// Things that many runs need and that no run changes.
#[derive(Debug)]
pub struct Warm {
    device: Device,
    data: Vec<(DataStamp, Rc<Data>)>,
    loading: Option<Loading>,
    pretrained: Option<(PretrainedStamp, Rc<Pretrained>)>,
    prefix: Option<Rc<PrefixCache>>,
    masking: Option<(DataStamp, Rc<Masking>)>,
    left: Option<Left>,
}

/// The state in which a run has left its trial, which the next one may go on with.
#[derive(Debug)]
struct Left {
    /// The checkpoint that holds the same.
    checkpoint: CheckpointKey,
    /// Digest of the pretrained weights that it started from.
    pretrained: ContentHash,
    snapshot: Snapshot,
}

/// A dataset that is being read, for a run that may have left meanwhile.
#[derive(Debug)]
struct Loading {
    of: DataStamp,
    task: AbortOnDropHandle<Result<Data, DataError>>,
}

/// Tells datasets apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct DataStamp {
    experiment: ExperimentId,
    /// URL of the store whose cache holds it.
    store: String,
    max_length: u32,
}

impl Warm {
    /// Nothing yet; models will lie on `device`.
    pub fn new(device: Device) -> Self {
        let (pretrained, prefix, masking) = (None, None, None);
        Self { device, data: Vec::new(), loading: None, pretrained, prefix, masking, left: None }
    }

    /// Keeps the state of a trial at a checkpoint that is in the store, so that a run that goes on from it need
    /// not read it: reading takes longer than everything else between two runs.
    pub(super) fn leave(
        &mut self,
        checkpoint: CheckpointKey,
        pretrained: ContentHash,
        snapshot: Snapshot,
    ) {
        self.left = Some(Left { checkpoint, pretrained, snapshot });
    }

    /// The state at `checkpoint`, if the last run left it. One that is not wanted now is forgotten: it takes
    /// as much memory as the training itself.
    pub(super) fn take_left(
        &mut self,
        checkpoint: Option<&CheckpointKey>,
        pretrained: &ContentHash,
    ) -> Option<(CheckpointKey, Snapshot)> {
        let left = self.left.take()?;
        let fits = Some(&left.checkpoint) == checkpoint && left.pretrained == *pretrained;
        fits.then_some((left.checkpoint, left.snapshot))
    }

    /// Forgets what the last run left.
    pub(super) fn clear_left(&mut self) {
        self.left = None;
    }

    /// Lets go of what only a run that follows at once has use for: the state that the last one left, and data that
    /// is still being read. What a thread has begun to read or to tokenize it brings to its end.
    pub(super) fn rest(&mut self) {
        self.left = None;
        self.loading = None;
    }

    /// The dataset of the experiment with sequences of at most `max_length` tokens, read once. Where it
    /// is not tokenized yet, that goes on in the background; activations of frozen layers need all of
    /// it at once. `None`: `go_on`, asked again and again, said to stop. Reading goes on even so for a while, for
    /// the next run that wants the same, see [`Warm::rest`].
    pub(super) fn data(
        &mut self,
        spec: &RunSpec,
        store: &Store,
        runtime: &Handle,
        max_length: u32,
        go_on: impl Fn() -> ControlFlow<()>,
    ) -> Result<Option<Rc<Data>>, TaskError> {
        let (experiment, of_store) = (spec.experiment.clone(), store.url().to_owned());
        let wanted = DataStamp { experiment, store: of_store, max_length };
        let of_now = |known: &DataStamp| {
            known.experiment == wanted.experiment && known.store == wanted.store
        };
        // Of another experiment nothing is of use; the datasets of one are mapped files.
        self.data.retain(|(known, _)| of_now(known));
        if let Some((_, data)) = self.data.iter().find(|(known, _)| *known == wanted) {
            return Ok(Some(Rc::clone(data)));
        }
        // One that has ended meanwhile may have failed for a reason that is gone.
        let is_of_use = |loading: &Loading| loading.of == wanted && !loading.task.is_finished();
        let begun = self.loading.take().filter(is_of_use);
        let mut loading = begun.unwrap_or_else(|| {
            let reading = read_data(store.clone(), Arc::clone(&spec.manifest), max_length);
            let task = runtime.spawn(reading.in_current_span());
            Loading { of: wanted.clone(), task: AbortOnDropHandle::new(task) }
        });
        let read = runtime.block_on(async {
            let reading = while_it_moves(&mut loading.task, data::moves, DATA_DEADLINE);
            tokio::select! {
                biased;
                () = until_told(go_on) => None,
                read = reading => Some(read),
            }
        });
        let Some(read) = read else {
            self.loading = Some(loading);
            return Ok(None);
        };
        let data = match read.map_err(|_| TaskError::DataOverdue(DATA_DEADLINE))? {
            Ok(data) => Rc::new(data?),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // A runtime that shuts down takes its tasks along: of the data nothing is known.
            Err(_) => return Err(TaskError::DataOverdue(Duration::ZERO)),
        };
        self.data.push((wanted, Rc::clone(&data)));
        Ok(Some(data))
    }

    /// The pretrained weights of the manifest, read once.
    pub(super) fn pretrained(&mut self, directory: &str) -> Result<Rc<Pretrained>, TaskError> {
        let stamp = PretrainedStamp::of(Path::new(directory))?;
        if let Some((known, pretrained)) = &self.pretrained
            && *known == stamp
        {
            return Ok(Rc::clone(pretrained));
        }
        let pretrained = Rc::new(Pretrained::read(Path::new(directory))?);
        self.pretrained = Some((stamp, Rc::clone(&pretrained)));
        Ok(pretrained)
    }

    /// The activations of the frozen prefix; blocks that are missing are computed. `None` inside:
    /// nothing is cached for this model; `None` outside: `go_on` said to stop.
    #[expect(clippy::option_option, reason = "the two say different things, see above")]
    pub(super) fn prefix(
        &mut self,
        prefix: Option<Prefix>,
        model: &Classifier,
        data: &Dataset,
        runtime: &Handle,
        go_on: impl FnMut(PrefixProgress) -> ControlFlow<()>,
    ) -> Result<Option<Option<Rc<PrefixCache>>>, TaskError> {
        let Some(prefix) = prefix else { return Ok(Some(None)) };
        if let Some(cache) = &self.prefix
            && cache.is_of(&prefix)
        {
            return Ok(Some(Some(Rc::clone(cache))));
        }
        if !prefix.compute(runtime, model, data, (0, 1), go_on)? {
            return Ok(None);
        }
        let cache = Rc::new(prefix.open(runtime)?);
        self.prefix = Some(Rc::clone(&cache));
        Ok(Some(Some(cache)))
    }

    /// A model to train for this run; the head is drawn from `seed`.
    pub(super) fn model(
        &mut self,
        spec: &RunSpec,
        data: &Data,
        seed: Seed,
    ) -> Result<(Rc<Pretrained>, TaskModel), TaskError> {
        let settings = &spec.manifest.model;
        let pretrained = self.pretrained(&settings.pretrained)?;
        let adaptation = Adaptation::from(settings);
        let model = match LanguageObjective::of(spec.manifest.objective) {
            None => {
                let labels = data.summary().labels.clone();
                Classifier::to_train(&pretrained, labels, adaptation, seed, self.device)?.into()
            }
            Some(objective) => {
                LanguageModel::to_train(&pretrained, objective, adaptation, seed, self.device)?
                    .into()
            }
        };
        Ok((pretrained, model))
    }

    /// How tokens are hidden in the experiment of this run; `None`: none are. The tokenizer is read
    /// once.
    pub(super) fn masking(
        &mut self,
        spec: &RunSpec,
        model: &TaskModel,
    ) -> Result<Option<Rc<Masking>>, TaskError> {
        let manifest = &spec.manifest;
        if !manifest.objective.masks() {
            return Ok(None);
        }
        let max_length = manifest.model.max_length;
        let stamp = DataStamp {
            experiment: spec.experiment.clone(),
            store: spec.store.clone(),
            max_length,
        };
        if let Some((known, masking)) = &self.masking
            && *known == stamp
        {
            return Ok(Some(Rc::clone(masking)));
        }
        let tokenizer = TextTokenizer::open(Path::new(&manifest.model.pretrained), max_length)?;
        let vocabulary = MaskingVocabulary::of(tokenizer.backend())?;
        let masking = Rc::new(Masking {
            vocabulary: vocabulary.within(model.config().vocab_size)?,
            settings: manifest.training.masking.unwrap_or_default(),
            evaluation: manifest.seed.child("evaluation masks", 0),
        });
        self.masking = Some((stamp, Rc::clone(&masking)));
        Ok(Some(masking))
    }
}

async fn read_data(
    store: Store,
    manifest: Arc<Manifest>,
    max_length: u32,
) -> Result<Data, DataError> {
    if manifest.model.freezes() {
        let whole = data::load_at(&store, &manifest, max_length).await;
        return whole.map(|data| Data::Whole(Box::new(data)));
    }
    data::open(&store, &manifest, max_length).await
}

async fn until_told(go_on: impl Fn() -> ControlFlow<()>) {
    while go_on().is_continue() {
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path as FilePath;

    use muster_common::id::Generation;
    use muster_common::run::Task;
    use tokio::runtime::Runtime;

    use super::*;

    #[test]
    fn who_is_told_to_leave_does_not_wait_for_data_and_the_next_run_goes_on_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let rows = |row| format!("a text of row {row},{}", row % 2);
        let rows: Vec<String> = (0..200).map(rows).collect();
        let file = directory.path().join("rows.csv");
        std::fs::write(&file, format!("text,label\n{}\n", rows.join("\n"))).unwrap();
        let model = FilePath::new(env!("CARGO_MANIFEST_DIR"))
            .join("../tests/golden/hf/families/bert-classification");
        let manifest = format!(
            "version: 1\nname: x\nmodel: {{pretrained: {}, max_length: 16}}\n\
             data: {{train: {{path: {}}}, validation: {{fraction: 0.1}}, text: text, label: {{column: label}}}}\n\
             budget: {{steps: 1}}\n",
            model.display(),
            file.display(),
        );
        let store = Store::open(directory.path().join("store").to_str().unwrap()).unwrap();
        let spec = RunSpec {
            generation: Generation(1),
            experiment: "x-1".parse().unwrap(),
            task: Task::Prepare { part: 0, num_parts: 1 },
            manifest: Manifest::parse(&manifest).unwrap().into(),
            store: store.url().to_owned(),
            gang: None,
        };
        let runtime = Runtime::new().unwrap();
        let mut warm = Warm::new(Device::Cpu);
        let read = |warm: &mut Warm, told| {
            warm.data(&spec, &store, runtime.handle(), 16, || told).unwrap()
        };
        assert!(read(&mut warm, ControlFlow::Break(())).is_none());
        let begun = warm.loading.as_ref().map(|loading| loading.of.clone());
        assert_eq!(begun.map(|of| of.max_length), Some(16));
        let found = read(&mut warm, ControlFlow::Continue(())).unwrap();
        assert_eq!(found.summary().num_rows, 200);
        let again = read(&mut warm, ControlFlow::Break(())).unwrap();
        assert!(Rc::ptr_eq(&found, &again), "what is there is given at once");
        assert!(warm.loading.is_none());
    }
}
