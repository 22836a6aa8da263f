//! Members of one group in one process, over real loopback connections: elections, timestamps, joining and leaving,
//! restarts, moves, and what a folder that is not right is answered with.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use meridian_client::cluster::{CatalogView, CatalogWatch, Channels, MetaClient};
use meridian_meta::{Bootstrap, Member, MemberOptions, MetaError};
use meridian_proto::catalog::{NodeRole, NodeState};
use meridian_proto::command::{Command, CreateTable, JoinNode, Reply};
use meridian_proto::schema::Column;
use meridian_proto::start::Start;
use meridian_proto::{CatalogVersion, ColumnId, Incarnation, NodeId, Refusal, SqlType, Ts, WIRE_VERSION, wire};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};

/// Far longer than anything takes: a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

/// An access node with a folder and a port of its own, started or not.
struct AccessNode {
    folder: TempDir,
    address: String,
    peers: Vec<String>,
    bootstrap: Bootstrap,
    image_every_entries: u64,
    started: Option<Started>,
}

struct Started {
    member: Member,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

/// A port that is free now. The listener is dropped: the node binds it again when it starts.
async fn free_address() -> String {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    listener.local_addr().unwrap().to_string()
}

impl AccessNode {
    async fn new(bootstrap: Bootstrap) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            address: free_address().await,
            peers: Vec::new(),
            bootstrap,
            image_every_entries: 10_000,
            started: None,
        }
    }

    fn options(&self) -> MemberOptions {
        MemberOptions {
            peers: self.peers.clone(),
            bootstrap: self.bootstrap,
            image_every_entries: self.image_every_entries,
            ..MemberOptions::new(self.folder.path(), self.address.as_str(), Channels::new())
        }
    }

    async fn start(&mut self) {
        let member = Member::start(self.options()).await.unwrap();
        let listener = TcpListener::bind(&self.address).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        let service = member.service();
        let server = tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            let stopped = async { drop(stopped.await) };
            server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped).await.unwrap();
        });
        self.started = Some(Started { member, stop, server });
    }

    async fn stop(&mut self) {
        let Started { member, stop, server } = self.started.take().unwrap();
        member.shutdown().await;
        drop(stop);
        // Connections of others may stay open; their requests find no member any more.
        let abort = server.abort_handle();
        if tokio::time::timeout(Duration::from_secs(2), server).await.is_err() {
            abort.abort();
        }
    }

    fn member(&self) -> &Member {
        &self.started.as_ref().unwrap().member
    }

    async fn ready(&self) -> NodeId {
        tokio::time::timeout(PATIENCE, self.member().ready()).await.expect("in time").unwrap().1
    }

    async fn status(&self) -> wire::StatusResponse {
        self.member().status().await
    }

    async fn leads(&self) -> bool {
        let status = self.status().await;
        status.leader == status.node && status.node != 0
    }
}

/// Waits until something holds.
async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = deadline();
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Several nodes of one cluster.
struct Lab {
    nodes: Vec<AccessNode>,
}

