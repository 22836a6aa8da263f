//! What a proposer is told when answers are lost.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use meridian_proto::wire::meta_server::{Meta, MetaServer};
use tokio_stream::Stream;
use tonic::transport::Server;
use tonic::{Request, Streaming};

use super::*;

const ADDRESS: &str = "127.0.0.1:9";

/// How a member treats its n-th proposal, from 0.
type Treat = fn(usize) -> Treatment;

#[derive(Clone, Copy)]
enum Treatment {
    Answer,
    /// It took the proposal; the answer never comes.
    Swallow,
    /// It took the proposal and does not know what became of it.
    Unknown,
    NotLeader,
    /// It did not take it.
    Unavailable,
    Refuse,
}

/// A member of the meta group that serves proposals only.
#[derive(Clone)]
struct Member {
    treat: Treat,
    taken: Arc<Mutex<Vec<(u64, u64)>>>,
    asked: Arc<AtomicUsize>,
}

type Answered<T> = Result<Response<T>, Status>;
type BoxedStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn elsewhere() -> Status {
    Status::unimplemented("not asked here")
}

#[tonic::async_trait]
impl Meta for Member {
    type WatchStream = BoxedStream<wire::CatalogDelta>;
    type ReportStream = BoxedStream<wire::NodeOrder>;

    async fn propose(&self, request: Request<wire::ProposeRequest>) -> Answered<wire::ProposeResponse> {
        use wire::propose_response::Outcome;
        let request = request.into_inner();
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let treatment = (self.treat)(number);
        if matches!(treatment, Treatment::Answer | Treatment::Swallow | Treatment::Unknown) {
            self.taken.lock().unwrap().push((request.producer, request.sequence));
        }
        let outcome = match treatment {
            Treatment::Answer => Outcome::Reply(Reply::Done.into()),
            Treatment::Swallow => std::future::pending().await,
            Treatment::Unknown => return Err(Refusal::OutcomeUnknown("no quorum".to_owned()).into()),
            Treatment::NotLeader => Outcome::NotLeader(wire::NotLeader::default()),
            Treatment::Unavailable => return Err(Refusal::Unavailable("starting".to_owned()).into()),
            Treatment::Refuse => Outcome::Refusal(Refusal::catalog("42P07", "it exists").into()),
        };
        Ok(Response::new(wire::ProposeResponse { outcome: Some(outcome), version: 7 }))
    }

    async fn raft(&self, _: Request<wire::RaftRequest>) -> Answered<wire::RaftResponse> {
        Err(elsewhere())
    }

    async fn timestamp(&self, _: Request<wire::TimestampRequest>) -> Answered<wire::TimestampResponse> {
        Err(elsewhere())
    }

    async fn watch(&self, _: Request<wire::WatchRequest>) -> Answered<Self::WatchStream> {
        Err(elsewhere())
    }

    async fn report(&self, _: Request<Streaming<wire::NodeReport>>) -> Answered<Self::ReportStream> {
        Err(elsewhere())
    }

    async fn init_cluster(&self, _: Request<wire::InitClusterRequest>) -> Answered<wire::InitClusterResponse> {
        Err(elsewhere())
    }

    async fn join(&self, _: Request<wire::JoinRequest>) -> Answered<wire::JoinResponse> {
        Err(elsewhere())
    }

    async fn leave(&self, _: Request<wire::LeaveRequest>) -> Answered<wire::LeaveResponse> {
        Err(elsewhere())
    }

    async fn status(&self, _: Request<wire::StatusRequest>) -> Answered<wire::StatusResponse> {
        Err(elsewhere())
    }
}

/// Proposes to a member that treats proposals so; also what the member took.
async fn propose(wait: Duration, treat: Treat) -> (Result<Reply, Refusal>, Vec<(u64, u64)>) {
    let member = Member { treat, taken: Arc::default(), asked: Arc::default() };
    let channels = Channels::new();
    let served = channels.listen_local(ADDRESS);
    let server = Server::builder().add_service(MetaServer::new(member.clone()));
    let server = tokio::spawn(server.serve_with_incoming(served));
    let client = MetaClient::new(channels, vec![ADDRESS.to_owned()]);
    let proposed = client.propose(Command::AllocateProducer, Instant::now() + wait).await;
    server.abort();
    let taken = member.taken.lock().unwrap().clone();
    (proposed.map(|(reply, _)| reply), taken)
}

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_proposal_whose_answers_are_swallowed_has_an_unknown_outcome() {
    let (proposed, taken) = propose(SHORT, |_| Treatment::Swallow).await;
    assert!(matches!(proposed, Err(Refusal::OutcomeUnknown(_))), "{proposed:?}");
    assert_eq!(proposed.unwrap_err().sqlstate(), "08007");
    assert_eq!(taken.len(), 1);
}

#[tokio::test]
async fn a_member_that_does_not_know_leaves_the_outcome_unknown() {
    let (proposed, taken) = propose(SHORT, |_| Treatment::Unknown).await;
    assert!(matches!(proposed, Err(Refusal::OutcomeUnknown(_))), "{proposed:?}");
    assert!(taken.len() > 1, "it is proposed again while there is time");
}

#[tokio::test]
async fn what_was_once_sent_stays_unknown_when_nobody_leads_any_more() {
    let treat = |number| if number == 0 { Treatment::Unknown } else { Treatment::NotLeader };
    let (proposed, _) = propose(SHORT, treat).await;
    assert!(matches!(proposed, Err(Refusal::OutcomeUnknown(_))), "{proposed:?}");
}

#[tokio::test]
async fn a_proposal_that_nobody_took_is_surely_not_applied() {
    let treats: [Treat; 2] = [|_| Treatment::NotLeader, |_| Treatment::Unavailable];
    for treat in treats {
        let (proposed, taken) = propose(SHORT, treat).await;
        assert!(matches!(proposed, Err(Refusal::Unavailable(_))), "{proposed:?}");
        assert_eq!(proposed.unwrap_err().sqlstate(), "57P03");
        assert_eq!(taken, []);
    }
    // Nobody listens at all.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = MetaClient::new(Channels::new(), vec![port.to_string()]);
    let proposed = client.propose(Command::AllocateProducer, Instant::now() + SHORT).await;
    assert!(matches!(proposed, Err(Refusal::Unavailable(_))), "{proposed:?}");
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_under_the_same_identity() {
    let treat = |number| match number {
        0 | 1 => Treatment::Unknown,
        2 => Treatment::NotLeader,
        _ => Treatment::Answer,
    };
    let (proposed, taken) = propose(LONG, treat).await;
    assert_eq!(proposed, Ok(Reply::Done));
    assert_eq!(taken.len(), 3);
    assert!(taken.iter().all(|identity| *identity == taken[0]), "{taken:?}");
}

#[tokio::test]
async fn a_refusal_of_the_catalog_is_the_answer_whatever_was_lost_before() {
    let treat = |number| if number == 0 { Treatment::Unknown } else { Treatment::Refuse };
    let (proposed, _) = propose(LONG, treat).await;
    assert_eq!(proposed.unwrap_err().sqlstate(), "42P07");
}
