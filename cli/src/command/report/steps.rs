//! What a trainer's log says about its steps.
//!
//! ` [time] iteration 3/ 10 | consumed samples: 96 | elapsed time per iteration (ms): 20.1 | … | lm loss: 1.1E+01 |`

use std::collections::BTreeMap;

/// Lines of the log that are asked for.
pub(super) const PATTERN: &str = r"iteration +[0-9]+ */ *[0-9]+ *\|";

/// Steps by iteration: what a later attempt says of one counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Steps(BTreeMap<u64, Step>);

/// One logged iteration.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Step {
    loss: Option<f64>,
    step_ms: Option<f64>,
}

impl Steps {
    /// Takes in log lines of one attempt.
    pub(super) fn read(&mut self, text: &str) {
        self.0.extend(text.lines().filter_map(parse));
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The last iteration that was logged.
    pub(super) fn last(&self) -> Option<u64> {
        self.0.keys().next_back().copied()
    }

    /// First, last and lowest loss, each with its iteration.
    pub(super) fn losses(&self) -> Option<[(u64, f64); 3]> {
        let losses = || self.0.iter().filter_map(|(iteration, step)| Some((*iteration, step.loss?)));
        let best = losses().min_by(|a, b| a.1.total_cmp(&b.1))?;
        Some([losses().next()?, losses().next_back()?, best])
    }

    /// Median time of an iteration in milliseconds.
    pub(super) fn median_ms(&self) -> Option<f64> {
        let mut times: Vec<f64> = self.0.values().filter_map(|step| step.step_ms).collect();
        times.sort_by(f64::total_cmp);
        let middle = times.len() / 2;
        match times.len() {
            0 => None,
            odd if odd % 2 == 1 => Some(times[middle]),
            _ => Some(f64::midpoint(times[middle - 1], times[middle])),
        }
    }
}

/// Reads one line; fields are found by name, and each may be missing.
fn parse(line: &str) -> Option<(u64, Step)> {
    let (head, fields) = line.split_once('|')?;
    let (_, counts) = head.rsplit_once("iteration")?;
    let iteration = counts.split_once('/')?.0.trim().parse().ok()?;
    let mut step = Step::default();
    for (name, value) in fields.split('|').filter_map(|field| field.split_once(':')) {
        let number = || value.trim().parse().ok().filter(|number: &f64| number.is_finite());
        match name.trim() {
            "lm loss" | "loss" => step.loss = number(),
            "elapsed time per iteration (ms)" => step.step_ms = number(),
            _ => {}
        }
    }
    Some((iteration, step))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(iteration: u64, loss: &str, ms: f64) -> String {
        format!(
            " [2025-05-06 15:54:26] iteration {iteration:>8}/      10 | consumed samples: 8 | \
             elapsed time per iteration (ms): {ms} | lm loss: {loss} | loss scale: 1.0 |\n"
        )
    }

    #[test]
    fn a_later_attempt_has_the_last_word() {
        let mut steps = Steps::default();
        steps.read(&[line(1, "2.5", 900.0), line(2, "1.5", 100.0), "iteration 3\n".to_owned()].concat());
        steps.read(&[line(2, "1.75", 200.0), line(3, "1.0E+00", 300.0), line(4, "1.25", 400.0)].concat());
        assert_eq!(steps.count(), 4);
        assert_eq!(steps.losses(), Some([(1, 2.5), (4, 1.25), (3, 1.0)]));
        assert_eq!(steps.median_ms(), Some(350.0));
    }

    #[test]
    fn what_is_missing_is_unknown() {
        let mut steps = Steps::default();
        assert_eq!((steps.losses(), steps.median_ms()), (None, None));
        steps.read("iteration 1/ 4 | lm loss: nan |\niteration 2/ 4 | learning rate: 1 |\n");
        assert_eq!((steps.count(), steps.losses(), steps.median_ms()), (2, None, None));
    }
}
