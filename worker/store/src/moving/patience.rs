//! A store that does not answer in time is asked again: all that moving does may be done twice.

use std::time::Duration;

use crate::{Result, StoreError};

/// How often, with pauses that double up to the longest: for about half a minute.
const TRIES: u32 = 12;
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(super) async fn patiently<T>(ask: impl AsyncFn() -> Result<T>) -> Result<T> {
    let mut pause = PAUSE;
    for _ in 1..TRIES {
        match ask().await {
            Err(StoreError::Unavailable(why) | StoreError::Unknown(why)) => {
                tracing::debug!(%why, "trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            answer => return answer,
        }
    }
    ask().await
}
