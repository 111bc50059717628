//! Messages of an agent: decoded, then let through the door to the model.

use prost::Message as _;
use proto::v1;

pub(crate) fn run(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 4 {
        0 => {
            if let Ok(hello) = v1::Hello::decode(bytes) {
                let _ = proto::convert::hello_node(&hello, model::Timestamp(1));
                let _ = proto::convert::live_attempts(&hello.live);
            }
        }
        1 => drop(v1::Output::decode(bytes).map(model::Output::try_from)),
        2 => drop(v1::Failure::decode(bytes).map(model::Failure::try_from)),
        _ => drop(v1::FileRecord::decode(bytes).map(model::FileRecord::try_from)),
    }
}
