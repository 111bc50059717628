//! Log bytes from an agent to a reader.

use proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use crate::support::{Agent, Cluster, ended, holds, run_spec, submit, within};

struct Pusher {
    out: mpsc::Sender<v1::LogChunk>,
    held: Streaming<v1::LogHeld>,
}

impl Pusher {
    async fn open(cluster: &Cluster, node: &str) -> Self {
        let (out, chunks) = mpsc::channel(64);
        let held = cluster.agents(node).push_logs(ReceiverStream::new(chunks)).await.unwrap().into_inner();
        Self { out, held }
    }

    async fn push(&mut self, chunk: v1::LogChunk) -> Result<u64, tonic::Status> {
        self.out.send(chunk).await.unwrap();
        Ok(within(self.held.message()).await?.unwrap().offset)
    }
}

fn chunk(attempt: &str, source: &str, offset: u64, data: &str) -> v1::LogChunk {
    v1::LogChunk {
        attempt: attempt.into(),
        source: source.into(),
        offset,
        data: data.as_bytes().to_vec().into(),
        ..Default::default()
    }
}

async fn read(cluster: &Cluster, request: v1::LogsRequest) -> Vec<(String, String)> {
    let mut stream = cluster.jobs().logs(request).await.unwrap().into_inner();
    let mut read = Vec::new();
    while let Some(batch) = within(stream.message()).await.unwrap() {
        read.push((batch.source, String::from_utf8(batch.data.to_vec()).unwrap()));
    }
    read
}

fn of(job: &str) -> v1::LogsRequest {
    v1::LogsRequest { job: job.into(), ..Default::default() }
}

#[tokio::test]
async fn pushed_bytes_are_held_once_and_read_by_rank_and_tail() {
    let cluster = Cluster::start().await;
    let mut agent = Agent::join(&cluster, "n1").await;
    cluster.jobs().submit(submit(&run_spec("hello"))).await.unwrap();
    let work = agent.start_next().await.attempt;
    let mut pusher = Pusher::open(&cluster, "n1").await;
    let query = v1::LogChunk { query: true, ..chunk(&work, "worker_1", 0, "") };
    assert_eq!(pusher.push(query.clone()).await.unwrap(), 0);
    assert_eq!(pusher.push(chunk(&work, "worker_1", 0, "a\nb\nc")).await.unwrap(), 5);
    assert_eq!(pusher.push(chunk(&work, "worker_1", 2, "b\ncd\n")).await.unwrap(), 7);
    assert_eq!(pusher.push(chunk(&work, "worker_1", 100, "far")).await.unwrap(), 7);
    assert_eq!(pusher.push(chunk(&work, "worker_10", 0, "ten\n")).await.unwrap(), 4);
    assert_eq!(pusher.push(chunk(&work, "stdout", 0, "out\n")).await.unwrap(), 4);
    let mut again = Pusher::open(&cluster, "n1").await;
    assert_eq!(again.push(query).await.unwrap(), 7);

    let line = |source: &str, text: &str| (source.to_owned(), text.to_owned());
    let all = [line("stdout", "out\n"), line("worker_1", "a\nb\ncd\n"), line("worker_10", "ten\n")];
    assert_eq!(read(&cluster, of("hello")).await, all);
    let tail = v1::LogsRequest { tail: Some(1), ranks: vec![1], ..of("hello") };
    assert_eq!(read(&cluster, tail).await, [line("worker_1", "cd\n")]);
    let elsewhere = v1::LogsRequest { node: "n2".into(), ..of("hello") };
    let refused = cluster.jobs().logs(elsewhere).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::NotFound, "there is no node `n2`"));
    let grep = v1::LogsRequest { grep: "^c".into(), ..of("hello") };
    assert_eq!(read(&cluster, grep).await, [line("worker_1", "cd\n")]);
    let future = v1::LogsRequest { since_ms: u64::MAX / 2, ..of("hello") };
    assert!(read(&cluster, future).await.is_empty());
    let past = v1::LogsRequest { until_ms: 1, ..of("hello") };
    assert!(read(&cluster, past).await.is_empty());
    let ever = v1::LogsRequest { since_ms: 1, until_ms: u64::MAX, ..of("hello") };
    assert_eq!(read(&cluster, ever).await, all);
    let previous = v1::LogsRequest { previous: true, ..of("hello") };
    assert!(read(&cluster, previous).await.is_empty());
    let timed = v1::LogsRequest { times: true, ranks: vec![10], ..of("hello") };
    let batch = within(cluster.jobs().logs(timed).await.unwrap().into_inner().message()).await.unwrap().unwrap();
    assert_eq!(batch.marks.iter().map(|mark| mark.offset).collect::<Vec<_>>(), [0]);
    for wrong in [
        v1::LogsRequest { grep: "[".into(), ..of("hello") },
        v1::LogsRequest { follow: true, until_ms: 1, ..of("hello") },
        v1::LogsRequest { attempt: Some(1), previous: true, ..of("hello") },
    ] {
        let refused = cluster.jobs().logs(wrong.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{wrong:?}");
    }
    let stage = v1::LogsRequest { stage: "trian".into(), ..of("hello") };
    let refused = cluster.jobs().logs(stage).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::NotFound, "the job has no stage `trian`; it has `hello`"));
}

