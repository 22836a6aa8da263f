//! What commands come to, one sentence each.

use meridian_proto::catalog::{NodeState, PlacementGroup, TableKind};
use meridian_proto::command::{CreateHypertable, CreateTable, JoinNode, SetCompression};
use meridian_proto::compression::{Compression, CompressionChange, OrderBy};
use meridian_proto::schema::Column;
use meridian_proto::slot::shard_of;
use meridian_proto::start::{PastStart, Start};
use meridian_proto::{
    ColumnId, Epoch, Incarnation, ProducerId, SchemaVersion, Sequence, Slot, SqlType, StartMark, TimeUs,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

/// A catalog and the log that made it.
struct Lab {
    catalog: Catalog,
    index: u64,
}

impl Lab {
    /// With `data_nodes` live data nodes of two shards: dn1, dn2, ...
    fn new(data_nodes: u64) -> Self {
        let mut lab = Self { catalog: Catalog::default(), index: 0 };
        for node in 1..=data_nodes {
            lab.add_data_node(node);
        }
        lab
    }

    fn apply(&mut self, command: Command) -> Outcome {
        self.index += 1;
        self.catalog.apply(self.index, command)
    }

    fn ok(&mut self, command: Command) -> Reply {
        self.apply(command).unwrap()
    }

    #[track_caller]
    fn refused(&mut self, command: Command, sqlstate: &str, message: &str) {
        let before = self.catalog.clone();
        let refusal = self.apply(command).unwrap_err();
        assert_eq!((refusal.sqlstate(), refusal.to_string().as_str()), (sqlstate, message));
        assert_eq!(self.catalog, before, "a refused command changes nothing");
    }

    fn add_data_node(&mut self, number: u64) -> NodeId {
        let Reply::Node(node) = self.ok(join(NodeRole::Data, &format!("d:{number}"))) else { panic!() };
        self.ok(start(node, 1, &format!("d:{number}")));
        node
    }

    fn table(&self, name: &str) -> &Table {
        &self.catalog.tables[&self.catalog.table_id("public", name).unwrap()]
    }

    fn group(&self, name: &str) -> &PlacementGroup {
        &self.catalog.groups[&self.table(name).group]
    }

    fn allocate(&mut self, cells: &[(&str, u32, i64)]) -> Vec<ChunkId> {
        let cells = cells.iter().map(|(name, slot, start)| cell(self.table(name).id, *slot, *start)).collect();
        let Reply::Chunks(chunks) = self.ok(Command::AllocateChunks { cells, takes_turns: true }) else { panic!() };
        chunks
    }
}

fn cell(table: TableId, slot: u32, start: i64) -> Cell {
    Cell { table, slot: Slot(slot), start: TimeUs(start) }
}

fn join(role: NodeRole, address: &str) -> Command {
    let shards = if role == NodeRole::Data { 2 } else { 0 };
    Command::JoinNode(JoinNode { role, name: String::new(), address: address.into(), sql_address: None, shards })
}

fn start(node: NodeId, incarnation: u64, address: &str) -> Command {
    let start = Start::unmarked(node, Incarnation(incarnation));
    Command::StartNode { start, address: address.into(), sql_address: None, shards: 2 }
}

fn column(name: &str, sql_type: SqlType) -> Column {
    Column { id: ColumnId(0), name: name.into(), sql_type, not_null: false, default: None, modifier: None }
}

fn create(name: &str) -> CreateTable {
    CreateTable {
        namespace: "public".into(),
        name: name.into(),
        columns: vec![
            column("time", SqlType::Timestamptz),
            column("host", SqlType::Text),
            column("rack", SqlType::Int4),
            column("usage", SqlType::Float8),
            column("doc", SqlType::Jsonb),
        ],
        if_not_exists: false,
    }
}

fn create_table(name: &str) -> Command {
    Command::CreateTable(create(name))
}

fn hyper(table: &str, space: &[(&str, Option<u32>)]) -> CreateHypertable {
    CreateHypertable {
        namespace: "public".into(),
        table: table.into(),
        time_column: "time".into(),
        space: space.iter().map(|(column, cells)| ((*column).to_owned(), *cells)).collect(),
        chunk_interval_us: None,
        replication_factor: None,
        data_nodes: Vec::new(),
        if_not_exists: false,
        sealed: Vec::new(),
    }
}

fn create_hypertable(table: &str, space: &[(&str, Option<u32>)]) -> Command {
    Command::CreateHypertable(hyper(table, space))
}

fn compress(table: &str, segment_by: &[&str]) -> Command {
    let segment_by = Some(segment_by.iter().map(|name| (*name).to_owned()).collect());
    let change = Some(CompressionChange { segment_by, order_by: None });
    Command::SetCompression(SetCompression { namespace: "public".into(), table: table.into(), change })
}

const WEEK: i64 = 7 * 86_400_000_000;

#[test]
fn only_a_table_whose_chunks_are_sealed_in_their_epochs_becomes_a_hypertable() {
    let mut lab = Lab::new(1);
    lab.ok(create_table("cpu"));
    let chunk = lab.allocate(&[("cpu", 0, TimeUs::NEG_INFINITY.0)])[0];
    let epoch = |lab: &Lab| lab.catalog.chunks[&chunk].epoch;
    let with =
        |sealed: Vec<(ChunkId, Epoch)>| Command::CreateHypertable(CreateHypertable { sealed, ..hyper("cpu", &[]) });
    let message = format!("could not serialize access: rows may have come into chunk {chunk} of \"cpu\"");
    lab.refused(with(vec![]), "40001", &message);
    lab.refused(with(vec![(chunk, Epoch(2)), (ChunkId(99), Epoch(1))]), "40001", &message);

    // A seal of an epoch that is over says nothing.
    assert_eq!(lab.ok(Command::ReopenChunk { chunk, epoch: Epoch(7) }), Reply::Done);
    assert_eq!(epoch(&lab), Epoch(1), "another epoch");
    lab.ok(Command::ReopenChunk { chunk, epoch: Epoch(1) });
    assert_eq!(epoch(&lab), Epoch(2));
    lab.refused(with(vec![(chunk, Epoch(1))]), "40001", &message);
    lab.ok(with(vec![(chunk, Epoch(2))]));
    assert!(lab.catalog.chunks().all(|other| other.id != chunk));
    assert_eq!(lab.ok(Command::ReopenChunk { chunk, epoch: Epoch(2) }), Reply::Done, "it is gone");
}

#[test]
fn a_table_gets_an_oid_columns_in_order_and_a_place() {
    let mut lab = Lab::new(1);
    let reply = lab.ok(create_table("cpu"));
    let table = lab.table("cpu");
    assert_eq!(reply, Reply::Table { id: TableId(16_384), group: table.group });
    assert_eq!(table.kind, TableKind::Reference);
    assert_eq!(table.schema.version, SchemaVersion(1));
    let ids: Vec<_> = table.schema.columns.iter().map(|column| column.id.0).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5]);
    assert_eq!(table.created, lab.catalog.version());
    assert_eq!(lab.group("cpu").slots, [[NodeId(1)]]);
}

