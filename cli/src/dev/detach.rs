//! `qctl dev --detach`.

use std::process::Stdio;
use std::time::Instant;

use tokio::process::{Child, Command};

use super::place::{Place, Record};
use super::supervisor::{LOOK, PATIENCE, whose};
use super::{Device, Shape};
use crate::command::own;
use crate::failure::{Exit, Failure};
use crate::output::say;
use crate::text::plural;

/// Starts a supervisor in the background unless one runs, and waits until all is ready.
pub(super) async fn run(place: &Place, shape: &Shape) -> Result<(), Failure> {
    place.prepare()?;
    let Some(held) = place.hold()? else {
        let record = ready(place, None).await?;
        say(&format!("qctl dev runs already{}", whose(place)));
        differs(&record, shape).iter().for_each(|line| say(line));
        return Ok(());
    };
    // The supervisor takes it; of two that start at once, one finds it taken.
    drop(held);
    let mut supervisor = start(place, shape)?;
    let record = ready(place, Some(&mut supervisor)).await?;
    let agents = plural(usize::try_from(record.agents).unwrap_or(0), "agent");
    let slots = plural(usize::try_from(record.slots).unwrap_or(0), "slot");
    say(&format!("ready: {agents} of {slots} ({}), controller at {}", record.device, record.endpoint));
    Ok(())
}

fn start(place: &Place, shape: &Shape) -> Result<Child, Failure> {
    let log = |error: std::io::Error| Failure::because("the log could not be opened", &error);
    let errors = place.open_log("dev").map_err(log)?;
    let out = errors.try_clone().map_err(log)?;
    let mut command = Command::new(own()?);
    command.arg("--state-dir").arg(place.root()).args(["dev", "--supervise"]);
    command.args(["--agents", &shape.agents.to_string(), "--slots", &shape.slots.to_string()]);
    command.args(["--device", Device::name(shape.device)]);
    command.stdin(Stdio::null()).stdout(out).stderr(errors).current_dir(place.root());
    command.spawn().map_err(|error| Failure::because("the background process could not be started", &error))
}

/// Waits until the one that holds the place has all ready.
async fn ready(place: &Place, mut supervisor: Option<&mut Child>) -> Result<Record, Failure> {
    let began = Instant::now();
    loop {
        if let Some(record) = place.record().filter(|record| record.ready && record.supervisor.lives()) {
            return Ok(record);
        }
        let ended = match supervisor.as_deref_mut() {
            Some(supervisor) => supervisor.try_wait().ok().flatten(),
            None => None,
        };
        // One that ends well has found that another runs.
        if ended.is_some_and(|status| !status.success()) {
            let mut tail = place.log_tail("dev", 20);
            let first = tail.iter().rposition(|line| line.starts_with("error: ")).unwrap_or(0);
            let said = tail.split_off(first).join("\n");
            let said = said.strip_prefix("error: ").unwrap_or(&said);
            let failure = Failure::new(Exit::Failed, format!("qctl dev did not start: {said}"));
            return Err(failure.hint(format!("its whole log: {}", place.log("dev").display())));
        }
        if began.elapsed() > PATIENCE * 2 {
            let failure = Failure::new(Exit::Failed, "qctl dev is not ready");
            return Err(failure.hint(format!("see its log: {}", place.log("dev").display())));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What runs is not what was asked for.
fn differs(record: &Record, shape: &Shape) -> Option<String> {
    let device = shape.device.name();
    let same = (record.agents, record.slots, record.device.as_str()) == (shape.agents, shape.slots, device);
    (!same).then(|| {
        format!(
            "warning: it has --agents {} --slots {} --device {}; to change that, stop it first: qctl dev stop",
            record.agents, record.slots, record.device
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_shape_is_told() {
        let record = Record { agents: 2, slots: 2, device: "cpu".into(), ..Record::default() };
        let shape = |agents| Shape { agents, slots: 2, device: Device::Cpu };
        assert_eq!(differs(&record, &shape(2)), None);
        assert!(differs(&record, &shape(3)).unwrap().contains("--agents 2 --slots 2"));
    }
}
