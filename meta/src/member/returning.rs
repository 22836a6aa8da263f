//! Whether a folder is the one that this start means: the peers are asked before anything is counted or written, so
//! that another cluster's or another node's folder stays as it is.

use std::time::Duration;

use futures::future::join_all;
use meridian_proto::wire::meta_client::MetaClient as WireClient;
use meridian_proto::{Incarnation, wire};

use super::MemberOptions;
use crate::error::MetaError;
use crate::identity::Identity;

/// Longest wait for the peers. Those that do not answer say nothing against the folder.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// Refuses the folder when a peer knows it for another cluster's or another node's, or for an old copy.
pub(super) async fn check(identity: &Identity, options: &MemberOptions) -> Result<(), MetaError> {
    let peers = options.peers.iter().filter(|peer| **peer != options.address);
    let asked = join_all(peers.map(|peer| async move {
        let mut client = WireClient::new(options.channels.channel(peer));
        let answer = tokio::time::timeout(ASK_TIMEOUT, client.status(wire::StatusRequest {})).await;
        Some((peer.as_str(), answer.ok()?.ok()?.into_inner()))
    }));
    let known: Vec<_> = asked.await.into_iter().flatten().collect();
    known.iter().try_for_each(|(peer, status)| contradiction(identity, &options.name, peer, status)).map_err(|reason| {
        let folder = options.directory.join("meta");
        MetaError::Identity(format!("data folder {} {reason}", folder.display()))
    })
}

fn contradiction(identity: &Identity, name: &str, peer: &str, status: &wire::StatusResponse) -> Result<(), String> {
    if status.cluster_id.is_empty() {
        return Ok(());
    }
    let own = identity.cluster.to_string();
    if status.cluster_id != own {
        return Err(format!("is of cluster {own}, but {peer} is of cluster {}", status.cluster_id));
    }
    // A peer may be behind and not know of the node, or of its last start.
    let nodes = status.nodes.iter().filter_map(|node| node.node.as_ref());
    let Some(node) = nodes.into_iter().find(|node| node.id == identity.node.0) else { return Ok(()) };
    if !name.is_empty() && node.name != name {
        return Err(format!("belongs to node \"{}\", this process was started as \"{name}\"", node.name));
    }
    if Incarnation(node.incarnation) > identity.incarnation {
        let (started, counted) = (node.incarnation, identity.incarnation);
        return Err(format!("is an old copy: its node was started {started} times, it knows of {counted}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use meridian_proto::{ClusterId, NodeId};

    use super::*;
    use crate::identity::Stage;

    #[test]
    fn a_folder_is_refused_when_a_peer_knows_it_for_anothers() {
        let identity =
            Identity { cluster: ClusterId(7), node: NodeId(2), incarnation: Incarnation(3), stage: Stage::Settled };
        let status = |cluster: u128, incarnation| {
            let node = wire::Node { id: 2, name: "an2".to_owned(), incarnation, ..wire::Node::default() };
            let nodes = vec![wire::NodeStatus { node: Some(node), ..wire::NodeStatus::default() }];
            let cluster_id = ClusterId(cluster).to_string();
            wire::StatusResponse { cluster_id, nodes, ..wire::StatusResponse::default() }
        };
        let check = |name: &str, status: &wire::StatusResponse| contradiction(&identity, name, "a:1", status);
        assert_eq!(check("an2", &status(7, 3)), Ok(()));
        assert_eq!(check("", &status(7, 2)), Ok(()));
        assert_eq!(check("an2", &wire::StatusResponse::default()), Ok(()), "a peer that waits for a cluster");
        let refused = |name: &str, status| check(name, &status).unwrap_err();
        assert!(refused("an2", status(8, 3)).contains("but a:1 is of cluster 0000"));
        assert_eq!(refused("an1", status(7, 3)), "belongs to node \"an2\", this process was started as \"an1\"");
        assert!(refused("an2", status(7, 4)).starts_with("is an old copy: its node was started 4 times"));
    }
}
