//! The order of the lines: each thing after what it belongs to, none twice.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::record::{Kind, Record};

/// Where a line stands. Lines of one unit are of one thing, such as a device with its sessions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub unit: Unit,
    part: Kind,
    key: Vec<u8>,
}

/// The section of the file, and the identity of a thing in it: its bytes, which order as it does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Unit {
    pub section: Kind,
    identity: Vec<u8>,
}

impl Unit {
    pub fn new(section: Kind, identity: impl Into<Vec<u8>>) -> Self {
        Self { section, identity: identity.into() }
    }
}

impl Record {
    pub(super) fn position(&self) -> Position {
        let alone = |identity: &[u8]| (self.kind(), identity.to_vec(), Vec::new());
        let of_device = |device: u64, key: Vec<u8>| (Kind::Device, device.to_be_bytes().to_vec(), key);
        let (section, identity, key) = match self {
            Self::Header(_) | Self::GatewaySet(_) | Self::Trailer(_) => alone(&[]),
            Self::Setting(setting) => alone(setting.name.as_bytes()),
            Self::Tenant(tenant) => alone(tenant.id.as_bytes()),
            Self::User(user) => alone(user.id.as_bytes()),
            Self::ApiKey(key) => alone(key.id.as_bytes()),
            Self::Application(application) => alone(application.id.as_bytes()),
            Self::DeviceProfile(profile) => alone(profile.id.as_bytes()),
            Self::Gateway(row) => alone(&row.gateway.eui.0.to_be_bytes()),
            Self::Device(row) => of_device(row.device.dev_eui.0, Vec::new()),
            Self::DeviceState(state) => of_device(state.dev_eui.0, Vec::new()),
            Self::Join(row) => of_device(row.dev_eui.0, row.dev_nonce.to_be_bytes().into()),
            Self::Session(row) => {
                let key = &row.session.key;
                let bytes = [&key.dev_addr.0.to_be_bytes()[..], &key.id.0.to_be_bytes()].concat();
                of_device(key.dev_eui.0, bytes)
            }
            Self::QueueItem(item) => of_device(item.dev_eui.0, item.seq.to_be_bytes().into()),
            Self::PendingEvent(row) => {
                let identity = [&row.device.0.to_be_bytes()[..], row.integration.as_bytes()].concat();
                let (since, slot, part) =
                    (row.session_since.0.to_be_bytes(), row.slot.to_be_bytes(), row.part.to_be_bytes());
                (Kind::PendingEvent, identity, [&since[..], &slot, &part].concat())
            }
            Self::RevokedServer(server) => alone(&[server.name.as_bytes(), &[0], server.key.as_bytes()].concat()),
            Self::JoinToken(token) => alone(token.id.as_bytes()),
        };
        Position { unit: Unit { section, identity }, part: self.kind(), key }
    }
}

/// Follows the lines, and says what is out of place.
#[derive(Default)]
pub(super) struct Order {
    pub last: Option<Position>,
    tenants: HashSet<Uuid>,
    /// With their tenants.
    applications: HashMap<Uuid, Uuid>,
    profiles: HashMap<Uuid, Uuid>,
}

/// What is wrong with a line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Misplaced {
    #[error("the first line is no header: this is no export of Limpet")]
    NoHeader,
    #[error("{0} stands before what it should follow, or twice")]
    OutOfOrder(String),
    #[error("{what} belongs to {parent}, which is not in the lines before")]
    Orphan { what: String, parent: String },
}

impl Order {
    pub fn add(&mut self, record: &Record) -> Result<(), Misplaced> {
        let position = record.position();
        match &self.last {
            None if record.kind() != Kind::Header => return Err(Misplaced::NoHeader),
            Some(last) if *last >= position => return Err(Misplaced::OutOfOrder(name(record))),
            _ => {}
        }
        // A device's lines begin with the device.
        let follows = self.last.as_ref().is_some_and(|last| last.unit == position.unit);
        if position.unit.section == Kind::Device && record.kind() != Kind::Device && !follows {
            return Err(Misplaced::Orphan { what: name(record), parent: "a device".into() });
        }
        self.parents(record)?;
        self.last = Some(position);
        Ok(())
    }

    fn parents(&mut self, record: &Record) -> Result<(), Misplaced> {
        let orphan = |parent: String| Err(Misplaced::Orphan { what: name(record), parent });
        let tenant = match record {
            Record::Tenant(tenant) => {
                self.tenants.insert(tenant.id);
                return Ok(());
            }
            Record::ApiKey(key) => key.tenant_id,
            Record::Application(application) => Some(application.tenant_id),
            Record::DeviceProfile(profile) => Some(profile.tenant_id),
            Record::Gateway(row) => Some(row.gateway.tenant_id),
            Record::Device(row) => {
                let (application, profile) = (row.device.application_id, row.device.device_profile_id);
                let Some(tenant) = self.applications.get(&application) else {
                    return orphan(format!("application {application}"));
                };
                if self.profiles.get(&profile) != Some(tenant) {
                    return orphan(format!("device profile {profile} of tenant {tenant}"));
                }
                return Ok(());
            }
            _ => None,
        };
        if let Some(tenant) = tenant.filter(|tenant| !self.tenants.contains(tenant)) {
            return orphan(format!("tenant {tenant}"));
        }
        match record {
            Record::Application(application) => drop(self.applications.insert(application.id, application.tenant_id)),
            Record::DeviceProfile(profile) => drop(self.profiles.insert(profile.id, profile.tenant_id)),
            _ => {}
        }
        Ok(())
    }
}

/// For people.
fn name(record: &Record) -> String {
    match record {
        Record::Header(_) => "the header".into(),
        Record::Trailer(_) => "the trailer".into(),
        Record::GatewaySet(_) => "the version of the set of gateways".into(),
        Record::Setting(setting) => format!("setting {}", setting.name),
        Record::Tenant(tenant) => format!("tenant {}", tenant.id),
        Record::User(user) => format!("user {}", user.id),
        Record::ApiKey(key) => format!("API key {}", key.id),
        Record::Application(application) => format!("application {}", application.id),
        Record::DeviceProfile(profile) => format!("device profile {}", profile.id),
        Record::Gateway(row) => format!("gateway {}", row.gateway.eui),
        Record::Device(row) => format!("device {}", row.device.dev_eui),
        Record::DeviceState(state) => format!("the state of device {}", state.dev_eui),
        Record::Join(row) => format!("join {} of device {}", row.dev_nonce, row.dev_eui),
        Record::Session(row) => format!("a session of device {}", row.session.key.dev_eui),
        Record::QueueItem(item) => format!("queue item {} of device {}", item.seq, item.dev_eui),
        Record::PendingEvent(row) => format!("a pending event of device {}", row.device),
        Record::RevokedServer(server) => format!("revoked server {}", server.name),
        Record::JoinToken(token) => format!("join token {}", token.id),
    }
}