#[test]
fn names_and_columns_of_tables_are_checked_as_postgresql_does() {
    let mut lab = Lab::new(1);
    lab.ok(create_table("cpu"));
    lab.refused(create_table("cpu"), "42P07", "relation \"cpu\" already exists");
    let again = CreateTable { if_not_exists: true, ..create("cpu") };
    let notice = "relation \"cpu\" already exists, skipping";
    assert_eq!(lab.ok(Command::CreateTable(again)), Reply::Skipped(notice.into()));
    let with = |columns| Command::CreateTable(CreateTable { columns, ..create("b") });
    let twice = vec![column("a", SqlType::Int4), column("a", SqlType::Int4)];
    lab.refused(with(twice), "42701", "column \"a\" specified more than once");
    let system = vec![column("ctid", SqlType::Int4)];
    lab.refused(with(system), "42701", "column name \"ctid\" conflicts with a system column name");
    lab.refused(with(vec![]), "0A000", "a table without columns is not supported");
    let many = (0..1601).map(|n| column(&n.to_string(), SqlType::Int4)).collect();
    lab.refused(with(many), "54011", "tables can have at most 1600 columns");
    let elsewhere = CreateTable { namespace: "other".into(), ..create("b") };
    lab.refused(Command::CreateTable(elsewhere), "3F000", "schema \"other\" does not exist");
}

#[test]
fn a_dropped_table_takes_its_chunks_and_group_along() {
    let mut lab = Lab::new(1);
    lab.ok(create_table("cpu"));
    lab.ok(create_hypertable("cpu", &[]));
    lab.allocate(&[("cpu", 0, 0), ("cpu", 0, WEEK)]);
    lab.catalog.take_changed();
    let drop = |if_exists| Command::DropTable { namespace: "public".into(), name: "cpu".into(), if_exists };
    assert_eq!(lab.ok(drop(false)), Reply::Done);
    let gone = [NounKey::Table(TableId(16_384)), NounKey::Group(GroupId(2)), NounKey::Chunk(ChunkId(1))];
    let changed = lab.catalog.take_changed();
    assert!(gone.iter().all(|key| changed.contains(key)), "{changed:?}");
    assert_eq!((lab.catalog.chunks.len(), lab.catalog.groups.len()), (0, 0));
    lab.refused(drop(false), "42P01", "table \"cpu\" does not exist");
    assert_eq!(lab.ok(drop(true)), Reply::Skipped("table \"cpu\" does not exist, skipping".into()));
    lab.ok(create_table("cpu"));
    assert_eq!(lab.table("cpu").id, TableId(16_387), "no oid is given twice");
}

