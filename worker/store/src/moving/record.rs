//! The lines of the file.

use std::borrow::Cow;

use limpet_shared::{
    Eui64, UnixMicros,
    admin::{RevokedServer, TokenInfo},
};
use limpet_worker_core::model::*;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use serde_json::Value;
use uuid::Uuid;

use super::{GatewayRecord, tally::Counts};
use crate::{IntegrationId, PendingEvent};

/// The version of the format that is written. Fields may be added to a version: a file with a field that this program does
/// not know is refused all the same, see [`Record::parse`].
pub const VERSION: u32 = 1;
/// What the header calls the format.
pub const FORMAT: &str = "limpet export";

/// Kinds of records, in the order of the file. Those from device to queue item come device by device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Header,
    Setting,
    Tenant,
    User,
    ApiKey,
    Application,
    DeviceProfile,
    Gateway,
    GatewaySet,
    Device,
    DeviceState,
    Join,
    Session,
    QueueItem,
    PendingEvent,
    RevokedServer,
    JoinToken,
    Trailer,
}

impl Kind {
    /// For people, as a plural.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Header => "headers",
            Self::Setting => "settings",
            Self::Tenant => "tenants",
            Self::User => "users",
            Self::ApiKey => "API keys",
            Self::Application => "applications",
            Self::DeviceProfile => "device profiles",
            Self::Gateway => "gateways",
            Self::GatewaySet => "versions of the set of gateways",
            Self::Device => "devices",
            Self::DeviceState => "device states",
            Self::Join => "joins",
            Self::Session => "sessions",
            Self::QueueItem => "queue items",
            Self::PendingEvent => "pending events",
            Self::RevokedServer => "revoked servers",
            Self::JoinToken => "join tokens",
            Self::Trailer => "trailers",
        }
    }
}

/// One line. The field `kind` says which of these it is; the others are those of the thing itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    Header(Header),
    Setting(Setting),
    Tenant(Tenant),
    User(User),
    ApiKey(ApiKey),
    Application(Application),
    DeviceProfile(Box<DeviceProfile>),
    Gateway(Box<GatewayRecord>),
    GatewaySet(GatewaySet),
    Device(Box<DeviceRecord>),
    DeviceState(DeviceState),
    Join(Box<JoinRow>),
    Session(Box<SessionRow>),
    QueueItem(QueueItem),
    PendingEvent(Box<PendingRecord>),
    RevokedServer(RevokedServer),
    JoinToken(TokenInfo),
    Trailer(Trailer),
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    pub format: String,
    pub version: u32,
}

/// A setting of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    pub name: String,
    #[serde(with = "hexadecimal")]
    pub value: Vec<u8>,
}

/// The version of the set of gateways: balancers keep the highest that they have heard of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GatewaySet {
    pub version: u64,
}

/// A device; its keys are among its fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceRecord {
    pub device: Device,
    pub seen: DeviceSeen,
    pub queue_last: u64,
}

/// A pending event with its key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PendingRecord {
    pub integration: Uuid,
    pub device: Eui64,
    pub session_since: UnixMicros,
    pub slot: u64,
    pub part: u32,
    pub event: Event,
    #[serde(default, skip_serializing_if = "is_none")]
    pub refusals: u32,
}

fn is_none(count: &u32) -> bool {
    *count == 0
}

/// The last line: what all lines before it are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trailer {
    pub counts: Counts,
    /// SHA-256 without the counters that an import may move.
    pub content: String,
    /// SHA-256 of all lines before this one.
    pub sha256: String,
}

impl From<PendingEvent> for PendingRecord {
    fn from(event: PendingEvent) -> Self {
        let PendingEvent { integration, device, session_since, slot, part, event, refusals } = event;
        Self { integration: integration.0, device, session_since, slot, part, event, refusals }
    }
}

impl From<&PendingRecord> for PendingEvent {
    fn from(record: &PendingRecord) -> Self {
        let PendingRecord { integration, device, session_since, slot, part, event, refusals } = record.clone();
        Self { integration: IntegrationId(integration), device, session_since, slot, part, event, refusals }
    }
}

