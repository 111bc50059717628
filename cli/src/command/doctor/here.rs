//! What can be seen without a controller.

use std::path::Path;

use runtime::clock::now_ms;
use runtime::tls::Identity;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::{Check, Verdict, disk};
use crate::command::beside;
use crate::context::{self, Context};
use crate::failure::{Failure, START};

/// Programs of an installation, and whether this computer cannot do without.
const PROGRAMS: [&str; 5] = ["qctl-controller", "qctl-agent", "qctl-shim", "qctl-convert", "qctl-tokenize"];
/// A certificate that ends within these days is worth a warning.
const SOON: i64 = 30;
const DAY: i64 = 86_400;

/// The programs beside this one.
pub(super) fn programs() -> Vec<Check> {
    let missing: Vec<&str> = PROGRAMS.into_iter().filter(|name| beside(name).is_err()).collect();
    if missing.is_empty() {
        let told = format!("qctl {} and the {} programs beside it", env!("CARGO_PKG_VERSION"), PROGRAMS.len());
        return vec![Check::ok("installation", told)];
    }
    let told =
        format!("{} not beside qctl; `qctl dev`, agents and engines on this computer need them", missing.join(", "));
    vec![Check::new(Verdict::Warn, "installation", told).next("install all programs of qctl into one directory")]
}

/// Where the controller is, as whom it is spoken to, and room for state.
pub(super) fn context(flag: Option<&Path>) -> (Option<Context>, Vec<Check>) {
    let dir = match context::state_dir(flag) {
        Ok(dir) => dir,
        Err(failure) => return (None, vec![told("state", failure, START)]),
    };
    let known = match context::load(&dir) {
        Ok(known) => known,
        Err(failure) => return (None, vec![told("state", failure, START)]),
    };
    let mut checks =
        vec![Check::ok("state", format!("controller at {}", known.endpoint)).of(dir.display().to_string())];
    match rustix::fs::statvfs(&dir) {
        Ok(seen) => checks.push(disk(dir.display().to_string(), seen.f_bavail.saturating_mul(seen.f_frsize))),
        Err(error) => {
            let unseen = Check::new(Verdict::Unknown, "disk", format!("free space could not be read: {error}"));
            checks.push(unseen.of(dir.display().to_string()));
        }
    }
    match Identity::load(&known.identity) {
        Ok(identity) => {
            let now = i64::try_from(now_ms() / 1000).unwrap_or(i64::MAX);
            checks.push(expiry("yours", &identity.cert, now));
            checks.push(expiry("the cluster's CA", &identity.ca, now));
        }
        Err(error) => {
            let failure = Failure::because("the client certificate is missing", &error);
            checks.push(told("certificate", failure, "start `qctl dev` again: it writes a new one"));
            return (None, checks);
        }
    }
    (Some(known), checks)
}

/// A failure as a check that fails; `otherwise` is the next step if it names none.
pub(super) fn told(check: &'static str, failure: Failure, otherwise: &str) -> Check {
    match failure {
        Failure::Told { message, hint, .. } => {
            let failed = Check::new(Verdict::Fail, check, message);
            failed.next(hint.unwrap_or_else(|| otherwise.to_owned()))
        }
        Failure::Said(_) | Failure::ReaderGone => Check::new(Verdict::Fail, check, "failed"),
    }
}

/// How long a certificate is good for, seen at `now` in seconds since 1970.
fn expiry(whose: &str, text: &str, now: i64) -> Check {
    let ends = || {
        let block = pem::parse(text).ok()?;
        let (_, certificate) = X509Certificate::from_der(block.contents()).ok()?;
        let validity = certificate.validity();
        Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
    };
    let renew = "qctl login --renew, before its end; later with a token of an admin's; `qctl dev` makes its own in a new state directory";
    let Some((begins, ends)) = ends() else {
        return Check::new(Verdict::Fail, "certificate", "it is no certificate").of(whose).next(renew);
    };
    let (verdict, message) = match (ends - now) / DAY {
        _ if now < begins => (Verdict::Fail, "it is not good yet: is this computer's clock right?".to_owned()),
        _ if now >= ends => (Verdict::Fail, format!("it ended {} days ago", (now - ends) / DAY)),
        days if days < SOON => (Verdict::Warn, format!("it ends in {days} days")),
        days => return Check::ok("certificate", format!("good for {days} days")).of(whose),
    };
    Check::new(verdict, "certificate", message).of(whose).next(renew)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn certificates_are_judged_by_their_end() {
        let dir = tempfile::tempdir().unwrap();
        let authority = runtime::pki::Authority::create(dir.path()).unwrap();
        let identity = authority.issue(runtime::tls::Role::User, "ann", &[], 100).unwrap();
        let now = i64::try_from(now_ms() / 1000).unwrap();
        let at = |days: i64| expiry("yours", &identity.cert, now + days * DAY).verdict;
        assert_eq!([at(0), at(80), at(101), at(-400)], [Verdict::Ok, Verdict::Warn, Verdict::Fail, Verdict::Fail]);
        assert_eq!(expiry("yours", "x", now).verdict, Verdict::Fail);
    }

    #[test]
    fn without_a_controller_the_next_step_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (known, checks) = context(Some(dir.path()));
        assert!(known.is_none());
        assert_eq!((checks.len(), checks[0].verdict, checks[0].next.as_deref()), (1, Verdict::Fail, Some(START)));
    }
}