#[test]
fn a_hypertable_has_slots_a_new_schema_version_and_times_that_are_not_null() {
    let mut lab = Lab::new(2);
    lab.ok(create_table("cpu"));
    let chunk = lab.allocate(&[("cpu", 0, i64::MIN)])[0];
    let sealed = vec![(chunk, Epoch(1))];
    let reply = lab.ok(Command::CreateHypertable(CreateHypertable { sealed, ..hyper("cpu", &[("host", None)]) }));
    let table = lab.table("cpu");
    assert_eq!(reply, Reply::Hypertable { id: 1, table: table.id, created: true });
    assert_eq!(table.schema.version, SchemaVersion(2));
    assert!(table.schema.columns[0].not_null);
    assert_eq!(table.hypertable().unwrap().chunk_interval_us, WEEK);
    assert_eq!(table.space_cells(), [16]);
    assert_eq!(lab.catalog.chunks.len(), 0, "the reference table's chunk is gone");
    assert_eq!(lab.catalog.groups.len(), 1, "and so is its group");
    let led = |node| lab.group("cpu").slots.iter().filter(|nodes| nodes[0] == NodeId(node)).count();
    assert_eq!((led(1), led(2)), (8, 8));
}

#[test]
fn slots_grow_with_the_shards_of_the_cluster() {
    let mut lab = Lab::new(3);
    lab.ok(create_table("cpu"));
    lab.ok(create_hypertable("cpu", &[("host", None)]));
    // 4 x 6 shards, to the next power of two.
    assert_eq!(lab.table("cpu").space_cells(), [32]);
    lab.ok(create_table("mem"));
    lab.ok(create_hypertable("mem", &[("host", Some(3)), ("rack", Some(5))]));
    assert_eq!(lab.group("mem").slots.len(), 15);
    lab.ok(create_table("disk"));
    lab.ok(create_hypertable("disk", &[]));
    assert_eq!(lab.group("disk").slots, [[NodeId(1), NodeId(2), NodeId(3)]]);
}

#[test]
fn hypertables_with_equal_space_keys_share_a_group() {
    let mut lab = Lab::new(2);
    for name in ["a", "b", "c", "d", "e"] {
        lab.ok(create_table(name));
    }
    lab.ok(create_hypertable("a", &[("host", Some(4))]));
    lab.ok(create_hypertable("b", &[("host", Some(4))]));
    lab.ok(create_hypertable("c", &[("host", Some(8))]));
    lab.ok(create_hypertable("d", &[("rack", Some(4))]));
    let chosen = CreateHypertable { data_nodes: vec!["dn2".into()], ..hyper("e", &[("host", Some(4))]) };
    lab.ok(Command::CreateHypertable(chosen));
    assert_eq!(lab.table("a").group, lab.table("b").group);
    for other in ["c", "d", "e"] {
        assert_ne!(lab.table("a").group, lab.table(other).group, "{other}");
    }
    assert_eq!(lab.group("e").slots, vec![vec![NodeId(2)]; 4]);
}

#[test]
fn what_cannot_be_a_hypertable_is_refused_as_timescaledb_does() {
    let mut lab = Lab::new(1);
    lab.ok(create_table("cpu"));
    lab.refused(create_hypertable("mem", &[]), "42P01", "relation \"mem\" does not exist");
    let by = |time_column: &str| CreateHypertable { time_column: time_column.into(), ..hyper("cpu", &[]) };
    lab.refused(Command::CreateHypertable(by("nix")), "42703", "column \"nix\" does not exist");
    lab.refused(Command::CreateHypertable(by("host")), "42809", "invalid type for dimension \"host\"");
    lab.refused(create_hypertable("cpu", &[("time", None)]), "TS160", "column \"time\" is already a dimension");
    let partitions = "invalid number of partitions for dimension \"host\"";
    lab.refused(create_hypertable("cpu", &[("host", Some(0))]), "22023", partitions);
    lab.refused(create_hypertable("cpu", &[("host", Some(40_000))]), "22023", partitions);
    let json = "column \"doc\" of type jsonb cannot be a space dimension";
    lab.refused(create_hypertable("cpu", &[("doc", None)]), "42809", json);
    let too_many = "the partitions of all space dimensions multiply to more than 65536";
    let wide = create_hypertable("cpu", &[("host", Some(30_000)), ("rack", Some(30_000)), ("usage", Some(30_000))]);
    lab.refused(wide, "22023", too_many);
    let zero = CreateHypertable { chunk_interval_us: Some(0), ..hyper("cpu", &[]) };
    let interval = format!("invalid interval: must be between 1 and {}", i64::MAX);
    lab.refused(Command::CreateHypertable(zero), "22023", &interval);
    let nodes = CreateHypertable { data_nodes: vec!["dn9".into()], ..hyper("cpu", &[]) };
    lab.refused(Command::CreateHypertable(nodes), "42704", "server \"dn9\" does not exist");
    lab.ok(create_hypertable("cpu", &[]));
    lab.refused(create_hypertable("cpu", &[]), "TS110", "table \"cpu\" is already a hypertable");
    let again = CreateHypertable { if_not_exists: true, ..hyper("cpu", &[]) };
    let notice = "table \"cpu\" is already a hypertable, skipping";
    assert_eq!(lab.ok(Command::CreateHypertable(again)), Reply::Skipped(notice.into()));
}

