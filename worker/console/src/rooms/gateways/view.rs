//! Gateways as the page shows them.

use limpet_shared::{UnixMicros, admin::Gateway};

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

/// Rejected ones, the last heard first.
pub(super) fn unknown(mut gateways: Vec<Gateway>, search: &str, now: UnixMicros) -> Found {
    gateways.retain(|gateway| matches(gateway, search));
    gateways.sort_by_key(|gateway| (std::cmp::Reverse(gateway.last_seen), gateway.eui));
    page(&gateways, now)
}

fn matches(gateway: &Gateway, search: &str) -> bool {
    let search = search.to_lowercase();
    let in_ = |text: &str| text.to_lowercase().contains(&search);
    in_(&gateway.eui.to_string()) || gateway.address.as_deref().is_some_and(in_)
}

fn page(gateways: &[Gateway], now: UnixMicros) -> Found {
    let rows = gateways.iter().take(SHOWN).map(|gateway| row(gateway, now)).collect();
    Found { rows, more: gateways.len().saturating_sub(SHOWN), all: gateways.len() }
}

pub(super) fn row(gateway: &Gateway, now: UnixMicros) -> Row {
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
    use limpet_shared::Eui64;

    use super::*;

    const NOW: UnixMicros = UnixMicros(1_700_000_000_000_000);

    fn before(seconds: u64) -> Option<UnixMicros> {
        Some(UnixMicros(NOW.0 - seconds * 1_000_000))
    }

    #[test]
    fn who_is_there_is_told_by_colour_and_time() {
        let line = |last_seen, online| {
            let row = row(&Gateway { last_seen, online, ..Gateway::default() }, NOW);
            (row.seen, row.tone)
        };
        assert_eq!(line(before(5), Some(true)), ("5 s ago".into(), Tone::Good));
        assert_eq!(line(before(3_600), Some(false)), ("60 min ago".into(), Tone::Bad));
        assert_eq!(line(None, None), ("never".into(), Tone::Warn));
    }

    #[test]
    fn the_last_rejected_is_first_and_a_flood_of_them_is_cut() {
        let many = (0..500).map(|n| Gateway { eui: Eui64(n), last_seen: before(500 - n), ..Gateway::default() });
        let found = unknown(many.collect(), "", NOW);
        assert_eq!((found.rows.len(), found.more, found.all), (SHOWN, 300, 500));
        assert_eq!(found.rows[0].eui, Eui64(499).to_string());
    }
}