impl Lab {
    /// Nodes that wait, of which the first is told to begin the cluster.
    async fn new(count: usize) -> Self {
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(AccessNode::new(Bootstrap::Wait).await);
        }
        let mut lab = Self { nodes };
        lab.introduce();
        for node in &mut lab.nodes {
            node.start().await;
        }
        let mut client = lab.raw(0);
        let init = wire::InitClusterRequest { replication_factor: 1 };
        assert_eq!(client.init_cluster(init).await.unwrap().into_inner().node, 1);
        for node in &lab.nodes {
            node.ready().await;
        }
        lab.wait_members(count.min(3), count.saturating_sub(3)).await;
        lab
    }

    /// Tells every node where all are.
    fn introduce(&mut self) {
        let addresses = self.addresses();
        self.nodes.iter_mut().for_each(|node| node.peers.clone_from(&addresses));
    }

    fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.address.clone()).collect()
    }

    fn raw(&self, node: usize) -> wire::meta_client::MetaClient<tonic::transport::Channel> {
        wire::meta_client::MetaClient::new(Channels::new().channel(&self.nodes[node].address))
    }

    fn client(&self) -> MetaClient {
        MetaClient::new(Channels::new(), self.addresses())
    }

    async fn leader(&self) -> Option<usize> {
        for (number, node) in self.nodes.iter().enumerate() {
            if node.started.is_some() && node.leads().await {
                return Some(number);
            }
        }
        None
    }

    async fn wait_leader(&self) -> usize {
        until("a leader", || async { self.leader().await.is_some() }).await;
        self.leader().await.unwrap_or(0)
    }

    async fn wait_members(&self, voters: usize, learners: usize) {
        until("the membership", || async {
            let Some(leader) = self.leader().await else { return false };
            let members = self.nodes[leader].status().await.members;
            let voting = members.iter().filter(|member| member.voter).count();
            (voting, members.len() - voting) == (voters, learners)
        })
        .await;
    }

    /// Waits until all started nodes have applied the same.
    async fn wait_equal(&self) {
        until("equal members", || async {
            let mut applied = Vec::new();
            for node in self.nodes.iter().filter(|node| node.started.is_some()) {
                applied.push(node.status().await.applied);
            }
            applied.windows(2).all(|pair| pair[0] == pair[1])
        })
        .await;
    }

    /// The catalog as one node tells it.
    async fn view(&self, node: usize) -> wire::CatalogDelta {
        let mut stream = self.raw(node).watch(wire::WatchRequest { after: 0 }).await.unwrap().into_inner();
        tokio::time::timeout(PATIENCE, stream.message()).await.expect("in time").unwrap().unwrap()
    }

    async fn stop_all(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| node.started.is_some()) {
            node.stop().await;
        }
    }
}

fn create_table(name: &str) -> Command {
    let column = Column {
        id: ColumnId(0),
        name: "time".into(),
        sql_type: SqlType::Timestamptz,
        not_null: true,
        default: None,
        modifier: None,
    };
    Command::CreateTable(CreateTable {
        namespace: "public".into(),
        name: name.into(),
        columns: vec![column],
        if_not_exists: false,
    })
}