#[test]
fn compression_settings_are_those_of_the_last_change_and_checked_as_timescaledb_does() {
    let mut lab = Lab::new(1);
    lab.ok(create_table("cpu"));
    lab.refused(compress("mem", &[]), "42P01", "relation \"mem\" does not exist");
    lab.refused(compress("cpu", &[]), "TS001", "table \"cpu\" is not a hypertable");
    lab.ok(create_hypertable("cpu", &[("host", Some(4))]));
    assert_eq!(lab.table("cpu").hypertable().unwrap().compression, None);
    lab.refused(compress("cpu", &["nix"]), "42601", "column \"nix\" does not exist");
    lab.ok(compress("cpu", &["host", "rack"]));
    let expected =
        Compression { segment_by: vec![ColumnId(2), ColumnId(3)], order_by: vec![OrderBy::newest_first(ColumnId(1))] };
    assert_eq!(lab.table("cpu").hypertable().unwrap().compression, Some(expected));
    lab.catalog.take_changed();
    assert_eq!(Catalog::decode(&lab.catalog.encode()), Ok(lab.catalog.clone()));
    let version = lab.catalog.version();
    lab.ok(compress("cpu", &["host", "rack"]));
    assert_eq!(lab.catalog.version(), version, "the same settings are no change");
    let off = SetCompression { namespace: "public".into(), table: "cpu".into(), change: None };
    lab.ok(Command::SetCompression(off));
    assert_eq!(lab.table("cpu").hypertable().unwrap().compression, None);
}

#[test]
fn integer_times_have_intervals_of_their_own() {
    let mut lab = Lab::new(1);
    for (name, sql_type, interval) in
        [("a", SqlType::Int2, 10_000), ("b", SqlType::Int4, 100_000), ("c", SqlType::Int8, 1_000_000)]
    {
        let columns = vec![column("time", sql_type)];
        lab.ok(Command::CreateTable(CreateTable { columns, ..create(name) }));
        lab.ok(create_hypertable(name, &[]));
        assert_eq!(lab.table(name).hypertable().unwrap().chunk_interval_us, interval);
    }
    let columns = vec![column("time", SqlType::Int2)];
    lab.ok(Command::CreateTable(CreateTable { columns, ..create("d") }));
    let long = CreateHypertable { chunk_interval_us: Some(32_768), ..hyper("d", &[]) };
    lab.refused(Command::CreateHypertable(long), "22023", "invalid interval: must be between 1 and 32767");
}

#[test]
fn copies_are_refused_while_there_is_no_replication() {
    let mut lab = Lab::new(2);
    lab.ok(create_table("cpu"));
    let with =
        |factor| Command::CreateHypertable(CreateHypertable { replication_factor: Some(factor), ..hyper("cpu", &[]) });
    lab.refused(with(0), "22023", "invalid replication factor");
    lab.refused(with(3), "TS170", "replication factor too large for hypertable \"cpu\"");
    lab.refused(with(2), "0A000", "replication is not available yet");
    let setting = |value: &str| Command::SetSetting {
        name: settings::REPLICATION_FACTOR_DEFAULT.into(),
        value: Some(value.into()),
    };
    lab.refused(setting("2"), "0A000", "replication is not available yet");
    assert_eq!(lab.apply(setting("x")).unwrap_err().sqlstate(), "22023");
    assert_eq!(lab.apply(setting("0")).unwrap_err().sqlstate(), "22023");
    lab.ok(setting("1"));
    lab.ok(with(1));
    let mut empty = Lab::new(0);
    empty.ok(create_table("cpu"));
    let none = "no data nodes can be assigned to the hypertable";
    empty.refused(create_hypertable("cpu", &[]), "TS170", none);
}

