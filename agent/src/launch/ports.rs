//! Free ports for schedulers.
//!
//! Several agents of one user may share a host, so what was handed out lately
//! is also remembered in a directory that they all see.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::refusal::Refusal;

/// How long a port is not handed out again.
const MEMORY: Duration = Duration::from_secs(600);
/// Tries before giving up.
const TRIES: usize = 64;

/// A port nobody else gets until this is dropped, or started upon.
#[derive(Debug)]
pub struct Reserved {
    port: u16,
    listener: TcpListener,
}

impl Reserved {
    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Lets the scheduler bind it.
    pub fn release(self) {
        drop(self.listener);
    }
}

/// The directory that agents of one user and one boot share.
#[must_use]
pub fn shared_dir() -> PathBuf {
    let uid = rustix::process::getuid().as_raw();
    let boot = crate::shim::proc::boot_id();
    let boot = boot.split('-').next().unwrap_or_default();
    std::env::temp_dir().join(format!("qctl-ports-{uid}-{boot}"))
}

/// Reserves a free port on `address`.
///
/// # Errors
///
/// [`Refusal`] if the address is not this host's or no port is free.
pub fn reserve(address: &str, memory: &Path) -> Result<Reserved, Refusal> {
    sweep(memory);
    let mut last: Option<io::Error> = None;
    for _ in 0..TRIES {
        let bound = TcpListener::bind((address, 0)).and_then(|l| Ok((l.local_addr()?.port(), l)));
        match bound {
            Ok((port, listener)) if claim(memory, port) => return Ok(Reserved { port, listener }),
            Ok(_) => {}
            Err(error) => {
                last = Some(error);
                break;
            }
        }
    }
    Err(match last {
        Some(error) => Refusal::new(
            format!("no port could be bound on `{address}`: {error}"),
            "`--address` of this node's agent must be an address of this host",
        ),
        None => Refusal::new(format!("no free port was found on `{address}`"), "see what holds the ports: `ss -ltn`"),
    })
}

/// Forgets the ports that may be handed out again.
fn sweep(memory: &Path) {
    for entry in fs::read_dir(memory).into_iter().flatten().flatten() {
        let modified = entry.metadata().and_then(|m| m.modified());
        let age = modified.ok().and_then(|m| SystemTime::now().duration_since(m).ok());
        if age.is_some_and(|age| age >= MEMORY) {
            // Another agent may have been faster.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether the port was not handed out lately. A memory that cannot be written
/// is done without: the listener itself still guards the port.
fn claim(memory: &Path, port: u16) -> bool {
    if fs::create_dir_all(memory).is_err() {
        return true;
    }
    // Two agents may race here; only one of them makes the new file.
    match fs::File::create_new(memory.join(port.to_string())) {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::AlreadyExists,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_reservations_never_share_a_port_even_after_release() {
        let memory = tempfile::tempdir().unwrap();
        let first = reserve("127.0.0.1", memory.path()).unwrap();
        let port = first.port();
        assert!(TcpListener::bind(("127.0.0.1", port)).is_err());
        first.release();
        assert!(TcpListener::bind(("127.0.0.1", port)).is_ok());
        assert!(!claim(memory.path(), port));
    }

    #[test]
    fn a_port_is_forgotten_after_a_while() {
        let memory = tempfile::tempdir().unwrap();
        assert!(claim(memory.path(), 4000) && claim(memory.path(), 4001));
        let old = SystemTime::now() - MEMORY - Duration::from_secs(1);
        fs::File::open(memory.path().join("4000")).unwrap().set_modified(old).unwrap();
        sweep(memory.path());
        assert!(claim(memory.path(), 4000) && !claim(memory.path(), 4001));
    }

    #[test]
    fn an_address_of_another_host_is_refused() {
        let memory = tempfile::tempdir().unwrap();
        let refusal = reserve("192.0.2.1", memory.path()).unwrap_err();
        assert!(refusal.message.contains("192.0.2.1"), "{refusal}");
    }
}
