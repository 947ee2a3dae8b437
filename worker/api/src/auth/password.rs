//! Passwords: argon2id, away from the threads that serve.

use std::time::Duration;

use argon2::{
    Argon2, PasswordHash, PasswordHasher, PasswordVerifier,
    password_hash::{Salt, SaltString},
};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use crate::error::{ApiError, Result};

/// Who waits for a turn. Each kind has one at a time, so that no number of strangers keeps those out who are known; a turn takes
/// 19 MiB and some tens of milliseconds of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// Of whom a good token was seen, or a log-in from the same address.
    Known,
    Stranger,
}

/// How long a caller waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);
/// Characters of a password that is set. One that was set before this was asked for still logs in.
pub const SHORTEST: usize = 8;
/// Bytes of a password.
const LONGEST: usize = 1024;

/// Hashes and verifies, a few at a time.
pub(super) struct Passwords {
    known: Semaphore,
    strangers: Semaphore,
}

impl Passwords {
    pub fn new() -> Self {
        Self { known: Semaphore::new(1), strangers: Semaphore::new(1) }
    }

    /// The password as a PHC string.
    pub async fn hash(&self, password: &str) -> Result<String> {
        if password.chars().count() < SHORTEST || password.len() > LONGEST {
            let why = format!("must have at least {SHORTEST} characters, and at most {LONGEST} bytes");
            return Err(ApiError::invalid("password", why));
        }
        let password = password.to_owned();
        self.in_turn(Whose::Known, move || hash_with(&password, random()?)).await
    }

    /// Whether it is the password of that hash. Takes as long when there is no hash to compare with, so that the time
    /// does not tell which accounts exist.
    pub async fn verify(&self, whose: Whose, password: &str, hash: Option<&str>) -> Result<bool> {
        if password.len() > LONGEST {
            return Ok(false);
        }
        let (password, hash) = (password.to_owned(), hash.map(str::to_owned));
        self.in_turn(whose, move || {
            let Some(hash) = hash else { return hash_with(&password, random()?).map(|_| false) };
            let hash = PasswordHash::new(&hash)
                .map_err(|_| ApiError::Internal("the stored password hash cannot be read".into()))?;
            Ok(Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
        })
        .await
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        whose: Whose,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turns = match whose {
            Whose::Known => &self.known,
            Whose::Stranger => &self.strangers,
        };
        let busy = || ApiError::Exhausted("too many log-ins at once; try again".into());
        let _turn = timeout(PATIENCE, turns.acquire()).await.map_err(|_| busy())?.map_err(|_| busy())?;
        spawn_blocking(work).await.map_err(|e| ApiError::Internal(format!("password hashing stopped: {e}")))?
    }
}

fn hash_with(password: &str, salt: [u8; Salt::RECOMMENDED_LENGTH]) -> Result<String> {
    let failed = |e: argon2::password_hash::Error| ApiError::Internal(format!("password hashing failed: {e}"));
    let salt = SaltString::encode_b64(&salt).map_err(failed)?;
    Ok(Argon2::default().hash_password(password.as_bytes(), &salt).map_err(failed)?.to_string())
}

/// Bytes from the machine's random source.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| ApiError::Internal(format!("no random bytes: {e}")))?;
    Ok(bytes)
}
