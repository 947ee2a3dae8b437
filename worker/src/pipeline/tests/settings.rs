//! Settings of the network change while devices are there.

use limpet_shared::lorawan::JoinAccept;
use limpet_store::Freshness;
use limpet_worker_core::settings::{Scope, change};

use super::*;

impl Net {
    /// Somebody sets them, and all workers have read them.
    pub(super) async fn set(&self, settings: &[(&str, Option<&str>)]) {
        let was = self.store.network_settings().await.unwrap();
        let mut next = was.clone();
        for (name, value) in settings {
            let of_network = ["net_id", "reply_delay", "deduplication_delay"].contains(name);
            let scope = if of_network { Scope::Network } else { Scope::Region(self.region) };
            change(&mut next, scope, name, *value).unwrap();
        }
        assert!(self.store.replace_network_settings(&was, &next).await.unwrap());
        for worker in &self.workers {
            worker.read_settings().await.unwrap();
        }
    }

    fn channel(&self) -> u32 {
        self.region.join_channels()[0].frequency
    }

    /// A JoinRequest; what went out for it.
    async fn asks_to_join(&self, nonce: u16) -> Vec<Downlink> {
        let before = self.downlinks().len();
        let phy = JoinRequest::build(Eui64(9), DEVICE, nonce, &APP_KEY);
        self.give(0, self.frame(1, self.channel(), &phy, 7)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        self.downlinks().split_off(before)
    }

    /// A confirmed uplink of the session; where its answer can go: window, seconds after it, frequency, data rate, dBm.
    async fn windows(&self, session: &SessionRow, fcnt: u32) -> Vec<(u32, u64, u32, Datr, i8)> {
        let keys = Keys::from(session.session.keys);
        let spec = DataSpec { confirmed: true, dev_addr: session.session.key.dev_addr, ..hello(fcnt) };
        let frame = self.frame(1, self.channel(), &lorawan::build_data(&spec, &keys).unwrap(), 7);
        let (received_at, before) = (frame.received_at, self.downlinks().len());
        self.give(0, frame).await.unwrap();
        tokio::time::sleep(Duration::from_secs(20)).await;
        let downlinks = self.downlinks().split_off(before);
        let [downlink] = &downlinks[..] else { panic!("not one answer: {downlinks:?}") };
        let windows = downlink.windows.iter().enumerate().map(|(at, window)| {
            let txpk = txpk(downlink, at);
            (window.number, (window.at - received_at.0) / 1_000_000, txpk.freq, txpk.datr, txpk.powe as i8)
        });
        windows.collect()
    }

    async fn session_of(&self, accept: &JoinAccept) -> SessionRow {
        let rows = self.store.sessions_by_addr(accept.dev_addr, Freshness::Serial).await.unwrap();
        rows.into_iter().next().unwrap()
    }
}

fn opened(downlink: &Downlink) -> JoinAccept {
    JoinAccept::open(&txpk(downlink, 0).data, &APP_KEY).unwrap()
}

const fn sf(spreading_factor: u8) -> Datr {
    Datr::Lora { spreading_factor, bandwidth_khz: 125 }
}

const RX2: u32 = 869_525_000;

#[tokio::test(start_paused = true)]
async fn a_session_has_what_its_join_accept_told_whatever_is_set_later() {
    let net = Net::new("eu868", 1).await;
    let first = opened(&net.asks_to_join(1).await[0]);
    assert_eq!((first.net_id, first.rx_delay, first.rx1_dr_offset, first.rx2_data_rate), (0, 1, 0, 0));
    assert_eq!(first.cf_list, net.region.cf_list());
    let first = net.session_of(&first).await;
    let as_ever = vec![(1, 1, CHANNEL, sf(12), 14), (2, 2, RX2, sf(12), 27)];
    assert_eq!(net.windows(&first, 0).await, as_ever);

    let set = [("rx1_delay", "5"), ("rx2_dr", "3"), ("extra_channels", "864100000"), ("net_id", "00002d")];
    net.set(&set.map(|(name, value)| (name, Some(value)))).await;
    assert_eq!(net.windows(&first, 1).await, as_ever, "who joined before is answered as it was told");
    let sent = net.asks_to_join(2).await;
    let second = opened(&sent[0]);
    assert_eq!((second.net_id, second.rx_delay, second.rx1_dr_offset, second.rx2_data_rate), (0x2d, 5, 0, 3));
    assert_eq!(second.dev_addr.0 >> 25, 0x2d, "of the network's own addresses");
    assert_eq!(second.cf_list, net.region.cf_list_of(&[864_100_000]));
    let second = net.session_of(&second).await;
    let later = vec![(1, 5, CHANNEL, sf(12), 14), (2, 6, RX2, sf(9), 27)];
    assert_eq!(net.windows(&second, 0).await, later);

    net.set(&[("rx1_delay", None), ("rx2_dr", Some("5")), ("extra_channels", Some("")), ("net_id", None)]).await;
    assert_eq!(net.windows(&second, 1).await, later);
    let third = opened(&net.asks_to_join(3).await[0]);
    assert_eq!((third.net_id, third.rx_delay, third.rx2_data_rate, third.cf_list), (0, 1, 5, None));
    // Power is nothing that a device is told of.
    net.set(&[("downlink_tx_power", Some("10"))]).await;
    let third = net.session_of(&third).await;
    assert_eq!(net.windows(&third, 0).await, [(1, 1, CHANNEL, sf(12), 10), (2, 2, RX2, sf(7), 10)]);
}

#[tokio::test(start_paused = true)]
async fn a_join_request_that_comes_again_is_answered_with_the_same_bytes_though_settings_changed() {
    let net = Net::new("eu868", 2).await;
    let phy = JoinRequest::build(Eui64(9), DEVICE, 1, &APP_KEY);
    let frame = net.frame(1, CHANNEL, &phy, 7);
    net.give(0, frame.clone()).await.unwrap();
    let first = txpk(&net.downlinks()[0], 0);
    net.set(&[("rx1_delay", Some("5")), ("rx2_dr", Some("3")), ("extra_channels", Some(""))]).await;
    net.give(1, UplinkFrame { attempt: 1, ..frame }).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    for downlink in net.downlinks() {
        assert_eq!(txpk(&downlink, 0).data, first.data);
    }
    let session = net.session_of(&opened(&net.downlinks()[0])).await.session;
    assert_eq!((session.mac.rx1_delay, session.mac.rx2_data_rate, session.mac.extra_channels), (1, 0, None));
}

#[tokio::test(start_paused = true)]
async fn the_offset_of_rx1_is_the_sessions() {
    let net = Net::new("us915_1", 1).await;
    net.set(&[("rx1_dr_offset", Some("2")), ("rx2_dr", Some("10"))]).await;
    let accept = opened(&net.asks_to_join(1).await[0]);
    assert_eq!((accept.rx1_dr_offset, accept.rx2_data_rate), (2, 10));
    let session = net.session_of(&accept).await;
    net.set(&[("rx1_dr_offset", Some("0")), ("rx2_dr", None)]).await;
    let [rx1, rx2] = net.windows(&session, 0).await[..] else { panic!("two windows") };
    // DR0 is answered at DR8 with an offset of 2 (RP002-1.0.4, 2.5.7).
    let sf500 = |spreading_factor| Datr::Lora { spreading_factor, bandwidth_khz: 500 };
    assert_eq!((rx1.3, rx2.3), (sf500(12), sf500(10)));
}

#[tokio::test(start_paused = true)]
async fn a_profile_raises_the_delay_of_rx1_and_never_lowers_it() {
    for (of_network, of_profile, told) in [(None, 5, 5), (Some("3"), 2, 3), (Some("3"), 15, 15), (Some("2"), 0, 2)] {
        let net = Net::new("eu868", 1).await;
        let mut profile = net.store.device_profile(Uuid::from_u128(3)).await.unwrap().unwrap();
        profile.rx1_delay = of_profile;
        net.store.update_device_profile(&profile).await.unwrap();
        net.set(&[("rx1_delay", of_network)]).await;
        let accept = opened(&net.asks_to_join(1).await[0]);
        assert_eq!(accept.rx_delay, told, "{of_network:?}, {of_profile}");
    }
}

/// Copies are waited for as long as is set.
#[tokio::test(start_paused = true)]
async fn the_time_for_copies_is_the_networks() {
    for (delay, gateways) in [("0ms", 1), ("600ms", 2)] {
        let net = Net::new("eu868", 1).await;
        net.set(&[("deduplication_delay", Some(delay))]).await;
        net.personalize().await;
        let phy = uplink(0, false);
        let first = net.give(0, net.frame(1, CHANNEL, &phy, 7));
        tokio::time::sleep(Duration::from_millis(400)).await;
        let second = net.give(0, net.frame(2, CHANNEL, &phy, 7));
        first.await.unwrap();
        second.await.unwrap();
        let events = net.webhook.events.lock().clone();
        let [Event { kind: EventKind::Up(up), .. }] = &events[..] else { panic!("not one uplink: {events:?}") };
        assert_eq!(up.receptions.len(), gateways, "{delay}");
    }
}
