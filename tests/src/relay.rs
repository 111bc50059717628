//! A TCP relay that can be cut, as a cable can.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Passes connections on to one address until it is cut.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    cut: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Relay {
    /// Relays to `port` on loopback.
    #[must_use]
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = state.clone();
        // Lives as long as the test's process: a thread that waits costs nothing.
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if !shared.cut.load(Ordering::SeqCst) {
                    // What cannot be reached is seen by the caller as a closed connection.
                    let _ = shared.pass(near, port);
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
    fn pass(&self, near: TcpStream, port: u16) -> io::Result<()> {
        let far = TcpStream::connect(("127.0.0.1", port))?;
        self.open.lock().unwrap_or_else(PoisonError::into_inner).extend([near.try_clone()?, far.try_clone()?]);
        if self.cut.load(Ordering::SeqCst) {
            // It was cut meanwhile.
            near.shutdown(Shutdown::Both)?;
            return far.shutdown(Shutdown::Both);
        }
        for (mut from, mut to) in [(near.try_clone()?, far.try_clone()?), (far, near)] {
            thread::spawn(move || {
                let mut bytes = [0; 16 << 10];
                while let Ok(count) = from.read(&mut bytes) {
                    if count == 0 || to.write_all(&bytes[..count]).is_err() {
                        break;
                    }
                }
                let _ = to.shutdown(Shutdown::Both);
                let _ = from.shutdown(Shutdown::Both);
            });
        }
        Ok(())
    }
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
}
