//! Users and API keys; and what is asked of a running server, or of the store itself.

use std::path::Path;

use limpet_api::{Api, ApiState, NoCluster};
use limpet_shared::admin::{ApiKeyAdd, Password, Reply, Request, UserAdd};
use limpet_store::{OpenError, StoreError, moving};

use crate::{
    cli::{ApiKeyTask, PasswordArg, UserTask},
    secrets::{Line, of},
};

/// Why the question could not even be asked.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    #[error("{0}")]
    Password(String),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Regions(#[from] limpet_api::ApiError),
    #[error("there is no store in {0}")]
    NoStore(String),
    #[error("an import into this store is not finished: run it again first")]
    HalfImported,
}

pub fn about_users(task: UserTask) -> Result<Request, PeopleError> {
    Ok(match task {
        UserTask::List => Request::Users,
        UserTask::Add { email, admin, password: PasswordArg { password_file } } => {
            Request::UserAdd(UserAdd { email, admin, password: password_in(password_file.as_deref())? })
        }
        UserTask::Password { email, password: PasswordArg { password_file } } => {
            Request::UserPassword { email, password: password_in(password_file.as_deref())? }
        }
        UserTask::Remove { email } => Request::UserRemove { email },
    })
}

pub fn about_keys(task: ApiKeyTask) -> Request {
    match task {
        ApiKeyTask::List => Request::ApiKeys,
        ApiKeyTask::Create { name, tenant, read_only } => Request::ApiKeyAdd(ApiKeyAdd { name, tenant, read_only }),
        ApiKeyTask::Remove { id } => Request::ApiKeyRemove { id },
    }
}

fn password_in(file: Option<&Path>) -> Result<Option<Password>, PeopleError> {
    let read = of(None, file, "--password-file", Line::First).map_err(PeopleError::Password)?;
    Ok(read.map(Password))
}

/// Answers from the store, as a worker on it would.
pub async fn at_store(url: &str, request: Request) -> Result<Reply, PeopleError> {
    // Opening a folder would make a store there.
    if let Some(folder) = url.strip_prefix("sqlite:").filter(|folder| !Path::new(folder).join("state.db").exists()) {
        return Err(PeopleError::NoStore(folder.into()));
    }
    let store = limpet_store::open(url).await?;
    if moving::unfinished(&*store).await?.is_some() {
        return Err(PeopleError::HalfImported);
    }
    let regions = limpet_api::regions_of(&*store).await?;
    let api = Api::new(ApiState {
        default_region: regions.first().cloned().unwrap_or_default(),
        regions,
        store,
        codecs: limpet_codec::Codecs::default(),
        cluster: std::sync::Arc::new(NoCluster),
        version: env!("CARGO_PKG_VERSION").into(),
        server: String::new(),
        gwmp: None,
    });
    Ok(api.answer_or_ask(request, "limpet ctl at the store").await)
}