#[test]
fn chunks_are_allocated_once_however_often_they_are_asked_for() {
    let mut lab = Lab::new(2);
    lab.ok(create_table("cpu"));
    lab.ok(create_hypertable("cpu", &[("host", Some(4))]));
    let cells = [("cpu", 0, 0), ("cpu", 1, 0), ("cpu", 0, 0)];
    let chunks = lab.allocate(&cells);
    assert_eq!(chunks, [ChunkId(1), ChunkId(2), ChunkId(1)]);
    let version = lab.catalog.version();
    assert_eq!(lab.allocate(&cells), chunks);
    assert_eq!(lab.catalog.version(), version, "nothing has changed");
    let chunk = &lab.catalog.chunks[&ChunkId(2)];
    assert_eq!((chunk.epoch, chunk.primary, chunk.in_sync.as_slice()), (Epoch(1), NodeId(2), &[NodeId(2)][..]));
    assert_eq!((chunk.range.start, chunk.range.end), (TimeUs(0), TimeUs(WEEK)));
}

#[test]
fn cells_that_cannot_be_are_refused_all_together() {
    let mut lab = Lab::new(1);
    lab.ok(create_table("cpu"));
    lab.ok(create_hypertable("cpu", &[("host", Some(4))]));
    let id = lab.table("cpu").id;
    let with = |bad| Command::AllocateChunks { cells: vec![cell(id, 0, 0), bad], takes_turns: true };
    lab.refused(with(cell(id, 4, 0)), "40001", "could not serialize access: table 16384 has no slot 4");
    lab.refused(with(cell(id, 0, 5)), "40001", "could not serialize access: no chunk of table 16384 starts at 5");
    let gone = "could not serialize access: table 9 was dropped";
    lab.refused(with(cell(TableId(9), 0, 0)), "40001", gone);
    assert_eq!(lab.allocate(&[("cpu", 0, i64::MIN)]).len(), 1, "the interval that holds -infinity");
}

#[test]
fn intervals_without_space_dimension_start_on_the_nodes_in_turn() {
    let mut lab = Lab::new(3);
    lab.ok(create_table("cpu"));
    lab.ok(create_hypertable("cpu", &[]));
    let cells: Vec<_> = (-3..6).map(|week| ("cpu", 0, week * WEEK)).collect();
    lab.allocate(&cells);
    let primaries: Vec<_> = lab.catalog.chunks.values().map(|chunk| chunk.primary.0).collect();
    for three in primaries.chunks(3) {
        let mut sorted = three.to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, [1, 2, 3], "{primaries:?}");
    }
}

#[test]
fn intervals_without_space_dimension_start_on_the_shards_of_each_node_in_turn() {
    let mut lab = Lab::new(2);
    lab.ok(create_table("events"));
    lab.ok(create_hypertable("events", &[]));
    let chunks = lab.allocate(&[-2, -1, 0, 1].map(|week| ("events", 0, week * WEEK)));
    let group = lab.group("events").id;
    let place = |chunk: &ChunkId| {
        let chunk = &lab.catalog.chunks[chunk];
        (chunk.primary, shard_of(group, chunk.slot, chunk.shard_turn, 2))
    };
    let places: BTreeSet<_> = chunks.iter().map(place).collect();
    assert_eq!(places.len(), 4, "{places:?}");
    // A log may hold what an older release proposed, whose chunks lie on one shard.
    let cells = vec![cell(lab.table("events").id, 0, 5 * WEEK)];
    let Reply::Chunks(old) = lab.ok(Command::AllocateChunks { cells, takes_turns: false }) else { panic!() };
    assert_eq!(lab.catalog.chunks[&old[0]].shard_turn, 0);
}

#[test]
fn a_chunk_of_a_dead_node_is_made_elsewhere_and_of_no_node_nowhere() {
    let mut lab = Lab::new(2);
    lab.ok(create_table("cpu"));
    lab.ok(create_hypertable("cpu", &[("host", Some(2))]));
    lab.ok(Command::SetNodeState { node: NodeId(2), state: NodeState::Dead });
    let chunk = lab.allocate(&[("cpu", 1, 0)])[0];
    assert_eq!(lab.catalog.chunks[&chunk].primary, NodeId(1));
    lab.ok(Command::SetNodeState { node: NodeId(1), state: NodeState::Dead });
    let cells = vec![cell(lab.table("cpu").id, 0, 0)];
    lab.refused(Command::AllocateChunks { cells, takes_turns: true }, "57P03", "not available: no data node is alive");
}

#[test]
fn a_node_keeps_its_id_until_it_started_and_its_name_is_taken_after() {
    let mut lab = Lab::new(0);
    assert_eq!(lab.ok(join(NodeRole::Access, "a:1")), Reply::Node(NodeId(1)));
    assert_eq!(lab.ok(join(NodeRole::Access, "a:1")), Reply::Node(NodeId(1)), "the answer was lost");
    assert_eq!(lab.ok(join(NodeRole::Data, "a:1")), Reply::Node(NodeId(2)), "one process, two roles");
    let names: Vec<_> = lab.catalog.nodes().map(|node| node.name.clone()).collect();
    assert_eq!(names, ["an1", "dn1"]);
    assert_eq!(lab.catalog.nodes[&NodeId(2)].state, NodeState::Dead, "it has not started");
    lab.ok(start(NodeId(2), 1, "b:1"));
    let node = &lab.catalog.nodes[&NodeId(2)];
    assert_eq!((node.state, node.address.as_str()), (NodeState::Live, "b:1"));
    lab.refused(join(NodeRole::Data, "b:1"), "42710", "data node \"dn1\" already exists");
    assert_eq!(lab.ok(join(NodeRole::Data, "c:1")), Reply::Node(NodeId(3)));
}