#[tokio::test]
async fn a_follower_sees_all_lines_and_then_the_end() {
    let cluster = Cluster::start().await;
    let mut agent = Agent::join(&cluster, "n1").await;
    cluster.jobs().submit(submit(&run_spec("hello"))).await.unwrap();
    let work = agent.start_next().await.attempt;
    let mut pusher = Pusher::open(&cluster, "n1").await;
    pusher.push(chunk(&work, "stdout", 0, "one\ntw")).await.unwrap();
    let follow = v1::LogsRequest { follow: true, ..of("hello") };
    let mut stream = cluster.jobs().logs(follow).await.unwrap().into_inner();
    let first = within(stream.message()).await.unwrap().unwrap();
    assert_eq!((&first.data[..], first.stage.as_str(), first.node.as_str()), (&b"one\n"[..], "hello", "n1"));
    pusher.push(chunk(&work, "stdout", 6, "o\nthree\n")).await.unwrap();
    let second = within(stream.message()).await.unwrap().unwrap();
    assert_eq!((&second.data[..], second.offset), (&b"two\nthree\n"[..], 4));
    agent.report(&work, ended("", Vec::new())).await;
    pusher.push(v1::LogChunk { done: true, ..chunk(&work, "stdout", 14, "rest") }).await.unwrap();
    let third = within(stream.message()).await.unwrap().unwrap();
    assert_eq!(&third.data[..], b"rest");
    assert!(within(stream.message()).await.unwrap().is_none());
}

#[tokio::test]
async fn an_agent_pushes_for_its_own_attempts_only() {
    let cluster = Cluster::start().await;
    let mut agent = Agent::join(&cluster, "n1").await;
    cluster.jobs().submit(submit(&run_spec("hello"))).await.unwrap();
    let work = agent.start_next().await.attempt;
    let mut stranger = Pusher::open(&cluster, "n2").await;
    let refused = stranger.push(chunk(&work, "stdout", 0, "mine")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let mut pusher = Pusher::open(&cluster, "n1").await;
    let refused = pusher.push(chunk(&work, "../../escape", 0, "x")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(!holds(cluster.dir.path(), "stdout.log"));
}

#[tokio::test]
async fn bytes_of_unknown_attempts_are_neither_kept_nor_in_the_way() {
    let cluster = Cluster::start().await;
    let mut agent = Agent::join(&cluster, "n1").await;
    cluster.jobs().submit(submit(&run_spec("hello"))).await.unwrap();
    let work = agent.start_next().await.attempt;
    let mut pusher = Pusher::open(&cluster, "n1").await;
    pusher.out.send(chunk("jzz.run.0.1", "stdout", 0, "who?")).await.unwrap();
    assert_eq!(pusher.push(chunk(&work, "stdout", 0, "hi\n")).await.unwrap(), 3);
    assert!(!holds(cluster.dir.path(), "jzz.run.0.1"));
}

#[tokio::test]
async fn lines_that_an_ended_seat_has_announced_are_waited_for() {
    let cluster = Cluster::start().await;
    let mut agent = Agent::join(&cluster, "n1").await;
    cluster.jobs().submit(submit(&run_spec("hello"))).await.unwrap();
    let work = agent.start_next().await.attempt;
    let mut pusher = Pusher::open(&cluster, "n1").await;
    let last = v1::LogChunk { done: true, ..chunk(&work, "stdout", 0, "all of it\n") };
    assert_eq!(pusher.push(last).await.unwrap(), 10);
    let end = |source: &str, bytes| v1::LogEnd { source: source.into(), bytes };
    let logs = Some(v1::LogEnds { ends: vec![end("stderr", 6), end("stdout", 10)] });
    let over = v1::report::What::Ended(v1::Ended { ok: true, logs, ..Default::default() });
    agent.tell(&work, over).await;
    // The job has ended, and what is here is said to be done: still one source is on its way.
    let mut stream = cluster.jobs().logs(of("hello")).await.unwrap().into_inner();
    assert_eq!(within(stream.message()).await.unwrap().unwrap().source, "stdout");
    assert_eq!(pusher.push(chunk(&work, "stderr", 0, "last\n")).await.unwrap(), 5);
    let batch = within(stream.message()).await.unwrap().unwrap();
    assert_eq!((batch.source.as_str(), &batch.data[..]), ("stderr", &b"last\n"[..]));
    assert_eq!(pusher.push(chunk(&work, "stderr", 5, "!")).await.unwrap(), 6);
    assert_eq!(&within(stream.message()).await.unwrap().unwrap().data[..], b"!");
    assert!(within(stream.message()).await.unwrap().is_none(), "nothing is missing");
    let known = v1::LogsRequest { ranks: vec![7], ..of("hello") };
    assert!(read(&cluster, known).await.is_empty());
}
