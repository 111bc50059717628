//! Fresh job ids.

use model::JobId;
use planner::World;
use rand::Rng as _;

/// RFC 4648 base32 in lower case.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// An id that no job of `world` has: `j` and 8 characters, 40 random bits.
pub(crate) fn fresh(world: &World) -> JobId {
    let mut rng = rand::rng();
    loop {
        let tail = (0..8).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]));
        let text: String = std::iter::once('j').chain(tail).collect();
        if let Ok(id) = JobId::new(text)
            && !world.jobs.contains_key(&id)
        {
            return id;
        }
    }
}
