//! What a runner keeps between runs, so that the second trial of an experiment starts at once.

use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use muster_common::digest::ContentHash;
use muster_common::id::ExperimentId;
use muster_common::run::RunSpec;
use muster_common::seed::Seed;
use muster_common::storage::{CheckpointKey, Store};
use tch::Device;
use tokio::runtime::Handle;

use super::task::TaskError;
use crate::checkpoint::Snapshot;
use crate::data::{self, Data, Dataset, TextTokenizer};
use crate::deadline::while_it_moves;
use crate::model::{
    Adaptation, Classifier, LanguageModel, LanguageObjective, MaskingVocabulary, Pretrained,
    PretrainedStamp, TaskModel,
};
use crate::prefix::{Prefix, PrefixCache, PrefixProgress};
use crate::train::Masking;

/// Reading and tokenizing large files takes hours; where nothing moves for so long, it hangs.
const DATA_DEADLINE: Duration = Duration::from_secs(60 * 60);

/// Things that many runs need and that no run changes.
#[derive(Debug)]
pub struct Warm {
    device: Device,
    data: Vec<(DataStamp, Rc<Data>)>,
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
        Self { device, data: Vec::new(), pretrained: None, prefix: None, masking: None, left: None }
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

    /// The dataset of the experiment with sequences of at most `max_length` tokens, read once. Where it
    /// is not tokenized yet, that goes on in the background; activations of frozen layers need all of
    /// it at once.
    pub(super) fn data(
        &mut self,
        spec: &RunSpec,
        store: &Store,
        runtime: &Handle,
        max_length: u32,
    ) -> Result<Rc<Data>, TaskError> {
        let of_now =
            |known: &DataStamp| known.experiment == spec.experiment && known.store == store.url();
        // Of another experiment nothing is of use; the datasets of one are mapped files.
        self.data.retain(|(known, _)| of_now(known));
        let found = self.data.iter().find(|(known, _)| known.max_length == max_length);
        if let Some((_, data)) = found {
            return Ok(Rc::clone(data));
        }
        let loading = async {
            let loading = async {
                if spec.manifest.model.freezes() {
                    let whole = data::load_at(store, &spec.manifest, max_length).await;
                    return whole.map(|data| Data::Whole(Box::new(data)));
                }
                data::open(store, &spec.manifest, max_length).await
            };
            while_it_moves(loading, data::moves, DATA_DEADLINE).await
        };
        let data =
            runtime.block_on(loading).map_err(|_| TaskError::DataOverdue(DATA_DEADLINE))??;
        let data = Rc::new(data);
        let (experiment, store) = (spec.experiment.clone(), store.url().to_owned());
        self.data.push((DataStamp { experiment, store, max_length }, Rc::clone(&data)));
        Ok(data)
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
