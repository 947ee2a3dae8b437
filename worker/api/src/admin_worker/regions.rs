//! Operators look at the network's settings, and change them.

use limpet_shared::{
    admin::{self, RegionChange, Reply},
    region::Region,
};
use limpet_store::Store;
use limpet_worker_core::{
    model::NetworkSettings,
    settings::{self, NETWORK, Scope, SettingError},
};

use crate::{Api, ApiError, error::Result};

/// How often a change begins anew because another one was faster.
const CHANGES: u32 = 10;

impl Api {
    pub(super) async fn shown_regions(&self, id: Option<String>) -> Result<Reply> {
        let scopes = match id {
            Some(id) => vec![self.scope(&id)?],
            None => [Scope::Network].into_iter().chain(self.regions.all().iter().copied().map(Scope::Region)).collect(),
        };
        let settings = self.store.network_settings().await?;
        let shown = |scope: Scope| admin::RegionSettings {
            id: scope.id().into(),
            band: if let Scope::Region(region) = scope { region.band().into() } else { String::new() },
            settings: settings::shown(&settings, scope),
        };
        Ok(Reply::Regions { regions: scopes.into_iter().map(shown).collect() })
    }

    /// All of it, or nothing.
    pub(super) async fn change_settings(&self, wanted: RegionChange) -> Result<Reply> {
        let scope = self.scope(&wanted.id)?;
        if wanted.set.is_empty() && wanted.unset.is_empty() {
            return Err(ApiError::invalid("set", "names no setting"));
        }
        for _ in 0..CHANGES {
            let was = self.store.network_settings().await?;
            let next = changed(&was, scope, &wanted)?;
            if next == was || self.store.replace_network_settings(&was, &next).await? {
                self.cluster.settings_changed().await;
                return Ok(Reply::Done { message: told(&was, &next, scope, &wanted) });
            }
        }
        Err(ApiError::Conflict("the network's settings".into()))
    }

    fn scope(&self, id: &str) -> Result<Scope> {
        if id.eq_ignore_ascii_case(NETWORK) {
            return Ok(Scope::Network);
        }
        let region = self.regions.by_name(id).map(Scope::Region);
        region.ok_or_else(|| {
            let have = self.regions.names();
            ApiError::NotFound(format!("region {id:?}; the network has {have}, and {NETWORK} for what is of no region"))
        })
    }
}

fn changed(was: &NetworkSettings, scope: Scope, wanted: &RegionChange) -> Result<NetworkSettings> {
    let mut next = was.clone();
    let set = wanted.set.iter().map(|(name, value)| (name, Some(value.as_str())));
    for (name, value) in set.chain(wanted.unset.iter().map(|name| (name, None))) {
        settings::change(&mut next, scope, name, value).map_err(|error| match error {
            SettingError::Unknown { .. } => ApiError::invalid("id", error.to_string()),
            SettingError::NotAllowed { .. } => ApiError::invalid("set", error.to_string()),
        })?;
    }
    Ok(next)
}

/// What became of each setting that was named.
fn told(was: &NetworkSettings, next: &NetworkSettings, scope: Scope, wanted: &RegionChange) -> String {
    let named = |name: &String| wanted.set.iter().any(|(set, _)| set == name) || wanted.unset.contains(name);
    let both = settings::shown(was, scope).into_iter().zip(settings::shown(next, scope));
    let each = both.filter(|(_, now)| named(&now.name)).map(|(was, now)| {
        if was.value == now.value {
            format!("{}={} as before", now.name, now.value)
        } else {
            format!("{}={} (was {})", now.name, now.value, was.value)
        }
    });
    format!("{} has {} now", scope.id(), each.collect::<Vec<_>>().join(", "))
}

/// The regions that a network was set up with, for who has no worker to ask.
pub async fn regions_of(store: &dyn Store) -> Result<Vec<String>> {
    let names = store.setting("regions").await?.unwrap_or_default();
    let names = String::from_utf8_lossy(&names).into_owned();
    Ok(names.split(',').filter_map(Region::by_name).map(|region| region.name().to_owned()).collect())
}
