//! Gateways as the page shows them.

use std::collections::HashMap;

use limpet_shared::{Eui64, UnixMicros, admin::Gateway};

use crate::{page::Tone, words::ago};

/// Lines on one page; who looks for another one searches.
const SHOWN: usize = 200;

/// What was found.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub rows: Vec<Row>,
    /// How many more there are.
    pub more: usize,
    /// How many there are.
    pub all: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Row {
    pub name: String,
    pub eui: String,
    pub seen: String,
    pub tone: Tone,
    pub worker: String,
    pub address: String,
}

/// The network's gateways by name, with what a balancer knows of them.
pub(super) fn known(gateways: Vec<Gateway>, heard: &[Gateway], search: &str, now: UnixMicros) -> Found {
    let heard: HashMap<Eui64, &Gateway> = heard.iter().map(|gateway| (gateway.eui, gateway)).collect();
    let merged = gateways.into_iter().map(|mut gateway| {
        if let Some(fresh) = heard.get(&gateway.eui) {
            gateway.last_seen = gateway.last_seen.max(fresh.last_seen);
            gateway.worker.clone_from(&fresh.worker);
            gateway.address = fresh.address.clone().or(gateway.address.take());
        }
        gateway
    });
    let mut found: Vec<Gateway> = merged.filter(|gateway| matches(gateway, search)).collect();
    found.sort_by(|a, b| (&a.name, a.eui).cmp(&(&b.name, b.eui)));
    page(&found, now)
}

/// Rejected ones, the last heard first.
pub(super) fn unknown(mut gateways: Vec<Gateway>, search: &str, now: UnixMicros) -> Found {
    gateways.retain(|gateway| matches(gateway, search));
    gateways.sort_by_key(|gateway| (std::cmp::Reverse(gateway.last_seen), gateway.eui));
    page(&gateways, now)
}

fn matches(gateway: &Gateway, search: &str) -> bool {
    let search = search.trim().to_lowercase();
    let in_ = |text: &str| text.to_lowercase().contains(&search);
    search.is_empty()
        || in_(&gateway.name)
        || in_(&gateway.eui.to_string())
        || gateway.worker.as_deref().is_some_and(in_)
        || gateway.address.as_deref().is_some_and(in_)
}

fn page(gateways: &[Gateway], now: UnixMicros) -> Found {
    let rows = gateways.iter().take(SHOWN).map(|gateway| row(gateway, now)).collect();
    Found { rows, more: gateways.len().saturating_sub(SHOWN), all: gateways.len() }
}

fn row(gateway: &Gateway, now: UnixMicros) -> Row {
    let tone = match gateway.online {
        Some(true) => Tone::Good,
        Some(false) => Tone::Bad,
        None => Tone::Warn,
    };
    Row {
        name: gateway.name.clone(),
        eui: gateway.eui.to_string(),
        seen: gateway.last_seen.map_or_else(|| "never".into(), |seen| ago(seen, now)),
        tone,
        worker: gateway.worker.clone().unwrap_or_default(),
        address: gateway.address.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMicros = UnixMicros(1_700_000_000_000_000);

    fn before(seconds: u64) -> Option<UnixMicros> {
        Some(UnixMicros(NOW.0 - seconds * 1_000_000))
    }

    #[test]
    fn what_is_stored_and_what_is_heard_become_one_line() {
        let stored = |eui, name: &str, last_seen| Gateway {
            eui: Eui64(eui),
            name: name.into(),
            last_seen,
            online: last_seen.map(|at| NOW.since(at).as_secs() <= 60),
            ..Gateway::default()
        };
        let heard = Gateway { eui: Eui64(1), last_seen: before(5), worker: Some("w1".into()), ..Gateway::default() };
        let stored = vec![stored(2, "roof", before(3_600)), stored(1, "mast", before(60)), stored(3, "new", None)];
        let found = known(stored.clone(), std::slice::from_ref(&heard), "", NOW);
        let lines: Vec<_> =
            found.rows.iter().map(|r| (r.name.as_str(), r.seen.as_str(), r.worker.as_str(), r.tone)).collect();
        assert_eq!(
            lines,
            [
                ("mast", "5 s ago", "w1", Tone::Good),
                ("new", "never", "", Tone::Warn),
                ("roof", "60 min ago", "", Tone::Bad)
            ]
        );
        let found = known(stored, &[heard], " W1 ", NOW);
        assert_eq!((found.all, found.rows[0].name.as_str()), (1, "mast"));
    }

    #[test]
    fn the_last_rejected_is_first_and_a_flood_of_them_is_cut() {
        let many = (0..500).map(|n| Gateway { eui: Eui64(n), last_seen: before(500 - n), ..Gateway::default() });
        let found = unknown(many.collect(), "", NOW);
        assert_eq!((found.rows.len(), found.more, found.all), (SHOWN, 300, 500));
        assert_eq!(found.rows[0].eui, Eui64(499).to_string());
    }
}
