//! `qctl dev stop`.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::jobs;
use super::place::Place;
use super::supervisor::{LOOK, end_leftovers};
use crate::failure::{Exit, Failure};
use crate::output::say;

/// How long an orderly stop may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Stops the supervisor, and so all; stopping what does not run is no mistake.
pub(super) async fn run(place: &Place, stop_ranks: bool) -> Result<(), Failure> {
    if !place.root().is_dir() {
        say(&format!("nothing runs: there is no `{}`", place.root().display()));
        return Ok(());
    }
    if let Some(_held) = place.hold()? {
        end_leftovers(place).await;
        place.forget_controller()?;
        say("nothing runs");
        return Ok(());
    }
    let Some(record) = place.record().filter(|record| record.supervisor.lives()) else {
        let failure = Failure::new(Exit::Failed, "another process holds the state directory");
        return Err(failure.hint("it may be starting; try again in a moment"));
    };
    jobs::settle(place, stop_ranks).await;
    record.supervisor.signal(Signal::TERM);
    let began = Instant::now();
    while place.hold()?.is_none() {
        if began.elapsed() >= PATIENCE {
            let message = format!("process {} did not end in {} s", record.supervisor.pid, PATIENCE.as_secs());
            return Err(
                Failure::new(Exit::Failed, message).hint(format!("see its log: {}", place.log("dev").display()))
            );
        }
        tokio::time::sleep(LOOK).await;
    }
    say("stopped");
    Ok(())
}
