//! Why a call was not answered, and the gRPC status that says so.

use limpet_store::StoreError;
use tonic::{Code, Status};

/// The result of what a call asks for.
pub type Result<T> = std::result::Result<T, ApiError>;

/// Why a call was not answered. Messages are for the caller and hold no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// A field that cannot be honoured.
    #[error("{field}: {why}")]
    Invalid { field: &'static str, why: String },
    /// No such thing, or its parent is missing.
    #[error("{0} does not exist")]
    NotFound(String),
    #[error("{0} already exists")]
    AlreadyExists(String),
    /// Who calls is not known: no token, a bad or old one, a wrong password.
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// Who calls is known and may not.
    #[error("{0}")]
    Denied(&'static str),
    /// Right in itself, but not in the state that things are in.
    #[error("{0}")]
    Precondition(String),
    /// A limit is reached.
    #[error("{0}")]
    Exhausted(String),
    /// Someone else changed the same thing at the same time, again and again.
    #[error("{0} was changed by someone else at the same time; try again")]
    Conflict(String),
    /// The store does not answer; nothing was written.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The store did not say whether it wrote.
    #[error("it is not known whether this was done, try again: {0}")]
    Unsure(String),
    #[error("{0}")]
    Internal(String),
}

impl ApiError {
    /// A field that cannot be honoured.
    pub fn invalid(field: &'static str, why: impl Into<String>) -> Self {
        Self::Invalid { field, why: why.into() }
    }

    fn code(&self) -> Code {
        match self {
            Self::Invalid { .. } => Code::InvalidArgument,
            Self::NotFound(_) => Code::NotFound,
            Self::AlreadyExists(_) => Code::AlreadyExists,
            Self::Unauthenticated(_) => Code::Unauthenticated,
            Self::Denied(_) => Code::PermissionDenied,
            Self::Precondition(_) => Code::FailedPrecondition,
            Self::Exhausted(_) => Code::ResourceExhausted,
            Self::Conflict(_) => Code::Aborted,
            Self::Unavailable(_) => Code::Unavailable,
            Self::Unsure(_) => Code::DeadlineExceeded,
            Self::Internal(_) => Code::Internal,
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::AlreadyExists(what) => Self::AlreadyExists(what),
            StoreError::NotFound(what) => Self::NotFound(what),
            StoreError::Exhausted(why) => Self::Exhausted(why),
            StoreError::Unknown(why) => Self::Unsure(why),
            StoreError::Unavailable(why) => Self::Unavailable(why),
            StoreError::Corrupt(why) => Self::Internal(why),
        }
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        Status::new(error.code(), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_in_trouble_has_a_status_that_says_whether_to_try_again() {
        let code = |error: StoreError| Status::from(ApiError::from(error)).code();
        assert_eq!(code(StoreError::Unavailable("down".into())), Code::Unavailable);
        assert_eq!(code(StoreError::Unknown("no answer".into())), Code::DeadlineExceeded);
        assert_eq!(code(StoreError::Corrupt("?".into())), Code::Internal);
        assert_eq!(code(StoreError::Exhausted("full".into())), Code::ResourceExhausted);
        assert_eq!(code(StoreError::NotFound("device".into())), Code::NotFound);
        assert_eq!(code(StoreError::AlreadyExists("device".into())), Code::AlreadyExists);
    }
}
