//! Finding the controller that leads, of several.
//!
//! Each says by the standard health service whether it serves jobs: only the
//! one that leads does.

use std::io;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// How long a leader is looked for: longer than a new one takes to be there.
pub(crate) const LOOK: Duration = Duration::from_secs(8);
/// How long one controller may take to say whether it leads.
const ANSWER: Duration = Duration::from_secs(2);
/// Pause between two looks at all.
const PAUSE: Duration = Duration::from_millis(200);
/// What only the leader serves.
const SERVICE: &str = "qctl.v1.Jobs";

/// A connection to the controller that leads.
///
/// # Errors
///
/// If none has said within [`LOOK`] that it does.
pub(crate) async fn connect(controllers: &[Endpoint]) -> io::Result<TokioIo<TcpStream>> {
    let until = Instant::now() + LOOK;
    let channels: Vec<Channel> = controllers.iter().map(Endpoint::connect_lazy).collect();
    loop {
        let asked =
            channels.iter().zip(controllers).map(|(channel, at)| async move { leads(channel).await.then_some(at) });
        let mut answers: FuturesUnordered<_> = asked.collect();
        while let Some(answer) = answers.next().await {
            if let Some(leader) = answer {
                match dial(leader).await {
                    Ok(stream) => return Ok(TokioIo::new(stream)),
                    Err(error) => tracing::debug!(%error, "the leader is gone again"),
                }
            }
        }
        if Instant::now() >= until {
            let all: Vec<String> = controllers.iter().map(|at| at.uri().to_string()).collect();
            let text = format!("no controller leads, or none can be reached: {}", all.join(", "));
            return Err(io::Error::new(io::ErrorKind::NotConnected, text));
        }
        sleep(PAUSE).await;
    }
}

async fn leads(channel: &Channel) -> bool {
    let mut client = HealthClient::new(channel.clone());
    let asked = client.check(HealthCheckRequest { service: SERVICE.to_owned() });
    match timeout(ANSWER, asked).await {
        Ok(Ok(answer)) => answer.into_inner().status() == ServingStatus::Serving,
        Ok(Err(_)) | Err(_) => false,
    }
}

async fn dial(controller: &Endpoint) -> io::Result<TcpStream> {
    let uri = controller.uri();
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let dialled = TcpStream::connect((host, uri.port_u16().unwrap_or(443)));
    let stream = timeout(ANSWER, dialled).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}
