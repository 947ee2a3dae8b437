//! The published view of the routes: written by the driver, read by anyone without asking it.

use dashmap::DashMap;
use limpet_balancer_core::Route;
use limpet_link::NameState;
use limpet_shared::{Eui64, link::Cluster};

/// EUI -> address, worker, epoch. Bounded by the core's table, which it follows.
#[derive(Debug, Default)]
pub struct View {
    routes: DashMap<Eui64, Route>,
    names: DashMap<String, NameState>,
}

impl View {
    /// The gateway's route, if it was heard.
    pub fn route(&self, gateway: Eui64) -> Option<Route> {
        self.routes.get(&gateway).map(|route| route.clone())
    }

    /// How many gateways have one.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether no gateway was heard.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// What a server's name stands for: asked at each join and each hello.
    pub fn name(&self, name: &str) -> NameState {
        self.names.get(name).map_or(NameState::Free, |state| *state)
    }

    pub(crate) fn publish(&self, gateway: Eui64, route: Route) {
        self.routes.insert(gateway, route);
    }

    pub(crate) fn unpublish(&self, gateway: Eui64) {
        self.routes.remove(&gateway);
    }

    /// A worker's state has changed. A silent one does not keep its name from a newcomer.
    pub(crate) fn worker(&self, name: &str, state: &str) {
        if self.name(name) == NameState::Revoked {
            return;
        }
        if matches!(state, "ready" | "overloaded" | "joining" | "draining") {
            self.names.insert(name.into(), NameState::Live);
        } else {
            self.names.remove(name);
        }
    }

    /// The network's list of revoked servers is new.
    pub(crate) fn revoke(&self, cluster: &Cluster) {
        self.names.retain(|name, state| *state != NameState::Revoked || cluster.revoked.contains(name));
        for name in &cluster.revoked {
            self.names.insert(name.clone(), NameState::Revoked);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_while_its_worker_lives_and_never_when_it_is_revoked() {
        let view = View::default();
        assert_eq!(view.name("a"), NameState::Free);
        view.worker("a", "ready");
        assert_eq!(view.name("a"), NameState::Live);
        view.worker("a", "suspect");
        assert_eq!(view.name("a"), NameState::Free);
        view.revoke(&Cluster { revoked: vec!["a".into()], ..Cluster::default() });
        view.worker("a", "ready");
        assert_eq!(view.name("a"), NameState::Revoked);
        view.revoke(&Cluster::default());
        assert_eq!(view.name("a"), NameState::Free);
    }
}
