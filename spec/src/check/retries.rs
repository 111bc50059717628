//! How often a failed task is tried again.

use model::Retries;

use super::context::Context;
use crate::file::{RetriesFile, RetriesKeys, Time};
use crate::tree::excerpt;

/// Most new tries within a window.
const MOST: u32 = 100;
const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;

/// The budget at `path`; `usual` new tries where it names no number.
pub(super) fn retries(path: &str, file: Option<RetriesFile>, usual: u32, context: &mut Context<'_>) -> Option<Retries> {
    let keys = match file {
        None => return Some(Retries::new(usual)),
        Some(RetriesFile::Max(max)) => {
            let max = context.number(path, max, 0, MOST.into())?;
            return Some(Retries::new(u32::try_from(max).unwrap_or(MOST)));
        }
        Some(RetriesFile::Keys(keys)) => keys,
    };
    let RetriesKeys { max, window, backoff } = keys;
    let max = context.number(&format!("{path}.max"), max.unwrap_or(usual), 0, MOST);
    let window = time(&format!("{path}.window"), window, (SECOND, 30 * DAY), Retries::WINDOW_MS, context);
    let backoff = time(&format!("{path}.backoff"), backoff, (100, HOUR), Retries::BACKOFF_MS, context);
    let retries = Retries { max: max?, window_ms: window?, backoff_ms: backoff? };
    if retries.pauses_ms() >= retries.window_ms {
        let message = format!(
            "a crash loop would never end: the pauses of {} tries take {}, and by then the first failures are forgotten",
            retries.max,
            spelled(retries.pauses_ms())
        );
        let hint = "take a longer `window`, a shorter `backoff` or a smaller `max`".to_owned();
        context.refuse(path, message, Some(hint));
        return None;
    }
    Some(retries)
}

/// The time limit at `path`, 1 s to 365 days; none where the file names none.
pub(super) fn limit(path: &str, file: Option<Time>, context: &mut Context<'_>) -> Option<Option<u64>> {
    if file.is_none() {
        return Some(None);
    }
    time(path, file, (SECOND, 365 * DAY), 0, context).map(Some)
}

/// A time within bounds, in milliseconds.
fn time(
    path: &str,
    file: Option<Time>,
    (least, most): (u64, u64),
    usual: u64,
    context: &mut Context<'_>,
) -> Option<u64> {
    let Some(Time(written)) = file else { return Some(usual) };
    let text = written.0;
    let Some(millis) = millis(&text) else {
        let hint = if text.bytes().all(|b| b.is_ascii_digit()) {
            format!("add the unit, as in `{}s`", excerpt(&text))
        } else {
            "as in `500ms`, `30s`, `10m`, `24h`, `7d`".to_owned()
        };
        let message = format!("`{}` is no time: a whole number with the unit ms, s, m, h or d", excerpt(&text));
        context.refuse(path, message, Some(hint));
        return None;
    };
    if millis < least || millis > most {
        let limits =
            if millis < least { format!("at least {}", spelled(least)) } else { format!("at most {}", spelled(most)) };
        context.refuse(path, format!("`{text}` is out of range: {limits}"), None);
        return None;
    }
    Some(millis)
}

fn millis(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let unit = match unit {
        "ms" => 1,
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => HOUR,
        "d" => DAY,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// As the file would spell it, in the largest unit that is exact.
fn spelled(millis: u64) -> String {
    let units = [(DAY, "d"), (HOUR, "h"), (60 * SECOND, "m"), (SECOND, "s")];
    let fits = units.iter().find(|(unit, _)| millis >= *unit && millis.is_multiple_of(*unit));
    fits.map_or_else(|| format!("{millis}ms"), |(unit, name)| format!("{}{name}", millis / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_numbers_with_a_unit() {
        let table = [("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("24h", DAY), ("7d", 7 * DAY), ("0s", 0)];
        for (text, want) in table {
            assert_eq!(millis(text), Some(want), "{text}");
            assert_eq!(millis(&spelled(want)), Some(want));
        }
        for text in
            ["", "s", "5", "1.5s", "-1s", "5 s", "5min", "1h30m", "99999999999999999999s", "999999999999999999d"]
        {
            assert_eq!(millis(text), None, "{text}");
        }
        assert_eq!((spelled(90_000), spelled(DAY), spelled(1_500)), ("90s".into(), "1d".into(), "1500ms".into()));
    }
}
