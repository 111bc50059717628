//! The order of stages.

use crate::check::context::Context;
use crate::nearest::nearest;
use crate::spec::Stage;

/// Resolves `after`, and puts stages behind those they wait for.
///
/// `named` pairs each stage, whose `after` holds the usual stages, with those
/// the file names. Among stages that could come next, the file's order decides.
/// Unknown names and circles are only looked for when all stages are known.
pub(super) fn order(named: Vec<(Stage, Vec<String>)>, complete: bool, context: &mut Context<'_>) -> Option<Vec<Stage>> {
    let names: Vec<String> = named.iter().map(|(stage, _)| stage.name.clone()).collect();
    let mut sound = true;
    let mut waiting: Vec<Stage> = Vec::new();
    for (mut stage, extra) in named {
        for (index, other) in extra.into_iter().enumerate() {
            let path = format!("stages.{}.after.{index}", stage.name);
            if other == stage.name {
                context.refuse(&path, format!("stage `{other}` waits for itself"), Some("remove it".to_owned()));
                sound = false;
            } else if !names.contains(&other) {
                if complete {
                    let others: Vec<&str> =
                        names.iter().map(String::as_str).filter(|name| *name != stage.name).collect();
                    let hint = match nearest(&other, others.iter().copied()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("the other stages are {}", crate::decode::list(&others)),
                    };
                    context.refuse(&path, format!("there is no stage `{}`", crate::tree::excerpt(&other)), Some(hint));
                }
                sound = false;
            } else if !stage.after.contains(&other) {
                stage.after.push(other);
            }
        }
        waiting.push(stage);
    }
    if !sound || !complete {
        return None;
    }
    let mut ordered: Vec<Stage> = Vec::new();
    while !waiting.is_empty() {
        let ready = waiting
            .iter()
            .position(|stage| stage.after.iter().all(|other| ordered.iter().any(|done| done.name == *other)));
        match ready {
            Some(index) => ordered.push(waiting.remove(index)),
            None => {
                let circle = circle(&waiting);
                let first = circle.first().cloned().unwrap_or_default();
                context.refuse(
                    &format!("stages.{first}"),
                    format!("stages wait for each other in a circle: {}", circle.join(" -> ")),
                    Some("take one of them out of an `after`".to_owned()),
                );
                return None;
            }
        }
    }
    Some(ordered)
}

/// A circle among stages of which each waits for another one of them.
fn circle(waiting: &[Stage]) -> Vec<String> {
    let mut path: Vec<String> = Vec::new();
    let mut current = waiting.first();
    while let Some(stage) = current {
        if let Some(start) = path.iter().position(|name| *name == stage.name) {
            path.push(stage.name.clone());
            return path.split_off(start);
        }
        path.push(stage.name.clone());
        current = stage.after.iter().find_map(|name| waiting.iter().find(|other| other.name == *name));
    }
    path
}
