//! What fuzzing starts from and what it has found, once more: nothing may come of it but values, refusals and errors.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use meridian_meta::arbitrary::meta_arbitrary;
use meridian_meta::catalog::{Catalog, Proposal};
use meridian_meta::log::{CatalogImage, Entry, EntryId, Members, Payload, encode_entry};
use meridian_proto::catalog::{Cell, NodeRole};
use meridian_proto::command::{Command, CreateHypertable, CreateTable, JoinNode, SetCompression};
use meridian_proto::compression::CompressionChange;
use meridian_proto::schema::Column;
use meridian_proto::start::Start;
use meridian_proto::{ColumnId, Incarnation, NodeId, Slot, SqlType, TableId, TimeUs, wire};
use prost::Message;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn column(name: &str, sql_type: SqlType) -> Column {
    Column { id: ColumnId(0), name: name.to_owned(), sql_type, not_null: false, default: None, modifier: None }
}

/// A cluster of one data node with a compressed hypertable and a chunk.
fn commands() -> Vec<Command> {
    let (namespace, table, address) = ("public".to_owned(), "cpu".to_owned(), "d:1".to_owned());
    let columns = vec![column("time", SqlType::Timestamptz), column("host", SqlType::Text)];
    let change = CompressionChange { segment_by: Some(vec!["host".to_owned()]), order_by: None };
    vec![
        Command::JoinNode(JoinNode {
            role: NodeRole::Data,
            name: String::new(),
            address: address.clone(),
            sql_address: None,
            shards: 2,
        }),
        Command::StartNode { start: Start::unmarked(NodeId(1), Incarnation(1)), address, sql_address: None, shards: 2 },
        Command::CreateTable(CreateTable {
            namespace: namespace.clone(),
            name: table.clone(),
            columns,
            if_not_exists: false,
        }),
        Command::CreateHypertable(CreateHypertable {
            namespace: namespace.clone(),
            table: table.clone(),
            time_column: "time".to_owned(),
            space: vec![("host".to_owned(), Some(4))],
            chunk_interval_us: None,
            replication_factor: None,
            data_nodes: Vec::new(),
            if_not_exists: false,
            sealed: Vec::new(),
        }),
        Command::AllocateChunks {
            cells: vec![Cell { table: TableId(16_384), slot: Slot(1), start: TimeUs(0) }],
            takes_turns: true,
        },
        Command::SetCompression(SetCompression { namespace, table, change: Some(change) }),
    ]
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let (mut catalog, mut all, mut seeds) = (Catalog::default(), vec![u8::MAX], Vec::new());
    for (index, command) in (1..).zip(commands()) {
        let request = wire::ProposeRequest { command: Some(command.into()), producer: 5, sequence: index };
        let bytes = request.encode_to_vec();
        all.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
        all.extend_from_slice(&bytes);
        let proposal = Proposal::decode(&bytes).expect("a proposal is read as it was written");
        let answer = catalog.apply_proposal(index, proposal);
        assert!(answer.outcome.is_ok(), "proposal {index}: {:?}", answer.outcome);
        let entry = Entry { id: EntryId { term: 1, node: 1, index }, payload: Payload::Command(bytes) };
        seeds.push((format!("entry-{index}"), [vec![0], encode_entry(&entry)].concat()));
    }
    let members = Members { voters: vec![BTreeSet::from([1, 2])], addresses: BTreeMap::from([(1, "a:1".to_owned())]) };
    let entry = Entry { id: EntryId { term: 1, node: 1, index: 9 }, payload: Payload::Members(members.clone()) };
    seeds.push(("entry-members".to_owned(), [vec![0], encode_entry(&entry)].concat()));
    let image = CatalogImage { last: Some(entry.id), members_set_by: None, members, catalog: catalog.encode() };
    seeds.push(("image".to_owned(), [vec![1], image.encode().unwrap()].concat()));
    seeds.push(("catalog".to_owned(), [vec![2], catalog.encode()].concat()));
    seeds.push(("proposals".to_owned(), all));
    seeds
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/meta")
}

#[test]
fn what_fuzzing_begins_with_is_sound() {
    for (name, bytes) in seeds() {
        meta_arbitrary(&bytes);
        if std::env::var_os("MERIDIAN_WRITE_CORPUS").is_some() {
            std::fs::create_dir_all(corpus()).unwrap();
            std::fs::write(corpus().join(name), bytes).unwrap();
        }
    }
}

#[test]
fn entries_images_and_proposals_are_read_or_refused() {
    let mut count = 0;
    for file in std::fs::read_dir(corpus()).unwrap() {
        let path = file.unwrap().path();
        // Named before it is run: a panic shows which one it was.
        println!("{}", path.display());
        meta_arbitrary(&std::fs::read(path).unwrap());
        count += 1;
    }
    assert!(count > 0, "the corpus is not in the tree");
}

#[test]
fn changed_entries_images_and_proposals_are_read_or_refused() {
    let rounds = std::env::var("MERIDIAN_ROUNDS").map_or(2000, |rounds| rounds.parse().unwrap());
    let mut random = ChaCha8Rng::seed_from_u64(61);
    for (_, whole) in seeds() {
        for _ in 0..rounds {
            let mut bytes = whole.clone();
            for _ in 0..random.random_range(1..5) {
                let at = random.random_range(1..bytes.len());
                bytes[at] =
                    if random.random() { random.random() } else { bytes[at] ^ (1 << random.random_range(0..8)) };
            }
            meta_arbitrary(&bytes);
        }
    }
}
