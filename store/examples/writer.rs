//! Commits numbered batches to a store until it is killed, and prints the number of each that is acknowledged.
//!
//! Started by `tests/kills.rs`.

#![allow(clippy::unwrap_used)]

#[path = "../tests/common/numbered.rs"]
mod numbered;

use std::io::Write as _;
use std::path::PathBuf;

use store::{Embedded, Store as _};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let path = PathBuf::from(std::env::args_os().nth(1).unwrap());
    let mut store = Embedded::open(&path).unwrap();
    let epoch = store.campaign().await.unwrap();
    let mut number = numbered::last(&store.load("rolling/").await.unwrap());
    let mut out = std::io::stdout();
    for seq in 1.. {
        number += 1;
        store.commit(epoch, numbered::batch(seq, number)).await.unwrap();
        // A whole line in one write: a kill leaves no half of it in the pipe.
        out.write_all(format!("{number}\n").as_bytes()).unwrap();
    }
}
