//! The end of all that a device has here. It may break off anywhere, and begin again.

use limpet_shared::Eui64;
use limpet_worker_core::{
    down_counters::MEANWHILE,
    model::{DeviceState, SessionRow},
};
use scylla::value::CqlValue::{BigInt, Int, Text};

use super::{FORGET_AT_ONCE, FORGET_ROUNDS, STATE, Sessions};
use crate::{
    Freshness, Result, StoreError,
    cql::{db::Db, json::encode},
};

impl Sessions {
    /// `next` in the place of the state at the revision before it, without these DevNonces: in one batch, so that a join that is under
    /// way starts again.
    pub(super) async fn forget_some(&self, db: &Db, next: &DeviceState, nonces: &[(i32,)]) -> Result<bool> {
        let (rev, device) = (next.rev.cast_signed(), next.dev_eui.to_string());
        let (to, body) = (BigInt(rev), Text(encode(next)?));
        let head = match rev {
            ..=1 => (&self.first_state, vec![Text(device.clone()), to, body]),
            _ => (&self.next_state, vec![to, body, Text(device.clone()), BigInt(rev - 1)]),
        };
        let nonces: Vec<_> = nonces.iter().map(|(nonce,)| vec![Text(device.clone()), Int(*nonce)]).collect();
        db.cas_partition(head, &self.forget_nonce, &nonces).await
    }

    /// Whether there is anything that [`Self::delete_device`] would delete.
    pub async fn has_any(&self, db: &Db, dev_eui: Eui64) -> Result<bool> {
        let (device, sessions) = (dev_eui.to_string(), self.keys_of_device(db, dev_eui));
        let (joins, sessions) =
            futures_util::future::try_join(db.rows::<(i32,)>(&self.any_join, (device,)), sessions).await?;
        Ok(!joins.is_empty() || !sessions.is_empty())
    }

    /// DevNonces and what the state knows of them, but for what must outlive the device; then its sessions.
    pub async fn delete_device(&self, db: &Db, dev_eui: Eui64) -> Result<()> {
        let (keys, mut sessions) = (self.keys_of_device(db, dev_eui).await?, Vec::new());
        for key in &keys {
            // One that is listed and not there was not made to its end.
            sessions.extend(self.by_key(db, key, Freshness::Serial).await?);
        }
        for row in &mut sessions {
            // It may go on until it is deleted below.
            row.session.next_fcnt_down = row.session.next_fcnt_down.saturating_add(MEANWHILE);
        }
        self.end_state(db, dev_eui, &sessions).await?;
        for key in &keys {
            self.delete(db, key).await?;
        }
        Ok(())
    }

    /// The state ends as it was when no DevNonce was left: a join comes with a new revision.
    async fn end_state(&self, db: &Db, dev_eui: Eui64, sessions: &[SessionRow]) -> Result<()> {
        for _ in 0..FORGET_ROUNDS {
            let state = self.device_state(db, dev_eui, Freshness::Serial).await?;
            let nonces: Vec<(i32,)> = db.rows(&self.nonces, (dev_eui.to_string(), STATE, FORGET_AT_ONCE)).await?;
            let ended = state.ended(sessions);
            if nonces.is_empty() && ended == (DeviceState { rev: ended.rev, ..state }) {
                return Ok(());
            }
            match self.forget_some(db, &ended, &nonces).await {
                // The next round sees what is left.
                Ok(_) | Err(StoreError::Unknown(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Unknown(format!("the joins of {dev_eui} were not all forgotten")))
    }
}
