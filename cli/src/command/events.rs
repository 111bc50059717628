//! `qctl events`.

use std::time::Duration;

use clap_complete::ArgValueCompleter;
use proto::v1;
use runtime::backoff::Backoff;

use super::completion;
use super::follow::may_return;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Format, print_line, print_record, record, say};
use crate::text::{one_line, time};
use crate::view::Event;

/// Whose events, and how.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  qctl events last -f")]
pub(crate) struct EventsArgs {
    /// The job
    #[arg(add = ArgValueCompleter::new(completion::jobs))]
    job: String,
    /// Goes on until the job has ended
    #[arg(short, long)]
    follow: bool,
    /// How events are written: in json one record a line, in yaml one document each; `name` gives their kinds
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Lists events.
pub(crate) async fn run(args: &EventsArgs, mut client: Client) -> Result<(), Failure> {
    let job = client.jobs.get(v1::GetJobRequest { job: args.job.clone() }).await?.into_inner().id;
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let (mut after_seq, mut told) = (0, false);
    loop {
        let request = v1::EventsRequest { job: job.clone(), follow: args.follow, after_seq };
        let lost = match client.jobs.events(request).await {
            Ok(reply) => {
                let mut events = reply.into_inner();
                loop {
                    match events.message().await {
                        Ok(Some(event)) => {
                            (after_seq, told) = (event.seq, false);
                            backoff.reset();
                            write(event, args.output)?;
                        }
                        Ok(None) => return Ok(()),
                        Err(status) => break status,
                    }
                }
            }
            Err(status) => status,
        };
        if !args.follow || !may_return(&lost) {
            return Err(lost.into());
        }
        if !std::mem::replace(&mut told, true) {
            say("controller unreachable, retrying");
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}

fn write(event: v1::EventView, format: Format) -> Result<(), Failure> {
    let head = match format {
        Format::Json => return print_record(&Event::from(event)),
        Format::Yaml => return print_line(&record(&Event::from(event), format)?),
        Format::Name => return print_line(&one_line(&event.kind)),
        Format::Table => time(event.at_ms),
        Format::Wide => one_line(&format!("{}  {:>4}  {:<18}", time(event.at_ms), event.seq, event.kind)),
    };
    print_line(&format!("{head}  {}", line(&event)))?;
    event.evidence.iter().try_for_each(|proof| print_line(&format!("    {}", one_line(proof))))
}

/// `warn   train node-1 rank 3: message`.
pub(crate) fn line(event: &v1::EventView) -> String {
    let mut about: Vec<String> = [&event.stage, &event.node].into_iter().filter(|t| !t.is_empty()).cloned().collect();
    about.extend(event.rank.map(|rank| format!("rank {rank}")));
    let about = if about.is_empty() { String::new() } else { format!("{}: ", about.join(" ")) };
    one_line(&format!("{:<5}  {about}{}", event.level, event.message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_that_says_whom_it_is_about() {
        let event = v1::EventView {
            level: "warn".into(),
            stage: "train".into(),
            rank: Some(3),
            message: "odd\nthing".into(),
            ..v1::EventView::default()
        };
        assert_eq!(line(&event), "warn   train rank 3: odd\\nthing");
        assert_eq!(line(&v1::EventView { level: "info".into(), message: "m".into(), ..event_of_nobody() }), "info   m");
    }

    fn event_of_nobody() -> v1::EventView {
        v1::EventView::default()
    }
}
