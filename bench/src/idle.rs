//! What it costs to do nothing.

use std::time::Duration;

use crate::lab::Lab;
use crate::processes;
use crate::verdict::Verdict;

/// How long nothing is done.
const SPAN: Duration = Duration::from_secs(20);
/// How long things may settle before.
const SETTLE: Duration = Duration::from_secs(3);

pub(crate) async fn measure(_lab: &Lab) -> anyhow::Result<Vec<Verdict>> {
    tokio::time::sleep(SETTLE).await;
    let before = processes::spent();
    tokio::time::sleep(SPAN).await;
    let share = (processes::spent().saturating_sub(before)).as_secs_f64() / SPAN.as_secs_f64() * 100.0;
    Ok(vec![Verdict::below("idle: controller and 2 agents, share of a core over 20 s", share, 0.5, " %")])
}