fn has_table(view: &wire::CatalogDelta, name: &str) -> bool {
    view.changed.iter().any(|noun| matches!(&noun.noun, Some(wire::noun::Noun::Table(table)) if table.name == name))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_alone_serves_at_once_and_again_after_a_restart() {
    let mut node = AccessNode::new(Bootstrap::Init { replication_factor: 1 }).await;
    let begun = Instant::now();
    node.start().await;
    assert_eq!(node.ready().await, NodeId(1));
    eprintln!("ready after {:?}", begun.elapsed());
    let mut lab = Lab { nodes: vec![node] };
    let client = lab.client();
    let (reply, version) = client.propose(create_table("cpu"), deadline()).await.unwrap();
    assert!(matches!(reply, Reply::Table { .. }));
    let (first, seen) = client.timestamp(deadline()).await.unwrap();
    assert_eq!(seen, version);
    let refused = client.propose(create_table("cpu"), deadline()).await.unwrap_err();
    assert_eq!((refused.sqlstate(), refused.to_string().as_str()), ("42P07", "relation \"cpu\" already exists"));

    let rounds = 2000;
    let begun = Instant::now();
    for _ in 0..rounds {
        client.timestamp(deadline()).await.unwrap();
    }
    eprintln!("timestamp over loopback: {:?}", begun.elapsed() / rounds);

    let before = lab.view(0).await;
    lab.nodes[0].stop().await;
    let begun = Instant::now();
    lab.nodes[0].start().await;
    assert_eq!(lab.nodes[0].ready().await, NodeId(1));
    eprintln!("ready again after {:?}", begun.elapsed());
    let after = lab.view(0).await;
    assert!(has_table(&after, "cpu") && after.changed.len() == before.changed.len());
    assert!(lab.client().timestamp(deadline()).await.unwrap().0 > first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_agree_whoever_is_asked() {
    let lab = Lab::new(3).await;
    for (number, address) in lab.addresses().into_iter().enumerate() {
        let client = MetaClient::new(Channels::new(), vec![address]);
        client.propose(create_table(&format!("t{number}")), deadline()).await.unwrap();
    }
    lab.wait_equal().await;
    let views = [lab.view(0).await, lab.view(1).await, lab.view(2).await];
    assert!(views.iter().all(|view| *view == views[0]));
    assert!((0..3).all(|number| has_table(&views[0], &format!("t{number}"))));
    // A second `cluster init` is refused, wherever.
    let refused = lab.raw(1).init_cluster(wire::InitClusterRequest { replication_factor: 1 }).await.unwrap_err();
    assert_eq!(Refusal::from_status(refused).sqlstate(), "55000");
}

/// Statements ask for timestamps without pause, through every member, while leaders stop.
struct TimestampWatch {
    /// The greatest timestamp and version answered so far.
    answered: Arc<AtomicU64>,
    count: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Vec<u64>>>,
}

impl TimestampWatch {
    fn start(lab: &Lab, callers: usize) -> Self {
        let (answered, count, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default(), Arc::default());
        let mut watch = Self { answered, count, stop, tasks: Vec::new() };
        for _ in 0..callers {
            let client = lab.client();
            let (answered, count, stop) =
                (Arc::clone(&watch.answered), Arc::clone(&watch.count), Arc::clone(&watch.stop));
            watch.tasks.push(tokio::spawn(async move {
                let mut got = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let floor = answered.load(Ordering::SeqCst);
                    let (Ts(timestamp), _) = client.timestamp(deadline()).await.unwrap();
                    assert!(timestamp > floor, "{timestamp} was answered after {floor}");
                    answered.fetch_max(timestamp, Ordering::SeqCst);
                    count.fetch_add(1, Ordering::SeqCst);
                    got.push(timestamp);
                }
                got
            }));
        }
        watch
    }

    /// Waits for some more answers.
    async fn go_on(&self) -> Duration {
        let (begun, before) = (Instant::now(), self.count.load(Ordering::SeqCst));
        until("timestamps", || async { self.count.load(Ordering::SeqCst) > before + 20 }).await;
        begun.elapsed()
    }

    /// All timestamps that callers got, each once.
    async fn finish(self) {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Vec::new();
        for task in self.tasks {
            all.extend(task.await.unwrap());
        }
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count, "a timestamp was answered twice");
        eprintln!("{count} timestamps");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_leader_stops_another_goes_on_and_timestamps_never_go_back() {
    let mut lab = Lab::new(3).await;
    let client = lab.client();
    client.propose(create_table("before"), deadline()).await.unwrap();
    let watch = TimestampWatch::start(&lab, 3);
    for round in 0..3 {
        watch.go_on().await;
        let leader = lab.wait_leader().await;
        lab.nodes[leader].stop().await;
        let pause = watch.go_on().await;
        eprintln!("round {round}: timestamps again {pause:?} after the leader stopped");
        client.propose(create_table(&format!("after{round}")), deadline()).await.unwrap();
        lab.nodes[leader].start().await;
        lab.nodes[leader].ready().await;
    }
    watch.finish().await;
    lab.wait_equal().await;
    let views = [lab.view(0).await, lab.view(1).await, lab.view(2).await];
    assert!(views.iter().all(|view| *view == views[0]));
    assert!(has_table(&views[0], "before") && (0..3).all(|round| has_table(&views[0], &format!("after{round}"))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_statements_wait_and_then_all_resumes() {
    let mut lab = Lab::new(3).await;
    let leader = lab.wait_leader().await;
    let (first, _) = lab.client().timestamp(deadline()).await.unwrap();
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    for other in others {
        lab.nodes[other].stop().await;
    }
    let soon = Instant::now() + Duration::from_secs(3);
    let refused = lab.client().timestamp(soon).await.unwrap_err();
    assert_eq!(refused.sqlstate(), "57P03");
    lab.nodes[others[0]].start().await;
    assert!(lab.client().timestamp(deadline()).await.unwrap().0 > first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_all_members_keeps_everything_even_at_other_addresses() {
    let mut lab = Lab::new(3).await;
    lab.client().propose(create_table("cpu"), deadline()).await.unwrap();
    let (before, _) = lab.client().timestamp(deadline()).await.unwrap();
    for move_all in [false, true] {
        lab.stop_all().await;
        if move_all {
            for node in &mut lab.nodes {
                node.address = free_address().await;
            }
            lab.introduce();
        }
        for node in &mut lab.nodes {
            node.start().await;
        }
        for (number, node) in lab.nodes.iter().enumerate() {
            let id = node.ready().await;
            assert!((1..=3).contains(&id.0), "node {number} is {id}");
        }
        assert!(lab.client().timestamp(deadline()).await.unwrap().0 > before);
        lab.wait_equal().await;
        assert!(has_table(&lab.view(0).await, "cpu"));
    }
    let addresses: Vec<String> = lab.nodes[0]
        .status()
        .await
        .nodes
        .into_iter()
        .filter_map(|status| status.node)
        .map(|node| node.address)
        .collect();
    assert!(lab.addresses().iter().all(|address| addresses.contains(address)), "{addresses:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fourth_member_learns_and_votes_when_a_voter_has_left() {
    let mut lab = Lab::new(3).await;
    let mut fourth = AccessNode::new(Bootstrap::Wait).await;
    fourth.peers = lab.addresses();
    fourth.start().await;
    assert_eq!(fourth.ready().await, NodeId(4));
    lab.nodes.push(fourth);
    lab.wait_members(3, 1).await;
    let client = lab.client();
    client.propose(create_table("cpu"), deadline()).await.unwrap();
    lab.wait_equal().await;
    assert!(has_table(&lab.view(3).await, "cpu"), "a learner has the catalog");

    // The leader itself leaves: the hardest case.
    let leader = lab.wait_leader().await;
    let leaving = lab.nodes[leader].status().await.node;
    client.leave(leaving, deadline()).await.unwrap();
    let error = tokio::time::timeout(PATIENCE, lab.nodes[leader].member().failed()).await.expect("in time");
    assert_eq!(
        error.to_string(),
        format!("this access node cannot go on: node {leaving} was removed from the cluster")
    );
    lab.nodes[leader].stop().await;
    lab.wait_members(3, 0).await;
    client.propose(create_table("mem"), deadline()).await.unwrap();
    let now_leading = lab.wait_leader().await;
    let status = lab.nodes[now_leading].status().await;
    assert!(status.members.iter().all(|member| member.node != leaving && member.voter));
    assert!(status.nodes.iter().all(|node| node.node.as_ref().unwrap().id != leaving));
    // A repeated call finds it done; a node that never was is an error.
    client.leave(leaving, deadline()).await.unwrap();
    assert_eq!(client.leave(99, deadline()).await.unwrap_err().sqlstate(), "42704");

    // Who has left does not come back.
    let error = Member::start(lab.nodes[leader].options()).await.err().expect("a removed node");
    assert!(error.to_string().contains("was removed from the cluster"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_member_gets_an_image_when_the_log_is_gone() {
    let mut node = AccessNode::new(Bootstrap::Init { replication_factor: 1 }).await;
    node.image_every_entries = 20;
    node.start().await;
    node.ready().await;
    let mut lab = Lab { nodes: vec![node] };
    let client = lab.client();
    for number in 0..100 {
        client.propose(create_table(&format!("t{number}")), deadline()).await.unwrap();
    }
    let image = lab.nodes[0].folder.path().join("meta/image");
    until("an image", || async { image.exists() }).await;

    let mut second = AccessNode::new(Bootstrap::Wait).await;
    second.peers = lab.addresses();
    second.start().await;
    second.ready().await;
    lab.nodes.push(second);
    lab.wait_members(2, 0).await;
    lab.wait_equal().await;
    assert_eq!(lab.view(0).await, lab.view(1).await);
    assert!(has_table(&lab.view(1).await, "t99"));

    lab.introduce();
    lab.stop_all().await;
    for node in &mut lab.nodes {
        node.start().await;
    }
    for node in &lab.nodes {
        node.ready().await;
    }
    assert!(has_table(&lab.view(1).await, "t99"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_proposal_is_applied_once_across_leaders() {
    let mut lab = Lab::new(3).await;
    let leader = lab.wait_leader().await;
    let request = wire::ProposeRequest { command: Some(create_table("cpu").into()), producer: 77, sequence: 1 };
    let first = lab.raw(leader).propose(request.clone()).await.unwrap().into_inner();
    assert!(matches!(first.outcome, Some(wire::propose_response::Outcome::Reply(_))));
    lab.nodes[leader].stop().await;
    let next = lab.wait_leader().await;
    let again = lab.raw(next).propose(request).await.unwrap().into_inner();
    assert_eq!(again, first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_of_the_catalog_see_every_change_through_a_leader_change() {
    let mut lab = Lab::new(3).await;
    let client = lab.client();
    let watch = CatalogWatch::start(lab.client());
    let see =
        async |version: CatalogVersion| -> Arc<CatalogView> { watch.wait_for(version, deadline()).await.unwrap() };
    let (_, version) = client.propose(create_table("a"), deadline()).await.unwrap();
    assert!(see(version).await.table_by_name("public", "a").is_some());
    let leader = lab.wait_leader().await;
    lab.nodes[leader].stop().await;
    let drop = Command::DropTable { namespace: "public".into(), name: "a".into(), if_exists: false };
    client.propose(drop, deadline()).await.unwrap();
    let (_, version) = client.propose(create_table("b"), deadline()).await.unwrap();
    let view = see(version).await;
    assert!(view.table_by_name("public", "b").is_some() && view.table_by_name("public", "a").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_data_node_is_dead_and_alive_again_with_its_heartbeats() {
    let mut node = AccessNode::new(Bootstrap::Init { replication_factor: 1 }).await;
    node.start().await;
    node.ready().await;
    let lab = Lab { nodes: vec![node] };
    let client = lab.client();
    let join = JoinNode {
        role: NodeRole::Data,
        name: String::new(),
        address: "127.0.0.1:1".into(),
        sql_address: None,
        shards: 2,
    };
    let request = wire::JoinRequest {
        node: Some(join.into()),
        wire_version: WIRE_VERSION,
        cluster_id: String::new(),
        node_id: 0,
        incarnation: 0,
    };
    let id = NodeId(client.join(request.clone(), deadline()).await.unwrap().node);
    let start = Command::StartNode {
        start: Start::unmarked(id, Incarnation(1)),
        address: "127.0.0.1:1".into(),
        sql_address: None,
        shards: 2,
    };
    client.propose(start, deadline()).await.unwrap();
    let watch = CatalogWatch::start(lab.client());
    let state = || watch.current().node(id).map(|node| node.state);
    until("live after its start", || async { state() == Some(NodeState::Live) }).await;
    until("dead without heartbeats", || async { state() == Some(NodeState::Dead) }).await;

    let (sender, receiver) = mpsc::channel(1);
    let mut raw = lab.raw(0);
    let report =
        wire::NodeReport { node: id.0, incarnation: 1, disk_free_bytes: 7, disk_used_bytes: 3, ..Default::default() };
    sender.send(report).await.unwrap();
    let mut orders = raw.report(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    let order = orders.message().await.unwrap().unwrap();
    assert!(matches!(order.order, Some(wire::node_order::Order::Noted(_))));
    until("live with a heartbeat", || async { state() == Some(NodeState::Live) }).await;
    let status = lab.nodes[0].status().await;
    let reported = status.nodes.iter().find(|node| node.node.as_ref().unwrap().id == id.0).unwrap();
    assert_eq!((reported.disk_free_bytes, reported.disk_used_bytes), (7, 3));

    // It comes back as itself; another one under its name does not.
    let cluster_id = status.cluster_id;
    let back = wire::JoinRequest { cluster_id, node_id: id.0, incarnation: 1, ..request.clone() };
    assert_eq!(client.join(back.clone(), deadline()).await.unwrap().node, id.0);
    let foreign = wire::JoinRequest { cluster_id: "0".repeat(32), ..back.clone() };
    assert_eq!(client.join(foreign, deadline()).await.unwrap_err().sqlstate(), "55000");
    let old_copy = wire::JoinRequest { incarnation: 0, ..back.clone() };
    assert_eq!(client.join(old_copy, deadline()).await.unwrap_err().sqlstate(), "55000");
    let renamed = wire::JoinNode { name: "dn7".to_owned(), ..back.node.clone().unwrap() };
    let renamed = wire::JoinRequest { node: Some(renamed), ..back.clone() };
    let refused = client.join(renamed, deadline()).await.unwrap_err().to_string();
    assert_eq!(refused, "the folder belongs to node \"dn1\", this process was started as \"dn7\"");
    let stranger = wire::JoinRequest { node_id: 99, ..back };
    assert_eq!(client.join(stranger, deadline()).await.unwrap_err().sqlstate(), "42704");
    assert_eq!(client.join(request, deadline()).await.unwrap_err().sqlstate(), "42710");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_are_refused_and_others_unaffected() {
    let mut node = AccessNode::new(Bootstrap::Init { replication_factor: 1 }).await;
    node.start().await;
    node.ready().await;
    let lab = Lab { nodes: vec![node] };
    let mut raw = lab.raw(0);
    let sqlstate = |status: tonic::Status| Refusal::from_status(status).sqlstate().to_owned();
    assert_eq!(sqlstate(raw.propose(wire::ProposeRequest::default()).await.unwrap_err()), "08P01");
    let extend = wire::Command::from(Command::ExtendOracle { upto: Ts(u64::MAX) });
    let request = wire::ProposeRequest { command: Some(extend), producer: 0, sequence: 0 };
    assert_eq!(sqlstate(raw.propose(request).await.unwrap_err()), "08P01");
    let cluster_id = lab.nodes[0].status().await.cluster_id;
    for (wire_version, cluster_id) in [(99, cluster_id.clone()), (WIRE_VERSION, "0".repeat(32))] {
        let request = wire::RaftRequest { wire_version, kind: 1, body: Vec::new(), cluster_id };
        assert_eq!(sqlstate(raw.raft(request).await.unwrap_err()), "08P01");
    }
    for kind in 0..5 {
        for body in [Vec::new(), vec![0xff; 40], vec![0x12, 0x00, 0x22, 0x02, 0xff, 0xff]] {
            let request = wire::RaftRequest { wire_version: WIRE_VERSION, kind, body, cluster_id: cluster_id.clone() };
            assert_eq!(sqlstate(raw.raft(request).await.unwrap_err()), "08P01", "kind {kind}");
        }
    }
    lab.client().propose(create_table("cpu"), deadline()).await.unwrap();
}

/// A folder with a cluster of one member in it, stopped.
async fn stopped_member() -> AccessNode {
    let mut node = AccessNode::new(Bootstrap::Init { replication_factor: 1 }).await;
    node.start().await;
    node.ready().await;
    node.stop().await;
    node
}

fn flip(path: &Path, position: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[position] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_folder_is_refused_with_file_and_position_and_left_as_it_is() {
    for (file, position) in [("vote", 20), ("identity", 20), ("log/00000000000000000000.log", 60)] {
        let node = stopped_member().await;
        let path = node.folder.path().join("meta").join(file);
        flip(&path, position);
        let damaged = std::fs::read(&path).unwrap();
        let error = Member::start(node.options()).await.err().unwrap().to_string();
        let named = path.to_str().unwrap();
        assert!(error.contains(named) && error.contains("damaged at byte"), "{file}: {error}");
        assert_eq!(std::fs::read(&path).unwrap(), damaged);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_end_of_the_log_is_cut_and_the_member_goes_on() {
    let mut node = stopped_member().await;
    let path = node.folder.path().join("meta/log/00000000000000000000.log");
    let mut bytes = std::fs::read(&path).unwrap();
    let torn = bytes[bytes.len() - 30..].to_vec();
    let mut record = Vec::new();
    meridian_proto::frame::encode(2, &torn, &mut record);
    bytes.extend_from_slice(&record[..record.len() - 5]);
    std::fs::write(&path, bytes).unwrap();
    node.start().await;
    assert_eq!(node.ready().await, NodeId(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_lost_a_file_is_refused() {
    for file in ["vote", "identity"] {
        let node = stopped_member().await;
        std::fs::remove_file(node.folder.path().join("meta").join(file)).unwrap();
        let error = Member::start(node.options()).await.err().unwrap().to_string();
        assert!(error.contains(file), "{file}: {error}");
    }
    // All of the log: the identity remembers that there was one.
    let node = stopped_member().await;
    std::fs::remove_file(node.folder.path().join("meta/vote")).unwrap();
    std::fs::remove_dir_all(node.folder.path().join("meta/log")).unwrap();
    assert!(matches!(Member::start(node.options()).await.err(), Some(MetaError::Identity(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_in_use_and_a_folder_of_another_cluster_are_refused() {
    let mut node = AccessNode::new(Bootstrap::Init { replication_factor: 1 }).await;
    node.start().await;
    node.ready().await;
    assert!(matches!(Member::start(node.options()).await.err(), Some(MetaError::InUse(_))));

    // Two clusters; a node of the second is told to go to the first.
    let mut lab = Lab::new(2).await;
    lab.stop_all().await;
    let stray = &mut lab.nodes[1];
    stray.peers = vec![node.address.clone()];
    let identity = std::fs::read(stray.folder.path().join("meta/identity")).unwrap();
    let error = Member::start(stray.options()).await.err().expect("another cluster's folder");
    assert!(error.to_string().contains("of cluster"), "{error}");
    assert_eq!(std::fs::read(stray.folder.path().join("meta/identity")).unwrap(), identity, "no start is counted");

    // A peer that comes up only after the start is met while it runs.
    node.stop().await;
    stray.start().await;
    node.start().await;
    let error = tokio::time::timeout(PATIENCE, stray.member().ready()).await.expect("in time").unwrap_err();
    assert!(error.to_string().contains("of cluster"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_with_copies_is_not_begun_yet() {
    let mut node = AccessNode::new(Bootstrap::Wait).await;
    node.start().await;
    assert_eq!(node.status().await.state, "waiting");
    let mut lab = Lab { nodes: vec![node] };
    let refused = lab.raw(0).init_cluster(wire::InitClusterRequest { replication_factor: 2 }).await.unwrap_err();
    assert_eq!(Refusal::from_status(refused).sqlstate(), "0A000");
    lab.raw(0).init_cluster(wire::InitClusterRequest { replication_factor: 1 }).await.unwrap();
    lab.nodes[0].ready().await;
    assert_eq!(lab.nodes[0].status().await.state, "member");
    assert_eq!(lab.nodes[0].status().await.nodes.len(), 1);
    let name = "timescaledb.hypertable_replication_factor_default";
    let setting = wire::Setting { name: name.to_owned(), value: "1".to_owned() };
    let setting = Some(wire::noun::Noun::Setting(setting));
    assert!(lab.view(0).await.changed.iter().any(|noun| noun.noun == setting), "it is stored");
    lab.stop_all().await;
}
