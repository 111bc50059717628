//! One agent's session, from its greeting to its end.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use model::{AttemptId, Epoch, NodeId};
use planner::{Input, Reply};
use proto::convert::{hello_node, live_attempts};
use proto::v1;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use v1::agent_message::Kind;
use v1::controller_message::Kind as Answer;

use super::registry::Outbound;
use super::{Sessions, decode};
use crate::access::Call;
use crate::driver::{self, Stepped, now};

/// How long an agent may take to greet.
const GREETING: Duration = Duration::from_secs(10);
/// How often agents are asked to beat.
const BEAT: u32 = 1000;
/// Inputs of one session that may wait for their commit.
const UNANSWERED: usize = 256;

/// One agent's stream.
pub(super) struct Session {
    rim: Sessions,
    node: NodeId,
    number: u64,
    call: Call,
    inbound: Streaming<v1::AgentMessage>,
    out: mpsc::Sender<Outbound>,
    waiting: FuturesUnordered<BoxFuture<'static, (What, Result<Stepped, driver::Error>)>>,
    /// Slots in alarm, as this session said last.
    unfit: Option<BTreeSet<u32>>,
    /// Groups of its slots, as this session said last.
    groups: Option<Vec<u32>>,
}

/// What a message asks for.
#[derive(Default)]
struct Next {
    /// Stepped first; nobody waits for what comes of it.
    before: Vec<Input>,
    input: Option<(What, Box<Input>)>,
    say: Option<Answer>,
}

/// What is answered once the input was saved.
enum What {
    Hello,
    Beat(u64),
    Report(u64),
}

impl Session {
    pub(super) fn new(
        rim: Sessions,
        node: NodeId,
        call: Call,
        inbound: Streaming<v1::AgentMessage>,
        out: mpsc::Sender<Outbound>,
    ) -> Self {
        let number = rim.driver.next_session();
        Self { rim, node, number, call, inbound, out, waiting: FuturesUnordered::new(), unfit: None, groups: None }
    }

