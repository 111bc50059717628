//! Single values: numbers with their ranges, and the ways to say "none".

use serde::{Serialize, Serializer};

/// A value is there but is none of what it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Strange;

/// A measured number; written without a fraction where it has none.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Quantity(pub f64);

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[allow(clippy::cast_possible_truncation, reason = "whole, and within what `quantity` lets through")]
        if self.0.fract() == 0.0 { serializer.serialize_i64(self.0 as i64) } else { serializer.serialize_f64(self.0) }
    }
}

/// Whether a text stands for "no value".
#[must_use]
pub(super) fn is_absent(text: &str) -> bool {
    let text = text.trim();
    ["", "-", "--", "na", "n/a", "nan"].iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// A number between `least` and `most`, or none where the tool says so.
///
/// # Errors
///
/// [`Strange`] for anything else, such as words, exponents, or numbers out of range.
pub(super) fn quantity(text: &str, least: f64, most: f64) -> Result<Option<Quantity>, Strange> {
    if is_absent(text) {
        return Ok(None);
    }
    let text = text.trim();
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = digits.len() <= 20 && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    if !plain || !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(Strange);
    }
    let number: f64 = text.parse().map_err(|_| Strange)?;
    if (least..=most).contains(&number) { Ok(Some(Quantity(number))) } else { Err(Strange) }
}

/// A whole number up to `most`, or none where the tool says so.
///
/// # Errors
///
/// [`Strange`] for anything else.
pub(super) fn whole(text: &str, most: u64) -> Result<Option<u64>, Strange> {
    if is_absent(text) {
        return Ok(None);
    }
    let text = text.trim();
    if !text.chars().all(|c| c.is_ascii_digit()) {
        return Err(Strange);
    }
    text.parse().ok().filter(|number| *number <= most).map(Some).ok_or(Strange)
}

/// An id of a card, chip or device.
///
/// # Errors
///
/// [`Strange`] for anything but a small number or none.
pub(super) fn id(text: &str) -> Result<Option<u32>, Strange> {
    Ok(whole(text, 65_535)?.and_then(|id| u32::try_from(id).ok()))
}

/// Megabytes; the tool counts by 1,024.
///
/// # Errors
///
/// [`Strange`] for anything but a number below a pebibyte, or none.
pub(super) fn mebibytes(text: &str) -> Result<Option<u64>, Strange> {
    whole(text, 1 << 30)
}

/// A PCI address: domain, bus, device and function.
#[must_use]
pub(super) fn is_bus_id(text: &str) -> bool {
    let hex = |part: &str, least: usize, most: usize| {
        (least..=most).contains(&part.len()) && part.chars().all(|c| c.is_ascii_hexdigit())
    };
    let Some((address, function)) = text.rsplit_once('.') else { return false };
    let parts: Vec<&str> = address.split(':').collect();
    let [domain, bus, device] = parts[..] else { return false };
    hex(domain, 4, 8) && hex(bus, 2, 2) && hex(device, 2, 2) && hex(function, 1, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_ranges_and_nothing_else_is_one() {
        for none in ["", " ", "-", "NA", "na", "N/A", "NaN", "nan", "--"] {
            assert_eq!(quantity(none, 0.0, 9.0), Ok(None), "{none}");
            assert_eq!(whole(none, 9), Ok(None), "{none}");
        }
        assert_eq!(quantity(" 101.8 ", 0.0, 1e6), Ok(Some(Quantity(101.8))));
        assert_eq!(quantity("-5", -50.0, 100.0), Ok(Some(Quantity(-5.0))));
        for strange in ["inf", "1e3", "1e999", "0x10", "+5", ".", "1.2.3", "9999999999999999999999", "10", "OK", "5 W"]
        {
            assert_eq!(quantity(strange, 0.0, 9.0), Err(Strange), "{strange}");
            assert_eq!(whole(strange, 9), Err(Strange), "{strange}");
        }
        assert_eq!(whole("18446744073709551616", u64::MAX), Err(Strange));
    }

    #[test]
    fn whole_quantities_are_written_without_a_fraction() {
        let written = serde_json::to_string(&[Quantity(43.0), Quantity(101.8)]).unwrap();
        assert_eq!(written, "[43,101.8]");
    }

    #[test]
    fn a_bus_id_is_a_pci_address() {
        for good in ["0000:C1:00.0", "0000:9e:1f.7", "00010000:01:00.0"] {
            assert!(is_bus_id(good), "{good}");
        }
        for bad in ["", "NA", "OK", "0000:C1:00", "C1:00.0", "0000:C1:00.00", "0000:G1:00.0", "0:0:0.0", ":::."] {
            assert!(!is_bus_id(bad), "{bad}");
        }
    }
}