#[test]
fn a_start_raises_the_epochs_of_what_the_node_led() {
    let mut lab = Lab::new(2);
    lab.ok(create_table("cpu"));
    lab.ok(create_hypertable("cpu", &[("host", Some(2))]));
    lab.allocate(&[("cpu", 0, 0), ("cpu", 1, 0)]);
    lab.catalog.take_changed();
    lab.ok(start(NodeId(1), 2, "d:1"));
    let epochs: Vec<_> = lab.catalog.chunks.values().map(|chunk| (chunk.primary.0, chunk.epoch.0)).collect();
    assert_eq!(epochs, [(1, 2), (2, 1)]);
    assert_eq!(lab.catalog.take_changed(), [NounKey::Chunk(ChunkId(1)), NounKey::Node(NodeId(1))]);
    assert_eq!(lab.ok(start(NodeId(1), 2, "d:1")), Reply::Done, "the answer was lost");
    assert_eq!(lab.catalog.take_changed(), []);
    let copy = "node 1 was started elsewhere, for start 2; this is start 1";
    lab.refused(start(NodeId(1), 1, "d:1"), "55000", copy);
    lab.refused(start(NodeId(1), 2, "x:1"), "55000", "start 2 of node 1 is known from another process");
    lab.refused(start(NodeId(9), 1, "x:1"), "42704", "node 9 does not exist");
}

#[test]
fn a_start_on_a_copy_of_the_folder_is_refused_also_after_an_image() {
    let mut lab = Lab::new(1);
    let marked = |incarnation, mark, before: &[(u64, u64)]| {
        let past = |(incarnation, mark): &(u64, u64)| PastStart {
            incarnation: Incarnation(*incarnation),
            mark: StartMark(*mark),
        };
        let before = before.iter().map(past).collect();
        let start = Start { node: NodeId(1), incarnation: Incarnation(incarnation), mark: StartMark(mark), before };
        Command::StartNode { start, address: "d:1".into(), sql_address: None, shards: 2 }
    };
    lab.ok(marked(2, 20, &[]));
    lab.ok(marked(2, 20, &[]));
    let copy = |start| format!("start {start} of node 1 was another process: this data folder is a copy of its");
    lab.refused(marked(2, 21, &[]), "55000", &copy(2));
    lab.ok(marked(4, 40, &[(2, 20), (3, 30)]));
    lab.catalog = Catalog::decode(&lab.catalog.encode()).unwrap();
    // The copy was made before start 3, and started more often.
    lab.refused(marked(6, 61, &[(2, 20), (3, 31), (4, 41), (5, 51)]), "55000", &copy(4));
    lab.ok(marked(5, 50, &[(4, 40)]));
}

#[test]
fn a_removed_node_is_objected_to_for_ever_and_one_that_is_not_known_yet_is_not() {
    let mut lab = Lab::new(2);
    lab.ok(Command::RemoveNode { node: NodeId(2) });
    let objection = |node| lab.catalog.objection(&Start::unmarked(NodeId(node), Incarnation(9)));
    assert_eq!(objection(1), None);
    assert_eq!(objection(2).as_deref(), Some("node 2 was removed from the cluster"));
    assert_eq!(objection(3), None, "this catalog may be behind");
}

#[test]
fn a_node_leaves_only_without_chunks() {
    let mut lab = Lab::new(2);
    lab.ok(create_table("cpu"));
    lab.ok(create_hypertable("cpu", &[("host", Some(2))]));
    lab.allocate(&[("cpu", 0, 0)]);
    let holds = "data node \"dn1\" still holds data for distributed hypertable \"cpu\"";
    lab.refused(Command::RemoveNode { node: NodeId(1) }, "55006", holds);
    lab.ok(Command::RemoveNode { node: NodeId(2) });
    assert_eq!(lab.group("cpu").slots, [[NodeId(1)], [NodeId(1)]]);
    assert!(lab.catalog.gave_node_id(NodeId(2)) && lab.catalog.node(NodeId(2)).is_none());
    assert_eq!(lab.add_data_node(3), NodeId(3), "no id is given twice");
}

