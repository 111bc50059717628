//! A pickle: read as data, never run.

pub(crate) fn run(bytes: &[u8]) {
    if let Ok(pickle) = convert::pickle::Pickle::parse(bytes) {
        let _ = pickle.root();
    }
}
