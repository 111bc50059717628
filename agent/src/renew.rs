//! The node's certificate, renewed while the agent runs.

use std::path::PathBuf;
use std::time::Duration;

use proto::v1::RenewRequest;
use proto::v1::cluster_client::ClusterClient;
use runtime::channel::ChannelError;
use runtime::clock::now_ms;
use runtime::files::write_durably;
use runtime::pki::{self, PkiError};
use runtime::tls::Identity;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// Shortest and longest pause after an attempt that failed.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(30);

/// Renews the certificate whenever two thirds of its life are over.
#[derive(Debug)]
pub struct Renewal {
    /// The controller, as https://host:port; several with commas between.
    pub controller: String,
    /// Directory of the certificate.
    pub pki: PathBuf,
    /// Whose it is.
    pub identity: Identity,
    /// Where the channel that others use is put.
    pub channels: watch::Sender<Channel>,
}

/// Why there is no new certificate yet.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("the signing request could not be made")]
    Request(#[from] PkiError),
    #[error("the controller refused: {}", .0.message())]
    Refused(#[from] tonic::Status),
    #[error("the controller did not answer")]
    Silent(#[from] tokio::time::error::Elapsed),
    #[error("the certificate could not be saved")]
    Save(#[from] std::io::Error),
    #[error("the new certificate cannot be used")]
    Channel(#[from] ChannelError),
}

impl Renewal {
    /// Waits and renews until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let due = pki::renewal_due(&self.identity.cert).unwrap_or_default();
            let wait = Duration::from_millis(due.saturating_sub(now_ms()));
            tokio::select! {
                () = stop.cancelled() => return,
                // In parts: a host that slept may find that it is late.
                () = tokio::time::sleep(wait.min(PAUSE.1)) => {}
            }
            if wait > PAUSE.1 {
                continue;
            }
            let Err(reason) = self.once().await else { continue };
            let left = pki::ends(&self.identity.cert).unwrap_or_default().saturating_sub(now_ms());
            let pause = (Duration::from_millis(left) / 20).clamp(PAUSE.0, PAUSE.1);
            tracing::warn!(%reason, left_s = left / 1000, "the node's certificate is not renewed yet; trying again");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// The key stays: so the certificate alone is replaced, in one rename, and fits the key at any moment.
    async fn once(&mut self) -> Result<(), Failed> {
        let csr = pki::csr_of(&self.identity.key)?;
        let channel = self.channels.borrow().clone();
        let mut client = ClusterClient::new(channel);
        let asked = client.renew(RenewRequest { csr });
        let certificate = tokio::time::timeout(ANSWER, asked).await??.into_inner().certificate;
        let renewed = Identity { cert: certificate, ..self.identity.clone() };
        let channel = runtime::channel(&self.controller, &renewed)?;
        write_durably(&self.pki.join("cert.pem"), renewed.cert.as_bytes())?;
        self.identity = renewed;
        self.channels.send_replace(channel);
        tracing::info!("the node's certificate was renewed");
        Ok(())
    }
}
