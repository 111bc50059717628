//! Following a job to its end, whatever happens to the connection.

mod bars;
mod lines;

use std::pin::Pin;
use std::time::Duration;

use proto::v1;
use runtime::backoff::Backoff;
use tonic::{Code, Status};

use crate::client::Client;
use crate::command::events;
use crate::failure::Failure;
use crate::output::{is_watched, say};

pub(crate) use lines::{left, remaining, training, working};

use bars::Bars;
use lines::Lines;

/// What is shown meanwhile.
pub(crate) enum Face {
    /// Nothing, but troubles of the connection.
    Quiet,
    /// Calm lines, for files and pipes.
    Lines(Lines),
    /// Bars that move, for people.
    Bars(Bars),
}

impl Face {
    /// The face that fits stderr.
    pub(crate) fn fitting() -> Self {
        if is_watched() { Self::Bars(Bars::new()) } else { Self::Lines(Lines::default()) }
    }

    fn show(&mut self, job: &v1::JobView) {
        match self {
            Self::Quiet => {}
            Self::Lines(lines) => lines.of(job, runtime::clock::now_ms()).iter().for_each(|line| say(line)),
            Self::Bars(bars) => bars.show(job),
        }
    }

    fn tell(&self, line: &str) {
        match self {
            Self::Quiet | Self::Lines(_) => say(line),
            Self::Bars(bars) => bars.tell(line),
        }
    }

    fn happened(&self, event: &v1::EventView) {
        if !matches!(self, Self::Quiet) && is_news(event) {
            self.tell(&events::line(event));
        }
    }

    fn end(&mut self) {
        if let Self::Bars(bars) = self {
            bars.end();
        }
    }
}

/// Whether an event says more than the stages and the conclusion do.
fn is_news(event: &v1::EventView) -> bool {
    let shown = matches!(event.kind.as_str(), "stage-failed" | "job-failed" | "job-cancelled");
    event.level != "info" && !shown
}

/// How following ended.
pub(crate) enum Followed {
    /// The job has ended, or come as far as was asked for.
    Ended(Box<v1::JobView>),
    /// By Ctrl-C.
    Left,
}

/// Whether another try may go better: the connection, not the question, is the trouble.
pub(crate) fn may_return(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded => true,
        // A connection that breaks within a stream.
        Code::Internal => std::error::Error::source(status).is_some() || status.message().contains("h2 protocol"),
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}

/// Follows the job `id` until it ends or Ctrl-C is pressed; events up to `after` are no news.
pub(crate) async fn follow(client: &Client, id: &str, face: Face, after: u64) -> Result<Followed, Failure> {
    follow_until(client, id, face, after, &|job| job.ended_ms > 0).await
}

/// Number of the last event that has happened to a job.
pub(crate) async fn last_event(client: &Client, id: &str) -> Result<u64, Failure> {
    let request = v1::EventsRequest { job: id.to_owned(), follow: false, after_seq: 0 };
    let mut events = client.clone().jobs.events(request).await?.into_inner();
    let mut last = 0;
    while let Some(event) = events.message().await? {
        last = event.seq;
    }
    Ok(last)
}

/// Follows the job `id` until `settled`, which every job that has ended is, or Ctrl-C is pressed.
pub(crate) async fn follow_until(
    client: &Client,
    id: &str,
    mut face: Face,
    after: u64,
    settled: &dyn Fn(&v1::JobView) -> bool,
) -> Result<Followed, Failure> {
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut session = Session { client: client.clone(), id, after, lost: false, backoff: backoff() };
    loop {
        let seen = tokio::select! {
            biased; // Ctrl-C wins over news
            _ = &mut interrupted => Ok(None),
            seen = session.watch(&mut face, settled) => seen.map(Some),
        };
        let ended = match seen {
            Ok(Some(Some(job))) => Some(Followed::Ended(Box::new(job))),
            Ok(None) => Some(Followed::Left),
            Ok(Some(None)) => None,
            Err(status) if may_return(&status) => None,
            Err(status) => {
                face.end();
                return Err(status.into());
            }
        };
        if let Some(ended) = ended {
            face.end();
            return Ok(ended);
        }
        if !std::mem::replace(&mut session.lost, true) {
            face.tell("controller unreachable, retrying");
        }
        if left_while_waiting(session.backoff.pause(), &mut interrupted).await {
            face.end();
            return Ok(Followed::Left);
        }
    }
}

