//! What people provision, on SQLite.

use async_trait::async_trait;
use limpet_shared::{AesKey, Eui64, UnixMicros};
use limpet_worker_core::model::*;
use uuid::Uuid;

use super::{SqliteStore, directory, lists::Listed};
use crate::{Directory, GatewayChanges, GatewayTags, List, Page, Result, Totals};

#[async_trait]
impl Directory for SqliteStore {
    async fn create_tenant(&self, tenant: &Tenant) -> Result<()> {
        let tenant = tenant.clone();
        self.writer.write(move |conn| directory::create_tenant(conn, &tenant)).await
    }
    async fn tenant(&self, id: Uuid) -> Result<Option<Tenant>> {
        self.readers.read(move |conn| directory::tenant(conn, id)).await
    }
    async fn update_tenant(&self, tenant: &Tenant) -> Result<()> {
        let tenant = tenant.clone();
        self.writer.write(move |conn| directory::update_tenant(conn, &tenant)).await
    }
    async fn delete_tenant(&self, id: Uuid) -> Result<()> {
        self.delete_devices(directory::DevicesOf::Tenant(id)).await?;
        self.writer.write(move |conn| directory::delete_tenant(conn, id)).await
    }
    async fn tenants(&self, list: &List) -> Result<Page<Tenant>> {
        let list = list.clone();
        self.readers.read(move |conn| directory::tenants(conn, &list)).await
    }
    async fn create_user(&self, user: &User) -> Result<()> {
        let user = user.clone();
        self.writer.write(move |conn| directory::create_user(conn, &user)).await
    }
    async fn user(&self, id: Uuid) -> Result<Option<User>> {
        self.readers.read(move |conn| directory::user(conn, id)).await
    }
    async fn user_by_email(&self, email: &str) -> Result<Option<User>> {
        let email = email.to_owned();
        self.readers.read(move |conn| directory::user_by_email(conn, &email)).await
    }
    async fn update_user(&self, was: &User, user: &User) -> Result<bool> {
        let (was, user) = (was.clone(), user.clone());
        self.writer.write(move |conn| directory::update_user(conn, &was, &user)).await
    }
    async fn delete_user(&self, id: Uuid) -> Result<()> {
        self.writer.write(move |conn| directory::delete_user(conn, id)).await
    }
    async fn users(&self, list: &List) -> Result<Page<User>> {
        let list = list.clone();
        self.readers.read(move |conn| directory::users(conn, &list)).await
    }
    async fn create_api_key(&self, key: &ApiKey) -> Result<()> {
        let key = key.clone();
        self.writer.write(move |conn| directory::create_api_key(conn, &key)).await
    }
    async fn api_key(&self, id: Uuid) -> Result<Option<ApiKey>> {
        self.readers.read(move |conn| directory::api_key(conn, id)).await
    }
    async fn delete_api_key(&self, id: Uuid) -> Result<()> {
        self.writer.write(move |conn| directory::delete_api_key(conn, id)).await
    }
    async fn api_keys(&self, admin: bool, list: &List) -> Result<Page<ApiKey>> {
        let list = list.clone();
        self.readers.read(move |conn| directory::api_keys(conn, admin, &list)).await
    }
    async fn create_application(&self, application: &Application) -> Result<()> {
        let application = application.clone();
        self.writer.write(move |conn| directory::create_application(conn, &application)).await
    }
    async fn application(&self, id: Uuid) -> Result<Option<Application>> {
        self.readers.read(move |conn| directory::application(conn, id)).await
    }
    async fn update_application(&self, application: &Application) -> Result<()> {
        let application = application.clone();
        self.writer.write(move |conn| directory::update_application(conn, &application)).await
    }
    async fn delete_application(&self, id: Uuid) -> Result<()> {
        self.delete_devices(directory::DevicesOf::Application(id)).await?;
        self.writer.write(move |conn| directory::delete_application(conn, id)).await
    }
    async fn applications(&self, list: &List) -> Result<Page<Application>> {
        let list = list.clone();
        self.readers.read(move |conn| directory::applications(conn, &list)).await
    }
    async fn create_device_profile(&self, profile: &DeviceProfile) -> Result<()> {
        let profile = profile.clone();
        self.writer.write(move |conn| directory::create_device_profile(conn, &profile)).await
    }
    async fn device_profile(&self, id: Uuid) -> Result<Option<DeviceProfile>> {
        self.readers.read(move |conn| directory::device_profile(conn, id)).await
    }
    async fn update_device_profile(&self, profile: &DeviceProfile) -> Result<()> {
        let profile = profile.clone();
        self.writer.write(move |conn| directory::update_device_profile(conn, &profile)).await
    }
    async fn delete_device_profile(&self, id: Uuid) -> Result<()> {
        self.writer.write(move |conn| directory::delete_device_profile(conn, id)).await
    }
    async fn device_profiles(&self, list: &List) -> Result<Page<DeviceProfile>> {
        let list = list.clone();
        self.readers.read(move |conn| directory::device_profiles(conn, &list)).await
    }
    async fn create_gateway(&self, gateway: &Gateway) -> Result<()> {
        let gateway = gateway.clone();
        let create = move |conn: &_| {
            directory::need_room_for_gateway(conn, &gateway)?;
            directory::create_gateway(conn, &gateway)
        };
        self.writer.write(create).await
    }
    async fn gateway(&self, eui: Eui64) -> Result<Option<(Gateway, GatewaySeen)>> {
        self.readers.read(move |conn| directory::gateway(conn, eui)).await
    }
    async fn update_gateway(&self, gateway: &Gateway) -> Result<()> {
        let gateway = gateway.clone();
        self.writer.write(move |conn| directory::update_gateway(conn, &gateway)).await
    }
    async fn delete_gateway(&self, eui: Eui64) -> Result<()> {
        self.writer.write(move |conn| directory::delete_gateway(conn, eui)).await
    }
    async fn gateways(&self, list: &List) -> Result<Page<(Gateway, GatewaySeen)>> {
        let (total, euis) = self.listed(Listed::Gateways, list).await?;
        let items = self.readers.read(move |conn| directory::gateways(conn, &euis)).await?;
        Ok(Page { total, items })
    }
    async fn gateway_set(&self) -> Result<(u64, Vec<Eui64>)> {
        self.readers.read(directory::gateway_set).await
    }
    async fn gateway_set_version(&self) -> Result<u64> {
        self.readers.read(directory::gateway_set_version).await
    }
    async fn gateway_tags(&self, tag: &str) -> Result<(u64, GatewayTags)> {
        let tag = tag.to_owned();
        self.readers.read(move |conn| directory::gateway_tags(conn, &tag)).await
    }
    async fn gateway_changes(&self, since: u64) -> Result<GatewayChanges> {
        self.readers.read(move |conn| directory::gateway_changes(conn, since)).await
    }
    async fn raise_gateway_set_version(&self, least: u64) -> Result<()> {
        self.writer.write(move |conn| directory::raise_gateway_set_version(conn, least)).await
    }
    async fn create_device(&self, device: &Device) -> Result<()> {
        let device = device.clone();
        let create = move |conn: &_| {
            directory::need_room_for_device(conn, &device)?;
            directory::create_device(conn, &device)
        };
        self.writer.write(create).await
    }
    async fn device(&self, dev_eui: Eui64) -> Result<Option<(Device, DeviceSeen)>> {
        self.readers.read(move |conn| directory::device(conn, dev_eui)).await
    }
    async fn update_device(&self, device: &Device) -> Result<()> {
        let device = device.clone();
        self.writer.write(move |conn| directory::update_device(conn, &device)).await
    }
    async fn set_app_key(&self, dev_eui: Eui64, key: Option<AesKey>) -> Result<()> {
        self.writer.write(move |conn| directory::set_app_key(conn, dev_eui, key)).await
    }
    async fn delete_device(&self, dev_eui: Eui64) -> Result<()> {
        self.writer.write(move |conn| directory::delete_device(conn, dev_eui)).await
    }
    async fn devices(&self, list: &List) -> Result<Page<(Device, DeviceSeen)>> {
        let (total, euis) = self.listed(Listed::Devices, list).await?;
        let items = self.readers.read(move |conn| directory::devices(conn, &euis)).await?;
        Ok(Page { total, items })
    }
    async fn device_context(&self, dev_eui: Eui64) -> Result<Option<DeviceContext>> {
        self.readers.read(move |conn| directory::device_context(conn, dev_eui)).await
    }
    async fn totals(&self, now: UnixMicros) -> Result<Totals> {
        self.readers.read(move |conn| directory::totals(conn, now)).await
    }

    async fn setting(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let name = name.to_owned();
        self.readers.read(move |conn| directory::setting(conn, &name)).await
    }
    async fn init_setting(&self, name: &str, value: &[u8]) -> Result<Vec<u8>> {
        let name = name.to_owned();
        let value = value.to_vec();
        self.writer.write(move |conn| directory::init_setting(conn, &name, value)).await
    }
    async fn replace_network_settings(&self, was: &NetworkSettings, next: &NetworkSettings) -> Result<bool> {
        let (was, next) = (was.clone(), next.clone());
        self.writer.write(move |conn| directory::replace_network_settings(conn, &was, &next)).await
    }
}

impl SqliteStore {
    /// Some at a time; who is interrupted goes on by deleting again.
    async fn delete_devices(&self, of: directory::DevicesOf) -> Result<()> {
        loop {
            let deleted = self.writer.write(move |conn| directory::delete_some_devices(conn, of)).await?;
            if deleted < directory::DEVICES_AT_ONCE as usize {
                return Ok(());
            }
        }
    }
}
