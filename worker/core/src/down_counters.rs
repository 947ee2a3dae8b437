//! FCntDowns that are used up: a session that comes again with the same keys must not repeat them (promise 3).

use crate::{
    ident,
    model::{DeviceState, DownCounter, SessionKeys, SessionRow},
};

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
        let SessionKeys { nwk_s_key, app_s_key } = &session.keys;
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

    /// The lowest FCntDown that no session of these keys has used.
    pub fn unused_fcnt_down(&self, keys: &SessionKeys) -> u32 {
        let prints = [&keys.nwk_s_key, &keys.app_s_key].map(ident::key_print);
        self.down_counters.iter().filter(|c| prints.contains(&c.key)).map(|c| c.next).max().unwrap_or(0)
    }
}
