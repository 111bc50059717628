//! Files that are not what a store wrote.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::print_stdout)]

#[path = "common/numbered.rs"]
mod numbered;
#[path = "common/random.rs"]
mod random;

use std::path::{Path, PathBuf};

use model::Epoch;
use random::Random;
use store::{Embedded, Error, Kind, Store as _};

const BATCHES: u64 = 60;
/// All that redb's header fills.
const HEADER: usize = 320;

/// Sound files, as a clean end and as a kill leaves them, and the newest batch's epoch.
async fn sound(dir: &Path) -> (Vec<Vec<u8>>, Epoch) {
    let path = dir.join("sound");
    let mut store = Embedded::open(&path).unwrap();
    let epoch = store.campaign().await.unwrap();
    for number in 1..=BATCHES {
        store.commit(epoch, numbered::batch(number, number)).await.unwrap();
    }
    let killed = std::fs::read(&path).unwrap();
    drop(store);
    (vec![std::fs::read(&path).unwrap(), killed], epoch)
}

/// Refused, and again when asked again, or exactly what was committed: nothing between.
async fn refused_or_whole(path: &Path, bytes: &[u8], epoch: Epoch, what: &str) -> Option<Error> {
    std::fs::write(path, bytes).unwrap();
    let mut store = match Embedded::open(path) {
        Ok(store) => store,
        Err(error) => {
            // The first attempt must not have repaired it into something else.
            assert!(Embedded::open(path).is_err(), "{what}: refused only once");
            assert_eq!(error.kind(), Kind::Corrupt, "{what}: {error:?}");
            assert!(error.to_string().contains(path.to_str().unwrap()), "{what}: {error}");
            assert!(error.hint().unwrap().contains("restore a backup"), "{what}: {error:?}");
            return Some(error);
        }
    };
    let held: std::collections::BTreeMap<_, _> = store.load("").await.unwrap().into_iter().collect();
    assert!(held == numbered::content(BATCHES), "{what}: opened, and not what was committed");
    assert_eq!(store.last_batch().await.unwrap(), Some((epoch, BATCHES)), "{what}");
    None
}

#[tokio::test]
async fn a_flipped_bit_is_refused_or_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let (files, epoch) = sound(dir.path()).await;
    let mut random = Random(random::seed());
    let mut refused = 0;
    for (which, file) in files.iter().enumerate() {
        let anywhere: Vec<usize> = (0..120).map(|_| random.below(file.len() as u64) as usize).collect();
        for at in (0..HEADER).chain(anywhere) {
            let mut bytes = file.clone();
            bytes[at] ^= 1 << random.below(8);
            let what = format!("file {which}, byte {at}: {:#x} for {:#x}", bytes[at], file[at]);
            refused += usize::from(refused_or_whole(&dir.path().join("store"), &bytes, epoch, &what).await.is_some());
        }
    }
    assert!(refused > 100, "only {refused} were noticed");
}

#[tokio::test]
async fn a_page_of_something_else_is_refused_or_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let (files, epoch) = sound(dir.path()).await;
    let mut random = Random(random::seed());
    for (which, file) in files.iter().enumerate() {
        for _ in 0..60 {
            let page = 4096 * random.below(file.len() as u64 / 4096) as usize;
            let other = 4096 * random.below(file.len() as u64 / 4096) as usize;
            let mut bytes = file.clone();
            bytes.copy_within(other..other + 4096, page);
            let what = format!("file {which}, page at {page} from {other}");
            refused_or_whole(&dir.path().join("store"), &bytes, epoch, &what).await;
        }
    }
}

#[tokio::test]
async fn a_file_cut_anywhere_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (files, epoch) = sound(dir.path()).await;
    let mut random = Random(random::seed());
    for (which, file) in files.iter().enumerate() {
        let anywhere: Vec<usize> = (0..40).map(|_| random.below(file.len() as u64) as usize).collect();
        let edges = [0, 1, 8, 9, 63, 64, 319, 320, 4095, 4096, 4097, 8192, file.len() - 4096, file.len() - 1];
        for length in edges.into_iter().chain(anywhere) {
            let what = format!("file {which}, cut to {length}");
            let path = dir.path().join("store");
            let error = refused_or_whole(&path, &file[..length], epoch, &what).await;
            // Free pages at the end of the file may be missed by nobody.
            assert!(error.is_some() || length > file.len() / 2, "{what}");
        }
    }
}

fn refused(path: &Path) -> Error {
    Embedded::open(path).unwrap_err()
}

#[tokio::test]
async fn what_is_no_store_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| -> PathBuf { dir.path().join(name) };
    std::fs::write(at("text"), "name: demo\nstages: {}\n".repeat(1000)).unwrap();
    std::fs::write(at("zeros"), vec![0; 1 << 20]).unwrap();
    std::fs::write(at("empty"), "").unwrap();
    std::fs::create_dir(at("directory")).unwrap();
    for (name, kind, message, hint) in [
        ("text", Kind::Corrupt, "is damaged, or is no store", "restore a backup"),
        ("zeros", Kind::Corrupt, "is damaged, or is no store", "restore a backup"),
        ("empty", Kind::Corrupt, "is empty: its content is gone", "restore a backup"),
        ("directory", Kind::Io, "is a directory, not a file", "move it aside"),
    ] {
        let error = refused(&at(name));
        assert_eq!(error.kind(), kind, "{error:?}");
        assert_eq!(error.to_string(), format!("the store `{}` {message}", at(name).display()));
        assert!(error.hint().unwrap().contains(hint), "{error:?}");
    }
    assert_eq!(refused(&at("none/store")).kind(), Kind::Io);
    assert_eq!(refused(&at("text/store")).kind(), Kind::Io);
}

#[tokio::test]
async fn a_half_made_store_is_made_anew_and_leaves_nothing_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("store.new"), "what a crash left").unwrap();
    let mut store = Embedded::open(&dir.path().join("store")).unwrap();
    assert_eq!(store.campaign().await.unwrap().incarnation, 1);
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["store"]);
}

#[test]
fn a_store_that_may_not_be_written_says_so() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    drop(Embedded::open(&path).unwrap());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
    if std::fs::OpenOptions::new().write(true).open(&path).is_ok() {
        println!("skipped: this user may write everything");
        return;
    }
    let error = refused(&path);
    assert_eq!(error.kind(), Kind::Io);
    assert!(error.hint().unwrap().contains("let the account"), "{error:?}");
}

#[tokio::test]
async fn a_restored_backup_leads_after_whatever_led_since() {
    let dir = tempfile::tempdir().unwrap();
    let (path, backup) = (dir.path().join("store"), dir.path().join("backup"));
    let mut store = Embedded::open(&path).unwrap();
    store.campaign().await.unwrap();
    drop(store);
    std::fs::copy(&path, &backup).unwrap();
    let mut store = Embedded::open(&path).unwrap();
    let newest = store.campaign().await.unwrap();
    drop(store);
    std::fs::rename(&backup, &path).unwrap();
    assert!(Embedded::open(&path).unwrap().campaign().await.unwrap() > newest);
    std::fs::remove_file(&path).unwrap();
    assert!(Embedded::open(&path).unwrap().campaign().await.unwrap() > newest);
}
