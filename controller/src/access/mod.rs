//! Who calls, and whether they may.
//!
//! The gate stands before all services: it reads the caller from the client's
//! certificate, looks the call up in the one table of rules, and puts what it
//! refuses and what changes something on record. What only a handler can know,
//! whose job is meant, is asked through the [`Call`].

mod gate;
mod ledger;
mod rates;
mod slow;
mod table;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use model::Certificate;
use runtime::tls::{Peer, Role};
use tonic::{Code, Status};

pub(crate) use gate::{GateLayer, known};
pub(crate) use ledger::{Answer, Ask, Board, Change, Ledger};
use table::{Need, Rule};

use crate::api::refuse;
use crate::audit::{Audit, Entry};

/// Longest object on record, in characters.
const OBJECT: usize = 256;
/// Most people that a refusal names.
const NAMED: usize = 4;

/// One call, as its handler and the record see it; clones are the same call.
#[derive(Clone, Debug)]
pub(crate) struct Call(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    rule: &'static Rule,
    caller: Option<Arc<Peer>>,
    /// The caller's address.
    from: String,
    object: Mutex<String>,
    audit: Audit,
    board: Board,
}

impl Call {
    fn new(rule: &'static Rule, caller: Option<Arc<Peer>>, from: String, audit: Audit, board: Board) -> Self {
        Self(Arc::new(Inner { rule, caller, from, object: Mutex::default(), audit, board }))
    }

    /// Who calls; the rule has been looked at already.
    pub(crate) fn caller(&self) -> Result<&Peer, Status> {
        self.0.caller.as_deref().ok_or_else(unknown)
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
        let hint = format!("ask {owner}, or {}", holders(Role::Operator, &self.0.board));
        Err(refuse(Code::PermissionDenied, text, Some(hint)))
    }

    /// Whether the caller's role is enough for what only the handler knows.
    pub(crate) fn needs(&self, least: Role, what: &str) -> Result<(), Status> {
        let caller = self.caller()?;
        let admitted = Need::Person(least).admits(Some(caller.role));
        if admitted { Ok(()) } else { Err(too_little(what, least, caller, &self.0.board)) }
    }

    /// Puts on record that something was refused outside of the gate's sight: in a stream.
    pub(crate) fn refused(&self, why: &Status) {
        self.0.audit.note(self.entry("refused", why.message()));
    }

    fn entry(&self, result: &str, detail: &str) -> Entry {
        let (role, name, serial) = match self.0.caller.as_deref() {
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

fn too_little(verb: &str, least: Role, caller: &Peer, board: &Board) -> Status {
    let text = format!("`{verb}` needs the role {}; `{}` is {}", least.name(), caller.name, a_role(caller.role));
    let hint = match least {
        Role::Operator | Role::Admin | Role::Controller => format!("ask {}", holders(least, board)),
        Role::Agent | Role::Viewer | Role::User => {
            format!("{} can make a token of that role: qctl token create --help", holders(Role::Admin, board))
        }
    };
    refuse(Code::PermissionDenied, text, Some(hint))
}

/// Who has at least this role, in words.
fn holders(least: Role, board: &Board) -> String {
    let now = runtime::clock::now_ms();
    let has = |one: &Certificate| {
        one.revoked.is_none() && one.expires.0 > now && Role::named(&one.role).is_some_and(|role| role >= least)
    };
    let people = board.certificates().into_iter().filter(|one| has(one) && one.role != Role::Controller.name());
    let names: BTreeSet<String> = people.map(|one| one.name).collect();
    let kind = if least >= Role::Admin { "an admin" } else { "an operator or an admin" };
    if names.is_empty() {
        return kind.to_owned();
    }
    format!("{kind} ({})", names.into_iter().take(NAMED).collect::<Vec<_>>().join(", "))
}
