//! Who calls, and whether they may.
//!
//! The gate stands before all services: it reads the caller from the client's
//! certificate, looks the call up in the one table of rules, and puts what it
//! refuses and what changes something on record. What only a handler can know,
//! whose job is meant, is asked through the [`Call`].

mod gate;
mod table;

use std::sync::{Arc, Mutex, PoisonError};

use runtime::tls::{Peer, Role};
use tonic::{Code, Status};

pub(crate) use gate::GateLayer;
use table::Rule;

use crate::api::refuse;
use crate::audit::{Audit, Entry};

/// Longest object on record, in characters.
const OBJECT: usize = 256;

/// One call, as its handler and the record see it; clones are the same call.
#[derive(Clone, Debug)]
pub(crate) struct Call(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    rule: &'static Rule,
    caller: Option<Peer>,
    /// The caller's address.
    from: String,
    object: Mutex<String>,
    audit: Audit,
}

impl Call {
    fn new(rule: &'static Rule, caller: Option<Peer>, from: String, audit: Audit) -> Self {
        Self(Arc::new(Inner { rule, caller, from, object: Mutex::default(), audit }))
    }

    /// Who calls; the rule has been looked at already.
    pub(crate) fn caller(&self) -> Result<&Peer, Status> {
        self.0.caller.as_ref().ok_or_else(unknown)
    }

    /// Says what the call is about, for the record.
    pub(crate) fn about(&self, object: &str) {
        let short = object.chars().take(OBJECT).collect();
        *self.0.object.lock().unwrap_or_else(PoisonError::into_inner) = short;
    }

    /// Whether the caller may touch a job of `owner`: users touch their own.
    pub(crate) fn may_touch(&self, job: &str, owner: &str) -> Result<(), Status> {
        let caller = self.caller()?;
        if caller.role >= Role::Operator || (caller.role != Role::Agent && caller.name == owner) {
            return Ok(());
        }
        let text = format!(
            "job `{job}` is `{owner}`'s: `{}` needs its owner or the role operator; `{}` is {}",
            self.0.rule.verb,
            caller.name,
            a_role(caller.role)
        );
        Err(refuse(Code::PermissionDenied, text, Some(format!("ask {owner}, an operator or an admin"))))
    }

    /// Puts on record that something was refused outside of the gate's sight: in a stream.
    pub(crate) fn refused(&self, why: &Status) {
        self.0.audit.note(self.entry("refused", why.message()));
    }

    fn entry(&self, result: &str, detail: &str) -> Entry {
        let (role, name, serial) = match &self.0.caller {
            Some(peer) => (peer.role.name(), peer.name.as_str(), peer.serial.as_str()),
            None => ("", "", ""),
        };
        Entry {
            at_ms: runtime::clock::now_ms(),
            who: name.to_owned(),
            role: role.to_owned(),
            serial: serial.to_owned(),
            from: self.0.from.clone(),
            verb: self.0.rule.verb.to_owned(),
            object: self.0.object.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            result: result.to_owned(),
            detail: detail.chars().take(OBJECT).collect(),
        }
    }
}

/// `an operator`, `a user`.
fn a_role(role: Role) -> String {
    let article = if matches!(role, Role::Agent | Role::Operator | Role::Admin) { "an" } else { "a" };
    format!("{article} {}", role.name())
}

fn unknown() -> Status {
    refuse(
        Code::Unauthenticated,
        "this call needs a client certificate of this cluster",
        Some("name the directory of your certificate, or ask an admin for a token: qctl login --help".to_owned()),
    )
}

fn too_little(verb: &str, least: Role, caller: &Peer) -> Status {
    let text = format!("`{verb}` needs the role {}; `{}` is {}", least.name(), caller.name, a_role(caller.role));
    let hint = match least {
        Role::Admin | Role::Controller => "ask an admin",
        Role::Operator => "ask an operator or an admin",
        Role::Agent | Role::Viewer | Role::User => "ask an admin for a token of that role: qctl token create --help",
    };
    refuse(Code::PermissionDenied, text, Some(hint.to_owned()))
}
