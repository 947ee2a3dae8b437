//! What the balancer knows of the network, kept so that it can start alone.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use limpet_link::files;
use limpet_shared::link::Cluster;
use prost::Message;
use tokio::sync::watch;

/// The file under `--data`.
pub fn path(data: &Path) -> PathBuf {
    data.join("cluster.bin")
}

/// What was kept; `None` if there is nothing, or nothing that can be read: workers will tell it all again.
pub fn load(path: &Path) -> Option<Cluster> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot read what was known of the network");
            return None;
        }
    };
    let cluster = Cluster::decode(bytes.as_slice());
    if let Err(error) = &cluster {
        tracing::warn!(path = %path.display(), %error, "what was known of the network is damaged; waiting for a worker");
    }
    cluster.ok()
}

/// Writes each new version, or only the latest of many; ends after the last one when the sender is gone.
pub async fn keep(path: PathBuf, versions: watch::Receiver<Cluster>) {
    files::keep(path, "what is known of the network", versions, Message::encode_to_vec).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_version_is_kept_and_damage_is_no_crash() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path());
        assert_eq!(load(&path), None);
        let (sender, versions) = watch::channel(Cluster::default());
        let keeper = tokio::spawn(keep(path.clone(), versions));
        for version in 1..=5 {
            sender.send_replace(Cluster { version, ..Cluster::default() });
        }
        drop(sender);
        keeper.await.unwrap();
        assert_eq!(load(&path).map(|c| c.version), Some(5));
        fs::write(&path, [0xff; 40]).unwrap();
        assert_eq!(load(&path), None);
    }
}
