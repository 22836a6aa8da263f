//! openraft's own suite for stores, over our files.

use openraft::StorageError;
use openraft::testing::Suite;

use super::machine::Machine;
use super::network::AddressBook;
use super::storage::RaftStorage;
use super::{TypeConfig, messages};
use crate::log::LogStore;

struct Builder;

impl openraft::testing::StoreBuilder<TypeConfig, RaftStorage, Machine, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, RaftStorage, Machine), StorageError<u64>> {
        Ok(build())
    }
}

fn build() -> (tempfile::TempDir, RaftStorage, Machine) {
    let folder = tempfile::tempdir().unwrap();
    let opened = LogStore::open(folder.path()).unwrap();
    let machine = Machine::open(opened.image, opened.image_file, AddressBook::default()).unwrap();
    (folder, RaftStorage(opened.store), machine)
}

/// The suite without `get_initial_state_membership_from_log_and_sm`, which appends entry 3 after entry 1: our log takes
/// no holes, as openraft's own rules for a log storage say.
#[tokio::test]
async fn the_store_keeps_what_openraft_asks_of_one() {
    type Ours = Suite<TypeConfig, RaftStorage, Machine, Builder, tempfile::TempDir>;
    macro_rules! check {
        ($($name:ident),* $(,)?) => {
            $({
                let (_folder, log, machine) = build();
                Ours::$name(log, machine).await.unwrap();
            })*
        };
    }
    check!(
        last_membership_in_log_initial,
        last_membership_in_log,
        last_membership_in_log_multi_step,
        get_membership_initial,
        get_membership_from_log_and_empty_sm,
        get_membership_from_empty_log_and_sm,
        get_membership_from_log_le_sm_last_applied,
        get_membership_from_log_gt_sm_last_applied_1,
        get_membership_from_log_gt_sm_last_applied_2,
        get_initial_state_without_init,
        get_initial_state_with_state,
        get_initial_state_last_log_gt_sm,
        get_initial_state_last_log_lt_sm,
        get_initial_state_log_ids,
        get_initial_state_re_apply_committed,
        save_vote,
        get_log_entries,
        limited_get_log_entries,
        try_get_log_entry,
        initial_logs,
        get_log_state,
        get_log_id,
        last_id_in_log,
        last_applied_state,
        purge_logs_upto_0,
        purge_logs_upto_5,
        purge_logs_upto_20,
        delete_logs_since_11,
        delete_logs_since_0,
        append_to_log,
        snapshot_meta,
        apply_single,
        apply_multiple,
    );
    Ours::transfer_snapshot(&Builder).await.unwrap();
}

#[test]
fn answers_of_a_peer_that_are_no_answers_are_refused() {
    for length in 0..64 {
        let bytes: Vec<u8> = (0..length).map(|n| (n * 71 + 13) as u8).collect();
        // Whatever they are read as, there is no panic.
        let _ = messages::decode_append_answer(&bytes);
        let _ = messages::decode_vote_answer(&bytes);
        let _ = messages::decode_snapshot_answer(&bytes);
    }
    assert!(messages::decode_append_answer(&[]).is_none());
    assert!(messages::decode_vote_answer(&[]).is_none());
    assert!(messages::decode_snapshot_answer(&[]).is_none());
}

#[test]
fn an_address_that_fails_goes_last_and_the_next_word_of_it_first() {
    let book = AddressBook::default();
    book.set(1, "old");
    book.set(1, "new");
    // The catalog's old entry is applied again after a restart.
    book.set(1, "old");
    assert_eq!(book.get(1).as_deref(), Some("old"));
    book.note_failure(1, "old");
    assert_eq!(book.get(1).as_deref(), Some("new"));
    book.note_failure(1, "old");
    assert_eq!(book.get(1).as_deref(), Some("new"), "a late failure of the other address changes nothing");
    assert_eq!(book.get(2), None);
}
