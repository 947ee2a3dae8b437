//! Counters that are used up: a session that comes again with the same keys must not repeat an FCntDown (promise 3), nor a device
//! that was deleted and comes again a JoinNonce.

use crate::{
    ident,
    model::{DeviceState, DownCounter, SessionKeys, SessionRow},
};

/// Downlinks that a session may send between being read and being deleted, and more.
pub const MEANWHILE: u32 = 64;

/// Keys remembered for a device; of more the first are forgotten.
const REMEMBERED: usize = 32;

impl DeviceState {
    /// Remembers how far a session that ends has counted, under both its keys: no trace may be left of what the application's key
    /// has encrypted.
    pub fn remember_counter(&mut self, row: &SessionRow) {
        let session = &row.session;
        if session.slot.number == 0 {
            return;
        }
        let SessionKeys { nwk_s_key, app_s_key } = &session.device_keys();
        self.remember(DownCounter { key: ident::key_print(nwk_s_key), next: session.next_fcnt_down });
        self.remember(DownCounter { key: ident::key_print(app_s_key), next: session.next_fcnt_down });
    }

    fn remember(&mut self, used: DownCounter) {
        let before = self.down_counters.iter().find(|c| c.key == used.key).map_or(0, |c| c.next);
        self.down_counters.retain(|c| c.key != used.key);
        self.down_counters.push(DownCounter { next: used.next.max(before), ..used });
        let over = self.down_counters.len().saturating_sub(REMEMBERED);
        self.down_counters.drain(..over);
    }

    /// What of it outlives its device, with a new revision: the JoinNonces that were used, for LoRaWAN 1.0.4 devices refuse a JoinAccept
    /// that does not count up, and equal nonces under an equal AppKey make equal session keys; and how far keys of ABP have counted.
    pub fn ended(&self, sessions: &[SessionRow]) -> Self {
        let mut ended = Self {
            rev: self.rev + 1,
            next_join_nonce: self.next_join_nonce,
            down_counters: self.down_counters.clone(),
            ..Self::new(self.dev_eui)
        };
        // Keys of a join never come again.
        sessions.iter().filter(|row| !row.session.joined).for_each(|row| ended.remember_counter(row));
        ended
    }

    /// Whether nothing of it but its revision must outlive its device.
    pub fn is_unused(&self) -> bool {
        *self == Self { rev: self.rev, ..Self::new(self.dev_eui) }
    }

    /// The lowest FCntDown that no session of these keys has used.
    pub fn unused_fcnt_down(&self, keys: &SessionKeys) -> u32 {
        let prints = [&keys.nwk_s_key, &keys.app_s_key].map(ident::key_print);
        self.down_counters.iter().filter(|c| prints.contains(&c.key)).map(|c| c.next).max().unwrap_or(0)
    }
}
