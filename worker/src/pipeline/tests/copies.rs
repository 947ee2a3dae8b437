//! Copies on channels that a frame was not sent on, copies that are still coming, copies that the store does not give back.

use super::*;

const GHOST: u32 = 867_300_000;
const SENT: u32 = 868_300_000;

impl Net {
    /// One datagram with a packet for each (frequency, RSSI, SNR).
    fn heard_as(&self, gateway: u64, phy: &[u8], copies: &[(u32, i32, f32)]) -> UplinkFrame {
        let packet = |&(frequency, rssi, snr): &(u32, i32, f32)| {
            let mut rxpk = Rxpk::new(frequency, self.region.modulation(5).unwrap().into(), phy.to_vec());
            (rxpk.tmst, rxpk.rssi, rxpk.lsnr) = (Some(7), Some(rssi), Some(snr));
            rxpk
        };
        let json = gwmp::push_data_json(&copies.iter().map(packet).collect::<Vec<_>>(), None);
        let datagram = gwmp::push_data(2, 1, Eui64(gateway), &json).into();
        UplinkFrame { datagram, ..self.frame(gateway, CHANNEL, phy, 7) }
    }

    fn up(&self, index: usize) -> UpEvent {
        let event = self.webhook.events.lock()[index].clone();
        let EventKind::Up(up) = event.kind else { panic!("no up event: {event:?}") };
        up
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_heard_on_a_ghost_channel_too_is_one_on_the_channel_it_was_sent_on() {
    let net = Net::new("eu868", 2).await;
    net.personalize().await;
    for (fcnt, copies) in
        [[(GHOST, -100, 12.0), (SENT, -35, 7.0)], [(SENT, -35, 7.0), (GHOST, -100, 12.0)]].into_iter().enumerate()
    {
        let phy = uplink(fcnt as u32, true);
        let frames =
            [net.give(0, net.heard_as(1, &phy, &copies)), net.give(1, net.heard_as(2, &phy, &[(SENT, -110, -5.0)]))];
        for frame in frames {
            assert_eq!(frame.await.unwrap(), DONE);
        }
        let up = net.up(fcnt);
        assert_eq!(up.frequency, SENT);
        let heard: Vec<_> = up.receptions.iter().map(|r| (r.gateway.0, r.rx.rssi)).collect();
        assert_eq!(heard, [(1, -35), (2, -110)]);
        let sent = txpk(&net.downlinks()[fcnt], 0);
        assert_eq!((sent.freq, net.downlinks()[fcnt].gateway), (SENT, 1));
    }
    assert_eq!((net.webhook.ups().len(), net.downlinks().len()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_join_heard_on_a_ghost_channel_too_is_answered_on_its_own() {
    let net = Net::new("eu868", 1).await;
    let phy = JoinRequest::build(Eui64(9), DEVICE, 1, &APP_KEY);
    net.give(0, net.heard_as(1, &phy, &[(GHOST, -100, 12.0), (SENT, -35, 7.0)])).await.unwrap();
    assert_eq!(net.downlinks().len(), 1);
    assert_eq!(txpk(&net.downlinks()[0], 0).freq, SENT);
}

/// A device that hears no ACK repeats, on a channel of its choice.
#[tokio::test(start_paused = true)]
async fn a_repetition_on_another_channel_is_another_transmission() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    let phy = uplink(0, true);
    for frequency in [868_100_000, 868_500_000, 868_100_000] {
        net.give(0, net.frame(1, frequency, &phy, 5)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
    let answered: Vec<_> = net.downlinks().iter().map(|d| txpk(d, 0).freq).collect();
    assert_eq!(answered, [868_100_000, 868_500_000, 868_100_000]);
    assert_eq!(net.webhook.ups().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_sweep_waits_for_the_copies_that_another_worker_is_waiting_for() {
    let net = Net::new("eu868", 2).await;
    net.personalize().await;
    let phy = uplink(0, false);
    let (weak, strong) = ([(SENT, -110, -5.0)], [(SENT, -40, 9.0)]);
    let first = net.give(0, net.heard_as(2, &phy, &weak));
    tokio::time::sleep(Duration::from_millis(20)).await;
    let sweeping = tokio::spawn({
        let other = net.workers[1].clone();
        async move { sweep(&other).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let second = net.give(0, net.heard_as(1, &phy, &strong));
    for frame in [first, second] {
        assert_eq!(frame.await.unwrap(), DONE);
    }
    assert_eq!(sweeping.await.unwrap(), Some(0), "its worker saw to it");
    assert_eq!(net.up(0).receptions.iter().map(|r| r.gateway.0).collect::<Vec<_>>(), [1, 2]);
}

/// The store was away for longer than it keeps receptions.
#[tokio::test(start_paused = true)]
async fn an_uplink_that_the_store_keeps_no_more_is_told_all_the_same() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    let frame = net.frame(1, CHANNEL, &uplink(0, false), 5);
    tokio::time::sleep(Duration::from_secs(7200)).await;
    net.store.expire_receptions(net.clock.now() - Duration::from_secs(3600)).await.unwrap();
    assert_eq!(net.give(0, frame).await.unwrap(), DONE);
    assert_eq!(net.webhook.ups().len(), 1);
}

/// Each packet says that it was heard at another moment.
#[tokio::test(start_paused = true)]
async fn a_frame_that_is_replayed_without_end_fills_no_store() {
    let net = Net::new("eu868", 1).await;
    net.personalize().await;
    let phy = uplink(0, false);
    let packet = |tmst| {
        let mut rxpk = Rxpk::new(CHANNEL, net.region.modulation(5).unwrap().into(), phy.clone());
        (rxpk.tmst, rxpk.rssi, rxpk.lsnr) = (Some(tmst), Some(-80), Some(5.0));
        rxpk
    };
    for round in 0..20 {
        let packets: Vec<_> = (0..50).map(|n| packet(50 * round + n)).collect();
        let datagram = gwmp::push_data(2, 1, Eui64(1), &gwmp::push_data_json(&packets, None)).into();
        let frame = UplinkFrame { datagram, ..net.frame(1, CHANNEL, &phy, 0) };
        assert_eq!(net.give(0, frame).await.unwrap(), DONE);
    }
    // A copy that another gateway heard.
    assert_eq!(net.give(0, net.frame(2, CHANNEL, &phy, 7)).await.unwrap(), DONE);
    let key = limpet_worker_core::ident::dedup_key(&phy);
    let stored = net.store.receptions(key).await.unwrap();
    assert!(stored.len() <= 2 * 256 + 1, "{}", stored.len());
    assert!(stored.iter().any(|reception| reception.gateway == Eui64(2)));
    assert_eq!(net.webhook.ups().len(), 1);
}
