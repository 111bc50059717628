//! `qctl plan`.

use std::fmt::Write as _;

use proto::v1;

use crate::client::Client;
use crate::failure::Failure;
use crate::file::Source;
use crate::output::{Format, print, print_json, print_line, print_yaml, say};
use crate::text::{one_line, plural, printable};
use crate::view::{Document, Plan};

/// Of what, and how.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  qctl plan -f pipeline.yaml --set parallel.tp=4")]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    source: Source,
    /// How the plan is written; `name` gives the stages
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Shows what would happen.
pub(crate) async fn run(args: &PlanArgs, client: Client) -> Result<(), Failure> {
    show(&args.source, args.output, client).await
}

/// As [`run`], for a submission that is only tried.
pub(crate) async fn show(source: &Source, format: Format, mut client: Client) -> Result<(), Failure> {
    let submit = source.request(None)?;
    let plan = client.jobs.plan(v1::PlanRequest { submit: Some(submit) }).await?.into_inner();
    match format {
        Format::Json => print_json(&Document::new(Plan::from(plan))),
        Format::Yaml => print_yaml(&Document::new(Plan::from(plan))),
        Format::Name => plan.stages.iter().try_for_each(|stage| print_line(&one_line(&stage.name))),
        Format::Table | Format::Wide => {
            print(&text(&plan))?;
            plan.warnings.iter().for_each(|warning| say(&format!("warning: {}", printable(warning))));
            Ok(())
        }
    }
}

fn text(plan: &v1::PlanReply) -> String {
    let mut text = format!("{}: {}\n", one_line(&plan.name), plural(plan.stages.len(), "stage"));
    // Writing to a string cannot fail.
    for stage in &plan.stages {
        let after = if stage.after.is_empty() { String::new() } else { format!(" after {}", stage.after.join(", ")) };
        let kind = if stage.kind == stage.name { String::new() } else { format!(" ({})", stage.kind) };
        let _ = writeln!(text, "\n{}", one_line(&format!("{}{kind}{after}", stage.name)));
        if !stage.reused_from.is_empty() {
            let _ = writeln!(text, "  reused from {}", one_line(&stage.reused_from));
            continue;
        }
        for task in &stage.tasks {
            let ranks = match task.ranks_per_node {
                0 | 1 => String::new(),
                ranks => format!(", {ranks} ranks each"),
            };
            let nodes = plural(usize::try_from(task.nodes).unwrap_or(usize::MAX), "node");
            let place = match task.placement.as_slice() {
                [] => "would wait".to_owned(),
                nodes => format!("on {}", nodes.join(", ")),
            };
            let _ = writeln!(text, "  {}", one_line(&format!("{}: {nodes}{ranks}; {place}", task.label)));
            for command in &task.commands {
                let argv: Vec<String> = command.argv.iter().map(|word| quoted(word)).collect();
                let _ = writeln!(text, "    {}: {}", one_line(&command.process), argv.join(" "));
            }
        }
    }
    for (title, list) in [("\ncorrections", &plan.corrections), ("\nnot seen, so not checked", &plan.unseen)] {
        if !list.is_empty() {
            let _ = writeln!(text, "{title}");
            list.iter().for_each(|line| text.push_str(&format!("  {}\n", one_line(line))));
        }
    }
    text
}

/// A word that a POSIX shell reads back as itself.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    if word.chars().any(char::is_control) {
        // $'…' is the one form that holds control characters on one line.
        return format!("$'{}'", one_line(&word.replace('\\', "\\\\").replace('\'', "\\'")));
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_can_be_pasted_into_a_shell() {
        let table = [("--tp=2", "--tp=2"), ("", "''"), ("a b", "'a b'"), ("it's", "'it'\\''s'"), ("a\nb", "$'a\\nb'")];
        for (word, text) in table {
            assert_eq!(quoted(word), text);
        }
    }

    #[test]
    fn a_plan_names_places_and_command_lines() {
        let command = v1::CommandLine { process: "rank".into(), argv: vec!["python".into(), "a b".into()] };
        let task = v1::PlannedTask {
            label: "all".into(),
            nodes: 2,
            ranks_per_node: 4,
            placement: vec!["n1".into(), "n2".into()],
            commands: vec![command],
        };
        let stage = v1::PlannedStage {
            name: "train".into(),
            kind: "train".into(),
            after: vec!["convert".into()],
            tasks: vec![task],
            reused_from: String::new(),
        };
        let plan = v1::PlanReply { name: "j".into(), stages: vec![stage], ..v1::PlanReply::default() };
        let wanted =
            "j: 1 stage\n\ntrain after convert\n  all: 2 nodes, 4 ranks each; on n1, n2\n    rank: python 'a b'\n";
        assert_eq!(text(&plan), wanted);
    }
}