    /// Serves the agent until it goes, a later session of it begins, or `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        // Apart, so that the room of a greeting is not kept for as long as the session lasts.
        let end = match Box::pin(self.greet(&stop)).await {
            Ok(over) => {
                tracing::info!(node = %self.node, session = self.number, "an agent is here");
                let end = self.serve(over, stop).await;
                self.rim.agents.unregister(&self.node, self.number);
                self.rim.surveys.give_up(&self.node, self.number);
                self.rim.errands.give_up(&self.node, self.number);
                let lost = Input::SessionLost { node: self.node.clone(), session: self.number };
                // A driver that has stopped knows no sessions.
                let _ = self.rim.driver.send(lost).await;
                end
            }
            Err(status) => Err(status),
        };
        match end {
            Ok(()) => tracing::info!(node = %self.node, session = self.number, "an agent went"),
            Err(status) => {
                tracing::info!(node = %self.node, session = self.number, reason = status.message(), "a session ends");
                if status.code() == Code::PermissionDenied {
                    self.call.refused(&status);
                }
                // It may be gone already.
                let _ = self.out.try_send(Box::new(Err(status)));
            }
        }
    }

    /// Takes the greeting, and welcomes before anything else is sent.
    async fn greet(&mut self, stop: &CancellationToken) -> Result<CancellationToken, Status> {
        let first = tokio::select! {
            biased; // stop wins
            () = stop.cancelled() => return Err(Status::unavailable("the controller is stopping")),
            first = tokio::time::timeout(GREETING, self.inbound.message()) => first,
        };
        let first = first.map_err(|_| Status::deadline_exceeded("no greeting within 10 s"))??;
        let Some(Kind::Hello(hello)) = first.and_then(|message| message.kind) else {
            return Err(Status::invalid_argument("the first message of a session is a greeting"));
        };
        if hello.node != self.node.as_str() {
            self.call.about(&hello.node);
            let text = format!("the certificate is node `{}`'s, the greeting says `{}`", self.node, hello.node);
            return Err(Status::permission_denied(text));
        }
        let epoch = self.rim.driver.epoch();
        let obeyed = Epoch::from(hello.epoch.unwrap_or_default());
        if obeyed > epoch {
            let text = format!("node `{}` has obeyed epoch {obeyed}; this controller is at {epoch}", self.node);
            return Err(Status::failed_precondition(text));
        }
        let malformed = |error: proto::convert::WireError| Status::invalid_argument(error.to_string());
        let node = Box::new(hello_node(&hello, now()).map_err(malformed)?);
        let live = live_attempts(&hello.live).map_err(malformed)?;
        let welcome = v1::Welcome { epoch: Some(epoch.into()), beat_interval_ms: BEAT };
        self.say(Answer::Welcome(welcome)).await?;
        let over = self.rim.agents.register(&self.node, self.number, self.out.clone());
        self.input(What::Hello, Box::new(Input::Hello { node, session: self.number, live })).await?;
        Ok(over)
    }

    async fn serve(&mut self, over: CancellationToken, stop: CancellationToken) -> Result<(), Status> {
        loop {
            let full = self.waiting.len() >= UNANSWERED;
            tokio::select! {
                biased; // the end wins, and answers go before new questions
                () = stop.cancelled() => return Err(Status::unavailable("the controller is stopping")),
                () = over.cancelled() => return Err(Status::aborted("a later session took this one's place")),
                Some((what, outcome)) = self.waiting.next() => self.answer(what, outcome).await?,
                message = self.inbound.message(), if !full => match message? {
                    Some(message) => self.take(message).await?,
                    None => return Ok(()),
                },
            }
        }
    }

    async fn take(&mut self, message: v1::AgentMessage) -> Result<(), Status> {
        let Next { before, input, say } = self.understand(message)?;
        for input in before {
            self.rim.driver.send(Box::new(input)).await?;
        }
        if let Some((what, input)) = input {
            self.input(what, input).await?;
        }
        match say {
            Some(answer) => self.say(answer).await,
            None => Ok(()),
        }
    }

    /// Understands a message as a whole before anything is waited for: thousands of sessions wait, and none of them
    /// should have room for a message while it does.
    fn understand(&mut self, message: v1::AgentMessage) -> Result<Next, Status> {
        match message.kind {
            Some(Kind::Hello(_)) => return Err(Status::invalid_argument("a session has one greeting")),
            Some(Kind::Beat(beat)) => return self.beat(beat),
            Some(Kind::Report(report)) => return Ok(self.report(report)),
            Some(Kind::Progress(progress)) => self.progress(progress),
            Some(Kind::Survey(answer)) => self.rim.surveys.answer(&self.node, answer),
            Some(Kind::Checkpoint(answer)) => self.rim.errands.answer(&self.node, answer),
            // A kind that a later version added.
            None => {}
        }
        Ok(Next::default())
    }

    fn beat(&mut self, beat: v1::Beat) -> Result<Next, Status> {
        let live: BTreeSet<AttemptId> =
            live_attempts(&beat.live).map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.rim.progress.retain(&self.node, &live);
        self.rim.progress.put_clock(&self.node, beat.at_ms, now().0);
        if let Some(health) = beat.health {
            self.rim.progress.put_health(&self.node, health);
        }
        let mut before = Vec::new();
        if let Some(npus) = beat.npus {
            // The world knows what this session said before: both begin anew together.
            let (node, session) = (&self.node, self.number);
            let slots = decode::unfit(&npus);
            if self.unfit.as_ref() != Some(&slots) {
                self.unfit = Some(slots.clone());
                before.push(Input::Unfit { node: node.clone(), session, slots });
            }
            let groups = decode::groups(&npus);
            if let Some(groups) = groups.filter(|groups| self.groups.as_ref() != Some(groups)) {
                self.groups = Some(groups.clone());
                before.push(Input::Groups { node: node.clone(), session, groups });
            }
            self.rim.progress.put_npus(&self.node, npus);
        }
        let input = Input::Beat { node: self.node.clone(), session: self.number, live };
        Ok(Next { before, input: Some((What::Beat(beat.seq), Box::new(input))), say: None })
    }

    /// A report that cannot be understood never will be: it is acknowledged, so
    /// that the agent's spool does not stand still, and the log says so.
    fn report(&self, mut report: v1::Report) -> Next {
        let seq = report.seq;
        let ends = match &mut report.what {
            Some(v1::report::What::Ended(ended)) => ended.logs.take(),
            Some(_) | None => None,
        };
        match decode::report(&self.node, report) {
            Ok((attempt, what)) => {
                // Before the end can be seen: whoever sees it then waits for these lines.
                if let Some(ends) = ends {
                    self.rim.logs.expect(&attempt, &self.node, &ends);
                }
                let input = Input::Report { node: self.node.clone(), session: self.number, attempt, what };
                Next { input: Some((What::Report(seq), Box::new(input))), ..Next::default() }
            }
            Err(error) => {
                tracing::warn!(node = %self.node, seq, %error, "a malformed report was set aside");
                Next { say: Some(Answer::ReportAck(v1::ReportAck { seq })), ..Next::default() }
            }
        }
    }

    fn progress(&self, progress: v1::Progress) {
        let (Ok(attempt), Some(what)) = (progress.attempt.parse::<AttemptId>(), progress.what) else { return };
        let job = attempt.task.job.clone();
        self.rim.progress.put(&self.node, attempt, what);
        self.rim.changes.touch(&job);
    }

    async fn input(&mut self, what: What, input: Box<Input>) -> Result<(), Status> {
        let pending = self.rim.driver.send(input).await.map_err(|error| Status::unavailable(error.to_string()))?;
        self.waiting.push(Box::pin(async move { (what, pending.outcome().await) }));
        Ok(())
    }

    async fn answer(&mut self, what: What, outcome: Result<Stepped, driver::Error>) -> Result<(), Status> {
        // Without a commit there is no acknowledgement: the agent says it all again.
        let stepped = outcome.map_err(|error| Status::unavailable(error.to_string()))?;
        match what {
            What::Hello => {
                self.rim.agents.arrived();
                Ok(())
            }
            What::Beat(seq) => self.say(Answer::BeatAck(v1::BeatAck { seq, epoch: Some(stepped.epoch.into()) })).await,
            What::Report(seq) if stepped.reply == Some(Reply::Taken) => {
                self.say(Answer::ReportAck(v1::ReportAck { seq })).await
            }
            What::Report(_) => Err(Status::aborted("this session is not the node's present one")),
        }
    }

    async fn say(&mut self, answer: Answer) -> Result<(), Status> {
        let message = v1::ControllerMessage { kind: Some(answer) };
        self.out.send(Box::new(Ok(message))).await.map_err(|_| Status::cancelled("the agent went"))
    }
}
