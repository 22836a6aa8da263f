//! Whether a folder is the one that this start means. Those who may know are asked before a start is counted: the peers
//! that this process was told of, and the access nodes that the folder itself knows, at the addresses that it knows. So
//! a copy is recognised also where nobody said whom to ask.

use std::time::Duration;

use futures::future::join_all;
use meridian_proto::command::Command;
use meridian_proto::start::Start;
use meridian_proto::wire;
use meridian_proto::wire::meta_client::MetaClient as WireClient;

use super::MemberOptions;
use crate::catalog::{Catalog, Proposal};
use crate::error::MetaError;
use crate::identity::{Identity, random_mark};
use crate::log::{Opened, Payload};

/// Longest wait for the peers. Those that do not answer say nothing against the folder.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// Refuses the folder when a configured peer knows it for another cluster's or another node's, or for a copy.
pub(super) async fn ask_peers(identity: &Identity, options: &MemberOptions) -> Result<(), MetaError> {
    let start = identity.next_start(random_mark()?);
    ask(identity, options, &start, &options.peers).await
}

/// The same by what the folder itself knows.
pub(super) async fn ask_known(identity: &Identity, options: &MemberOptions, opened: &Opened) -> Result<(), MetaError> {
    let start = identity.next_start(random_mark()?);
    let catalog = access_catalog(opened)?;
    let own_name = catalog.node(identity.node).map(|node| node.name.as_str());
    let against = other_name(own_name, &options.name).or_else(|| catalog.objection(&start));
    against.map_or(Ok(()), |reason| Err(refused(options, &reason)))?;
    // Also where this node was last: if it was copied, it may still be there.
    let known = catalog.access_nodes().map(|node| node.address.clone());
    let addresses: Vec<String> = known.filter(|address| !options.peers.contains(address)).collect();
    ask(identity, options, &start, &addresses).await
}

async fn ask(
    identity: &Identity,
    options: &MemberOptions,
    start: &Start,
    addresses: &[String],
) -> Result<(), MetaError> {
    let request = wire::StatusRequest {
        cluster_id: identity.cluster.to_string(),
        start: Some(start.clone().into()),
        stage: wire::StartStage::Starting.into(),
    };
    let others = addresses.iter().filter(|address| **address != options.address);
    let asked = join_all(others.map(|address| {
        let request = request.clone();
        async move {
            let mut client = WireClient::new(options.channels.channel(address));
            let answer = tokio::time::timeout(ASK_TIMEOUT, client.status(request)).await;
            Some((address.as_str(), answer.ok()?.ok()?.into_inner()))
        }
    }));
    let answers: Vec<_> = asked.await.into_iter().flatten().collect();
    let against = answers.iter().find_map(|(peer, status)| contradiction(identity, options, peer, status));
    against.map_or(Ok(()), |reason| Err(refused(options, &reason)))
}

fn refused(options: &MemberOptions, reason: &str) -> MetaError {
    MetaError::Identity(format!("data folder {} {reason}", options.directory.join("meta").display()))
}

/// What a peer's answer says against the folder.
fn contradiction(
    identity: &Identity,
    options: &MemberOptions,
    peer: &str,
    status: &wire::StatusResponse,
) -> Option<String> {
    let is_configured = options.peers.iter().any(|configured| configured == peer);
    if status.cluster_id.is_empty() {
        return None;
    }
    let own = identity.cluster.to_string();
    if status.cluster_id != own {
        // Where members once were there may be anybody by now.
        return is_configured.then(|| format!("is of cluster {own}, but {peer} is of cluster {}", status.cluster_id));
    }
    // A peer may be behind and not know of the node.
    let nodes = status.nodes.iter().filter_map(|node| node.node.as_ref());
    let known = nodes.into_iter().find(|node| node.id == identity.node.0);
    let objection = Some(&status.objection).filter(|objection| !objection.is_empty());
    other_name(known.map(|node| node.name.as_str()), &options.name)
        .or_else(|| objection.map(|objection| format!("cannot be used: {objection}")))
}

fn other_name(known: Option<&str>, name: &str) -> Option<String> {
    let known = known.filter(|known| !name.is_empty() && *known != name)?;
    Some(format!("belongs to node \"{known}\", this process was started as \"{name}\""))
}

/// The catalog as far as it is about access nodes, by all that the folder holds.
fn access_catalog(opened: &Opened) -> Result<Catalog, MetaError> {
    let image = opened.image.as_ref();
    let decoded = image.map(|image| Catalog::decode(&image.catalog)).transpose();
    let mut catalog = decoded.map_err(|error| MetaError::Identity(error.to_string()))?.unwrap_or_default();
    let after = image.and_then(|image| image.last).map_or(0, |last| last.index + 1);
    for entry in opened.store.entries(after.., usize::MAX) {
        if let Payload::Command(bytes) = &entry.payload
            && let Some(proposal) = Proposal::decode(bytes)
            && is_of_nodes(&proposal.command)
        {
            // What was refused then is refused again.
            let _ = catalog.apply_proposal(entry.id.index, proposal);
        }
    }
    Ok(catalog)
}

fn is_of_nodes(command: &Command) -> bool {
    match command {
        Command::JoinNode(_) | Command::StartNode { .. } | Command::RemoveNode { .. } => true,
        Command::Batch(commands) => commands.iter().any(is_of_nodes),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use meridian_client::cluster::Channels;
    use meridian_proto::{ClusterId, NodeId};

    use super::*;
    use crate::identity::Stage;

    #[test]
    fn a_folder_is_refused_when_a_peer_knows_it_for_anothers() {
        let identity = Identity::new(ClusterId(7), NodeId(2), Stage::Settled);
        let status = |cluster: u128, objection: &str| {
            let node = wire::Node { id: 2, name: "an2".to_owned(), ..wire::Node::default() };
            let nodes = vec![wire::NodeStatus { node: Some(node), ..wire::NodeStatus::default() }];
            let (cluster_id, objection) = (ClusterId(cluster).to_string(), objection.to_owned());
            wire::StatusResponse { cluster_id, nodes, objection, ..wire::StatusResponse::default() }
        };
        let check = |name: &str, status: &wire::StatusResponse| {
            let (peers, name) = (vec!["a:1".to_owned()], name.to_owned());
            let options = MemberOptions { peers, name, ..MemberOptions::new("", "b:1", Channels::new()) };
            contradiction(&identity, &options, "a:1", status)
        };
        assert_eq!(check("an2", &status(7, "")), None);
        assert_eq!(check("", &status(7, "")), None);
        assert_eq!(check("an2", &wire::StatusResponse::default()), None, "a peer that waits for a cluster");
        let refused = |name: &str, status| check(name, &status).unwrap();
        assert!(refused("an2", status(8, "")).contains("but a:1 is of cluster 0000"));
        assert_eq!(refused("an1", status(7, "")), "belongs to node \"an2\", this process was started as \"an1\"");
        assert_eq!(refused("an2", status(7, "it is a copy")), "cannot be used: it is a copy");
        let options = MemberOptions::new("", "b:1", Channels::new());
        let elsewhere = contradiction(&identity, &options, "a:1", &status(8, ""));
        assert_eq!(elsewhere, None, "an address of the past, where another cluster is now");
    }
}