impl Record {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Header(_) => Kind::Header,
            Self::Setting(_) => Kind::Setting,
            Self::Tenant(_) => Kind::Tenant,
            Self::User(_) => Kind::User,
            Self::ApiKey(_) => Kind::ApiKey,
            Self::Application(_) => Kind::Application,
            Self::DeviceProfile(_) => Kind::DeviceProfile,
            Self::Gateway(_) => Kind::Gateway,
            Self::GatewaySet(_) => Kind::GatewaySet,
            Self::Device(_) => Kind::Device,
            Self::DeviceState(_) => Kind::DeviceState,
            Self::Join(_) => Kind::Join,
            Self::Session(_) => Kind::Session,
            Self::QueueItem(_) => Kind::QueueItem,
            Self::PendingEvent(_) => Kind::PendingEvent,
            Self::RevokedServer(_) => Kind::RevokedServer,
            Self::JoinToken(_) => Kind::JoinToken,
            Self::Trailer(_) => Kind::Trailer,
        }
    }

    /// The first line of every file.
    pub fn header() -> Self {
        Self::Header(Header { format: FORMAT.into(), version: VERSION })
    }

    /// Adds the line, with its line break.
    pub fn write(&self, line: &mut Vec<u8>) -> Result<(), String> {
        serde_json::to_writer(&mut *line, self).map_err(|e| e.to_string())?;
        line.push(b'\n');
        Ok(())
    }

    /// Reads a line. What it says must come back when it is written again: a field that this program does not know would be
    /// lost otherwise, and a number that does not fit be another one.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let record = Self::read(line)?;
        let mut again = Vec::with_capacity(line.len());
        record.write(&mut again)?;
        if again.trim_ascii_end() != line.trim_ascii_end() {
            let told: Value = serde_json::from_slice(line).map_err(|e| e.to_string())?;
            let kept: Value = serde_json::from_slice(&again).map_err(|e| e.to_string())?;
            if let Some(field) = lost(&told, &kept) {
                return Err(format!(
                    "{} is more than this version of Limpet understands: import it with the version that exported it",
                    field.trim_start_matches('.')
                ));
            }
        }
        Ok(record)
    }

    fn read(line: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Kinded<'a> {
            #[serde(borrow)]
            kind: Cow<'a, str>,
        }
        fn fields<T: DeserializeOwned>(line: &[u8]) -> Result<T, String> {
            serde_json::from_slice(line).map_err(|e| e.to_string())
        }
        let kinded: Kinded<'_> = serde_json::from_slice(line).map_err(|e| e.to_string())?;
        Ok(match &*kinded.kind {
            "header" => Self::Header(fields(line)?),
            "setting" => Self::Setting(fields(line)?),
            "tenant" => Self::Tenant(fields(line)?),
            "user" => Self::User(fields(line)?),
            "api_key" => Self::ApiKey(fields(line)?),
            "application" => Self::Application(fields(line)?),
            "device_profile" => Self::DeviceProfile(fields(line)?),
            "gateway" => Self::Gateway(fields(line)?),
            "gateway_set" => Self::GatewaySet(fields(line)?),
            "device" => Self::Device(fields(line)?),
            "device_state" => Self::DeviceState(fields(line)?),
            "join" => Self::Join(fields(line)?),
            "session" => Self::Session(fields(line)?),
            "queue_item" => Self::QueueItem(fields(line)?),
            "pending_event" => Self::PendingEvent(fields(line)?),
            "revoked_server" => Self::RevokedServer(fields(line)?),
            "join_token" => Self::JoinToken(fields(line)?),
            "trailer" => Self::Trailer(fields(line)?),
            other => return Err(format!("this version of Limpet knows no records of the kind {other:?}")),
        })
    }
}

/// The path to something in `told` that is not in `kept`.
fn lost(told: &Value, kept: &Value) -> Option<String> {
    match (told, kept) {
        (Value::Object(told), Value::Object(kept)) => told.iter().find_map(|(name, value)| match kept.get(name) {
            Some(kept) => lost(value, kept).map(|rest| format!(".{name}{rest}")),
            None => Some(format!(".{name}")),
        }),
        (Value::Array(told), Value::Array(kept)) if told.len() == kept.len() => {
            told.iter().zip(kept).find_map(|(told, kept)| lost(told, kept))
        }
        _ => (told != kept).then(String::new),
    }
}

/// Bytes as hexadecimal digits.
mod hexadecimal {
    use serde::de::Error as _;

    use super::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex::encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        hex::decode(String::deserialize(d)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use limpet_store_testing::conformance::Samples;

    fn round(record: &Record) -> Record {
        let mut line = Vec::new();
        record.write(&mut line).unwrap();
        let read = Record::parse(&line).unwrap();
        assert_eq!(&read, record, "{}", String::from_utf8_lossy(&line));
        read
    }

    #[test]
    fn every_number_comes_back_as_it_was() {
        let new = Samples::new();
        let mut gateway = new.gateway(new.uuid());
        // Without exact parsing the last digit of such a number changes on the way.
        for number in [38.716_666_666_666_67, 0.1 + 0.2, -9.139_366_111_111_11, f64::MIN_POSITIVE, 1e300 / 3.0] {
            gateway.location = Some(Location { latitude: number, longitude: -number, ..Location::default() });
            round(&Record::Gateway(Box::new(GatewayRecord { gateway: gateway.clone(), seen: GatewaySeen::default() })));
        }
        let mut session = new.session(new.session_key());
        session.key.id = SessionId(u64::MAX);
        session.rev = u64::MAX - 1;
        let marks = Marks { out: u64::MAX / 2, out_through_pending: true, sent: 1 << 32 };
        round(&Record::Session(Box::new(SessionRow { session, marks })));
    }

    #[test]
    fn what_would_be_lost_is_named() {
        let mut line = Vec::new();
        Record::Tenant(Samples::new().tenant()).write(&mut line).unwrap();
        let line =
            String::from_utf8(line).unwrap().replace("\"max_device_count\"", "\"max_wishes\":[1],\"max_device_count\"");
        let refused = Record::parse(line.as_bytes()).unwrap_err();
        assert!(refused.starts_with("max_wishes is more than this version of Limpet understands"), "{refused}");
        let refused = Record::parse(b"{\"kind\":\"spaceship\"}").unwrap_err();
        assert!(refused.contains("\"spaceship\""), "{refused}");
    }
}
