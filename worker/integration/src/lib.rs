//! How events leave Limpet: as ChirpStack v4 writes them, by HTTP POST.
//!
//! The pipeline sees only [`Deliver`]; what an event looks like on the wire is [`render`]'s business, and the types of
//! ChirpStack's protocol stay in this crate.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod error;
mod http;
mod render;

use std::time::Duration;

use async_trait::async_trait;
use limpet_codec::Object;
use limpet_worker_core::model::{Event, HttpIntegration};

pub use error::{DeliveryError, Obstacle};
pub use http::{MAX_URLS, Sender, check};
pub use render::{RenderError, Rendered, render};

/// Hands an event to an integration.
#[async_trait]
pub trait Deliver: Send + Sync {
    /// `object` is what the payload of an uplink says.
    ///
    /// Returns once every endpoint of the integration has taken the event. Any error means that at least one has not
    /// said so within `limit`: the event must be offered again, and an endpoint may then see it twice under one
    /// `deduplicationId`.
    async fn deliver(
        &self,
        integration: &HttpIntegration,
        event: &Event,
        object: Option<&Object>,
        limit: Duration,
    ) -> Result<(), DeliveryError>;
}
