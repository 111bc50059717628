//! The submission's text, and what is wrong with it.

use proto::v1;
use spec::{Problem, Spec};
use tonic::Status;

/// Most `--set` values of one submission.
const SETS: usize = 256;
/// Longest text of other fields, in bytes.
const TEXT: usize = 256;

/// Reads and checks the file of a submission.
pub(super) fn parse(request: &v1::SubmitRequest) -> Result<Spec, Status> {
    let fields =
        [("source_name", &request.source_name), ("name", &request.name), ("idempotency_key", &request.idempotency_key)];
    for (field, text) in fields {
        if text.len() > TEXT {
            return Err(Status::invalid_argument(format!("field `{field}` is longer than {TEXT} bytes")));
        }
    }
    if request.set.len() > SETS {
        return Err(Status::invalid_argument(format!("more than {SETS} values are set")));
    }
    let sets: Vec<(String, String)> = request.set.iter().map(|set| (set.path.clone(), set.value.clone())).collect();
    let source = if request.source_name.is_empty() { "spec" } else { request.source_name.as_str() };
    spec::parse_with_overrides(&request.spec, source, &sets).map_err(|problems| refused(&problems, &[]))
}

/// A refusal that lists all problems with their hints, and what agents said on the way.
pub(super) fn refused(problems: &[Problem], remarks: &[String]) -> Status {
    let mut text = spec::render(problems);
    for remark in remarks {
        text.push('\n');
        text.push_str(remark);
    }
    // Bounded: a status travels in headers.
    let text: String = text.chars().take(6000).collect();
    Status::invalid_argument(text)
}
