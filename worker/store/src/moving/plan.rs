//! What there is to export: identities only, so that memory holds no content.

use limpet_shared::{
    Eui64,
    admin::{RevokedServer, TokenInfo},
};
use uuid::Uuid;

use super::{IMPORT, Identified};
use crate::{IntegrationId, Result, Store, counted};

/// See the module. All in the order of the file.
pub(super) struct Plan {
    pub settings: Vec<(String, Vec<u8>)>,
    pub tenants: Vec<Uuid>,
    pub users: Vec<Uuid>,
    pub api_keys: Vec<Uuid>,
    pub applications: Vec<Uuid>,
    pub profiles: Vec<Uuid>,
    pub gateway_set: u64,
    pub gateways: Vec<Eui64>,
    pub devices: Vec<Eui64>,
    pub pending: Vec<(Eui64, IntegrationId)>,
    pub revoked: Vec<RevokedServer>,
    pub tokens: Vec<TokenInfo>,
}

impl Plan {
    /// What belongs to others is listed before them: of a network that goes on, whatever is listed had its parents by then, so
    /// they are listed too.
    pub async fn make(store: &dyn Store) -> Result<Self> {
        let mut pending = store.pending_keys().await?;
        let devices = store.device_euis().await?;
        let (gateway_set, gateways) = store.gateway_set().await?;
        let profiles = store.identities(Identified::DeviceProfiles).await?;
        let applications = store.identities(Identified::Applications).await?;
        let api_keys = store.identities(Identified::ApiKeys).await?;
        let users = store.identities(Identified::Users).await?;
        let tenants = store.identities(Identified::Tenants).await?;
        let mut settings = store.settings().await?;
        let mut revoked = store.revoked_servers().await?;
        let mut tokens = store.tokens().await?;
        pending.sort_unstable();
        settings.retain(|(name, _)| name != IMPORT && !counted::OF_THIS_STORE.contains(&name.as_str()));
        settings.sort();
        revoked.sort_by(|a, b| (&a.name, &a.key).cmp(&(&b.name, &b.key)));
        tokens.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(Self {
            settings,
            tenants,
            users,
            api_keys,
            applications,
            profiles,
            gateway_set,
            gateways,
            devices,
            pending,
            revoked,
            tokens,
        })
    }

    /// How many units the file will have, without header and trailer.
    pub fn units(&self) -> u64 {
        let few = self.settings.len() + self.revoked.len() + self.tokens.len() + 1;
        let people = self.tenants.len() + self.users.len() + self.api_keys.len();
        let things = self.applications.len() + self.profiles.len() + self.gateways.len();
        (few + people + things + self.devices.len() + self.pending.len()) as u64
    }

    /// What the store has, for people; empty if it has nothing.
    pub fn contents(&self) -> String {
        let settings = self.settings.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        let counts = [
            ("tenants", self.tenants.len()),
            ("users", self.users.len()),
            ("API keys", self.api_keys.len()),
            ("applications", self.applications.len()),
            ("device profiles", self.profiles.len()),
            ("gateways", self.gateways.len()),
            ("devices", self.devices.len()),
            ("devices with pending events", self.pending.len()),
            ("revoked servers", self.revoked.len()),
            ("join tokens", self.tokens.len()),
        ];
        let counted = counts.iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!("{count} {what}"));
        let settings = (!settings.is_empty()).then(|| format!("settings ({settings})"));
        counted.chain(settings).collect::<Vec<_>>().join(", ")
    }
}
