//! Nodes and what they say they run.

use std::collections::BTreeSet;

use model::{AttemptId, DeviceKind, Labels, Node, NodeId, Timestamp};

use super::{WireError, limit};
use crate::v1;

/// Most slots that a node may claim.
const SLOTS: u32 = 1024;

impl From<DeviceKind> for v1::DeviceKind {
    fn from(kind: DeviceKind) -> Self {
        match kind {
            DeviceKind::Ascend => Self::Ascend,
            DeviceKind::Cpu => Self::Cpu,
        }
    }
}

impl TryFrom<v1::DeviceKind> for DeviceKind {
    type Error = WireError;

    fn try_from(kind: v1::DeviceKind) -> Result<Self, WireError> {
        match kind {
            v1::DeviceKind::Ascend => Ok(Self::Ascend),
            v1::DeviceKind::Cpu => Ok(Self::Cpu),
            v1::DeviceKind::Unspecified => Err(WireError::Missing("device")),
        }
    }
}

/// The node that a greeting describes; `joined` is for one never seen before.
///
/// # Errors
///
/// [`WireError`] for the first field that is missing, too long or out of range.
pub fn hello_node(hello: &v1::Hello, joined: Timestamp) -> Result<Node, WireError> {
    let device = v1::DeviceKind::try_from(hello.device)
        .map_err(|_| WireError::Unknown { field: "device", given: hello.device.to_string() })?;
    if hello.boot_id.is_empty() {
        return Err(WireError::Missing("boot_id"));
    }
    if hello.address.is_empty() {
        return Err(WireError::Missing("address"));
    }
    if hello.slots > SLOTS {
        return Err(WireError::OutOfRange {
            field: "slots",
            given: u64::from(hello.slots),
            least: 0,
            most: u64::from(SLOTS),
        });
    }
    Ok(Node {
        id: NodeId::new(hello.node.as_str())?,
        boot_id: limit::text("boot_id", hello.boot_id.clone(), 64)?,
        hostname: limit::text("hostname", hello.hostname.clone(), 255)?,
        address: limit::text("address", hello.address.clone(), 255)?,
        version: limit::text("version", hello.version.clone(), 64)?,
        device: device.try_into()?,
        slots: hello.slots,
        labels: labels(hello)?,
        groups: groups(hello)?,
        spare: hello.spare,
        spare_word: None,
        cpus: hello.cpus,
        memory: hello.memory,
        joined,
        cordon: None,
        fence: None,
    })
}

fn labels(hello: &v1::Hello) -> Result<Labels, WireError> {
    if hello.labels.len() > Labels::MOST {
        return Err(WireError::TooLong { field: "labels", given: hello.labels.len(), limit: Labels::MOST });
    }
    let labels = hello.labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    Ok(Labels::new(labels)?)
}

fn groups(hello: &v1::Hello) -> Result<Vec<u32>, WireError> {
    let given = hello.slot_groups.len();
    if given > 0 && u32::try_from(given) != Ok(hello.slots) {
        let (least, most) = (u64::from(hello.slots), u64::from(hello.slots));
        return Err(WireError::OutOfRange { field: "slot_groups", given: given as u64, least, most });
    }
    Ok(hello.slot_groups.clone())
}

/// The attempts that an agent says it runs or holds results of.
///
/// # Errors
///
/// [`WireError`] if the list is absurdly long or an id is malformed.
pub fn live_attempts(live: &[v1::LiveAttempt]) -> Result<BTreeSet<AttemptId>, WireError> {
    if live.len() > limit::LIVE {
        return Err(WireError::TooLong { field: "live", given: live.len(), limit: limit::LIVE });
    }
    Ok(live.iter().map(|entry| entry.attempt.parse()).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> v1::Hello {
        v1::Hello {
            node: "n1".into(),
            boot_id: "b".into(),
            address: "127.0.0.1".into(),
            device: v1::DeviceKind::Cpu.into(),
            slots: 2,
            ..Default::default()
        }
    }

    #[test]
    fn a_greeting_is_checked_field_by_field() {
        assert_eq!(hello_node(&hello(), Timestamp(5)).unwrap().slots, 2);
        type Spoil = fn(&mut v1::Hello);
        let broken: [(&str, Spoil); 8] = [
            ("field `boot_id` is missing", |h| h.boot_id.clear()),
            ("field `address` is missing", |h| h.address.clear()),
            ("field `device` is missing", |h| h.device = 0),
            ("field `device` has the unknown value `77`", |h| h.device = 77),
            ("field `slot_groups` is 3, outside 2 to 2", |h| h.slot_groups = vec![0; 3]),
            ("label `a` has the value ``: 1 to 63 characters without spaces", |h| {
                h.labels.insert("a".into(), String::new());
            }),
            ("field `slots` is 5000, outside 0 to 1024", |h| h.slots = 5000),
            ("field `hostname` holds 300, more than the 255 allowed", |h| h.hostname = "h".repeat(300)),
        ];
        for (message, spoil) in broken {
            let mut wire = hello();
            spoil(&mut wire);
            assert_eq!(hello_node(&wire, Timestamp(5)).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn malformed_attempt_ids_are_refused() {
        let live = |id: &str| live_attempts(&[v1::LiveAttempt { attempt: id.into(), state: "running".into() }]);
        assert_eq!(live("j1.train.0.2").unwrap().len(), 1);
        assert!(live("j1.train.0").is_err() && live("../x.y.0.1").is_err());
    }
}
