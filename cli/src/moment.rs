//! Points of time and durations on the command line.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// A point of time: by its name, or so long before another clock's present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Milliseconds since 1970.
    At(u64),
    /// Milliseconds ago.
    Ago(u64),
}

impl Moment {
    /// Reads `10m`, `2h`, `2031-02-03T04:05:06Z` or, in the local time zone, `2031-02-03 04:05`.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        if let Some(ms) = ago(text) {
            return Ok(Self::Ago(ms));
        }
        let stamp = text.parse::<Timestamp>().ok().or_else(|| {
            let local: DateTime = text.parse().ok()?;
            TimeZone::system().to_timestamp(local).ok()
        });
        let ms = stamp.and_then(|stamp| u64::try_from(stamp.as_millisecond()).ok());
        ms.map(Self::At).ok_or_else(|| {
            format!("`{text}` is no time; expected as in `10m`, `2h`, `3d` (ago) or `2031-02-03T04:05:06Z`, `2031-02-03 04:05`")
        })
    }

    /// Milliseconds since 1970, where it is `now_ms`.
    pub(crate) fn on(self, now_ms: u64) -> u64 {
        match self {
            Self::At(ms) => ms,
            // 0 is no time on the wire.
            Self::Ago(ms) => now_ms.saturating_sub(ms).max(1),
        }
    }
}

fn ago(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match &text[digits..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// Reads `30s`, `5m`, `2h`, `500ms` or plain seconds; milliseconds, a day at most.
pub(crate) fn span(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no time; expected as in `500ms`, `30s`, `5m`, `2h`");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit = match &text[digits..] {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).filter(|ms| *ms <= 86_400_000).ok_or_else(|| format!("`{text}` is more than a day"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_an_end() {
        let table = [("500ms", 500), ("30", 30_000), ("30s", 30_000), ("5m", 300_000), ("24h", 86_400_000)];
        for (text, ms) in table {
            assert_eq!(span(text), Ok(ms), "{text}");
        }
        for text in ["", "s", "5d", "-1s", "1.5s", "25h", "99999999999999999999s"] {
            assert!(span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_points_or_so_long_ago() {
        let table = [
            ("10m", Moment::Ago(600_000)),
            ("3d", Moment::Ago(259_200_000)),
            ("2023-11-14T22:13:20Z", Moment::At(1_700_000_000_000)),
            ("2023-11-14T23:13:20+01:00", Moment::At(1_700_000_000_000)),
        ];
        for (text, moment) in table {
            assert_eq!(Moment::read(text), Ok(moment), "{text}");
        }
        assert!(matches!(Moment::read("2023-11-14 22:13"), Ok(Moment::At(_))));
        for text in ["", "10", "10x", "yesterday", "1969-01-01T00:00:00Z"] {
            assert!(Moment::read(text).is_err(), "{text}");
        }
        assert_eq!((Moment::Ago(5).on(12), Moment::Ago(50).on(12), Moment::At(3).on(12)), (7, 1, 3));
    }
}
