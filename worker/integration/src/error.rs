//! Why an event was not taken.

use std::time::Duration;

use crate::RenderError;

/// What keeps an endpoint from being reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Nothing listens there.
    Refused,
    /// Its name is not known.
    Dns,
    /// Its certificate is not trusted, or it does not speak TLS.
    Tls,
    /// Anything else: no route, a connection that broke.
    Other,
}

/// Why an event was not taken. No message holds more of a URL than its origin: paths and queries may hold tokens.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The endpoint is not an absolute http or https URL.
    #[error("the endpoint's URL cannot be used: {0}")]
    Url(String),
    /// A header of the integration cannot be sent.
    #[error("the header {0:?} cannot be sent")]
    Header(String),
    /// The time limit passed before every endpoint had answered.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The endpoint cannot be reached, or the connection broke before it answered.
    #[error("{origin} cannot be reached: {reason}")]
    Unreachable { origin: String, obstacle: Obstacle, reason: String },
    /// The endpoint answered, but takes no event now: 401, 403, 404, 407 (a proxy's), 408, 425, 429, or neither 2xx nor 4xx.
    #[error("{origin} answered {status}")]
    NotNow { origin: String, status: u16 },
    /// The endpoint does not want this event (any other 4xx).
    #[error("{origin} refused the event with {status}")]
    Refused { origin: String, status: u16 },
    /// What its payload says is not known yet.
    #[error("its payload could not be decoded yet: {0}")]
    Undecoded(String),
    /// The event cannot be written as the integration wants it.
    #[error(transparent)]
    Render(#[from] RenderError),
}

impl DeliveryError {
    /// The reason as a metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Url(_) => "url",
            Self::Header(_) => "header",
            Self::TimedOut(_) => "timed_out",
            Self::Unreachable { obstacle, .. } => match obstacle {
                Obstacle::Refused => "connection_refused",
                Obstacle::Dns => "dns",
                Obstacle::Tls => "tls",
                Obstacle::Other => "unreachable",
            },
            Self::NotNow { .. } => "not_now",
            Self::Refused { .. } => "refused",
            Self::Undecoded(_) => "undecoded",
            Self::Render(_) => "render",
        }
    }

    /// Whether trying again is unlikely to help before someone changes the integration.
    pub fn needs_operator(&self) -> bool {
        match self {
            Self::Url(_) | Self::Header(_) | Self::Refused { .. } => true,
            Self::NotNow { status, .. } => matches!(status, 401 | 403 | 404 | 407),
            _ => false,
        }
    }

    /// Whether it is about the event rather than the integration: the next event may be taken.
    pub fn is_verdict(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Render(_))
    }
}
