//! What an agent says about a seat.

use model::event::{Kind, Level};
use model::{AttemptId, AttemptState, Cause, Drain, Failure, NodeId, Output, SeatEnd, SeatState};

use crate::Mutation;
use crate::index::Place;
use crate::input::{Effect, Reply, Report};
use crate::step::{Standing, Work, is_draining, is_prepared};
use crate::text;

impl Work<'_> {
    /// A report of the node's present session is always taken, so that the
    /// agent's spool empties; it changes something only if it is about a seat
    /// of its own in the present attempt. One of another session is ignored:
    /// its agent sends it again.
    pub(crate) fn report(&mut self, node: &NodeId, session: u64, id: &AttemptId, what: &Report) {
        if !self.speaks(node, session) {
            return;
        }
        self.heard(node);
        self.reply(Reply::Taken);
        match self.standing(id, node) {
            Standing::Unknown => _ = self.world.quarantined.insert((node.clone(), id.clone())),
            Standing::Over { seated: false, .. } => {}
            Standing::Over { seated: true, .. } => self.late(node, id, what),
            Standing::Current(place) => self.current(&place, node, id, what),
        }
    }

    fn current(&mut self, place: &Place, node: &NodeId, id: &AttemptId, what: &Report) {
        let foreign = self.world.broken(Mutation::AcceptReportsOfOtherNodes);
        let any = self.attempt(place).and_then(|attempt| {
            let mut seats = attempt.seats.iter().enumerate();
            seats.find(|(_, seat)| foreign && !seat.state.is_over())
        });
        let Some((position, seat)) = self.seat_on(place, node).or(any) else { return };
        if seat.state.is_over() {
            return self.late(node, id, what);
        }
        match what {
            Report::Prepared { port } => self.prepared(place, position, *port),
            Report::Started => self.started(place, position),
            Report::Failed(failure) => {
                let failure = text::bounded(failure, node, seat);
                self.fail(place, failure, Drain::Failed);
            }
            Report::Ended { ok, output, failure, ran_ms } => {
                self.note_pace(place, node, *ran_ms);
                self.ended(place, node, position, *ok, output, failure.as_ref());
                self.note_ended(node, id);
            }
            Report::Returned => {
                self.returned(place, node, position);
                self.note_ended(node, id);
            }
            Report::Shard { iteration, tp, pp, path, size } => {
                self.shard(place, node, *iteration, (*tp, *pp), path, *size);
            }
            Report::Tracker { iteration } => self.tracker(place, *iteration),
            Report::Warning { message } => {
                let message = text::cut(message);
                if let Some(event) = self.stage_event(place, Kind::Warning, Level::Warn, message) {
                    event.node = Some(node.clone());
                }
            }
        }
    }

    /// A report about a seat that is over: what still runs is stopped, what
    /// has ended may be forgotten.
    fn late(&mut self, node: &NodeId, id: &AttemptId, what: &Report) {
        let known_ended = self.world.nodes.get(node).is_some_and(|view| view.ended.contains(id));
        match what {
            Report::Ended { .. } | Report::Returned => self.note_ended(node, id),
            Report::Prepared { .. } | Report::Started if !known_ended => {
                let grace_ms = self.world.policy.failure_grace_ms;
                self.out.effects.push(Effect::Stop { node: node.clone(), attempt: id.clone(), grace_ms });
            }
            Report::Prepared { .. }
            | Report::Started
            | Report::Failed(_)
            | Report::Shard { .. }
            | Report::Tracker { .. }
            | Report::Warning { .. } => {}
        }
    }

    /// Nothing of the attempt runs on the node any more, and that is saved.
    fn note_ended(&mut self, node: &NodeId, id: &AttemptId) {
        self.out.effects.push(Effect::Forget { node: node.clone(), attempt: id.clone() });
        let Some(view) = self.world.nodes.get_mut(node) else { return };
        view.ended.insert(id.clone());
        if view.leftover.remove(id) {
            self.world.reconsider = true;
        }
    }

    fn prepared(&mut self, place: &Place, position: usize, port: u16) {
        let Some(attempt) = self.attempt(place) else { return };
        if attempt.state != AttemptState::Preparing {
            return;
        }
        let Some(seat) = attempt.seats.get(position) else { return };
        match seat.state {
            SeatState::Assigned | SeatState::Prepared { .. } => {}
            SeatState::Running | SeatState::Ended(_) | SeatState::GivenUp => return,
        }
        if seat.state == (SeatState::Prepared { port }) {
            return;
        }
        self.edit_attempt(place, |attempt| {
            if let Some(seat) = attempt.seats.get_mut(position) {
                seat.state = SeatState::Prepared { port };
            }
            if position == 0 {
                attempt.port = port;
            }
        });
        self.start_if_prepared(place);
    }

    /// Every seat of a gang starts, or none.
    fn start_if_prepared(&mut self, place: &Place) {
        let partial = self.world.broken(Mutation::StartPartialGang);
        let Some(attempt) = self.attempt(place) else { return };
        let ready = attempt.seats.iter().all(|seat| is_prepared(&seat.state))
            || (partial && attempt.seats.iter().any(|seat| is_prepared(&seat.state)));
        if attempt.state != AttemptState::Preparing || !ready {
            return;
        }
        self.edit_attempt(place, |attempt| attempt.state = AttemptState::Running);
        self.start_seats(place);
    }

    /// Tells every seat that does not run yet to start.
    pub(crate) fn start_seats(&mut self, place: &Place) {
        let (Some(id), Some(attempt)) = (self.world.attempt_id(place), self.attempt(place)) else { return };
        let starts: Vec<Effect> = attempt
            .seats
            .iter()
            .enumerate()
            .filter(|(_, seat)| match seat.state {
                SeatState::Assigned | SeatState::Prepared { .. } => true,
                SeatState::Running | SeatState::Ended(_) | SeatState::GivenUp => false,
            })
            .map(|(seat, at)| Effect::Start { node: at.node.clone(), attempt: id.clone(), seat })
            .collect();
        self.out.effects.extend(starts);
    }

    fn started(&mut self, place: &Place, position: usize) {
        let runs = self.attempt(place).and_then(|attempt| attempt.seats.get(position)).map(|seat| &seat.state);
        if runs == Some(&SeatState::Running) {
            return;
        }
        self.edit_attempt(place, |attempt| {
            if let Some(seat) = attempt.seats.get_mut(position) {
                seat.state = SeatState::Running;
            }
        });
        let Some(attempt) = self.attempt(place) else { return };
        if is_draining(attempt) {
            return self.stop_seats(place, None);
        }
        self.start_if_prepared(place);
        let Some(attempt) = self.attempt(place) else { return };
        if attempt.state == AttemptState::Running && attempt.seats.iter().all(|seat| seat.state == SeatState::Running) {
            let message = format!("{} runs on {}", self.name(place), text::nodes(attempt));
            self.stage_event(place, Kind::AttemptStarted, Level::Info, message);
        }
    }

    fn ended(
        &mut self,
        place: &Place,
        node: &NodeId,
        position: usize,
        ok: bool,
        output: &Output,
        failure: Option<&Failure>,
    ) {
        let Some(attempt) = self.attempt(place) else { return };
        let Some(seat) = attempt.seats.get(position) else { return };
        // Work that was never started cannot have been finished.
        let ok =
            ok && failure.is_none() && (seat.state == SeatState::Running || attempt.state == AttemptState::Running);
        let failure = failure.map(|failure| text::bounded(failure, node, seat));
        let draining = is_draining(attempt);
        match failure {
            Some(failure) if !ok => self.fail(place, failure, Drain::Failed),
            Some(_) | None if !ok && !draining => self.fail(place, unasked(node, self.now), Drain::Failed),
            Some(_) | None => {}
        }
        self.end_seat(place, position, SeatEnd { ok, output: output.clone() });
    }

    /// A node gives a seat back that nothing of was begun. Only a lone rank can
    /// be begun elsewhere; of a gang, and of what its node said to run, it is an
    /// end like any other.
    fn returned(&mut self, place: &Place, node: &NodeId, position: usize) {
        let Some(attempt) = self.attempt(place) else { return };
        let waited = attempt.seats.len() == 1 && attempt.seats.iter().all(|seat| seat.state == SeatState::Assigned);
        if waited && !is_draining(attempt) {
            return self.hand_back(place);
        }
        self.ended(place, node, position, false, &Output::default(), None);
    }
}

/// The failure of a seat that ended unfinished without saying why and without
/// having been told to.
fn unasked(node: &NodeId, at: model::Timestamp) -> Failure {
    Failure {
        node: node.clone(),
        rank: None,
        cause: Cause::Signal(15),
        at,
        message: "it was stopped on its node, and not by this controller".to_owned(),
        hint: "look for an operator or a service manager that stopped it".to_owned(),
        evidence: Vec::new(),
    }
}
