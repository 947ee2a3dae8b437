//! Whom a conditional write asks first.

use std::sync::Arc;

use scylla::{
    cluster::{ClusterState, NodeRef},
    policies::load_balancing::{DefaultPolicy, FallbackPlan, LoadBalancingPolicy, RoutingInfo},
    routing::Shard,
};

/// Of the replicas, those of this data centre; the others only if they may stand in.
pub(super) fn by_replica(datacenter: Option<&str>, others_too: bool) -> Arc<dyn LoadBalancingPolicy> {
    let builder = DefaultPolicy::builder().permit_dc_failover(others_too);
    match datacenter {
        Some(name) => builder.prefer_datacenter(name.into()).build(),
        None => builder.build(),
    }
}

/// Asks the replicas of a partition in the same order from everywhere, so that two writers of one row meet at one node and
/// not in a race of proposals. The driver does so for single statements that ScyllaDB calls conditional: not for batches,
/// and for nothing on Cassandra.
#[derive(Debug)]
pub(super) struct InOrder(pub Arc<dyn LoadBalancingPolicy>);

impl LoadBalancingPolicy for InOrder {
    /// The first of the whole plan.
    fn pick<'a>(&'a self, _: &'a RoutingInfo, _: &'a ClusterState) -> Option<(NodeRef<'a>, Option<Shard>)> {
        None
    }

    fn fallback<'a>(&'a self, request: &'a RoutingInfo, cluster: &'a ClusterState) -> FallbackPlan<'a> {
        let mut conditional = request.clone();
        conditional.is_confirmed_lwt = true;
        let plan: Vec<_> = self.0.fallback(&conditional, cluster).map(|(node, shard)| (node.host_id, shard)).collect();
        let known = move |(host, shard)| Some((cluster.get_node_by_host_id(host)?, shard));
        Box::new(plan.into_iter().filter_map(known))
    }

    fn name(&self) -> String {
        "replicas in order".into()
    }
}
