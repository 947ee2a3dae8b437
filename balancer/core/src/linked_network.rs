//! Whose frames these are: the network in the workers' store. All workers of a cluster share one store, and one that has
//! another, such as a new one that it made for itself, must get no frames and tell nobody which gateways there are.

use alloc::{format, string::String};

use limpet_shared::link::{Hello, Refused};

/// The network of the workers that were let in, as the first of them has told it since this balancer started.
#[derive(Clone, Debug, Default)]
pub struct LinkedNetwork(Option<Known>);

#[derive(Clone, Debug)]
struct Known {
    id: String,
    began: u64,
    store: String,
    /// Who told it.
    worker: String,
}

impl LinkedNetwork {
    /// Why a worker is not let in: its store is another one. A version that does not say which it has is let in.
    pub fn objection(&self, hello: &Hello) -> Option<Refused> {
        let known = self.0.as_ref().filter(|known| !hello.network.is_empty() && hello.network != known.id)?;
        let reason = format!(
            "its store is not the one of this cluster: it has {}, and worker {} has {}. All workers of a cluster share \
             one store: give it theirs with --store URL. (To go on with another store, end all workers and restart the \
             balancers first.)",
            hello.store, known.worker, known.store
        );
        // 0 stands for other reasons.
        Some(Refused { reason, network_began: known.began.max(1), ..Refused::default() })
    }

    /// This worker was let in.
    pub fn linked(&mut self, hello: &Hello) {
        if self.0.is_none() && !hello.network.is_empty() {
            let Hello { network, network_began, store, name, .. } = hello;
            let (id, store, worker) = (network.clone(), store.clone(), name.clone());
            self.0 = Some(Known { id, began: *network_began, store, worker });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(name: &str, network: &str, store: &str) -> Hello {
        Hello { name: name.into(), network: network.into(), network_began: 7, store: store.into(), ..Hello::default() }
    }

    #[test]
    fn the_first_worker_decides_and_one_with_another_store_is_refused_by_name() {
        let mut network = LinkedNetwork::default();
        assert_eq!(network.objection(&hello("a", "aa", "SQLite in /a")), None);
        network.linked(&hello("old", "", ""));
        network.linked(&hello("a", "aa", "SQLite in /a"));
        network.linked(&hello("b", "aa", "SQLite in /a"));
        assert_eq!(network.objection(&hello("c", "aa", "SQLite in /a")), None);
        assert_eq!(network.objection(&hello("old", "", "")), None, "a version that does not say");
        let refused = network.objection(&hello("d", "dd", "SQLite in /d")).unwrap();
        assert!(refused.reason.contains("it has SQLite in /d, and worker a has SQLite in /a"), "{}", refused.reason);
        assert_eq!((refused.network_began, refused.retry, refused.removed), (7, false, false));
    }
}