/// Pauses before another try; whether Ctrl-C was pressed meanwhile.
pub(crate) async fn left_while_waiting(
    pause: Duration,
    interrupted: &mut Pin<&mut impl Future<Output = std::io::Result<()>>>,
) -> bool {
    tokio::select! {
        _ = interrupted => true,
        () = tokio::time::sleep(pause) => false,
    }
}

fn backoff() -> Backoff {
    Backoff::new(Duration::from_millis(200), Duration::from_secs(5))
}

struct Session<'a> {
    client: Client,
    id: &'a str,
    /// Last event that was shown.
    after: u64,
    /// Whether the connection is lost and that was said.
    lost: bool,
    backoff: Backoff,
}

impl Session<'_> {
    /// Shows views and events until `settled`; `None` if the stream ended before.
    async fn watch(
        &mut self,
        face: &mut Face,
        settled: &dyn Fn(&v1::JobView) -> bool,
    ) -> Result<Option<v1::JobView>, Status> {
        let request = v1::GetJobRequest { job: self.id.to_owned() };
        let mut views = self.client.jobs.watch(request).await?.into_inner();
        let mut events = self.events(true).await?;
        loop {
            tokio::select! {
                view = views.message() => match view? {
                    Some(job) => {
                        self.returned(face);
                        face.show(&job);
                        if settled(&job) {
                            self.rest_of_events(face).await;
                            return Ok(Some(job));
                        }
                    }
                    None => return Ok(None),
                },
                Some(event) = next_event(&mut events) => self.event(face, &event?),
            }
        }
    }

    fn returned(&mut self, face: &Face) {
        self.backoff.reset();
        if std::mem::take(&mut self.lost) {
            face.tell("controller reached again");
        }
    }

    fn event(&mut self, face: &Face, event: &v1::EventView) {
        if event.seq > self.after {
            self.after = event.seq;
            face.happened(event);
        }
    }

    async fn events(&mut self, follow: bool) -> Result<tonic::Streaming<v1::EventView>, Status> {
        let request = v1::EventsRequest { job: self.id.to_owned(), follow, after_seq: self.after };
        Ok(self.client.jobs.events(request).await?.into_inner())
    }

    /// Events that the ending overtook. They are news, not the result: a failure to get them is left alone.
    async fn rest_of_events(&mut self, face: &Face) {
        let Ok(mut events) = self.events(false).await else { return };
        while let Ok(Some(event)) = events.message().await {
            self.event(face, &event);
        }
    }
}

/// The next event; `None` disables the branch when there are no more.
async fn next_event(events: &mut tonic::Streaming<v1::EventView>) -> Option<Result<v1::EventView, Status>> {
    events.message().await.transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_show_elsewhere_are_not_repeated() {
        let event =
            |level: &str, kind: &str| v1::EventView { level: level.into(), kind: kind.into(), ..Default::default() };
        for (level, kind, news) in [
            ("info", "attempt-started", false),
            ("warn", "task-retried", true),
            ("error", "attempt-failed", true),
            ("error", "stage-failed", false),
            ("error", "job-failed", false),
        ] {
            assert_eq!(is_news(&event(level, kind)), news, "{kind}");
        }
    }

    #[test]
    fn only_troubles_of_the_connection_are_tried_again() {
        assert!(may_return(&Status::unavailable("gone")));
        assert!(may_return(&Status::internal("h2 protocol error: broken")));
        assert!(!may_return(&Status::internal("a log file could not be read")));
        assert!(!may_return(&Status::not_found("no job")));
        assert!(!may_return(&Status::permission_denied("no")));
    }
}
