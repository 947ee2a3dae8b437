//! What people provision, put back as it was: listed, then made. What it belongs to is there.

use serde::Serialize;

use super::{
    super::{CqlStore, entities::Kind, listing::Place},
    cascade,
    gateway_set::GATEWAY_CHANGES,
};
use crate::{Membership, Result, moving::Record, words};

impl CqlStore {
    /// The same again changes nothing.
    pub(in super::super) async fn restore_thing(&self, record: &Record) -> Result<()> {
        match record {
            Record::Setting(setting) => {
                self.entities.insert(&self.db, Kind::Setting, &setting.name, &setting.value).await.map(drop)
            }
            Record::Tenant(tenant) => {
                self.put_back(Kind::Tenant, tenant.id, tenant, &cascade::tenant_places(tenant)).await
            }
            Record::User(user) => {
                let email = words::email_key(&user.email);
                self.entities.insert(&self.db, Kind::AccountEmail, &email, &user.id).await?;
                self.put_back(Kind::Account, user.id, user, &cascade::account_places(user)).await
            }
            Record::ApiKey(key) => self.put_back(Kind::ApiKey, key.id, key, &cascade::api_key_places(key)).await,
            Record::Application(application) => {
                let places = cascade::application_places(application);
                self.put_back(Kind::Application, application.id, application, &places).await
            }
            Record::DeviceProfile(profile) => {
                self.put_back(Kind::DeviceProfile, profile.id, profile, &cascade::profile_places(profile)).await
            }
            Record::Gateway(row) => {
                let gateway = &row.gateway;
                self.put_back(Kind::Gateway, gateway.eui, gateway, &cascade::gateway_places(gateway)).await?;
                self.seen.put_gateway(&self.db, gateway.eui, &row.seen).await
            }
            Record::GatewaySet(set) => self.put_gateway_changes(set.version.saturating_sub(1)).await,
            Record::Device(row) => {
                let device = &row.device;
                self.put_back(Kind::Device, device.dev_eui, device, &cascade::device_places(device)).await?;
                self.seen.put_device(&self.db, device.dev_eui, &row.seen).await
            }
            Record::RevokedServer(server) => self.revoke_server(server).await,
            Record::JoinToken(token) => self.put_token(token).await,
            // The frame of the file, and what is no thing by itself.
            _ => Ok(()),
        }
    }

    async fn put_back(&self, kind: Kind, id: impl ToString, value: &impl Serialize, places: &[Place]) -> Result<()> {
        self.list(places).await?;
        self.entities.insert(&self.db, kind, &id.to_string(), value).await.map(drop)
    }

    async fn put_gateway_changes(&self, changes: u64) -> Result<()> {
        let changed = self.entities.change(&self.db, Kind::Setting, GATEWAY_CHANGES, |_: u64| Ok(changes)).await?;
        if changed.is_none() {
            self.entities.insert(&self.db, Kind::Setting, GATEWAY_CHANGES, &changes).await?;
        }
        Ok(())
    }
}
