//! The vote file. A member that forgot its vote could vote twice in one term, so a missing or damaged vote beside a log
//! keeps it from starting.

use std::path::{Path, PathBuf};

use prost::Message;

use super::encoding::VoteMessage;
use super::files::{read_whole, write_whole};
use super::{LogError, Vote};

const VOTE_KIND: u8 = 1;
const VOTE_VERSION: u32 = 1;

#[derive(Clone, Debug)]
pub struct VoteFile {
    path: PathBuf,
}

impl VoteFile {
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { path: folder.join("vote") }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `None` when no vote was ever saved.
    pub fn read(&self) -> Result<Option<Vote>, LogError> {
        let Some((kind, payload)) = read_whole(&self.path)? else { return Ok(None) };
        let message = VoteMessage::decode(payload.as_slice());
        let (VOTE_KIND, Ok(message)) = (kind, message) else {
            return Err(LogError::damaged(&self.path, 0, "the record is no vote"));
        };
        if message.version > VOTE_VERSION {
            return Err(LogError::Newer { path: self.path.clone(), found: message.version, known: VOTE_VERSION });
        }
        Ok(Some(message.into()))
    }

    /// Returns once the vote is durable.
    pub fn save(&self, vote: Vote) -> Result<(), LogError> {
        let Vote { term, node, committed } = vote;
        let message = VoteMessage { version: VOTE_VERSION, term, node, committed };
        write_whole(&self.path, VOTE_KIND, &message.encode_to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vote_is_there_after_it_was_saved() {
        let folder = tempfile::tempdir().unwrap();
        let file = VoteFile::new(folder.path());
        assert_eq!(file.read().unwrap(), None);
        for term in 1..4 {
            let vote = Vote { term, node: 7, committed: term % 2 == 0 };
            file.save(vote).unwrap();
            assert_eq!(VoteFile::new(folder.path()).read().unwrap(), Some(vote));
        }
    }

    #[test]
    fn every_damage_of_the_vote_is_an_error_and_never_another_vote() {
        let folder = tempfile::tempdir().unwrap();
        let file = VoteFile::new(folder.path());
        file.save(Vote { term: 300, node: 2, committed: true }).unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(file.path(), damaged).unwrap();
            assert!(matches!(file.read(), Err(LogError::Damaged { position: 0, .. })), "bit {bit}");
        }
        for length in 0..bytes.len() {
            std::fs::write(file.path(), &bytes[..length]).unwrap();
            assert!(file.read().is_err(), "{length} bytes");
        }
    }

    #[test]
    fn a_half_written_new_vote_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = VoteFile::new(folder.path());
        let vote = Vote { term: 3, node: 2, committed: false };
        file.save(vote).unwrap();
        std::fs::write(folder.path().join("vote.new"), [1, 2, 3]).unwrap();
        assert_eq!(file.read().unwrap(), Some(vote));
    }
}
