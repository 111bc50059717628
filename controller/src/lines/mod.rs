//! Connections: accepted, shaken hands with, counted, and ended.
//!
//! All can be ended at once: a controller that lost the lead does so, and
//! whoever was connected finds the new leader by connecting again. Those of
//! one holder are ended when its certificate was taken back or has run out.

mod accept;
mod line;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runtime::tls::Peer;
use tokio_util::sync::CancellationToken;

pub(crate) use accept::Accepting;
pub(crate) use line::Line;

/// Handshakes under way at once; of more the oldest is given up, since an honest one takes milliseconds. So many that
/// thousands of agents may come back together.
const HANDSHAKES: usize = 2048;
/// Connections without a certificate at once; of more the oldest is ended.
const STRANGERS: usize = 256;
/// Connections of one certificate's holder at once.
const OF_ONE: usize = 1024;

/// What is known of the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Who it is, by its certificate; `None` for a stranger.
    pub(crate) peer: Option<Arc<Peer>>,
    /// Its address.
    pub(crate) from: SocketAddr,
}

/// All connections of a server; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines {
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    lines: BTreeMap<u64, (Kind, CancellationToken)>,
    handshakes: usize,
    strangers: usize,
    holders: BTreeMap<(&'static str, String), usize>,
}

/// What a connection is at the moment.
#[derive(Clone, Debug)]
enum Kind {
    Handshake,
    Stranger,
    Holder(Arc<Peer>),
}

/// One connection's place among all; it is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    lines: Lines,
    number: u64,
    over: CancellationToken,
}

impl Lines {
    /// Ends all connections there are.
    pub(crate) fn cut(&self) {
        self.cut_where(|_| true);
    }

    /// Ends the connections of holders that `which` says.
    pub(crate) fn cut_holders(&self, which: impl Fn(&Peer) -> bool) {
        self.cut_where(|kind| matches!(kind, Kind::Holder(peer) if which(peer)));
    }

    fn cut_where(&self, which: impl Fn(&Kind) -> bool) {
        self.open().lines.values().filter(|(kind, _)| which(kind)).for_each(|(_, over)| over.cancel());
    }

    /// A place for a connection that was accepted.
    fn enter(&self) -> Place {
        let over = CancellationToken::new();
        let mut open = self.open();
        open.next += 1;
        let number = open.next;
        open.lines.insert(number, (Kind::Handshake, over.clone()));
        open.handshakes += 1;
        if open.handshakes > HANDSHAKES {
            open.end_oldest(|kind| matches!(kind, Kind::Handshake));
        }
        drop(open);
        Place { lines: self.clone(), number, over }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Ends the oldest connection that is of a kind and not ended yet.
    fn end_oldest(&self, of: impl Fn(&Kind) -> bool) {
        let oldest = self.lines.values().find(|(kind, over)| of(kind) && !over.is_cancelled());
        if let Some((_, over)) = oldest {
            over.cancel();
        }
    }

    fn uncount(&mut self, kind: &Kind) {
        match kind {
            Kind::Handshake => self.handshakes -= 1,
            Kind::Stranger => self.strangers -= 1,
            Kind::Holder(peer) => {
                let key = (peer.role.name(), peer.name.clone());
                match self.holders.get_mut(&key) {
                    Some(count) if *count > 1 => *count -= 1,
                    Some(_) | None => drop(self.holders.remove(&key)),
                }
            }
        }
    }
}

impl Place {
    /// The handshake is over; `false` if the holder has too many connections.
    fn settle(&self, peer: Option<Arc<Peer>>) -> bool {
        let mut open = self.lines.open();
        let kind = peer.map_or(Kind::Stranger, Kind::Holder);
        match &kind {
            Kind::Handshake => {}
            Kind::Stranger => {
                open.strangers += 1;
                if open.strangers > STRANGERS {
                    open.end_oldest(|kind| matches!(kind, Kind::Stranger));
                }
            }
            Kind::Holder(peer) => {
                let count = open.holders.entry((peer.role.name(), peer.name.clone())).or_default();
                if *count >= OF_ONE {
                    return false;
                }
                *count += 1;
            }
        }
        open.handshakes -= 1;
        open.lines.insert(self.number, (kind, self.over.clone()));
        true
    }

    /// Says when the connection is to end.
    fn over(&self) -> CancellationToken {
        self.over.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.lines.open();
        if let Some((kind, _)) = open.lines.remove(&self.number) {
            open.uncount(&kind);
        }
        drop(open);
        // Whoever waits for its end need wait no longer.
        self.over.cancel();
    }
}

#[cfg(test)]
mod tests {
    use runtime::tls::Role;

    use super::*;

    fn peer(name: &str) -> Arc<Peer> {
        Arc::new(Peer { role: Role::User, name: name.into(), serial: "1".into(), valid: (0, 9) })
    }

    #[test]
    fn of_too_many_the_oldest_goes_and_nobody_has_all() {
        let lines = Lines::default();
        let mut held: Vec<Place> = (0..=HANDSHAKES).map(|_| lines.enter()).collect();
        assert!(held[0].over.is_cancelled() && !held[1].over.is_cancelled());
        for place in held.drain(..) {
            if !place.over.is_cancelled() {
                assert!(place.settle(None));
            }
        }
        let counted = || {
            let open = lines.open();
            (open.handshakes, open.strangers, open.lines.len(), open.holders.len())
        };
        assert_eq!(counted(), (0, 0, 0, 0));
        let strangers: Vec<Place> = (0..STRANGERS + 2).map(|_| lines.enter()).collect();
        assert!(strangers.iter().all(|place| place.settle(None)));
        assert_eq!(strangers.iter().filter(|place| place.over.is_cancelled()).count(), 2);

        let mut ours: Vec<Place> = (0..HANDSHAKES + 9).map(|_| lines.enter()).collect();
        ours.retain(|place| !place.over.is_cancelled());
        assert_eq!(ours.len(), HANDSHAKES, "the older ones were given up");
        assert_eq!(ours.iter().filter(|place| place.settle(Some(peer("ada")))).count(), OF_ONE);
        ours.truncate(OF_ONE);
        let other = lines.enter();
        assert!(other.settle(Some(peer("bob"))));
        lines.cut_holders(|peer| peer.name == "ada");
        assert!(!other.over.is_cancelled() && ours.iter().all(|place| place.over.is_cancelled()));
        drop((ours, strangers, other));
        assert_eq!(counted(), (0, 0, 0, 0));
    }

    #[test]
    fn a_holder_has_so_many_connections_and_no_more() {
        let lines = Lines::default();
        let settled = |place: &Place| place.settle(Some(peer("ada")));
        let held: Vec<Place> = (0..OF_ONE).map(|_| lines.enter()).inspect(|place| assert!(settled(place))).collect();
        let more = lines.enter();
        assert!(!settled(&more));
        drop(held);
        assert!(settled(&more));
    }
}
