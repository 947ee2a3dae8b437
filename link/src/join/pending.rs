//! The key of a server that is joining, kept until it is in: the answer may be lost, and whoever asks again with the same key
//! and token gets its certificate without using the token once more.

use std::path::{Path, PathBuf};

use rcgen::KeyPair;
use serde::{Deserialize, Serialize};

use super::JoinError;
use crate::{authority::AuthorityError, files, token::Token};

/// `DATA/joining.json`.
#[derive(Serialize, Deserialize)]
struct Pending {
    /// The token's id. Another token gets another key: the old one may be revoked.
    token: String,
    /// PKCS#8, PEM.
    key: String,
}

fn path(data: &Path) -> PathBuf {
    data.join("joining.json")
}

pub fn new_key() -> Result<KeyPair, JoinError> {
    Ok(KeyPair::generate().map_err(|e| AuthorityError::Certificate(e.to_string()))?)
}

/// The key to join with: that of an earlier attempt with this token, or a new one, which is on disk when this returns.
pub fn key(data: &Path, token: &Token) -> Result<KeyPair, JoinError> {
    let path = path(data);
    let before = files::read(&path)?.and_then(|text| serde_json::from_str::<Pending>(&text).ok());
    let before =
        before.filter(|before| before.token == token.id).and_then(|before| KeyPair::from_pem(&before.key).ok());
    if let Some(key) = before {
        return Ok(key);
    }
    let key = new_key()?;
    let pending = Pending { token: token.id.clone(), key: key.serialize_pem() };
    let text = serde_json::to_vec(&pending).map_err(|e| AuthorityError::Certificate(e.to_string()))?;
    files::private_dir(data)?;
    files::write(&path, &text)?;
    Ok(key)
}

/// The server is in, and its key is kept elsewhere.
pub fn done(data: &Path) -> Result<(), JoinError> {
    Ok(files::remove(&path(data))?)
}
