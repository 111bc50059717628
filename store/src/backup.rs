//! All of a store in one file, and back.
//!
//! A mark, the length of what follows, a message, and the message's digest: a
//! file that was cut or damaged is refused as a whole.

use model::Epoch;
use prost::Message;

use crate::{Batch, Error, Kind, Store};

/// The first bytes of every backup; the last one counts formats.
const MARK: &[u8; 12] = b"qctl backup\x01";
const DIGEST: usize = blake3::OUT_LEN;

/// All of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backup {
    /// Under which the newest of it was written.
    pub epoch: Epoch,
    /// In key order.
    pub entries: Vec<(String, Vec<u8>)>,
}

#[derive(Clone, PartialEq, Message)]
struct Content {
    #[prost(uint64, tag = "1")]
    incarnation: u64,
    #[prost(uint64, tag = "2")]
    term: u64,
    #[prost(message, repeated, tag = "3")]
    entries: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

impl Backup {
    /// All that `store` holds at one moment.
    ///
    /// # Errors
    ///
    /// [`Error`] if it cannot be read.
    pub async fn of(store: &mut impl Store) -> Result<Self, Error> {
        // First: what is written meanwhile is newer than it says, never older.
        let epoch = store.last_batch().await?.map(|(epoch, _)| epoch).unwrap_or_default();
        Ok(Self { epoch, entries: store.load("").await? })
    }

    /// Makes `store` hold this and nothing else, under an incarnation above all that was seen of either.
    ///
    /// # Errors
    ///
    /// [`Error`] if it cannot be written; then it holds what it held.
    pub async fn restore(self, store: &mut impl Store, at_least: u64) -> Result<Epoch, Error> {
        let there = store.last_batch().await?.map(|(epoch, _)| epoch).unwrap_or_default();
        let incarnation = (self.epoch.incarnation.max(there.incarnation) + 1).max(at_least);
        let epoch = store.begin(incarnation).await?;
        let old = store.load("").await?.into_iter().map(|(key, _)| key);
        let deletes = old.filter(|key| self.entries.binary_search_by(|(kept, _)| kept.cmp(key)).is_err()).collect();
        store.commit(epoch, Batch { seq: 1, puts: self.entries, deletes }).await?;
        store.resign().await;
        Ok(epoch)
    }

    /// The bytes of a backup's file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let entry = |(key, value): &(String, Vec<u8>)| Entry { key: key.clone(), value: value.clone() };
        let Epoch { incarnation, term } = self.epoch;
        let content = Content { incarnation, term, entries: self.entries.iter().map(entry).collect() }.encode_to_vec();
        let length = u64::try_from(content.len()).unwrap_or(u64::MAX);
        [&MARK[..], &length.to_le_bytes(), &content, blake3::hash(&content).as_bytes()].concat()
    }

    /// What a backup's file holds.
    ///
    /// # Errors
    ///
    /// [`Kind::Corrupt`] if it is no backup, or not all of one; [`Kind::Newer`] if a later version wrote it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let damaged =
            || Error::new(Kind::Corrupt, "the file is no backup, or is damaged").hinted("restore another backup");
        let (mark, rest) = bytes.split_at_checked(MARK.len()).ok_or_else(damaged)?;
        if mark[..MARK.len() - 1] != MARK[..MARK.len() - 1] {
            return Err(damaged());
        }
        if mark != MARK {
            return Err(Error::new(Kind::Newer, "the backup was written by another version")
                .hinted("restore it with the version that wrote it, then upgrade"));
        }
        let (length, rest) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| damaged())?;
        let (content, digest) = rest.split_at_checked(length).ok_or_else(damaged)?;
        if digest.len() != DIGEST || digest != blake3::hash(content).as_bytes() {
            return Err(damaged());
        }
        let content = Content::decode(content).map_err(|error| damaged().caused(error))?;
        let mut entries: Vec<_> = content.entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
        entries.sort();
        Ok(Self { epoch: Epoch { incarnation: content.incarnation, term: content.term }, entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup() -> Backup {
        let entries = vec![("a".to_owned(), vec![1]), ("b".to_owned(), vec![2; 5000])];
        Backup { epoch: Epoch { incarnation: 3, term: 9 }, entries }
    }

    #[test]
    fn a_file_comes_back_whole_and_no_part_or_change_of_it_is_believed() {
        let bytes = backup().encode();
        assert_eq!(Backup::decode(&bytes).unwrap(), backup());
        for cut in [0, 5, 12, 19, 20, 100, bytes.len() - 1] {
            assert_eq!(Backup::decode(&bytes[..cut]).unwrap_err().kind(), Kind::Corrupt, "{cut}");
        }
        for at in (0..bytes.len()).filter(|at| *at != MARK.len() - 1) {
            let mut wrong = bytes.clone();
            wrong[at] ^= 0x10;
            assert_eq!(Backup::decode(&wrong).unwrap_err().kind(), Kind::Corrupt, "{at}");
        }
        assert!(Backup::decode(&[&bytes[..], b"x"].concat()).is_err());
        let mut newer = bytes;
        newer[MARK.len() - 1] = 2;
        assert_eq!(Backup::decode(&newer).unwrap_err().kind(), Kind::Newer);
    }

    #[tokio::test]
    async fn a_restored_store_holds_the_backup_alone_and_is_a_later_incarnation_than_either() {
        let mut store = crate::Memory::new();
        let epoch = store.campaign().await.unwrap();
        let puts = vec![("b".to_owned(), vec![7]), ("c".to_owned(), vec![8])];
        store.commit(epoch, Batch { seq: 1, puts, deletes: Vec::new() }).await.unwrap();
        let renewed = backup().restore(&mut store, 0).await.unwrap();
        assert_eq!(renewed.incarnation, 4);
        let again = Backup::of(&mut store).await.unwrap();
        assert_eq!((again.entries, again.epoch), (backup().entries, renewed));
        assert_eq!(backup().restore(&mut store, 0).await.unwrap().incarnation, 5);
        assert_eq!(backup().restore(&mut store, 90).await.unwrap().incarnation, 90);
        assert!(store.commit(epoch, Batch::default()).await.is_err());
        assert_eq!(store.campaign().await.unwrap().incarnation, 90);
    }
}
