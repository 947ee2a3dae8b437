//! Which region a frame was sent in.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use limpet_shared::{
    Eui64,
    region::{Modulation, Region},
};
use limpet_store::Store;
use limpet_worker_core::model::Location;
use parking_lot::Mutex;
use tokio::time::Instant;

/// The gateway's tag that ties its frames to one region.
pub const TAG: &str = "region";
/// How long a gateway's tag is believed; and for how long a gateway is held to be unknown, since it may just be added.
const BELIEVED: Duration = Duration::from_secs(10);
const UNKNOWN_FOR: Duration = Duration::from_millis(500);
/// Gateways remembered at most; more than that and all are asked again.
const REMEMBERED: usize = 100_000;

/// Why a frame belongs to no region here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    #[error("no configured region has that frequency and data rate")]
    NoRegion,
    #[error("more than one configured region has that frequency and data rate, and the gateway has no tag `region`")]
    Ambiguous,
    #[error("the gateway is unknown")]
    UnknownGateway,
}

impl RegionError {
    /// The metric's label.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoRegion => "no_region",
            Self::Ambiguous => "ambiguous_region",
            Self::UnknownGateway => "unknown_gateway",
        }
    }
}

/// What the directory says about a gateway.
#[derive(Clone)]
struct GatewayTag {
    asked_at: Instant,
    known: bool,
    region: Option<String>,
    location: Option<Location>,
}

/// Where a frame was heard.
#[derive(Clone, Copy)]
pub struct RegionMatch {
    pub region: &'static Region,
    /// The data rate's index in the region.
    pub data_rate: u8,
    /// The gateway's place.
    pub location: Option<Location>,
}

/// The configured regions.
pub struct Regions {
    configured: Vec<&'static Region>,
    accept_unknown_gateways: bool,
    tags: Mutex<Tags>,
}

#[derive(Default)]
struct Tags {
    of: HashMap<Eui64, GatewayTag>,
    /// How often they were forgotten: an answer that was asked for before is not remembered.
    forgotten: u64,
}

impl Regions {
    pub fn new(configured: Vec<&'static Region>, accept_unknown_gateways: bool) -> Self {
        Self { configured, accept_unknown_gateways, tags: Mutex::default() }
    }

    /// The region of a reception, the data rate's index in it, and the gateway's place. The gateway's tag decides; without
    /// one, the only configured region that has such a channel. An error is the store's: nothing is known of the gateway
    /// then, for without its tag the frame might seem to belong to no region or to several.
    pub async fn of(
        &self,
        store: &dyn Store,
        gateway: Eui64,
        frequency: u32,
        modulation: &Modulation,
    ) -> limpet_store::Result<Result<RegionMatch, RegionError>> {
        Ok(self.fitting(&self.tag(store, gateway).await?, frequency, modulation))
    }

    fn fitting(&self, tag: &GatewayTag, frequency: u32, modulation: &Modulation) -> Result<RegionMatch, RegionError> {
        if !tag.known && !self.accept_unknown_gateways {
            return Err(RegionError::UnknownGateway);
        }
        let mut fitting = self.configured.iter().copied().filter_map(|region| {
            let data_rate = region.uplink_data_rate(modulation)?;
            let tagged = tag.region.as_ref().is_none_or(|name| name.eq_ignore_ascii_case(region.name()));
            (tagged && region.accepts(region.snap(frequency, modulation), data_rate)).then_some(RegionMatch {
                region,
                data_rate,
                location: tag.location,
            })
        });
        let first = fitting.next().ok_or(RegionError::NoRegion)?;
        if fitting.next().is_some() { Err(RegionError::Ambiguous) } else { Ok(first) }
    }

    /// Remembered for some seconds.
    async fn tag(&self, store: &dyn Store, gateway: Eui64) -> limpet_store::Result<GatewayTag> {
        let now = Instant::now();
        let forgotten = {
            let tags = self.tags.lock();
            let believed = |t: &&GatewayTag| now < t.asked_at + if t.known { BELIEVED } else { UNKNOWN_FOR };
            if let Some(tag) = tags.of.get(&gateway).filter(believed) {
                return Ok(tag.clone());
            }
            tags.forgotten
        };
        let tag = match store.gateway(gateway).await {
            Err(error) => return self.last_known(gateway).ok_or(error),
            Ok(found) => found,
        };
        let tag = match tag {
            Some((gateway, seen)) => GatewayTag {
                asked_at: now,
                known: true,
                region: gateway.tags.get(TAG).cloned(),
                location: gateway.place(&seen),
            },
            None => GatewayTag { asked_at: now, known: false, region: None, location: None },
        };
        let mut tags = self.tags.lock();
        if tags.forgotten == forgotten {
            if tags.of.len() >= REMEMBERED {
                tags.of.clear();
            }
            tags.of.insert(gateway, tag.clone());
        }
        Ok(tag)
    }

    /// While the store does not answer, a gateway is what it was: its frames need not wait, and lose their order, for that.
    fn last_known(&self, gateway: Eui64) -> Option<GatewayTag> {
        self.tags.lock().of.get(&gateway).filter(|tag| tag.known).cloned()
    }

    /// The gateway tells where it is; other workers read it within some seconds.
    pub fn placed(&self, gateway: Eui64, location: Location) {
        if let Some(tag) = self.tags.lock().of.get_mut(&gateway) {
            tag.location = Some(location);
        }
    }

    /// Forgets what it knows of these gateways: they were added, changed, or deleted.
    pub fn forget(&self, changed: &BTreeSet<Eui64>) {
        let mut tags = self.tags.lock();
        tags.of.retain(|eui, _| !changed.contains(eui));
        tags.forgotten += 1;
    }

    /// Forgets all gateways: which ones were changed is not known.
    pub fn forget_all(&self) {
        let mut tags = self.tags.lock();
        tags.of.clear();
        tags.forgotten += 1;
    }

    pub fn all(&self) -> &[&'static Region] {
        &self.configured
    }

    /// A configured region by name.
    pub fn by_name(&self, name: &str) -> Option<&'static Region> {
        self.configured.iter().find(|r| r.name().eq_ignore_ascii_case(name)).copied()
    }
}
