//! Refusals with a hint that a program can find.

use std::fmt::Write as _;

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// Key under which a refusal carries its hint, percent-encoded.
const HINT: &str = "qctl-hint";

/// A refusal; `hint` is the next thing to try.
pub(crate) fn refuse(code: Code, message: impl Into<String>, hint: Option<String>) -> Status {
    let mut status = Status::new(code, message);
    if let Some(value) = hint.and_then(|hint| MetadataValue::try_from(percent(&hint)).ok()) {
        status.metadata_mut().insert(HINT, value);
    }
    status
}

/// Encodes what is not printable ASCII, and `%` itself (RFC 3986, section 2.1).
fn percent(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (0x20..0x7f).contains(&byte) && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_travel_as_ascii() {
        let status = refuse(Code::NotFound, "no", Some("50 % or\n日".to_owned()));
        assert_eq!(status.metadata().get(HINT).unwrap().to_str().unwrap(), "50 %25 or%0A%E6%97%A5");
        assert!(refuse(Code::NotFound, "no", None).metadata().is_empty());
    }
}
