//! One reader, many encoders, and results in the reader's order.
//!
//! Memory is bounded twice: by the number of batches in flight and by the text
//! they hold, so neither many workers nor giant rows can fill it.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::encode::{Encoder, guarded, panic_text};
use crate::error::Error;
use crate::fold::{Encoded, KeyIds};
use crate::input::{Batch, Reading, Slice, Source};
use crate::recipe::{Cook, Recipe};

/// Text in flight, in bytes; a single larger row passes alone.
const MAX_TEXT_IN_FLIGHT: usize = 32 << 20;

/// What to encode, and with what.
pub(crate) struct Pipeline<'run> {
    pub(crate) source: &'run Source,
    pub(crate) slice: &'run Slice,
    pub(crate) reading: Reading<'run>,
    pub(crate) encoder: &'run dyn Encoder,
    pub(crate) recipe: &'run Recipe,
    /// How many outputs the recipe has.
    pub(crate) outputs: usize,
    pub(crate) workers: usize,
}

type Answer = Result<Encoded, Error>;
type Work = (Batch, SyncSender<Answer>);

impl Pipeline<'_> {
    /// Encodes everything; `sink` gets the results in input order.
    ///
    /// # Errors
    ///
    /// The first in input order, whichever thread met it.
    pub(crate) fn run(&self, sink: &mut dyn FnMut(Encoded) -> Result<(), Error>) -> Result<(), Error> {
        let in_flight = 2 * self.workers + 2;
        let (work_in, work_out) = sync_channel::<Work>(in_flight);
        // Each batch leaves its answer's receiver here, in reading order.
        let (order_in, order_out) = sync_channel::<(Receiver<Answer>, usize)>(in_flight);
        let work_out = Mutex::new(work_out);
        let budget = Budget::default();
        thread::scope(|scope| {
            // Should a thread not start, those that did find their queues closed.
            let named = |name: &str| thread::Builder::new().name(name.to_owned());
            let unstarted =
                |error: std::io::Error| Error::Panicked { who: "operating system", what: error.to_string() };
            for _ in 0..self.workers {
                named("encoder").spawn_scoped(scope, || self.work(&work_out)).map_err(unstarted)?;
            }
            let read = || self.read(work_in, order_in, &budget);
            let reader = named("reader").spawn_scoped(scope, read).map_err(unstarted)?;
            let written = collect(order_out, &budget, sink);
            // Whatever the reader waits for, it need not any more.
            budget.close();
            let read = reader
                .join()
                .unwrap_or_else(|panic| Err(Error::Panicked { who: "reader", what: panic_text(panic.as_ref()) }));
            written.and(read)
        })
    }

    fn read(
        &self,
        work: SyncSender<Work>,
        order: SyncSender<(Receiver<Answer>, usize)>,
        budget: &Budget,
    ) -> Result<(), Error> {
        self.source.read(self.slice, self.reading, &mut |batch| {
            let size = batch.size();
            if !budget.take(size) {
                return false;
            }
            let (answer_in, answer_out) = sync_channel(1);
            order.send((answer_out, size)).is_ok() && work.send((batch, answer_in)).is_ok()
        })
    }

    fn work(&self, work: &Mutex<Receiver<Work>>) {
        let mut cook = None;
        loop {
            let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((batch, answer)) = next else {
                return;
            };
            let mut encoded = Err(Error::Panicked { who: "encoder", what: String::new() });
            let outcome = guarded(|| {
                encoded = self.encode(&batch, &mut cook);
                Ok(())
            });
            if let Err(what) = outcome {
                encoded = Err(Error::Panicked { who: "encoder", what });
                cook = None;
            }
            drop(batch);
            // Nobody listens after an error: the run is over anyway.
            let _ = answer.send(encoded);
        }
    }

    fn encode<'run>(&'run self, batch: &Batch, cook: &mut Option<Cook<'run>>) -> Answer {
        let mut encoded = Encoded {
            keys: vec![KeyIds::default(); self.outputs],
            input_bytes: batch.size() as u64,
            ..Encoded::default()
        };
        for key in &mut encoded.keys {
            // About four bytes of text make one id of four bytes.
            key.bytes.reserve(batch.size() / self.outputs.max(1));
        }
        let cook = match cook {
            Some(cook) => cook,
            None => cook.insert(self.recipe.open(self.encoder)?),
        };
        encoded.rows = batch.each_row(self.reading, |texts| {
            for (position, text) in texts.iter().enumerate() {
                if let Some(text) = text {
                    encoded.text_bytes += text.len() as u64;
                    encoded.present |= 1 << position;
                }
            }
            cook.row(texts, &mut encoded.keys)
        })?;
        Ok(encoded)
    }
}

/// Hands the answers on in order; drops the rest at the first error.
fn collect(
    order: Receiver<(Receiver<Answer>, usize)>,
    budget: &Budget,
    sink: &mut dyn FnMut(Encoded) -> Result<(), Error>,
) -> Result<(), Error> {
    for (answer, size) in order {
        // A batch that no worker answered was dropped with the work queue.
        let lost = || Error::Panicked { who: "encoder", what: "a batch went missing".to_owned() };
        sink(answer.recv().map_err(|_| lost())??)?;
        budget.give(size);
    }
    Ok(())
}

/// How much text may be between reader and writer.
#[derive(Default)]
struct Budget {
    state: Mutex<BudgetState>,
    changed: Condvar,
}

#[derive(Default)]
struct BudgetState {
    taken: usize,
    closed: bool,
}

impl Budget {
    /// Waits for room; `false` once closed.
    fn take(&self, size: usize) -> bool {
        let mut state = self.lock();
        while !state.closed && state.taken > 0 && state.taken + size > MAX_TEXT_IN_FLIGHT {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.taken += size;
        !state.closed
    }

    fn give(&self, size: usize) {
        self.lock().taken -= size;
        self.changed.notify_one();
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, BudgetState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
