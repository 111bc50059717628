//! Stages that an earlier job has made.

use proto::v1;
use store::Memory;

use crate::support::{Agent, Cluster, ended, submit, within};

const PIPELINE: &str = "\
name: tiny
workdir: /data
parallel: { tp: 1, pp: 2 }
model: { hf_dir: ./hf }
runtime: { device: cpu }
stages:
  convert: { save_dir: ./mcore }
";

const MODEL: &str = r#"{"shape":{"model_type":"qwen2","hidden_size":64,"ffn_hidden_size":128,"num_layers":4,
"num_attention_heads":4,"num_query_groups":2,"kv_channels":16,"vocab_size":1000,"max_position_embeddings":512,
"rope_theta":1e6,"rms_norm_eps":1e-6,"tied":false,"qkv_bias":true,"qk_norm":false,"dtype":"bf16"},"files":[],
"bytes":1000000,"config_digest":"blake3:aa","weights_digest":"blake3:bb","remarks":[]}"#;

fn file(path: &str, digest: &str) -> v1::FileRecord {
    v1::FileRecord { path: path.into(), size: 7, digest: digest.into() }
}

/// Submits, while the agent answers what it is asked.
async fn submit_seen(
    cluster: &Cluster,
    agent: &mut Agent,
    request: v1::SubmitRequest,
    digests: Option<Vec<v1::FileRecord>>,
) -> v1::SubmitReply {
    let mut jobs = cluster.jobs();
    let answers = async {
        agent
            .answer_survey(|request| {
                assert_eq!((request.workdir.as_str(), request.hf_dir.as_str()), ("/data", "./hf"));
                v1::SurveyAnswer { model_json: MODEL.into(), ..Default::default() }
            })
            .await;
        if let Some(digests) = digests {
            agent
                .answer_survey(|request| {
                    assert_eq!(request.digest_files, ["/data/mcore/shard"]);
                    v1::SurveyAnswer { digests, ..Default::default() }
                })
                .await;
        }
    };
    let (reply, ()) = within(async { tokio::join!(jobs.submit(request), answers) }).await;
    reply.unwrap().into_inner()
}

async fn run_convert(agent: &mut Agent) -> Vec<v1::Assignment> {
    let mut shards = Vec::new();
    for _ in 0..2 {
        let work = agent.start_next().await;
        shards.push(work);
    }
    for shard in &shards {
        agent.tell(&shard.attempt, ended(&format!("/data/part of {}", shard.attempt), Vec::new())).await;
    }
    let closing = agent.start_next().await;
    agent.tell(&closing.attempt, ended("", vec![file("/data/mcore/shard", "blake3:cc")])).await;
    shards.push(closing);
    shards
}

#[tokio::test]
async fn an_equal_stage_is_taken_over_while_its_results_are_there() {
    let cluster = Cluster::start_on(tempfile::tempdir().unwrap(), Memory::new()).await;
    let mut agent = Agent::join(&cluster, "n1").await;
    let first = submit_seen(&cluster, &mut agent, submit(PIPELINE), None).await;
    assert!(first.reused.is_empty());
    let work = run_convert(&mut agent).await;
    let manifest: Vec<(&str, &str)> =
        work[2].manifest.iter().map(|entry| (entry.task.as_str(), entry.path.as_str())).collect();
    let paths: Vec<String> = work[..2].iter().map(|shard| format!("/data/part of {}", shard.attempt)).collect();
    assert_eq!(manifest, [("0,0", paths[0].as_str()), ("0,1", paths[1].as_str())]);

    let there = Some(vec![file("/data/mcore/shard", "blake3:cc")]);
    let second = submit_seen(&cluster, &mut agent, submit(PIPELINE), there.clone()).await;
    assert_eq!(second.reused.len(), 1);
    let expected = format!("convert: same inputs and options as job {} (digest ", first.id);
    assert!(second.reused[0].starts_with(&expected), "{}", second.reused[0]);
    let view = cluster.jobs().get(v1::GetJobRequest { job: second.id.clone() }).await.unwrap().into_inner();
    assert_eq!((view.phase.as_str(), view.stages[0].phase.as_str()), ("succeeded", "reused"));
    assert_eq!(view.stages[0].reused_from, first.id);

    let third = submit_seen(&cluster, &mut agent, submit(PIPELINE), there).await;
    assert!(third.reused[0].contains(&first.id), "the origin, not the copy: {}", third.reused[0]);

    let changed = Some(vec![file("/data/mcore/shard", "blake3:dd")]);
    // Both of the earlier jobs are asked about, and each answer differs.
    let mut jobs = cluster.jobs();
    let answers = async {
        agent.answer_survey(|_| v1::SurveyAnswer { model_json: MODEL.into(), ..Default::default() }).await;
        for _ in 0..3 {
            let digests = changed.clone().unwrap();
            agent.answer_survey(|_| v1::SurveyAnswer { digests, ..Default::default() }).await;
        }
    };
    let (fourth, ()) = within(async { tokio::join!(jobs.submit(submit(PIPELINE)), answers) }).await;
    assert!(fourth.unwrap().into_inner().reused.is_empty());
}

#[tokio::test]
async fn other_options_make_another_stage() {
    let cluster = Cluster::start().await;
    let mut agent = Agent::join(&cluster, "n1").await;
    submit_seen(&cluster, &mut agent, submit(PIPELINE), None).await;
    run_convert(&mut agent).await;
    let set = vec![v1::SetValue { path: "stages.convert.dtype".into(), value: "fp32".into() }];
    let other = v1::SubmitRequest { set, ..submit(PIPELINE) };
    let reply = submit_seen(&cluster, &mut agent, other, None).await;
    assert!(reply.reused.is_empty());
}

#[tokio::test]
async fn an_agent_that_goes_while_it_is_asked_says_nothing_about_files() {
    let cluster = Cluster::patient().await;
    let mut going = Agent::join(&cluster, "n1").await;
    let mut jobs = cluster.jobs();
    let answers = async {
        // Asked, it goes; the next one to come is asked instead.
        while !matches!(going.next().await, v1::controller_message::Kind::Survey(_)) {}
        drop(going);
        let mut coming = Agent::join(&cluster, "n1").await;
        coming.answer_survey(|_| v1::SurveyAnswer { model_json: MODEL.into(), ..Default::default() }).await;
        coming
    };
    let (reply, _coming) = within(async { tokio::join!(jobs.submit(submit(PIPELINE)), answers) }).await;
    assert!(!reply.unwrap().into_inner().id.is_empty());
}
