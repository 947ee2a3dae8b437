//! The end of all that a device has here. It may break off anywhere, and begin again.

use limpet_shared::Eui64;
use limpet_worker_core::model::DeviceState;
use scylla::value::CqlValue::{BigInt, Int, Text};

use super::{FORGET_AT_ONCE, FORGET_ROUNDS, STATE, Sessions};
use crate::{
    Freshness, Result, StoreError,
    cql::{db::Db, json::encode},
};

impl Sessions {
    /// A new revision of the state, without these DevNonces: in one batch, so that a join that is under way starts again.
    pub(super) async fn forget_some(&self, db: &Db, state: DeviceState, nonces: &[(i32,)]) -> Result<bool> {
        let (expected, device) = (state.rev.cast_signed(), state.dev_eui.to_string());
        let next = DeviceState { rev: state.rev + 1, highest_dev_nonce: None, ..state };
        let (rev, body) = (BigInt(expected + 1), Text(encode(&next)?));
        let head = match expected {
            0 => (&self.first_state, vec![Text(device.clone()), rev, body]),
            _ => (&self.next_state, vec![rev, body, Text(device.clone()), BigInt(expected)]),
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

    /// Sessions, DevNonces, and last the state. The state goes only as it was when no DevNonce was left: a join comes with a
    /// new revision.
    pub async fn delete_device(&self, db: &Db, dev_eui: Eui64) -> Result<()> {
        for key in self.keys_of_device(db, dev_eui).await? {
            self.delete(db, &key).await?;
        }
        let device = dev_eui.to_string();
        for _ in 0..FORGET_ROUNDS {
            let state = self.device_state(db, dev_eui, Freshness::Serial).await?;
            let nonces: Vec<(i32,)> = db.rows(&self.nonces, (&device, STATE, FORGET_AT_ONCE)).await?;
            let went = match (nonces.is_empty(), state.rev) {
                (true, 0) => return Ok(()),
                (true, rev) => db.cas(&self.delete_state, (&device, rev.cast_signed())).await,
                (false, _) => self.forget_some(db, state, &nonces).await,
            };
            match went {
                // The next round sees what is left.
                Ok(_) | Err(StoreError::Unknown(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Unknown(format!("the joins of {dev_eui} were not all forgotten")))
    }
}
