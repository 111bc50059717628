//! From the listener to connections that have shaken hands.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use runtime::Tasks;
use runtime::clock::now_ms;
use runtime::tls::{Peer, peer_of_der};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::{Line, Lines, Place, Seen};
use crate::audit::{Audit, Entry};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection without a certificate may be open: a join or a look for the leader takes less.
const STRANGER: Duration = Duration::from_secs(60);
/// Pause after the system could not accept: it is out of something.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections for as long as it runs.
#[derive(Debug)]
pub(crate) struct Accepting {
    pub(crate) listener: TcpListener,
    pub(crate) tls: Arc<ServerConfig>,
    pub(crate) lines: Lines,
    pub(crate) audit: Audit,
    /// Owner of the handshakes.
    pub(crate) tasks: Tasks,
    pub(crate) out: mpsc::Sender<io::Result<Line>>,
}

impl Accepting {
    pub(crate) async fn run(self, stop: CancellationToken) {
        let tls = TlsAcceptor::from(self.tls);
        loop {
            let accepted = tokio::select! {
                biased; // stop wins: others may connect for ever
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "no connection could be accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let shaking = Shaking { from, audit: self.audit.clone(), out: self.out.clone() };
            let (place, tls, stop) = (self.lines.enter(), tls.clone(), stop.clone());
            self.tasks.spawn("connection", async move {
                let over = place.over();
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = over.cancelled() => {}
                    () = shaking.shake(stream, tls, place) => {}
                }
            });
        }
    }
}

/// One connection before it is one.
struct Shaking {
    from: SocketAddr,
    audit: Audit,
    out: mpsc::Sender<io::Result<Line>>,
}

impl Shaking {
    async fn shake(self, stream: TcpStream, tls: TlsAcceptor, place: Place) {
        // Not fatal: it is slower without.
        let _ = stream.set_nodelay(true);
        let stream = match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            // Whoever only looks whether the port is open was not refused anything.
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => return self.refused(&error.to_string()),
            Ok(Err(_)) => return,
            Err(_) => return self.refused(&format!("no handshake within {} s", HANDSHAKE.as_secs())),
        };
        let peer = holder(&stream).map(Arc::new);
        let stranger = peer.is_none();
        if !place.settle(peer.clone()) {
            return self.refused("too many connections of one holder");
        }
        let over = place.over();
        let line = Line::new(stream, Seen { peer, from: self.from }, place);
        // A server that has ended takes no more.
        if self.out.send(Ok(line)).await.is_ok() && stranger {
            tokio::time::sleep(STRANGER).await;
            over.cancel();
        }
    }

    fn refused(&self, why: &str) {
        self.audit.note(Entry {
            at_ms: now_ms(),
            from: self.from.to_string(),
            verb: "connect".to_owned(),
            result: "refused".to_owned(),
            detail: why.to_owned(),
            ..Entry::default()
        });
    }
}

fn holder(stream: &TlsStream<TcpStream>) -> Option<Peer> {
    peer_of_der(stream.get_ref().1.peer_certificates()?.first()?)
}
