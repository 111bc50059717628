//! Which call needs which role: the one place that says so.

use runtime::tls::Role;

/// Who may make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Whoever reaches the port.
    Anyone,
    /// Whoever has a certificate of this cluster.
    Holder,
    /// An agent, for itself.
    Agent,
    /// A person or program of at least this role.
    Person(Role),
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    /// Looks.
    Reads,
    /// Changes something: each one is on record.
    Changes,
    /// A stream of its own, which says what it does.
    Streams,
}

/// One call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    /// As HTTP/2 names it.
    pub(crate) path: &'static str,
    /// As people name it.
    pub(crate) verb: &'static str,
    /// Who may.
    pub(crate) need: Need,
    /// What it does.
    pub(crate) does: Does,
}

const fn rule(path: &'static str, verb: &'static str, need: Need, does: Does) -> Rule {
    Rule { path, verb, need, does }
}

const VIEWER: Need = Need::Person(Role::Viewer);
const USER: Need = Need::Person(Role::User);
const OPERATOR: Need = Need::Person(Role::Operator);

/// What is not here is called by nobody.
pub(crate) const RULES: &[Rule] = &[
    rule("/qctl.v1.Jobs/Submit", "submit", USER, Does::Changes),
    // It asks agents about files.
    rule("/qctl.v1.Jobs/Plan", "plan", USER, Does::Reads),
    rule("/qctl.v1.Jobs/Get", "describe", VIEWER, Does::Reads),
    rule("/qctl.v1.Jobs/List", "ps", VIEWER, Does::Reads),
    rule("/qctl.v1.Jobs/Watch", "follow", VIEWER, Does::Reads),
    rule("/qctl.v1.Jobs/Logs", "logs", VIEWER, Does::Reads),
    rule("/qctl.v1.Jobs/Events", "events", VIEWER, Does::Reads),
    // Of one's own jobs, unless an operator asks.
    rule("/qctl.v1.Jobs/Cancel", "cancel", USER, Does::Changes),
    rule("/qctl.v1.Jobs/Restart", "restart", USER, Does::Changes),
    rule("/qctl.v1.Checkpoints/Verify", "ckpt verify", USER, Does::Changes),
    rule("/qctl.v1.Checkpoints/Pin", "ckpt pin", USER, Does::Changes),
    rule("/qctl.v1.Checkpoints/Delete", "ckpt rm", USER, Does::Changes),
    rule("/qctl.v1.Checkpoints/List", "ckpt ls", VIEWER, Does::Reads),
    rule("/qctl.v1.Nodes/List", "nodes", VIEWER, Does::Reads),
    rule("/qctl.v1.Nodes/Cordon", "cordon", OPERATOR, Does::Changes),
    rule("/qctl.v1.Nodes/Uncordon", "uncordon", OPERATOR, Does::Changes),
    rule("/qctl.v1.Nodes/Drain", "drain", OPERATOR, Does::Changes),
    rule("/qctl.v1.Nodes/Fence", "node fence", OPERATOR, Does::Changes),
    rule("/qctl.v1.Nodes/Spare", "node spare", OPERATOR, Does::Changes),
    rule("/qctl.v1.Cluster/Status", "status", VIEWER, Does::Reads),
    rule("/qctl.v1.Cluster/Audit", "audit", OPERATOR, Does::Reads),
    // Of agents; of people an admin.
    rule("/qctl.v1.Cluster/CreateToken", "token create", OPERATOR, Does::Changes),
    rule("/qctl.v1.Cluster/Revoke", "revoke", OPERATOR, Does::Changes),
    rule("/qctl.v1.Cluster/ListTokens", "token ls", OPERATOR, Does::Reads),
    rule("/qctl.v1.Cluster/ListCertificates", "certs", OPERATOR, Does::Reads),
    // One's own.
    rule("/qctl.v1.Cluster/Renew", "renew", Need::Holder, Does::Changes),
    // The token decides.
    rule("/qctl.v1.Cluster/Join", "join", Need::Anyone, Does::Changes),
    rule("/qctl.v1.Agents/Session", "session", Need::Agent, Does::Streams),
    rule("/qctl.v1.Agents/PushLogs", "push logs", Need::Agent, Does::Streams),
    // Where the leader is looked for.
    rule("/grpc.health.v1.Health/Check", "health", Need::Anyone, Does::Reads),
    rule("/grpc.health.v1.Health/Watch", "health", Need::Anyone, Does::Reads),
    rule("/grpc.health.v1.Health/List", "health", Need::Anyone, Does::Reads),
    rule("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "reflection", VIEWER, Does::Streams),
];

/// The rule of a call, if there is such a call.
pub(crate) fn of(path: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.path == path)
}

impl Need {
    /// Whether somebody of this role may; `None` is whoever has no certificate.
    pub(crate) fn admits(self, role: Option<Role>) -> bool {
        match (self, role) {
            (Self::Anyone, _) | (Self::Holder, Some(_)) | (Self::Agent, Some(Role::Agent)) => true,
            (Self::Person(least), Some(role)) => role != Role::Agent && role >= least,
            (Self::Agent, Some(_)) | (_, None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;

    use super::*;

    #[test]
    fn every_call_of_the_wire_has_one_rule_and_no_rule_is_without_a_call() {
        let set = prost_types::FileDescriptorSet::decode(proto::DESCRIPTOR).unwrap();
        let mut there = BTreeSet::new();
        for file in &set.file {
            for service in &file.service {
                let path = |method: &prost_types::MethodDescriptorProto| {
                    format!("/{}.{}/{}", file.package(), service.name(), method.name())
                };
                there.extend(service.method.iter().map(path));
            }
        }
        let ours = RULES.iter().filter(|rule| rule.path.starts_with("/qctl."));
        let ruled: BTreeSet<String> = ours.clone().map(|rule| rule.path.to_owned()).collect();
        assert_eq!(ruled, there);
        assert_eq!(ruled.len(), ours.count(), "a call has two rules");
    }

    #[test]
    fn who_may_what() {
        let table = [
            (Need::Anyone, [true, true, true, true, true, true, true]),
            (Need::Holder, [false, true, true, true, true, true, true]),
            (Need::Agent, [false, true, false, false, false, false, false]),
            (VIEWER, [false, false, true, true, true, true, true]),
            (USER, [false, false, false, true, true, true, true]),
            (OPERATOR, [false, false, false, false, true, true, true]),
            (Need::Person(Role::Admin), [false, false, false, false, false, true, true]),
        ];
        for (need, expected) in table {
            let roles = std::iter::once(None).chain(Role::ALL.map(Some));
            assert_eq!(roles.map(|role| need.admits(role)).collect::<Vec<_>>(), expected, "{need:?}");
        }
    }
}
