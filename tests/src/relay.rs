//! A TCP relay that can be cut, as a cable can, and that takes its time, as a long one does.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// Pieces that are under way in one direction.
const UNDER_WAY: usize = 4096;

/// Passes connections on to one address until it is cut.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    to: SocketAddr,
    delay: Duration,
    cut: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Relay {
    /// Relays to `port` on loopback.
    #[must_use]
    pub fn to(port: u16) -> Self {
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        Self::between(loopback, (loopback, port).into(), Duration::ZERO)
    }

    /// Relays from a port of `here` to an address; every byte takes `delay` in each direction.
    #[must_use]
    pub fn between(here: IpAddr, to: SocketAddr, delay: Duration) -> Self {
        let listener = TcpListener::bind((here, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State { to, delay, cut: AtomicBool::new(false), open: Mutex::default() });
        let shared = state.clone();
        // Lives as long as the test's process: a thread that waits costs nothing.
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if !shared.cut.load(Ordering::SeqCst) {
                    // What cannot be reached is seen by the caller as a closed connection.
                    let _ = shared.pass(near);
                }
            }
        });
        Self { address, state }
    }

    /// Where to connect.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Ends what is open, and lets nothing through.
    pub fn cut(&self) {
        self.state.cut.store(true, Ordering::SeqCst);
        for stream in self.state.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Lets new connections through.
    pub fn heal(&self) {
        self.state.cut.store(false, Ordering::SeqCst);
    }
}

impl State {
    fn pass(&self, near: TcpStream) -> io::Result<()> {
        let far = TcpStream::connect(self.to)?;
        self.open.lock().unwrap_or_else(PoisonError::into_inner).extend([near.try_clone()?, far.try_clone()?]);
        if self.cut.load(Ordering::SeqCst) {
            // It was cut meanwhile.
            near.shutdown(Shutdown::Both)?;
            return far.shutdown(Shutdown::Both);
        }
        for (from, to) in [(near.try_clone()?, far.try_clone()?), (far, near)] {
            let (under_way, arrives) = mpsc::sync_channel(UNDER_WAY);
            let delay = self.delay;
            thread::spawn(move || read(from, delay, &under_way));
            thread::spawn(move || deliver(to, &arrives));
        }
        Ok(())
    }
}

/// Reads until the end, which is on its way like any byte.
fn read(mut from: TcpStream, delay: Duration, under_way: &mpsc::SyncSender<(Instant, Vec<u8>)>) {
    let mut bytes = [0; 16 << 10];
    while let Ok(count) = from.read(&mut bytes) {
        if under_way.send((Instant::now() + delay, bytes[..count].to_vec())).is_err() || count == 0 {
            return;
        }
    }
}

fn deliver(mut to: TcpStream, arrives: &mpsc::Receiver<(Instant, Vec<u8>)>) {
    while let Ok((at, bytes)) = arrives.recv() {
        thread::sleep(at.saturating_duration_since(Instant::now()));
        if bytes.is_empty() || to.write_all(&bytes).is_err() {
            break;
        }
    }
    // Either end may be gone already.
    let _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_carries_nothing_until_it_is_healed() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Relay::to(server.local_addr().unwrap().port());
        let echo = || {
            let mut near = TcpStream::connect(("127.0.0.1", relay.port()))?;
            near.write_all(b"x")?;
            let (mut far, _) = server.accept()?;
            let mut byte = [0];
            far.read_exact(&mut byte)?;
            Ok::<_, io::Error>((near, far))
        };
        let (mut near, _far) = echo().unwrap();
        relay.cut();
        assert!(matches!(near.read(&mut [0]), Ok(0) | Err(_)), "what was open is over");
        let mut refused = TcpStream::connect(("127.0.0.1", relay.port())).unwrap();
        assert!(matches!(refused.read(&mut [0]), Ok(0) | Err(_)), "nothing new comes through");
        relay.heal();
        echo().unwrap();
    }

    #[test]
    fn what_is_delayed_comes_late_and_whole() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let delay = Duration::from_millis(100);
        let relay = Relay::between(Ipv4Addr::LOCALHOST.into(), server.local_addr().unwrap(), delay);
        let mut near = TcpStream::connect(("127.0.0.1", relay.port())).unwrap();
        let (mut far, _) = server.accept().unwrap();
        let begun = Instant::now();
        let sent: Vec<u8> = (0..200_000_u32).map(|at| at.to_le_bytes()[0]).collect();
        near.write_all(&sent).unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        let mut seen = Vec::new();
        far.read_to_end(&mut seen).unwrap();
        assert!(seen == sent && begun.elapsed() >= delay, "{} bytes after {:?}", seen.len(), begun.elapsed());
    }
}
