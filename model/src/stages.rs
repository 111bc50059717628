//! Which decoder layers each pipeline stage holds.
//!
//! Source of the rules: MindSpeed-LLM 2.2.0's two converters and its
//! `--noop-layers`, `--num-layer-list` and
//! `--num-layers-per-virtual-pipeline-stage`.

use std::collections::HashSet;

use crate::layout::LayoutError;

/// How layers are dealt to pipeline stages, where not in equal blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Deal {
    /// Layers of each stage, in order (`--num-layer-list`).
    pub list: Option<Vec<u64>>,
    /// Slots of each chunk; chunks go round the stages (`--num-layers-per-virtual-pipeline-stage`).
    pub per_chunk: Option<u64>,
    /// Slots without a layer, counted over the whole model (`--noop-layers`).
    pub noop: Vec<u64>,
}

/// A slot of a chunk: the layer in it, by its number in the model, or none.
pub type Slot = Option<u64>;

/// The layers of every stage.
///
/// Every layer of the model is in exactly one slot, by construction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stages {
    /// By stage, then chunk, then place within the chunk.
    stages: Vec<Vec<Vec<Slot>>>,
}

impl Deal {
    /// Checks that `layers` layers can be dealt to `pp` stages like this.
    ///
    /// # Errors
    ///
    /// [`LayoutError`] where the numbers do not come out even, exclude each
    /// other, or name a slot that is not there.
    pub fn check(&self, pp: u32, layers: u64) -> Result<(), LayoutError> {
        let stages = u64::from(pp.max(1));
        let total = layers.saturating_add(self.noop.len() as u64);
        let mut seen = HashSet::new();
        for slot in &self.noop {
            let twice = !seen.insert(slot);
            if *slot >= total || twice {
                return Err(LayoutError::Noop { slot: *slot, total, twice });
            }
        }
        if let Some(list) = &self.list {
            return self.check_list(list, stages, layers);
        }
        if !total.is_multiple_of(stages) {
            return Err(LayoutError::DoesNotDivide {
                what: "pp",
                size: stages,
                dimension: if self.noop.is_empty() { "num_hidden_layers" } else { "num_hidden_layers + no-op layers" },
                of: total,
                fitting: (1..=64).filter(|p| total.is_multiple_of(*p)).collect(),
            });
        }
        let per_stage = total / stages;
        match self.per_chunk {
            Some(n) if stages == 1 || n == 0 || n >= per_stage || !per_stage.is_multiple_of(n) => {
                let sizes = 1..per_stage.min(if stages == 1 { 1 } else { 65 });
                let fitting = sizes.filter(|n| per_stage.is_multiple_of(*n)).collect();
                Err(LayoutError::Chunk { per_chunk: n, stages, per_stage, fitting })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn check_list(&self, list: &[u64], stages: u64, layers: u64) -> Result<(), LayoutError> {
        let other = match (self.per_chunk, self.noop.is_empty()) {
            (Some(_), _) => Some("num_layers_per_virtual_pipeline_stage"),
            (None, false) => Some("noop_layers"),
            (None, true) => None,
        };
        if let Some(other) = other {
            return Err(LayoutError::Exclusive { one: "num_layer_list", other });
        }
        let sum = list.iter().try_fold(0_u64, |sum, n| sum.checked_add(*n));
        if list.len() as u64 != stages || sum != Some(layers) || list.contains(&0) {
            return Err(LayoutError::List { list: list.to_vec(), stages, layers });
        }
        Ok(())
    }

    /// Slots of stage `pp` of `stages`.
    #[must_use]
    pub fn slots_of_stage(&self, stages: u32, pp: u32, layers: u64) -> u64 {
        match &self.list {
            Some(list) => list.get(pp as usize).copied().unwrap_or(0),
            None => self.slots(layers) / u64::from(stages.max(1)),
        }
    }

    /// Layers of a model and its slots without one.
    #[must_use]
    pub fn slots(&self, layers: u64) -> u64 {
        layers.saturating_add(self.noop.len() as u64)
    }
}

impl Stages {
    /// Deals `layers` layers to `pp` stages; `layers` is in memory several times.
    ///
    /// # Errors
    ///
    /// Those of [`Deal::check`].
    pub fn new(pp: u32, layers: u64, deal: &Deal) -> Result<Self, LayoutError> {
        deal.check(pp, layers)?;
        let noop: HashSet<u64> = deal.noop.iter().copied().collect();
        let mut next = 0..layers;
        let total = deal.slots(layers);
        let mut slots = (0..total).map(|slot| if noop.contains(&slot) { None } else { next.next() });
        let mut stages = vec![Vec::new(); pp.max(1) as usize];
        if let Some(list) = &deal.list {
            for (stage, count) in stages.iter_mut().zip(list) {
                stage.push((0..*count).filter_map(|_| slots.next()).collect());
            }
            return Ok(Self { stages });
        }
        let per_chunk = deal.per_chunk.unwrap_or(total / u64::from(pp.max(1)));
        for turn in 0..total.checked_div(per_chunk).unwrap_or(0) {
            let stage = usize::try_from(turn).unwrap_or(0) % stages.len();
            stages[stage].push((0..per_chunk).filter_map(|_| slots.next()).collect());
        }
        Ok(Self { stages })
    }

    /// The stages of a checkpoint, by which places of their chunks are taken.
    ///
    /// `taken` is by stage, then chunk; places ascend. Layers are numbered as
    /// the chunks go round the stages. `None` where stages have unequal numbers of chunks.
    #[must_use]
    pub fn of_taken(taken: &[Vec<Vec<u64>>]) -> Option<Self> {
        let chunks = taken.first()?.len();
        if taken.iter().any(|stage| stage.len() != chunks) {
            return None;
        }
        let mut stages: Vec<Vec<Vec<Slot>>> = vec![Vec::new(); taken.len()];
        let mut next = 0;
        for chunk in 0..chunks {
            for (stage, held) in stages.iter_mut().zip(taken) {
                let mut slots: Vec<Slot> = Vec::new();
                for place in &held[chunk] {
                    let place = usize::try_from(*place).ok().filter(|place| *place >= slots.len())?;
                    slots.resize(place, None);
                    slots.push(Some(next));
                    next += 1;
                }
                stage.push(slots);
            }
        }
        Some(Self { stages })
    }

    /// The chunks of a stage, each with its slots; one chunk without virtual stages.
    #[must_use]
    pub fn chunks(&self, pp: u32) -> &[Vec<Slot>] {
        self.stages.get(pp as usize).map_or(&[], Vec::as_slice)
    }

    /// Number of stages.
    #[must_use]
    pub fn count(&self) -> usize {
        self.stages.len()
    }

    /// Chunks of each stage.
    #[must_use]
    pub fn chunks_per_stage(&self) -> usize {
        self.stages.first().map_or(0, Vec::len)
    }

    /// Layers in all stages together.
    #[must_use]
    pub fn layers(&self) -> u64 {
        self.stages.iter().flatten().flatten().flatten().count() as u64
    }

    /// Where a layer is: stage, chunk, place.
    #[must_use]
    pub fn place(&self, layer: u64) -> Option<(u32, u32, u64)> {
        for (pp, stage) in (0..).zip(&self.stages) {
            for (chunk, slots) in (0..).zip(stage) {
                if let Some(place) = slots.iter().position(|slot| *slot == Some(layer)) {
                    return Some((pp, chunk, place as u64));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deal(list: Option<&[u64]>, per_chunk: Option<u64>, noop: &[u64]) -> Deal {
        Deal { list: list.map(<[u64]>::to_vec), per_chunk, noop: noop.to_vec() }
    }

    fn shown(pp: u32, layers: u64, deal: &Deal) -> String {
        let slot = |slot: &Slot| slot.map_or("-".to_owned(), |layer| layer.to_string());
        let chunk = |slots: &Vec<Slot>| slots.iter().map(slot).collect::<Vec<_>>().join(" ");
        let stages = Stages::new(pp, layers, deal).unwrap();
        let stage = |stage: &Vec<Vec<Slot>>| stage.iter().map(chunk).collect::<Vec<_>>().join(", ");
        stages.stages.iter().map(stage).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn layers_are_dealt_as_the_reference_deals_them() {
        let table = [
            (2, 4, deal(None, None, &[]), "0 1 | 2 3"),
            (3, 7, deal(Some(&[2, 4, 1]), None, &[]), "0 1 | 2 3 4 5 | 6"),
            (2, 8, deal(None, Some(2), &[]), "0 1, 4 5 | 2 3, 6 7"),
            (2, 4, deal(None, Some(1), &[]), "0, 2 | 1, 3"),
            (2, 6, deal(None, None, &[6, 7]), "0 1 2 3 | 4 5 - -"),
            (2, 6, deal(None, None, &[7, 0]), "- 0 1 2 | 3 4 5 -"),
            (2, 6, deal(None, Some(2), &[0, 5]), "- 0, 3 - | 1 2, 4 5"),
        ];
        for (pp, layers, deal, expected) in table {
            assert_eq!(shown(pp, layers, &deal), expected, "{deal:?}");
        }
    }

    #[test]
    fn what_does_not_come_out_even_is_refused_with_what_does() {
        let table = [
            (2, 5, deal(None, None, &[]), "pp 2 does not divide num_hidden_layers = 5", Some("pp may be 1, 5")),
            (2, 5, deal(None, None, &[0, 1]), "pp 2 does not divide num_hidden_layers + no-op layers = 7", None),
            (
                2,
                5,
                deal(Some(&[2, 2]), None, &[]),
                "num_layer_list 2,2 does not deal 5 layers to 2 stages",
                Some("give 2 numbers of at least 1 that add up to 5, such as 3,2"),
            ),
            (2, 4, deal(Some(&[4, 0]), None, &[]), "num_layer_list 4,0 does not deal 4 layers to 2 stages", None),
            (3, 4, deal(Some(&[2, 2]), None, &[]), "num_layer_list 2,2 does not deal 4 layers to 3 stages", None),
            (
                2,
                4,
                deal(Some(&[2, 2]), Some(1), &[]),
                "num_layer_list and num_layers_per_virtual_pipeline_stage exclude each other",
                None,
            ),
            (2, 4, deal(Some(&[2, 2]), None, &[0]), "num_layer_list and noop_layers exclude each other", None),
            (
                2,
                8,
                deal(None, Some(3), &[]),
                "num_layers_per_virtual_pipeline_stage 3 does not cut a stage's 4 layers into several chunks",
                Some("num_layers_per_virtual_pipeline_stage may be 1, 2"),
            ),
            (
                2,
                8,
                deal(None, Some(4), &[]),
                "num_layers_per_virtual_pipeline_stage 4 does not cut a stage's 4 layers into several chunks",
                None,
            ),
            (
                1,
                8,
                deal(None, Some(2), &[]),
                "num_layers_per_virtual_pipeline_stage needs more than one pipeline stage",
                None,
            ),
            (2, 6, deal(None, None, &[8, 1]), "noop_layers names slot 8; there are slots 0 to 7", None),
            (2, 6, deal(None, None, &[1, 1]), "noop_layers names slot 1 twice", None),
        ];
        for (pp, layers, deal, expected, hint) in table {
            let error = Stages::new(pp, layers, &deal).unwrap_err();
            assert_eq!(error.to_string(), expected);
            if let Some(hint) = hint {
                assert_eq!(error.hint().as_deref(), Some(hint));
            }
        }
    }

    #[test]
    fn what_is_held_gives_the_layers_back() {
        let all = [
            (2, 8, deal(None, Some(2), &[])),
            (2, 6, deal(None, None, &[0, 3])),
            (3, 7, deal(Some(&[1, 5, 1]), None, &[])),
        ];
        for (pp, layers, deal) in all {
            let stages = Stages::new(pp, layers, &deal).unwrap();
            let taken: Vec<Vec<Vec<u64>>> = (0..pp)
                .map(|pp| {
                    let taken = |slots: &Vec<Slot>| {
                        (0..).zip(slots).filter(|(_, slot)| slot.is_some()).map(|(i, _)| i).collect()
                    };
                    stages.chunks(pp).iter().map(taken).collect()
                })
                .collect();
            let again = Stages::of_taken(&taken).unwrap();
            assert_eq!(again.layers(), layers);
            for layer in 0..layers {
                assert_eq!(again.place(layer), stages.place(layer), "{deal:?} {layer}");
            }
        }
        assert_eq!(Stages::of_taken(&[vec![vec![0]], vec![]]), None);
        assert_eq!(Stages::of_taken(&[vec![vec![1, 0]]]), None, "places ascend");
    }
}
