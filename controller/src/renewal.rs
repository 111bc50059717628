//! The controller's own certificate, renewed while it serves.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use runtime::clock::now_ms;
use runtime::files::write_durably;
use runtime::pki::{Authority, renewal_due};
use runtime::shown::Shown;
use runtime::tls::Identity;
use tokio_util::sync::CancellationToken;

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(60);
/// Days that a renewed certificate is good for.
const DAYS: u32 = 825;

/// Shows what lies on disk, and puts a new one there when two thirds of its life are over.
#[derive(Debug)]
pub(crate) struct Renewal {
    /// Directory of the controller's identity.
    pub(crate) dir: PathBuf,
    /// Signs; where it is kept elsewhere, somebody else puts a new certificate there.
    pub(crate) authority: Option<Arc<Authority>>,
    pub(crate) shown: Shown,
}

impl Renewal {
    pub(crate) async fn run(self, stop: CancellationToken) {
        let renewal = Arc::new(self);
        let mut last = String::new();
        loop {
            let (looking, seen) = (renewal.clone(), last.clone());
            match tokio::task::spawn_blocking(move || looking.look(&seen)).await {
                Ok(Ok(cert)) => last = cert,
                Ok(Err(error)) => tracing::warn!("the controller's certificate could not be renewed: {error}"),
                Err(_) => return,
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Shows what is there now; returns its certificate.
    fn look(&self, last: &str) -> Result<String, String> {
        let mut identity = Identity::load(&self.dir).map_err(|error| crate::api::chain(&error))?;
        let due = renewal_due(&identity.cert).is_some_and(|due| due <= now_ms());
        if let Some(authority) = self.authority.as_ref().filter(|_| due) {
            identity = authority.renew(&identity, DAYS).map_err(|error| crate::api::chain(&error))?;
            // The key stays, so the certificate alone is replaced and fits it at any moment.
            write_durably(&self.dir.join("cert.pem"), identity.cert.as_bytes()).map_err(|error| error.to_string())?;
            tracing::info!("the controller's certificate was renewed");
        }
        if identity.cert != last {
            self.shown.replace(&identity).map_err(|error| crate::api::chain(&error))?;
        }
        Ok(identity.cert)
    }
}

#[cfg(test)]
mod tests {
    use runtime::tls::Role;

    use super::*;

    #[test]
    fn it_is_renewed_in_time_by_whoever_can_and_shown_when_somebody_else_did() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::create(dir.path()).unwrap());
        let own = dir.path().join("controller");
        let made = |days| authority.issue(Role::Controller, "c", &["127.0.0.1".parse().unwrap()], days).unwrap();
        // Nearly over: its slack alone is longer.
        let old = authority.issue_for(Role::Controller, "c", &[], Duration::ZERO).unwrap();
        old.save(&own).unwrap();
        let shown = Shown::new(&old).unwrap();
        let alone = Renewal { dir: own.clone(), authority: None, shown: shown.clone() };
        assert_eq!(alone.look("").unwrap(), old.cert);
        let holds = Renewal { dir: own.clone(), authority: Some(authority.clone()), shown };
        let renewed = holds.look(&old.cert).unwrap();
        assert_ne!(renewed, old.cert);
        assert_eq!(Identity::load(&own).unwrap().cert, renewed);
        assert_eq!(holds.look(&renewed).unwrap(), renewed, "once");
        let theirs = made(300);
        theirs.save(&own).unwrap();
        assert_eq!(alone.look(&renewed).unwrap(), theirs.cert);
    }
}
