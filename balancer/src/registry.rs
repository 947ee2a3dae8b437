//! Routes, names and revocations as they are published: written by the driver, read by anyone without asking it.

use dashmap::{DashMap, DashSet};
use limpet_balancer_core::Route;
use limpet_link::NameState;
use limpet_shared::{Eui64, admin::Server, link::RevokedKey};

/// EUI -> address, worker, epoch; bounded by the core's table, which it follows.
#[derive(Debug, Default)]
pub struct Registry {
    routes: DashMap<Eui64, Route>,
    /// Names of the workers that are linked and alive, and of the other balancers.
    live: DashSet<String>,
    others: DashSet<String>,
    /// Keys of certificates that count no more.
    revoked_keys: DashSet<String>,
}

impl Registry {
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

    /// What a server's name stands for: asked at each join and, with the key of its certificate, at each hello.
    pub fn name(&self, name: &str, key: Option<&str>) -> NameState {
        match key {
            Some(key) if self.revoked_keys.contains(key) => NameState::Revoked,
            _ if self.live.contains(name) || self.others.contains(name) => NameState::Live,
            _ => NameState::Free,
        }
    }

    pub(crate) fn publish(&self, gateway: Eui64, route: Route) {
        self.routes.insert(gateway, route);
    }

    pub(crate) fn unpublish(&self, gateway: Eui64) {
        self.routes.remove(&gateway);
    }

    /// A worker's state has changed. Who was silent for long does not keep its name from a newcomer; a suspicion comes
    /// after a moment, and goes as fast.
    pub(crate) fn worker(&self, name: &str, state: &str) {
        if matches!(state, "gone" | "ejected") {
            self.live.remove(name);
        } else {
            self.live.insert(name.into());
        }
    }

    /// The other balancers, which nobody else may be called like.
    pub(crate) fn balancers(&self, balancers: &[Server]) {
        self.others.retain(|name| balancers.iter().any(|balancer| balancer.name == *name));
        for balancer in balancers {
            self.others.insert(balancer.name.clone());
        }
    }

    /// The network's list of revoked servers is new.
    pub(crate) fn revoke<'a>(&self, revoked: impl Iterator<Item = &'a RevokedKey>) {
        for revoked in revoked {
            self.revoked_keys.insert(revoked.key.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_while_its_server_lives_and_a_certificate_is_revoked_for_good() {
        let registry = Registry::default();
        let joining = |name| registry.name(name, None);
        assert_eq!(joining("a"), NameState::Free);
        registry.worker("a", "overloaded");
        assert_eq!(joining("a"), NameState::Live);
        registry.worker("a", "suspect");
        assert_eq!(joining("a"), NameState::Live, "a moment of silence");
        registry.worker("a", "ejected");
        assert_eq!(joining("a"), NameState::Free);
        let revoked_keys = [RevokedKey { name: "a".into(), key: "00".into(), balancer: false }];
        registry.revoke(revoked_keys.iter());
        assert_eq!(registry.name("a", Some("00")), NameState::Revoked);
        assert_eq!(registry.name("a", Some("01")), NameState::Free);
        assert_eq!(joining("a"), NameState::Free, "another server may have the name");
        registry.balancers(&[Server { name: "east".into(), ..Server::default() }]);
        assert_eq!(joining("east"), NameState::Live);
        registry.balancers(&[]);
        assert_eq!(joining("east"), NameState::Free);
    }
}