#[test]
fn a_node_on_its_way_out_stays_so_and_gets_no_chunks() {
    let mut lab = Lab::new(2);
    lab.ok(create_table("cpu"));
    lab.ok(create_hypertable("cpu", &[("host", Some(2))]));
    lab.ok(Command::SetNodeState { node: NodeId(2), state: NodeState::Draining });
    lab.ok(Command::SetNodeState { node: NodeId(2), state: NodeState::Live });
    lab.ok(start(NodeId(2), 2, "d:2"));
    assert_eq!(lab.catalog.nodes[&NodeId(2)].state, NodeState::Draining);
    let chunk = lab.allocate(&[("cpu", 1, 0)])[0];
    assert_eq!(lab.catalog.chunks[&chunk].primary, NodeId(1));
}

#[test]
fn groups_without_chunks_spread_over_a_new_node_and_others_stay() {
    let mut lab = Lab::new(1);
    for name in ["empty", "full", "turns"] {
        lab.ok(create_table(name));
    }
    lab.ok(create_hypertable("empty", &[("host", Some(4))]));
    lab.ok(create_hypertable("full", &[("rack", Some(4))]));
    lab.ok(create_hypertable("turns", &[]));
    lab.allocate(&[("full", 0, 0), ("turns", 0, 0)]);
    lab.add_data_node(2);
    let led = |name: &str| lab.group(name).slots.iter().filter(|nodes| nodes[0] == NodeId(2)).count();
    assert_eq!((led("empty"), led("full")), (2, 0));
    assert_eq!(lab.group("turns").slots, [[NodeId(1), NodeId(2)]]);
}

#[test]
fn tables_made_before_the_first_data_node_are_placed_when_it_comes() {
    let mut lab = Lab::new(0);
    lab.ok(create_table("cpu"));
    assert_eq!(lab.group("cpu").slots, vec![Vec::<NodeId>::new()]);
    lab.add_data_node(1);
    assert_eq!(lab.group("cpu").slots, [[NodeId(1)]]);
}

#[test]
fn a_batch_is_one_version_or_nothing() {
    let mut lab = Lab::new(1);
    let both = vec![create_table("cpu"), create_hypertable("cpu", &[("host", None)])];
    let Reply::Batch(replies) = lab.ok(Command::Batch(both.clone())) else { panic!() };
    assert_eq!(replies.len(), 2);
    assert_eq!(lab.catalog.version(), CatalogVersion(lab.index));
    let mut third = both.clone();
    third[0] = create_table("mem");
    lab.refused(Command::Batch(third), "TS110", "table \"cpu\" is already a hypertable");
    lab.refused(Command::Batch(vec![Command::Batch(vec![])]), "08P01", "bad request: a batch within a batch");
}

#[test]
fn what_changes_nothing_makes_no_version() {
    let mut lab = Lab::new(1);
    let version = lab.catalog.version();
    assert_eq!(lab.ok(Command::AllocateProducer), Reply::Producer(ProducerId(1)));
    assert_eq!(lab.ok(Command::AllocateProducer), Reply::Producer(ProducerId(2)));
    lab.ok(Command::ExtendOracle { upto: Ts(100) });
    assert_eq!(lab.apply(Command::ExtendOracle { upto: Ts(100) }).unwrap_err().sqlstate(), "08P01");
    lab.ok(Command::SetSetting { name: "a".into(), value: None });
    lab.ok(Command::SetNodeState { node: NodeId(1), state: NodeState::Live });
    assert_eq!((lab.catalog.version(), lab.catalog.oracle_upto()), (version, Ts(100)));
    lab.ok(Command::SetSetting { name: "a".into(), value: Some("b".into()) });
    assert_eq!((lab.catalog.version(), lab.catalog.setting("a")), (CatalogVersion(lab.index), Some("b")));
}

#[test]
fn a_repeated_proposal_gets_its_first_answer() {
    let mut catalog = Catalog::default();
    let propose = |catalog: &mut Catalog, index, sequence, command| {
        let proposal = Proposal { producer: ProducerId(7), sequence: Sequence(sequence), command };
        catalog.apply_proposal(index, proposal)
    };
    let first = propose(&mut catalog, 1, 1, create_table("cpu"));
    assert_eq!(propose(&mut catalog, 2, 1, create_table("cpu")), first);
    let second = propose(&mut catalog, 3, 2, create_table("cpu"));
    assert_eq!(second.outcome.as_ref().unwrap_err().sqlstate(), "42P07");
    let drop = Command::DropTable { namespace: "public".into(), name: "cpu".into(), if_exists: false };
    propose(&mut catalog, 4, 3, drop);
    assert_eq!(propose(&mut catalog, 5, 2, create_table("cpu")), second, "refusals are remembered too");
    for sequence in 4..200 {
        propose(&mut catalog, 10 + sequence, sequence, Command::AllocateProducer);
    }
    let forgotten = propose(&mut catalog, 500, 1, create_table("cpu")).outcome.unwrap_err();
    assert_eq!(forgotten.sqlstate(), "08007");
}

