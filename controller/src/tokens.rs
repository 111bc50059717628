//! Join tokens: one use, one node, for a while.
//!
//! A token is a file named by its digest, so that reading the directory gives
//! nobody a token.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::NodeId;
use rand::RngCore as _;
use runtime::clock::now_ms;
use runtime::files;
use serde::{Deserialize, Serialize};

/// Why a token was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// There is no such token, or it was used.
    #[error("the join token is unknown or was used")]
    Unknown,
    /// Its time is over.
    #[error("the join token has expired")]
    Expired,
    /// It is for another node.
    #[error("the join token is for another node")]
    OtherNode,
    /// It could not be read or marked as used.
    #[error("the join token could not be checked")]
    Io(#[source] io::Error),
}

#[derive(Serialize, Deserialize)]
struct Record {
    node: String,
    expires_ms: u64,
}

/// Makes a token for `node`, good for `ttl` and one use: 64 hex digits.
///
/// # Errors
///
/// Whatever the file system says.
pub fn create(state_dir: &Path, node: &NodeId, ttl: Duration) -> io::Result<String> {
    let mut bytes = [0; 32];
    rand::rng().fill_bytes(&mut bytes);
    let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    let record = Record { node: node.to_string(), expires_ms: now_ms().saturating_add(ttl) };
    let path = path_of(state_dir, &token);
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    files::write_durably(&path, &serde_json::to_vec(&record)?)?;
    Ok(token)
}

/// Uses up a token; durable before this returns.
///
/// # Errors
///
/// [`Refused`] if it is not good for `node` now.
pub fn consume(state_dir: &Path, token: &str, node: &NodeId) -> Result<(), Refused> {
    let path = path_of(state_dir, token);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Refused::Unknown),
        Err(error) => return Err(Refused::Io(error)),
    };
    let record: Record = serde_json::from_slice(&text).map_err(|error| Refused::Io(error.into()))?;
    if record.node != node.as_str() {
        return Err(Refused::OtherNode);
    }
    if record.expires_ms <= now_ms() {
        return Err(Refused::Expired);
    }
    // Of two that use one token at once, one finds nothing to rename.
    match std::fs::rename(&path, path.with_extension("used")) {
        Ok(()) => files::sync_parent(&path).map_err(Refused::Io),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Refused::Unknown),
        Err(error) => Err(Refused::Io(error)),
    }
}

fn path_of(state_dir: &Path, token: &str) -> PathBuf {
    let digest = blake3::hash(token.as_bytes()).to_hex();
    state_dir.join("tokens").join(format!("{digest}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_once_for_its_node_and_time() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, other) = (NodeId::new("n1").unwrap(), NodeId::new("n2").unwrap());
        let token = create(dir.path(), &ours, Duration::from_secs(60)).unwrap();
        assert_eq!(token.len(), 64);
        assert!(matches!(consume(dir.path(), &token, &other), Err(Refused::OtherNode)));
        assert!(matches!(consume(dir.path(), "../../etc", &ours), Err(Refused::Unknown)));
        consume(dir.path(), &token, &ours).unwrap();
        assert!(matches!(consume(dir.path(), &token, &ours), Err(Refused::Unknown)));
        let stale = create(dir.path(), &ours, Duration::ZERO).unwrap();
        assert!(matches!(consume(dir.path(), &stale, &ours), Err(Refused::Expired)));
    }

    #[test]
    fn the_directory_does_not_give_tokens_away() {
        let dir = tempfile::tempdir().unwrap();
        let token = create(dir.path(), &NodeId::new("n1").unwrap(), Duration::from_secs(60)).unwrap();
        for entry in std::fs::read_dir(dir.path().join("tokens")).unwrap() {
            let path = entry.unwrap().path();
            assert!(!path.to_string_lossy().contains(&token));
            assert!(!std::fs::read_to_string(path).unwrap().contains(&token));
        }
    }
}
