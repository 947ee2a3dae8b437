//! What payloads say, by the codec of their device profile: found out where an event is told, not where it is accepted, so that a
//! codec can neither lose an event nor hold up a frame. An event that is told again, or at several URLs, may say another thing where the
//! script asks for the time or for chance, was changed meanwhile, or was not run at one of them.

use std::time::Duration;

use limpet_codec::{Codec, CodecError, Object, Script, Uplink};
use limpet_integration::DeliveryError;
use limpet_store::{PendingEvent, StoreError};
use limpet_worker_core::model::*;

use super::{Pipeline, pending::COMPLAINT};

/// ChirpStack's code of it.
const CODE: &str = "UPLINK_CODEC";
/// An event whose codec had no turn for so long is told without: nobody knows whether it will have one.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is known of an event's payload.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reading {
    /// It has none, or no codec.
    Nothing,
    Object(Object),
    /// Its codec says that it is none. The event goes out without, and its owner is told.
    Failed(CodecError),
    /// It had no turn in time, or its codec cannot be read now: the event waits.
    NotYet(String),
}

impl Reading {
    pub fn object(&self) -> Option<&Object> {
        if let Self::Object(object) = self { Some(object) } else { None }
    }

    /// Nothing that keeps the event from being told.
    pub fn is_known(&self) -> Result<(), DeliveryError> {
        if let Self::NotYet(why) = self { Err(DeliveryError::Undecoded(why.clone())) } else { Ok(()) }
    }
}

/// Where the word of a payload that cannot be decoded waits, beside the parts of its slot and after them.
pub(super) fn part_of_complaint(part: u32) -> u32 {
    COMPLAINT | part
}

/// A payload that there is something to say of, and its port.
fn payload(event: &Event) -> Option<(&[u8], u8)> {
    let EventKind::Up(up) = &event.kind else { return None };
    Some((&up.data, up.fport.filter(|port| *port > 0)?))
}

/// The codec of a profile, whose script is its tenant's.
fn codec_of(profile: &DeviceProfile) -> Codec<'_> {
    match profile.codec.runtime {
        CodecRuntime::None => Codec::None,
        CodecRuntime::CayenneLpp => Codec::CayenneLpp,
        CodecRuntime::Js => Codec::Js(Script {
            owner: profile.tenant_id.as_u128(),
            id: profile.id.as_u128(),
            text: &profile.codec.script,
        }),
    }
}

impl Pipeline {
    /// With what was read of the device when the event was accepted, or is taken over.
    pub(super) async fn read_payload(&self, event: &Event, context: &DeviceContext, limit: Duration) -> Reading {
        if context.profile.id == event.device.device_profile_id {
            return self.decoded(event, &context.profile, &context.device.variables, limit).await;
        }
        self.read_payload_later(event, &mut None, limit).await
    }

    /// An event that waited: with what the store says of its device, which is asked at most once for `known`.
    pub(super) async fn read_payload_later(
        &self,
        event: &Event,
        known: &mut Option<(DeviceProfile, Tags)>,
        limit: Duration,
    ) -> Reading {
        if payload(event).is_none() {
            return Reading::Nothing;
        }
        let id = event.device.device_profile_id;
        if known.as_ref().is_none_or(|(profile, _)| profile.id != id) {
            *known = match self.profile_of(event).await {
                Ok(found) => found,
                Err(error) => return Reading::NotYet(error.to_string()),
            };
        }
        match known {
            Some((profile, variables)) => self.decoded(event, profile, variables, limit).await,
            // The profile was deleted: nobody says what it means.
            None => Reading::Nothing,
        }
    }

    /// The profile that the device had then, and the variables that it has now.
    async fn profile_of(&self, event: &Event) -> Result<Option<(DeviceProfile, Tags)>, StoreError> {
        let id = event.device.device_profile_id;
        let context = self.store.device_context(event.device.dev_eui).await?;
        Ok(match context {
            Some(context) if context.profile.id == id => Some((context.profile, context.device.variables)),
            other => {
                let variables = other.map(|context| context.device.variables).unwrap_or_default();
                self.store.device_profile(id).await?.map(|profile| (profile, variables))
            }
        })
    }

    async fn decoded(&self, event: &Event, profile: &DeviceProfile, variables: &Tags, limit: Duration) -> Reading {
        let Some((bytes, f_port)) = payload(event) else { return Reading::Nothing };
        let uplink = Uplink { bytes, f_port, received_at: event.at.0 / 1000, variables };
        match tokio::time::timeout(limit, self.codecs.decode(codec_of(profile), uplink)).await {
            Ok(Ok(None)) => Reading::Nothing,
            Ok(Ok(Some(object))) => Reading::Object(object),
            Ok(Err(error)) if !error.is_busy() => Reading::Failed(error),
            _ if self.surroundings.now().since(event.at) > PATIENCE => Reading::Failed(CodecError::Busy),
            Ok(Err(error)) => Reading::NotYet(error.to_string()),
            Err(_) => Reading::NotYet("its codec did not answer in time".into()),
        }
    }

    /// What is told after an event that went out without an object, with its id, as ChirpStack does.
    pub(super) fn complaint(&self, reading: &Reading, event: &Event) -> Option<Event> {
        let Reading::Failed(error) = reading else { return None };
        self.metrics.codec_failed(error.label());
        tracing::debug!(dev_eui = %event.device.dev_eui, %error, "a payload could not be decoded");
        let log = LogEvent { error: true, code: CODE.into(), description: error.to_string(), context: Tags::new() };
        Some(Event { kind: EventKind::Log(log), ..event.clone() })
    }

    /// Offers an event that waits. What is to be said of its payload then waits in its place (true), and was not read with those that waited
    /// behind it. If the store does not take that, the event is to be offered again.
    pub(super) async fn offer_waiting(
        &self,
        http: &HttpIntegration,
        waiting: &PendingEvent,
        known: &mut Option<(DeviceProfile, Tags)>,
        limit: Duration,
    ) -> Result<Result<bool, DeliveryError>, StoreError> {
        let reading = self.read_payload_later(&waiting.event, known, limit).await;
        if let Err(error) = reading.is_known() {
            return Ok(Err(error));
        }
        if let Err(error) = self.deliver.deliver(http, &waiting.event, reading.object(), limit).await {
            return Ok(Err(error));
        }
        let Some(event) = self.complaint(&reading, &waiting.event) else { return Ok(Ok(false)) };
        let part = part_of_complaint(waiting.part);
        self.store.put_pending(PendingEvent { part, event, refusals: 0, ..waiting.clone() }).await?;
        self.waits();
        Ok(Ok(true))
    }
}