#[test]
fn a_view_that_is_behind_is_sent_what_changed_since() {
    let mut lab = Lab::new(1);
    let mut history = History::starting_at(CatalogVersion(0));
    history.record(lab.catalog.version(), lab.catalog.take_changed());
    let before = lab.catalog.version();
    for command in [create_table("a"), create_table("b")] {
        lab.ok(command);
        history.record(lab.catalog.version(), lab.catalog.take_changed());
    }
    let dropped = lab.table("a").id;
    lab.ok(Command::DropTable { namespace: "public".into(), name: "a".into(), if_exists: false });
    history.record(lab.catalog.version(), lab.catalog.take_changed());
    let delta = history.delta(&lab.catalog, before);
    assert_eq!((delta.from, delta.to), (before, lab.catalog.version()));
    assert_eq!(delta.removed, [NounKey::Table(dropped), NounKey::Group(GroupId(1))]);
    let changed: Vec<_> = delta.changed.iter().map(Noun::key).collect();
    assert_eq!(changed, [NounKey::Table(lab.table("b").id), NounKey::Group(GroupId(2))]);
    assert_eq!(history.delta(&lab.catalog, CatalogVersion(0)), lab.catalog.whole());
    let restarted = History::starting_at(lab.catalog.version());
    assert_eq!(restarted.delta(&lab.catalog, before), lab.catalog.whole());
}

#[test]
fn an_image_holds_everything_and_damage_is_an_error() {
    let mut lab = Lab::new(2);
    lab.ok(create_table("cpu"));
    lab.ok(create_hypertable("cpu", &[("host", Some(4))]));
    lab.allocate(&[("cpu", 0, 0), ("cpu", 3, WEEK)]);
    lab.ok(Command::ExtendOracle { upto: Ts(500) });
    lab.ok(Command::SetSetting { name: "a".into(), value: Some("b".into()) });
    let proposal = Proposal { producer: ProducerId(9), sequence: Sequence(4), command: create_table("cpu") };
    lab.catalog.apply_proposal(100, proposal.clone());
    lab.catalog.take_changed();
    let bytes = lab.catalog.encode();
    assert_eq!(Catalog::decode(&bytes), Ok(lab.catalog));
    for length in 0..bytes.len() {
        // A prefix may be a message, of a catalog that breaks its promises or of an older one; never a panic.
        let _ = Catalog::decode(&bytes[..length]);
    }
    assert!(Catalog::decode(&[]).is_err());
}

/// Commands at random: every one is answered, promises hold (asserted after each), and two members agree.
#[test]
fn every_seed_keeps_the_promises_and_gives_equal_members() {
    for seed in 0..40 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut lab = Lab::new(0);
        let mut other = Catalog::default();
        for _ in 0..150 {
            let command = random_command(&mut random);
            let outcome = lab.apply(command.clone());
            assert_eq!(other.apply(lab.index, command), outcome, "seed {seed}");
            assert_eq!(lab.catalog.validate(), Ok(()), "seed {seed}");
        }
        assert_eq!(lab.catalog, other, "seed {seed}");
        lab.catalog.take_changed();
        assert_eq!(Catalog::decode(&lab.catalog.encode()), Ok(lab.catalog), "seed {seed}");
    }
}

fn random_command(random: &mut ChaCha8Rng) -> Command {
    let name = ["a", "b", "c"][random.random_range(0..3)];
    let node = NodeId(random.random_range(1..6));
    match random.random_range(0..13) {
        0 | 1 => create_table(name),
        2 => Command::DropTable { namespace: "public".into(), name: name.into(), if_exists: random.random_bool(0.5) },
        3 => create_hypertable(name, &[]),
        4 => create_hypertable(name, &[("host", Some(random.random_range(1..5)))]),
        5 | 6 => {
            let table = TableId(16_384 + random.random_range(0..8));
            let cells = (0..3).map(|slot| cell(table, slot, random.random_range(-2..3) * WEEK)).collect();
            Command::AllocateChunks { cells, takes_turns: random.random_bool(0.5) }
        }
        7 => join(NodeRole::Data, &format!("d:{}", random.random_range(0..4))),
        8 => start(node, random.random_range(1..5), &format!("d:{}", node.0)),
        9 => Command::RemoveNode { node },
        10 => {
            Command::ReopenChunk { chunk: ChunkId(random.random_range(0..9)), epoch: Epoch(random.random_range(1..4)) }
        }
        11 => compress(name, [&["host"], &["time"], &[] as &[&str]][random.random_range(0..3)]),
        _ => {
            let state = [NodeState::Live, NodeState::Dead, NodeState::Draining][random.random_range(0..3)];
            Command::SetNodeState { node, state }
        }
    }
}
