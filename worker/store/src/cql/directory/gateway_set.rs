//! The set of gateways: who is in it, its version, and what each version has changed.

use std::time::Duration;

use limpet_shared::Eui64;

use super::{
    super::{CqlStore, entities::Kind, json::parse},
    cascade::owner,
};
use crate::{Directory, GatewayChanges, Result, StoreError, words};

/// The setting that counts changes of the set of gateways.
pub(in super::super) const GATEWAY_CHANGES: &str = "gateway_changes";

/// More changes than this: reading all gateways is cheaper.
const MOST_GATEWAY_CHANGES: u64 = 5_000;
/// A note is written right after its version was counted.
const NOTE_LOOKS: u32 = 4;
const NOTE_WAIT: Duration = Duration::from_millis(25);

impl CqlStore {
    pub(super) async fn all_gateways(&self) -> Result<Vec<Eui64>> {
        let ids = self.ids(owner::GATEWAYS.into()).await?;
        let mut euis: Vec<Eui64> = ids.iter().map(|id| parse(id, "gateway EUI")).collect::<Result<_>>()?;
        euis.sort_unstable();
        Ok(euis)
    }

    /// From now on there were so many changes at least.
    pub(super) async fn raise_gateway_changes(&self, least: u64) -> Result<()> {
        let raise = |n: u64| Ok(n.max(least));
        let raised = self.entities.change(&self.db, Kind::Setting, GATEWAY_CHANGES, raise);
        if raised.await?.is_none() && !self.entities.insert(&self.db, Kind::Setting, GATEWAY_CHANGES, &least).await? {
            self.entities.change(&self.db, Kind::Setting, GATEWAY_CHANGES, raise).await?;
        }
        Ok(())
    }

    /// After the change, so that who sees the new version sees the change. Then what changed is noted under that version.
    pub(super) async fn count_gateway_change(&self, eui: Eui64) -> Result<()> {
        let version = self.next_gateway_change().await? + 1;
        // The change is made and counted. Who finds no note of it reads everything.
        if let Err(error) = self.listing.note_numbered(&self.db, owner::GATEWAY_SET, version, &eui.to_string()).await {
            tracing::debug!(gateway = %eui, %error, "which gateway has changed was not noted");
        }
        Ok(())
    }

    /// How many changes there were with this one.
    async fn next_gateway_change(&self) -> Result<u64> {
        let next = |n: u64| Ok(n + 1);
        if let Some(n) = self.entities.change(&self.db, Kind::Setting, GATEWAY_CHANGES, next).await? {
            return Ok(n);
        }
        if self.entities.insert(&self.db, Kind::Setting, GATEWAY_CHANGES, &1_u64).await? {
            return Ok(1);
        }
        let n = self.entities.change(&self.db, Kind::Setting, GATEWAY_CHANGES, next).await?;
        n.ok_or_else(|| StoreError::Unknown("the count of changed gateways is gone".into()))
    }

    /// Each version has its note, but those of a server of the version before, and the last ones of an hour ago. One that is just
    /// being written is waited for.
    pub(super) async fn gateways_changed(&self, since: u64) -> Result<GatewayChanges> {
        let version = self.gateway_set_version().await?;
        let few = version.checked_sub(since).filter(|changes| *changes <= MOST_GATEWAY_CHANGES);
        for _ in 0..if few.is_some() { NOTE_LOOKS } else { 0 } {
            let changed = match few {
                Some(1..) => self.listing.numbered(&self.db, owner::GATEWAY_SET, since, version).await?,
                _ => Vec::new(),
            };
            let changed = changed
                .into_iter()
                .map(|(n, id)| Ok((n, parse(&id, "gateway EUI")?)))
                .collect::<Result<Vec<(u64, Eui64)>>>()?;
            if words::are_all(since, version, &changed) {
                return Ok(GatewayChanges { version, changed: Some(changed) });
            }
            tokio::time::sleep(NOTE_WAIT).await;
        }
        Ok(GatewayChanges { version, changed: None })
    }
}
